"""A gateway of two workers whose Redis is down, slow or silent while an engine fails: for tests and
`make faults`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
"""For any request. LiteLLM alone took 12 s with three failing requests, and more than 60 s with
twenty."""

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


@contextmanager
def running(environment: Path, stubs: Stubs, directory: Path) -> Iterator[Lab]:
    """Yield the lab; `head` fails and `step` answers for it. `directory` is the caller's, empty."""
    stubs.listen("192.0.2.1", 8000)
    emitted = plan(compiled(CATALOGUE, {"llm_redis": ["rd"]}, {"rd": WAY}))
    directories = [directory / name for name in ("redis", "gateway")]
    for one in directories:
        one.mkdir()
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


def measure(lab: Lab, kind: str, at_once: int) -> tuple[list[Answer], list[Answer]]:
    """Ask the name whose first step fails so often at once, in one kind of trouble; return its
    answers and others'."""
    time.sleep(COOLDOWN_S)
    others = Others(lab.gateway)
    with lab.trouble(kind), others.asking(), ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda _: lab.gateway.chat("head"), range(at_once)))
    return answers, others.answers
