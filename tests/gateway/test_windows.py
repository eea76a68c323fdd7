"""A prompt that an engine would cut without a word goes to the context chain, or is 400."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Gateway, compiled, plan
from stubs import USAGE, Behaviour, Stubs

WINDOW = USAGE["prompt_tokens"] + 1
"""The stub has read one token less, and as many as FITS has words."""

FITS, TOO_LONG = "go " * (WINDOW - 1), "go " * (WINDOW + 1)
"""So many tokens at the least; a real tokenizer may make more of both."""

CHAINS = {
    "cut": {"chain": ["ordinary"]},
    "last": {"terminal": True},
    "vectors": {"chain": ["vectors-2"]},
    "vectors-2": {"terminal": True},
    **{name: {"terminal": True} for name in ("long", "ordinary", "open")},
}


def catalogue() -> str:
    vectors = {"served_name": "vectors", "mode": "embedding", "context_length": WINDOW}
    models: list[dict[str, Any]] = [
        {"name": "cut", "context_length": WINDOW},
        {"name": "last", "context_length": WINDOW},
        {"name": "vectors", **vectors},
        # Nobody has said what it takes.
        {"name": "open"},
    ]
    others: list[dict[str, Any]] = [
        {"name": "long", "context_length": 9 * WINDOW},
        {"name": "ordinary"},
    ]
    return yaml.safe_dump(
        {
            "llm_providers": {
                "cuts": {"type": "ollama", "base_url": "http://192.0.2.1:8000", "models": models},
                "twin": {
                    "type": "ollama",
                    "base_url": "http://192.0.2.2:8000",
                    "models": [{"name": "vectors-2", **vectors}],
                },
                "says": {"type": "vllm", "base_url": "http://192.0.2.3:8000", "models": others},
            },
            "llm_routing": {
                "fallbacks": CHAINS,
                "context_window_fallbacks": {"cut": {"chain": ["long"]}},
            },
        }
    )


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for number in (1, 2, 3):
        stubs.listen(f"192.0.2.{number}", 8000)
    found = plan(compiled(catalogue()))
    with Gateway(environment, found, tmp_path_factory.mktemp("windows")) as running:
        yield running


def asked(
    gateway: Gateway, stubs: Stubs, path: str, body: Mapping[str, Any]
) -> tuple[int, list[str]]:
    """The status, and who was asked."""
    with stubs.recording() as calls:
        answer = gateway.request("POST", f"/v1/{path}", body)
    return answer.status, [call.model for call in calls]


def chat(model: str, *texts: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts]
    return {"model": model, "messages": messages, **more}


BODIES: Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "chat": ("chat/completions", lambda text: chat("cut", text)),
    "stream": ("chat/completions", lambda text: chat("cut", text, stream=True)),
    "several": ("chat/completions", lambda text: chat("cut", text[:6], text[6:])),
    "parts": (
        "chat/completions",
        lambda text: {
            "model": "cut",
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        },
    ),
    "completions": ("completions", lambda text: {"model": "cut", "prompt": text}),
    "responses": ("responses", lambda text: {"model": "cut", "input": text}),
    "responses-list": (
        "responses",
        lambda text: {"model": "cut", "input": [{"role": "user", "content": text}]},
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_prompt_that_would_be_cut_takes_the_context_chain(
    gateway: Gateway, stubs: Stubs, kind: str
) -> None:
    path, body = BODIES[kind]
    assert asked(gateway, stubs, path, body(FITS)) == (200, ["cut"])
    assert asked(gateway, stubs, path, body(TOO_LONG)) == (200, ["long"])


def test_without_a_chain_it_is_a_400(gateway: Gateway, stubs: Stubs) -> None:
    for _ in range(3):
        with stubs.recording() as calls:
            answer = gateway.request("POST", "/v1/chat/completions", chat("last", TOO_LONG))
        error = answer.body["error"]
        assert (answer.status, calls) == (400, [])
        assert error["code"] == "context_length_exceeded"
        assert error["message"] == (
            f"The request is longer than the model's context of {WINDOW} tokens."
        )
    # It was the request's fault.
    assert asked(gateway, stubs, "chat/completions", chat("last", FITS)) == (200, ["last"])


def test_an_input_is_never_cut_into_other_vectors(gateway: Gateway, stubs: Stubs) -> None:
    long: tuple[Any, ...] = (TOO_LONG, [TOO_LONG], ["a", TOO_LONG], [[7] * (WINDOW + 1)])
    for given in long:
        body = {"model": "vectors", "input": given}
        assert asked(gateway, stubs, "embeddings", body) == (400, [])
    for given in (FITS, [FITS, FITS], [7] * WINDOW, [[7] * WINDOW, [8] * WINDOW]):
        body = {"model": "vectors", "input": given}
        assert asked(gateway, stubs, "embeddings", body) == (200, ["vectors"])


@pytest.mark.parametrize(
    "words",
    [
        "input (900 tokens) is too large to process. increase the physical batch size (current"
        " batch size: 512)",
        "request (900 tokens) exceeds the available context size (512 tokens), try increasing it",
    ],
)
def test_an_engines_hint_for_its_owner_is_worded_for_clients(
    gateway: Gateway, stubs: Stubs, words: str
) -> None:
    error = {"code": 500, "message": words, "type": "server_error"}
    stubs.behaviours["vectors"] = Behaviour(500, {"error": error})
    try:
        answer = gateway.request("POST", "/v1/embeddings", {"model": "vectors-2", "input": "a"})
    finally:
        del stubs.behaviours["vectors"]
    assert answer.status == 400
    assert answer.body["error"] == {
        "message": "This model's maximum context length is 512 tokens. However, your request has"
        " 900 tokens. Please reduce its length.",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
    }


@pytest.mark.parametrize("model", ["open", "ordinary"])
def test_others_say_it_themselves(gateway: Gateway, stubs: Stubs, model: str) -> None:
    assert asked(gateway, stubs, "chat/completions", chat(model, TOO_LONG * 9)) == (200, [model])


def read(tokens: int) -> Behaviour:
    """An engine that says how much of a prompt it has read."""
    message = {"role": "assistant", "content": "cut"}
    choice = {"index": 0, "message": message, "text": "cut", "finish_reason": "stop"}
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return Behaviour(200, {**body, "choices": [choice]})


@pytest.mark.parametrize("tokens", [WINDOW, WINDOW + 5, 2])
def test_what_it_has_read_tells_that_it_has_cut(
    gateway: Gateway, stubs: Stubs, tokens: int
) -> None:
    """It has read as much as it can, or less than there are words."""
    asks: list[tuple[str, dict[str, Any]]] = [
        ("chat/completions", {"messages": [{"role": "user", "content": "go " * 4}]}),
        ("completions", {"prompt": "go " * 4}),
    ]
    for path, body in asks:
        stubs.behaviours.update(cut=read(tokens), last=read(tokens))
        assert asked(gateway, stubs, path, {"model": "cut", **body}) == (200, ["cut", "long"])
        assert asked(gateway, stubs, path, {"model": "last", **body}) == (400, ["last"])
        stubs.behaviours.clear()


@pytest.mark.parametrize("tokens", [4, WINDOW - 1, 0])
def test_what_it_has_read_can_be_all(gateway: Gateway, stubs: Stubs, tokens: int) -> None:
    for model in ("cut", "open"):
        stubs.behaviours[model] = read(tokens)
        body = chat(model, "go " * 4)
        assert asked(gateway, stubs, "chat/completions", body) == (200, [model])
    stubs.behaviours.clear()


def test_an_engine_that_says_so_with_500_is_a_400(gateway: Gateway, stubs: Stubs) -> None:
    message = "input (900 tokens) is too large to process. increase the physical batch size"
    stubs.behaviours["ordinary"] = Behaviour(500, {"error": {"code": 500, "message": message}})
    answer = gateway.request("POST", "/v1/embeddings", {"model": "ordinary", "input": "a"})
    stubs.behaviours.clear()
    assert answer.status == 400, answer.body
    assert answer.body["error"]["message"] == message
