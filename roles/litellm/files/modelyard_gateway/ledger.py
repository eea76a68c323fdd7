"""Which requests have reached an upstream, so that one that was cut before can be asked again.

The front end sends a request again, with the same id, when its connection to the gateway ended
without a byte: a worker was killed. If an engine had the request by then it may be answering it,
and must not get it twice. So each worker notes on a file system in memory which requests it has and
whether an upstream was asked; what outlives it is what it cut.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from modelyard_gateway.errors import Refusal

HEADER = b"x-modelyard-request"
ID = re.compile(rb"[0-9A-Za-z-]{8,64}")
TRIES = 2
"""A request that was here when two workers died is more likely to be the cause than the victim."""
KEPT_S = 3600
"""Nobody sends a request again after so long."""


@dataclass(slots=True)
class Note:
    """What is known about the request that is being answered."""

    file: Path | None
    """None: it is not from the front end, and is not sent again."""
    again: bool = False
    """It was here before."""
    asked: bool = False
    """An upstream has it."""


CURRENT: ContextVar[Note | None] = ContextVar("modelyard_request", default=None)


class Ledger:
    """The notes of all workers of a slot."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        for note in directory.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - note.stat().st_mtime > KEPT_S:
                    note.unlink()

    @contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Note]:
        """Note that a request is here, as long as it is.

        Raises Refusal for one that may have been answered (502).
        """
        name = next((value for header, value in headers if header == HEADER), b"")
        note = Note(self.directory / name.decode() if ID.fullmatch(name) else None)
        if note.file is not None:
            with note.file.open("ab") as file:
                tries = file.tell() + 1
                file.write(b"t")
            if tries > TRIES or asked(note.file).exists():
                raise Refusal(502, "The gateway was interrupted while it answered.")
            note.again = tries > 1
        token = CURRENT.set(note)
        try:
            yield note
        finally:
            CURRENT.reset(token)
            if note.file is not None:
                for path in (note.file, asked(note.file)):
                    with suppress(FileNotFoundError):
                        os.unlink(path)


def asked(file: Path) -> Path:
    """The file that says that an upstream has a request."""
    return file.with_suffix(".asked")


class Asks(CustomLogger):
    """LiteLLM's word that it is about to ask an upstream."""

    def log_pre_api_call(self, model: str, messages: Any, kwargs: dict[str, Any]) -> None:
        """Note it. Called in the task that answers the request."""
        note = CURRENT.get()
        if note is not None and not note.asked:
            note.asked = True
            if note.file is not None:
                asked(note.file).touch()
