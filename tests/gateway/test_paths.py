"""A path that nobody behind a model answers is refused before an engine is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, compiled, plan
from stubs import Stubs

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
