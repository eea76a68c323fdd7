"""/v1/completions: whole and streamed texts reach clients as the engine sent them, and another step
may answer."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from harness import Answer, Gateway, compiled, plan, secret
from stubs import USAGE, Behaviour, Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}]}
  two: {type: vllm, base_url: "http://192.0.2.2:8000", models: [{name: b}]}
  cloud: {type: anthropic, base_url: "http://192.0.2.3:8000", api_key_env: CLOUD_KEY, models: [{name: claude}]}
llm_routing:
  fallbacks: {a: {chain: [b]}, b: {terminal: true}, claude: {terminal: true}}
llm_gateway: {timeouts: {request_s: 10, stream_s: 0.4}, cooldown_s: 1}
"""


@pytest.fixture(scope="module")
def running(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for number in (1, 2, 3):
        stubs.listen(f"192.0.2.{number}", 8000)
    catalogue = compiled(CATALOGUE, secrets=["CLOUD_KEY"])
    with Gateway(environment, plan(catalogue), tmp_path_factory.mktemp("texts")) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, stubs: Stubs) -> Iterator[Gateway]:
    """Return the gateway; afterwards the stubs are well again and nothing is cooled down."""
    yield running
    if stubs.behaviours:
        stubs.behaviours.clear()
        time.sleep(1.2)


def ask(gateway: Gateway, model: str, **more: Any) -> Answer:
    return gateway.request(
        "POST", "/v1/completions", {"model": model, "prompt": "Who are you?", **more}
    )


def choices(answer: Answer) -> list[dict[str, Any]]:
    return [choice for event in answer.events for choice in event["choices"]]


@pytest.mark.parametrize("model", ["a", "claude"])
@pytest.mark.parametrize("usage", [False, True])
def test_every_choice_of_a_stream_is_whole(gateway: Gateway, model: str, usage: bool) -> None:
    """Python joins the texts, Node prints what is not there, and both stop at the first event
    without a choice."""
    answer = ask(
        gateway,
        model,
        stream=True,
        **({"stream_options": {"include_usage": True}} if usage else {}),
    )
    assert (answer.status, answer.done, answer.model) == (200, True, model)
    assert "".join(choice["text"] for choice in choices(answer)) == f"I am {model}"
    assert {tuple(sorted(choice)) for choice in choices(answer)} == {
        ("finish_reason", "index", "logprobs", "text")
    }
    assert [choice["finish_reason"] for choice in choices(answer)] == [None, None, None, "stop"]
    assert {(event["object"], event["id"]) for event in answer.events} == {
        ("text_completion", answer.events[0]["id"])
    }
    if usage:
        assert answer.events[-1]["choices"] == []
        assert answer.events[-1]["usage"].items() >= USAGE.items()
    assert all("usage" not in event for event in (answer.events[:-1] if usage else answer.events))


def test_choices_keep_their_index(gateway: Gateway) -> None:
    answer = ask(gateway, "a", stream=True, n=2)
    for index in (0, 1):
        own = [choice for choice in choices(answer) if choice["index"] == index]
        assert "".join(choice["text"] for choice in own) == "I am a"
        assert [choice["finish_reason"] for choice in own] == [None, None, None, "stop"]
    whole = ask(gateway, "a", n=2)
    assert [(choice["index"], choice["text"]) for choice in choices(whole)] == [
        (0, "I am a"),
        (1, "I am a"),
    ]
    assert whole.body["usage"].items() >= USAGE.items()


def test_probabilities_and_an_engines_own_fields_arrive(gateway: Gateway, stubs: Stubs) -> None:
    logprobs = {
        "tokens": ["Who", "?"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"?": -0.5}],
    }
    event = (
        b"data:"
        b' {"id":"x","object":"text_completion","created":1,"model":"a","timings":{"n":1},"choices":['
    )
    event += (
        b'{"index":0,"text":"Who?","logprobs":{"tokens":["Who","?"],"token_logprobs":[null,-0.5],'
    )
    event += b'"top_logprobs":[null,{"?":-0.5}]},"finish_reason":"length"}]}\n\n'
    stubs.behaviours["a"] = Behaviour(events=(event, b"data: [DONE]\n\n"))
    with stubs.recording() as calls:
        answer = ask(gateway, "a", stream=True, echo=True, logprobs=1)
    assert [(call.body["echo"], call.body["logprobs"]) for call in calls] == [(True, 1)]
    assert choices(answer) == [
        {"index": 0, "text": "Who?", "logprobs": logprobs, "finish_reason": "length"}
    ]
    assert answer.events[0]["timings"] == {"n": 1}


def test_events_are_not_held_back(gateway: Gateway, stubs: Stubs) -> None:
    """Each comes when it was sent."""
    stubs.behaviours["a"] = Behaviour(pace_s=0.2)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"Authorization": f"Bearer {secret(MASTER_KEY)}", "Content-Type": "application/json"}
    connection.request(
        "POST", "/v1/completions", '{"model": "a", "prompt": "x", "stream": true}', headers
    )
    response = connection.getresponse()
    arrivals = [time.monotonic() for line in response if line.startswith(b"data: {")]
    connection.close()
    assert len(arrivals) == 4
    assert all(0.1 < later - earlier < 0.4 for earlier, later in pairwise(arrivals))


FAILURES: dict[str, tuple[Behaviour, int]] = {
    "500": (Behaviour(500, {"error": {"message": "stub: out of order"}}), 500),
    "400": (Behaviour(400, {"error": {"message": "stub: out of order", "code": "x"}}), 400),
    "closed": (Behaviour(until="request", then="cut"), 500),
    "silence": (Behaviour(until="request"), 408),
    "headers, then silence": (Behaviour(until="headers"), 408),
    "headers, then cut off": (Behaviour(until="headers", then="cut"), 500),
    "no event": (Behaviour(events=(b": nothing\n\n",)), 500),
    "an error": (
        Behaviour(events=(b'data: {"error": {"message": "stub: out of order"}}\n\n',)),
        500,
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_somebody_steps_in_for_an_engine_that_does_not_begin(
    gateway: Gateway, stubs: Stubs, failure: str
) -> None:
    """And with nobody behind it a client sees why; then it is cooled down, unless the request was
    wrong."""
    behaviour, status = FAILURES[failure]
    stubs.behaviours |= {"a": behaviour, "b": behaviour}
    answer = ask(gateway, "b", stream=True)
    assert (answer.status, answer.stream) == (status, False)
    assert answer.error is not None
    if behaviour.body or failure == "an error":
        assert "stub: out of order" in answer.error["message"]
    del stubs.behaviours["b"]
    for expected in (["a", "b"], ["a", "b"], ["a", "b"] if status == 400 else ["b"]):
        with stubs.recording() as calls:
            answer = ask(gateway, "a", stream=True)
        assert (answer.status, answer.model, choices(answer)[0]["text"]) == (200, "b", "I")
        assert [call.model for call in calls] == expected


def test_a_whole_text_has_the_same_errors(gateway: Gateway, stubs: Stubs) -> None:
    stubs.behaviours["b"] = FAILURES["400"][0]
    answer = ask(gateway, "b")
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["message"].endswith("stub: out of order")


@pytest.mark.parametrize("then", ["cut", "silence"])
def test_a_stream_that_breaks_ends_with_an_error(gateway: Gateway, stubs: Stubs, then: Any) -> None:
    stubs.behaviours["a"] = Behaviour(until="token", then=then)
    with stubs.recording() as calls:
        answer = ask(gateway, "a", stream=True)
    assert (answer.status, answer.done, choices_until_error(answer)) == (200, False, ["I"])
    assert answer.error is not None
    assert [call.model for call in calls] == ["a"], "nobody can go on with it"


def choices_until_error(answer: Answer) -> list[str]:
    return [choice["text"] for event in answer.events for choice in event.get("choices", [])]


CLIENT = """\
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
asked = {"model": "a", "prompt": "Who are you?", "stream": True, "stream_options": {"include_usage": True}}
events = list(client.completions.create(**asked))
print("".join(choice.text for event in events for choice in event.choices), events[-1].usage.completion_tokens)
"""


def test_openais_own_client(gateway: Gateway, environment: Path) -> None:
    command = [
        str(environment / "bin/python"),
        "-c",
        CLIENT,
        f"http://127.0.0.1:{gateway.port}/v1",
        secret(MASTER_KEY),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "I am a 3\n"


def test_tokens_are_counted(gateway: Gateway) -> None:
    def counted() -> float:
        lines = gateway.request("GET", "/metrics/").body.splitlines()
        found = [
            line
            for line in lines
            if line.startswith("litellm_output_tokens_metric_total") and '"one/-/a"' in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    before = counted()
    ask(gateway, "a", stream=True, stream_options={"include_usage": True})
    deadline = time.monotonic() + 5
    while counted() < before + USAGE["completion_tokens"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted() == before + USAGE["completion_tokens"]


def test_connections_are_kept_and_none_is_forgotten(gateway: Gateway) -> None:
    ask(gateway, "a")
    assert "Unclosed" not in gateway.log.read_text()
