"""What a worker writes to the journal: nothing that a client sent or an engine answered.

LiteLLM logs an error with its text, which holds what the engine said, which repeats what the client
sent; some of its code, and libraries, print. From the moment a worker serves, a record is its place
and the kinds of its exceptions, and what is printed is lost. Before, while it starts, all is shown:
there is no request yet, and errors of the configuration need their words.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

FRAMES = 4
"""Calls that are shown of an exception, the last ones: enough to find it in the code."""


def say(text: str) -> None:
    """Write a line of ours to the journal."""
    print(f"modelyard: {text}", file=sys.__stderr__, flush=True)


def close() -> None:
    """Keep content out from now on; once in each process. Not undone."""
    # Replaced for all loggers on purpose, which mypy has no word for.
    logging.StreamHandler.emit = emit  # type: ignore[assignment, method-assign]
    threading.excepthook = lambda lost: say(f"a thread ended: {outlined(lost.exc_value)}")
    sys.stdout = sys.stderr = Nowhere()


def emit(_handler: logging.Handler, record: logging.LogRecord) -> None:
    """In the place of the method of all handlers that write: LiteLLM's, uvicorn's, Python's own."""
    print(described(record), file=sys.__stderr__, flush=True)


class Nowhere(io.TextIOBase):
    """In the place of a text stream: what is written is lost."""

    def write(self, text: str) -> int:
        """Lose a text."""
        return len(text)


def described(record: logging.LogRecord) -> str:
    """A record without its text."""
    text = f"{record.levelname} {record.name} at {PurePath(record.pathname).name}:{record.lineno}"
    if record.exc_info and record.exc_info[1]:
        return f"{text}: Traceback of {outlined(record.exc_info[1])}"
    # A message that is an error, or is made from one.
    arguments = record.args if isinstance(record.args, tuple) else ()
    given: list[Any] = [record.msg, *arguments]
    errors = [outlined(one) for one in given if isinstance(one, BaseException)]
    return f"{text}: {errors[0]}" if errors else text


def outlined(error: BaseException | None) -> str:
    """The kinds of an exception and its causes, and where it was raised."""
    if error is None:
        return "without an exception"
    kinds = ", caused by ".join(kind(one) for one in chain(error))
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = (f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{kinds} ({' > '.join(places)})"


def kind(error: BaseException) -> str:
    """The class of an exception and the HTTP status that it stands for."""
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__} {status}" if type(status) is int else type(error).__name__


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, what caused it, and so on, each once: one that is raised from itself has no
    end.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__
