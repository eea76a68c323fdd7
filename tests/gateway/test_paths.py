"""A path that nobody behind a model answers is refused before an engine is asked."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ASKING
from front_end import FrontEnd
from harness import Gateway, compiled, plan, secret
from stubs import Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: "http://192.0.2.1:8000/v1"
    models: [{name: chats}, {name: vectors, mode: embedding}, {name: any}]
llm_routing:
  fallbacks: {chats: {terminal: true}, vectors: {terminal: true}, any: {terminal: true}}
"""
CHAT = ("chat/completions", {"messages": [{"role": "user", "content": "a"}]})
EMBED = ("embeddings", {"input": "a"})
OTHERS = [
    ("moderations", {"input": "a"}),
    ("audio/speech", {"input": "a", "voice": "alloy"}),
    ("images/generations", {"prompt": "a"}),
    ("responses", {"input": "a"}),
]


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """What the compiler says of engines on hosts of ours (tests/unit/test_contexts.py)."""
    stubs.listen("192.0.2.1", 8000)
    found = plan(compiled(CATALOGUE))
    paths = {"chats": ["chat/completions", "completions"], "vectors": ["embeddings"]}
    known = {**found, "rules": {**found["rules"], "paths": paths}}
    with Gateway(environment, known, tmp_path_factory.mktemp("paths")) as running:
        yield running


def asked(
    gateway: Gateway, stubs: Stubs, model: str, path: str, body: dict[str, Any]
) -> tuple[int, int, Any]:
    """The status, how often an engine was asked, and the answer."""
    with stubs.recording() as calls:
        answer = gateway.request("POST", f"/v1/{path}", {"model": model, **body})
    return answer.status, len(calls), answer.body


def test_what_somebody_answers_is_asked(gateway: Gateway, stubs: Stubs) -> None:
    for model, (path, body) in (("chats", CHAT), ("vectors", EMBED), ("any", CHAT), ("any", EMBED)):
        assert asked(gateway, stubs, model, path, body)[:2] == (200, 1)


@pytest.mark.parametrize(("path", "body"), [EMBED, *OTHERS])
def test_what_nobody_answers_is_not(
    gateway: Gateway, stubs: Stubs, path: str, body: dict[str, Any]
) -> None:
    status, calls, answer = asked(gateway, stubs, "chats", path, body)
    assert (status, calls) == (404, 0)
    assert answer["error"] == {
        "message": "The model 'chats' answers /v1/chat/completions and /v1/completions only.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_for_path",
    }


def test_an_embedding_model_does_not_chat(gateway: Gateway, stubs: Stubs) -> None:
    status, calls, answer = asked(gateway, stubs, "vectors", *CHAT)
    assert (status, calls) == (404, 0)
    assert answer["error"]["message"] == "The model 'vectors' answers /v1/embeddings only."


CHATS = {"chat/completions", "completions", "responses"}
ENGINES = """\
llm_providers:
  native:
    type: llama_cpp
    group: engines
    port: 8001
    models:
      - {name: native, source: {path: /a.gguf}}
      - {name: native-hears, port: 8002, source: {path: /b.gguf}, options: {mmproj: /m.gguf}}
      - {name: native-embeds, port: 8003, mode: embedding, source: {path: /c.gguf}}
  python:
    type: llama_cpp
    flavour: python
    group: engines
    port: 8004
    models:
      - {name: python, source: {path: /d.gguf}}
      - {name: python-embeds, port: 8005, mode: embedding, source: {path: /e.gguf}}
  pulls:
    type: ollama
    group: engines
    port: 8006
    models: [{name: pulled}, {name: pulled-embeds, mode: embedding}]
  vllm:
    type: vllm
    group: engines
    port: 8007
    models:
      - {name: vllm, source: {path: /f}}
      - {name: vllm-embeds, port: 8008, mode: embedding, source: {path: /g}}
llm_routing:
  aliases: {alias: pulled}
"""
SERVED = {
    "native": CHATS,
    "native-hears": {*CHATS, "audio/transcriptions"},
    # LiteLLM makes a chat of /v1/responses for nobody.
    "python": CHATS - {"responses"},
    "pulled": CHATS,
    "alias": CHATS,
    "vllm": {*CHATS, "audio/transcriptions"},
    **{f"{name}-embeds": {"embeddings"} for name in ("native", "python", "pulled", "vllm")},
}
"""By model, what is asked of its engine."""


@pytest.fixture(scope="module")
def engines(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for port in range(8001, 8009):
        stubs.listen("192.0.2.9", port)
    alone = {name: {"terminal": True} for name in SERVED if name != "alias"}
    text = ENGINES + f"  fallbacks: {json.dumps(alone)}\n"
    found = compiled(text, {"engines": ["one"]}, {"one": "192.0.2.9"})
    with (
        FrontEnd(found, tmp_path_factory.mktemp("front")),
        Gateway(environment, plan(found), tmp_path_factory.mktemp("engines")) as running,
    ):
        yield running


def send_form(gateway: Gateway, path: str, model: str) -> tuple[int, Any]:
    """The status and the answer to a form with a file."""
    fields = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("model", model), ("prompt", "a"))
    )
    file = "image" if path.startswith("images") else "file"
    fields += (
        f'--x\r\nContent-Disposition: form-data; name="{file}"; filename="a.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\nRIFF\r\n--x--\r\n"
    )
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    headers = {
        "Authorization": f"Bearer {secret(MASTER_KEY)}",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    connection.request("POST", f"/v1/{path}", fields, headers)
    answer = connection.getresponse()
    body = json.load(answer)
    connection.close()
    return answer.status, body


@pytest.mark.parametrize("model", SERVED)
@pytest.mark.parametrize("path", [*ASKING, "audio/transcriptions", "images/edits"])
def test_every_path_for_every_kind_of_model(
    engines: Gateway, stubs: Stubs, model: str, path: str
) -> None:
    with stubs.recording() as calls:
        if path in ASKING:
            answer = engines.request("POST", f"/v1/{path}", {"model": model, **ASKING[path]})
            status, body = answer.status, answer.body
        else:
            status, body = send_form(engines, path, model)
    if path in SERVED[model]:
        assert [call.path for call in calls] == [f"/v1/{path}"]
        return
    assert (status, calls) == (404, [])
    error = body["error"]
    assert (error["code"], error["param"]) == ("model_not_for_path", "model")
    assert all(f"/v1/{one}" in error["message"] for one in SERVED[model])


@pytest.mark.parametrize("path", ["rerank", "score", "messages", "realtime", "files", "batches"])
def test_other_paths_reach_nothing(engines: Gateway, stubs: Stubs, path: str) -> None:
    with stubs.recording() as calls:
        answer = engines.request("POST", f"/v1/{path}", {"model": "pulled", "query": "a"})
    assert (answer.status, calls) == (404, [])
    assert answer.body["error"]["code"] == "unknown_url"
