"""What the schema says of a path of the catalogue: which field it is, and which keys it has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from modelyard.catalogue.sourcemap import Path


def keys_at(root: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that the schema has at `path`; none where it has no fixed ones."""
    kind = _model(_kind_at(root, path))
    return list(kind.model_fields) if kind is not None else []


def field_at(root: type[BaseModel], path: Path) -> FieldInfo | None:
    """Return the field whose value is at `path`; None for an entry of a list or of a mapping by
    name, and for what the schema does not have.
    """
    around = _model(_kind_at(root, path[:-1])) if path else None
    return around.model_fields.get(str(path[-1])) if around is not None else None


def refusal(root: type[BaseModel], path: Path, value: object) -> str | None:
    """Return the hint, or else the reason, with which the schema would refuse a value at `path`;
    None if it accepts it, or has nothing there.
    """
    field = field_at(root, path)
    kind: Any = field.annotation if field else _kind_at(root, path)
    if kind is None:
        return None
    for constraint in field.metadata if field else ():
        kind = Annotated[kind, constraint]
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        hint = first.get("ctx", {}).get("hint")
        return str(hint or first["msg"].removeprefix("Value error, "))
    return None


def takes_null(field: FieldInfo) -> bool:
    """Return whether a field may be null."""
    kind = field.annotation
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def wants_mapping(root: type[BaseModel], path: Path) -> bool:
    """Return whether the schema has a mapping at a path, and nothing else."""
    kind = _look_through(_kind_at(root, path))
    return get_origin(kind) is dict or _model(kind) is not None


ENTRY = "*"
"""Stands in a path for the name of an entry, or its position in a list."""


@lru_cache(maxsize=2)
def paths_by_key(root: type[BaseModel]) -> dict[str, list[Path]]:
    """Return every key of the schema with the paths it has there."""
    found: dict[str, list[Path]] = {}
    for path in _paths(root, ()):
        found.setdefault(str(path[-1]), []).append(path)
    return found


def _paths(kind: Any, path: Path) -> Iterator[Path]:
    if (model := _model(kind)) is None:
        inside = next(reversed(get_args(_look_through(kind))), None)
        if inside is not None:
            yield from _paths(inside, (*path, ENTRY))
        return
    for name, field in model.model_fields.items():
        yield (*path, name)
        yield from _paths(field.annotation, (*path, name))


def meant_path(root: type[BaseModel], path: Path) -> Path | None:
    """Return where the schema has the last key of `path`, whose other keys are right: the one path
    that is nearest. Entries have the names that they have in `path`, or `ENTRY`.

    None if the schema does not have the key, or has it at several places that are equally near. In
    another section only keys of the section itself count: what is deeper in it has its name there
    by chance.
    """
    around = path[:-1]
    ranked: dict[int, list[Path]] = {}
    for there in paths_by_key(root).get(str(path[-1]), ()):
        common = 0
        while common < min(len(around), len(there) - 1) and there[common] in (
            ENTRY,
            around[common],
        ):
            common += 1
        if common or not around or len(there) == 2:
            ranked.setdefault(common, []).append((*around[:common], *there[common:]))
    nearest = ranked[max(ranked)] if ranked else []
    return nearest[0] if len(nearest) == 1 else None


def nested(path: Path) -> str:
    """Return a path as YAML, with a value that is left out: `{gateway: {port: ...}}`."""
    text = "..."
    for key in reversed(path):
        text = f"{{{'NAME' if key == ENTRY else key}: {text}}}"
    return text


def dotted(path: Path) -> str:
    """Return a path with dots."""
    return ".".join("NAME" if part == ENTRY else str(part) for part in path)


def _kind_at(root: type[BaseModel], path: Path) -> Any:
    kind: Any = root
    for part in path:
        if (model := _model(kind)) is not None:
            field = model.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            kind = next(reversed(get_args(_look_through(kind))), None)
    return kind


def _model(kind: Any) -> type[BaseModel] | None:
    kind = _look_through(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _look_through(kind: Any) -> Any:
    """Look through `X | None` and `Annotated[X, ...]`."""
    while True:
        if hasattr(kind, "__metadata__"):
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            kind = next(arg for arg in get_args(kind) if arg is not NoneType)
        else:
            return kind
