"""Every type of provider: where the request goes, with which key and body, and what name comes
back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from front_end import FrontEnd
from harness import Gateway, compiled, document, plan, secret
from stubs import Stubs

from modelyard.catalogue.providers import ProviderType

# Everything a model can say that is meant for the gateway stands here: none of it may reach an
# engine.
CATALOGUE = """\
llm_providers:
  local: {type: llama_cpp, group: llm_local, port: 8080, models: [{name: on-gateway, source: {path: /m.gguf}}]}
  made: {type: llama_cpp, group: llm_made, port: 8080, models: [{name: made-key, source: {path: /m.gguf}}]}
  six:
    type: llama_cpp
    group: llm_six
    port: 8081
    api_key_env: SIX_KEY
    models: [{name: on-ipv6, served_name: org/Model-7B.Q4, source: {path: /m.gguf}}]
  ollama: {type: ollama, base_url: "http://192.0.2.3:11434", models: [{name: ollama, served_name: "llama3.1:8b"}]}
  ollama-v1: {type: ollama, base_url: "http://192.0.2.3:11435/v1", models: [{name: "qwen2.5-coder:7b"}]}
  llama-cpp: {type: llama_cpp, base_url: "http://192.0.2.4:8080", models: [{name: llama-cpp}]}
  vllm:
    type: vllm
    base_url: http://[2001:db8::5]:8000/
    models: [{name: vllm, served_name: Qwen/Qwen2.5-Coder}, {name: vllm-embedding, mode: embedding}]
  cloud:
    type: ollama_cloud
    base_url: http://192.0.2.6:8000/v1
    api_key_env: CLOUD_KEY
    models: [{name: gpt-oss:20b-cloud, served_name: "gpt-oss:20b"}]
  openai:
    type: openai
    base_url: http://192.0.2.7:8000/v1
    api_key_env: OPENAI_API_KEY
    models:
      - name: everything
        served_name: gpt-4o-mini
        context_length: 128000
        tags: [eu]
        weight: 2
        rpm: 1000
        tpm: 1000000
        price: {input: 1, output: 2}
        timeout: 30
        stream_timeout: 20
      - {name: embedding, served_name: text-embedding-3-small, mode: embedding}
  anthropic:
    type: anthropic
    base_url: http://192.0.2.8:8000
    api_key_env: ANTHROPIC_API_KEY
    models: [{name: claude, served_name: claude-sonnet-4-5}]
  other: {type: openai_compatible, base_url: "http://192.0.2.9:8000/api/v3", models: [{name: other}]}
  keyed:
    type: openai_compatible
    base_url: http://192.0.2.10:8000/v1
    api_key_env: KEYED
    models: [{name: keyed, served_name: a/b:c}]
llm_routing:
  default_fallbacks: [other]
  fallbacks: {other: {terminal: true}}
  aliases: {nickname: ollama}
  capabilities: {code: {models: [vllm, keyed]}}
"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the upstream must see."""

    server: tuple[str, int]
    path: str
    served: str
    key: str | None
    """The secret's name; None: the engine has none."""


CHAT = "/v1/chat/completions"
CHATS = {
    "on-gateway": Expected(("127.0.0.1", 8080), CHAT, "on-gateway", "LOCAL_API_KEY"),
    "made-key": Expected(("2001:db8::14", 8080), CHAT, "made-key", "MADE_API_KEY"),
    "on-ipv6": Expected(("2001:db8::1a", 8081), CHAT, "org/Model-7B.Q4", "SIX_KEY"),
    "ollama": Expected(("192.0.2.3", 11434), CHAT, "llama3.1:8b", None),
    "qwen2.5-coder:7b": Expected(("192.0.2.3", 11435), CHAT, "qwen2.5-coder:7b", None),
    "llama-cpp": Expected(("192.0.2.4", 8080), CHAT, "llama-cpp", None),
    "vllm": Expected(("2001:db8::5", 8000), CHAT, "Qwen/Qwen2.5-Coder", None),
    "gpt-oss:20b-cloud": Expected(("192.0.2.6", 8000), CHAT, "gpt-oss:20b", "CLOUD_KEY"),
    "everything": Expected(("192.0.2.7", 8000), CHAT, "gpt-4o-mini", "OPENAI_API_KEY"),
    "claude": Expected(
        ("192.0.2.8", 8000), "/v1/messages", "claude-sonnet-4-5", "ANTHROPIC_API_KEY"
    ),
    "other": Expected(("192.0.2.9", 8000), "/api/v3/chat/completions", "other", None),
    "keyed": Expected(("192.0.2.10", 8000), CHAT, "a/b:c", "KEYED"),
}
ALIASES = {"nickname": "ollama", "code": "vllm"}
EMBEDDINGS = {
    "vllm-embedding": Expected(("2001:db8::5", 8000), "/v1/embeddings", "vllm-embedding", None),
    "embedding": Expected(
        ("192.0.2.7", 8000), "/v1/embeddings", "text-embedding-3-small", "OPENAI_API_KEY"
    ),
}
PARAMETERS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 7,
    "stop": ["x"],
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
        }
    ],
    "tool_choice": "auto",
}
"""What every type takes."""


@pytest.fixture(scope="module")
def result() -> Any:
    hosts = {"llm_local": ["gw"], "llm_made": ["gpu4"], "llm_six": ["gpu6"]}
    addresses = {"gw": "2001:db8::2", "gpu4": "2001:db8::14", "gpu6": "2001:db8::1a"}
    secrets = ["SIX_KEY", "CLOUD_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "KEYED"]
    return compiled(CATALOGUE, hosts, addresses, secrets)


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, result: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for expected in (*CHATS.values(), *EMBEDDINGS.values()):
        stubs.listen(*expected.server)
    front_end = FrontEnd(result, tmp_path_factory.mktemp("front"))
    directory = tmp_path_factory.mktemp("providers")
    with front_end, Gateway(environment, plan(result), directory) as running:
        yield running


def test_nothing_is_left_out(result: Any) -> None:
    """Every type and every public name is called below."""
    entries = document(result)["model_list"]
    assert {entry["model_name"] for entry in entries} == CHATS.keys() | EMBEDDINGS.keys()
    assert set(result.public_names) == CHATS.keys() | EMBEDDINGS.keys() | ALIASES.keys()
    assert all(f"type: {kind}" in CATALOGUE for kind in get_args(ProviderType))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", [*CHATS, *ALIASES])
def test_chat(gateway: Gateway, stubs: Stubs, name: str, stream: bool) -> None:
    expected = CHATS[ALIASES.get(name, name)]
    with stubs.recording() as calls:
        answer = gateway.chat(name, stream=stream, **PARAMETERS)
    assert (answer.status, answer.text, answer.done) == (200, f"I am {expected.served}", True)
    assert answer.model == name, "the name that was asked for, whoever answers for it"
    (call,) = calls
    assert (call.server, call.path) == (expected.server, expected.path)
    assert call.model == expected.served
    key = secret(expected.key) if expected.key else "none"
    if expected.path == "/v1/messages":
        assert call.headers["x-api-key"] == key
        assert "authorization" not in call.headers
        assert call.headers["anthropic-version"] == "2023-06-01"
    else:
        assert call.headers["authorization"] == f"Bearer {key}"
        assert "x-api-key" not in call.headers
    assert secret("LITELLM_MASTER_KEY") not in str(call.headers), "the client's key stays here"
    llama_cpp = name in ("on-gateway", "made-key", "on-ipv6", "llama-cpp")
    assert call.headers["connection"] == ("close" if llama_cpp else "keep-alive")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", CHATS)
def test_the_body_is_the_clients(gateway: Gateway, stubs: Stubs, name: str, stream: bool) -> None:
    """Exactly: what the client sent, the engine's own name of the model, and nothing of ours."""
    with stubs.recording() as calls:
        gateway.chat(name, stream=stream)
        gateway.chat(name, stream=stream, **PARAMETERS)
    plain, full = (dict(call.body) for call in calls)
    expected: dict[str, Any] = {"model": CHATS[name].served}
    if name == "claude":
        # Anthropic demands max_tokens: the gateway takes the model's limit from its own list.
        text = [{"type": "text", "text": "Who are you?"}]
        expected |= {"messages": [{"role": "user", "content": text}], "max_tokens": 64000}
        expected |= {"stream": True} if stream else {}
        assert plain == expected
        assert full.keys() == expected.keys() | {
            "temperature",
            "top_p",
            "stop_sequences",
            "tools",
            "tool_choice",
        }
        return
    expected["messages"] = [{"role": "user", "content": "Who are you?"}]
    if stream:
        expected |= {"stream": True, "stream_options": {"include_usage": True}}
    assert plain == expected
    assert full == expected | PARAMETERS


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embedding(gateway: Gateway, stubs: Stubs, name: str) -> None:
    expected = EMBEDDINGS[name]
    with stubs.recording() as calls:
        answer = gateway.request("POST", "/v1/embeddings", {"model": name, "input": "hello"})
    assert (answer.status, answer.model) == (200, name)
    (call,) = calls
    assert (call.server, call.path) == (expected.server, expected.path)
    assert call.body == {"model": expected.served, "input": "hello"}
    assert (
        call.headers["authorization"]
        == f"Bearer {secret(expected.key) if expected.key else 'none'}"
    )


def test_model_list(gateway: Gateway, result: Any) -> None:
    listed = gateway.request("GET", "/v1/models").body["data"]
    assert sorted(entry["id"] for entry in listed) == sorted(result.public_names)


def test_what_else_the_gateway_asks_upstreams(gateway: Gateway, stubs: Stubs) -> None:
    """The list of models, at start and every five minutes: it looks for context windows there.
    Health checks come from HAProxy."""
    own = {expected.server for expected in (*CHATS.values(), *EMBEDDINGS.values())}
    asked = {(call.method, call.path) for call in stubs.others if call.server in own}
    assert asked == {("GET", "/v1/models"), ("GET", "/api/v3/v1/models"), ("GET", "/health")}
    ours = {CHATS[name].server for name in ("on-gateway", "made-key", "on-ipv6")}
    assert {call.server for call in stubs.others if call.path == "/health"} & own == ours
