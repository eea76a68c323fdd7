"""Every refusal: the right code, on the right line, alone, with the right hint."""

# ruff: noqa: E501 - one edit per line reads better than a wrapped table
from __future__ import annotations

from pathlib import Path

import pytest
from catalogues import CATALOGUE, GROUPS, change, compiled, inventory, load, places, probe, refused

from modelyard.compiler import Compiled, Host, Inventory, compile_inventory
from modelyard.diagnostics import CODES

# (name, old text, new text, code, line, part of the rendering)
EDITS = [
    ("unknown key of a model", "port: 8081", "prot: 8081", "unknown-key", 11, 'did you mean "port"?'),
    ("unknown key of a provider", "group: llm_local", "group: llm_local\n    cuda: 1", "unknown-key", 5, "the keys here"),
    ("unknown key of the gateway", "port: 4000", "ports: 4000", "unknown-key", 24, 'did you mean "port"?'),
    ("unknown key of a chain", "{terminal: true}", "{terminate: true}", "unknown-key", 22, 'did you mean "terminal"?'),
    ("unknown type", "type: openai", "type: opnai", "unknown-value", 13, 'did you mean "openai"?'),
    ("unknown mode", "- name: small", "- name: small\n        mode: chatt", "unknown-value", 8, 'did you mean "chat"?'),
    ("text for a number", "port: 4000", 'port: "4000"', "invalid-value", 24, "without quotes"),
    ("number for text", '"1.106.2"', "1.106", "invalid-value", 26, "put it in quotes"),
    ("number too large", "port: 4000", "port: 70000", "invalid-value", 24, "65535"),
    ("address twice", "port: 4000", "listen: [127.0.0.1, 127.0.0.1]", "invalid-value", 24, "twice"),
    ("address beside all", "port: 4000", "listen: [0.0.0.0, 127.0.0.1]", "invalid-value", 24, "stand alone"),
    ("zero limit", "- name: small", "- name: small\n        rpm: 0", "invalid-value", 8, "greater than 0"),
    ("negative weight", "- name: small", "- name: small\n        weight: -1", "invalid-value", 8, "greater than 0"),
    ("credentials in a URL", "https://api", "https://u:p@api", "invalid-value", 14, "api_key_env"),
    ("URL without scheme", "https://api.example.org/v1", "api.example.org", "invalid-value", 14, "http://"),
    ("key instead of a secret's name", "CLOUD_KEY", "sk-12345", "invalid-value", 15, "never the key itself"),
    ("group and base_url", "base_url:", "group: llm_local\n    base_url:", "invalid-value", 12, "exactly one"),
    ("cloud without a key", "    api_key_env: CLOUD_KEY\n", "", "invalid-value", 12, "api_key_env"),
    ("url without sha256", "{path: /models/small.gguf}", "{url: https://e.org/m}", "invalid-value", 8, "sha256"),
    ("option the unit sets", "port: 8081", "port: 8081\n        options: {host: x}", "invalid-value", 12, "itself"),
    ("source of a model elsewhere", "- name: big-cloud", "- name: big-cloud\n        source: {path: /x}",
     "invalid-value", 18, "runs elsewhere"),
    ("no type", "    type: openai\n", "", "missing-key", 12, '"type" is missing'),
    ("no source", "        source: {path: /models/small.gguf}\n", "", "missing-key", 7, "has no source"),
    ("model without name", "- name: big-cloud", "- name: big-cloud\n      - mode: chat", "missing-key", 18, '"name"'),
    ("group not in the inventory", "llm_local", "llm_loca", "unknown-group", 4, 'did you mean "llm_local"?'),
    ("host not in the group", "port: 8081", "port: 8081\n        hosts: [ome]", "unknown-host", 12, 'did you mean "one"?'),
    ("typo in a chain", "{chain: [small, big-cloud]}", "{chain: [smal, big-cloud]}", "unknown-model", 20,
     'did you mean "small"?'),
    ("typo in a chain's head", "    small: {chain", "    smal: {chain", "unknown-model", 21, 'did you mean "small"?'),
    ("chain with itself", "small: {chain: [big-cloud]}", "small: {chain: [small]}", "chain-self", 21, "itself"),
    ("duplicate step", "[small, big-cloud]", "[small, small]", "chain-duplicate", 20, "twice"),
    ("empty chain", "small: {chain: [big-cloud]}", "small: {chain: []}", "chain-empty", 21, "terminal: true"),
    ("empty entry", "small: {chain: [big-cloud]}", "small: {}", "chain-empty", 21, "terminal: true"),
    ("terminal with a chain", "{chain: [big-cloud]}", "{chain: [big-cloud], terminal: true}", "invalid-value", 21,
     "keep one"),
    ("cycle", "{terminal: true}", '{chain: ["large:7b"]}', "chain-cycle", 22, "small → big-cloud → large:7b"),
    ("port taken by the door", "port: 8081", "port: 4000", "port-clash", 11, '"large:7b"'),
    ("two models on one port", "        port: 8081\n", "", "port-clash", 5, '"small" and "large:7b"'),
    ("version with known holes", "1.106.2", "1.82.7", "version-unsafe", 26, "1.83.7"),
    ("secret of our own", "CLOUD_KEY", "LITELLM_MASTER_KEY", "secret-reserved", 15, "own"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "text"), [edit[1:] for edit in EDITS], ids=[e[0] for e in EDITS]
)
def test_one_wrong_line(old: str, new: str, code: str, line: int, text: str) -> None:
    assert text in refused(compiled(CATALOGUE.replace(old, new, 1)), code, line)


def codes(result: Compiled) -> list[str]:
    return [code for code, _line in places(result)]


def test_everything_at_once() -> None:
    """Problems in all parts of the catalogue are told in one go, each on its own line."""
    text = change("port: 8081", "prot: 8081")
    text = change("type: openai", "type: opnai", text)
    text = change("{chain: [small, big-cloud]}", "{chain: [smal, big-cloud]}", text)
    text = change("port: 4000", "port: 0", text)
    text = change("1.106.2", "1.82.8", text)
    assert places(compiled(text)) == [
        ("unknown-key", 11),
        ("unknown-value", 13),
        ("invalid-value", 24),
        ("version-unsafe", 26),
        ("unknown-model", 20),
    ]


def test_disabled_provider_in_chains() -> None:
    result = compiled(change("type: openai", "type: openai\n    status: disabled"))
    assert places(result) == [("model-not-deployed", 21), ("model-not-deployed", 22)]
    assert "status: disabled" in result.errors[0].message


def test_chain_of_a_disabled_model_may_name_a_disabled_one() -> None:
    text = change("type: openai", "type: openai\n    status: disabled")
    text = change("small: {chain: [big-cloud]}", "small: {terminal: true}", text)
    text = change("{chain: [small, big-cloud]}", "{chain: [small]}", text)
    assert compiled(change("{terminal: true}\nllm_gateway", "{chain: [small]}\nllm_gateway", text)).errors == []


def test_provider_without_models() -> None:
    """The first failure of the hand-made stack: it must never reach the gateway's document."""
    result = compiled(change("    models:\n      - name: big-cloud\n", ""))
    assert places(result) == [
        ("no-models", 12),
        ("unknown-model", 18),
        ("unknown-model", 19),
        ("unknown-model", 20),
    ]


def test_undefined_secret() -> None:
    text = refused(compiled(secrets=frozenset({"CLOUD_KEYS"})), "secret-undefined", 15)
    assert 'did you mean "CLOUD_KEYS"?' in text
    text = refused(compiled(secrets=frozenset()), "secret-undefined", 15)
    assert "when_secret_missing: skip" in text


def test_chain_that_loses_every_step() -> None:
    text = change("api_key_env: CLOUD_KEY", "api_key_env: CLOUD_KEY\n    when_secret_missing: skip")
    text = refused(compiled(text, secrets=frozenset()), "chain-lost", 22)
    assert "secret CLOUD_KEY is not defined" in text
    assert '{routing: {fallbacks: {"small": {terminal: true}}}}' in text


def test_nothing_left_to_serve() -> None:
    text = change("api_key_env: CLOUD_KEY", "api_key_env: CLOUD_KEY\n    when_secret_missing: skip")
    text = refused(compiled(text, secrets=frozenset(), groups={"llm_local": []}), "no-deployment", 2)
    assert "no host in group llm_local" in text


def test_same_name_at_two_providers() -> None:
    text = change("name: big-cloud", "name: small").replace("big-cloud", "small")
    text = change("    small: {chain: [small]}\n    small: {terminal: true}", "    small: {terminal: true}", text)
    text = change("{chain: [small, small]}", "{chain: [small]}", text)
    assert "llm.yml:7" in refused(compiled(text), "duplicate-model", 17)
    shared = text.replace("- name: small", "- name: small\n        weight: 1")
    assert compiled(shared).errors == []
    mixed = "\n        mode: embedding".join(shared.rsplit("\n        weight: 1", 1))
    assert codes(compiled(mixed)) == ["duplicate-model", "chain-mode"]


def test_same_name_twice_at_one_provider() -> None:
    result = compiled(
        change("name: large:7b", "name: small").replace("    large:7b: {chain: [small, big-cloud]}\n", "")
    )
    refused(result, "duplicate-model", 9)


ROUTING = "llm_routing:\n"


@pytest.mark.parametrize(
    ("extra", "code", "line", "text"),
    [
        ("  aliases: {small: big-cloud}\n", "shadowed-name", 19, "also the name of a model"),
        ("  aliases: {fast: smal}\n", "unknown-alias-target", 19, 'did you mean "small"?'),
        ("  aliases: {fast: small, quick: fast}\n", "unknown-alias-target", 19, 'point it at "small"'),
        ("  aliases: {default: small}\n", "shadowed-name", 19, "default"),
        ("  capabilities: {small: {models: [big-cloud]}}\n", "shadowed-name", 19, "something else"),
        ("  capabilities: {code: {models: [smal]}}\n", "unknown-model", 19, 'did you mean "small"?'),
        ("  capabilities: {code: {models: []}}\n", "invalid-value", 19, "at least 1"),
        ("  capabilities: {code: {models: [small, small]}}\n", "chain-duplicate", 19, "twice"),
    ],
)
def test_aliases_and_capabilities(extra: str, code: str, line: int, text: str) -> None:
    assert text in refused(compiled(change(ROUTING, ROUTING + extra)), code, line)


def test_a_chain_for_an_alias() -> None:
    text = change(ROUTING, ROUTING + "  aliases: {fast: small}\n")
    text = change("    small: {chain", "    fast: {chain", text)
    assert "alias, not a model" in refused(compiled(text), "unknown-model", 22)


def test_cycle_through_alias_and_capability() -> None:
    text = change(ROUTING, ROUTING + "  aliases: {fast: all}\n  capabilities: {all: {models: [large:7b]}}\n")
    text = change("{terminal: true}", "{chain: [fast]}", text)
    assert "large:7b → small → big-cloud → large:7b" in refused(compiled(text), "chain-cycle", 24)


def test_modes_do_not_mix() -> None:
    text = change("- name: big-cloud", "- name: big-cloud\n        mode: embedding")
    assert codes(compiled(text)) == ["chain-mode", "chain-mode"]


def test_undeclared_chain_is_a_warning() -> None:
    result = compiled(change("    big-cloud: {terminal: true}\n", ""))
    assert result.errors == []
    assert [(d.code, d.severity) for d in result.diagnostics] == [("chain-undeclared", "warning")]


# -- the inventory -----------------------------------------------------------------------------------------------


def test_no_host() -> None:
    assert codes(compiled(groups={"llm_stack": []})) == ["no-hosts"]


def test_no_gateway() -> None:
    refused(compiled(groups={"llm_gateway": []}), "no-gateway", None)


def test_two_redis() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_redis": ["one", "two"]}
    refused(compiled(groups=groups), "too-many-redis", None)


def test_empty_catalogue() -> None:
    versions = CATALOGUE[CATALOGUE.index("llm_versions") :]
    refused(compiled(versions), "empty-catalogue", None)
    refused(compiled("llm_providers: {}\n" + versions), "empty-catalogue", 1)


def test_no_versions() -> None:
    refused(compiled(CATALOGUE[: CATALOGUE.index("llm_versions")]), "missing-key", None)


def test_host_outside_the_stack() -> None:
    groups = {"llm_local": ["one", "stray"], "llm_gateway": ["one"]}
    assert "stray" in refused(compiled(groups=groups), "host-outside-stack", 4)


def test_engine_whose_role_does_not_exist() -> None:
    text = change("type: llama_cpp", "type: llama_cpp\n    flavour: python")
    assert "cannot deploy llama_cpp (python) yet" in refused(compiled(text), "engine-unavailable", 5)
    assert compiled(text, groups={"llm_local": []}).errors == []


def test_exclusive_group() -> None:
    text = change(
        "  cloud:\n",
        "  other:\n    type: llama_cpp\n    group: llm_local\n    port: 9000\n    exclusive_group: gpu\n"
        "    models: [{name: other, source: {path: /x}}]\n  cloud:\n",
    )
    text = change("    port: 8080\n", "    port: 8080\n    exclusive_group: gpu\n", text)
    assert '"local" and "other"' in refused(compiled(text), "exclusive-group", 17)


def test_engine_that_a_gateway_elsewhere_cannot_reach() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_local": ["two"]}
    assert "set llm_address for two" in refused(compiled(groups=groups), "address-unusable", None)
    assert compiled(groups=groups, addresses={"two": "10.0.0.2"}).errors == []
    refused(compiled(groups=groups, addresses={"two": "127.0.0.1"}), "address-unusable", None)


def test_llm_address_must_be_one() -> None:
    refused(compiled(llm_address="gpu.example.org"), "address-unusable", None)


# -- variables ---------------------------------------------------------------------------------------------------


def test_unknown_variable() -> None:
    text = refused(compiled(CATALOGUE + "llm_overides: {gateway: {port: 1}}\n"), "unknown-variable", 30)
    assert 'did you mean "llm_overrides"?' in text


def test_secrets_must_be_a_mapping() -> None:
    assert "not a mapping" in refused(compiled(llm_secrets=["CLOUD_KEY"]), "invalid-value", None)


def test_unreadable_variable() -> None:
    base = inventory()
    host = Host(base.hosts["one"].variables, "one", {"llm_overrides": ("no attribute 'distribution'", None)})
    result = compile_inventory(Inventory(GROUPS, {"one": host}, base.secrets, probe))
    assert "cannot use facts" in refused(result, "unreadable-variable", None)


def test_differing_catalogues_name_both_places() -> None:
    groups = {**GROUPS, "llm_stack": ["one", "two", "three"]}
    mine = load(CATALOGUE)
    theirs = load(change("port: 8081", "port: 8082"), "other.yml")
    hosts = {"one": Host(mine, "one"), "two": Host(theirs, "two"), "three": Host(theirs, "three")}
    text = refused(
        compile_inventory(Inventory(groups, hosts, frozenset({"CLOUD_KEY"}), probe)),
        "differing-catalogues",
        11,
    )
    assert "other.yml:11:15" in text
    assert "llm.yml:11:15" in text
    assert "two, three" in text


def test_override_on_some_hosts_only() -> None:
    groups = {**GROUPS, "llm_stack": ["one", "two"]}
    mine = load(CATALOGUE)
    more = {**mine, **load("llm_overrides: {gateway: {port: 5000}}", "extra.yml")}
    hosts = {"one": Host(mine, "one"), "two": Host(more, "two")}
    text = refused(
        compile_inventory(Inventory(groups, hosts, frozenset({"CLOUD_KEY"}), probe)),
        "differing-catalogues",
        1,
    )
    assert "extra.yml:1" in text
    assert "(not defined)" in text


def test_every_code_is_tested_here() -> None:
    """A code that no test provokes may be one that nothing can provoke."""
    text = Path(__file__).read_text(encoding="utf-8") + (Path(__file__).parent / "test_overrides.py").read_text(
        encoding="utf-8"
    )
    assert [code for code in CODES if f'"{code}"' not in text] == []
