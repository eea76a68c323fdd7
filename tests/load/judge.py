"""What a run of Locust showed: read, judged and written as a table. Pure, and without Locust."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHAT = "chat"
STREAM = "stream"
FIRST_TOKEN = "first token"


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of `make loadtest`. docs/performance.md says where they come from. None: not
    judged."""

    failed: int = 0
    """Requests. The lab has one gateway and nothing that breaks on purpose, so any failure is
    one."""
    first_token_p95_ms: int | None = 1000
    answer_p95_ms: int | None = 2000
    answers_per_s: float | None = 10


UNTIMED = Limits(first_token_p95_ms=None, answer_p95_ms=None, answers_per_s=None)
"""For machines of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one public name did in one way: asked plainly, as a stream, or a stream's first
    tokens."""

    name: str
    kind: str
    requests: int
    failed: int
    times: Mapping[int, int]
    """How often each time in milliseconds was seen. Locust keeps two digits."""
    started: float
    ended: float

    def percentile(self, share: float) -> int | None:
        """The time within which this share of the requests ended; None if there was none."""
        left = share * sum(self.times.values())
        for time, count in sorted(self.times.items()):
            left -= count
            if left <= 0:
                return time
        return None


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure of one entry."""

    name: str
    kind: str
    error: str
    count: int


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of a run."""

    entries: Sequence[Entry]
    failures: Sequence[Failure]

    @classmethod
    def read(cls, stats: Path, failures: Path) -> Run:
        """Read what locustfile.py left."""
        entries = [
            Entry(
                name=one["name"],
                kind=one["method"],
                requests=one["num_requests"],
                failed=one["num_failures"],
                times={int(time): count for time, count in one["response_times"].items()},
                started=one["start_time"],
                ended=one["last_request_timestamp"] or one["start_time"],
            )
            for one in json.loads(stats.read_text(encoding="utf-8"))
        ]
        rows = json.loads(failures.read_text(encoding="utf-8"))
        return cls(
            sorted(entries, key=lambda entry: (entry.name, entry.kind)),
            [Failure(row["name"], row["method"], row["error"], row["occurrences"]) for row in rows],
        )

    @property
    def answers(self) -> list[Entry]:
        """The entries that are requests."""
        return [entry for entry in self.entries if entry.kind != FIRST_TOKEN]

    @property
    def seconds(self) -> float:
        """From the first request to the end of the last."""
        return max((e.ended for e in self.answers), default=0.0) - min(
            (e.started for e in self.answers), default=0.0
        )

    def first_tokens(self, name: str) -> Entry | None:
        """The first tokens of a name's streams, if any came."""
        return next((e for e in self.entries if (e.name, e.kind) == (name, FIRST_TOKEN)), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One threshold, and what the run had to show for it."""

    what: str
    value: str
    limit: str
    met: bool


def judge(run: Run, limits: Limits) -> list[Verdict]:
    """Compare a run with the limits. What was not seen has not met its limit."""
    failed = sum(entry.failed for entry in run.answers)
    verdicts = [
        Verdict("failed requests", str(failed), f"at most {limits.failed}", failed <= limits.failed)
    ]
    if limits.first_token_p95_ms is not None:
        for name in sorted({entry.name for entry in run.answers}):
            first = run.first_tokens(name)
            verdicts.append(
                _p95(f"p95 of the first token, {name}", first, limits.first_token_p95_ms)
            )
    if limits.answer_p95_ms is not None:
        for entry in run.answers:
            verdicts.append(
                _p95(
                    f"p95 of a whole answer, {entry.name}, {entry.kind}",
                    entry,
                    limits.answer_p95_ms,
                )
            )
    if limits.answers_per_s is not None:
        rate = (
            sum(entry.requests - entry.failed for entry in run.answers) / run.seconds
            if run.seconds
            else 0.0
        )
        met = rate >= limits.answers_per_s
        verdicts.append(
            Verdict("answers per second", f"{rate:.1f}", f"at least {limits.answers_per_s:g}", met)
        )
    return verdicts


def _p95(what: str, entry: Entry | None, limit: int) -> Verdict:
    value = entry.percentile(0.95) if entry else None
    if value is None:
        return Verdict(what, "none seen", f"at most {limit} ms", False)
    return Verdict(what, f"{value} ms", f"at most {limit} ms", value <= limit)


def tables(run: Run, verdicts: Iterable[Verdict]) -> str:
    """What is printed: a row per name and kind, the failures by what they said, and the
    verdicts."""
    head = "name|kind|requests|failed|req/s|p50 ms|p95|p99|first token p50|p95|p99".split("|")
    rows = [_row(run, entry) for entry in run.answers]
    parts = [_aligned([head, *rows])]
    if run.failures:
        parts.append(
            _aligned(
                [
                    ["failure", "of", "times"],
                    *([f.error, f"{f.name}, {f.kind}", str(f.count)] for f in run.failures),
                ]
            )
        )
    judged = [[one.what, one.value, one.limit, "met" if one.met else "MISSED"] for one in verdicts]
    parts.append(_aligned([["threshold", "value", "limit", ""], *judged]))
    return "\n\n".join(parts)


def _row(run: Run, entry: Entry) -> list[str]:
    first = run.first_tokens(entry.name) if entry.kind == STREAM else None
    rate = f"{entry.requests / run.seconds:.1f}" if run.seconds else "-"
    times = [
        one.percentile(share) if one else None
        for one in (entry, first)
        for share in (0.5, 0.95, 0.99)
    ]
    return [entry.name, entry.kind, str(entry.requests), str(entry.failed), rate] + [
        "-" if time is None else str(time) for time in times
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        not any(cell[:1].isdigit() for cell in column) for column in zip(*rows[1:], strict=True)
    ]
    lines = []
    for row in rows:
        cells = zip(row, widths, text, strict=True)
        lines.append("  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in cells).rstrip())
    return "\n".join(lines)
