"""Keys that JSON text has twice. Ansible takes the last one without a word; YAML's it refuses."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_COLON = re.compile(r"\s*:")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')


class Repeated(NamedTuple):
    """A key that an object has twice, and where the second one is (from 1)."""

    key: str
    line: int
    column: int


def repeated_key(text: str) -> Repeated | None:
    """Return the first key that an object of JSON text has twice; None if none is, or if the text
    is no JSON.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    around: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "{[":
            around.append(set())
        elif word in "}]":
            around.pop()
        elif _COLON.match(text, token.end()):
            key = json.loads(word)
            if key in around[-1]:
                begin = text.rfind("\n", 0, token.start()) + 1
                line = text.count("\n", 0, token.start()) + 1
                return Repeated(key, line, token.start() - begin + 1)
            around[-1].add(key)
    return None
