"""Hints for a key that the catalogue has in another place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from modelyard.catalogue.fields import ENTRY, dotted, keys_at, meant_path, nested
from modelyard.catalogue.former import FORMER
from modelyard.catalogue.providers import PROVIDER_TYPES
from modelyard.catalogue.sourcemap import Path


def elsewhere(root: type[BaseModel], place: Path, tree: Any) -> str:
    """Return the hint for a key at `place` that the schema has elsewhere, or that had another name
    as the variable of a role; else an empty string. `tree` is the catalogue.
    """
    former = FORMER.get(f"{place[-2]}_{place[-1]}", ()) if len(place) == 3 else ()
    if former and former[:-1] == place[:-1]:
        return f'did you mean "{former[-1]}"?'
    parts = str(place[-1]).split(".")
    if len(parts) > 1 and parts[0] in keys_at(root, place[:-1]):
        return f"write {nested(tuple(parts))[1:-1]}"
    there = meant_path(root, place)
    if there is None or not place[:-1]:
        return ""
    if there[0] != place[0]:
        return f"it belongs to another section: write llm_overrides: {nested(there)}"
    if keys_at(root, place[:1]):
        return f'did you mean "{dotted(there[1:])}"?'
    if place[0] == "providers" and there[2] in PROVIDER_TYPES and there[2] != _type(tree, place):
        return ""
    below = (
        f"write {nested(there[2:])[1:-1]}" if ENTRY not in there else f"write it as {dotted(there)}"
    )
    return f"{below} in the provider" if len(place) > 3 and place[0] == "providers" else below


def _type(tree: Any, place: Path) -> Any:
    """Return the type of the provider that `place` is in."""
    provider = tree["providers"][place[1]] if isinstance(tree, Mapping) else None
    return provider.get("type") if isinstance(provider, Mapping) else None
