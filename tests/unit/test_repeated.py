"""A key twice in JSON text: Ansible takes the last one without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalogue.repeated import Repeated, repeated_key


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
        ("a: 1\na: 2\n", None),
        ("a=1 a=2", None),
        ("", None),
    ],
)
def test_a_key_twice(text: str, found: Repeated | None) -> None:
    assert repeated_key(text) == found


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
