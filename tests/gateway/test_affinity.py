"""Requests of one conversation go to the host that has its beginning in its cache, with the real
HAProxy between the gateway and its engines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from front_end import FrontEnd, until
from harness import Gateway, compiled, plan, secret
from stubs import Behaviour, Stubs

CATALOGUE = """\
llm_providers:
  pair:
    type: llama_cpp
    group: llm_pair
    port: 8080
    models:
      - {name: chat, source: {path: /m.gguf}, context_length: 4096, options: {parallel: 4}}
      - {name: one, source: {path: /m.gguf}, port: 8081}
      - {name: vectors, source: {path: /m.gguf}, port: 8082, mode: embedding}
  other: {type: openai_compatible, base_url: "http://192.0.2.23:8000/v1", models: [{name: spare}]}
llm_routing:
  default_fallbacks: [spare]
  fallbacks: {spare: {terminal: true}, vectors: {terminal: true}}
llm_clients:
  first: {secret: FIRST_APPLICATION_KEY}
  second: {secret: SECOND_APPLICATION_KEY}
"""
HOSTS = {"gpu1": "192.0.2.21", "gpu2": "192.0.2.22"}
RESULT = compiled(
    CATALOGUE,
    {"llm_pair": list(HOSTS)},
    HOSTS,
    secrets=["FIRST_APPLICATION_KEY", "SECOND_APPLICATION_KEY"],
)
CONVERSATIONS = 16

Asked = tuple[str, Mapping[str, Any]]
"""A path and a body."""


@pytest.fixture(scope="module")
def front_end(stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    stubs.listen("192.0.2.23", 8000)
    for host in HOSTS.values():
        for port in (8080, 8081, 8082):
            stubs.listen(host, port)
    with FrontEnd(RESULT, tmp_path_factory.mktemp("front")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    environment: Path, front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("affinity"))
    running.allow(plan(RESULT)["clients"])
    with running:
        yield running


@pytest.fixture(autouse=True)
def well(stubs: Stubs, front_end: FrontEnd) -> Iterator[None]:
    """Begin with every host up, and leave stubs behind that answer."""
    until(lambda: set(front_end.states().values()) == {"UP"})
    yield
    stubs.behaviours.clear()


def hosts(
    gateway: Gateway,
    stubs: Stubs,
    requests: Sequence[Asked],
    headers: Mapping[str, str] | None = None,
) -> list[str]:
    """Send requests one after the other and return which host answered each."""
    with stubs.recording() as calls:
        for path, body in requests:
            assert gateway.request("POST", path, body, headers).status == 200
    assert len(calls) == len(requests)
    return [call.server[0] for call in calls]


def turns(said: str, model: str = "chat", **more: Any) -> list[Asked]:
    """Three turns of a conversation, as a client sends them: each with all before it."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}]
    found: list[Asked] = []
    for turn in range(3):
        found.append(("/v1/chat/completions", {"model": model, "messages": messages, **more}))
        answer = {"role": "assistant", "content": f"Answer {turn}."}
        messages = [*messages, answer, {"role": "user", "content": "Go on."}]
    return found


def texts(said: str) -> list[Asked]:
    """A prompt that grows, without messages."""
    begin = f"{said} " * 300
    return [
        ("/v1/completions", {"model": "chat", "prompt": begin + "more " * more})
        for more in range(3)
    ]


def responses(said: str) -> list[Asked]:
    """The same with OpenAI's newer API."""
    given: list[Mapping[str, Any]] = [{"role": "user", "content": said}]
    found: list[Asked] = []
    for turn in range(3):
        body = {"model": "chat", "instructions": "Be brief.", "input": given}
        found.append(("/v1/responses", body))
        given = [*given, {"role": "assistant", "content": f"{turn}"}, given[0]]
    return found


@pytest.mark.parametrize("kind", [turns, texts, responses])
def test_turns_of_a_conversation(gateway: Gateway, stubs: Stubs, kind: Any) -> None:
    """Each conversation has one host, and both hosts have some."""
    begun = [hosts(gateway, stubs, kind(f"Question {number}")) for number in range(CONVERSATIONS)]
    assert {len(set(found)) for found in begun} == {1}
    assert {found[0] for found in begun} == set(HOSTS.values())


def test_a_client_names_its_conversation(gateway: Gateway, stubs: Stubs) -> None:
    """The header, else OpenAI's field, counts in place of the words."""
    asked = [turns(f"Question {number}")[0] for number in range(CONVERSATIONS)]
    found = hosts(gateway, stubs, asked, {"X-Session-Id": "mine"})
    assert len(set(found)) == 1
    keyed = [(path, {**body, "prompt_cache_key": "mine"}) for path, body in asked]
    assert hosts(gateway, stubs, keyed) == found
    many = [hosts(gateway, stubs, keyed[:1], {"X-Session-Id": str(n)})[0] for n in range(16)]
    assert set(many) == set(HOSTS.values())


def test_two_clients_have_nothing_in_common(gateway: Gateway, stubs: Stubs) -> None:
    asked = [turns(f"Question {number}")[0] for number in range(CONVERSATIONS)]
    first, second = (
        hosts(gateway, stubs, asked, {"Authorization": f"Bearer {secret(key)}"})
        for key in ("FIRST_APPLICATION_KEY", "SECOND_APPLICATION_KEY")
    )
    assert first != second


def test_nobody_else_gets_the_key(gateway: Gateway, stubs: Stubs) -> None:
    """Neither an engine, which could not use it, nor a provider elsewhere."""
    stubs.behaviours["chat"] = Behaviour(500)
    with stubs.recording() as calls:
        assert gateway.chat("chat", headers={"X-Session-Id": "mine"}).text == "I am spare"
    assert {call.model for call in calls} == {"chat", "spare"}
    for call in calls:
        assert not {name for name in call.headers if "modelyard" in name or "session" in name}


def test_a_drained_host(gateway: Gateway, front_end: FrontEnd, stubs: Stubs) -> None:
    """Its conversations go to the other, those of the other stay, and when it is back all are as
    they were."""
    asked = [turns(f"Question {number}")[0] for number in range(CONVERSATIONS)]
    before = hosts(gateway, stubs, asked)
    front_end.ask("set server pool.pair.chat/gpu1 state drain")
    try:
        assert set(hosts(gateway, stubs, asked)) == {HOSTS["gpu2"]}
    finally:
        front_end.ask("set server pool.pair.chat/gpu1 state ready")
    assert hosts(gateway, stubs, asked) == before


def test_a_host_that_is_down(gateway: Gateway, front_end: FrontEnd, stubs: Stubs) -> None:
    """No request fails, not even before HAProxy has noticed."""
    asked = [turns(f"Question {number}")[0] for number in range(CONVERSATIONS)]
    before = hosts(gateway, stubs, asked)
    stub = stubs.listen(HOSTS["gpu1"], 8080)
    stub.stop()
    try:
        assert set(hosts(gateway, stubs, asked)) == {HOSTS["gpu2"]}
    finally:
        stub.start()
    until(lambda: front_end.states()["pool.pair.chat", "gpu1"] == "UP")
    assert hosts(gateway, stubs, asked) == before


def test_one_conversation_does_not_flood_its_host(gateway: Gateway, stubs: Stubs) -> None:
    """A full host is passed over (`one` answers one request at once), and so is one that has much
    more than its share (`chat` could answer four)."""
    stubs.behaviours |= dict.fromkeys(("one", "chat"), Behaviour(pace_s=0.3))
    for model, at_once in (("one", 2), ("chat", 6)):
        with stubs.recording() as calls, ThreadPoolExecutor(at_once) as pool:
            asked = [
                pool.submit(gateway.chat, model, stream=True, headers={"X-Session-Id": "mine"})
                for _ in range(at_once)
            ]
            assert {one.result().text for one in asked} == {f"I am {model}"}
        shares = defaultdict[str, int](int)
        for call in calls:
            shares[call.server[0]] += 1
        assert set(shares) == set(HOSTS.values())
        assert max(shares.values()) <= at_once / 2 + 1


def test_vectors_go_to_the_host_with_the_fewest(gateway: Gateway, stubs: Stubs) -> None:
    """Nothing of them is kept, so the header changes nothing: hosts take turns."""
    asked: list[Asked] = [("/v1/embeddings", {"model": "vectors", "input": "the same"})] * 6
    found = hosts(gateway, stubs, asked, {"X-Session-Id": "mine"})
    assert {found.count(host) for host in HOSTS.values()} == {3}
