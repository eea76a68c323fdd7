"""Keys that JSON or YAML text has twice. Ansible takes the last one without a word: its own check
of YAML also counts what `<<` merges, which is there to be overridden, so `ansible.cfg` has it off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

_COLON = re.compile(r"\s*:")
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')


class Repeated(NamedTuple):
    """A key that an object has twice, and where the second one is (from 1)."""

    key: str
    line: int
    column: int


def repeated_key(text: str) -> Repeated | None:
    """Return the first key that a mapping of JSON or YAML text has twice; None if none is, or if
    the text is neither. It may be a subclass of `str`, as Ansible's texts are.
    """
    text = str.__str__(text)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return next(_of_yaml(text), None)
    return _of_json(text)


def _of_yaml(text: str) -> Iterator[Repeated]:
    """Yield the keys that a mapping of YAML text has twice."""
    try:
        waiting = [yaml.compose(text, _LOADER)]
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
            continue
        keys: set[Any] = set()
        for key, _value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (name := _constructed(key)) in keys:
                    mark = key.start_mark
                    yield Repeated(key.value, mark.line + 1, mark.column + 1)
                keys.add(name)
        waiting += [value for _key, value in reversed(node.value)]


def _constructed(key: yaml.ScalarNode) -> Any:
    """Return the key as Ansible has it: `yes` and `true` are one. One of a tag that only Ansible
    knows is its text.
    """
    if key.tag == _TEXT:
        return key.value
    try:
        return yaml.constructor.SafeConstructor().construct_object(key)
    except (yaml.YAMLError, ValueError):
        return key.tag, key.value


def _of_json(text: str) -> Repeated | None:
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
