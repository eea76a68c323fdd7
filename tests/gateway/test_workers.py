"""Processes of a slot that die, grow, or lose their client: what the requests that they have come
to."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from asking import ASKING
from harness import Gateway, compiled, plan, secret
from stubs import Behaviour, Call, Stubs

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}, {name: b}, {name: last}]}
llm_routing: {fallbacks: {a: {chain: [b, last]}, b: {chain: [last]}, last: {terminal: true}}}
llm_gateway: {cooldown_s: 0.2, timeouts: {request_s: 60, stream_s: 60}}
"""
RESULT = compiled(CATALOGUE)
HANGS = Behaviour(until="request", then="silence")
REPLACED_S = 60
"""A worker starts in 7 to 10 s on two cores; other tests may want them too."""


@contextmanager
def gateway_of(
    environment: Path, directory: Path, workers: int, worker_mib: int | None = None
) -> Iterator[Gateway]:
    changed = plan(RESULT)
    if worker_mib is not None:
        limits = {**changed["rules"]["limits"], "worker_mib": worker_mib}
        changed = {**changed, "rules": {**changed["rules"], "limits": limits}}
    with Gateway(environment, changed, directory, workers=workers) as running:
        wait_until(lambda: len(ready(running)) == workers, "not all workers are ready")
        yield running


@pytest.fixture(scope="module")
def running(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    with gateway_of(environment, tmp_path_factory.mktemp("workers"), workers=2) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, stubs: Stubs) -> Iterator[Gateway]:
    """Return the gateway; afterwards both workers are there and stubs answer."""
    yield running
    stubs.behaviours.clear()
    wait_until(lambda: len(ready(running)) == 2, "not all workers are ready")


def ready(gateway: Gateway) -> set[int]:
    """Workers that are ready, by their process."""
    found = set()
    for file in (gateway.directory / "run/modelyard-litellm-blue/workers").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            os.kill(int(file.name), 0)
            found.add(int(file.name))
    return found


def wait_until(condition: Callable[[], object], message: str, limit_s: float = REPLACED_S) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


def wait_for_one_more(
    calls: Sequence[Call], before: int, message: str, limit_s: float = REPLACED_S
) -> None:
    """Wait until there are more calls than `before`."""
    wait_until(lambda: len(calls) > before, message, limit_s)


def begin(
    gateway: Gateway,
    model: str,
    *,
    name: str | None = None,
    stream: bool = False,
    path: str = "chat/completions",
    body: Mapping[str, Any] = ASKING["chat/completions"],
) -> socket.socket:
    """Send a question and do not wait for the answer. `name` is the front end's id of the
    request."""
    text = json.dumps({"model": model, **body, **({"stream": True} if stream else {})})
    head = [
        f"POST /v1/{path} HTTP/1.1",
        f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}",
        f"Authorization: Bearer {secret('LITELLM_MASTER_KEY')}",
        *([f"X-Modelyard-Request: {name}"] if name else []),
    ]
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=REPLACED_S)
    connection.sendall("\r\n".join([*head, "", text]).encode())
    return connection


def answered(connection: socket.socket) -> int | None:
    """The status of the answer, None if the connection ended without one."""
    with connection, suppress(ConnectionError):
        line = connection.makefile("rb").readline()
        return int(line.split()[1]) if line else None
    return None


# -- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_frees_the_engine(
    gateway: Gateway, stubs: Stubs, stream: bool
) -> None:
    """At once, nobody else of the chain is asked, and it is no failure of the engine."""
    stubs.behaviours["a"] = HANGS
    for _ in range(3):
        with stubs.recording() as calls:
            asked, left = len(stubs.calls), len(stubs.left)
            connection = begin(gateway, "a", stream=stream)
            wait_for_one_more(stubs.calls, asked, "the engine was not asked")
            connection.close()
            wait_for_one_more(stubs.left, left, "the engine goes on", 2)
            time.sleep(0.3)
        assert [call.model for call in calls] == ["a"]
    stubs.behaviours.clear()
    with stubs.recording() as calls:
        assert [gateway.chat("a").status for _ in range(4)] == [200] * 4
    assert [call.model for call in calls] == ["a"] * 4, "it does not cool down"


def test_the_process_that_is_copied_has_one_thread(gateway: Gateway) -> None:
    """A copy has only the thread that made it; what others held stays locked."""
    assert gateway.process is not None
    assert len(os.listdir(f"/proc/{gateway.process.pid}/task")) == 1


# -- workers that die ------------------------------------------------------------------------------


def test_a_request_that_reached_an_engine_is_not_asked_again(
    gateway: Gateway, stubs: Stubs
) -> None:
    stubs.behaviours["a"] = HANGS
    before = ready(gateway)
    with stubs.recording() as calls:
        count = len(stubs.calls)
        connection = begin(gateway, "a", name="request-that-was-asked")
        wait_for_one_more(stubs.calls, count, "the engine was not asked")
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        assert answered(connection) is None
        wait_until(lambda: ready(gateway) - before, "no worker was replaced")
        assert answered(begin(gateway, "a", name="request-that-was-asked")) == 502
    assert len(calls) == 1


def test_a_request_that_reached_nobody_is_answered_when_it_comes_again(
    gateway: Gateway, stubs: Stubs
) -> None:
    """The workers have it and are killed before they do anything; once, since it may be the cause
    of their death."""
    before = ready(gateway)
    note = gateway.directory / "run/modelyard-litellm-blue/requests/request-of-nobody"
    note.write_bytes(b"t")
    with stubs.recording() as calls:
        for worker in before:
            os.kill(worker, signal.SIGSTOP)
        connection = begin(gateway, "a", name="request-never-read")
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: ready(gateway) - before, "no worker was replaced")
        # It may have waited for the next worker in the kernel's queue; then it was never lost.
        assert answered(connection) in (None, 200)
        assert answered(begin(gateway, "a", name="request-of-nobody")) == 200
    assert len(calls) in (1, 2)
    wait_until(lambda: not note.exists(), "what is answered is not forgotten", 5)
    note.write_bytes(b"tt")
    assert answered(begin(gateway, "a", name="request-of-nobody")) == 502
    note.unlink()


@pytest.mark.parametrize("path", ASKING)
def test_it_is_noted_that_an_engine_was_asked(gateway: Gateway, stubs: Stubs, path: str) -> None:
    """On every path, before the engine can have the request."""
    stubs.behaviours["a"] = HANGS
    directory = gateway.directory / "run/modelyard-litellm-blue/requests"
    count = len(stubs.calls)
    connection = begin(
        gateway, "a", name=f"noted-{path.replace('/', '-')}", path=path, body=ASKING[path]
    )
    wait_for_one_more(stubs.calls, count, "the engine was not asked")
    assert [note.name for note in directory.glob("noted-*.asked")] == [
        f"noted-{path.replace('/', '-')}.asked"
    ]
    connection.close()
    wait_until(lambda: not list(directory.glob("noted-*")), "the note is left", 5)


def test_notes_are_gone_when_requests_are_answered(gateway: Gateway, stubs: Stubs) -> None:
    stubs.behaviours["a"] = Behaviour(500, {"error": {"message": "stub: out of order"}})
    for number in range(3):
        assert answered(begin(gateway, "a", name=f"answered-{number}")) == 200
        assert answered(begin(gateway, "b", name=f"answered-stream-{number}", stream=True)) == 200
    directory = gateway.directory / "run/modelyard-litellm-blue/requests"
    wait_until(lambda: not list(directory.glob("answered-*")), "notes are left", 5)


# -- workers that grow -----------------------------------------------------------------------------


@pytest.mark.full
def test_a_worker_that_has_grown_is_replaced_and_nobody_notices(
    environment: Path, stubs: Stubs, tmp_path: Path
) -> None:
    """With a limit that every worker is over they take turns; a stream that runs is told to its
    end."""
    stubs.listen("192.0.2.1", 8000)
    stubs.behaviours["b"] = Behaviour(pace_s=5)
    with gateway_of(environment, tmp_path, workers=2, worker_mib=1) as gateway:
        first = ready(gateway)
        stream = begin(gateway, "b", stream=True)
        statuses, ended = [], time.monotonic() + REPLACED_S
        while first & ready(gateway) and time.monotonic() < ended:
            statuses.append(gateway.chat("last").status)
            time.sleep(0.1)
        assert not first & ready(gateway), "both were replaced"
        assert set(statuses) == {200}
        told = b"".join(iter(lambda: stream.recv(65536), b""))
        assert b"[DONE]" in told
        log = gateway.log.read_text()
        assert "MiB, more than 1: it finishes and is replaced" in log
    stubs.behaviours.clear()
