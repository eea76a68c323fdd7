"""Requests that HAProxy holds while the only host of a pool without anybody behind it is away."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from front_end import FrontEnd, until
from harness import compiled
from stubs import Stub, Stubs

CATALOGUE = """\
llm_providers:
  single:
    type: llama_cpp
    group: llm_single
    port: 8080
    models:
      - {name: last, source: {path: /m.gguf}, queue_s: 10}
llm_routing: {default_fallbacks: [], fallbacks: {last: {terminal: true}}}
"""
HOST = "192.0.2.21"
RESULT = compiled(CATALOGUE, {"llm_single": ["gpu1"]}, {"gpu1": HOST})
POOL = "pool.single.last"
MOST = 500
"""So many are held of one pool (roles/haproxy/templates/haproxy.cfg.j2)."""


@pytest.fixture
def engine(stubs: Stubs) -> Stub:
    return stubs.listen(HOST, 8080)


@pytest.fixture
def front_end(engine: Stub, tmp_path: Path) -> Iterator[FrontEnd]:
    """A front end whose engine is away."""
    with FrontEnd(RESULT, tmp_path) as running:
        until(lambda: running.states()[POOL, "gpu1"] == "UP")
        engine.stop()
        until(lambda: running.states()[POOL, "gpu1"] == "DOWN")
        yield running


def ask(port: int) -> int:
    """Ask the pool and return the status of the answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"model": "last", "messages": []})
    client.request(
        "POST", f"/{POOL}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    status = client.getresponse().status
    client.close()
    return status


def test_a_reload_does_not_end_it(front_end: FrontEnd, engine: Stub) -> None:
    """The old process checks hosts no more, so it asks the engine itself."""
    assert front_end.process
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, front_end.part["pool_port"]) for _ in range(3)]
        until(lambda: front_end.count(POOL) == 3)
        front_end.process.send_signal(signal.SIGUSR1)
        time.sleep(0.7)
        engine.start()
        assert [one.result() for one in asked] == [200] * 3


def test_no_more_are_held_than_leave_room_for_others(front_end: FrontEnd, engine: Stub) -> None:
    """What is over it is refused at once."""
    with ThreadPoolExecutor(MOST + 20) as pool:
        asked = [pool.submit(ask, front_end.part["pool_port"]) for _ in range(MOST + 20)]
        until(lambda: sum(one.done() for one in asked) >= 20)
        assert {one.result() for one in asked if one.done()} == {503}
        engine.start()
        found = [one.result() for one in asked]
    assert MOST - 5 <= found.count(200) <= MOST
