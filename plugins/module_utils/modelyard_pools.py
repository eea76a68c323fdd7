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
from typing import Any

from ansible.module_utils.modelyard_host import ServiceError, run, utc
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

STOPPED, DRAINED = 0x01, 0x08
"""Bits of HAProxy's administrative state: forced maintenance, forced drain."""

Row = Mapping[str, str]


def timer(pool: str, host: str) -> str:
    """Return the name of the timer that ends a drain, without its suffix."""
    return f"modelyard-ready-{pool}-{host}"


def open_connections() -> dict[str, int]:
    """Return how many connections the front end has, its former processes included, by where they
    lead (ADDRESS:PORT).
    """
    open_now = connections()
    inodes = {one.inode for one in open_now}
    ours = {inode for inode, holder in holders(inodes).items() if holder.unit == UNIT}
    there: dict[str, int] = {}
    for one in open_now:
        if one.inode in ours:
            there[one.remote] = there.get(one.remote, 0) + 1
    return there


def requests_of(row: Row, there: Mapping[str, int]) -> int:
    """Return how many requests a server has. A front end that was reloaded goes on with its streams
    in a former process, which its socket does not tell of: its connections are counted.
    """
    return max(int(row["scur"] or 0), there.get(row["addr"], 0))


class Pools:
    """The pools that one host is in. `host` is its name there."""

    def __init__(self, door: Door, host: str, names: Iterable[str] | None = None) -> None:
        """Look the host up, in those of the pools `names` that have it. A front end that does not
        run has none. Raises ServiceError.
        """
        self.door = door
        self.host = host
        found = self._rows()
        self.names = [name for name in found if names is None or name in names]

    def _rows(self) -> dict[str, Row]:
        """Return HAProxy's statistics of the host, by pool."""
        rows = self.door.rows() if self.door.exists() else []
        return {
            row["pxname"]: row
            for row in rows
            if row["pxname"].startswith(PREFIX) and row["svname"] == self.host
        }

    def rows(self) -> dict[str, Row]:
        """Return HAProxy's statistics of the host in the pools concerned. Raises ServiceError."""
        found = self._rows()
        return {name: found[name] for name in self.names if name in found}

    def drained(self) -> list[str]:
        """Return the pools in which the host is drained, whether it is up or, as while its engine
        restarts, down. Raises ServiceError.
        """
        states = self.door.administered() if self.names else {}
        return [name for name in self.names if states.get((name, self.host), 0) & DRAINED]

    def in_flight(self) -> dict[str, int]:
        """Return how many requests the host has, by pool, but for pools where it has none. Raises
        ServiceError.
        """
        there = open_connections()
        found = {name: requests_of(row, there) for name, row in self.rows().items()}
        return {name: count for name, count in found.items() if count}

    def drain(self, wait_s: float, end_s: float) -> dict[str, int]:
        """Drain the host, wait until it has no request or was drained for `wait_s` seconds, and
        return what is in flight then, by pool. In `end_s` seconds it is ready again by itself.

        Raises ServiceError.
        """
        wait_s -= self._drained_for()
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

    def _drained_for(self) -> int:
        """Return for how many seconds the host has been drained in all pools concerned."""
        rows = self.rows().values()
        since = [int(row["lastchg"] or 0) for row in rows if row["status"].startswith("DRAIN")]
        return min(since) if len(since) == len(rows) and since else 0

    def _set(self, name: str, state: str) -> None:
        if answer := self.door.ask(self._command(name, state)):
            raise ServiceError(f"the front end refused {state} of {name}/{self.host}: {answer}")

    def _command(self, name: str, state: str) -> str:
        return f"set server {name}/{self.host} state {state}"

    def _plan_end(self, name: str, end_s: float) -> None:
        self._forget_end(name)
        words = [sys.executable, "-c", HEAL, self.door.SOCKET, self._command(name, "ready")]
        begun = ["systemd-run", f"--unit={timer(name, self.host)}", "--collect", "--quiet"]
        # `ends` reads the time there: systemd shows that of such a timer in words only.
        begun.append(f"--description={self.host} is back in {name} at {utc(time.time() + end_s)}")
        done = run([*begun, f"--on-active={end_s:.0f}s", "--timer-property=AccuracySec=1s", *words])
        if done.returncode:
            raise ServiceError(f"no end of the drain could be planned: {done.stderr.strip()}")

    def _forget_end(self, name: str) -> None:
        run(["systemctl", "stop", f"{timer(name, self.host)}.timer"])


def ends() -> dict[str, str]:
    """Return when drains end (UTC), by the name of the timer."""
    shown = run(["systemctl", "show", "--property=Id,Description", timer("*", "*") + ".timer"])
    found = {}
    for block in shown.stdout.split("\n\n"):
        unit = {
            key: value for key, _is, value in (line.partition("=") for line in block.splitlines())
        }
        when = unit.get("Description", "").rpartition(" at ")[2]
        found[unit.get("Id", "").removesuffix(".timer")] = when
    return found


def left_drained(door: Door) -> dict[str, list[str]]:
    """Return the pools in which each host is drained by a run, not by hand: those drains have an
    end. Raises ServiceError.
    """
    administered = door.administered() if door.exists() else {}
    drained = [server for server, state in administered.items() if state & DRAINED]
    until = ends() if drained else {}
    found: dict[str, list[str]] = {}
    for pool, host in drained:
        if timer(pool, host) in until:
            found.setdefault(host, []).append(pool)
    return found


def survey(door: Door) -> dict[str, dict[str, Any]]:
    """Return how the front end sees its pools, by name: `waiting`, requests in the queue, and
    `hosts`. A host has `state` (up, down, drained or stopped, the latter by hand), `since` (UTC),
    `why` (what its check said), `in_flight`, and of a drain `until` (UTC; None: it has no end).

    Raises ServiceError.
    """
    rows = [row for row in door.rows() if row["pxname"].startswith(PREFIX)]
    administered = door.administered()
    drains = any(state & DRAINED for state in administered.values())
    there, until = open_connections(), ends() if drains else {}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        pool, host = row["pxname"], row["svname"]
        one = found.setdefault(pool, {"waiting": 0, "hosts": {}})
        # What waits for whichever host is free counts for the pool, the rest for its host.
        one["waiting"] += int(row["qcur"] or 0)
        if host == "BACKEND":
            continue
        up = row["status"].startswith(("UP", "no check"))
        state = _state(administered.get((pool, host), 0), up)
        one["hosts"][host] = {
            "state": state,
            "since": utc(time.time() - int(row["lastchg"] or 0)),
            "why": "" if up else ", ".join(filter(None, (row["check_desc"], row["last_chk"]))),
            "in_flight": requests_of(row, there),
            "until": until.get(timer(pool, host)) if state == "drained" else None,
        }
    return found


def _state(administered: int, up: bool) -> str:
    if administered & STOPPED:
        return "stopped"
    if administered & DRAINED:
        return "drained"
    return "up" if up else "down"
