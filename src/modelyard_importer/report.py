"""What became of every value of the old files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelyard.catalogue.sourcemap import Path
from modelyard.diagnostics import did_you_mean, show_path
from modelyard_importer.oldfiles import Node


class Outcome(StrEnum):
    """What can become of a value; the text is the report's heading."""

    UNSUPPORTED = "not supported"
    CHANGED = "changed"
    TAKEN = "taken over"
    NO_MEANING = "no meaning here"


TWICE = "duplicate key; the last one takes effect"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the report: the value at `path` and everything in it that has no line of its own.

    `values` are how many of the file's values that is; 0 for a remark beside. `urgent`: something
    that was meant to work may be missing.
    """

    outcome: Outcome
    file: str
    path: Path
    line: int
    text: str
    values: int
    urgent: bool


class Report:
    """Collects what becomes of each leaf. A leaf is claimed once; `finish` claims the rest."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._claimed: set[Node] = set()

    def claim(
        self, node: Node | None, outcome: Outcome, text: str, *, urgent: bool = False
    ) -> None:
        """Say what becomes of `node`, and of what is in it and not yet claimed. None: nothing."""
        if node is None:
            return
        leaves = self._open(node)
        if leaves or node.children():
            self.entries.append(
                Entry(outcome, node.file, node.path, node.line, text, len(leaves), urgent)
            )
            self._claimed.update(leaves)

    def _open(self, node: Node) -> list[Node]:
        return [leaf for leaf in node.leaves() if leaf not in self._claimed]

    def remark(self, node: Node, text: str, *, urgent: bool = False) -> None:
        """Tell a change that is more than what becomes of one value."""
        self.entries.append(
            Entry(Outcome.CHANGED, node.file, node.path, node.line, text, 0, urgent)
        )

    def overwritten(self, root: Node) -> None:
        """Claim values whose key stands again further down.

        Comes first, so that nothing else is said of them.
        """
        stack = [root]
        while stack:
            node = stack.pop()
            stack.extend(node.children())
            for lost in node.overwritten:
                self.claim(
                    lost,
                    Outcome.UNSUPPORTED,
                    TWICE,
                    urgent=True,
                )

    def rest(
        self, node: Node, known: dict[str, tuple[Outcome, str]], handled: Iterable[str] = ()
    ) -> None:
        """Claim what is left of a mapping: what is in `known` as it says there, everything else as
        unknown.
        """
        for key, child in node.mapping.items():
            if not self._open(child):
                continue
            if key in known:
                self.claim(child, *known[key])
            elif key in handled:
                self._not_understood(child)
            else:
                hint = did_you_mean(key, [*known, *handled])
                self.claim(
                    child, Outcome.UNSUPPORTED, "unknown key" + (f"; {hint}" if hint else "")
                )

    def _not_understood(self, node: Node) -> None:
        """Claim a value of the wrong kind; urgent if it says anything."""
        said = bool(node.path) and any(leaf.name for leaf in node.leaves())
        text = "not in a form that the importer understands"
        self.claim(node, Outcome.UNSUPPORTED, text, urgent=said)

    def finish(self, roots: Sequence[Node]) -> None:
        """Claim the rest, and put the entries in the order of the files."""
        stack = list(roots)
        while stack:
            node = stack.pop()
            leaves = self._open(node)
            # Of a whole file each section is told.
            is_whole = leaves == list(node.leaves())
            if is_whole and not (node in roots and node.children()):
                self._not_understood(node)
            elif leaves:
                stack.extend(node.children())
        order = {root.file: index for index, root in enumerate(roots)}
        self.entries.sort(key=lambda entry: (order[entry.file], entry.line))


def render_entries(entries: Iterable[Entry]) -> list[str]:
    """`FILE:LINE PATH → TEXT`, neighbours that say the same in one line."""
    merged: dict[tuple[str, Path, str], list[Entry]] = {}
    for entry in entries:
        # Sections of a file have a line each.
        parent = entry.path[:-1] or entry.path
        merged.setdefault((entry.file, parent, entry.text), []).append(entry)
    lines: list[str] = []
    for (_file, parent, text), group in merged.items():
        path = show_path(group[0].path) or "the file"
        if len(group) > 1:
            names = ", ".join(str(entry.path[-1]) for entry in group)
            elements = all(isinstance(entry.path[-1], int) for entry in group)
            path = show_path(parent) + (f"[{names}]" if elements else f".{{{names}}}")
        line = f"{group[0].file}:{group[0].line} {path} → {text}"
        lines.append("".join(letter if letter.isprintable() else " " for letter in line))
    return lines
