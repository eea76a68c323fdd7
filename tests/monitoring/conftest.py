"""promtool, Debian's: the machine's own, or unpacked into the cache without being installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from modelyard.controller.sources import cache_directory


@pytest.fixture(scope="session")
def promtool() -> str:
    """Return its path. Skips where it cannot be had."""
    found = shutil.which("promtool")
    if found:
        return found
    cached = cache_directory() / "promtool"
    cached.mkdir(parents=True, exist_ok=True)
    # Several processes of pytest may want it at once.
    with open(cached / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cached / "promtool").exists():
            fetch(cached / "promtool")
    return str(cached / "promtool")


def apt_get(*arguments: str, cwd: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def fetch(destination: Path) -> None:
    """Take it out of Debian's package."""
    if not shutil.which("apt-get"):
        pytest.skip("no promtool in the path, and no apt-get to fetch Debian's")
    with tempfile.TemporaryDirectory(dir=destination.parent) as work:
        # apt's sandbox user has to write here; the package lists may be older than the mirror, or
        # absent.
        os.chmod(work, 0o777)
        done = apt_get("download", "prometheus", cwd=work)
        if done.returncode:
            apt_get("update", cwd=work)
            done = apt_get("download", "prometheus", cwd=work)
        packages = list(Path(work).glob("prometheus_*.deb"))
        if not packages:
            pytest.skip(
                f"Debian's package of promtool cannot be fetched: {done.stderr.strip()[-300:]}"
            )
        subprocess.run(["dpkg-deb", "-x", packages[0], work], check=True)
        Path(work, "usr/bin/promtool").rename(destination)
