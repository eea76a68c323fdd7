"""Pictures and sound: refused where every model behind a name is known to read text only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from front_end import FrontEnd
from harness import Gateway, compiled, plan, secret
from stubs import Stubs

CATALOGUE = """\
llm_providers:
  blind:
    type: llama_cpp
    group: llm_one
    port: 8080
    models: [{name: text, source: {path: /t.gguf}}]
  seeing:
    type: llama_cpp
    group: llm_one
    port: 8081
    models: [{name: eyes, source: {path: /e.gguf}, options: {mmproj: /mm.gguf}}]
  other: {type: openai_compatible, base_url: "http://192.0.2.1:8082/v1", models: [{name: unknown}]}
llm_routing:
  fallbacks: {text: {chain: [unknown]}, eyes: {terminal: true}, unknown: {terminal: true}}
  aliases: {words: text}
  capabilities: {both: {models: [text, eyes]}, reading: {models: [text]}}
llm_clients: {one: {secret: ONE_CLIENT_OF_THE_GATEWAY}}
"""
RESULT = compiled(CATALOGUE, {"llm_one": ["gpu"]}, {"gpu": "192.0.2.1"})
KEY = {"Authorization": f"Bearer {secret('ONE_CLIENT_OF_THE_GATEWAY')}"}
BLIND = ["text", "words", "reading"]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for port in (8080, 8081, 8082):
        stubs.listen("192.0.2.1", port)
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("media"))
    running.allow(plan(RESULT)["clients"])
    with FrontEnd(RESULT, tmp_path_factory.mktemp("front")), running:
        yield running


def test_the_rules_say_who_reads_text_only() -> None:
    assert sorted(plan(RESULT)["rules"]["text_only"]) == sorted(BLIND)


PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "image_url": ("chat/completions", {"type": "image_url", "image_url": {"url": PIXEL}}),
    "input_audio": (
        "chat/completions",
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ),
    "file": (
        "chat/completions",
        {"type": "file", "file": {"file_data": PIXEL, "filename": "a.png"}},
    ),
    "input_image": ("responses", {"type": "input_image", "image_url": PIXEL}),
}


@pytest.mark.parametrize("name", BLIND)
@pytest.mark.parametrize("kind", PARTS)
def test_a_model_that_reads_text_gets_nothing_else(
    gateway: Gateway, stubs: Stubs, kind: str, name: str
) -> None:
    """Nor does the next step of its chain, which may be somebody else's. What others ask goes
    on."""
    path, part = PARTS[kind]
    said = [{"role": "user", "content": [part]}]
    # What stands beside it hides nothing.
    fields = (
        {"messages": said}
        if path != "responses"
        else {"input": said, "messages": [{"role": "user"}]}
    )
    with stubs.recording() as calls:
        for _ in range(4):
            answer = gateway.request("POST", f"/v1/{path}", {"model": name, **fields}, KEY)
            assert answer.status == 400
            assert answer.error is not None
            assert "reads text only" in answer.error["message"]
    assert calls == []
    assert gateway.chat(name, headers=KEY).model == name


@pytest.mark.parametrize("name", ["eyes", "unknown", "both"])
def test_a_model_that_may_see_gets_the_picture(gateway: Gateway, stubs: Stubs, name: str) -> None:
    said = [{"role": "user", "content": [PARTS["image_url"][1]]}]
    with stubs.recording() as calls:
        answer = gateway.request(
            "POST", "/v1/chat/completions", {"model": name, "messages": said}, KEY
        )
    assert answer.status == 200
    assert calls[0].body["messages"] == said
