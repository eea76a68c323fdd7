"""A key twice in JSON text: Ansible takes the last one without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from catalogues import ROOT
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalogue.repeated import Repeated, repeated_key

OURS = ("group_vars", "inventories", "molecule", "playbooks", "plugins", "roles", "tests")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "a": 2}', Repeated("a", 1, 10)),
        ('{"b": {"a": 1,\n  "a": 2}}', Repeated("a", 2, 3)),
        ('[{"a": 1}, {"a": 1, "a" : 1}]', Repeated("a", 1, 21)),
        ('{"a": 1, "\\u0061": 2}', Repeated("a", 1, 10)),
        ('{"a": {"x": 1}, "b": {"x": 1}}', None),
        ('{"a": "a", "b": ["a", "a"]}', None),
        ('{"a": "{\\"a\\": 1, \\"a\\": 2}"}', None),
        ('{"a": 1, "a": 2', None),
        ("a: 1\na: 2\n", Repeated("a", 2, 1)),
        ("b: {c: 1}\na: [{x: 1,\n  x: 2}]\n", Repeated("x", 3, 3)),
        ("yes: 1\ntrue: 2\n", Repeated("true", 2, 1)),
        ("a: 1\n'a': 2\n", Repeated("a", 2, 1)),
        ("1: a\n'1': b\n", None),
        ("d: &d {a: 1, b: 2}\ne: {<<: *d, a: 3}\nf: {a: 1, <<: *d}\n", None),
        ("d: &d {a: 1}\ne: {<<: *d, a: 3, a: 4}\n", Repeated("a", 2, 19)),
        ("d: &d {a: 1}\ne: &e {b: 1}\nf: {<<: *d, <<: *e}\n", None),
        ("d: &d {a: 1, a: 2}\ne: *d\n", Repeated("a", 1, 14)),
        ("d: &d\n  e: *d\n", None),
        ("a: !vault |\n  x\nb: !mine {a: 1, a: 2}\n", Repeated("a", 3, 17)),
        ("? [a]\n: 1\n? [a]\n: 2\n", None),
        ("a: {b: 1\n", None),
        ("[llm_stack]\none a=1\none a=2\n", None),
        ("a=1 a=2", None),
        ("", None),
    ],
)
def test_a_key_twice(text: str, found: Repeated | None) -> None:
    assert repeated_key(text) == found


def test_no_yaml_of_ours_has_a_key_twice() -> None:
    """Ansible does not look at it any more."""
    for file in [
        *ROOT.glob("*.yml"),
        *(file for name in OURS for file in ROOT.glob(f"{name}/**/*.yml")),
    ]:
        assert repeated_key(file.read_text(encoding="utf-8")) is None, file


def test_text_of_a_subclass() -> None:
    """The parser in C takes none, and Ansible's texts are of one."""

    class Tagged(str):
        pass

    assert repeated_key(Tagged("x=1")) is None
    assert repeated_key(Tagged("a: 1\na: 2\n")) == Repeated("a", 2, 1)


@given(
    st.recursive(
        st.text(max_size=3) | st.integers() | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        ),
    )
)
def test_what_was_written_from_a_mapping_has_none(value: Any) -> None:
    assert repeated_key(json.dumps(value, indent=1)) is None
