"""What YAML makes of a value without quotes: numbers in base 8 and 60, words for true and false,
dates. The rules are those of YAML 1.1 (yaml.org/type), which Ansible reads.

The source map says where a value stands, and `Written` gives the line of that place. Only what
looks like a number or one of a few words is ever repeated: other text may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from modelyard.catalogue.sourcemap import Origin, Path, SourceMap, is_list
from modelyard.diagnostics import Diagnostic, diagnose, variable_path
from modelyard.showing import names_secret, plainly

Written = Callable[[Origin], str]
"""The line of a file that a place is in; empty if it cannot be read."""

OCTAL = re.compile(r"[-+]?0[0-7_]*[0-7]")
SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_NUMBER = re.compile(r"[-+]?(?=[0-9.])[0-9a-fA-FxX_.:+-]+")
_WORDS: Mapping[bool | None, tuple[str, ...]] = {
    True: ("on", "yes", "true"),
    False: ("off", "no", "false"),
    None: ("~", "null"),
}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "tokens": {"k": 1024, "m": 1024**2},
    "seconds": {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
    "MiB": {
        **dict.fromkeys(("k", "kb", "kib"), 1 / 1024),
        **dict.fromkeys(("m", "mb", "mib"), 1),
        **dict.fromkeys(("g", "gb", "gib"), 1024),
        **dict.fromkeys(("t", "tb", "tib"), 1024**2),
    },
}
"""Suffixes that people write behind numbers, by the unit that the catalogue wants."""
_DIVISORS: Mapping[str, Mapping[str, float]] = {
    "seconds": {"milliseconds": 1000},
    "MiB": {"bytes": 1024**2, "KiB": 1024, "GiB": 1 / 1024},
    "GiB": {"bytes": 1024**3, "KiB": 1024**2, "MiB": 1024},
    "days": {"seconds": 86400, "hours": 24},
}
"""Other units of a number beside the one that the catalogue wants, by what divides them into it."""


def written(source: SourceMap, path: Path, value: object) -> str:
    """Return how `value`, which is at `path` or is its last key, was typed without quotes; empty if
    that is not known.
    """
    origin = source.origin(path)
    if origin is None or origin.encrypted or not origin.line or not origin.column:
        return ""
    line, column = source.line(origin), origin.column - 1
    # Booleans and null have no place of their own: theirs is that of their key, or for a key that
    # of its value.
    texts = [_word_at(line, column)]
    if before := re.search(r"([^\s{,]+)\s*:\s*$", line[:column]):
        texts.append(_word_at(before[1], 0))
    if after := re.match(r"[^\s:{\[]+:\s+", line[column:]):
        texts.append(_word_at(line, column + after.end()))
    return next((text for text in texts if _means(text, value)), "")


def _means(text: str, value: object) -> bool:
    """Return whether a word may have become `value`."""
    if value is None or isinstance(value, bool):
        return text.lower() in _WORDS[value]
    return text != "" and text.lower() not in {word for words in _WORDS.values() for word in words}


def is_quoted(source: SourceMap, path: Path) -> bool | None:
    """Return whether the text at `path` has quotes; None if that is not known."""
    origin = source.origin(path)
    if origin is None or origin.encrypted or not origin.line or not origin.column:
        return None
    begin = source.line(origin)[origin.column - 1 : origin.column]
    return begin in "\"'" if begin else None


def _word_at(line: str, column: int) -> str:
    word = re.match(r"[^\s,{}\[\]#]+", line[column:])
    text = word[0].removesuffix(":") if word else ""
    is_word = any(text.lower() in words for words in _WORDS.values())
    return text if is_word or _NUMBER.fullmatch(text) else ""


def misread(source: SourceMap, path: Path, value: object) -> tuple[str, str]:
    """Return what a number at `path` is that looks like another one, and what to write instead:
    `04100` is 2112, `12:30` is 750. Both are empty for other values.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "", ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number", "write a number"
    text = written(source, path, value)
    clear = text.replace("_", "").lstrip("0") or "0"
    if OCTAL.fullmatch(text) and str(value) != clear:
        as_what = f"YAML reads {text} as a number in base 8, {value}"
        return as_what, f"write {clear}, or {value} if that is meant"
    if SEXAGESIMAL.fullmatch(text):
        as_what = f"YAML reads {text} as a number in base 60, {value}"
        return as_what, f"write {value} if that is meant"
    return "", ""


def check_numbers(source: SourceMap, told: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Refuse numbers that are others than they look like, but for those that `told` is about."""
    known = {one.path for one in told}
    found = []
    for path, value in _numbers(source.tree, ()):
        if variable_path(path) in known:
            continue
        problem, hint = misread(source, path, value)
        if problem and names_secret(path):
            problem, hint = "YAML reads this as another number", "put it in quotes"
        if problem:
            last = f"{path[-2]}[{path[-1]}]" if isinstance(path[-1], int) else path[-1]
            found.append(diagnose(source, "invalid-value", f"{last}: {problem}", path, hint))
    return found


def _numbers(node: Any, path: Path) -> Iterator[tuple[Path, int | float]]:
    if isinstance(node, Mapping):
        for key, child in node.items():
            yield from _numbers(child, (*path, key))
    elif is_list(node):
        for position, child in enumerate(node):
            yield from _numbers(child, (*path, position))
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, node


def read_as(value: object, text: str) -> str:
    """Return the beginning of a hint, what YAML made of `text`; empty where that is plain."""
    if isinstance(value, date):
        return f"YAML reads {text or plainly(value)} as a date: "
    if text in ("", plainly(value)):
        return ""
    what = "" if value is None or isinstance(value, bool) else "the number "
    return f"YAML reads {text} as {what}{plainly(value)}: "


def in_quotes(value: object, text: str) -> str:
    """Return the hint for a value that should be text; `text` is how it was typed, if known."""
    if value is None:
        return 'write text; nothing, ~ and null without quotes are null ("~" is text)'
    if not isinstance(value, int | float | date):
        return ""
    if isinstance(value, bool) and not text:
        return f"YAML reads {', '.join(_WORDS[value])} as {plainly(value)}: put it in quotes"
    return f"{read_as(value, text)}put it in quotes" + (f': "{text}"' if text else "")


def as_number(value: str, unit: str, example: object, *, quoted: bool | None) -> str:
    """Return the hint for text where a number is wanted, in `unit` (empty if it has none)."""
    if re.fullmatch(r"0|[1-9][0-9]*(\.[0-9]+)?", value):
        return "write the number without quotes"
    number = _plain_number(value)
    if number is not None:
        reads = "" if quoted else f"YAML reads {value} as text: "
        return (
            f"{reads}write {number:g}" if number != int(number) else f"{reads}write {int(number)}"
        )
    suffix = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{1,8})", value)
    factor = _UNITS.get(unit, {}).get(suffix[2].lower()) if suffix else None
    if suffix and factor:
        number = float(suffix[1]) * factor
        example = int(number) if number == int(number) else number
    reads = f"YAML reads {value} as text: " if suffix and quoted is False else ""
    of = f" of {unit}" if unit else ""
    return f"{reads}write the number{of} without a unit, such as {example}"


def in_unit(value: float, unit: str, accepts: Callable[[int], bool]) -> str:
    """Return the hint for a number that is too large or too small: what it would be in `unit` if
    it is in another one. Empty if nothing that `accepts` takes comes of that.
    """
    meant = ((int(value // by), name) for name, by in _DIVISORS.get(unit, {}).items())
    fits = [f"{number} if that is {name}" for number, name in meant if accepts(number)]
    return f"write {', or '.join(fits)}" if fits else ""


def _plain_number(value: str) -> float | None:
    """Return the number that text like `1e3`, `08080`, `1,000` or `0o17` stands for."""
    if re.fullmatch(r"0o[0-7]+", value):
        return int(value, 8)
    text = re.sub(r"[,_'\s](?=[0-9]{3})", "", value)
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?", text) else None
