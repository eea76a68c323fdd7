"""The memory of a worker: one that has grown too large finishes its requests, ends, and is replaced."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path

from modelyard_gateway.clients import say

EVERY_S = 2.0
PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


async def watch(limit: int, directory: Path) -> None:
    """Ask uvicorn to end this worker when it is larger than `limit` bytes, one worker at a time.

    The lock is held until the process has ended. Its parent starts another in its place.
    """
    lock = os.open(directory / "replaced.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    while True:
        await asyncio.sleep(EVERY_S)
        size = resident()
        if size <= limit:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        say(f"worker {os.getpid()} has {size >> 20} MiB, more than {limit >> 20}: it finishes and is replaced")
        os.kill(os.getpid(), signal.SIGTERM)
        return
