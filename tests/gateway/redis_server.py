"""A real Redis for the gateway, which a test stops, freezes and slows down."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import yaml
from harness import CLONE, secret
from stubs import Stubs

from modelyard.names import GATEWAY_USER, REDIS_NAMESPACE, REDIS_PASSWORD

PROGRAM = "/usr/bin/redis-check-rdb"
"""Of Debian's redis-tools, and the server, too, when it is called so. The package of the server
would start one."""

START_S = 10


@dataclass(slots=True)
class Redis:
    """A Redis server with the gateway's user and its rights of role redis, as a context manager."""

    address: str
    directory: Path
    """Its data; made by the caller."""
    port: int = 6379
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.stop()

    def start(self) -> None:
        """Start it, and wait until it listens. Raises AssertionError."""
        if shutil.which(PROGRAM) is None:
            raise AssertionError(
                f"{PROGRAM} is missing: apt-get install redis-tools (`make test` does)"
            )
        role = yaml.safe_load((CLONE / "roles/redis/vars/main.yml").read_text())
        commands = " ".join(f"+{command}" for command in role["__redis_gateway_commands"])
        acl = self.directory / "users.acl"
        rights = f"on >{secret(REDIS_PASSWORD)} ~{REDIS_NAMESPACE}:* -@all {commands}"
        acl.write_text(f"user default off\nuser {GATEWAY_USER} {rights}\n")
        options = {
            "bind": self.address,
            "port": str(self.port),
            "aclfile": str(acl),
            "save": "",
            "maxmemory": "64mb",
        }
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *words],
                executable=PROGRAM,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            command = ["redis-cli", "-h", self.address, "-p", str(self.port), "ping"]
            if (
                "NOAUTH"
                in subprocess.run(command, capture_output=True, text=True, check=False).stdout
            ):
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError("Redis did not get ready:\n" + (self.directory / "log").read_text())

    def stop(self) -> None:
        """Stop it: connections are refused."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait()
        self.process = None

    def freeze(self) -> None:
        """Let it accept connections and never answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass(slots=True)
class Delay:
    """A way to a server on which everything that the server says takes `seconds`. Runs on the
    stubs' loop."""

    stubs: Stubs
    address: str
    port: int
    target: tuple[str, int]
    seconds: float = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def __enter__(self) -> Self:
        self.stubs.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self.stubs.run(self._close())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, self.address, self.port)
        self.tasks.add(asyncio.create_task(server.serve_forever()))

    async def _close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_target, to_target = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        ways = (
            self._carry(reader, to_target, slow=False),
            self._carry(from_target, writer, slow=True),
        )
        tasks = [asyncio.create_task(way) for way in ways]
        self.tasks.update(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        self.tasks.difference_update(tasks)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool
    ) -> None:
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                if slow:
                    await asyncio.sleep(self.seconds)
                writer.write(part)
                await writer.drain()
        writer.close()
