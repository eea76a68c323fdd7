"""Taking a host out of the front end's pools: what HAProxy is told, and when it is over."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest
from ansible.module_utils import modelyard_pools
from ansible.module_utils.modelyard_host import ServiceError
from ansible.module_utils.modelyard_pools import Pools, left_drained, survey
from ansible.module_utils.modelyard_proxy import Door
from ansible.module_utils.modelyard_sockets import Connection, Holder

A, B = "pool.a.x", "pool.b"


class FakeDoor(Door):
    """An HAProxy with three hosts in two pools."""

    def __init__(self) -> None:
        self.state = {(A, "gpu1"): "UP", (A, "gpu2"): "UP", (B, "gpu1"): "UP"}
        self.busy = {(A, "gpu1"): 0, (B, "gpu1"): 0}
        self.queued: dict[str, int] = {}
        self.admin: dict[tuple[str, str], int] = {}
        self.told: list[str] = []
        self.asked = 0

    def exists(self) -> bool:
        return True

    def ask(self, command: str) -> str:
        if command == "show stat":
            self.asked += 1
            return self.show_stat()
        if command == "show servers state":
            # As HAProxy 2.6 answers: the version of the format, the names, a line per server.
            lines = ["1", "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state"]
            for pool, host in self.state:
                lines.append(f"3 {pool} 1 {host} 192.0.2.1 2 {self.admin.get((pool, host), 0)}")
            return "\n".join([*lines, ""])
        self.told.append(command)
        _set, _server, server, _state, state = command.split()
        pool, host = server.split("/")
        if (pool, host) not in self.state:
            return "No such server."
        self.state[pool, host] = {"drain": "DRAIN", "ready": "UP"}[state]
        self.admin[pool, host] = {"drain": 8, "ready": 0}[state]
        return ""

    def show_stat(self) -> str:
        lines = [
            "# pxname,svname,qcur,scur,status,lastchg,check_desc,last_chk,addr",
            "gateway,blue,0,1,UP,5,,,127.0.0.1:4001",
        ]
        for (pool, host), status in self.state.items():
            count = max(0, self.busy.get((pool, host), 0) - self.asked)
            check = "Layer4 connection problem,refused" if status == "DOWN" else ","
            address = f"192.0.2.{host[-1]}:8080"
            lines.append(f"{pool},{host},,{count},{status},60,{check},{address}")
        for pool in dict.fromkeys(pool for pool, _host in self.state):
            lines.append(f"{pool},BACKEND,{self.queued.get(pool, 0)},0,UP,5,,,")
        return "\n".join([*lines, ""])


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the host's programs were called with, and its connections."""
    seen: dict[str, Any] = {"ran": [], "connections": [], "holders": {}, "rc": 0, "out": ""}

    def run(argv: list[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        seen["ran"].append(argv)
        return subprocess.CompletedProcess(argv, seen["rc"], seen["out"], "no bus")

    monkeypatch.setattr(modelyard_pools, "run", run)
    monkeypatch.setattr(modelyard_pools, "connections", lambda: seen["connections"])
    monkeypatch.setattr(modelyard_pools, "holders", lambda inodes: seen["holders"])
    monkeypatch.setattr(modelyard_pools, "EVERY_S", 0)
    return seen


def test_a_drain_waits_until_nothing_is_in_flight(door: FakeDoor, host: dict[str, Any]) -> None:
    door.busy[A, "gpu1"] = 6
    pools = Pools(door, "gpu1")
    assert pools.names == [A, B]
    assert pools.drain(10, 600) == {}
    assert door.told == [f"set server {A}/gpu1 state drain", f"set server {B}/gpu1 state drain"]
    assert door.asked >= 6
    assert pools.drained() == [A, B]
    door.state[A, "gpu1"] = "DOWN"
    assert pools.drained() == [A, B], "its engine restarts"
    assert door.state[A, "gpu2"] == "UP"


def test_a_drain_has_an_end_before_it_begins(door: FakeDoor, host: dict[str, Any]) -> None:
    Pools(door, "gpu1", [A]).drain(1, 600)
    stop, timer = host["ran"]
    name = f"modelyard-ready-{A}-gpu1"
    assert stop == ["systemctl", "stop", f"{name}.timer"]
    assert {f"--unit={name}", "--on-active=600s", "--collect"} <= set(timer)
    assert timer[-1] == f"set server {A}/gpu1 state ready"
    host["rc"] = 1
    with pytest.raises(ServiceError, match="no end of the drain could be planned: no bus"):
        Pools(door, "gpu1", [B]).drain(1, 600)
    assert door.state[B, "gpu1"] == "UP", "what would not end does not begin"


def test_what_does_not_end_in_time_is_said(door: FakeDoor, host: dict[str, Any]) -> None:
    door.busy[B, "gpu1"] = 10**9
    (left,) = Pools(door, "gpu1").drain(0, 600)
    assert left == B


def test_the_time_that_a_host_was_drained_already_counts(
    door: FakeDoor, host: dict[str, Any]
) -> None:
    """One front end after the other is waited for, but all were told at once."""
    door.busy[B, "gpu1"] = 10**9
    Pools(door, "gpu1").drain(0, 600)
    began = time.monotonic()
    assert list(Pools(door, "gpu1").drain(60.2, 600)) == [B], "60 s ago, HAProxy says"
    assert 0.2 <= time.monotonic() - began < 5
    assert len(host["ran"]) == 8, "its end is put off"


def test_streams_of_a_front_end_that_was_reloaded_count(
    door: FakeDoor, host: dict[str, Any]
) -> None:
    host["connections"] = [
        Connection("192.0.2.1:8080", "1"),  # HAProxy's
        Connection("192.0.2.1:8080", "2"),  # Prometheus'
        Connection("192.0.2.2:8080", "3"),  # HAProxy's, to another host
    ]
    front, other = Holder("modelyard-haproxy.service", "haproxy", 1), Holder("x.service", "x", 2)
    host["holders"] = {"1": front, "2": other, "3": front}
    assert Pools(door, "gpu1", [A]).in_flight() == {A: 1}


def test_a_host_comes_back(door: FakeDoor, host: dict[str, Any]) -> None:
    pools = Pools(door, "gpu1")
    pools.drain(1, 600)
    host["ran"].clear()
    assert pools.ready(1) == []
    assert pools.drained() == []
    assert [argv[:2] for argv in host["ran"]] == [["systemctl", "stop"]] * 2
    door.state[B, "gpu1"] = "DOWN"
    assert pools.down() == [B]


def test_a_host_that_is_not_there(door: FakeDoor, host: dict[str, Any]) -> None:
    assert Pools(door, "gpu3").names == []
    assert Pools(door, "gpu2", [A, B, "pool.new"]).names == [A], "the others do not have it yet"


def test_only_what_a_run_left_drained_is_put_back(door: FakeDoor, host: dict[str, Any]) -> None:
    assert left_drained(door) == {}
    Pools(door, "gpu1", [A]).drain(0, 600)
    door.admin[A, "gpu2"] = 8  # by hand: it has no end
    host["out"] = f"Id=modelyard-ready-{A}-gpu1.timer\nDescription=gpu1 is back at 2027\n"
    assert left_drained(door) == {"gpu1": [A]}
    Pools(door, "gpu1", [A]).ready(0)
    assert left_drained(door) == {}


def test_a_front_end_that_does_not_run_has_no_pools(
    door: FakeDoor, host: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "exists", lambda: False)
    monkeypatch.setattr(door, "ask", lambda command: pytest.fail(f"asked for {command}"))
    pools = Pools(door, "gpu1", [A])
    assert (pools.names, pools.drain(1, 600), pools.ready(1)) == ([], {}, [])
    assert door.told == []


def test_how_the_front_end_sees_its_pools(
    door: FakeDoor, host: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modelyard_pools.time, "time", lambda: 1_800_000_600.0)
    door.state |= {(A, "gpu3"): "UP", (B, "gpu2"): "DOWN"}
    door.queued = {A: 3}
    assert survey(door)[A]["waiting"] == 3
    assert host["ran"] == [], "without a drain nothing else is asked"
    Pools(door, "gpu1", [A]).drain(0, 600)
    ended = next(word for word in host["ran"][1] if word.startswith("--description="))
    host["out"] = f"Id=modelyard-ready-{A}-gpu1.timer\n{ended.removeprefix('--')}\n".replace(
        "description", "Description"
    )
    # Its engine stops, and HAProxy shows it as down, no longer as drained.
    door.state[A, "gpu1"] = "DOWN"
    door.admin |= {(A, "gpu2"): 8, (A, "gpu3"): 1}
    host["connections"] = [Connection("192.0.2.1:8080", "1")]
    host["holders"] = {"1": Holder("modelyard-haproxy.service", "haproxy", 1)}
    found = survey(door)
    assert list(found) == [A, B], "the gateway's slots are no pool"
    down = {"since": "2027-01-15T08:09:00Z", "why": "Layer4 connection problem, refused"}
    assert found[A]["hosts"]["gpu1"] == {
        **down,
        "state": "drained",
        "in_flight": 1,
        "until": "2027-01-15T08:20:00Z",
    }
    assert found[B]["hosts"]["gpu2"] == {**down, "state": "down", "in_flight": 0, "until": None}
    states = {name: (one["state"], one["until"]) for name, one in found[A]["hosts"].items()}
    assert states["gpu2"] == ("drained", None), "by hand: it has no end"
    assert states["gpu3"] == ("stopped", None)
    assert found[B]["hosts"]["gpu1"]["state"] == "up"
    assert found[B]["hosts"]["gpu1"]["why"] == ""
