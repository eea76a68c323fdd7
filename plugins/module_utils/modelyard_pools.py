"""Taking a host out of the front end's pools, and putting it back.

A host that is drained gets no new requests, and those in flight go on. The state is HAProxy's own,
so a reload ends it; and a timer on the host ends it if nobody does, because whoever drained it may
be gone.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping

from ansible.module_utils.modelyard_host import ServiceError, run
from ansible.module_utils.modelyard_proxy import Door
from ansible.module_utils.modelyard_sockets import connections, holders

PREFIX = "pool."
"""What the names of pools begin with (src/modelyard/names.py, `pool_name`)."""

UNIT = "modelyard-haproxy.service"
EVERY_S = 0.2

HEAL = (
    "import socket, sys\n"
    "with socket.socket(socket.AF_UNIX) as client:\n"
    "    client.settimeout(5)\n"
    "    client.connect(sys.argv[1])\n"
    "    client.sendall((sys.argv[2] + '\\n').encode())\n"
    "    client.recv(4096)\n"
)
"""What a timer runs: the socket, and one command."""

Row = Mapping[str, str]


class Pools:
    """The pools that one host is in. `host` is its name there."""

    def __init__(self, door: Door, host: str, names: Iterable[str] | None = None) -> None:
        """Look the host up, in those of the pools `names` that have it. A front end that does not
        run has none. Raises ServiceError.
        """
        self.door = door
        self.host = host
        found = self._rows() if door.exists() else {}
        self.names = [name for name in found if names is None or name in names]

    def _rows(self) -> dict[str, Row]:
        """Return HAProxy's statistics of the host, by pool."""
        return {
            row["pxname"]: row
            for row in self.door.rows()
            if row["pxname"].startswith(PREFIX) and row["svname"] == self.host
        }

    def rows(self) -> dict[str, Row]:
        """Return HAProxy's statistics of the host in the pools concerned. Raises ServiceError."""
        found = self._rows()
        return {name: found[name] for name in self.names if name in found}

    def drained(self) -> list[str]:
        """Return the pools in which the host is drained. Raises ServiceError."""
        return [name for name, row in self.rows().items() if row["status"].startswith("DRAIN")]

    def in_flight(self) -> dict[str, int]:
        """Return how many requests the host has, by pool, but for pools where it has none.

        A front end that was reloaded goes on with its streams in a former process, which its
        socket does not tell of: its connections are counted. Raises ServiceError.
        """
        rows = self.rows()
        open_now = connections()
        inodes = {one.inode for one in open_now}
        ours = {inode for inode, holder in holders(inodes).items() if holder.unit == UNIT}
        there: dict[str, int] = {}
        for one in open_now:
            if one.inode in ours:
                there[one.remote] = there.get(one.remote, 0) + 1
        found = {
            name: max(int(row["scur"] or 0), there.get(row["addr"], 0))
            for name, row in rows.items()
        }
        return {name: count for name, count in found.items() if count}

    def drain(self, wait_s: float, end_s: float) -> dict[str, int]:
        """Drain the host, wait until it has no request or `wait_s` seconds have passed, and return
        what is in flight then, by pool. After `end_s` seconds it is ready again by itself.

        Raises ServiceError.
        """
        for name in self.names:
            # First the end, then what it ends.
            self._plan_end(name, end_s)
            self._set(name, "drain")
        deadline = time.monotonic() + wait_s
        while (left := self.in_flight()) and time.monotonic() < deadline:
            time.sleep(EVERY_S)
        return left

    def ready(self, wait_s: float) -> list[str]:
        """Put the host back, and wait until it is up or `wait_s` seconds have passed. Return the
        pools in which it is not. Raises ServiceError.
        """
        for name in self.names:
            self._set(name, "ready")
            self._forget_end(name)
        deadline = time.monotonic() + wait_s
        while (down := self.down()) and time.monotonic() < deadline:
            time.sleep(EVERY_S)
        return down

    def down(self) -> list[str]:
        """Return the pools in which the host is not up. Raises ServiceError."""
        return [name for name, row in self.rows().items() if not row["status"].startswith("UP")]

    def _set(self, name: str, state: str) -> None:
        if answer := self.door.ask(self._command(name, state)):
            raise ServiceError(f"the front end refused {state} of {name}/{self.host}: {answer}")

    def _command(self, name: str, state: str) -> str:
        return f"set server {name}/{self.host} state {state}"

    def _timer(self, name: str) -> str:
        return f"modelyard-ready-{name}-{self.host}"

    def _plan_end(self, name: str, end_s: float) -> None:
        self._forget_end(name)
        words = [sys.executable, "-c", HEAL, self.door.SOCKET, self._command(name, "ready")]
        timer = ["systemd-run", f"--unit={self._timer(name)}", "--collect", "--quiet"]
        done = run([*timer, f"--on-active={end_s:.0f}s", "--timer-property=AccuracySec=1s", *words])
        if done.returncode:
            raise ServiceError(f"no end of the drain could be planned: {done.stderr.strip()}")

    def _forget_end(self, name: str) -> None:
        run(["systemctl", "stop", f"{self._timer(name)}.timer"])
