"""Which fields of a request reach an engine: all that an OpenAI-compatible one may know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, compiled, plan
from stubs import Stubs

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}]}
  cloud: {type: anthropic, base_url: "http://192.0.2.2:8000", api_key_env: CLOUD_KEY, models: [{name: claude}]}
llm_routing: {default_fallbacks: [], fallbacks: {a: {terminal: true}, claude: {terminal: true}}}
"""

TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
    }
]
SAID: dict[str, Any] = {
    "audio": {"voice": "x", "format": "wav"},
    "cache_prompt": True,
    "chat_template_kwargs": {"enable_thinking": False},
    "context_management": [],
    "dimensions": 8,
    "frequency_penalty": 0.5,
    "grammar": "root ::= [a-z]+",
    "guided_json": {"type": "object"},
    "keep_alive": "5m",
    "logit_bias": {"5": 1},
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "min_p": 0.1,
    "modalities": ["text"],
    "n": 1,
    "options": {"num_ctx": 5},
    "parallel_tool_calls": True,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "x",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "x",
    "seed": 1,
    "service_tier": "auto",
    "stop": ["x"],
    "store": False,
    "temperature": 0.5,
    "thinking": {"type": "disabled"},
    "tool_choice": "auto",
    "tools": TOOLS,
    "top_k": 3,
    "top_logprobs": 1,
    "top_p": 0.5,
    "user": "somebody",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}
"""Of OpenAI's API, of vLLM, llama.cpp and Ollama."""
OF_RESPONSES: dict[str, Any] = {
    "background": False,
    "include": ["reasoning.encrypted_content"],
    "instructions": "x",
    "max_output_tokens": 20,
    "max_tool_calls": 1,
    "parallel_tool_calls": True,
    "prompt_cache_key": "x",
    "reasoning": {"effort": "low"},
    "safety_identifier": "x",
    "service_tier": "auto",
    "store": False,
    "temperature": 0.5,
    "text": {"verbosity": "low"},
    "tool_choice": "auto",
    "top_p": 0.5,
    "truncation": "auto",
    "user": "somebody",
}
PATHS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat/completions": ({"messages": [{"role": "user", "content": "x"}]}, SAID),
    "completions": (
        {"prompt": "x"},
        {**SAID, "best_of": 1, "echo": True, "logprobs": 1, "suffix": "x"},
    ),
    "embeddings": (
        {"input": "x"},
        {**SAID, "encoding_format": "float", "truncate_prompt_tokens": 3},
    ),
    "responses": ({"input": "x"}, OF_RESPONSES),
}


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for number in (1, 2):
        stubs.listen(f"192.0.2.{number}", 8000)
    catalogue = compiled(CATALOGUE, secrets=["CLOUD_KEY"])
    with Gateway(environment, plan(catalogue), tmp_path_factory.mktemp("passing")) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_an_engine_sees_every_field(gateway: Gateway, stubs: Stubs, path: str) -> None:
    """And nothing that a client did not say."""
    needed, said = PATHS[path]
    with stubs.recording() as calls:
        answer = gateway.request("POST", f"/v1/{path}", {"model": "a", **needed, **said})
    assert answer.status == 200, answer.body
    assert [call.body for call in calls] == [{"model": "a", **needed, **said}]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_so_it_does_of_a_stream(gateway: Gateway, stubs: Stubs, path: str) -> None:
    needed, said = PATHS[path]
    options = {"stream_options": {"include_usage": True}}
    with stubs.recording() as calls:
        answer = gateway.request(
            "POST", f"/v1/{path}", {"model": "a", "stream": True, **options, **needed, **said}
        )
    assert (answer.status, answer.done) == (200, True)
    assert [call.body for call in calls] == [
        {"model": "a", "stream": True, **options, **needed, **said}
    ]


def test_anthropic_gets_what_it_knows(gateway: Gateway, stubs: Stubs) -> None:
    """There LiteLLM translates, and refuses what it cannot."""
    with stubs.recording() as calls:
        answer, refused = gateway.chat("claude", user="x"), gateway.chat("claude", store=True)
    assert (answer.status, refused.status) == (200, 400)
    assert [call.body["metadata"] for call in calls] == [{"user_id": "x"}]


LIMIT = "LiteLLM raises a limit of tokens below 16, which OpenAI would refuse"


def test_limit_of_the_gateway_few_tokens(gateway: Gateway, stubs: Stubs) -> None:
    with stubs.recording() as calls:
        gateway.request(
            "POST", "/v1/responses", {"model": "a", "input": "x", "max_output_tokens": 5}
        )
    assert [call.body["max_output_tokens"] for call in calls] == [16], LIMIT
