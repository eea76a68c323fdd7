"""What dashboards, rules and the report have in common: the rules say the same, and what grew is
counted exactly."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from promql import groups, unknown

from modelyard.dashboards.expressions import asked, grown, per_second, summed, unanswered
from modelyard.report.queries import AT_THE_END, over_time

QUERIES = over_time(300) | {f"{name} at the end": text for name, text in AT_THE_END.items()}


def words(expression: str) -> str:
    """Without what folding a long line leaves."""
    return "".join(expression.split())


def test_the_recorded_rules_are_these_expressions() -> None:
    recorded = {
        rule["record"]: rule["expr"]
        for group in groups()
        for rule in group["rules"]
        if "record" in rule
    }
    way = per_second("5m")
    wanted = {
        "modelyard:requests:rate5m": asked(way),
        "modelyard:requests_unanswered:rate5m": unanswered(way),
    }
    assert {name: words(text) for name, text in recorded.items()} == {
        n: words(text) for n, text in wanted.items()
    }


@pytest.mark.parametrize("name", QUERIES)
def test_the_report_asks_for_what_the_servers_show(name: str) -> None:
    assert unknown(QUERIES[name]) == []


def test_prometheus_understands_what_the_report_asks(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"q{place}", "expr": text} for place, text in enumerate(QUERIES.values())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("up", "samples", "minutes"),
    [
        # The exact growth of each minute: they add up to all of it.
        pytest.param("1x20", "0 0 1 5 5 5 5 5 5 7 7 7 9", {1: 5, 2: 0, 3: 4}, id="counted"),
        pytest.param("1x20", "_ _ _ _ _ _ _ _ 7 7 7 9 9", {1: None, 2: 7, 3: 2}, id="new"),
        pytest.param(
            "_ _ _ _ _ 1x20",
            "_ _ _ _ _ 900 900 900 900 900 900 900 900",
            {2: 0, 3: 0},
            id="watched anew",
        ),
        pytest.param(
            "1 1 1 1 0 1x20", "9 9 9 9 stale 10 10 10 10 10 10 10 11", {1: 0, 2: 1, 3: 1}, id="gap"
        ),
        pytest.param(
            "1 1 1 1 0 0 1x20",
            "_ _ _ _ _ _ 7 7 7 7 7 7 7",
            {1: None, 2: 7, 3: 0},
            id="new after a gap",
        ),
        pytest.param(
            "1x20", "100 100 100 100 100 2 2 2 2 2 2 2 2", {1: 0, 2: 2, 3: 0}, id="began anew"
        ),
    ],
)
def test_what_grew(
    promtool: str, tmp_path: Path, up: str, samples: str, minutes: dict[int, float | None]
) -> None:
    """Every 15 seconds a sample."""
    tests = [
        {
            "expr": summed(grown("60s"), "c", "instance"),
            "eval_time": f"{minute}m",
            "exp_samples": [] if value is None else [{"labels": '{instance="h"}', "value": value}],
        }
        for minute, value in minutes.items()
    ]
    series = [
        {"series": 'up{job="litellm",instance="h"}', "values": up},
        {"series": 'c{job="litellm",instance="h"}', "values": samples},
    ]
    path = tmp_path / "test.yml"
    path.write_text(
        json.dumps(
            {"tests": [{"interval": "15s", "input_series": series, "promql_expr_test": tests}]}
        )
    )
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
