"""The lock of a run on a host: who is changing it, from where and since when.

    /run/modelyard.lock   gone after a boot

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.modelyard_host import read_text, write_atomically

PATH = "/run/modelyard.lock"
SILENCE_S = 2 * 3600
"""A run that was not heard of for so long has ended without a word, or waits for something that
takes longer than any build of ours."""


def owner(path: str = PATH) -> dict[str, Any] | None:
    """Return what the run that has the lock says of itself, with `heard`, when it last called
    (seconds since 1970, of this host); None if there is none, or a damaged one.
    """
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(read_text(path) or "null")
        if isinstance(found, dict) and "run" in found:
            return {**found, "heard": os.stat(path).st_mtime}
    return None


def take(
    mine: dict[str, Any], over: str = "", *, look: bool = False, path: str = PATH
) -> dict[str, Any] | None:
    """Take the lock. Returns the owner if another run has it.

    `mine` has a `run`, which tells runs apart. `over` is a run that the caller knows has ended.
    `look` takes nothing. Raises OSError.
    """
    with _alone(path):
        found = owner(path)
        if found and found["run"] not in (mine["run"], over) and not _silent(found):
            return found
        if not look:
            write_atomically(path, json.dumps(mine) + "\n", 0o600)
    return None


def release(run: str, path: str = PATH) -> bool:
    """Give the lock back if this run has it. Returns whether it had. Raises OSError."""
    if not os.path.exists(path):
        return False
    with _alone(path):
        found = owner(path)
        if found and found["run"] == run:
            os.unlink(path)
            return True
    return False


def heard(path: str = PATH) -> None:
    """Note that the run which has the lock goes on. To be called by what changes a host."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _silent(found: dict[str, Any]) -> bool:
    # A clock that was set back makes it look as if it was heard of in the future.
    return abs(time.time() - float(found["heard"])) > SILENCE_S


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keep other processes of this host out for a moment, by a lock on the directory: no file of
    ours is left in it.
    """
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
