"""Words of systemd's command lines."""

from __future__ import annotations

import pytest

from modelyard.output.systemd import systemd_word


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
