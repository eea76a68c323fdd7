"""Requests per minute of clients: in any window, with Redis and without, and when Redis does not
answer."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any, NamedTuple

import pytest
from harness import ROLE, Answer, Gateway, compiled, plan, secret
from redis_server import Redis
from stubs import Behaviour, Stubs

from modelyard.names import REDIS_PASSWORD

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}]}
llm_routing: {fallbacks: {a: {terminal: true}}}
llm_gateway: {timeouts: {request_s: 5, stream_s: 5}, cooldown_s: 0.2}
llm_clients:
  five: {secret: FIVE_A_MINUTE_OF_THE_GATEWAY, rpm: 5}
  two: {secret: TWO_A_MINUTE_OF_THE_GATEWAY, rpm: 2}
  hundred: {secret: A_HUNDRED_OF_THE_GATEWAY, rpm: 100}
  others: {secret: OTHERS_OF_THE_GATEWAY, rpm: 5}
"""
ADDRESS = "192.0.2.20"
RESULT = compiled(CATALOGUE, {"llm_redis": ["cache"]}, {"cache": ADDRESS})
CLIENTS: Mapping[str, Any] = RESULT.plans["gw"]["litellm"]["clients"]
RULES: Mapping[str, Any] = plan(RESULT)["rules"]

PATIENCE_S = 0.2
"""What limits.py waits for Redis, and PAUSE_S how long it then does not."""
PAUSE_S = 5


@pytest.fixture(scope="module")
def redis(stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    del stubs  # their network is the server's
    with Redis(ADDRESS, tmp_path_factory.mktemp("redis")) as server:
        yield server


def forget(redis: Redis) -> None:
    redis.stop()
    redis.start()


@pytest.fixture
def empty(redis: Redis) -> Redis:
    """Return the Redis, which holds nothing."""
    forget(redis)
    return redis


class Counted(NamedTuple):
    """One request."""

    at: float
    seconds: float
    passed: bool
    headers: dict[str, str]


def count(
    environment: Path, asks: Sequence[tuple[float, int]], *, redis: bool, **more: Any
) -> list[Counted]:
    """Count requests as the gateway does it; see counting.py."""
    variables = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROLE / "files"),
        REDIS_PASSWORD: secret(REDIS_PASSWORD),
    }
    settings = {"asks": asks, "workers": 1, "window_s": 1, "rpm": 3, "busy_s": 0, **more}
    program = Path(__file__).with_name("counting.py")
    given = [json.dumps(RULES["redis"] if redis else None), json.dumps(settings)]
    command = [str(environment / "bin/python"), "-B", str(program), *given]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return [Counted(*found) for found in json.loads(done.stdout)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.usefixtures("empty")
def test_no_window_holds_more_than_the_limit(environment: Path, *, shared: bool) -> None:
    """Wherever it begins; and what the limit leaves passes. Two workers ask by turns, of one
    Redis."""
    workers = 2 if shared else 1
    asks = [(0.0, 0)] * 4 + [(0.02, number % workers) for number in range(150)]
    found = count(environment, asks, redis=shared, workers=workers, rpm=6)
    passed = [each.at for each in found if each.passed]
    assert all(later - at > 0.99 for at, later in zip(passed, passed[6:], strict=False))
    assert len(passed) >= 18, "6 in each of three seconds"


@pytest.mark.parametrize("shared", [True, False])
def test_whoever_waits_as_long_as_told_passes(
    environment: Path, empty: Redis, *, shared: bool
) -> None:
    refused = count(environment, [(0, 0), (0.5, 0), (0.7, 0), (0, 0)], redis=shared, window_s=3)
    assert [each.passed for each in refused] == [True, True, True, False]
    headers = refused[-1].headers
    assert headers["retry-after"] == "2", "1.8 s, in whole seconds"
    assert headers["x-ratelimit-reset-requests"] == "3s"
    forget(empty)
    again = count(
        environment, [(0, 0), (0.5, 0), (0.7, 0), (0, 0), (2, 0), (0, 0)], redis=shared, window_s=3
    )
    assert [each.passed for each in again] == [True, True, True, False, True, False]


@pytest.mark.usefixtures("empty")
def test_what_the_headers_tell(environment: Path) -> None:
    """OpenAI's names and units."""
    found = count(environment, [(0, 0), (0, 1), (0, 0), (0, 1)], redis=True, workers=2, window_s=60)
    assert [each.headers.pop("retry-after", None) for each in found] == [None, None, None, "60"]
    assert [each.headers for each in found] == [
        {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": left,
            "x-ratelimit-reset-requests": "60s",
        }
        for left in ("2", "1", "0", "0")
    ]


@pytest.mark.usefixtures("empty")
def test_a_limit_that_is_lowered(environment: Path) -> None:
    """What passed under the old one counts; the wait is until the new one has room."""
    count(environment, [(0, 0)] * 6, redis=True, window_s=60, rpm=6)
    (found,) = count(environment, [(0, 0)], redis=True, window_s=60, rpm=2)
    assert (found.passed, found.headers["x-ratelimit-remaining-requests"]) == (False, "0")
    assert 58 <= int(found.headers["retry-after"]) <= 60


@pytest.mark.usefixtures("empty")
def test_a_busy_worker_does_not_take_redis_for_dead(environment: Path) -> None:
    found = count(
        environment,
        [(0, 0), (0, 1), (0, 0), (0, 1)],
        redis=True,
        workers=2,
        window_s=60,
        busy_s=2 * PATIENCE_S,
    )
    assert [each.passed for each in found] == [True, True, True, False]
    assert [each.headers["x-ratelimit-remaining-requests"] for each in found] == [
        "2",
        "1",
        "0",
        "0",
    ]


def test_redis_that_hangs_is_waited_for_once_in_a_while(environment: Path, empty: Redis) -> None:
    """And once it answers again it counts again: the other worker's requests, too."""
    empty.freeze()
    thaw = Timer(2, empty.thaw)
    thaw.start()
    try:
        asks = [*[(0, 0)] * 20, (PAUSE_S + 1, 0), (0, 1), (0, 0)]
        found = count(environment, asks, redis=True, workers=2, window_s=60, rpm=22)
    finally:
        thaw.join()
    waited = [number for number, each in enumerate(found) if each.seconds > PATIENCE_S / 2]
    assert waited == [0]
    assert found[0].seconds < 2 * PATIENCE_S
    assert [each.headers["x-ratelimit-remaining-requests"] for each in found[-3:]] == [
        "1",
        "20",
        "0",
    ]


# -- the real gateway: two workers and one Redis ---------------------------------------------------


@pytest.fixture(scope="module")
def gateway(
    environment: Path, redis: Redis, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("rpm"), workers=2)
    running.allow(CLIENTS)
    with running:
        yield running


def ask(gateway: Gateway, client: str, **more: Any) -> Answer:
    headers = {"Authorization": f"Bearer {secret(CLIENTS[client]['secret'])}"}
    return gateway.chat("a", headers=headers, **more)


def at_once(gateway: Gateway, client: str, number: int) -> list[Answer]:
    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(lambda _: ask(gateway, client), range(number)))


@pytest.mark.full
def test_a_limit_is_one_for_all_workers(gateway: Gateway, stubs: Stubs) -> None:
    before = gateway.refusals()
    with stubs.recording() as calls:
        answers = at_once(gateway, "five", 40)
    assert Counter(answer.status for answer in answers) == {200: 5, 429: 35}
    assert len(calls) == 5
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"5"}
    assert gateway.refusals() - before == {("five", "429"): 35}


def test_what_is_refused_does_not_count_and_what_an_engine_breaks_does(
    gateway: Gateway, stubs: Stubs
) -> None:
    refused = [
        ask(gateway, "two", temperature="hot"),
        ask(gateway, "two", timeout=1),
        ask(gateway, "two", n=0.5),
    ]
    assert [answer.status for answer in refused] == [400, 400, 400]
    behaviours = stubs.listen("192.0.2.1", 8000).behaviours
    behaviours["a"] = Behaviour(status=500)
    assert ask(gateway, "two").status >= 500
    del behaviours["a"]
    assert [ask(gateway, "two").status for _ in range(2)] == [200, 429]


def test_an_upstream_has_no_say_in_the_headers(gateway: Gateway, stubs: Stubs) -> None:
    """LiteLLM passes on what a provider says of its own limit."""
    behaviours = stubs.listen("192.0.2.1", 8000).behaviours
    said = {f"x-ratelimit-{name}-requests": "999" for name in ("limit", "remaining", "reset")}
    behaviours["a"] = Behaviour(headers=said)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    headers = {
        "Authorization": f"Bearer {secret(CLIENTS['hundred']['secret'])}",
        "Content-Type": "application/json",
    }
    body = {"model": "a", "messages": [{"role": "user", "content": "Who are you?"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    found = [(name, value) for name, value in connection.getresponse().getheaders() if name in said]
    connection.close()
    del behaviours["a"]
    assert found == list(zip(said, ("100", "99", "60s"), strict=True))


def test_redis_that_forgets_or_stops_lifts_no_limit_of_a_worker(
    gateway: Gateway, redis: Redis
) -> None:
    at_once(gateway, "five", 20)
    forget(redis)
    assert Counter(answer.status for answer in at_once(gateway, "five", 40))[200] <= 5, (
        "of ten that two workers may"
    )
    redis.stop()
    answers = at_once(gateway, "others", 60)
    redis.start()
    assert Counter(answer.status for answer in answers) == {200: 10, 429: 50}, (
        "each worker counts for itself"
    )
    assert "Redis does not answer, so each worker counts" in gateway.log.read_text()
