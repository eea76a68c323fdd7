"""Pools: which hosts share the requests of a process, and how many each gets at once."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import CATALOGUE, change, compiled

from modelyard.names import pool_name, pool_server

GROUPS = {
    "llm_stack": ["gw", "a", "b"],
    "llm_gateway": ["gw"],
    "llm_redis": ["gw"],
    "llm_local": ["a", "b"],
    "llm_more": ["b"],
}
ADDRESSES = {"gw": "192.0.2.1", "a": "192.0.2.2", "b": "192.0.2.3"}


def pools(text: str = CATALOGUE) -> dict[str, Any]:
    """The pools of a catalogue, as the front end gets them."""
    result = compiled(text, groups=GROUPS, addresses=ADDRESSES)
    assert result.errors == [], [error.render() for error in result.errors]
    found: dict[str, Any] = result.plans["gw"]["haproxy"]["pools"]
    return found


VERSIONS = (
    '  vllm: {version: "0.32.0"}\n'
    f'  ollama: {{version: "0.17.4", source: {{path: /o.tgz, sha256: {"b" * 64}}}}}\n'
)


def more(provider: str) -> str:
    """The catalogue with one more provider, on one host."""
    more = f"  more: {{group: llm_more, port: 9000, {provider}}}\n  cloud:\n"
    return change("  cloud:\n", more) + VERSIONS


def test_a_pool_has_every_host_and_the_engines_own_health() -> None:
    assert pools()["pool.local.small"] == {
        "health": "/health",
        "max_parallel": 1,
        "queue_s": 60,
        "holds": False,
        "servers": {
            "a": {"address": "192.0.2.2", "port": 8080},
            "b": {"address": "192.0.2.3", "port": 8080},
        },
    }


def test_one_process_of_several_models_is_one_pool() -> None:
    found = pools(more("type: ollama, models: [{name: one}, {name: two}]"))
    assert list(found) == ["pool.local.small", "pool.local.large-7b", "pool.more"]
    assert found["pool.more"]["max_parallel"] is None, "one model must not hold up the other"
    adapter = "{name: sql, adapter_of: base, source: {path: /a}}"
    models = f"[{{name: base, source: {{path: /m}}}}, {adapter}]"
    assert list(pools(more(f"type: vllm, models: {models}")))[2:] == ["pool.more.base"]


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("type: ollama, models: [{name: one}]", 1),
        ("type: ollama, ollama: {num_parallel: 3}, models: [{name: one}]", 3),
        ("type: ollama, max_parallel: 7, models: [{name: one}, {name: two}]", 7),
        ("type: vllm, models: [{name: one, source: {path: /m}}]", None),
        ("type: vllm, models: [{name: one, source: {path: /m}, options: {max-num-seqs: 32}}]", 32),
        ("type: vllm, max_parallel: 7, models: [{name: one, source: {path: /m}}]", 7),
        ("type: vllm, max_parallel: 7, models: [{name: one, source: {path: /m}, max_parallel: 8}]", 8),
        ("type: llama_cpp, models: [{name: one, source: {path: /m.gguf}, context_length: 4096}]", 4),
        ("type: llama_cpp, models: [{name: one, source: {path: /m.gguf}}]", 1),
    ],
)  # fmt: skip
def test_what_one_host_gets_at_once(provider: str, expected: int | None) -> None:
    (found,) = (
        pool for name, pool in pools(more(provider)).items() if name.startswith("pool.more")
    )
    assert found["max_parallel"] == expected


def test_how_long_a_request_waits_for_its_turn() -> None:
    text = change("port: 8081", "port: 8081\n        queue_s: 5")
    assert [pool["queue_s"] for pool in pools(text).values()] == [60, 5]
    text = change("port: 8080", "port: 8080\n    queue_s: 6", text)
    assert [pool["queue_s"] for pool in pools(text).values()] == [6, 5]
    text = change("port: 4000", "port: 4000\n  timeouts: {queue_s: 7}")
    assert [pool["queue_s"] for pool in pools(text).values()] == [7, 7]


@pytest.mark.parametrize("key", ["max_parallel", "queue_s"])
def test_what_has_no_process_of_its_own_has_no_queue_of_its_own(key: str) -> None:
    for provider, hint in (
        (f"type: ollama, models: [{{name: one, {key}: 2}}]", f"set {key} of the provider"),
        (
            "type: vllm, models: [{name: base, source: {path: /m}}, {name: sql, adapter_of: base,"
            f" source: {{path: /a}}, {key}: 2}}]",
            "remove it",
        ),
    ):
        result = compiled(more(provider), groups=GROUPS, addresses=ADDRESSES)
        (error,) = result.errors
        assert (error.code, error.hint) == ("invalid-value", hint)
        assert error.message.startswith(f"{key} has no effect")
    text = change("      - name: big-cloud\n", f"      - name: big-cloud\n        {key}: 2\n")
    (error,) = compiled(text).errors
    assert "runs elsewhere" in error.message


def test_names_that_haproxy_takes() -> None:
    assert pool_name("local", None) != pool_name("lo", "cal")
    assert pool_name("a", "b-c") != pool_name("a-b", "c")
    assert pool_server("gpu-1.example.org") == "gpu-1.example.org"
    assert pool_server("gpu 1") != pool_server("gpu+1")
    assert pool_server("gpu 1").startswith("gpu-1-")


LAST = "big-cloud: {terminal: true}"
SMALL, LARGE = "pool.local.small", "pool.local.large-7b"


@pytest.mark.parametrize(
    ("routing", "expected"),
    [
        (f"fallbacks: {{small: {{chain: [big-cloud]}}, {LAST}}}", {LARGE}),
        (f"default_fallbacks: [small], fallbacks: {{small: {{terminal: true}}, {LAST}}}", {SMALL}),
        # Each is a step before the other.
        (
            f"fallbacks: {{small: {{chain: ['large:7b']}}, 'large:7b': {{chain: [small]}}, {LAST}}}",
            set(),
        ),
        ("capabilities: {any: {models: [small, 'large:7b']}}", {LARGE}),
        # Too long for `small` leads to the other; that it is away does not.
        ("context_window_fallbacks: {small: {chain: ['large:7b']}}", {SMALL, LARGE}),
    ],
)
def test_a_pool_holds_requests_where_nobody_is_behind_it(routing: str, expected: set[str]) -> None:
    begin, rest = CATALOGUE.split("llm_routing:\n")
    text = (
        f"{begin}llm_routing: {{{routing}}}\nllm_gateway:\n{rest.partition('llm_gateway:')[2][1:]}"
    )
    assert {name for name, pool in pools(text).items() if pool["holds"]} == expected
