"""What decides where a request goes, beside plain failure: its kind of error, its tags; and what it
costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Answer, Gateway, compiled, plan
from stubs import Behaviour, Stubs

CATALOGUE = """\
llm_providers:
  a: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}]}
  b: {type: vllm, base_url: "http://192.0.2.2:8000", models: [{name: b}]}
  c: {type: vllm, base_url: "http://192.0.2.3:8000", models: [{name: c, price: {input: 100, output: 1000}}]}
  d: {type: vllm, base_url: "http://192.0.2.4:8000", models: [{name: d, price: {input: 0.1, output: 1}}]}
  eu: {type: vllm, base_url: "http://192.0.2.5:8000", models: [{name: t, served_name: t-eu, weight: 1, tags: [eu]}]}
  us: {type: vllm, base_url: "http://192.0.2.6:8000", models: [{name: t, served_name: t-any, weight: 1}]}
  lone: {type: openai_compatible, base_url: "http://192.0.2.7:8000/v1", models: [{name: lone, tags: [eu]}]}
llm_routing:
  fallbacks:
    a: {chain: [b]}
    b: {chain: [c]}
    c: {terminal: true}
    t: {terminal: true}
    lone: {chain: [c]}
  default_fallbacks: [c]
  context_window_fallbacks: {a: {chain: [c]}}
  content_policy_fallbacks: {b: {terminal: true}, a: {chain: [d]}}
  aliases: {fast: a}
  capabilities: {code: {models: [a, b]}}
llm_gateway: {timeouts: {request_s: 2, stream_s: 1}, cooldown_s: 0.2}
"""
RESULT = compiled(CATALOGUE)


def error(message: str, code: str | None = None) -> Behaviour:
    return Behaviour(
        400, {"error": {"message": message, "type": "invalid_request_error", "code": code}}
    )


FAIL = Behaviour(500, {"error": {"message": "stub: out of order", "type": "server_error"}})
TOO_LONG = error(
    "This model's maximum context length is 8 tokens. However, you requested 9 tokens."
)
REFUSED = error("stub: not in this house", "content_policy_violation")


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for number in range(1, 8):
        stubs.listen(f"192.0.2.{number}", 8000)
    with Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("requests")) as running:
        yield running


Ask = Callable[..., tuple[Answer, list[str]]]


@pytest.fixture
def ask(gateway: Gateway, stubs: Stubs) -> Ask:
    """Ask a model while some of the stubs fail; returns the answer and the served names that were
    asked, in order."""

    def ask(
        model: str,
        *,
        stream: bool = False,
        tags: str = "",
        pause: bool = True,
        **failing: Behaviour,
    ) -> tuple[Answer, list[str]]:
        stubs.behaviours.update(failing)
        with stubs.recording() as calls:
            answer = gateway.chat(
                model, stream=stream, headers={"x-litellm-tags": tags} if tags else None
            )
        stubs.behaviours.clear()
        if failing and pause:
            time.sleep(0.5)  # until what failed is no longer cooled down
        return answer, [call.model for call in calls]

    return ask


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["a", "fast"])
def test_a_request_that_is_too_long_takes_a_chain_of_its_own(
    ask: Ask, name: str, stream: bool
) -> None:
    answer, asked = ask(name, a=TOO_LONG, stream=stream)
    assert (answer.status, asked) == (200, ["a", "c"])
    answer, asked = ask(name, a=FAIL, stream=stream)
    assert (answer.status, asked) == (200, ["a", "b"])


def test_a_content_policy_takes_a_chain_of_its_own(ask: Ask) -> None:
    answer, asked = ask("a", a=REFUSED)
    assert (answer.status, asked) == (200, ["a", "d"])
    answer, asked = ask("b", b=REFUSED)
    assert (answer.status, asked) == (400, ["b"]), "terminal: nobody steps in, on purpose"
    assert answer.error is not None
    assert "not in this house" in answer.error["message"]


def test_a_name_without_such_a_chain_keeps_its_ordinary_one(ask: Ask) -> None:
    """Emitted for `a` alone, the gateway would answer 400 here."""
    answer, asked = ask("b", b=TOO_LONG)
    assert (answer.status, asked) == (200, ["b", "c"])
    answer, asked = ask("d", d=REFUSED)
    assert (answer.status, asked) == (200, ["d", "c"])


def test_default_chain(ask: Ask) -> None:
    answer, asked = ask("d", d=FAIL)
    assert (answer.status, asked) == (200, ["d", "c"])


@pytest.mark.parametrize(
    ("failure", "key"),
    [(FAIL, "attempts"), (TOO_LONG, "context_window"), (REFUSED, "content_policy")],
)
def test_a_capability_on_the_errors_of_its_models(ask: Ask, failure: Behaviour, key: str) -> None:
    """The gateway leaves the group after the first such error, so the other members stand in the
    chain."""
    (route,) = (route for route in RESULT.routes if route["name"] == "code")
    order = [step["model"] for step in route["attempts"]] if key == "attempts" else route[key]
    assert (
        order
        == {
            "attempts": ["a", "b", "c"],
            "context_window": ["a", "c", "b"],
            "content_policy": ["a", "d", "b"],
        }[key]
    )
    for failing in range(1, 3):
        answer, asked = ask("code", **dict.fromkeys(order[:failing], failure))
        assert (answer.status, asked) == (200, order[: failing + 1])
    answer, asked = ask("code", **dict.fromkeys(order, failure))
    assert (answer.status, asked) == (failure.status, order)


def test_a_capability_whose_first_model_is_cooled_down(ask: Ask) -> None:
    """What was skipped is not asked on behalf of another's error either."""
    asked = [ask("code", pause=False, a=FAIL)[1] for _ in range(3)]
    assert asked == [["a", "b"], ["a", "b"], ["b"]]
    answer, order = ask("code", b=TOO_LONG)
    assert (answer.status, order) == (200, ["b", "c"])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [("", "t-any"), ("eu", "t-eu"), ("other", "t-any"), ("eu,other", "t-eu"), ("default", "t-any")],
)
def test_a_tag_chooses_among_the_deployments_of_a_name(ask: Ask, tags: str, expected: str) -> None:
    for _ in range(4):
        answer, asked = ask("t", tags=tags)
        assert (answer.status, asked) == (200, [expected])


@pytest.mark.parametrize("tags", ["", "eu", "other"])
def test_a_tag_is_no_reason_to_refuse_a_request(ask: Ask, tags: str) -> None:
    """Neither at a name that has another one, nor at an untagged name, nor at a step of a chain."""
    for name in ("lone", "c", "a"):
        answer, asked = ask(name, tags=tags)
        assert (answer.status, asked) == (200, [name])
    answer, asked = ask("lone", tags=tags, lone=FAIL)
    assert (answer.status, asked) == (200, ["lone", "c"])


@pytest.mark.parametrize(("model", "cost"), [("c", 0.0035), ("d", 3.5e-6)])
def test_price(ask: Ask, model: str, cost: float) -> None:
    """5 tokens of input and 3 of output, in dollars per million; also where the price of one token
    is 1e-07."""
    answer, _asked = ask(model)
    assert float(answer.headers["x-litellm-response-cost"]) == pytest.approx(cost)


def test_no_prompt_is_logged(ask: Ask, gateway: Gateway) -> None:
    """Neither of a request that is answered nor of one that fails, nor what the upstream says."""
    answer, _asked = ask("c", c=error("stub: no such parameter"))
    assert answer.status == 400
    log = gateway.log.read_text()
    assert "failed: BadRequestError 400" in log, "the log must hold something of this request"
    assert "stub: no such parameter" not in log
    assert "Who are you?" not in log
