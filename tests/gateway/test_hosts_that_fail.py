"""Hosts of a pool that refuse, are silent, die at work, hang or are busy: what a client sees, with
the real HAProxy between the gateway and its engines."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from front_end import FrontEnd, until
from harness import Answer, Gateway, compiled, plan
from stubs import Behaviour, Stub, Stubs

CATALOGUE = """\
llm_providers:
  pair:
    type: llama_cpp
    group: llm_pair
    port: 8080
    models:
      - {name: two, source: {path: /m.gguf}}
      - {name: busy, source: {path: /m.gguf}, port: 8081, queue_s: 1}
  single:
    type: llama_cpp
    group: llm_single
    port: 8082
    models:
      - {name: one, source: {path: /m.gguf}}
      - {name: last, source: {path: /m.gguf}, port: 8083}
  other: {type: openai_compatible, base_url: "http://192.0.2.23:8000/v1", models: [{name: spare}]}
llm_routing:
  default_fallbacks: [spare]
  fallbacks: {spare: {terminal: true}, last: {terminal: true}}
llm_gateway: {timeouts: {request_s: 20, stream_s: 20}}
"""
HOSTS = {"gpu1": "192.0.2.21", "gpu2": "192.0.2.22"}
FIRST, SECOND = HOSTS.values()
PORTS = {"two": 8080, "busy": 8081, "one": 8082, "last": 8083}
RESULT = compiled(CATALOGUE, {"llm_pair": ["gpu1", "gpu2"], "llm_single": ["gpu1"]}, HOSTS)

CHECKED_S = 4
"""A host that is out is back within a second of its next check, on a busy machine too."""
AT_ONCE_S = 1.5
"""What a request takes that waits for nothing, on a busy machine: half of it is HAProxy's wait
between two attempts."""


@pytest.fixture(scope="module")
def front_end(stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    stubs.listen("192.0.2.23", 8000)
    for host in HOSTS.values():
        for port in PORTS.values():
            stubs.listen(host, port)
    with FrontEnd(RESULT, tmp_path_factory.mktemp("front")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    environment: Path, front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("hosts")) as running:
        yield running


@pytest.fixture(autouse=True)
def well(stubs: Stubs, front_end: FrontEnd) -> Iterator[None]:
    """Begin with every host up, and leave stubs behind that answer."""
    until(lambda: "DOWN" not in front_end.states().values())
    yield
    stubs.behaviours.clear()
    for host in HOSTS.values():
        for port in PORTS.values():
            stub = stubs.listen(host, port)
            stub.behaviours.clear()
            stub.paths.clear()


@contextmanager
def away(*stubs: Stub) -> Iterator[None]:
    """Hosts whose engines refuse."""
    for stub in stubs:
        stub.stop()
    try:
        yield
    finally:
        for stub in stubs:
            stub.start()


@contextmanager
def silent(stub: Stub) -> Iterator[None]:
    """A host that is switched off: a listener whose queue is full answers no connection."""
    with away(stub), socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((stub.address, stub.port))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((stub.address, stub.port))
            waiting.append(client)
        time.sleep(0.1)
        try:
            yield
        finally:
            for client in waiting:
                client.close()


def answered(answers: list[Answer]) -> Counter[str]:
    assert {answer.status for answer in answers} == {200}
    return Counter(answer.text.removeprefix("I am ") for answer in answers)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_no_host_is_up(gateway: Gateway, stubs: Stubs, stream: bool) -> None:
    """The next step answers each time at once; nobody is left alone, so a host that is back serves
    as soon as its check says so."""
    with away(*(stubs.listen(host, PORTS["two"]) for host in HOSTS.values())):
        answers = [gateway.chat("two", stream=stream) for _ in range(6)]
        assert answered(answers) == {"spare": 6}
        assert max(answer.seconds for answer in answers) < AT_ONCE_S
    seconds = until(lambda: gateway.chat("two").text == "I am two", CHECKED_S)
    assert seconds < CHECKED_S


def test_the_only_host_of_the_last_step(gateway: Gateway, stubs: Stubs) -> None:
    """The client is told at once, in plain words and without an address."""
    with away(stubs.listen(FIRST, PORTS["last"])):
        answer = gateway.chat("last")
    assert (answer.status, answer.seconds < AT_ONCE_S) == (503, True)
    assert answer.error is not None
    assert "No engine of this model is free" in answer.error["message"]
    assert "127.0.0.1" not in str(answer.body)
    until(lambda: gateway.chat("last").status == 200, CHECKED_S)


def test_a_host_is_switched_off(gateway: Gateway, front_end: FrontEnd, stubs: Stubs) -> None:
    """It costs those that meet it the time-out of a connection, until its checks have failed."""
    with silent(stubs.listen(FIRST, PORTS["two"])):
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: gateway.chat("two"), range(30)))
        assert answered(answers) == {"two": 30}
        assert max(answer.seconds for answer in answers) < 2 * AT_ONCE_S
        until(lambda: front_end.states()["pool.pair.two", "gpu1"] == "DOWN", CHECKED_S)
        assert max(gateway.chat("two").seconds for _ in range(6)) < AT_ONCE_S


def test_the_only_host_is_switched_off(gateway: Gateway, front_end: FrontEnd, stubs: Stubs) -> None:
    with silent(stubs.listen(FIRST, PORTS["one"])):
        first = gateway.chat("one")
        assert (first.text, first.seconds < 2 * AT_ONCE_S) == ("I am spare", True)
        until(lambda: front_end.states()["pool.single.one", "gpu1"] == "DOWN", CHECKED_S)
        assert gateway.chat("one").text == "I am spare"
    until(lambda: gateway.chat("one").text == "I am one", CHECKED_S)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_engine_dies_before_it_answers(gateway: Gateway, stubs: Stubs, stream: bool) -> None:
    """The other host gets the same request: the gateway does not notice."""
    stubs.listen(FIRST, PORTS["two"]).behaviours["two"] = Behaviour(until="request", then="cut")
    with stubs.recording() as calls:
        answers = [gateway.chat("two", stream=stream) for _ in range(8)]
    assert answered(answers) == {"two": 8}
    assert FIRST in {call.server[0] for call in calls}
    assert {call.model for call in calls} == {"two"}


def test_an_engine_is_busy(gateway: Gateway, stubs: Stubs) -> None:
    """What is over `max_parallel` of all hosts waits, then the next step answers; nothing cools
    down."""
    stubs.behaviours["busy"] = Behaviour(pace_s=0.5)
    with stubs.recording() as calls, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: gateway.chat("busy", stream=True), range(4)))
    assert answered(answers) == {"busy": 2, "spare": 2}
    assert {call.server[0] for call in calls if call.model == "busy"} == {FIRST, SECOND}
    waited = [answer.seconds for answer in answers if answer.text == "I am spare"]
    assert all(1 <= seconds < 1 + AT_ONCE_S for seconds in waited)
    stubs.behaviours.clear()
    assert gateway.chat("busy").text == "I am busy"


@pytest.mark.full
def test_an_engine_hangs(gateway: Gateway, front_end: FrontEnd, stubs: Stubs) -> None:
    """Its check tells within seconds, without a request."""
    hanging = stubs.listen(FIRST, PORTS["two"])
    hanging.paths["/health"] = Behaviour(until="request")
    until(lambda: front_end.states()["pool.pair.two", "gpu1"] == "DOWN", 15)
    with stubs.recording() as calls:
        assert answered([gateway.chat("two") for _ in range(4)]) == {"two": 4}
    assert {call.server[0] for call in calls} == {SECOND}


def test_an_error_of_an_engine_that_is_well_cools_nothing_down(
    gateway: Gateway, stubs: Stubs
) -> None:
    """HAProxy says so: the engine itself is not asked."""
    stubs.behaviours["one"] = Behaviour(500, {"error": {"message": "stub: out of order"}})
    stubs.paths["/"] = Behaviour(404)
    assert answered([gateway.chat("one") for _ in range(4)]) == {"spare": 4}
    stubs.behaviours.clear()
    stubs.paths.clear()
    assert gateway.chat("one").text == "I am one"


def test_a_pool_that_is_gone(front_end: FrontEnd) -> None:
    """Of a slot that is about to end, and of whoever guesses: no other backend is reached."""
    for path in ("/pool.gone/v1/models", "/gateway/v1/models", "/v1/models", "/", "/pool.gone"):
        with socket.create_connection(("127.0.0.1", front_end.part["pool_port"]), 5) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            said = client.makefile("rb").read()
        assert said.startswith(b"HTTP/1.1 503")
        assert b'"code":"engine_away"' in said
