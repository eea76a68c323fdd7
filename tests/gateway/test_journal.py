"""What a client sent, and what an engine repeats of it, is in no line of the gateway's journal."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, compiled, plan, secret
from stubs import Behaviour, Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: a}, {name: b}, {name: c}, {name: d}, {name: images}, {name: speech}]
  gone:
    type: openai_compatible
    base_url: http://192.0.2.9:8000/v1
    models: [{name: gone}]
llm_gateway: {timeouts: {request_s: 2, stream_s: 1}}
llm_routing:
  fallbacks: {a: {chain: [b]}, b: {terminal: true}, c: {chain: [d]}, d: {terminal: true}, gone: {terminal: true}}
llm_clients: {app: {secret: KEY_OF_THE_APPLICATION, models: [a, c, gone, images, speech]}}
"""

KEYS = ("KEY_OF_THE_APPLICATION", MASTER_KEY)
MARK = "MARK-4711"

CALL = {"id": "1", "type": "function", "function": {"name": MARK, "arguments": f'{{"x":"{MARK}"}}'}}
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "content": {"messages": [{"role": "user", "content": MARK}]},
    "role": {"messages": [{"role": MARK, "content": "x"}]},
    "name": {"messages": [{"role": "user", "content": "x", "name": MARK}]},
    "tool-call": {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    "tool-call-without-name": {
        "messages": [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"arguments": MARK}}],
            }
        ]
    },
    "tool": {"tools": [{"type": "function", "function": {"name": MARK, "description": MARK}}]},
    "odd-tool": {"tools": [{"type": MARK}], "tool_choice": MARK},
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": f"http://x/{MARK}.png"}}],
            }
        ]
    },
    "part": {"messages": [{"role": "user", "content": [{"type": MARK, MARK: MARK}]}]},
    "user": {"user": MARK},
    "metadata": {"metadata": {"m": MARK, MARK: "x", "tags": [MARK]}},
    "odd-metadata": {"metadata": MARK},
    "unknown": {MARK: MARK},
    "own": {f"litellm_{MARK}": MARK},
    "wrong-type": {"temperature": MARK, "stop": {MARK: MARK}},
    "stop": {"stop": [MARK]},
    "response-format": {"response_format": {"type": "json_schema", "json_schema": {MARK: MARK}}},
    "model": {"model": MARK},
    "no-model": {"model": [MARK]},
}

ERROR = {"error": {"message": f"Failed to parse messages: {MARK}", "type": MARK, "code": MARK}}
FAILURES: Mapping[str, Behaviour] = {
    "200": Behaviour(),
    "400": Behaviour(400, ERROR),
    "401": Behaviour(401, ERROR),
    "404": Behaviour(404, ERROR),
    "422": Behaviour(422, {"detail": [{"loc": ["body", MARK], "msg": MARK}]}),
    "429": Behaviour(429, ERROR, {"retry-after": "1"}),
    "500": Behaviour(500, ERROR),
    "too-long": Behaviour(400, {"error": {"message": f"maximum context length is 5: {MARK}"}}),
    "no-json": Behaviour(500, MARK.encode()),
    "garbage": Behaviour(200, f"<html>{MARK}".encode()),
    "odd-answer": Behaviour(200, {"choices": MARK, MARK: MARK}),
    "late": Behaviour(until="request"),
    "cut": Behaviour(until="headers", then="cut"),
    "cut-in-the-answer": Behaviour(until="token", then="cut"),
    "error-in-the-stream": Behaviour(events=(json.dumps(ERROR).encode(),)),
    "odd-event": Behaviour(events=(f"{{{MARK}".encode(), json.dumps({"choices": MARK}).encode())),
}


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    result = compiled(CATALOGUE)
    stubs.listen("192.0.2.1", 8000)
    with Gateway(environment, plan(result), tmp_path_factory.mktemp("journal")) as running:
        running.allow(plan(result)["clients"])
        yield running


@pytest.fixture(autouse=True)
def healthy(stubs: Stubs) -> Iterator[None]:
    """Leave stubs behind that answer."""
    yield
    stubs.behaviours.clear()


def ask(
    gateway: Gateway,
    body: Any,
    path: str = "/v1/chat/completions",
    key: str = "KEY_OF_THE_APPLICATION",
) -> int:
    """The status of one request, after what it left in the journal was written."""
    headers = {"Authorization": f"Bearer {secret(key)}"}
    return gateway.request("POST", path, body, headers, timeout_s=20).status


def shows(gateway: Gateway) -> list[str]:
    """Lines of the journal with the mark."""
    return [line for line in gateway.log.read_text().splitlines() if MARK in line]


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_puts_content_into_the_journal(
    gateway: Gateway, stubs: Stubs, failure: str
) -> None:
    """Whatever the engine answers, streamed or not, to a client or not."""
    stubs.behaviours.update(dict.fromkeys("ab", FAILURES[failure]))
    for stream, key in zip((False, True), KEYS, strict=True):
        assert ask(gateway, {"model": "a", **FIELDS["content"], "stream": stream}, key=key)
    assert shows(gateway) == []


@pytest.mark.parametrize("failure", ["200", "500"])
def test_no_field_gets_into_the_journal(gateway: Gateway, stubs: Stubs, failure: str) -> None:
    """Whether the guard refuses it, LiteLLM, the engine, or nobody."""
    stubs.behaviours.update(dict.fromkeys("ab", FAILURES[failure]))
    for field in FIELDS.values():
        for key in KEYS:
            assert ask(gateway, {"model": "a", **FIELDS["content"], **field}, key=key)
    assert shows(gateway) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "a", "input": MARK, "instructions": MARK}),
        ("/v1/responses", {"model": "a", "input": [{"role": MARK, "content": MARK}]}),
        ("/v1/responses", {"model": "a", "input": MARK, "previous_response_id": MARK}),
        ("/v1/completions", {"model": "a", "prompt": MARK}),
        ("/v1/completions", {"model": "a", "prompt": MARK, "suffix": MARK, "stream": True}),
        ("/v1/embeddings", {"model": "a", "input": [MARK]}),
        ("/v1/images/generations", {"model": "images", "prompt": MARK, "size": MARK}),
        ("/v1/audio/speech", {"model": "speech", "input": MARK, "voice": MARK}),
        ("/v1/moderations", {"model": "a", "input": MARK}),
    ],
)
def test_no_path_puts_content_into_the_journal(
    gateway: Gateway, stubs: Stubs, path: str, body: Mapping[str, Any]
) -> None:
    for failure, key in zip(("500", "odd-answer"), KEYS, strict=True):
        stubs.behaviours.update(dict.fromkeys(("a", "b", "images", "speech"), FAILURES[failure]))
        assert ask(gateway, body, path, key)
    assert shows(gateway) == []


def test_neither_does_what_is_no_request(gateway: Gateway) -> None:
    """No JSON, no text, names that do not exist, an engine that nobody reaches, a wrong key."""
    requests: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("POST", "/v1/chat/completions", f'{{"model": "a", {MARK}'.encode(), {}),
        ("POST", "/v1/chat/completions", b"\xff" + MARK.encode(), {}),
        ("POST", "/v1/chat/completions", f'"{MARK}"'.encode(), {}),
        ("POST", "/v1/chat/completions", f'{{"model":"a","model":"{MARK}"}}'.encode(), {}),
        ("POST", "/v1/chat/completions", b"{}", {"Content-Type": MARK}),
        ("POST", "/v1/chat/completions", b"{}", {"Authorization": f"Bearer {MARK}"}),
        ("POST", "/v1/chat/completions", b"{}", {f"x-litellm-{MARK}": MARK}),
        ("GET", f"/v1/models/{MARK}", b"", {}),
        ("GET", f"/v1/models/org/{MARK}", b"", {}),
        (
            "POST",
            "/v1/chat/completions",
            json.dumps({"model": "gone", "messages": [{"role": "user", "content": MARK}]}).encode(),
            {},
        ),
    ]
    for method, path, body, headers in requests:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        own = {
            "Authorization": f"Bearer {secret('KEY_OF_THE_APPLICATION')}",
            "Content-Type": "application/json",
        }
        connection.request(method, path, body, {**own, **headers})
        assert connection.getresponse().status >= 400, path
        connection.close()
    assert shows(gateway) == []


def test_the_journal_says_all_the_same_what_failed(gateway: Gateway, stubs: Stubs) -> None:
    """Which deployment failed with which status, and where in the code an error was raised."""
    stubs.behaviours.update(dict.fromkeys("cd", FAILURES["500"]))
    before = len(gateway.log.read_text())
    messages = [{"role": "user", "content": MARK}]
    assert ask(gateway, {"model": "c", "messages": messages}) == 500
    said = gateway.log.read_text()[before:]
    assert "modelyard: client app: POST /v1/chat/completions c\n" in said
    for name in "cd":
        assert re.search(
            rf"^modelyard: {name} at \S+ failed: InternalServerError 500$", said, re.M
        ), said
    assert re.search(
        r"^ERROR LiteLLM[ \w]* at \w+\.py:\d+: Traceback of InternalServerError 500", said, re.M
    ), said
