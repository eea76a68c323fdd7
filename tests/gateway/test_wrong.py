"""Whatever a request says, it is the client's fault: never 500, and no traceback in the journal."""

from __future__ import annotations

import http.client
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import Gateway, compiled, plan, secret
from stubs import Behaviour, Stubs

from modelyard.names import MASTER_KEY

MODELS: Mapping[str, tuple[str, Mapping[str, Any], Behaviour]] = {
    "chat/completions": ("a", {"messages": [{"role": "user", "content": "x"}]}, Behaviour()),
    "completions": ("a", {"prompt": "x"}, Behaviour()),
    "embeddings": ("a", {"input": "x"}, Behaviour()),
    "responses": ("a", {"input": "x"}, Behaviour()),
    "audio/speech": ("speech", {"input": "x", "voice": "x"}, Behaviour(body=b"RIFF")),
    "images/generations": (
        "images",
        {"prompt": "x"},
        Behaviour(body={"created": 1, "data": [{"url": "x"}]}),
    ),
    "moderations": (
        "moderations",
        {"input": "x"},
        Behaviour(body={"id": "x", "model": "x", "results": [{"flagged": False}]}),
    ),
}
"""By path: a model, the least that has to be said, and what the engine answers."""
CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: a}, {name: speech}, {name: images}, {name: moderations}]
llm_routing: {default_fallbacks: [a], fallbacks: {a: {terminal: true}}}
llm_clients: {all: {secret: EVERYTHING_OF_THE_GATEWAY}}
"""
RESULT = compiled(CATALOGUE)
KEYS = {"client": "EVERYTHING_OF_THE_GATEWAY", "master": MASTER_KEY}

FIELDS = """
    additional_drop_params audio background best_of cache choices container_id contents context_management data
    dimensions disable_fallbacks document echo encoding_format endpoint error extra file format frequency_penalty
    function_call functions generationConfig id include input instructions keep_alive litellm_call_id
    litellm_logging_obj litellm_metadata logit_bias logprobs max_completion_tokens max_output_tokens max_tokens messages
    metadata method modalities n options parallel_tool_calls prediction presence_penalty prompt prompt_cache_key
    provider_specific_header proxy_server_request query reasoning reasoning_effort response_format response_id
    safety_identifier secret_fields seed service_tier session session_id size speed stop store stream stream_options
    style suffix tags temperature text thinking tool_choice tools top_k top_logprobs top_p trace_id truncation type
    usage user vector_store_ids verbosity voice web_search_options
""".split()
"""Of OpenAI's API, of engines, and of LiteLLM."""
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**62,
    -(2**63),
    1e308,
    "",
    "x",
    "a",
    "\0",
    "\U0001f600" * 100,
    [],
    {},
    [[]],
    [{}],
    [None],
    [1, "x"],
    ["x"],
    {"": None},
    {"a": {}},
    {"type": "x"},
    {"type": "json_schema", "json_schema": None},
    {"include_usage": "x"},
    [{"type": "text"}],
    [{"role": "user", "content": [{}]}],
    [{"role": "user", "content": [{"type": "text", "text": None}]}],
    [{"role": "assistant", "tool_calls": [{}]}],
    [{"role": "tool", "content": None}],
    [{"type": "function"}],
    [{"type": "function", "function": None}],
]
TRIES = 120
"""Of each path and key, drawn with a fixed seed; so many take some eight seconds."""
OFTEN = (
    "messages",
    "prompt",
    "input",
    "tools",
    "tool_choice",
    "response_format",
    "stream_options",
    "metadata",
)


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("wrong"))
    running.allow(RESULT.plans["gw"]["litellm"]["clients"])
    stubs.behaviours |= {model: behaviour for model, _, behaviour in MODELS.values()}
    with running:
        yield running
    stubs.behaviours.clear()


def bodies(path: str, seed: str) -> Iterator[dict[str, Any]]:
    """What is asked: the least, and some fields that are wrong."""
    draw = random.Random(seed)
    model, least, _ = MODELS[path]
    for _ in range(TRIES):
        names = draw.sample(FIELDS, draw.choice((1, 1, 2))) + draw.sample(
            OFTEN, draw.choice((0, 1))
        )
        yield {"model": model, **least, **{name: draw.choice(VALUES) for name in names}}


KNOWN: list[tuple[str, dict[str, Any]]] = [
    *itertools.product(
        MODELS, [{"model": 1}, {"model": {}}, {"model": ["a"]}, {"web_search_options": 1}]
    ),
    *itertools.product(
        MODELS, [{"litellm_logging_obj": 1}, {"additional_drop_params": 1}, {"metadata": "x"}]
    ),
    *itertools.product(
        MODELS, [{"endpoint": 1}, {"cache": None}, {"provider_specific_header": 1}, {"tags": "x"}]
    ),
    *itertools.product(
        ["chat/completions", "completions"], [{"response_format": "x"}, {"response_format": ""}]
    ),
    ("chat/completions", {"messages": [{"role": "user", "content": [{}]}]}),
    ("completions", {"messages": [{"role": "user", "content": "x"}]}),
    ("completions", {"prompt": []}),
    ("embeddings", {"input": [[]]}),
    ("embeddings", {"input": []}),
    ("images/generations", {"prompt": ["x"]}),
    ("images/generations", {"stream": True}),
    ("moderations", {"model": 0.5}),
]
"""What was 500 once."""


@pytest.mark.parametrize(
    "who", [pytest.param(who, marks=pytest.mark.full if who == "master" else ()) for who in KEYS]
)
@pytest.mark.parametrize("path", MODELS)
def test_nothing_that_is_said_breaks_it(gateway: Gateway, path: str, who: str) -> None:
    headers = {"Authorization": f"Bearer {secret(KEYS[who])}"}
    model, least, _ = MODELS[path]
    known = [{"model": model, **least, **more} for other, more in KNOWN if other == path]
    answered = 0
    for body in [*known, *bodies(path, f"{path} {who}")]:
        before = gateway.log.stat().st_size
        answer = gateway.request("POST", f"/v1/{path}", body, headers)
        said = json.dumps({name: value for name, value in body.items() if least.get(name) != value})
        assert 200 <= answer.status < 500, (said, answer.body)
        assert answer.error is None or answer.status >= 400, (said, answer.body)
        with gateway.log.open() as log:
            log.seek(before)
            assert "Traceback" not in log.read(), said
        answered += answer.status == 200
    assert answered > TRIES / 10, "most were refused before they could break anything"


NAMED: list[tuple[str, str, dict[str, Any]]] = [
    ("chat/completions", "messages", {"messages": []}),
    ("chat/completions", "messages", {"messages": [], "stream": True}),
    # It refers to nothing that a provider keeps.
    ("chat/completions", "user", {"user": {"id": "x"}}),
    ("responses", "user", {"user": {"id": "x"}}),
]


@pytest.mark.parametrize(("path", "field", "more"), NAMED)
def test_the_field_that_is_wrong_is_named(
    gateway: Gateway, stubs: Stubs, path: str, field: str, more: Mapping[str, Any]
) -> None:
    model, least, _ = MODELS[path]
    headers = {"Authorization": f"Bearer {secret(KEYS['client'])}"}
    with stubs.recording() as calls:
        answer = gateway.request("POST", f"/v1/{path}", {"model": model, **least, **more}, headers)
    assert (answer.status, calls) == (400, [])
    assert answer.error is not None
    assert answer.error["param"] == field


NO_OBJECTS = ["[1, 2]", '"x"', "1", "null", "", "{", '{"model": "a", "litellm_logging_obj": 1}']


@pytest.mark.parametrize("key", ["", *map(secret, KEYS.values())], ids=["nobody", *KEYS])
def test_what_is_no_request(gateway: Gateway, key: str) -> None:
    """Without a key it is not even read."""
    for path, raw in itertools.product(MODELS, NO_OBJECTS):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        connection.request("POST", f"/v1/{path}", raw, headers)
        response = connection.getresponse()
        error = json.load(response)["error"]
        connection.close()
        assert response.status == (400 if key else 401), (path, raw)
        assert error["type"] == "invalid_request_error"
