"""Reads the origin that ansible-core (2.19 and newer) leaves on values.

The tag is internal to ansible-core, so this is the only place that knows it, and it imports
nothing: where the tag looks different one day, values have no origin, and diagnostics name the
catalogue path alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from modelyard.catalogue.sourcemap import Origin


def ansible_origin(value: object) -> Origin | None:
    """Return the origin on `value`; None if there is none. A `Probe`."""
    tags = getattr(value, "_ansible_tags_mapping", None)
    # What stands for a value that cannot be decrypted has any attribute, and fails when it is used.
    if not isinstance(tags, Mapping):
        return None
    by_name = {getattr(kind, "__name__", ""): tag for kind, tag in tags.items()}
    tag = by_name.get("Origin")
    path = getattr(tag, "path", None)
    description = getattr(tag, "description", None)
    if path is None and description is None:
        return None
    return Origin(
        None if path is None else shorten(str(path)),
        getattr(tag, "line_num", None),
        getattr(tag, "col_num", None),
        None if description is None else str(description),
        "VaultedValue" in by_name,
    )


def line_at(origin: Origin) -> str:
    """Return the line of the file that a place is in; empty if it has none or cannot be read."""
    lines = _lines(origin.file) if origin.file and origin.line else ()
    return lines[origin.line - 1] if origin.line and origin.line <= len(lines) else ""


@lru_cache(maxsize=64)
def _lines(path: str) -> tuple[str, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            return tuple(file.read().splitlines())
    except (OSError, UnicodeDecodeError):
        return ()


@lru_cache(maxsize=256)
def shorten(path: str) -> str:
    """Return the path of the file itself, not of a link to it, relative to the working directory if
    it is below that.
    """
    real = os.path.realpath(path)
    relative = os.path.relpath(real)
    return real if relative.startswith("..") else relative
