"""Where each value of the catalogue was written.

The trees that come in carry their origins on the objects themselves (ansible-core tags every
string, number, mapping and key). How to read such a tag is the caller's business: it hands in a
`Probe`. Origins are looked up only when a diagnostic needs one, which keeps a large valid catalogue
cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """A place in a file (1-based `line` and `column`), or the `description` of a source without
    lines.

    What was `encrypted` there must not be shown.
    """

    file: str | None = None
    line: int | None = None
    column: int | None = None
    description: str | None = None
    encrypted: bool = False

    def __str__(self) -> str:
        if self.file is None:
            return self.description or "(unknown origin)"
        parts = [self.file]
        if self.line:
            parts.append(str(self.line))
            if self.column:
                parts.append(str(self.column))
        return ":".join(parts)


Probe = Callable[[object], Origin | None]


def no_line(_origin: Origin) -> str:
    """Return nothing: for data whose files cannot be read."""
    return ""


def no_origin(_value: object) -> Origin | None:
    """Return None: a probe for data that carries no origins."""
    return None


class Merged(dict[Any, Any]):
    """A mapping made by merging, which remembers where it began, where the keys that an override
    set came from, and where keys were taken `out`.
    """

    __slots__ = ("origin", "origins", "out")

    def __init__(self, base: Mapping[Any, Any], origin: Origin | None) -> None:
        super().__init__(base)
        self.origin: Origin | None = base.origin if isinstance(base, Merged) else origin
        self.origins: dict[Any, tuple[Origin | None, Origin | None]] = dict(
            base.origins if isinstance(base, Merged) else {}
        )
        self.out: dict[Any, Origin | None] = dict(base.out if isinstance(base, Merged) else {})


def is_list(value: object) -> bool:
    """Return whether a value is a list or a tuple, of any subclass."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Answers where a path of `tree` was written, and where names that are no longer in it were
    `removed`. `line` returns the text of the line that a place is in.
    """

    tree: Any
    probe: Probe = no_origin
    removed: Mapping[str, Origin | None] = field(default_factory=dict)
    line: Callable[[Origin], str] = no_line

    def origin(self, path: Path, *, key: bool = False) -> Origin | None:
        """Return the origin of the value at `path`; of its key where the value is a container or
        `key` is true.

        A value without origin (a boolean, null) has that of its key, else of the nearest thing
        around it. A path that does not exist has the origin of what took it out, else of the part
        of it that does exist.
        """
        node: Any = self.tree
        nearest: Origin | None = None
        for depth, step in enumerate(path):
            key_origin: Origin | None = None
            value_origin: Origin | None = None
            if isinstance(node, Mapping) and step in node:
                child = node[step]
                recorded = node.origins.get(step) if isinstance(node, Merged) else None
                if recorded:
                    key_origin, value_origin = recorded
                else:
                    key_origin = self.probe(
                        next(candidate for candidate in node if candidate == step)
                    )
                    value_origin = self.probe(child)
            elif is_list(node) and isinstance(step, int) and 0 <= step < len(node):
                child = node[step]
                value_origin = child.origin if isinstance(child, Merged) else self.probe(child)
            else:
                taken = node.out.get(step) if isinstance(node, Merged) else None
                return taken or nearest
            last = depth == len(path) - 1
            wants_value = last and not key and not isinstance(child, Mapping) and not is_list(child)
            first, second = (
                (value_origin, key_origin) if wants_value else (key_origin, value_origin)
            )
            nearest = first or second or nearest
            node = child
        return nearest

    def has(self, path: Path) -> bool:
        """Return whether something was written at `path`: what is not has its default."""
        node: Any = self.tree
        for step in path:
            listed = is_list(node) and isinstance(step, int) and 0 <= step < len(node)
            if not listed and not (isinstance(node, Mapping) and step in node):
                return False
            node = node[step]
        return True

    def overrides(self, path: Path) -> bool:
        """Return whether an override set what stands at `path` or something around it, or took it
        out.
        """
        node: Any = self.tree
        for step in path:
            if isinstance(node, Merged) and (step in node.origins or step in node.out):
                return True
            listed = is_list(node) and isinstance(step, int) and 0 <= step < len(node)
            if not listed and not (isinstance(node, Mapping) and step in node):
                return False
            node = node[step]
        return False


def encrypted_in(value: Any, probe: Probe) -> Iterator[str]:
    """Yield every text in a value, keys included, that was encrypted where it is written."""
    if isinstance(value, str):
        origin = probe(value)
        if origin is not None and origin.encrypted:
            yield str.__str__(value)
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from encrypted_in(key, probe)
            yield from encrypted_in(child, probe)
    elif is_list(value):
        for child in value:
            yield from encrypted_in(child, probe)


def plain(value: Any) -> Any:
    """Return a copy made of exact built-in types only: no tags, no lazy containers, no subclasses.

    Values of any other type (dates, bytes) are returned as they are, for the schema to refuse.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(child) for key, child in value.items()}
    if is_list(value):
        return [plain(child) for child in value]
    return value


DEEPEST = 100
"""Levels of nesting. The catalogue has ten; what is deeper would exhaust the stack of some step."""

LARGEST = 5_000_000
"""Values of one variable, with each use of a YAML anchor counted. 10,000 models have 100,000."""


class Bounds:
    """Finds values that have no end (a YAML anchor inside itself), or hardly one.

    What several hosts share is walked once.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[object, int, int]] = {}
        """By identity: the value, so that it stays, how many values it has, and how deep."""

    def flaw(self, value: object) -> tuple[str, Path] | None:
        """Return why a value cannot be read, and where in it; None if it can."""
        try:
            self._measure(value, (), ())
        except _EndlessError as error:
            return error.reason, error.path
        return None

    def _measure(self, value: object, path: Path, around: tuple[int, ...]) -> tuple[int, int]:
        """Return how many values there are in one, and how deep. Raises _EndlessError."""
        if not isinstance(value, Mapping) and not is_list(value):
            return 1, 0
        identity = id(value)
        if identity in around:
            raise _EndlessError("it contains itself (the anchor & is around the alias *)", path)
        if identity not in self._sizes:
            count, depth = 1, 0
            here = (*around, identity)
            for key, child in _children(value):
                at = (*path, key)
                if len(at) > DEEPEST:
                    raise _EndlessError(f"it is nested more than {DEEPEST} levels deep", at[:3])
                size, below = self._measure(child, at, here)
                count, depth = count + size, max(depth, below + 1)
            self._sizes[identity] = (value, count, depth)
        _, count, depth = self._sizes[identity]
        if len(path) + depth > DEEPEST:
            raise _EndlessError(f"it is nested more than {DEEPEST} levels deep", path[:3])
        if count > LARGEST:
            raise _EndlessError(f"it has more than {LARGEST:,} values", path[:3])
        return count, depth


def _children(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


class _EndlessError(Exception):
    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(reason)
        self.reason, self.path = reason, path
