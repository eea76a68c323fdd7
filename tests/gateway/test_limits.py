"""Weights, requests and tokens per minute, and hosts that die: counted at the upstreams."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from front_end import FrontEnd
from harness import Answer, Gateway, compiled, plan
from stubs import Behaviour, Call, Stub, Stubs

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: shared, weight: 3}, {name: mortal, weight: 3}, {name: spare}, {name: head}]
  two:
    type: openai_compatible
    base_url: http://192.0.2.2:8000/v1
    models: [{name: shared, weight: 1}, {name: mortal, weight: 1}]
  # Two hosts, one group.
  group:
    type: llama_cpp
    group: llm_group
    port: 8080
    models:
      - {name: grouped, source: {path: /m.gguf}}
      - {name: dying, source: {path: /m.gguf}, port: 8081}
      - {name: limited-group, source: {path: /m.gguf}, port: 8082, rpm: 4}
  limits:
    type: openai_compatible
    base_url: http://192.0.2.3:8000/v1
    models:
      - {name: rpm, rpm: 5}
      - {name: rpm-alone, rpm: 5}
      - {name: tpm, tpm: 20}
      - {name: parallel, tpm: 1000}
llm_routing:
  default_fallbacks: [spare]
  fallbacks:
    spare: {terminal: true}
    shared: {terminal: true}
    mortal: {terminal: true}
    grouped: {terminal: true}
    dying: {terminal: true}
    rpm-alone: {terminal: true}
    head: {chain: [dying, spare]}
llm_gateway: {timeouts: {request_s: 10, stream_s: 10}}
"""

REQUESTS = 200
AT_ONCE = 12
DEVIATIONS = 5
"""A fair gateway strays further than this once in two million runs."""

HOSTS = ("192.0.2.11", "192.0.2.12")
TOKENS_PER_ANSWER = 8
"""What a stub says it used."""


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    result = compiled(
        CATALOGUE, {"llm_group": ["gpu1", "gpu2"]}, dict(zip(("gpu1", "gpu2"), HOSTS, strict=True))
    )
    for number in (1, 2, 3):
        stubs.listen(f"192.0.2.{number}", 8000)
    for host in HOSTS:
        for port in (8080, 8081, 8082):
            stubs.listen(host, port)
    front_end = FrontEnd(result, tmp_path_factory.mktemp("front"))
    with (
        front_end,
        Gateway(environment, plan(result), tmp_path_factory.mktemp("limits")) as running,
    ):
        yield running


def ask(
    gateway: Gateway, stubs: Stubs, name: str, times: int, *, stream: bool = False
) -> tuple[list[Answer], list[Call]]:
    """Ask so many questions, each of them a conversation of its own."""

    def question(number: int) -> Answer:
        messages = [{"role": "user", "content": f"Question {number}"}]
        return gateway.chat(name, stream=stream, messages=messages)

    with stubs.recording() as calls, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(question, range(times)))
    return answers, calls


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


def assert_share(count: int, share: float) -> None:
    """Of REQUESTS requests about this share; the tolerance is that of a fair lottery."""
    tolerance = DEVIATIONS * (REQUESTS * share * (1 - share)) ** 0.5
    assert abs(count - REQUESTS * share) < tolerance


def at_the_beginning_of_a_minute() -> None:
    """Limits are counted per minute of the clock: wait for the next one if this is about to end."""
    past = time.time() % 60
    if past > 35:
        time.sleep(61 - past)


@pytest.fixture
def dead(stubs: Stubs) -> Iterator[list[Stub]]:
    """Stubs to stop; they come back afterwards."""
    stopped: list[Stub] = []
    yield stopped
    for stub in stopped:
        stub.start()


@pytest.mark.full
def test_weights(gateway: Gateway, stubs: Stubs) -> None:
    """3 to 1: the standard deviation is 6, the tolerance 31 requests, so neither 1 to 1 nor all to
    one would pass."""
    answers, calls = ask(gateway, stubs, "shared", REQUESTS)
    assert statuses(answers) == {200: REQUESTS}
    counted = Counter(call.server[0] for call in calls)
    assert_share(counted["192.0.2.1"], 3 / 4)
    assert_share(counted["192.0.2.2"], 1 / 4)


def test_two_hosts_of_a_group_share_equally(gateway: Gateway, stubs: Stubs) -> None:
    answers, calls = ask(gateway, stubs, "grouped", REQUESTS)
    assert statuses(answers) == {200: REQUESTS}
    counted = Counter(call.server[0] for call in calls)
    assert_share(counted[HOSTS[0]], 1 / 2)
    assert_share(counted[HOSTS[1]], 1 / 2)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("name", "port", "hosts"),
    [
        pytest.param("mortal", 8000, ("192.0.2.1", "192.0.2.2"), marks=pytest.mark.full),
        ("dying", 8081, HOSTS),
    ],
)
def test_the_survivor_takes_all(
    gateway: Gateway,
    stubs: Stubs,
    dead: list[Stub],
    name: str,
    port: int,
    hosts: tuple[str, str],
    stream: bool,
) -> None:
    """One of two hosts is gone from one request to the next: nobody sees an error."""
    dead.append(stubs.listen(hosts[0], port))
    dead[0].stop()
    answers, calls = ask(gateway, stubs, name, 60, stream=stream)
    assert statuses(answers) == {200: 60}
    assert all(answer.done for answer in answers)
    assert Counter(call.server[0] for call in calls) == {hosts[1]: 60}


def test_a_group_with_a_dead_host_as_a_step(
    gateway: Gateway, stubs: Stubs, dead: list[Stub]
) -> None:
    """Its other host answers every time."""
    stubs.behaviours["head"] = Behaviour(500, {"error": {"message": "stub: out of order"}})
    dead.append(stubs.listen(HOSTS[0], 8081))
    dead[0].stop()
    answers, _calls = ask(gateway, stubs, "head", 60)
    stubs.behaviours.clear()
    assert statuses(answers) == {200: 60}
    assert Counter(answer.text for answer in answers) == {"I am dying": 60}


def test_requests_per_minute(gateway: Gateway, stubs: Stubs) -> None:
    """Exactly that many; the next step takes the rest."""
    at_the_beginning_of_a_minute()
    with stubs.recording() as calls:
        answers = [gateway.chat("rpm") for _ in range(12)]
    assert statuses(answers) == {200: 12}
    assert [call.model for call in calls] == ["rpm"] * 5 + ["spare"] * 7


def test_requests_per_minute_without_another_step(gateway: Gateway, stubs: Stubs) -> None:
    at_the_beginning_of_a_minute()
    with stubs.recording() as calls:
        answers = [gateway.chat("rpm-alone") for _ in range(8)]
    assert statuses(answers) == {200: 5, 429: 3}
    assert len(calls) == 5


def test_requests_per_minute_are_those_of_all_hosts(gateway: Gateway, stubs: Stubs) -> None:
    """Two hosts get 4 together."""
    at_the_beginning_of_a_minute()
    with stubs.recording() as calls:
        answers = [gateway.chat("limited-group") for _ in range(12)]
    assert statuses(answers) == {200: 12}
    assert Counter(call.model for call in calls) == {"limited-group": 4, "spare": 8}


def test_tokens_per_minute(gateway: Gateway, stubs: Stubs) -> None:
    """Counted after the answer: the request that passes the limit still gets through, the next one
    does not."""
    at_the_beginning_of_a_minute()
    with stubs.recording() as calls:
        for _ in range(6):
            assert gateway.chat("tpm").status == 200
            time.sleep(1)  # tokens are counted in the background
    passed = -(-20 // TOKENS_PER_ANSWER)
    assert [call.model for call in calls] == ["tpm"] * passed + ["spare"] * (6 - passed)


def test_a_limit_per_minute_is_none_on_parallel_requests(gateway: Gateway, stubs: Stubs) -> None:
    """By itself the gateway would make 6 at once of 1000 tokens per minute, and answer the others
    with 429."""
    stubs.behaviours["parallel"] = Behaviour(pace_s=0.2)
    at_the_beginning_of_a_minute()
    answers, calls = ask(gateway, stubs, "parallel", AT_ONCE, stream=True)
    stubs.behaviours.clear()
    assert statuses(answers) == {200: AT_ONCE}
    assert Counter(call.model for call in calls) == {"parallel": AT_ONCE}
