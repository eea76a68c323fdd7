"""What comes out: the gateway's document, routes and plans."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from catalogues import ROOT, change, compiled, document, inventory, part
from catalogues import load as load_yaml
from pydantic import BaseModel

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import plain
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.emit import LABELS_OF_CLIENTS, PASSED, assert_invariants
from modelyard.names import REDIS_NAMESPACE, slugs
from modelyard.output.render import render_plan, render_summary

FLEET = {
    "llm_stack": ["gw1", "gw2", "gpu1", "gpu2"],
    "llm_gateway": ["gw1", "gw2"],
    "llm_redis": ["gw1"],
    "llm_local": ["gpu1", "gpu2", "gw1"],
}
ADDRESSES = {"gw1": "10.0.0.1", "gw2": "10.0.0.2", "gpu1": "10.0.0.5", "gpu2": "10.0.0.6"}


def entries(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [entry for entry in result["model_list"] if entry["model_name"] == name]


def servers(result: Compiled, gateway: str, model: str) -> dict[str, tuple[str, int]]:
    """Return the hosts of the pool of a model of `local`, as HAProxy of a gateway reaches them."""
    found = result.plans[gateway]["haproxy"]["pools"][f"pool.local.{model}"]["servers"]
    return {name: (server["address"], server["port"]) for name, server in found.items()}


def test_document_of_one_host() -> None:
    assert document(compiled()) == {
        "model_list": [
            {
                "model_name": "small",
                "litellm_params": {
                    "model": "openai/small",
                    "api_base": "http://127.0.0.1:4003/pool.local.small/v1",
                    "api_key": "os.environ/LOCAL_API_KEY",
                    "timeout": 600,
                    "stream_timeout": 120,
                    "allowed_openai_params": list(PASSED),
                },
                "model_info": {"id": "local/-/small", "mode": "chat", "supports_reasoning": True},
            },
            {
                "model_name": "large:7b",
                "litellm_params": {
                    "model": "openai/large:7b",
                    "api_base": "http://127.0.0.1:4003/pool.local.large-7b/v1",
                    "api_key": "os.environ/LOCAL_API_KEY",
                    "timeout": 600,
                    "stream_timeout": 120,
                    "allowed_openai_params": list(PASSED),
                },
                "model_info": {
                    "id": "local/-/large:7b",
                    "mode": "chat",
                    "supports_reasoning": True,
                },
            },
            {
                "model_name": "big-cloud",
                "litellm_params": {
                    "model": "openai/big-cloud",
                    "api_base": "https://api.example.org/v1",
                    "api_key": "os.environ/CLOUD_KEY",
                    "timeout": 600,
                    "stream_timeout": 120,
                    "allowed_openai_params": list(PASSED),
                    "cooldown_time": 0,
                },
                "model_info": {
                    "id": "cloud/-/big-cloud",
                    "mode": "chat",
                    "supports_reasoning": True,
                },
            },
        ],
        "router_settings": {
            "num_retries": 0,
            "max_fallbacks": 1,
            "allowed_fails": 1,
            "cooldown_time": 30,
            "enable_weighted_failover": True,
            "fallbacks": [{"small": ["big-cloud"]}, {"large:7b": ["small", "big-cloud"]}],
            "redis_host": "127.0.0.1",
            "redis_port": 6379,
            "redis_password": "os.environ/REDIS_PASSWORD",
            "cache_kwargs": {"username": "gateway", "namespace": REDIS_NAMESPACE},
        },
        "litellm_settings": {
            "num_retries": 0,
            "expose_router_debug_in_errors": False,
            "turn_off_message_logging": True,
            "callbacks": ["prometheus"],
            "require_auth_for_metrics_endpoint": False,
            "prometheus_exclude_labels": list(LABELS_OF_CLIENTS),
            "enable_post_custom_auth_checks": True,
        },
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "modelyard_gateway.app.authenticate",
            "custom_auth_run_common_checks": True,
            "cancel_on_disconnect": True,
        },
    }


def test_only_the_last_step_is_never_cooled_down() -> None:
    """With nobody else to take its requests, two hiccups must not turn all of them away. The
    hosts of a group are one deployment."""
    never = [
        e["model_name"]
        for e in document(compiled())["model_list"]
        if e["litellm_params"].get("cooldown_time") == 0
    ]
    assert never == ["big-cloud"]
    text = change("{chain: [small, big-cloud]}", "{terminal: true}")
    fleet = document(compiled(text, groups=FLEET, addresses=ADDRESSES), "gw1")
    assert [e["litellm_params"]["cooldown_time"] for e in entries(fleet, "large:7b")] == [0]


def test_chains_are_flat_and_depth_first() -> None:
    """A: [B, C], B: [D] is tried as A B D C, each once (the gateway itself would do that only by
    chance)."""
    text = change("large:7b: {chain: [small, big-cloud]}", "large:7b: {chain: [small, end]}")
    text = change("      - name: big-cloud\n", "      - name: big-cloud\n      - name: end\n", text)
    text = change("{terminal: true}", "{chain: [end]}\n    end: {terminal: true}", text)
    assert chains(compiled(text)) == {
        "small": ["big-cloud", "end"],
        "large:7b": ["small", "big-cloud", "end"],
        "big-cloud": ["end"],
    }


def test_chain_passes_through_a_step_that_is_left_out() -> None:
    """A step without hosts drops out; what stands in for it still stands in."""
    text = change(
        "  cloud:\n",
        "  other: {type: ollama, group: llm_empty, port: 1, models: [{name: gone}]}\n  cloud:\n",
    )
    text = change("[small, big-cloud]", "[gone]", text)
    text = change("{terminal: true}", "{terminal: true}\n    gone: {chain: [big-cloud]}", text)
    result = compiled(text)
    assert {"large:7b": ["big-cloud"]} in document(result)["router_settings"]["fallbacks"]
    assert {"kind": "step", "name": "gone", "of": "large:7b"}.items() <= result.left_out[-1].items()
    assert "gone" not in result.public_names


def test_fleet() -> None:
    result = compiled(groups=FLEET, addresses=ADDRESSES)
    first, second = document(result, "gw1"), document(result, "gw2")
    assert [e["litellm_params"]["api_base"] for e in entries(first, "small")] == [
        "http://127.0.0.1:4003/pool.local.small/v1"
    ]
    assert servers(result, "gw1", "small") == servers(result, "gw2", "small")
    assert servers(result, "gw1", "small") == {
        "gpu1": ("10.0.0.5", 8080),
        "gpu2": ("10.0.0.6", 8080),
        "gw1": ("10.0.0.1", 8080),
    }
    assert first["model_list"] == second["model_list"]
    assert first["router_settings"]["redis_host"] == "127.0.0.1"
    assert second["router_settings"]["redis_host"] == "10.0.0.1"
    assert result.plans["gw1"]["redis"]["listen"] == ["127.0.0.1", "10.0.0.1"]
    assert part(result.plans["gpu1"], "llama_cpp")["instances"][0]["listen"] == ["10.0.0.5"]
    assert result.plans["gpu1"]["litellm"] is None
    assert result.plans["gw2"]["engines"] == []


def test_fleet_with_ipv6_addresses() -> None:
    addresses = {name: f"fd00::{number}" for number, name in enumerate(ADDRESSES, 1)}
    result = compiled(groups=FLEET, addresses=addresses)
    assert servers(result, "gw2", "small") == {
        "gpu1": ("fd00::3", 8080),
        "gpu2": ("fd00::4", 8080),
        "gw1": ("fd00::1", 8080),
    }
    assert part(result.plans["gpu1"], "llama_cpp")["instances"][0]["listen"] == ["fd00::3"]


def test_ids_do_not_depend_on_addresses() -> None:
    ids = [
        [
            e["model_info"]["id"]
            for e in document(compiled(groups=FLEET, addresses=a), "gw1")["model_list"]
        ]
        for a in (ADDRESSES, {**ADDRESSES, "gpu1": "10.9.9.9"})
    ]
    assert ids[0] == ids[1]


def test_llm_address_wins_over_ansible_host() -> None:
    inv = inventory(groups=FLEET, addresses=ADDRESSES)
    object.__setattr__(
        inv.hosts["gpu1"], "variables", {**inv.hosts["gpu1"].variables, "llm_address": "10.1.1.1"}
    )
    assert servers(compile_inventory(inv), "gw1", "small")["gpu1"] == ("10.1.1.1", 8080)


def test_hosts_narrow_the_placement() -> None:
    result = compiled(
        change("port: 8081", "port: 8081\n        hosts: [gpu2]"), groups=FLEET, addresses=ADDRESSES
    )
    assert servers(result, "gw1", "large-7b") == {"gpu2": ("10.0.0.6", 8081)}
    assert [i["model"] for i in part(result.plans["gpu1"], "llama_cpp")["instances"]] == ["small"]


def test_limits() -> None:
    """Of two providers that share a name, however many hosts each has."""
    other = (
        "  other:\n    type: openai_compatible\n    base_url: http://h/v1\n    models:\n"
        "      - {name: 'large:7b', weight: 1, rpm: 9, timeout: 30}\n"
    )
    text = change(
        "port: 8081", "port: 8081\n        rpm: 9\n        timeout: 30\n        weight: 1"
    )
    text = change("  cloud:\n", f"{other}  cloud:\n", text)
    result = document(compiled(text, groups=FLEET, addresses=ADDRESSES), "gw1")
    assert len(entries(result, "large:7b")) == 2
    assert result["router_settings"]["optional_pre_call_checks"] == ["enforce_model_rate_limits"]
    for entry in entries(result, "large:7b"):
        params = entry["litellm_params"]
        assert (params["rpm"], params["max_parallel_requests"], params["weight"]) == (9, 1000, 1)
        assert (params["timeout"], params["stream_timeout"]) == (30, 30)
    assert "optional_pre_call_checks" not in document(compiled())["router_settings"]
    assert "max_parallel_requests" not in entries(result, "small")[0]["litellm_params"]


def chains(result: Compiled, section: str = "fallbacks") -> dict[str, list[str]]:
    return {
        name: chain
        for entry in document(result)["router_settings"][section]
        for name, chain in entry.items()
    }


def test_default_chain() -> None:
    """For models without an entry; a model in it gets what is behind it; one that says terminal
    gets nothing."""
    text = change(
        "    large:7b: {chain: [small, big-cloud]}\n    small: {chain: [big-cloud]}\n", ""
    )
    text = change("  fallbacks:\n", "  default_fallbacks: [small, big-cloud]\n  fallbacks:\n", text)
    result = compiled(text)
    assert chains(result) == {"small": ["big-cloud"], "large:7b": ["small", "big-cloud"]}
    assert result.diagnostics == [], (
        "a model that the default chain serves needs no chain of its own"
    )
    assert "default_fallbacks" not in document(result)["router_settings"]


def test_default_chain_may_lead_back() -> None:
    """`big-cloud` falls back to `small`, which has no entry and so gets the default one: it just
    ends there."""
    text = change("    small: {chain: [big-cloud]}\n", "")
    text = change("big-cloud: {terminal: true}", "big-cloud: {chain: [small]}", text)
    text = change("  fallbacks:\n", "  default_fallbacks: [big-cloud]\n  fallbacks:\n", text)
    found = chains(compiled(text))
    assert found == {
        "small": ["big-cloud"],
        "large:7b": ["small", "big-cloud"],
        "big-cloud": ["small"],
    }


def test_default_chain_holds_models_of_one_mode() -> None:
    text = change("- name: small", "- name: small\n        mode: embedding")
    text = change(
        "    large:7b: {chain: [small, big-cloud]}\n    small: {chain: [big-cloud]}\n", "", text
    )
    text = change("  fallbacks:\n", "  default_fallbacks: [big-cloud]\n  fallbacks:\n", text)
    result = compiled(text)
    assert chains(result) == {"large:7b": ["big-cloud"]}
    assert [(d.code, d.message) for d in result.warnings] == [
        (
            "chain-undeclared",
            '"small" has no fallback: no step of default_fallbacks (big-cloud) has its mode,'
            " embedding",
        )
    ]


@pytest.mark.parametrize("section", ["context_window_fallbacks", "content_policy_fallbacks"])
def test_chains_for_one_kind_of_error_are_there_for_all_names_or_none(section: str) -> None:
    """Once the section is there, the gateway refuses such a request to a name that it does not
    hold."""
    routing = (
        f"  {section}: {{small: {{chain: ['large:7b']}}}}\n  aliases: {{fast: small}}\n "
        " fallbacks:\n"
    )
    result = compiled(change("  fallbacks:\n", routing))
    assert chains(result, section) == {
        "small": ["large:7b"],
        "large:7b": ["small", "big-cloud"],
        "fast": ["large:7b"],
    }
    key = section.removesuffix("_fallbacks")
    assert {route["name"]: route[key] for route in result.routes} == {
        "small": ["small", "large:7b"],
        "large:7b": None,
        "big-cloud": None,
        "fast": ["small", "large:7b"],
    }
    assert section not in document(compiled())["router_settings"]


def test_nobody_steps_in_on_one_kind_of_error() -> None:
    text = change(
        "  fallbacks:\n", "  content_policy_fallbacks: {small: {terminal: true}}\n  fallbacks:\n"
    )
    assert chains(compiled(text), "content_policy_fallbacks") == {
        "large:7b": ["small", "big-cloud"]
    }


def test_timeouts_of_a_model_a_provider_and_the_gateway() -> None:
    text = change("    port: 8080\n", "    port: 8080\n    timeout: 100\n    stream_timeout: 50\n")
    text = change(
        "- name: large:7b",
        "- name: large:7b\n        timeout: 30\n        stream_timeout: 20",
        text,
    )
    text = change("port: 4000", "timeouts: {request_s: 90}", text)
    found = {
        e["model_name"]: (e["litellm_params"]["timeout"], e["litellm_params"]["stream_timeout"])
        for e in document(compiled(text))["model_list"]
    }
    assert found == {"small": (100, 50), "large:7b": (30, 20), "big-cloud": (90, 90)}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [("", (600, 300)), (", stream_timeout: 60", (600, 60)), (", timeout: 40", (40, 40))],
)
def test_a_cold_load_of_ollama_is_not_a_dead_backend(extra: str, expected: tuple[int, int]) -> None:
    ollama = (
        "{type: ollama, base_url: 'http://192.0.2.9:11434', models: [{name: cold}]" + extra + "}"
    )
    (entry,) = entries(
        document(compiled(change("  cloud:\n", f"  ollama: {ollama}\n  cloud:\n"))), "cold"
    )
    params = entry["litellm_params"]
    assert (params["timeout"], params["stream_timeout"]) == expected


@pytest.mark.parametrize(
    ("kind", "url", "base"),
    [
        ("ollama", "http://h:11434", "http://h:11434/v1"),
        ("vllm", "http://h:8000/", "http://h:8000/v1"),
        ("llama_cpp", "http://h/llama/v1", "http://h/llama/v1"),
        ("openai_compatible", "http://h:8000", "http://h:8000"),
    ],
)
def test_engines_elsewhere_are_called_at_v1(kind: str, url: str, base: str) -> None:
    other = f"  other: {{type: {kind}, base_url: '{url}', models: [{{name: other}}]}}\n  cloud:\n"
    (entry,) = entries(document(compiled(change("  cloud:\n", other))), "other")
    assert entry["litellm_params"]["api_base"] == base


def test_tags_are_everywhere_or_nowhere() -> None:
    """A tag on one model only would refuse tagged requests to all others, and to what steps in for
    it."""
    assert "tags" not in json.dumps(document(compiled()))
    text = change("- name: small", "- name: small\n        tags: [eu, fast]")
    found = document(compiled(text))
    assert found["router_settings"]["enable_tag_filtering"] is True
    assert {e["model_name"]: e["litellm_params"]["tags"] for e in found["model_list"]} == {
        "small": ["eu", "fast", "default"],
        "large:7b": ["default"],
        "big-cloud": ["default"],
    }
    assert [
        e["litellm_params"]["tags"]
        for e in entries(document(compiled(shared("tags: [eu]"))), "small")
    ] == [
        ["eu"],
        ["default"],
    ]


def test_prices_are_per_token() -> None:
    text = change("- name: big-cloud", "- name: big-cloud\n        price: {input: 0.15, output: 2}")
    (entry,) = entries(document(compiled(text)), "big-cloud")
    params = entry["litellm_params"]
    assert (params["input_cost_per_token"], params["output_cost_per_token"]) == (0.15e-6, 2e-6)


def test_cache_is_off_until_somebody_wants_it() -> None:
    assert "cache" not in document(compiled())["litellm_settings"]
    settings = document(compiled(change("port: 4000", "cache: {enabled: true, ttl_s: 60}")))[
        "litellm_settings"
    ]
    assert settings["cache"] is True
    assert settings["cache_params"] == {
        "type": "redis",
        "host": "127.0.0.1",
        "port": 6379,
        "username": "gateway",
        "password": "os.environ/REDIS_PASSWORD",
        "namespace": REDIS_NAMESPACE,
        "ttl": 60,
        "supported_call_types": ["acompletion", "atext_completion", "aembedding", "aresponses"],
    }


def shared(extra: str = "") -> str:
    """A catalogue in which two providers share the name `small`, the first with a further key."""
    text = change(
        "name: big-cloud", "name: small\n        served_name: big\n        weight: 1"
    ).replace("big-cloud", "small")
    first = f"      - name: small\n        weight: 3\n        {extra}\n        source"
    text = change("      - name: small\n        source", first, text)
    text = change("    small: {chain: [small]}\n", "", text)
    return change("[small, small]", "[small]", text)


def test_shared_name_is_one_group_with_weights() -> None:
    result = compiled(shared())
    assert result.routes[0]["attempts"][0]["provider"] == "local (weight 3), cloud (weight 1)"
    members = entries(document(result), "small")
    assert [(m["litellm_params"]["model"], m["litellm_params"]["weight"]) for m in members] == [
        ("openai/small", 3),
        ("openai/big", 1),
    ]


def test_aliases_and_capabilities() -> None:
    text = change(
        "llm_routing:\n",
        "llm_routing:\n  aliases: {fast: small, best: code}\n  capabilities: {code: {models:"
        " [large:7b, small]}}\n",
    )
    result = compiled(text)
    router = document(result)["router_settings"]
    assert result.public_names == ["small", "large:7b", "big-cloud", "code", "fast", "best"]
    assert router["model_group_alias"] == {"fast": "small", "best": "code"}
    assert router["routing_groups"] == [
        {
            "group_name": "code",
            "models": ["large:7b", "small"],
            "routing_strategy": "priority",
            "model_priorities": {"large:7b": 1, "small": 2},
        }
    ]
    found = chains(result)
    assert found["code"] == found["fast"] == found["best"] == ["big-cloud"]


def test_alias_whose_model_is_left_out_is_left_out() -> None:
    text = change("llm_routing:\n", "llm_routing:\n  aliases: {fast: small}\n")
    result = compiled(text, groups={"llm_local": []})
    assert result.public_names == ["big-cloud"]
    assert [e["name"] for e in result.left_out] == ["local", "fast"]


def test_anthropic_and_keyless() -> None:
    text = change("type: openai", "type: anthropic")
    assert (
        entries(document(compiled(text)), "big-cloud")[0]["litellm_params"]["model"]
        == "anthropic/big-cloud"
    )
    text = change("type: openai", "type: openai_compatible").replace(
        "    api_key_env: CLOUD_KEY\n", ""
    )
    assert entries(document(compiled(text)), "big-cloud")[0]["litellm_params"]["api_key"] == "none"


def test_without_redis() -> None:
    result = compiled(groups={"llm_redis": []})
    assert not [
        key
        for key in document(result)["router_settings"]
        if "redis" in key or key == "cache_kwargs"
    ]
    assert "REDIS_PASSWORD" not in result.plans["one"]["litellm"]["secrets"]
    assert [c["skip"] for c in result.plans["one"]["checks"] if c["service"] == "redis"] == [
        "no host in group llm_redis"
    ]


def test_same_input_same_bytes() -> None:
    assert json.dumps(compiled().as_dict()) == json.dumps(compiled().as_dict())


def test_plan_of_one_host() -> None:
    plan = compiled().plans["one"]
    assert [(s["service"], s["port"], s["variable"]) for s in plan["services"]] == [
        ("redis", 6379, "llm_gateway.redis.port"),
        ("llama-cpp@small", 8080, "llm_providers.local.port"),
        ("llama-cpp@large-7b", 8081, "llm_providers.local.models[1].port"),
        ("litellm@blue", 4001, "llm_gateway.slots.blue"),
        ("litellm@green", 4002, "llm_gateway.slots.green"),
        ("haproxy", 4000, "llm_gateway.port"),
        ("haproxy", 4003, "llm_gateway.pool_port"),
    ]
    assert plan["litellm"]["secrets"] == {
        name: name
        for name in ("CLOUD_KEY", "LITELLM_MASTER_KEY", "LOCAL_API_KEY", "REDIS_PASSWORD")
    }


def test_checks_are_complete() -> None:
    """Every check names its service and says what to look at; a slot's have a placeholder for the
    port."""
    plan = compiled().plans["one"]
    kinds = {
        "unit": {"units"},
        "http": {"url", "expect_status"},
        "models": {"url", "bearer", "names"},
        "chat": {"url", "bearer", "model"},
        "embedding": {"url", "bearer", "model"},
        "redis": {"host", "port", "username", "password"},
        "key": {"url"},
    }
    for check in [*plan["checks"], *plan["litellm"]["checks"]]:
        assert {"name", "service", "kind", "hint", *kinds[check["kind"]]} <= check.keys()
    for check in plan["litellm"]["checks"]:
        assert check["kind"] == "unit" or "@PORT@" in check["url"]
    assert "@PORT@" not in json.dumps(plan["checks"])
    streams = [c["name"] for c in plan["checks"] if c.get("stream")]
    assert streams == ["the front end streams (small)"]


def test_smoke_tries_the_keys_of_providers_elsewhere() -> None:
    """Once for each, however many models it has; not where there is none, and not an engine's of
    ours."""
    more = """\
      - name: second
  claude: {type: anthropic, base_url: "http://a", api_key_env: CLAUDE_KEY, models: [{name: claude}]}
  open: {type: openai_compatible, base_url: "http://o/v1", models: [{name: open}]}
llm_routing:
  default_fallbacks: [small]
"""
    result = compiled(
        change("llm_routing:\n", more), secrets=frozenset({"CLOUD_KEY", "CLAUDE_KEY"})
    )
    plan = result.plans["one"]
    assert [check for check in plan["checks"] if check["kind"] == "key"] == [
        {
            "name": f"{provider} accepts the key {key}",
            "service": "litellm",
            "kind": "key",
            "url": url,
            header: f"litellm/{key}",
            "hint": f"correct {key}, then run site.yml --tags gateway",
        }
        for provider, key, url, header in (
            ("cloud", "CLOUD_KEY", "https://api.example.org/v1/models", "bearer"),
            ("claude", "CLAUDE_KEY", "http://a/v1/models", "x_api_key"),
        )
    ]
    assert not any(check["kind"] == "key" for check in plan["litellm"]["checks"]), (
        "no release waits for a provider"
    )


def test_render() -> None:
    result = compiled()
    text = render_plan(result)
    assert "  127.0.0.1:8081  modelyard-llama-cpp@large-7b  large:7b\n" in text
    assert (
        "  large:7b\n    1. large:7b   local on one\n"
        "    2. small      local on one\n    3. big-cloud  cloud on https" in text
    )
    assert "1 host, 3 public names, 0 warnings" in render_summary(result)


def test_slugs() -> None:
    assert slugs(["qwen2.5-coder:7b", "A"]) == {"qwen2.5-coder:7b": "qwen2-5-coder-7b", "A": "a"}
    clash = slugs(["a.b", "a-b", "c", "::", "x" * 80])
    assert len(set(clash.values())) == 5
    assert clash["c"] == "c"
    assert clash == slugs(["x" * 80, "::", "c", "a-b", "a.b"])
    assert all(0 < len(slug) <= 48 and slug.strip("-") == slug for slug in clash.values())


@pytest.mark.parametrize(
    "break_it", ["id", "chain", "context", "alias", "key", "self", "weight", "limit", "tag"]
)
def test_invariants_are_checked(break_it: str) -> None:
    result = compiled()
    found = document(result)
    if break_it == "id":
        found["model_list"][1]["model_info"]["id"] = found["model_list"][0]["model_info"]["id"]
    elif break_it == "chain":
        found["router_settings"]["fallbacks"][0]["small"].append("nobody")
    elif break_it == "context":
        found["router_settings"]["context_window_fallbacks"] = [{"small": ["nobody"]}]
    elif break_it == "weight":
        found["model_list"][0]["litellm_params"]["weight"] = 1
        found["model_list"].append(
            {**found["model_list"][2], "model_name": "small", "model_info": {"id": "x"}}
        )
    elif break_it == "limit":
        found["model_list"][0]["litellm_params"]["rpm"] = 1
    elif break_it == "tag":
        found["router_settings"]["enable_tag_filtering"] = True
        found["model_list"][0]["litellm_params"]["tags"] = ["eu", "default"]
    elif break_it == "alias":
        found["router_settings"]["model_group_alias"] = {"x": "nobody"}
    elif break_it == "key":
        found["model_list"][0]["litellm_params"]["api_key"] = "sk-1"
    else:
        found["router_settings"]["fallbacks"][0]["small"].append("small")
    with pytest.raises(AssertionError):
        assert_invariants(found, result.public_names)


# -- the shipped catalogue -------------------------------------------------------------------------


def shipped() -> str:
    return "\n".join(
        path.read_text(encoding="utf-8").removeprefix("---\n")
        for path in sorted((ROOT / "group_vars/all").glob("*.yml"))
    )


SHIPPED_GROUPS = {
    "llm_llama_cpp_native": ["one"],
    **{
        name: []
        for name in ("llm_ollama", "llm_llama_cpp_python", "llm_vllm_qwen", "llm_vllm_dolphin")
    },
}


def test_shipped_catalogue() -> None:
    result = compiled(shipped(), groups=SHIPPED_GROUPS, secrets=frozenset())
    assert result.diagnostics == []
    assert result.public_names == ["llama-cpp-native"]
    assert {e["name"] for e in result.left_out} >= {
        "ollama",
        "llama_cpp_python",
        "vllm-qwen",
        "vllm-dolphin",
        "ollama_cloud",
    }


def test_shipped_catalogue_with_the_cloud() -> None:
    result = compiled(shipped(), groups=SHIPPED_GROUPS, secrets=frozenset({"OLLAMA_CLOUD_API_KEY"}))
    assert result.diagnostics == []
    assert chains(result)["kimi-k2:1t-cloud"] == [
        "gpt-oss:120b-cloud",
        "gpt-oss:20b-cloud",
        "llama-cpp-native",
    ]


GETTING_STARTED = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs/getting-started.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("text", GETTING_STARTED, ids=lambda text: text.split()[-1])
def test_examples_of_the_documentation_are_valid(text: str) -> None:
    """On the workstation, with hosts in the groups that they speak of."""
    card = ROOT / "inventories/workstation/group_vars/llm_stack/card.yml"
    groups = {**SHIPPED_GROUPS, "llm_ollama": ["one"], "llm_vllm_qwen": ["one"]}
    result = compiled(
        "\n".join([shipped(), card.read_text(encoding="utf-8").removeprefix("---\n")]),
        groups=groups,
        secrets=frozenset(),
        **load_yaml(text.removeprefix("---\n")),
    )
    assert [one.render() for one in result.diagnostics] == []
    assert ("dolphin-uncensored-vllm" in result.public_names) != ("vllm-dolphin: null" in text)


def test_shipped_chains_are_what_the_plan_promises() -> None:
    """Expanded over all models, as if every engine could be deployed."""
    from modelyard.catalogue.schema import Catalogue
    from modelyard.catalogue.sourcemap import plain
    from modelyard.compiler.chains import Chains

    tree = {key.removeprefix("llm_"): value for key, value in plain(load_yaml(shipped())).items()}
    written = Chains(Catalogue.model_validate(tree), frozenset())
    assert written.walk("fallbacks", "llama3.1:latest") == [
        "llama3.1:latest", "llama-cpp-default", "llama-cpp-native", "gpt-oss:20b-cloud",
    ]  # fmt: skip
    assert written.walk("fallbacks", "qwen2.5-coder:7b")[:3] == [
        "qwen2.5-coder:7b",
        "qwen-coder-vllm",
        "qwen3-coder:480b-cloud",
    ]
    assert written.walk("fallbacks", "llama-cpp-native") == ["llama-cpp-native"]
    declared = {m.name for p in router_models(tree) for m in p}
    assert written.routing.fallbacks.keys() == declared


def router_models(tree: dict[str, Any]) -> list[Any]:
    from modelyard.catalogue.schema import Catalogue

    return [p.models for p in Catalogue.model_validate(tree).providers.values()]


def test_shipped_catalogue_states_no_default() -> None:
    """A default is in the model of its section and nowhere else; the reference and editors show
    it."""
    given = {
        name.removeprefix("llm_"): plain(value) for name, value in load_yaml(shipped()).items()
    }
    model = Catalogue.model_validate(given)
    assert repeated(model, given) == []


def repeated(model: BaseModel, given: dict[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """The keys of `given` whose values are the defaults of the model made of it."""
    found = []
    for key, value in given.items():
        field, at, made = type(model).model_fields[key], (*path, key), getattr(model, key)
        if path and not field.is_required() and made == field.get_default():
            found.append(".".join(at))
        elif isinstance(made, BaseModel):
            found += repeated(made, value, at)
        elif isinstance(made, dict | list):
            names = made if isinstance(made, dict) else range(len(made))
            inner = [(name, made[name]) for name in names if isinstance(made[name], BaseModel)]
            for name, one in inner:
                found += repeated(one, value[name], (*at, str(name)))
    return found
