"""Every key we can emit is known to the installed gateway, and stands in docs/gateway.md with its
reason."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from harness import CLONE, ROLE, UNIT, compiled, document
from tables import PAGE

from modelyard.compiler import emit

CATALOGUE = """\
llm_providers:
  local:
    type: llama_cpp
    group: llm_local
    port: 8080
    models:
      - {name: small, source: {path: /m.gguf}, rpm: 60, tpm: 1000, tags: [eu], price: {input: 1, output: 2}}
  one: {type: vllm, base_url: "http://192.0.2.1:8000", models: [{name: shared, weight: 1}, {name: third}]}
  two: {type: openai_compatible, base_url: "http://192.0.2.2:8000/v1", models: [{name: shared, weight: 3}]}
  cloud:
    type: anthropic
    base_url: http://192.0.2.3:8000
    api_key_env: CLOUD_KEY
    models: [{name: claude, timeout: 30, stream_timeout: 20}]
llm_routing:
  fallbacks: {small: {chain: [shared]}, shared: {chain: [claude]}}
  default_fallbacks: [claude]
  context_window_fallbacks: {small: {chain: [claude]}}
  content_policy_fallbacks: {claude: {chain: [third]}}
  aliases: {nickname: small}
  capabilities: {code: {models: [small, shared]}}
llm_gateway: {cache: {enabled: true, ttl_s: 60}}
"""
"""Turns on everything that makes the emitter write a key."""

HOSTS = {"llm_local": ["gw"], "llm_redis": ["gw"]}

Keys = Mapping[str, set[str]]
TOP = {"model_list", "router_settings", "litellm_settings", "general_settings"}
ENTRY = {"model_name", "litellm_params", "model_info"}
HEADERS = {"Connection"}
"""Of HTTP, in extra_headers: no keys of the gateway's."""


def emitted() -> dict[str, Any]:
    return document(compiled(CATALOGUE, HOSTS, secrets=["CLOUD_KEY"]))


def sections(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping of a document whose keys the gateway reads, with the name of its section."""
    router, settings = document["router_settings"], document["litellm_settings"]
    for entry in document["model_list"]:
        yield "litellm_params", entry["litellm_params"]
        yield "model_info", entry["model_info"]
    yield "router_settings", router
    for group in router.get("routing_groups", []):
        yield "router_settings.routing_groups", group
    yield "router_settings.cache_kwargs", router.get("cache_kwargs", {})
    yield "litellm_settings", settings
    yield "litellm_settings.cache_params", settings.get("cache_params", {})
    yield "general_settings", document["general_settings"]


def unknown_keys(document: Mapping[str, Any], known: Keys) -> list[str]:
    """Keys of a document that the gateway would ignore or send on as request parameters."""
    found = document.keys() - TOP
    found |= {
        f"model_list.{key}" for entry in document["model_list"] for key in entry.keys() - ENTRY
    }
    for section, mapping in sections(document):
        found |= {f"{section}.{key}" for key in mapping if key not in known[section]}
    return sorted(found)


@pytest.fixture(scope="module")
def known(environment: Path) -> Keys:
    """Ask the installed gateway. Reads no network: its list of prices is the one it came with."""
    program = Path(__file__).with_name("installed_keys.py")
    variables = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROLE / "files"),
    }
    command = [str(environment / "bin/python"), "-B", str(program)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return {section: set(names) for section, names in json.loads(done.stdout).items()}


def test_the_gateway_knows_every_key(known: Keys) -> None:
    assert unknown_keys(emitted(), known) == []


@pytest.mark.parametrize("section", dict(sections(emitted())))
def test_a_planted_key_is_found(known: Keys, section: str) -> None:
    planted = copy.deepcopy(emitted())
    for name, mapping in sections(planted):
        if name == section:
            mapping["planted"] = 1  # type: ignore[index]  # a copy of ours
            break
    assert unknown_keys(planted, known) == [f"{section}.planted"]


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("litellm_params", "temperature"),  # would reach the engine
        ("litellm_params", "weigth"),
        ("router_settings", "cooldown"),
        (
            "router_settings",
            "health_check_interval",
        ),  # belongs elsewhere: the gateway refuses to start
        ("litellm_settings", "log_prompts"),
        ("general_settings", "cors_origins"),
    ],
)
def test_likely_mistakes_are_found(known: Keys, section: str, key: str) -> None:
    assert key not in known[section]


def test_every_variable_of_the_unit_is_read(environment: Path) -> None:
    """The environment variables of the gateway's unit occur in the installed code as they are
    written."""
    text = re.sub(r"\{\{.*?\}\}", "", UNIT.read_text())
    variables = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
    names = {word.split("=")[0] for line in variables for word in line.split()}
    # Of the system, Python's, ours, uvicorn's.
    names -= {
        "HOME",
        "PYTHONFAULTHANDLER",
        "PYTHONPATH",
        "MODELYARD_RELEASE",
        "MODELYARD_CLIENTS",
        "WEB_CONCURRENCY",
    }
    (packages,) = (environment / "lib").glob("python*/site-packages")
    for name in sorted(names):
        places = [str(packages / name) for name in ("litellm", "prometheus_client")]
        command = ["grep", "-rlF", "--include=*.py", f'"{name}"', *places]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.stdout, f"nothing in the gateway reads {name}"


REVIEWED = set(
    """
    additional_drop_params completion container_id contents disable_fallbacks document error file
    generationConfig input max_tokens messages metadata method model prompt purpose query reasoning_effort response_id
    safety_identifier service_tier session stream stream_options tags thinking tool_choice tools user vector_store_ids
    voice
    """.split()
)
"""Fields that the gateway reads and clients may send: parameters of the API, and what concerns
their request alone."""


def test_no_field_of_a_request_was_overlooked(known: Keys) -> None:
    """A new release may read another one: decide about it in the guard's requests.py, or above."""
    assert known["fields"] - known["closed"] == REVIEWED
    assert {"fallbacks", "num_retries", "timeout", "mock_response", "specific_deployment"} <= known[
        "closed"
    ]


def test_the_documented_version_is_the_pinned_one() -> None:
    (version,) = re.findall(
        r'litellm:\n\s+version: "([^"]+)"', (CLONE / "group_vars/all/versions.yml").read_text()
    )
    assert f"LiteLLM {version}" in PAGE.read_text(encoding="utf-8")


def documented() -> set[str]:
    """The keys in the tables of docs/gateway.md, "What is emitted"."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.partition("## What is emitted")[2].partition("\n## ")[0]
    return {
        key
        for cell in re.findall(r"^\| (`[^|]*`) \|", part, re.MULTILINE)
        for key in re.findall(r"`([^`]+)`", cell)
    }


def emitted_keys() -> set[str]:
    return {f"{section}.{key}" for section, found in sections(emitted()) for key in found}


def test_every_key_is_documented() -> None:
    """Both ways: nothing emitted without a reason, no reason for what is not emitted."""
    assert documented() == emitted_keys()


def test_the_catalogue_turns_everything_on() -> None:
    """Every key the emitter's source writes occurs in what is checked above."""
    source = ast.parse(Path(emit.__file__).read_text(encoding="utf-8"))
    functions = [
        f for f in source.body if isinstance(f, ast.FunctionDef) and f.name.startswith("emit_")
    ]
    written: set[str] = set()
    for node in (node for function in functions for node in ast.walk(function)):
        keys: Sequence[ast.expr | None] = node.keys if isinstance(node, ast.Dict) else ()
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys = [node.slice]
        written |= {
            key.value
            for key in keys
            if isinstance(key, ast.Constant) and isinstance(key.value, str)
        }
    assert written > {
        "model",
        "cooldown_time",
        "cache",
    }, "the emitter is written in another way: look for keys anew"
    assert written - {key.rpartition(".")[2] for key in emitted_keys()} == TOP | ENTRY | HEADERS
