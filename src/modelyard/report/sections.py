"""What the report says: a table for each question, a plot where there is something to draw, and
what is not known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from modelyard.report.figures import NONE, count, duration, seconds, share
from modelyard.report.parts import Pool, Report, Section, Trace
from modelyard.report.pools import pools_section
from modelyard.report.told import Episode, Told, Values, added, percentile, total

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

MOST_DRAWN = 8
"""Series of a plot. The table has all of them."""

MOST_WITH_PERCENTILES = 3
"""Names whose time to first token is drawn, because each of them is three lines."""

GATEWAY = ("litellm", "haproxy")
"""Jobs that tell what people got."""

NOT_KNOWN = "not known"
TIME = "%b\u00a0%d\u00a0%H:%M:%S"
"""Its spaces do not end a line."""

Clock = Callable[[float], datetime]
"""From seconds since 1970 to the time that people read."""


@dataclass(slots=True)
class Author:
    """Writes the report. `interval_s` is how often Prometheus asks and evaluates its rules,
    `pools` are those of the plan.
    """

    told: Told
    public_names: Sequence[str]
    interval_s: int
    clock: Clock
    pools: Mapping[str, Pool]
    colours: dict[str, int] = field(default_factory=dict)

    def write(self) -> Report:
        """Return the report: the headline, what is not known, and the sections in their order."""
        asked = self._known("asked")
        for name in sorted(asked, key=lambda name: -total(asked[name])):
            self._colour(name)
        alerts = self._alerts()
        sections = [
            self._availability(asked),
            self._providers(),
            self._fallbacks(),
            pools_section(self.told, self.pools, MOST_DRAWN),
            self._first_tokens(),
            self._tokens(),
            self._errors(),
            alerts,
            self._changes(),
            self._silent(),
        ]
        return Report(self._headline(asked, len(alerts.rows)), list(self._missing()), sections)

    def _known(self, question: str) -> dict[str, Values]:
        """By public name. A request without one was refused before the gateway looked for it."""
        return {
            name: values
            for (name,), values in self.told.by(question, "requested_model").items()
            if name
        }

    def _colour(self, name: str) -> int:
        """Return the number of a name's colour, the same in all plots."""
        return self.colours.setdefault(name, len(self.colours))

    def _time(self, moment: float) -> str:
        return f"{self.clock(moment):{TIME}}"

    def _nothing(self, otherwise: str) -> str:
        """Why there are no figures of the gateway: it was not asked, or there was nothing to
        count.
        """
        silent = [
            one.values
            for one in self.told.over_time["silent"]
            if one.labels.get("job") == "litellm"
        ]
        watched = sum(1 for value in self.told.over_time["watched"][0].values if value)
        unknown = any(
            sum(1 for value in values if value is not None and value > 0.99) >= watched
            for values in silent
        )
        return (
            f"{NOT_KNOWN.capitalize()}: the gateway did not answer Prometheus in this period."
            if unknown
            else otherwise
        )

    # -- the head ----------------------------------------------------------------------------------

    def _headline(self, asked: Mapping[str, Values], alerts: int) -> dict[str, str]:
        told = self.told
        refused = total(self._refused())
        everything = sum(map(total, asked.values())) + refused
        failed = sum(map(total, self._known("unanswered").values())) + refused
        tokens = sum(
            total(values) for name in ("read", "written") for values in self._known(name).values()
        )
        if not round(everything):
            return {
                "Requests": self._nothing("none").partition(":")[0].lower(),
                "Alerts that fired": str(alerts),
            }
        return {
            "Requests": count(everything),
            "Answered": share(everything - failed, everything),
            "By a fallback": count(sum(total(one.values) for one in told.over_time["taken"])),
            "First token, p95": self._percentiles("all", list(self._buckets().values()))[3],
            "Tokens": count(tokens),
            "Alerts that fired": str(alerts),
        }

    def _missing(self) -> Iterator[str]:
        """Yield what Prometheus does not know."""
        told = self.told
        most = told.span.step_s / self.interval_s
        watched = told.episodes(
            [value and value / most for value in told.over_time["watched"][0].values]
        )
        slack = 2 * self.interval_s
        if watched[0].begin > told.begin + slack:
            yield f"Prometheus has no data before {self._time(watched[0].begin)}."
        for before, after in pairwise(watched):
            yield (
                f"Prometheus has no data between {self._time(before.end)} and"
                f" {self._time(after.begin)}."
            )
        if watched[-1].end < told.end - told.span.step_s - slack:
            yield f"Prometheus has no data after {self._time(watched[-1].end)}."
        for (job, host), values in told.by("silent", "job", "instance").items():
            if job in GATEWAY and (gone := told.episodes(values)):
                name = "gateway" if job == "litellm" else "front end"
                lost = duration(sum(one.seconds for one in gone))
                when = f"{self._time(gone[0].begin)} and {self._time(gone[-1].end)}"
                yield (
                    f"The {name} on {host} did not answer Prometheus for {lost} between {when}:"
                    " figures may be late."
                )

    # -- sections ----------------------------------------------------------------------------------

    def _availability(self, asked: Mapping[str, Values]) -> Section:
        unanswered, taken = (
            self._known("unanswered"),
            self.told.by("taken", "requested_model", "fallback_model"),
        )
        nobody: Values = [None] * self.told.span.points
        rows: list[Sequence[str]] = []
        traces = []
        for name in sorted(
            {*asked, *self.public_names}, key=lambda name: (-total(asked.get(name, ())), name)
        ):
            requests = round(total(asked.get(name, ())))
            if requests <= 0:
                rows.append((name, "no request", *[NONE] * 4))
                continue
            failed = unanswered.get(name, nobody)
            lost = min(round(total(failed)), requests)
            instead = sum(total(values) for (wanted, _), values in taken.items() if wanted == name)
            figures = (requests, requests - lost, instead, lost)
            rows.append((name, *map(count, figures), share(requests - lost, requests)))
            line = [
                max(0.0, 1 - (bad or 0) / all_) if all_ and all_ > 0 else None
                for all_, bad in zip(asked[name], failed, strict=True)
            ]
            traces.append(Trace(name, line, "line", self._colour(name)))
        if refused := round(total(self._refused())):
            rows.append(
                (
                    "(no gateway was ready)",
                    count(refused),
                    "0",
                    "0",
                    count(refused),
                    share(0, refused),
                )
            )
        return Section(
            "availability",
            "Availability of each name",
            "Share of the requests for a name that were answered, fallbacks included. Invalid "
            "requests count as answered.",
            (
                "Name",
                "Requested",
                "Answered",
                "of these by a fallback",
                "Not answered",
                "Availability",
            ),
            1,
            rows if traces or refused else [],
            self._nothing("No request reached the gateway in this period."),
            traces[:MOST_DRAWN],
            "answered",
            percent=True,
        )

    def _providers(self) -> Section:
        answers = {name: values for (name,), values in self.told.by("answers", "provider").items()}
        ordered = sorted(
            (name for name in answers if round(total(answers[name]))),
            key=lambda n: -total(answers[n]),
        )
        whole = sum(map(total, answers.values()))
        return Section(
            "providers",
            "Answers",
            "Answers by provider.",
            ("Provider", "Answers", "Share"),
            1,
            [
                (name, count(total(answers[name])), share(total(answers[name]), whole))
                for name in ordered
            ],
            self._nothing("No provider was called in this period."),
            [
                Trace(name, answers[name], "bar", place)
                for place, name in enumerate(ordered[:MOST_DRAWN])
            ],
            "answers",
        )

    def _fallbacks(self) -> Section:
        labels = ("requested_model", "fallback_model")
        taken, failed = self.told.by("taken", *labels), self.told.by("not_taken", *labels)
        sums = {
            key: (total(taken.get(key, ())), total(failed.get(key, ())))
            for key in {*taken, *failed}
        }
        ordered = sorted(
            (key for key in sums if any(round(one) for one in sums[key])),
            key=lambda key: (-sum(sums[key]), key),
        )
        traces = []
        for place, key in enumerate(ordered[: MOST_DRAWN // 2]):
            name = " → ".join(key)
            if key in taken:
                traces.append(Trace(f"{name} taken", taken[key], "bar", place))
            if key in failed:
                traces.append(Trace(f"{name} failed", failed[key], "hatched", place))
        return Section(
            "fallbacks",
            "Fallbacks",
            "Taken: another name answered. Failed: a step of the chain failed or was cooled down.",
            ("Requested", "Steps in", "Taken", "Failed"),
            2,
            [(*key, *map(count, sums[key])) for key in ordered],
            self._nothing("No fallback was needed in this period."),
            traces,
            "requests",
        )

    def _first_tokens(self) -> Section:
        buckets = self._buckets()
        streams = {name: total(one.get(math.inf, ())) for name, one in buckets.items()}
        ordered = sorted(
            (name for name in streams if round(streams[name])),
            key=lambda name: (-streams[name], name),
        )
        rows = [self._percentiles(name, [buckets[name]]) for name in ordered]
        if len(rows) > 1:
            rows.append(self._percentiles("all", list(buckets.values())))
        traces = []
        for name in ordered[:MOST_WITH_PERCENTILES]:
            steps = [
                {bound: values[place] or 0 for bound, values in buckets[name].items()}
                for place in range(self.told.span.points)
            ]
            for (label, share_), dash in zip(
                PERCENTILES.items(), ("solid", "dash", "dot"), strict=True
            ):
                line = [percentile(share_, step) for step in steps]
                traces.append(Trace(f"{name} {label}", line, "line", self._colour(name), dash))
        return Section(
            "first-token",
            "Time to first token",
            "Of streamed answers, estimated from the gateway's buckets. p95: 95 of 100 began at"
            " least this fast.",
            ("Name", "Streams", *PERCENTILES),
            1,
            rows,
            self._nothing("No answer was streamed in this period."),
            traces,
            "seconds",
        )

    def _buckets(self) -> dict[str, dict[float, Values]]:
        """By name, how many streams began in at most so many seconds."""
        found: dict[str, dict[float, Values]] = {}
        for (name, bound), values in self.told.by("first_tokens", "requested_model", "le").items():
            found.setdefault(name, {})[float(bound)] = values
        return found

    def _percentiles(self, name: str, many: Sequence[Mapping[float, Values]]) -> tuple[str, ...]:
        whole: dict[float, float] = {}
        for one in many:
            for bound, values in one.items():
                whole[bound] = whole.get(bound, 0) + total(values)
        return (
            name,
            count(whole.get(math.inf, 0)),
            *(seconds(percentile(one, whole)) for one in PERCENTILES.values()),
        )

    def _tokens(self) -> Section:
        read, written = self._known("read"), self._known("written")
        both = {
            name: added([values[name] for values in (read, written) if name in values])
            for name in {*read, *written}
        }
        ordered = sorted(
            (name for name in both if round(total(both[name]))),
            key=lambda name: (-total(both[name]), name),
        )
        figures = [
            (name, total(read.get(name, ())), total(written.get(name, ()))) for name in ordered
        ]
        if len(figures) > 1:
            figures.append(("all", sum(one[1] for one in figures), sum(one[2] for one in figures)))
        return Section(
            "tokens",
            "Tokens",
            "Read and written, by the name that answered.",
            ("Name", "Read", "Written", "Together"),
            1,
            [(name, count(r), count(w), count(r + w)) for name, r, w in figures],
            self._nothing("No tokens were read or written in this period."),
            [Trace(name, both[name], "bar", self._colour(name)) for name in ordered[:MOST_DRAWN]],
            "tokens",
        )

    def _errors(self) -> Section:
        errors = self.told.by("errors", "requested_model", "exception_class", "exception_status")
        ordered = sorted(
            (key for key in errors if round(total(errors[key]))),
            key=lambda key: (-total(errors[key]), key),
        )
        kinds: dict[str, list[Values]] = {}
        for key in ordered:
            kinds.setdefault(_shown(" ".join(key[1:])), []).append(errors[key])
        rows = [(*map(_shown, key), count(total(errors[key]))) for key in ordered]
        if round(total(self._refused())):
            rows.append(
                (NONE, "the front end: no gateway was ready", "503", count(total(self._refused())))
            )
            kinds["the front end 503"] = [self._refused()]
        refusals = self.told.by("refusals", "api_key_alias", "status_code")
        for client, status in sorted(refusals, key=lambda key: (-total(refusals[key]), key)):
            if number := round(total(refusals[client, status])):
                who = f"client {client}" if client else "no client's key"
                rows.append((NONE, f"refused: {who}", status, count(number)))
                kinds.setdefault(f"refused {status}", []).append(refusals[client, status])
        traces = [
            Trace(kind, added(many), "bar", place)
            for place, (kind, many) in enumerate(kinds.items())
        ]
        return Section(
            "errors",
            "Errors",
            "Requests answered with an error. 400, 404, 413 and 422 are invalid requests. "
            "RouterRateLimitError: the whole chain is cooled down. Refused: before any model was "
            "called.",
            ("Name", "Kind", "Status", "Requests"),
            3,
            rows,
            self._nothing("No request failed in this period."),
            traces[:MOST_DRAWN],
            "requests",
        )

    def _refused(self) -> Values:
        return next((one.values for one in self.told.over_time["refused"]), ())

    def _alerts(self) -> Section:
        told, step = self.told, self.told.span.step_s
        now = [_of_alert(labels) for labels, _ in told.at_the_end["firing"]]
        found: dict[tuple[str, str, str], list[Episode]] = {}
        for one in told.over_time["firing"]:
            shares = [value and value * self.interval_s / step for value in one.values]
            found.setdefault(_of_alert(one.labels), []).extend(told.episodes(shares))
        ordered = sorted(found, key=lambda key: found[key][0].begin)
        rows = [
            (*key, *self._when(found[key], "still firing" if key in now else "")) for key in ordered
        ]
        traces = [
            Trace(
                " ".join(key[::2]),
                [" ".join(key[::2]) for one in found[key] for _ in range(3)],
                "span",
                3 if key[1] == "critical" else 1,
                x=[moment for one in found[key] for moment in (one.begin, one.end, None)],
            )
            for key in ordered
        ]
        return Section(
            "alerts",
            "Alerts",
            "Alerts and their duration. docs/operations.md has a runbook for each.",
            ("Alert", "Severity", "About", "First", "Last", "Times", "In total"),
            5,
            rows,
            "No alert fired in this period.",
            traces,
        )

    def _when(self, episodes: Sequence[Episode], last: str = "") -> tuple[str, str, str, str]:
        return (
            self._time(episodes[0].begin),
            last or self._time(episodes[-1].end),
            str(len(episodes)),
            duration(sum(one.seconds for one in episodes)),
        )

    def _changes(self) -> Section:
        told = self.told
        good = told.by("activation_good", "instance", "service")
        found = []
        for one in told.over_time["activated"]:
            host, service = one.labels.get("instance", ""), one.labels.get("service", "")
            known = good.get((host, service), one.values)
            # A time that is seen at several points is one change.
            last: dict[float, int] = {
                moment: place for place, moment in enumerate(one.values) if moment is not None
            }
            for moment, place in last.items():
                if moment > told.begin:
                    release = (
                        f"{one.labels.get('release', '')} {one.labels.get('version', '')}".strip()
                    )
                    result = "good" if known[place] else "failed, the former one was restored"
                    found.append((moment, host, service, release, result))
        return Section(
            "changes",
            "Changes",
            "Releases that were activated.",
            ("Time", "Host", "Service", "Release", "Result"),
            5,
            [(self._time(moment), *rest) for moment, *rest in sorted(found)],
            "Nothing was changed in this period.",
        )

    def _silent(self) -> Section:
        told = self.told
        found = [
            (key, told.episodes(values))
            for key, values in told.by("silent", "instance", "service", "job").items()
        ]
        rows = [
            (*key, *self._when(episodes))
            for key, episodes in sorted(found, key=lambda one: one[1][0].begin if one[1] else 0)
            if episodes
        ]
        return Section(
            "silent",
            "Targets that did not answer Prometheus",
            "Targets that were down or unreachable.",
            ("Host", "Service", "Job", "First", "Last", "Times", "In total"),
            5,
            rows,
            "Every target answered all the time.",
        )


def _shown(label: str) -> str:
    """Return a label as the report shows it: the gateway writes None where it has nothing."""
    return label.removesuffix("None").strip() or NONE


def _of_alert(labels: Mapping[str, str]) -> tuple[str, str, str]:
    """Its name, its severity, and what it is about."""
    rest = {
        name: value
        for name, value in labels.items()
        if name not in ("__name__", "alertname", "alertstate", "severity", "host")
    }
    about = [rest.pop(name) for name in ("instance", "service") if name in rest]
    about += [f"{name}={value}" for name, value in sorted(rest.items())]
    return labels["alertname"], labels.get("severity", ""), " ".join(about)
