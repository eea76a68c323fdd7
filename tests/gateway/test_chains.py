"""Chains of every shape: what the gateway does is the order that was compiled, step by step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from faults import FAULTS
from harness import Gateway, compiled, document, order, plan
from stubs import Behaviour, Stubs

FAIL = Behaviour(500, {"error": {"message": "stub: out of order", "type": "server_error"}})

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: n0}, {name: n2}, {name: n4}, {name: n6}, {name: n8}, {name: via-alias}, {name: u}, {name: w},
      {name: x}, {name: z}]
  two:
    type: vllm
    base_url: http://192.0.2.2:8000
    models: [{name: n1}, {name: n3}, {name: n5}, {name: n7}, {name: n9}, {name: via-capability}, {name: v}, {name: q},
      {name: y}]
llm_routing:
  fallbacks:
    # Longer than five, and deeper: each step has a chain of its own.
    n0: {chain: [n1, n9]}
    n1: {chain: [n2]}
    n2: {chain: [n3]}
    n3: {chain: [n4]}
    n4: {chain: [n5]}
    n5: {chain: [n6]}
    n6: {chain: [n7]}
    n7: {chain: [n8]}
    n8: {terminal: true}
    n9: {terminal: true}
    via-alias: {chain: [nickname, n9]}
    q: {chain: [w]}
    via-capability: {chain: [code, n9]}
    u: {chain: [w]}
    v: {chain: [q]}
    w: {terminal: true}
    # Each other's fallback, by another name too, and one that leads there.
    x: {chain: [y]}
    y: {chain: [ecks, n9]}
    z: {chain: [both]}
  # And circles on the errors that have chains of their own.
  context_window_fallbacks:
    n9: {chain: [w, z]}
    w: {chain: [u]}
    u: {chain: [n9]}
  content_policy_fallbacks:
    n9: {chain: [q]}
    q: {chain: [n9]}
  aliases: {nickname: q, coder: code, ecks: x}
  capabilities: {code: {models: [u, v]}, reversed: {models: [v, u]}, both: {models: [y, x]}}
# What failed is taken back at once, so that one test does not decide about the next.
llm_gateway: {cooldown_s: 0.001, timeouts: {request_s: 5, stream_s: 5}}
"""

EXPECTED = {
    "n0": "n0 n1 n2 n3 n4 n5 n6 n7 n8 n9",
    "via-alias": "via-alias q w n9",
    "via-capability": "via-capability u w v q n9",
    "nickname": "q w",
    "code": "u v w q",
    "reversed": "v u q w",
    "coder": "u v w q",
    "x": "x y n9",
    "y": "y x n9",
    "z": "z y x n9",
    "ecks": "x y n9",
    "both": "y x n9",
}
"""Written by hand, so that the compiler is not compared with itself only."""

SEEDS = range(5)
RANDOM_MODELS = 16


def random_catalogue() -> str:
    """Groups of models with chains to any models of their group, in front of them too."""
    chains: dict[str, dict[str, object]] = {}
    for seed in SEEDS:
        dice = random.Random(seed)
        names = [f"g{seed}-{number}" for number in range(RANDOM_MODELS)]
        for position, name in enumerate(names):
            others = names[:position] + names[position + 1 :]
            steps = dice.sample(others, dice.randint(0, 3))
            chains[name] = {"chain": steps} if steps else {"terminal": True}
    models = [{"name": name} for name in chains]
    provider = {
        "type": "openai_compatible",
        "base_url": "http://192.0.2.1:8000/v1",
        "models": models,
    }
    gateway = {"cooldown_s": 0.001, "timeouts": {"request_s": 5, "stream_s": 5}}
    catalogue = {
        "llm_providers": {"one": provider},
        "llm_routing": {"fallbacks": chains},
        "llm_gateway": gateway,
    }
    return yaml.safe_dump(catalogue)


RESULT = compiled(CATALOGUE)
NAMES = [route["name"] for route in RESULT.routes]


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    stubs.listen("192.0.2.2", 8000)
    with Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("chains")) as running:
        yield running


def calls_with_failing(
    gateway: Gateway, stubs: Stubs, name: str, failing: list[str], stream: bool
) -> list[str]:
    """Ask for `name` while those fail: the calls in order. The one that did not fail must have
    answered."""
    stubs.behaviours.clear()
    stubs.behaviours.update(dict.fromkeys(failing, FAIL))
    with stubs.recording() as calls:
        answer = gateway.chat(name, stream=stream)
    stubs.behaviours.clear()
    asked = [call.model for call in calls]
    assert (answer.status, answer.text, answer.done) == (200, f"I am {asked[-1]}", True)
    return asked


def test_the_compiled_order_is_the_one_meant() -> None:
    assert {name: " ".join(order(RESULT, name)) for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NAMES)
def test_every_prefix_of_a_route_can_fail(
    gateway: Gateway, stubs: Stubs, name: str, stream: bool
) -> None:
    """Of every public name: the first step fails, the first two, and so on up to all but the
    last."""
    planned = order(RESULT, name)
    for failing in range(len(planned)):
        asked = calls_with_failing(gateway, stubs, name, planned[:failing], stream)
        assert asked == planned[: failing + 1]


@pytest.mark.parametrize(
    ("slug", "section", "name", "expected"),
    [
        ("long-openai", "context_window_fallbacks", "n9", "n9 w u z"),
        ("long-openai", "context_window_fallbacks", "u", "u n9 w z"),
        ("policy", "content_policy_fallbacks", "n9", "n9 q"),
        ("policy", "content_policy_fallbacks", "q", "q n9"),
        # Who has no chain of this kind keeps the ordinary one.
        ("policy", "content_policy_fallbacks", "x", "x y n9"),
    ],
)
def test_circles_on_errors_with_chains_of_their_own(
    gateway: Gateway, stubs: Stubs, slug: str, section: str, name: str, expected: str
) -> None:
    """The first step fails, the first two, and so on; then all of them do."""
    (behaviour,) = (fault.behaviour for fault in FAULTS if fault.slug == slug)
    assert behaviour is not None
    planned = expected.split()
    chains = document(RESULT)["router_settings"][section]
    assert [entry[name] for entry in chains if name in entry] == [planned[1:]]
    for failing in range(len(planned) + 1):
        stubs.behaviours.update(dict.fromkeys(planned[:failing], behaviour))
        with stubs.recording() as calls:
            answer = gateway.chat(name)
        stubs.behaviours.clear()
        assert [call.model for call in calls] == planned[: failing + 1]
        assert answer.status == (400 if failing == len(planned) else 200)


@pytest.mark.parametrize("name", NAMES)
def test_an_exhausted_route_asks_everybody_once(gateway: Gateway, stubs: Stubs, name: str) -> None:
    planned = order(RESULT, name)
    errors = {
        model: Behaviour(500, {"error": {"message": f"stub: {model} is out of order"}})
        for model in planned
    }
    stubs.behaviours.update(errors)
    with stubs.recording() as calls:
        answer = gateway.chat(name)
    stubs.behaviours.clear()
    assert [call.model for call in calls] == planned
    assert answer.status == 500
    assert answer.error is not None
    # Of a model (or its alias) the first error is shown; of a capability the last.
    (route,) = (route for route in RESULT.routes if route["name"] == name)
    shown = planned[-1 if route["kind"] == "capability" or name == "coder" else 0]
    assert f"stub: {shown} is out of order" in answer.error["message"]


@pytest.mark.full
def test_any_chains(environment: Path, stubs: Stubs, tmp_path: Path) -> None:
    """Of every model of a random catalogue all steps but the last fail."""
    result = compiled(random_catalogue())
    stubs.listen("192.0.2.1", 8000)
    longest = 0
    with Gateway(environment, plan(result), tmp_path) as gateway:
        for route in result.routes:
            planned = order(result, route["name"])
            longest = max(longest, len(planned))
            assert (
                calls_with_failing(gateway, stubs, route["name"], planned[:-1], stream=False)
                == planned
            )
    assert longest > 8, "the dice must give long chains too"
