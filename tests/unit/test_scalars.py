"""YAML's traps: what YAML made of a value without quotes is said, and how to write it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from catalogues import CATALOGUE, change, inventory, load, places, refused

from modelyard.compile import Compiled, compile_inventory

GPU = [{"memory_mib": 24564}]


def compiled(text: str) -> Compiled:
    """Compile a catalogue whose lines can be read, as the controller can."""
    lines = text.splitlines()
    given = inventory(text, llm_gpus=GPU)
    return compile_inventory(replace(given, line=lambda origin: lines[(origin.line or 1) - 1]))


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("port: 4000", "port: 04100", 24, "YAML reads 04100 as a number in base 8, 2112"),
        ("port: 4000", "port: 04100", 24, "write 4100, or 2112 if that is meant"),
        ("port: 4000", "port: 0200000", 24, "write 200000, or 65536"),
        ("port: 4000", "timeouts: {request_s: 12:30}", 24, "reads 12:30 as a number in base 60, 750"),
        ("port: 4000", "timeouts: {request_s: 1:0.5}", 24, "base 60, 60.5"),
        ("port: 4000", "cooldown_s: 1_0:00", 24, "base 60, 600"),
        ("port: 4000", "cooldown_s: .inf", 24, "inf is no number"),
        ("port: 4000", "cooldown_s: .nan", 24, "nan is no number"),
        ("port: 8081", "port: 8081\n        options: {x: .nan}", 12, "nan is no number"),
        ("port: 8081", "port: 8081\n        options: {x: 010}", 12, "write 10, or 8"),
        ("port: 8081", "port: 8081\n        vram_mib: 06000", 12, "write 6000, or 3072"),
        ("port: 4000", "timeouts: {request_s: 1, 5: ~}", 24, "a key must be text, not 5"),
        ("port: 4000", "timeouts: {request_s: 1, 5: ~}", 24, "a comma begins a new entry"),
        ("port: 4000", "port: 1e3", 24, "YAML reads 1e3 as text: write 1000"),
        ("port: 4000", "port: 08080", 24, "YAML reads 08080 as text: write 8080"),
        ("port: 4000", "port: '0o17'", 24, "write 15"),
        ("port: 4000", "port: '4100'", 24, "write the number without quotes"),
        ("port: 4000", "port: '1e3'", 24, "hint: write 1000"),
        ("port: 4000", "port: on", 24, "YAML reads on as true: write a number"),
        ("port: 4000", "port: 4100.0", 24, "hint: write 4100"),
        ("port: 4000", "port: 2026-11-30", 24, "YAML reads 2026-11-30 as a date"),
        ("port: 4000", "cooldown_s: 30s", 24, "the number of seconds without a unit, such as 30"),
        ("port: 4000", "cooldown_s: '5m'", 24, "such as 300"),
        ("port: 4000", "cooldown_s: 1.5h", 24, "such as 5400"),
        ("port: 8081", "port: 8081\n        context_length: 32k", 12, "number of tokens without a unit, such as 32768"),
        ("port: 8081", "port: 8081\n        vram_mib: 8GB", 12, "number of MiB without a unit, such as 8192"),
        ("port: 8081", "port: 8081\n        context_length: many", 12, "such as 8192"),
        ('"1.106.2"', "1.10", 26, 'YAML reads 1.10 as the number 1.1: put it in quotes: "1.10"'),
        ("- name: big-cloud", "- name: 1:30", 17, 'YAML reads 1:30 as the number 90: put it in quotes: "1:30"'),
        ("- name: big-cloud", "- name: no", 17, 'YAML reads no as false: put it in quotes: "no"'),
        ("- name: big-cloud", "- name: ~", 17, '"~" is text'),
        ("- name: big-cloud", "- name: 2026-11-30", 17, "as a date: put it in quotes"),
        ("type: openai", "type: openai\n    status: on", 14, "YAML reads on as true: one of active, disabled"),
        ("port: 4000", "cache: {enabled: 'yes'}", 24, "write true or false without quotes"),
    ],
)  # fmt: skip
def test_what_yaml_made_of_a_value(old: str, new: str, line: int, says: str) -> None:
    result = compiled(change(old, new))
    told = [one for one in result.errors if one.origin and one.origin.line == line]
    assert len({one.path for one in told}) == len(told) == 1, [one.render() for one in told]
    assert says in told[0].render()
    assert result.plans == {}


@pytest.mark.parametrize(
    ("key", "shown", "says"),
    [
        ("on", "[true]", 'YAML reads on as true: put it in quotes: "on"'),
        ("off", "[false]", 'put it in quotes: "off"'),
        ("~", "[null]", '"~" is text'),
        ("12:30", "[750]", 'YAML reads 12:30 as the number 750: put it in quotes: "12:30"'),
        ("3.10", '["3.1"]', 'YAML reads 3.10 as the number 3.1: put it in quotes: "3.10"'),
        ("2026-11-30", '["2026-11-30"]', "as a date"),
    ],
)
def test_what_yaml_made_of_a_key(key: str, shown: str, says: str) -> None:
    text = change("    small: {chain", f"    {key}: {{terminal: true}}\n    small: {{chain")
    told = refused(compiled(text), "invalid-value", 21)
    assert f"llm_routing.fallbacks{shown}" in told
    assert "a name in llm_routing.fallbacks must be text" in told
    assert says in told


@pytest.mark.parametrize("number", ["4_100", "0x1004", "+4100", "0b1000000000100"])
def test_numbers_that_look_like_what_they_are(number: str) -> None:
    assert compiled(change("port: 4000", f"port: {number}")).errors == []


def test_numbers_of_hosts_are_read_the_same_way() -> None:
    numbers = "  - {memory_mib: 024564}"
    gpus = load(f"llm_gpus:\n{numbers}\n", "host.yml")["llm_gpus"]
    given = replace(
        inventory(llm_gpus=gpus), line=lambda origin: numbers if origin.file == "host.yml" else ""
    )
    text = refused(compile_inventory(given), "invalid-value", 2)
    assert "write 24564, or 10612" in text


def test_what_may_be_a_secret_is_not_repeated() -> None:
    """A line that a place is in may hold anything: only numbers and YAML's own words are shown."""
    text = change("api_key_env: CLOUD_KEY", "api_key_env: 'sk-4f0c0ffee'")
    told = compiled(text)
    assert places(told) == [("invalid-value", 15)]
    assert "4f0c0ffee" not in told.errors[0].render()
    assert CATALOGUE.count("CLOUD_KEY") == 1
