"""What a report consists of, before it is a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Trace:
    """One series of a plot. `colour` is a place in the page's palette; `x` are the points' times
    unless given.
    """

    name: str
    y: Sequence[float | str | None]
    kind: Literal["line", "bar", "hatched", "span", "mark"]
    colour: int
    dash: str = "solid"
    x: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One question. The first `words` columns are no numbers. `empty` is said where there is
    nothing to show.
    """

    slug: str
    title: str
    note: str
    head: Sequence[str]
    words: int
    rows: Sequence[Sequence[str]]
    empty: str
    traces: Sequence[Trace] = ()
    unit: str = ""
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """What the plan says of a pool: its hosts, how many requests one host gets at once (None: as
    many as come), and how long a request waits for its turn, in seconds.
    """

    hosts: Sequence[str]
    max_parallel: int | None
    queue_s: int


@dataclass(frozen=True, slots=True)
class Report:
    """All of it, as text."""

    headline: Mapping[str, str]
    missing: Sequence[str]
    sections: Sequence[Section]
