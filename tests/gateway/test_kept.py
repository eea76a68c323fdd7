"""Responses that are kept by id belong to the client that made them; of what else a provider keeps
nobody has any."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import Answer, Gateway, compiled, plan, secret
from stubs import Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}, {name: b}]}
llm_routing: {fallbacks: {a: {chain: [b]}, b: {terminal: true}}}
llm_clients:
  alice: {secret: KEY_OF_ALICE_AT_THE_GATEWAY}
  bob: {secret: KEY_OF_BOB_AT_THE_GATEWAY}
"""
RESULT = compiled(CATALOGUE)
CLIENTS: Mapping[str, Any] = RESULT.plans["gw"]["litellm"]["clients"]
RAW = "resp_a"
"""What the stub calls its answers to a."""


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("kept"))
    running.allow(CLIENTS)
    with running:
        yield running


LEAST: Mapping[str, Mapping[str, Any]] = {
    "responses": {"input": "x"},
    "chat/completions": {"messages": [{"role": "user", "content": "x"}]},
}


def ask(
    gateway: Gateway, who: str, more: Mapping[str, Any] | None = None, path: str = "responses"
) -> Answer:
    name = MASTER_KEY if who == "master" else CLIENTS[who]["secret"]
    body = {"model": "a", **LEAST[path], **(more or {})}
    return gateway.request("POST", f"/v1/{path}", body, {"Authorization": f"Bearer {secret(name)}"})


def after(response_id: str, *, stream: bool = False) -> dict[str, Any]:
    return {"previous_response_id": response_id, "stream": stream}


def ids(answer: Answer) -> list[str]:
    """The ids that a client was told."""
    assert answer.status == 200
    responses = [event.get("response", event) for event in answer.events]
    return [response["id"] for response in responses if response.get("object") == "response"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_its_clients(gateway: Gateway, stubs: Stubs, stream: bool) -> None:
    told = ids(ask(gateway, "alice", {"stream": stream}))
    assert all(RAW not in own for own in told)
    for own in told:
        with stubs.recording() as calls:
            assert ask(gateway, "alice", after(own)).status == 200
            assert ask(gateway, "alice", after(own, stream=True)).status == 200
        assert [call.body["previous_response_id"] for call in calls] == [RAW, RAW]
        with stubs.recording() as calls:
            for again in (False, True):
                answer = ask(gateway, "bob", after(own, stream=again))
                assert answer.status == 403
                assert answer.error is not None
                assert answer.error["message"].startswith(
                    "Forbidden. The response id is not associated with the user"
                )
                assert "config" not in answer.error["message"]
        assert calls == []


def test_an_id_that_nobody_was_told_is_no_key(gateway: Gateway, stubs: Stubs) -> None:
    """Neither the engine's own, nor one that is made like the gateway's, nor a part of one."""
    (own,) = ids(ask(gateway, "alice"))
    inner = base64.b64encode(
        b"litellm:custom_llm_provider:openai;model_id:one/-/a;response_id:resp_a"
    ).decode()
    forged = base64.b64encode(
        b"litellm_proxy:responses_api:response_id:resp_a;user_id:client bob;team_id:"
    ).decode()
    with stubs.recording() as calls:
        for wrong in (
            RAW,
            "a",
            own[:-8],
            own.removeprefix("resp_"),
            f"resp_{inner}",
            f"resp_{forged}",
            f"{own}resp_a",
        ):
            for who in ("alice", "bob"):
                answer = ask(gateway, who, after(wrong))
                assert answer.status == 403 or (who == "alice" and wrong.startswith(own))
    assert [call.body.get("previous_response_id") for call in calls] in ([], [RAW])


def test_the_master_key_has_all(gateway: Gateway, stubs: Stubs) -> None:
    (own,) = ids(ask(gateway, "alice"))
    with stubs.recording() as calls:
        assert ask(gateway, "master", after(own)).status == 200
        assert ask(gateway, "master", after(RAW)).status == 200
    assert [call.body["previous_response_id"] for call in calls] == [RAW, RAW]


@pytest.mark.full
def test_another_master_key_knows_none_of_them(
    gateway: Gateway,
    environment: Path,
    stubs: Stubs,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ids are encrypted with it: after a rotation a client begins a conversation anew."""
    (own,) = ids(ask(gateway, "alice"))
    monkeypatch.setattr(
        harness, "secret", lambda name: f"{secret(name)}{'-new' if name == MASTER_KEY else ''}"
    )
    other = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("rotated"))
    other.allow(CLIENTS)
    with other, stubs.recording() as calls:
        assert ask(other, "alice", after(own)).status == 403
    assert calls == []


def content(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_text", "text": "x"}, *parts]}]


CODE = {"type": "code_interpreter"}
REFERENCES: dict[str, dict[str, Any]] = {
    "item_reference": {"input": [{"type": "item_reference", "id": "msg_1"}]},
    "item_reference without its type": {"input": [{"id": "msg_1"}]},
    "image_generation_call": {"input": [{"type": "image_generation_call", "id": "ig_1"}]},
    "conversation": {"conversation": "conv_1"},
    "conversation with an id": {"conversation": {"id": "conv_1"}},
    "prompt": {"prompt": {"id": "pmpt_1"}},
    "background": {"background": True},
    "file_id": {"input": content({"type": "input_file", "file_id": "file-1"})},
    "file_id of a picture": {"input": content({"type": "input_image", "file_id": "file-1"})},
    "container": {"tools": [{**CODE, "container": "cntr_1"}]},
    "file_ids": {"tools": [{**CODE, "container": {"type": "auto", "file_ids": ["file-1"]}}]},
    "vector_store_ids": {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
    "file_id of a mask": {
        "tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}]
    },
    "file_id in an output": {
        "input": [
            {
                "type": "function_call_output",
                "call_id": "1",
                "output": [{"type": "input_file", "file_id": "f"}],
            }
        ]
    },
}
OF_CHATS: dict[str, dict[str, Any]] = {
    "file_id": {
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]
    },
    "audio": {
        "messages": [
            {"role": "assistant", "audio": {"id": "audio_1"}},
            {"role": "user", "content": "x"},
        ]
    },
    "previous_response_id": {"previous_response_id": "resp_1"},
    "container": {"container": {"id": "container_1", "skills": []}},
}


PATHS = {"responses": REFERENCES, "chat/completions": OF_CHATS}


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, found in PATHS.items() for name in found]
)
def test_what_else_is_kept_is_nobodys(gateway: Gateway, stubs: Stubs, path: str, name: str) -> None:
    with stubs.recording() as calls:
        answer = ask(gateway, "bob", PATHS[path][name], path)
    assert answer.status == 400, answer.body
    assert answer.error is not None
    assert calls == []


def test_what_only_looks_like_it_passes(gateway: Gateway, stubs: Stubs) -> None:
    """Parameters of functions, their arguments and results, and items that are whole."""
    schema = {
        "type": "object",
        "properties": {"file_id": {"type": "string"}, "container": {"enum": ["a"]}},
    }
    items = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "x"}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "1",
            "name": "f",
            "arguments": '{"file_id": "x"}',
        },
        {"type": "function_call_output", "call_id": "1", "output": '{"id": "x"}'},
    ]
    more = {
        "input": items,
        "tools": [
            {"type": "function", "name": "f", "parameters": schema, "strict": False},
            {**CODE, "container": {"type": "auto"}},
        ],
        "metadata": {"file_id": "x"},
        "background": False,
    }
    with stubs.recording() as calls:
        answer = ask(gateway, "bob", more)
    assert answer.status == 200, answer.body
    assert calls[0].body["input"] == items
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    chat = {"tools": tools, "audio": {"voice": "x", "format": "wav"}}
    assert ask(gateway, "bob", chat, "chat/completions").status == 200


def test_the_clients_name_is_not_sent_upstream(gateway: Gateway, stubs: Stubs) -> None:
    """LiteLLM knows it as its user."""
    with stubs.recording() as calls:
        ask(gateway, "alice")
        ask(gateway, "alice", path="chat/completions")
    assert len(calls) == 2
    assert all("alice" not in f"{call.body} {call.headers}" for call in calls)
