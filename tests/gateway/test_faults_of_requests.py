"""What a request itself causes takes no model from others, on any path; what the engine causes
does."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Gateway, compiled, plan, secret
from stubs import OK, Behaviour, Stubs

from modelyard.names import MASTER_KEY

TEXT = [{"role": "user", "content": "Who are you?"}]
PATHS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": TEXT}),
    "stream": ("/v1/chat/completions", {"messages": TEXT, "stream": True}),
    "responses": ("/v1/responses", {"input": "Who are you?"}),
    "responses-stream": ("/v1/responses", {"input": "Who are you?", "stream": True}),
    "completions": ("/v1/completions", {"prompt": "Who are you?"}),
    "embeddings": ("/v1/embeddings", {"input": "Who are you?"}),
    "speech": ("/v1/audio/speech", {"input": "Who are you?", "voice": "alloy"}),
}

SHAPES = ("head", "last", "pair")
"""A name with somebody behind it; the last step of a chain; two deployments, nobody behind them."""

EVERYWHERE = pytest.mark.parametrize(
    ("shape", "path"),
    [
        pytest.param(
            shape, path, marks=() if path == "chat" or shape == "head" else pytest.mark.full
        )
        for shape in SHAPES
        for path in PATHS
    ],
)
"""Every shape on every path; `make test` asks each shape once and each path once."""

TIMES = 3
"""Two failures cool down."""

ADDRESSES = {"one": "192.0.2.1", "two": "192.0.2.2"}


def answered(status: int, message: str) -> Behaviour:
    return Behaviour(
        status, {"error": {"message": message, "type": "server_error", "code": status}}
    )


OUT_OF_ORDER = answered(500, "stub: out of order")

REQUESTS_FAULT = {
    # Words of engines, in an answer of 500. Their sources: see docs/gateway.md.
    "picture": answered(
        500,
        "image input is not supported - hint: if this is unexpected, you may need to provide the"
        " mmproj",
    ),
    "type": answered(500, "[json.exception.type_error.302] type must be number, but is string"),
    "too-long": answered(500, "the request exceeds the available context size, try increasing it"),
    "too-long-input": answered(500, "input (900 tokens) is too large to process"),
    "ollama-picture": Behaviour(
        500, {"error": "this model is missing data required for image input"}
    ),
    "tools": answered(500, "Failed to parse tools: Missing tool function"),
    "reasoning-format": answered(500, "Unknown reasoning format: x"),
    "two-grammars": answered(500, "Cannot use both json_schema and grammar"),
    "501": answered(501, "not here"),
    # Any 4xx that is not about our key, the engine's time or its limits; whatever LiteLLM takes its
    # words for.
    "400": answered(400, "invalid"),
    "400-like-429": answered(400, "rate limit reached: 429 Too Many Requests"),
    "400-like-401": answered(400, "Incorrect API key provided: invalid_api_key"),
    "402": answered(402, "not for free"),
    "404": answered(404, "no such path"),
    "413": answered(413, "too large"),
    "422": answered(422, "unprocessable"),
}


def catalogue() -> str:
    """For each shape and path `NAME.words`, `NAME.well`, `NAME.ill` and `NAME.broken`, so that no
    test waits for another."""
    names = [
        f"{shape}.{path}.{state}"
        for shape in SHAPES
        for path in PATHS
        for state in ("words", "well", "ill", "broken")
    ]
    kinds: dict[str, Any] = {
        name: {"type": "openai_compatible", "base_url": f"http://{address}:8000/v1", "models": []}
        for name, address in ADDRESSES.items()
    }
    fallbacks: dict[str, Any] = {"spare": {"terminal": True}}
    for name in names:
        is_pair = name.startswith("pair")
        for provider in ADDRESSES if is_pair else ("one",):
            kinds[provider]["models"].append({"name": name, **({"weight": 1} if is_pair else {})})
        fallbacks[name] = {"chain": ["spare"]} if name.startswith("head") else {"terminal": True}
    kinds["one"]["models"].append({"name": "spare"})
    return yaml.safe_dump({"llm_providers": kinds, "llm_routing": {"fallbacks": fallbacks}})


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Engines of all names but `words` have a health; that of `ill` ones says 503."""
    found = plan(compiled(catalogue()))
    for address in ADDRESSES.values():
        stubs.listen(address, 8000)
    health = {
        entry["model_info"]["id"]: (
            entry["litellm_params"]["api_base"].removesuffix("/v1")
            + f"/health?{'ill' if state == 'ill' else 'well'}"
        )
        for entry in found["document"]["model_list"]
        if (state := entry["model_name"].rpartition(".")[2]) in ("well", "ill", "broken")
    }
    stubs.paths = {"/health?well": OK, "/health?ill": Behaviour(503)}
    known = {**found, "rules": {**found["rules"], "health": health}}
    with Gateway(environment, known, tmp_path_factory.mktemp("faults")) as running:
        yield running
    stubs.paths = {}


@pytest.fixture(autouse=True)
def healthy(stubs: Stubs) -> Iterator[None]:
    """Leave stubs behind that answer."""
    yield
    stubs.behaviours.clear()
    stubs.trials.clear()


def asked(gateway: Gateway, stubs: Stubs, name: str, path: str) -> int:
    """How often the name's own engines are asked by one request."""
    route, body = PATHS[path]
    with stubs.recording() as calls:
        gateway.request("POST", route, {"model": name, **body})
    return [call.model for call in calls].count(name)


@EVERYWHERE
def test_the_requests_fault_cools_nothing_down(
    gateway: Gateway, stubs: Stubs, shape: str, path: str
) -> None:
    name = f"{shape}.{path}.words"
    for fault, behaviour in REQUESTS_FAULT.items():
        stubs.behaviours[name] = behaviour
        seen = [asked(gateway, stubs, name, path) for _ in range(TIMES)]
        assert min(seen) >= 1, f"{fault}: {seen}"
    stubs.behaviours.clear()
    assert asked(gateway, stubs, name, path) >= 1


@EVERYWHERE
def test_an_engine_that_is_well_is_not_cooled_down(
    gateway: Gateway, stubs: Stubs, shape: str, path: str
) -> None:
    name = f"{shape}.{path}.well"
    stubs.behaviours[name] = OUT_OF_ORDER
    assert min(asked(gateway, stubs, name, path) for _ in range(TIMES)) >= 1


@EVERYWHERE
def test_an_engine_that_is_not_well_is(
    gateway: Gateway, stubs: Stubs, shape: str, path: str
) -> None:
    """But for the last step, whatever the path: nobody would answer then."""
    name = f"{shape}.{path}.ill"
    stubs.behaviours[name] = OUT_OF_ORDER
    for _ in range(4 if shape == "pair" else 2):
        asked(gateway, stubs, name, path)
        time.sleep(0.2)  # Its health is asked meanwhile.
    assert (asked(gateway, stubs, name, path) > 0) == (shape == "last")


@EVERYWHERE
def test_an_engine_that_only_says_that_it_is_well_is(
    gateway: Gateway, stubs: Stubs, shape: str, path: str
) -> None:
    """It fails at the smallest request there is, with an answer or without."""
    name = f"{shape}.{path}.broken"
    cut = Behaviour(until="request", then="cut")
    stubs.behaviours[name] = OUT_OF_ORDER
    stubs.trials[name] = cut if shape == "pair" else OUT_OF_ORDER
    for _ in range(4 if shape == "pair" else 2):
        asked(gateway, stubs, name, path)
        time.sleep(0.2)
    assert (asked(gateway, stubs, name, path) > 0) == (shape == "last")


@pytest.mark.parametrize(
    "trial",
    [Behaviour(400), Behaviour(503, {"error": {"message": "busy", "code": "engine_away"}})],
    ids=["refused", "busy"],
)
def test_a_trial_that_says_nothing_of_the_engine_cools_nothing_down(
    gateway: Gateway, stubs: Stubs, trial: Behaviour
) -> None:
    name = "head.chat.well"
    stubs.behaviours[name] = OUT_OF_ORDER
    stubs.trials[name] = trial
    for _ in range(TIMES):
        assert asked(gateway, stubs, name, "chat") == 1
        time.sleep(0.2)


def test_a_trial_is_the_models_own(gateway: Gateway, stubs: Stubs) -> None:
    """It has the engine's name of the model, and the provider's key."""
    name = "head.chat.well"
    stubs.behaviours[name] = OUT_OF_ORDER
    stubs.others.clear()
    asked(gateway, stubs, name, "chat")
    time.sleep(0.5)
    (trial,) = (call for call in stubs.others if call.method == "POST")
    assert (trial.path, trial.model) == ("/v1/chat/completions", name)
    assert trial.headers["authorization"] == "Bearer none"


def test_a_client_that_leaves_cools_nothing_down(gateway: Gateway, stubs: Stubs) -> None:
    name = "head.chat.words"
    stubs.behaviours[name] = Behaviour(until="request")
    for path in ("chat", "stream", "responses", "completions", "embeddings"):
        route, body = PATHS[path]
        for _ in range(TIMES):
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
            headers = {
                "Authorization": f"Bearer {secret(MASTER_KEY)}",
                "Content-Type": "application/json",
            }
            connection.request("POST", route, json.dumps({"model": name, **body}), headers)
            time.sleep(0.3)
            connection.close()
    time.sleep(0.5)
    stubs.behaviours.clear()
    assert asked(gateway, stubs, name, "chat") == 1
