"""What Prometheus told about a period, with one value for each point of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.report.queries import Span

Values = Sequence[float | None]
Key = tuple[str, ...]

ONE_ROUND_S = 15
"""A step may lack this much and is full: rounds of Prometheus do not fit it exactly."""


@dataclass(frozen=True, slots=True)
class Series:
    """One value for each point; None where there is none."""

    labels: Mapping[str, str]
    values: Values

    @property
    def total(self) -> float:
        """The sum of the values that are there."""
        return sum(value for value in self.values if value is not None)


@dataclass(frozen=True, slots=True)
class Episode:
    """A time without a break in which something was so. `seconds` is how long it really was in
    it.
    """

    begin: float
    end: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Told:
    """The period that ends at `end` (seconds since 1970), and every answer by the name of its
    question.
    """

    span: Span
    end: float
    over_time: Mapping[str, Sequence[Series]]
    at_the_end: Mapping[str, Sequence[tuple[Mapping[str, str], float]]]

    @property
    def begin(self) -> float:
        """When the period begins (seconds since 1970)."""
        return self.end - self.span.seconds

    def point(self, place: int) -> float:
        """When the step of a point ends."""
        return self.begin + (place + 1) * self.span.step_s

    def by(self, question: str, *labels: str) -> dict[Key, Values]:
        """Return the series of an answer by these labels. A label that is not there is empty."""
        return {
            tuple(one.labels.get(label, "") for label in labels): one.values
            for one in self.over_time[question]
        }

    def episodes(self, shares: Values) -> list[Episode]:
        """When something was so, from the share of each step in which it was."""
        step = self.span.step_s
        found: list[Episode] = []
        run: list[float] = []
        for place, share in enumerate([*shares, None]):
            if share:
                run.append(min(share, 1.0))
            elif run:
                end = self.point(place - 1)
                begin = end - len(run) * step
                # It began late in its first step if it fills the second one, and ended early in its
                # last one if it fills the one before. Otherwise it is open where in a step it was,
                # and how often.
                if len(run) > 1 and (1 - run[1]) * step <= ONE_ROUND_S:
                    begin += (1 - run[0]) * step
                if len(run) > 1 and (1 - run[-2]) * step <= ONE_ROUND_S:
                    end -= (1 - run[-1]) * step
                found.append(Episode(begin, end, sum(run) * step))
                run = []
        return found


def total(values: Values) -> float:
    """All steps together."""
    return sum(value for value in values if value is not None)


def added(many: Sequence[Values]) -> Values:
    """Several series as one: None only where none has a value."""
    return [
        sum(value for value in column if value is not None)
        if any(value is not None for value in column)
        else None
        for column in zip(*many, strict=True)
    ]


def percentile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return the value that this share of the observations does not exceed; None without any.

    `buckets` are how many were at most so large, by their bound. Within one they are taken to be
    spread evenly; what is beyond the last bound is taken for that.
    """
    bounds = sorted(buckets)
    rank = share * max(buckets.values(), default=0)
    if rank <= 0:
        return None
    below, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            return (
                lower
                if math.isinf(bound)
                else lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
            )
        below, lower = max(below, buckets[bound]), bound
    return None


def read(answer: Mapping[str, Any], span: Span) -> Told:
    """Read what the module modelyard_prometheus returned."""
    end = float(answer["end"])
    begin = end - span.seconds

    def values(pairs: Sequence[tuple[float, str]]) -> Values:
        found: list[float | None] = [None] * span.points
        for time, text in pairs:
            found[round((time - begin) / span.step_s) - 1] = _number(text)
        return found

    def at_once(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, str], float]]:
        for entry in entries:
            if (number := _number(entry["value"][1])) is not None:
                yield entry["metric"], number

    over_time = {
        name: [Series(entry["metric"], values(entry["values"])) for entry in entries]
        for name, entries in answer["over_time"].items()
    }
    return Told(
        span,
        end,
        over_time,
        {name: list(at_once(found)) for name, found in answer["at_the_end"].items()},
    )


def _number(text: str) -> float | None:
    """None for what is no number: a percentile of nothing is NaN."""
    number = float(text)
    return number if math.isfinite(number) else None
