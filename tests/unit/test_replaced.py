"""A section of the inventory that takes the place of the shipped one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from catalogues import CATALOGUE, inventory, load, places, probe

from modelyard.compile import Compiled, compile_inventory

SHIPPED = load(CATALOGUE, "shipped.yml")


def compiled(text: str) -> Compiled:
    """Compile the shipped catalogue with the variables of an inventory in place of its own."""
    mine = load(text)
    shipped = {str(name): (SHIPPED[name], probe(name)) for name in mine if name in SHIPPED}
    return compile_inventory(replace(inventory(**{**SHIPPED, **mine}), shipped=shipped))


def test_the_one_error_is_at_the_line_of_the_user() -> None:
    told = compiled(
        "llm_providers:\n  corp: {type: openai_compatible, base_url: https://e.org/v1, models: [{name: a}]}"
    )
    assert places(told) == [("section-replaced", 1)], [one.render() for one in told.errors]
    text = told.errors[0].render()
    assert "llm.yml:1:1: " in text
    assert "llm_providers replaces the shipped one whole" in text
    assert "not listed" in text
    assert "llm_overrides: {providers: {...}}" in text


def test_errors_of_the_same_file_come_after_it() -> None:
    told = compiled("llm_providers:\n  local: {port: 8082}\n  cloud: {prot: 1}")
    assert places(told)[0] == ("section-replaced", 1)
    assert ("unknown-key", 3) in places(told)
    assert {one.origin.file for one in told.errors if one.origin} == {"llm.yml"}


def test_a_warning_that_follows_is_left_out() -> None:
    """About the group of a provider that is gone."""
    mine = load(
        "llm_providers:\n  corp: {type: openai_compatible, base_url: https://e.org/v1, models: [{name: a}]}"
    )
    base = load(CATALOGUE.replace("llm_local", "llm_vllm_llama"), "shipped.yml")
    given = inventory(**{**base, **mine})
    told = compile_inventory(
        replace(
            given,
            groups={**given.groups, "llm_vllm_llama": ["one"]},
            shipped={str(name): (base[name], probe(name)) for name in mine},
        )
    )
    assert places(told) == [("section-replaced", 1)]
    assert "unknown-group" not in {one.code for one in told.diagnostics}


def test_a_valid_section_that_lacks_something_is_warned_of() -> None:
    told = compiled("llm_routing:\n  aliases: {chat: small}")
    assert not told.errors
    assert ("section-replaced", 1) in places(told, "warning")
    assert told.warnings[0].code == "section-replaced"
    assert told.plans


@pytest.mark.parametrize(
    "text",
    [
        "llm_gateway: {port: 4100}",
        "llm_monitoring: false",
        "llm_clients: {app: {secret: APP_KEY}}",
        # A catalogue of one's own.
        "llm_providers: {corp: {type: openai_compatible, base_url: https://e.org/v1, models: [{name: a}]}}\n"
        "llm_routing: {fallbacks: {a: {terminal: true}}}\n"
        'llm_versions: {litellm: {version: "1.106.2"}}',
        # All that the shipped section has, and more.
        "llm_routing: {fallbacks: {'large:7b': {chain: [small]}, small: {terminal: true},"
        " big-cloud: {terminal: true}}}",
    ],
)
def test_what_lacks_nothing_is_accepted(text: str) -> None:
    told = compiled(text)
    assert not told.errors, [one.render() for one in told.errors]
    assert "section-replaced" not in [one.code for one in told.diagnostics]


def test_mistakes_that_do_not_follow_from_it_stay_what_they_are() -> None:
    told = compiled("llm_routing:\n  fallbacks: {small: {chain: [bgi-cloud]}}")
    assert places(told) == [("unknown-model", 2)]
    assert ("section-replaced", 1) in places(told, "warning")
