"""Catalogues for tests, written as YAML whose values know their lines, as ansible-core's do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from modelyard.catalogue.secrets import SecretView, SeenSecret
from modelyard.catalogue.sourcemap import Origin
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Host, Inventory

ROOT = Path(__file__).parents[2]


class LocatedStr(str):
    origin: Origin


class LocatedInt(int):
    origin: Origin


class LocatedList(list[Any]):
    origin: Origin


class LocatedDict(dict[Any, Any]):
    origin: Origin


def load(text: str, file: str = "llm.yml") -> Any:
    """Load YAML; strings, integers, lists and mappings carry `origin` (booleans and null
    cannot)."""

    def build(node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            value: Any = LocatedDict((build(key), build(child)) for key, child in node.value)
        elif isinstance(node, yaml.SequenceNode):
            value = LocatedList(build(child) for child in node.value)
        else:
            value = yaml.safe_load(yaml.serialize(node))
            if isinstance(value, bool) or not isinstance(value, str | int):
                return value
            value = LocatedInt(value) if isinstance(value, int) else LocatedStr(value)
        value.origin = Origin(file, node.start_mark.line + 1, node.start_mark.column + 1)
        return value

    node = yaml.compose(text)
    return build(node) if node is not None else {}


def probe(value: object) -> Origin | None:
    return getattr(value, "origin", None)


def part(plan: dict[str, Any], role: str) -> dict[str, Any]:
    """The part of a plan that is for one engine's role."""
    (found,) = (engine for engine in plan["engines"] if engine["role"] == role)
    return dict(found)


# One gateway host with Redis, two llama.cpp models on it, a cloud behind. Line numbers are asserted
# in tests.
CATALOGUE = """\
llm_providers:
  local:
    type: llama_cpp
    group: llm_local
    port: 8080
    models:
      - name: small
        source: {path: /models/small.gguf}
      - name: large:7b
        source: {path: /models/large.gguf}
        port: 8081
  cloud:
    type: openai
    base_url: https://api.example.org/v1
    api_key_env: CLOUD_KEY
    models:
      - name: big-cloud
llm_routing:
  fallbacks:
    large:7b: {chain: [small, big-cloud]}
    small: {chain: [big-cloud]}
    big-cloud: {terminal: true}
llm_gateway:
  port: 4000
llm_versions:
  litellm: {version: "1.106.2"}
  llama_cpp:
    version: "0.3.36"
    source: {sdist: llama-cpp-python==0.3.36, sha256: SHA}
""".replace("SHA", "a" * 64)

GROUPS = {
    "llm_stack": ["one"],
    "llm_gateway": ["one"],
    "llm_redis": ["one"],
    "llm_local": ["one"],
    "llm_empty": [],
}


def inventory(
    text: str = CATALOGUE,
    *,
    groups: dict[str, list[str]] | None = None,
    secrets: frozenset[str] = frozenset({"CLOUD_KEY"}),
    addresses: dict[str, str] | None = None,
    **variables: Any,
) -> Inventory:
    """An inventory in which every host of llm_stack sees the catalogue `text` and `variables`."""
    groups = {**GROUPS, **(groups or {})}
    values = {**load(text), **variables}
    hosts = {host: Host(values, (addresses or {}).get(host, host)) for host in groups["llm_stack"]}
    return Inventory(groups, hosts, secrets, probe)


def views(*hosts: str, store: str = "store", **secrets: SeenSecret) -> list[SecretView]:
    """What `hosts` ("one" by default) see: `secrets`, and CLOUD_KEY unless it is in there."""
    seen = {"CLOUD_KEY": SeenSecret(99, "the environment"), **secrets}
    return [SecretView(hosts or ("one",), store, seen)]


def compiled(text: str = CATALOGUE, **arguments: Any) -> Compiled:
    return compile_inventory(inventory(text, **arguments))


def change(old: str, new: str, text: str = CATALOGUE) -> str:
    """`text` with the one occurrence of `old` replaced."""
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
    return text.replace(old, new)


def places(result: Compiled, severity: str = "error") -> list[tuple[str, int | None]]:
    """Code and line of every diagnostic."""
    return [
        (d.code, d.origin.line if d.origin else None)
        for d in result.diagnostics
        if d.severity == severity
    ]


def refused(result: Compiled, code: str, line: int | None) -> str:
    """Assert that `code` is the only error and stands on `line`; return its text."""
    assert places(result) == [(code, line)], [d.render() for d in result.diagnostics]
    assert result.plans == {}
    return result.errors[0].render()


def document(result: Compiled, host: str = "one") -> dict[str, Any]:
    assert result.errors == [], [d.render() for d in result.diagnostics]
    found: dict[str, Any] = result.plans[host]["litellm"]["document"]
    return found
