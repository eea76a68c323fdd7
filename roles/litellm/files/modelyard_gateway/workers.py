"""The memory of a worker: one that has grown too large finishes its requests, ends, and is
replaced.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

from modelyard_gateway.journal import say

EVERY_S = 2.0
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Workers:
    """The workers of a slot that are ready, each with a file named after its process."""

    def __init__(self, directory: Path, wanted: int) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.wanted = wanted

    def enter(self) -> None:
        """This worker is ready."""
        (self.directory / str(os.getpid())).touch()

    def complete(self) -> bool:
        """Whether all are ready, so that one can go."""
        return sum(map(self._lives, self.directory.glob("[0-9]*"))) >= self.wanted

    def _lives(self, file: Path) -> bool:
        try:
            os.kill(int(file.name), 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):
                file.unlink()
            return False
        return True

    async def watch(self, limit: int) -> None:
        """Let uvicorn end this worker when it has more than `limit` bytes of memory and all others
        are ready.

        The lock is held until the process has ended: it may have streams for a while. Its parent
        then starts another.
        """
        lock = os.open(self.directory / "leaving", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        while True:
            await asyncio.sleep(EVERY_S)
            size = resident()
            if size <= limit or not self.complete():
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            say(
                f"worker {os.getpid()} has {size >> 20} MiB, more than {limit >> 20}: it finishes"
                " and is replaced"
            )
            os.kill(os.getpid(), signal.SIGTERM)
            return
