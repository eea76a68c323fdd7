"""Redis that is down, slow or silent while an engine fails: others do not wait, chains go on, and it is used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Answer, Gateway, compiled, plan
from redis_server import Delay, Redis
from stubs import Behaviour, Stubs

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: head}, {name: step}, {name: fine}, {name: other}]
llm_routing:
  fallbacks: {head: {chain: [step]}, step: {terminal: true}, fine: {terminal: true}, other: {chain: [step]}}
llm_gateway: {cooldown_s: 2}
"""
COOLDOWN_S = 2
FAIL = Behaviour(500, {"error": {"message": "stub: out of order", "type": "server_error"}})

SERVER, WAY = "192.0.2.30", "192.0.2.29"
"""Where Redis is, and where the gateway asks it: everything can be slow on the way."""

BOUND_S = 5.0
"""For any request. LiteLLM alone took 12 s with three failing requests, and more than 60 s with twenty."""

SHARED_AGAIN_S = 10

TROUBLES = ("stopped", "slow", "silent")


@dataclass(frozen=True, slots=True)
class Lab:
    """A gateway of two workers and its Redis."""

    gateway: Gateway
    redis: Redis
    delay: Delay

    @contextmanager
    def trouble(self, kind: str) -> Iterator[None]:
        """Do something to Redis, and undo it."""
        begin, end = self._ways(kind)
        begin()
        try:
            yield
        finally:
            end()

    def _ways(self, kind: str) -> tuple[Callable[[], None], Callable[[], None]]:
        if kind == "stopped":
            return self.redis.stop, self.redis.start
        if kind == "silent":
            return self.redis.freeze, self.redis.thaw

        def take(seconds: float) -> Callable[[], None]:
            return lambda: setattr(self.delay, "seconds", seconds)

        return take(2), take(0)


@pytest.fixture(scope="module")
def lab(environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    stubs.listen("192.0.2.1", 8000)
    emitted = plan(compiled(CATALOGUE, {"llm_redis": ["rd"]}, {"rd": WAY}))
    directories = [tmp_path_factory.mktemp(name) for name in ("redis", "gateway")]
    with (
        Redis(SERVER, directories[0]) as redis,
        Delay(stubs, WAY, redis.port, (SERVER, redis.port)) as delay,
        Gateway(environment, emitted, directories[1], workers=2) as gateway,
    ):
        with ThreadPoolExecutor(10) as pool:  # The first requests of a worker take seconds.
            list(pool.map(lambda _: gateway.chat("fine"), range(20)))
        stubs.behaviours["head"] = FAIL
        yield Lab(gateway, redis, delay)
        stubs.behaviours.clear()


@dataclass(slots=True)
class Others:
    """Clients of a healthy model, while something happens."""

    gateway: Gateway
    answers: list[Answer] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask all the time, two at a time."""
        stop = threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                self.answers.append(self.gateway.chat("fine"))
                time.sleep(0.2)

        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(go_on) for _ in range(2)]
            try:
                yield
            finally:
                stop.set()
            for one in asked:
                one.result()


def shared(lab: Lab, stubs: Stubs) -> bool:
    """Whether both workers know what cools down: nobody asks `other` after two failures, whoever is asked."""
    stubs.behaviours["other"] = FAIL
    for _ in range(3):
        lab.gateway.chat("other")
    time.sleep(1.1)  # Workers read it once a second.
    with stubs.recording() as calls:
        for _ in range(12):
            lab.gateway.chat("other")
    del stubs.behaviours["other"]
    return [call.model for call in calls] == ["step"] * 12


@pytest.mark.parametrize("at_once", [3, 20])
@pytest.mark.parametrize("kind", TROUBLES)
def test_nobody_waits_for_redis(lab: Lab, kind: str, at_once: int) -> None:
    time.sleep(COOLDOWN_S)
    others = Others(lab.gateway)
    with lab.trouble(kind), others.asking(), ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda _: lab.gateway.chat("head"), range(at_once)))
    assert {(answer.status, answer.model) for answer in answers} == {(200, "step")}
    assert max(answer.seconds for answer in answers) < BOUND_S
    assert {answer.status for answer in others.answers} == {200}
    assert max(answer.seconds for answer in others.answers) < BOUND_S


@pytest.mark.parametrize("kind", TROUBLES)
def test_cool_downs_go_on_by_worker_and_are_shared_again(lab: Lab, stubs: Stubs, kind: str) -> None:
    with lab.trouble(kind):
        time.sleep(COOLDOWN_S)
        with stubs.recording() as calls:
            for _ in range(20):
                lab.gateway.chat("head")
        # Each of two workers finds out for itself, by two failures.
        assert [call.model for call in calls].count("head") <= 4
    deadline = time.monotonic() + SHARED_AGAIN_S
    while not shared(lab, stubs):
        assert time.monotonic() < deadline, f"cool-downs are not shared again within {SHARED_AGAIN_S} s"
        time.sleep(COOLDOWN_S)
    time.sleep(COOLDOWN_S)


def test_a_gateway_starts_without_redis(environment: Path, stubs: Stubs, tmp_path: Path) -> None:
    emitted = plan(compiled(CATALOGUE, {"llm_redis": ["rd"]}, {"rd": "192.0.2.28"}))
    with Gateway(environment, emitted, tmp_path) as gateway:
        assert gateway.chat("fine").status == 200
