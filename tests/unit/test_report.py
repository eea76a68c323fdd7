"""The report's figures and page, from answers as Prometheus gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import pytest

from modelyard.report.figures import duration, seconds, share
from modelyard.report.page import page
from modelyard.report.parts import Pool, Report, Section
from modelyard.report.queries import AT_THE_END, ReportError, Span, over_time, span
from modelyard.report.sections import Author
from modelyard.report.told import Told, percentile, read

SPAN = Span(points=10, step_s=60)
END = 1_800_000_000
BEGIN = END - SPAN.seconds
Values = Sequence[float | None]
Answers = Sequence[tuple[Mapping[str, str], Values]]

ALL = [6.0] * 10
"""Prometheus asks every ten seconds."""


def clock(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def told(
    at_end: Mapping[str, Sequence[tuple[Mapping[str, str], str]]] | None = None, **series: Answers
) -> Told:
    """What the module would return; nothing for what is not given."""
    series.setdefault("watched", [({}, ALL)])
    moments = [BEGIN + SPAN.step_s * (place + 1) for place in range(SPAN.points)]
    answer = {
        "end": END,
        "over_time": {
            name: [
                {
                    "metric": labels,
                    "values": [
                        (t, str(v)) for t, v in zip(moments, values, strict=True) if v is not None
                    ],
                }
                for labels, values in series.get(name, ())
            ]
            for name in over_time(SPAN.step_s)
        },
        "at_the_end": {
            name: [
                {"metric": labels, "value": [END, text]}
                for labels, text in (at_end or {}).get(name, ())
            ]
            for name in AT_THE_END
        },
    }
    return read(json.loads(json.dumps(answer)), SPAN)


def report(what: Told, *names: str) -> tuple[Report, dict[str, Section]]:
    made = Author(what, names or ("a", "b"), 10, clock, {}).write()
    return made, {section.slug: section for section in made.sections}


def text_of(what: Told, *names: str) -> str:
    return page(report(what, *names)[0], what, "inventories/x", END + 1, clock, "/* plotly */")


A, B = {"requested_model": "a"}, {"requested_model": "b"}
OUTAGE = {
    "asked": [(A, [10] * 10), (B, [1] + [0] * 9), ({"requested_model": ""}, [1] * 10)],
    "unanswered": [(A, [None] * 5 + [4, 4, 0, 0, 0])],
    "answers": [
        ({"provider": "p"}, [10] * 5 + [0] * 5),
        ({"provider": "q"}, [None] * 5 + [6, 6, 10, 10, 10]),
    ],
    "taken": [({**A, "fallback_model": "b"}, [None] * 5 + [6, 6, 10, 10, 10])],
    "not_taken": [({**A, "fallback_model": "b"}, [None] * 5 + [4, 4, 0, 0, 0])],
    "errors": [
        (
            {**A, "exception_class": "Openai.APIConnectionError", "exception_status": "500"},
            [None] * 5 + [8] * 1 + [0] * 4,
        )
    ],
    "refused": [({}, [0] * 5 + [8] + [0] * 4)],
    "refusals": [
        ({"api_key_alias": "app", "status_code": "429"}, [3] * 10),
        ({"api_key_alias": "", "status_code": "401"}, [None] * 9 + [2]),
        ({"api_key_alias": "app", "status_code": "400"}, [0] * 10),
    ],
    "read": [(A, [5] * 10)],
    "written": [(A, [100] * 10), (B, [7] + [0] * 9)],
    "first_tokens": [
        ({**A, "le": bound}, [many] * 5 + [None] * 5)
        for bound, many in (("0.1", 1), ("0.5", 2), ("+Inf", 2))
    ],
    "firing": [
        (
            {
                "alertname": "TargetDown",
                "severity": "critical",
                "instance": "h",
                "service": "s",
                "job": "j",
            },
            [None] * 6 + [3, 6, 6, None],
        )
    ],
}


@pytest.mark.parametrize(
    ("hours", "points", "step_s"),
    [(24, 288, 300), ("1", 60, 60), (0.01, 1, 60), ("2.51", 151, 60), (720, 240, 10800)],
)
def test_a_period_is_whole_steps_and_no_plot_has_too_many(
    hours: object, points: int, step_s: int
) -> None:
    assert span(hours, 30) == Span(points, step_s)


@pytest.mark.parametrize("hours", ["", "0", "-1", "nan", "inf", "day", None, True, "1e-400"])
def test_what_is_no_number_of_hours_is_refused(hours: object) -> None:
    with pytest.raises(ReportError, match="A number above zero, for example -e hours=24"):
        span(hours, 30)


def test_nothing_is_older_than_what_is_kept() -> None:
    with pytest.raises(
        ReportError, match=r"hours=49: Prometheus keeps 2 days, which are 48 hours \(llm_monitoring"
    ):
        span("49", 2)


def test_the_figures_of_an_outage() -> None:
    made, found = report(told(**OUTAGE), "a", "b", "c")
    assert made.headline == {
        "Requests": "109",
        "Answered": "85.32 %",
        "By a fallback": "42",
        "First token, p95": "460 ms",
        "Tokens": "1,057",
        "Alerts that fired": "1",
    }
    assert made.missing == []
    assert found["availability"].rows == [
        ("a", "100", "92", "42", "8", "92.00 %"),
        ("b", "1", "1", "0", "0", "100 %"),
        ("c", "no request", "-", "-", "-", "-"),
        ("(no gateway was ready)", "8", "0", "0", "8", "0.00 %"),
    ]
    assert found["availability"].traces[0].y == [1, 1, 1, 1, 1, 0.6, 0.6, 1, 1, 1]
    assert found["availability"].traces[1].y == [1, *[None] * 9]
    assert found["providers"].rows == [("p", "50", "54.34 %"), ("q", "42", "45.65 %")]
    assert found["fallbacks"].rows == [("a", "b", "42", "8")]
    assert found["first-token"].rows == [("a", "10", "100 ms", "460 ms", "492 ms")]
    assert found["tokens"].rows == [
        ("a", "50", "1,000", "1,050"),
        ("b", "0", "7", "7"),
        ("all", "50", "1,007", "1,057"),
    ]
    assert found["errors"].rows == [
        ("a", "Openai.APIConnectionError", "500", "8"),
        ("-", "the front end: no gateway was ready", "503", "8"),
        ("-", "refused: client app", "429", "30"),
        ("-", "refused: no client's key", "401", "2"),
    ]
    # From half a minute into its first step to the end of its last one.
    assert found["alerts"].rows == [
        (
            "TargetDown",
            "critical",
            "h s job=j",
            "Jan\u00a015\u00a007:56:30",
            "Jan\u00a015\u00a007:59:00",
            "1",
            "2 min 30 s",
        )
    ]
    assert [
        trace.colour for slug in ("availability", "tokens") for trace in found[slug].traces
    ] == [0, 1, 0, 1]


def test_hosts_that_share_a_model() -> None:
    """One of the plan was not asked, one that is no longer in the plan was."""
    one, two = ({"proxy": "pool.p.a", "server": host} for host in ("gpu1", "gpu2"))
    former = {"proxy": "pool.old", "server": "gpu9"}
    what = told(
        pooled=[(one, [3] * 10), (two, [1] * 10), (former, [None] * 9 + [2])],
        queued=[({"proxy": "pool.p.a"}, [0] * 8 + [5, 1])],
        pool_down=[(two, [None] * 4 + [1, 0.5, None, None, None, None])],
    )
    pools = {"pool.p.a": Pool(["gpu1", "gpu2", "gpu3"], 4, 60), "pool.q": Pool(["gpu1"], None, 5)}
    made = Author(what, ("a",), 10, clock, pools).write()
    (section,) = (section for section in made.sections if section.slug == "pools")
    assert section.rows == [
        ("p.a", "gpu1", "4", "60 s", "30", "75.00 %", "-", "5"),
        ("p.a", "gpu2", "4", "60 s", "10", "25.00 %", "1 min 30 s", "5"),
        ("p.a", "gpu3", "4", "60 s", "0", "0.00 %", "-", "5"),
        ("q", "gpu1", "any", "5 s", "0", "-", "-", "0"),
        ("old", "gpu9", "-", "-", "2", "100 %", "-", "0"),
    ]
    assert [trace.name for trace in section.traces] == ["old gpu9", "p.a gpu1", "p.a gpu2"]
    assert "<td>gpu3</td>" in page(made, what, "inventories/x", END + 1, clock, "")


def test_an_alert_that_fires_at_the_end_still_does() -> None:
    labels = {"alertname": "X", "severity": "warning", "model_id": "p/h/a"}
    _, found = report(
        told(
            {"firing": [({**labels, "__name__": "ALERTS"}, "1")]},
            firing=[(labels, [None] * 9 + [2])],
        )
    )
    assert found["alerts"].rows == [
        ("X", "warning", "model_id=p/h/a", "Jan\u00a015\u00a007:59:00", "still firing", "1", "20 s")
    ]


def test_without_traffic_it_is_said_and_nothing_is_drawn() -> None:
    what = told(asked=[(A, [0] * 10)], refused=[({}, [0] * 10)])
    made, found = report(what)
    assert made.headline == {"Requests": "none", "Alerts that fired": "0"}
    assert {slug: section.empty for slug, section in found.items()} == {
        "availability": "No request reached the gateway in this period.",
        "providers": "No provider was called in this period.",
        "fallbacks": "No fallback was needed in this period.",
        "pools": "No pool of engines in this inventory.",
        "first-token": "No answer was streamed in this period.",
        "tokens": "No tokens were read or written in this period.",
        "errors": "No request failed in this period.",
        "alerts": "No alert fired in this period.",
        "changes": "Nothing was changed in this period.",
        "silent": "Every target answered all the time.",
    }
    assert all(not section.rows for section in found.values())
    text = text_of(what)
    assert '<div class="plot"' not in text
    assert all(section.empty in text for section in found.values())


def test_a_gateway_that_did_not_answer_is_not_one_without_traffic() -> None:
    labels = {"job": "litellm", "instance": "h", "service": "litellm"}
    made, found = report(told(silent=[(labels, [1.0] * 10)]))
    assert made.headline["Requests"] == "not known"
    assert (
        found["availability"].empty
        == "Not known: the gateway did not answer Prometheus in this period."
    )
    assert made.missing == [
        "The gateway on h did not answer Prometheus for 10 min 0 s between"
        " Jan\u00a015\u00a007:50:00 and Jan\u00a015\u00a008:00:00: figures may be late."
    ]
    assert found["silent"].rows[0][:3] == ("h", "litellm", "litellm")


@pytest.mark.parametrize(
    ("watched", "said"),
    [
        ([None] * 4 + [3] + [6] * 5, ["Prometheus has no data before Jan\u00a015\u00a007:54:30."]),
        (
            [6, 6, None, None, 6, 6, 6, 6, 6, 6],
            [
                "Prometheus has no data between Jan\u00a015\u00a007:52:00 and"
                " Jan\u00a015\u00a007:54:00."
            ],
        ),
        ([6] * 7 + [None] * 3, ["Prometheus has no data after Jan\u00a015\u00a007:57:00."]),
        (ALL, []),
    ],
)
def test_what_prometheus_does_not_know(watched: Values, said: list[str]) -> None:
    made, _ = report(told(watched=[({}, watched)]))
    assert made.missing == said


def test_changes_are_told_once_and_those_that_failed_as_such() -> None:
    at = {"instance": "h", "service": "redis"}
    what = told(
        activated=[
            ({**at, "release": "r1", "version": "7"}, [BEGIN - 5] * 4 + [None] * 6),
            (
                {**at, "release": "r2", "version": "7"},
                [None] * 4 + [BEGIN + 200] * 3 + [BEGIN + 400] * 3,
            ),
        ],
        activation_good=[(at, [1.0] * 7 + [0.0] * 3)],
    )
    assert report(what)[1]["changes"].rows == [
        ("Jan\u00a015\u00a007:53:20", "h", "redis", "r2 7", "good"),
        ("Jan\u00a015\u00a007:56:40", "h", "redis", "r2 7", "failed, the former one was restored"),
    ]


def test_only_so_many_are_drawn_and_all_are_in_the_table() -> None:
    many = [({"requested_model": f"m{place:02}"}, [20 - place] * 10) for place in range(12)]
    _, found = report(told(asked=many))
    assert len(found["availability"].rows) == 14
    assert [trace.name for trace in found["availability"].traces] == [
        f"m{place:02}" for place in range(8)
    ]


class Reader(HTMLParser):
    """Elements and what is written in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("td", "th"):
            self.cells[-1] += data


def test_a_name_is_never_markup() -> None:
    name = '<b>&"</script><script>alert(1)</script>'
    hostile: dict[str, Any] = {
        question: [
            ({label: text if label == "le" else name for label, text in labels.items()}, values)
            for labels, values in answers
        ]
        for question, answers in OUTAGE.items()
    }
    what = told(**hostile, silent=[({"job": name, "instance": name, "service": name}, [0.5] * 10)])
    text = text_of(what, name)
    reader = Reader(text)
    assert reader.cells.count(name) >= 8
    assert [tag for tag, _ in reader.elements].count("script") == 3
    assert "b" not in [tag for tag, _ in reader.elements]
    spec = json.loads(text.partition('id="plots">')[2].partition("</script>")[0])
    # Plotly reads some HTML, too.
    names = {trace["name"] for plot in spec["plots"] for trace in plot["traces"]}
    assert not any("<" in one for one in names)


def test_the_page_needs_nothing_else() -> None:
    text = text_of(told(**OUTAGE))
    assert re.findall(r"(?:src|href)\s*=", text) == []
    assert re.findall(r"https?://|@import|url\(", text) == []
    policies = [
        e["content"]
        for tag, e in Reader(text).elements
        if e.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies[0].startswith("default-src 'none';")
    assert text.count("/* plotly */") == 1


def test_the_page_says_when_where_and_in_what_time() -> None:
    def elsewhere(moment: float) -> datetime:
        return datetime.fromtimestamp(moment, timezone(timedelta(hours=2), "CEST"))

    what = told(**OUTAGE)
    made = Author(what, ["a"], 10, elsewhere, {}).write()
    text = page(made, what, "inventories/x", END + 1, elsewhere, "")
    assert "What happened on inventories/x" in text
    assert "Friday, 2027-01-15 09:50 to Friday, 2027-01-15 10:00, times in CEST (UTC+0200)" in text
    assert "by the minute. Made 2027-01-15 10:00:01." in text
    assert json.loads(text.partition('id="plots">')[2].partition("</script>")[0])["range"] == [
        "2027-01-15T09:50:00",
        "2027-01-15T10:00:00",
    ]


def test_numbers_for_people() -> None:
    assert [share(*pair) for pair in ((0, 0), (9999, 10000), (99999, 100000), (3, 3), (0, 7))] == [
        "-",
        "99.99 %",
        "99.99 %",
        "100 %",
        "0.00 %",
    ]
    assert [seconds(one) for one in (None, 0.0421, 1.5)] == ["-", "42 ms", "1.50 s"]
    assert [duration(one) for one in (7, 70, 3700, 200000)] == [
        "7 s",
        "1 min 10 s",
        "1 h 1 min",
        "2 d 7 h",
    ]


def test_percentiles_are_as_prometheus_estimates_them() -> None:
    buckets = {0.1: 50.0, 1.0: 90.0, 2.0: 100.0, float("inf"): 101.0}
    assert [percentile(share, buckets) for share in (0.25, 0.5, 0.99)] == pytest.approx(
        [0.0505, 0.11125, 1.999]
    )
    assert percentile(1, buckets) == 2
    assert percentile(0.5, {0.1: 0, float("inf"): 0}) is None
    assert percentile(0.5, {}) is None


@pytest.mark.parametrize(
    ("shares", "begin", "end", "seconds"),
    [
        ([None, 0.5, 1, 1, 0.25, 0], 90, 255, 165),
        # Twice for ten seconds, in two steps side by side: it is not known where in them.
        ([None, 1 / 6, 1 / 6, 0, None, None], 60, 180, 20),
        ([None, 0.5, None, None, None, None], 60, 120, 30),
        ([None, None, None, None, None, 1], 300, 360, 60),
    ],
)
def test_when_something_was_so(shares: Values, begin: float, end: float, seconds: float) -> None:
    what = Told(Span(6, 60), 360.0, {}, {})
    (found,) = what.episodes(shares)
    assert (found.begin, found.end, found.seconds) == pytest.approx((begin, end, seconds))
