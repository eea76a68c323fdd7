"""What of a value may be shown in a message, a hint or a path: the one place that decides it.

A key that somebody put into a wrong place ends in terminals, logs of CI and tickets if a message
repeats it. Text is shown only where a value of the kind expected could look like it. `Diagnostic`
sends all its texts through `censored`, for what reaches them by another way.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

HIDDEN = "(not shown)"

VALUE = "(a value of llm_secrets)"
"""Stands in the catalogue instead of a secret's value where its name belongs."""

NAMES_OF_SECRETS = ("api_key_env", "token_env", "password_env", "secret")
"""Keys of the catalogue that may contain a secret itself by mistake."""

_ADDRESSES = frozenset({"registry", "smarthost", "listen", "origins", "llm_address"})
"""Keys whose values are addresses: what stands before an @ there is not shown."""

_FREE = frozenset({"options", "cmake_options", "environment"})
"""Keys below which any text may stand, a key of an API, too."""

_CHECKSUMS = frozenset({"sha256", "revision"})
_SECRET_WORD = re.compile(
    r"(?:^|[_-])(?:api_?key|key|token|secret|password|passwd|credentials?|auth)(?:$|[_-])"
)
_KEY = re.compile(
    # Prefixes of keys that services give out, ...
    r"(?<![A-Za-z0-9_-])(?:sk-|[sr]k_(?:live|test)_|glpat-|whsec_)[A-Za-z0-9_-]{4,}"
    r"|(?<![A-Za-z0-9_-])(?:xai|nvapi|pplx|gsk)[-_][A-Za-z0-9]{20,}"
    r"|(?<![A-Za-z0-9])(?:hf|r8|npm|gh[oprsu]|github_pat)_(?=[A-Za-z_]*[A-Z0-9])[A-Za-z0-9_]{4,}"
    r"|(?<![A-Za-z0-9])xox[a-z]-[A-Za-z0-9-]+|(?<![A-Za-z0-9])(?:AKIA|ASIA|AIza)[A-Za-z0-9_-]{8,}"
    r"|(?<![A-Za-z0-9])eyJ[A-Za-z0-9_.-]{6,}"
    # ... the header that carries one, ...
    r"|\bBearer\s+[^\s'\"]+"
    # ... the path of a webhook, which is its password, ...
    r"|(?<=hooks\.slack\.com/)[^\s'\"]+|(?<=/api/webhooks/)[^\s'\"]+|(?<=telegram\.org/)[^\s'\"]+"
    # ... and what a URL has before its host.
    r"|(?<=//)[^\s/'\"@]+(?=@)"
)
_QUERY = re.compile(r"(://[^\s?#'\"]+)[?#][^\s'\"]+")
_RUN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{20,}(?![A-Za-z0-9])")
_LONGEST = 64
"""Characters of text that is shown: names, versions and paths are rarely longer."""


def names_secret(path: Iterable[str | int]) -> bool:
    """Return whether the last name in a path is that of a secret."""
    last = next((part for part in reversed(tuple(path)) if isinstance(part, str)), "")
    return last in NAMES_OF_SECRETS or _SECRET_WORD.search(last.casefold()) is not None


def looks_secret(text: str) -> bool:
    """Return whether something in a text looks like a key, by its prefix or its letters."""
    return _KEY.search(text) is not None or any(_is_random(run[0]) for run in _RUN.finditer(text))


def begins_as_key(text: str) -> bool:
    """Return whether a text is a key by its prefix. Names of models may look random, as those of
    fine-tuned ones do.
    """
    return len(text) >= 20 and _KEY.fullmatch(text) is not None


def _is_random(run: str) -> bool:
    """Return whether letters and digits change as no name's do."""
    classes = re.sub(r"[A-Z]", "A", re.sub(r"[a-z]", "a", re.sub(r"[0-9]", "0", run)))
    changes = sum(one != two for one, two in pairwise(classes))
    numbers = len(re.findall("0+", classes))
    if re.fullmatch("[0-9a-f]{24,}", run):
        return changes >= 6
    return numbers >= 5 or (numbers >= 2 and changes * 2 >= len(run))


def censored(text: str) -> str:
    """Return a sentence without what looks like a key, a password in a URL or a URL's query.

    Checksums and commits stay: they are hexadecimal, and have 64 or 40 digits.
    """
    text = _QUERY.sub(r"\1...", text)
    text = _KEY.sub(HIDDEN, text)
    return _RUN.sub(
        lambda run: (
            run[0]
            if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", run[0]) or not _is_random(run[0])
            else HIDDEN
        ),
        text,
    )


def plainly(value: Any) -> str:
    """Return a value as YAML writes it. Only for what is known to be no secret."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return value.isoformat() if isinstance(value, date) else repr(value)


def shown(value: object, path: tuple[str | int, ...], expected: Iterable[str] = ()) -> str:
    """Return what a message says of a wrong value at `path`.

    `expected` are the kinds of values that would be right, as pydantic calls them: of text where a
    mapping or a list is wanted, only the kind is told.
    """
    kinds = {*expected}
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    if value is None or isinstance(value, bool):
        return plainly(value)
    if names_secret(path):
        return HIDDEN if isinstance(value, str) else "a number"
    if kinds & {"list_type", "dict_type", "model_type", "mapping_type"}:
        if isinstance(value, str):
            return "text"
        return plainly(value) if isinstance(value, date) else "a number"
    if not isinstance(value, str):
        return plainly(value)
    words = {part for part in path[-3:] if isinstance(part, str)}
    if words & _FREE:
        return HIDDEN
    if "://" in value or any(word.endswith(("url", "endpoint")) for word in words):
        return _address(value, with_path="webhook" not in words)
    as_key = looks_secret(value) and not words & _CHECKSUMS
    if as_key or len(value) > _LONGEST or (words & _ADDRESSES and "@" in value):
        return HIDDEN
    if kinds and kinds <= {"int_type", "float_type", "bool_type"} and not _like_number(value):
        return "text"
    return plainly(value)


def _like_number(text: str) -> bool:
    return re.fullmatch(r"[-+.]?[0-9].{0,15}|[A-Za-z~]{0,8}", text) is not None


def _address(text: str, *, with_path: bool) -> str:
    """Return the part of a URL that holds no secret: neither what is before an @, nor the query."""
    head = re.split(r"[?#=&;]|%3", text, maxsplit=1)[0]
    if not with_path:
        match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*:/*)?[^/]*", head)
        head = match[0] if match else ""
    is_host = re.match(r"[a-z]+:/|[^/]*[.:\[{]|localhost", head, re.IGNORECASE)
    if "@" in text or not is_host or len(head) > 2 * _LONGEST or looks_secret(head):
        return HIDDEN
    return repr(head + ("..." if head != text else ""))


def as_name(text: str) -> str:
    """Return text that stands where names of models do, for a hint; `...` if it may be a secret."""
    return "..." if len(text) > _LONGEST or re.search(r"\s", text) or looks_secret(text) else text


def code_point(character: str) -> str:
    """Return a character that cannot be told by its look: its number and its name in Unicode."""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'a control character')})"
