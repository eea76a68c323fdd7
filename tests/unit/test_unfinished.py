"""What was not finished, or is a name for two things: variables with nothing below them, names that
are keys, names that a person takes for another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from catalogues import CATALOGUE, change, compiled, inventory, refused

from modelyard.compile import Compiled, compile_inventory

KEYS = ("sk-abcdef0123456789abcdef", "9f86d081884c7d659a2feaa0c55ad015")


def with_null(variable: str) -> Compiled:
    given = inventory()
    host = given.hosts["one"]
    values: dict[str, Any] = {**host.variables, variable: None}
    return compile_inventory(replace(given, hosts={"one": replace(host, variables=values)}))


@pytest.mark.parametrize(
    ("variable", "severity", "hint"),
    [
        ("llm_gpus", "error", "write llm_gpus: [{memory_mib: 24576}], or []"),
        ("llm_address", "error", "write the address"),
        ("llm_clients", "error", "write llm_overrides: {clients: {...}}; or remove this line"),
        ("llm_gateway", "error", "write llm_overrides: {gateway: {...}}"),
        ("llm_monitoring", "error", "write false for no monitoring; or remove this line"),
        ("llm_routing", "error", "write llm_overrides: {routing: {...}}"),
        ("llm_versions", "error", "write llm_overrides: {versions: {...}}"),
        ("llm_overrides", "warning", "indent what belongs below it"),
        ("llm_overrides_site", "warning", "indent what belongs below it"),
        ("llm_secrets", "warning", "indent what belongs below it"),
    ],
)
def test_a_variable_with_nothing_below_it(variable: str, severity: str, hint: str) -> None:
    told = [one for one in with_null(variable).diagnostics if "has nothing below" in one.message]
    assert [(one.severity, one.path) for one in told] == [(severity, (variable,))]
    assert hint in told[0].hint


def test_what_may_be_null_or_a_template_gave_is_not_told() -> None:
    for variable in ("llm_report", "llm_allow_removal", "llm_environment"):
        assert not with_null(variable).diagnostics
    given = inventory()
    host = given.hosts["one"]
    raw = {**host.variables, "llm_gpus": "{{ gpus | default(none) }}"}
    values = {**host.variables, "llm_gpus": None}
    changed = replace(given, hosts={"one": replace(host, variables=values, raw=raw)})
    assert not compile_inventory(changed).diagnostics


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("llm_versions:", "llm_clients: {KEY: {secret: A_KEY}}\nllm_versions:"),
        ("llm_versions:", "llm_clients: {KEY: {}}\nllm_versions:"),
        ("  cloud:\n", "  KEY:\n"),
    ],
)
def test_a_key_for_a_name(key: str, old: str, new: str) -> None:
    result = compiled(change(old, new.replace("KEY:", f"{key}:")))
    told = [one for one in result.errors if "looks like a key" in one.message]
    assert len(told) == 1
    assert "give the name of the secret below it" in told[0].hint
    assert not any(key in one.render() for one in result.diagnostics)


def test_a_key_for_the_name_of_a_model() -> None:
    text = CATALOGUE.replace("big-cloud", KEYS[0])
    result = compiled(text)
    assert any("looks like a key" in one.message for one in result.errors)
    assert not any(KEYS[0] in one.render() for one in result.diagnostics)


@pytest.mark.parametrize("name", ["chat-app", "team-a1", "ci-2024-11", "sk-app", "gpt4all-client"])
def test_names_of_clients_that_are_no_keys(name: str) -> None:
    text = change("llm_versions:", f"llm_clients: {{{name}: {{secret: A_KEY}}}}\nllm_versions:")
    assert not compiled(text).errors


def named(alias: str, target: str = "big-cloud") -> list[str]:
    text = change("llm_routing:\n", f'llm_routing:\n  aliases: {{"{alias}": {target}}}\n')
    return [one.message for one in compiled(text).warnings if one.code == "shadowed-name"]


@pytest.mark.parametrize("alias", ["Small", "SMALL", "small:latest", "big_cloud"])
def test_a_name_that_is_taken_for_another(alias: str) -> None:
    target = "small" if alias.startswith("big") else "big-cloud"
    (message,) = named(alias, target)
    assert f'"{alias}" is easily taken for "' in message


def test_an_alias_may_be_like_its_own_model() -> None:
    assert named("Small", "small") == []
    assert named("small:latest", "small") == []
    assert named("small-chat") == []


def test_two_models_that_are_taken_for_one() -> None:
    text = change("- name: big-cloud", "- name: big-cloud\n      - name: Big_Cloud")
    text = change(
        "big-cloud: {terminal: true}",
        "big-cloud: {terminal: true}\n    Big_Cloud: {terminal: true}",
        text,
    )
    (told,) = [one for one in compiled(text).diagnostics if one.code == "shadowed-name"]
    assert told.origin
    assert told.origin.line == 18


def test_hints_name_a_place_of_the_users_own() -> None:
    text = CATALOGUE[: CATALOGUE.index("  llama_cpp:\n    version")]
    told = refused(compiled(text), "missing-key", 26)
    assert "{versions: {llama_cpp: {version: ...}}} in group_vars/llm_stack/" in told


CHAINS = CATALOGUE[CATALOGUE.index("  fallbacks:\n") : CATALOGUE.index("llm_gateway:")]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (CHAINS, "  fallbacks: [{small: [big-cloud]}]\n", 19),
        ("  port: 4000\n", "  redis: [6380]\n", 24),
    ],
)
def test_an_override_does_not_hide_a_wrong_shape_below_it(old: str, new: str, line: int) -> None:
    over = {
        "routing": {"fallbacks": {"small": {"terminal": True}}},
        "gateway": {"redis": {"port": 6380}},
    }
    told = compiled(change(old, new), llm_overrides_card=over).errors[0]
    assert told.origin
    assert (told.code, told.origin.line) == ("invalid-value", line)
    assert "must be a mapping, not a list" in told.message


def test_no_monitoring_in_an_override() -> None:
    told = compiled(llm_overrides={"monitoring": False}).errors[0]
    assert told.hint == "write llm_monitoring: false, outside of the overrides"
