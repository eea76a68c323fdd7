"""Names that clients ask for: what the gateway or a reader takes for something else is refused."""

from __future__ import annotations

import pytest
from catalogues import change, compiled, refused
from pydantic import TypeAdapter, ValidationError

from modelyard.kinds import AbsolutePath, FileName, Tag


@pytest.mark.parametrize(
    "name",
    [
        "qwen2.5-coder:7b",
        "@cf/meta/llama-3",
        "accounts/fireworks/models/x",
        "ft:gpt-4o-mini:org::id",
        "hf.co/owner/repo:Q4_K_M",
        "model+adapter",
        "gpt-4o@2024",
        "naïve",
        "a(b)",
        "a#b",
        "default",
        "1",
    ],
)
def test_names_in_use_are_accepted(name: str) -> None:
    assert (
        compiled(
            change("name: big-cloud", f'name: "{name}"')
            .replace("    big-cloud: {terminal: true}", f'    "{name}": {{terminal: true}}')
            .replace("big-cloud]", f'"{name}"]')
        ).errors
        == []
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("small,large:7b", "for several names"),
        ("{{m}}", "Ansible fills in templates in values"),
        ("{x}", "Ansible fills in"),
        ("${MODEL}", "Ansible fills in"),
        ("<model>", "placeholder"),
        ("gpt-*", "for a pattern"),
        ("*", "for a pattern"),
        ("smal\\u200bl", "U+200B (ZERO WIDTH SPACE)"),
        ("smal\\u200dl", "U+200D (ZERO WIDTH JOINER)"),
        ("\\ufeffsmall", "U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        ("sm\\u00adall", "U+00AD (SOFT HYPHEN)"),
        ("sm\\u202eall", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("sm\\u0430ll", "U+0430 (CYRILLIC SMALL LETTER A)"),
        ("\\u03bfpen", "U+03BF (GREEK SMALL LETTER OMICRON)"),
        ("\\uff41bc", "U+FF41 (FULLWIDTH LATIN SMALL LETTER A)"),
        ("nai\\u0308ve", "U+0308 (COMBINING DIAERESIS)"),
        ("qwen\\u00a0x", "U+00A0 (NO-BREAK SPACE)"),
        ("qwen\\u20117b", "U+2011 (NON-BREAKING HYPHEN)"),
        ("模型", "U+6A21"),
        ("a\\tb", "U+0009 (a control character)"),
        (" small", "white space"),
        ("small ", "white space"),
        ("-small", "does not begin with -"),
        ("a'b", "quotes"),
        ("", "is not empty"),
    ],
)
def test_names_that_are_taken_for_something_else(name: str, says: str) -> None:
    for text in (
        change("name: big-cloud", f'name: "{name}"'),
        change("name: big-cloud", f'name: big-cloud\n        served_name: "{name}"'),
        change("llm_routing:\n", f'llm_routing:\n  aliases: {{"{name}": small}}\n'),
        change(
            "llm_routing:\n", f'llm_routing:\n  capabilities: {{"{name}": {{models: [small]}}}}\n'
        ),
    ):
        told = [one for one in compiled(text).errors if one.code == "invalid-value"]
        assert says in told[0].message
        assert told[0].hint
        assert told[0].origin


def test_a_character_nobody_sees_is_shown_where_it_is() -> None:
    text = change("name: big-cloud", 'name: big-cloud\n        served_name: "b\\u200big"')
    assert "'b\\u200big'" in refused(compiled(text), "invalid-value", 18)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AbsolutePath, "/srv/model.gguf "),
        (AbsolutePath, "/srv/mod\u200bel.gguf"),
        (FileName, "mod\ufeffel.gguf"),
        (Tag, "e\u200bu"),
        (Tag, "é"),
    ],
)
def test_other_text_has_no_unseen_characters_either(kind: object, value: str) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(kind)
    with pytest.raises(ValidationError):
        adapter.validate_python(value)


def test_paths_and_tags_in_use_are_accepted() -> None:
    for kind, value in ((AbsolutePath, "/"), (AbsolutePath, "/srv/ä b/c.gguf"), (Tag, "eu:1")):
        assert TypeAdapter(kind).validate_python(value) == value


SECOND = """\
  second:
    type: KIND
    group: llm_local
    port: 8090
    models:
      - {name: small, weight: 1, source: {path: /models/other}HOSTS}
  cloud:
"""


def shared(kind: str = "llama_cpp", hosts: str = "", first: str = "") -> str:
    text = change("- name: small", f"- name: small\n        weight: 1{first}")
    return change("  cloud:\n", SECOND.replace("KIND", kind).replace("HOSTS", hosts), text)


def test_one_public_name_of_two_providers_on_one_host() -> None:
    """They would be one unit, and the second deployment an address where nobody listens."""
    text = refused(compiled(shared()), "duplicate-model", 18)
    assert '"small" is a model of "local" and of "second" on one' in text
    assert "keep them apart with hosts: [...]" in text


def test_one_public_name_of_two_providers_on_two_hosts() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_local": ["one", "two"]}
    addresses = {"one": "10.0.0.1", "two": "10.0.0.2"}
    text = shared(hosts=", hosts: [two]", first="\n        hosts: [one]")
    assert compiled(text, groups=groups, addresses=addresses).errors == []


def test_one_public_name_of_two_kinds_of_engines_on_one_host() -> None:
    """Their units have different names."""
    result = compiled(change("  litellm:", "  vllm: {version: 0.32.0}\n  litellm:", shared("vllm")))
    assert "duplicate-model" not in [one.code for one in result.errors]
