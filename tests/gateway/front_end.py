"""A real HAProxy with the configuration of its role: in these tests only its pools are used."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import jinja2
from harness import CLONE

from modelyard.compile import Compiled
from modelyard.controller.sources import cache_directory
from modelyard.names import LOOPBACK

TEMPLATE = CLONE / "roles/haproxy/templates/haproxy.cfg.j2"
LUA = CLONE / "roles/haproxy/files/pools.lua"

PACKAGES = ("haproxy", "liblua5.3-0", "libopentracing1", "libopentracing-c-wrapper0")
"""Debian's, with those libraries that not every machine has."""

START_S = 10


def fetch() -> Path:
    """Return the directory of Debian's packages, unpacked: where they are installed, a service
    would start. Needs the package index the first time. Raises AssertionError.
    """
    place = cache_directory() / "haproxy"
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "root").exists():
            with tempfile.TemporaryDirectory(dir=place) as work:
                # apt's sandbox user has to write here.
                os.chmod(work, 0o777)
                _unpack(Path(work))
                (Path(work) / "root").rename(place / "root")
    return place / "root"


def _unpack(work: Path) -> None:
    for attempt in (["download"], ["update"], ["download"]):
        words = [*attempt, *(PACKAGES if attempt == ["download"] else ())]
        done = subprocess.run(
            ["apt-get", "-q", *words], cwd=work, capture_output=True, text=True, check=False
        )
        if attempt == ["download"] and done.returncode == 0:
            break
    packages = list(work.glob("*.deb"))
    assert len(packages) == len(PACKAGES), f"Debian's HAProxy cannot be fetched: {done.stderr}"
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)


def command() -> tuple[list[str], dict[str, str]]:
    """Return HAProxy's program and its environment: the one that is installed, or Debian's."""
    if found := shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin"):
        return [found], dict(os.environ)
    root = fetch()
    (libraries,) = (root / "usr/lib").glob("*-linux-gnu")
    return [str(root / "usr/sbin/haproxy")], {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def until(happens: Callable[[], bool], seconds: float = 20) -> float:
    """Wait until something happens and return how long that took. Raises AssertionError."""
    started = time.monotonic()
    while not happens():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        time.sleep(0.05)
    return time.monotonic() - started


@dataclass(slots=True)
class FrontEnd:
    """A running front end of a compiled plan's gateway `gw`, as a context manager. Without pools it
    starts nothing."""

    result: Compiled
    directory: Path
    """Its release; made by the caller."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def part(self) -> Mapping[str, Any]:
        """What the role gets."""
        found: Mapping[str, Any] = self.result.plans["gw"]["haproxy"]
        return found

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / "log"

    def __enter__(self) -> Self:
        if not self.part["pools"]:
            return self
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATE.parent), trim_blocks=True
        )
        text = environment.get_template(TEMPLATE.name).render(haproxy_plan=self.part)
        for old, new in (
            ("@RELEASE@", self.directory),
            ("/run/modelyard-haproxy", self.directory),
        ):
            text = text.replace(old, str(new))
        config = self.directory / "config/haproxy.cfg"
        config.parent.mkdir()
        config.write_text(text)
        shutil.copy(LUA, config.parent)
        program, variables = command()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, "-f", str(config)],
                env=variables,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError):
                socket.create_connection((LOOPBACK, self.part["pool_port"]), 1).close()
                return self
            time.sleep(0.05)
        self.__exit__()
        raise AssertionError(f"HAProxy did not start:\n{self.log.read_text()[-4000:]}")

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def ask(self, words: str) -> str:
        """Send one command to the admin socket and return the answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.directory / "admin.sock"))
            client.sendall(f"{words}\n".encode())
            answer = b""
            while part := client.recv(65536):
                answer += part
        return answer.decode()

    def states(self) -> dict[tuple[str, str], str]:
        """By pool and host, what HAProxy says of it."""
        lines = self.ask("show stat").removeprefix("# ").splitlines()
        names = lines[0].split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        return {
            (row["pxname"], row["svname"]): row["status"].split()[0]
            for row in rows
            if row["pxname"].startswith("pool.") and row["svname"] not in ("FRONTEND", "BACKEND")
        }
