"""Words of systemd's command lines."""

from __future__ import annotations

import pytest

from modelyard.output.systemd import fill_words, systemd_word


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("--threads", "--threads"),
        ("/srv/models/a+b@c,d=1:2.gguf", "/srv/models/a+b@c,d=1:2.gguf"),
        ("", '""'),
        ("two words", '"two words"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('a "quote"', r'"a \"quote\""'),
        ("back\\slash", r'"back\\slash"'),
        ("grüße.gguf", '"grüße.gguf"'),
    ],
)
def test_word(word: str, written: str) -> None:
    assert systemd_word(word) == written


def test_placeholders_become_any_number_of_words() -> None:
    given = {"@MODEL@": ["/a b.gguf"], "@GPU@": [], "@ADAPTERS@": ["x=/x", "y=/y"]}
    words = ["--model", "@MODEL@", "@GPU@", "@ADAPTERS@", "@KEY_FILE@"]
    assert fill_words(words, given) == ["--model", "/a b.gguf", "x=/x", "y=/y", "@KEY_FILE@"]
