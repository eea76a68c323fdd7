"""Answers that are kept: for the same request of the same client, and for no other."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import Answer, Gateway, compiled, plan, secret
from redis_server import Redis
from stubs import Behaviour, Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: chat}, {name: text}, {name: vectors}, {name: words}, {name: speech}]
llm_routing:
  fallbacks:
    {chat: {terminal: true}, text: {terminal: true}, vectors: {terminal: true}, words: {terminal: true},
     speech: {terminal: true}}
llm_gateway: {timeouts: {request_s: 5, stream_s: 5}, cache: {enabled: true, ttl_s: 600}}
llm_clients:
  one: {secret: ONE_CLIENT_OF_THE_GATEWAY}
  two: {secret: TWO_CLIENTS_OF_THE_GATEWAY}
  limited: {secret: LIMITED_USE_OF_THE_GATEWAY, rpm: 3}
"""
RESULT = compiled(CATALOGUE, {"llm_redis": ["cache"]}, {"cache": "192.0.2.21"})
CLIENTS: Mapping[str, Any] = RESULT.plans["gw"]["litellm"]["clients"]
MASTER = "the master key"

CHAT, TEXT, VECTORS, WORDS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
)
ASKED: Mapping[str, Mapping[str, Any]] = {
    CHAT: {"model": "chat", "messages": [{"role": "user", "content": "Who are you?"}]},
    TEXT: {"model": "text", "prompt": "Who are you?"},
    VECTORS: {"model": "vectors", "input": ["first", "second"]},
    WORDS: {"model": "words", "input": "Who are you?"},
}
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "text": {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "text",
        "choices": [{"index": 0, "text": "I am text", "finish_reason": "stop"}],
        "usage": USAGE,
    },
    "vectors": {
        "object": "list",
        "model": "vectors",
        "data": [
            {"object": "embedding", "index": index, "embedding": [0.0, index]} for index in range(2)
        ],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    },
    "words": {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "words",
        "output": [
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I am words", "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8},
    },
    "speech": {"text": "I am speech"},
}


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    behaviours = stubs.listen("192.0.2.1", 8000).behaviours
    behaviours |= {name: Behaviour(body=body) for name, body in ANSWERS.items()}
    # What a form asks for the stub does not read.
    behaviours[""] = behaviours["speech"]
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("cache"))
    running.allow(CLIENTS)
    with Redis("192.0.2.21", tmp_path_factory.mktemp("redis")), running:
        running.chat("text")  # The first request takes so long that Redis seems to be away.
        deadline = time.monotonic() + 10
        while (log := running.log.read_text()).count("Redis does not answer") > log.count(
            "Redis answers again"
        ):
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.1)
        yield running
    behaviours.clear()


def key(sender: str) -> dict[str, str]:
    return {
        "Authorization": (
            f"Bearer {secret(MASTER_KEY if sender == MASTER else CLIENTS[sender]['secret'])}"
        )
    }


def ask(
    gateway: Gateway, sender: str, path: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Answer:
    answer = gateway.request(
        "POST", path, {**ASKED[path], **more}, {**key(sender), **(headers or {})}
    )
    assert answer.status == 200, answer.body
    return answer


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("sender", ["one", MASTER])
def test_the_same_request_is_asked_once(
    gateway: Gateway, stubs: Stubs, path: str, sender: str
) -> None:
    with stubs.recording() as calls:
        answers = [ask(gateway, sender, path, user=f"somebody of {sender}") for _ in range(3)]
    assert len(calls) == 1
    assert "cache" not in calls[0].body
    # The id of a response is new each time: it says whose the response is.
    assert len({json.dumps({**answer.body, "id": ""}, sort_keys=True) for answer in answers}) == 1


def test_so_is_a_stream(gateway: Gateway, stubs: Stubs) -> None:
    with stubs.recording() as calls:
        answers = [ask(gateway, "one", CHAT, stream=True) for _ in range(3)]
    assert len(calls) == 1
    assert [(answer.text, answer.done) for answer in answers] == [("I am chat", True)] * 3
    with stubs.recording() as calls:
        ask(gateway, "one", CHAT, stream=True, stream_options={"include_usage": True})
    assert len(calls) == 1


@pytest.mark.parametrize("path", ASKED)
def test_nobody_else_gets_the_answer(gateway: Gateway, stubs: Stubs, path: str) -> None:
    with stubs.recording() as calls:
        for sender in ("one", "two", MASTER):
            ask(gateway, sender, path, user="everybody")
    assert len(calls) == 3


OTHERWISE: Mapping[str, list[dict[str, Any]]] = {
    CHAT: [
        *(
            {name: value}
            for name in ("grammar", "guided_regex", "unheard_of")
            for value in ("x", "y")
        ),
        *({"guided_json": {"type": kind}} for kind in ("object", "array")),
        *({"min_p": value} for value in (0, 0.1)),
        *({"temperature": value} for value in (0, 0.0, 1)),
        *({"seed": value} for value in (1, 2)),
        *({"user": value} for value in ("x", "y")),
        *({"tags": [value]} for value in ("x", "y")),
        *({"metadata": {"a": value}} for value in ("x", "y")),
        *({"chat_template_kwargs": {"enable_thinking": value}} for value in (True, False)),
        {"messages": [{"role": "user", "content": "Who are you?", "name": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]},
    ],
    TEXT: [{"grammar": "x"}, {"grammar": "y"}, {"suffix": "x"}, {"min_p": 0.1}],
    VECTORS: [
        {"input": ["first", "other"]},
        {"input": ["second", "first"]},
        {"truncate_prompt_tokens": 1},
        {"truncate_prompt_tokens": 2},
        {"instruction": "x"},
    ],
    WORDS: [
        {"grammar": "x"},
        {"grammar": "y"},
        {"min_p": 0.1},
        {"instructions": "x"},
        {"metadata": {"a": "x"}},
    ],
}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("sender", ["one", MASTER])
def test_every_field_makes_another_request(
    gateway: Gateway, stubs: Stubs, path: str, sender: str
) -> None:
    with stubs.recording() as calls:
        for more in [{}, *OTHERWISE[path]]:
            ask(gateway, sender, path, **more)
    assert len(calls) == 1 + len(OTHERWISE[path])
    with stubs.recording() as calls:
        for more in [{}, *OTHERWISE[path]]:
            ask(gateway, sender, path, **more)
    assert calls == []


def test_so_does_a_header_that_the_gateway_reads(gateway: Gateway, stubs: Stubs) -> None:
    with stubs.recording() as calls:
        for tag in ("x", "y", "x"):
            ask(gateway, "one", CHAT, {"x-litellm-tags": tag}, user="of a tag")
    assert len(calls) == 2


CONTROLS: list[Any] = [
    {"no-cache": True},
    {"no-store": True},
    {"ttl": 1},
    {"s-maxage": 0},
    {"namespace": "mine"},
    {"use-cache": False},
    "no",
    None,
    [],
]


@pytest.mark.parametrize("path", ASKED)
def test_what_a_client_says_about_it_is_not_heard(
    gateway: Gateway, stubs: Stubs, path: str
) -> None:
    with stubs.recording() as calls:
        for control in CONTROLS:
            ask(
                gateway,
                "one",
                path,
                {"Cache-Control": "no-cache, no-store, s-maxage=0"},
                user="me",
                cache=control,
            )
    assert len(calls) == 1


@pytest.mark.parametrize(
    "field", ["cache_key", "preset_cache_key", "caching", "ttl", "caching_groups"]
)
def test_what_would_reach_the_answers_of_others_is_refused(
    gateway: Gateway, stubs: Stubs, field: str
) -> None:
    with stubs.recording() as calls:
        answer = gateway.request("POST", CHAT, {**ASKED[CHAT], field: "x"}, key("one"))
    assert (answer.status, calls) == (400, [])


INNER = {
    "redis_namespace": "mine",
    "caching_groups": [["chat", "text"]],
    "model_group": "mine",
    "file_checksum": "x",
    "cache_key": "x",
}


@pytest.mark.parametrize("path", ASKED)
def test_nor_do_metadata_reach_them(gateway: Gateway, stubs: Stubs, path: str) -> None:
    """Two clients say the same, and each asks for itself."""
    with stubs.recording() as calls:
        for sender in ("one", "two", "one", "two"):
            ask(gateway, sender, path, metadata=INNER)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "field", ["dynamic_cache_object", "hash_hex", "key", "result", "self", "value", "s-maxage"]
)
@pytest.mark.parametrize("path", ASKED)
def test_fields_that_are_called_like_something_inside(
    gateway: Gateway, path: str, field: str
) -> None:
    """They go to the engine as any other that the gateway does not know, or are refused. Nothing
    breaks."""
    answer = gateway.request("POST", path, {**ASKED[path], field: "x"}, key("one"))
    assert answer.status in (200, 400), answer.body


def test_forms_are_asked_every_time(gateway: Gateway, stubs: Stubs) -> None:
    """LiteLLM knows a file by its name."""

    def send(sender: str, content: str) -> int:
        parts = '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nspeech\r\n'
        parts += (
            '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + content
        )
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        headers = {**key(sender), "Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/v1/audio/transcriptions", parts + "\r\n--x--\r\n", headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status

    sent = [("one", "RIFF"), ("one", "RIFF"), ("one", "other"), ("two", "RIFF")]
    with stubs.recording() as calls:
        assert [send(*each) for each in sent] == [200] * 4
    assert len(calls) == 4


def test_an_answer_that_was_kept_counts_as_a_request(gateway: Gateway) -> None:
    answers = [gateway.request("POST", CHAT, ASKED[CHAT], key("limited")) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
