"""The files of an old stack as trees in which every value knows its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from modelyard.catalogue.sourcemap import Path

MOST_VALUES = 200_000
"""Values of one file, aliases expanded. A hundred times a large stack; ten lines of nested aliases
would be more."""

MERGE = "tag:yaml.org,2002:merge"


class InputError(Exception):
    """An old stack that cannot be read.

    `problems` are all of them, as FILE:LINE:COLUMN: what is wrong.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(eq=False, slots=True)
class Node:
    """One value: a mapping (`entries`), a list (`elements`), or a `scalar` with its `text` as
    written.

    `overwritten` are values whose key stands again further down: YAML lets the last one count.
    """

    file: str
    path: Path
    line: int
    scalar: object = None
    text: str = ""
    entries: dict[str, Node] | None = None
    elements: list[Node] | None = None
    overwritten: list[Node] = field(default_factory=list)

    @property
    def mapping(self) -> dict[str, Node]:
        """The entries; none if it is no mapping."""
        return self.entries or {}

    @property
    def sequence(self) -> list[Node]:
        """The elements; none if it is no list."""
        return self.elements or []

    @property
    def name(self) -> str:
        """The text of a scalar; nothing for null and for containers."""
        return "" if self.scalar is None else self.text

    def get(self, key: str) -> Node | None:
        """Return the value of a key; None if it is missing, or this is no mapping."""
        return self.mapping.get(key)

    def children(self) -> list[Node]:
        """Return the values and elements, overwritten ones included."""
        return [*self.overwritten, *self.mapping.values(), *self.sequence]

    def leaves(self) -> Iterator[Node]:
        """Every scalar and every empty container in it, itself if it is one."""
        stack = [self]
        while stack:
            node = stack.pop()
            children = node.children()
            if not children:
                yield node
            stack.extend(reversed(children))


class _Reader:
    def __init__(self, file: str, shown: str, data: bytes) -> None:
        self.file = file
        self.shown = shown
        self.count = 0
        self.trail: set[int] = set()
        self.loader = yaml.SafeLoader(data)

    def read(self) -> Node:
        node = self.loader.get_single_node()
        return Node(self.file, (), 1) if node is None else self.build(node, ())

    def fail(self, node: yaml.Node, problem: str) -> InputError:
        return InputError(
            [f"{self.shown}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {problem}"]
        )

    def build(self, node: yaml.Node, path: Path) -> Node:
        self.count += 1
        if self.count > MOST_VALUES:
            raise self.fail(node, f"the file has more than {MOST_VALUES} values")
        if id(node) in self.trail:
            raise self.fail(node, "an alias is inside the node it refers to")
        self.trail.add(id(node))
        out = Node(self.file, path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            out.entries = {}
            merged, own = self.pairs(node)
            for key, value in own:
                if key in out.entries:
                    out.overwritten.append(out.entries[key])
                out.entries[key] = self.build(value, (*path, key))
            for key, value in merged.items():
                if key not in out.entries:
                    out.entries[key] = self.build(value, (*path, key))
        elif isinstance(node, yaml.SequenceNode):
            out.elements = [
                self.build(child, (*path, index)) for index, child in enumerate(node.value)
            ]
        else:
            try:
                out.scalar = self.loader.construct_object(node)
            except (yaml.YAMLError, ValueError) as error:
                raise self.fail(node, str(getattr(error, "problem", None) or error)) from None
            out.text = str(node.value)
        self.trail.discard(id(node))
        return out

    def pairs(
        self, node: yaml.MappingNode
    ) -> tuple[dict[str, yaml.Node], list[tuple[str, yaml.Node]]]:
        """Return what `<<` brings in, and the node's own pairs."""
        merged: dict[str, yaml.Node] = {}
        own: list[tuple[str, yaml.Node]] = []
        for key, value in node.value:
            if key.tag == MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(source, yaml.MappingNode) or id(source) in self.trail:
                        raise self.fail(source, "<< needs an alias of a mapping")
                    self.trail.add(id(source))
                    theirs, outright = self.pairs(source)
                    self.trail.discard(id(source))
                    for name, child in {**theirs, **dict(outright)}.items():
                        merged.setdefault(name, child)
            elif isinstance(key, yaml.ScalarNode):
                own.append((str(key.value), value))
            else:
                raise self.fail(key, "a key must be a scalar, not a list or a mapping")
        return merged, own


def read(file: str, shown: str, data: bytes) -> Node:
    """Return the tree of one YAML file.

    `file` is its name in reports, `shown` its path in messages. Raises InputError.
    """
    try:
        return _Reader(file, shown, data).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InputError([f"{shown}{place}: not YAML: {error.problem or error.context}"]) from None
    except yaml.reader.ReaderError as error:
        if error.encoding != "utf-8":  # A character that YAML does not allow.
            raise InputError([f"{shown}: not YAML: {' '.join(str(error).split())}"]) from None
        line = data[: error.position].count(b"\n") + 1
        raise InputError(
            [
                f"{shown}:{line}: not UTF-8; if it is in another encoding, convert it:"
                " iconv -f LATIN1 -t UTF-8 OLD > NEW"
            ]
        ) from None
    except yaml.YAMLError as error:
        raise InputError([f"{shown}: not YAML: {' '.join(str(error).split())}"]) from None
    except RecursionError:
        raise InputError([f"{shown}: nested too deeply"]) from None
