"""Tables of what was observed, printed after the tests and kept in docs/gateway.md between
markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness import CLONE

PAGE = CLONE / "docs/gateway.md"
SECONDS = "s"
"""The column that is printed and kept, but not compared: how long a request took depends on the
machine."""


@dataclass(slots=True)
class Tables:
    """The tables of one run, by name."""

    write: bool = False
    """Keep what was observed, instead of comparing it with what is kept."""
    observed: dict[str, str] = field(default_factory=dict)

    def check(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Compare a table with the one kept under its name, or keep it.

        Raises AssertionError if they differ in another column than that of the seconds.
        """
        self.observed[name] = table = render(columns, rows)
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(begin)
        kept, _, after = rest.partition(end)
        assert begin in page, f"{PAGE.name} has no markers for the table {name!r}"
        if self.write:
            PAGE.write_text(f"{before}{begin}{table}\n{end}{after}", encoding="utf-8")
        else:
            hint = "to keep what was observed: .venv/bin/pytest tests/gateway --write-tables"
            assert without_seconds(kept) == without_seconds(table), hint


def render(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def without_seconds(table: str) -> list[list[str]]:
    """The cells of a table, row by row, without the column of the seconds."""
    rows = [re.split(r" *\| *", line.strip("| ")) for line in table.strip().splitlines()]
    left_out = rows[0].index(SECONDS) if rows and SECONDS in rows[0] else None
    return [[cell for position, cell in enumerate(row) if position != left_out] for row in rows]


def kept(name: str) -> list[dict[str, str]]:
    """The rows of a table of docs/gateway.md, each by its columns."""
    table = (
        PAGE.read_text(encoding="utf-8")
        .partition(f"<!-- {name}: begin -->\n")[2]
        .partition(f"<!-- {name}: end -->")[0]
    )
    columns, _rule, *rows = (
        re.split(r" *\| *", line.strip("| ")) for line in table.strip().splitlines()
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]
