"""Grafana's dashboards: the files are what the code makes, and every panel is complete and asks for
what is there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from promql import known, selectors, unknown

from modelyard.dashboards.boards import texts
from modelyard.dashboards.expressions import RELEASE
from modelyard.dashboards.queries import Query, queries

FILES = Path(__file__).parents[2] / "roles/grafana/files/dashboards"
BOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in texts().items()}
PANELS = [
    (name, panel)
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
QUERIES = list(queries(FILES))
IDENTIFIERS = [f"{name.removesuffix('.json')}: {panel['title']}" for name, panel in PANELS]


def test_the_files_are_what_the_code_makes() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in FILES.glob("*.json")}
    assert found == texts(), "run `make docs`"


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=IDENTIFIERS)
def test_a_panel_is_complete(name: str, panel: dict[str, Any]) -> None:
    field = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert field["unit"]
    assert field["thresholds"]["steps"][0]["value"] is None
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["expr"]
        assert target["legendFormat"]
        assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "modelyard-prometheus"


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=IDENTIFIERS)
def test_a_legend_names_labels_that_are_there(name: str, panel: dict[str, Any]) -> None:
    """What is summed up has the labels it was summed by, anything else those of its metrics."""
    metrics = known()
    for target in panel["targets"]:
        expression = target["expr"]
        outermost = re.match(
            r"[^(]*?(?:[\d.*]+ \* )?(?:sum|max|min|avg)(?: by \(([^)]*)\))? \(", expression
        )
        if outermost or "histogram_quantile" in expression:
            there = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
        else:
            there = set().union(*(metrics[metric] for metric, _ in selectors(expression)))
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        # An alert has the labels of what it is about.
        assert wanted <= there or "ALERTS" in expression, target["legendFormat"]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.dashboard}: {query.panel}")
def test_a_query_asks_for_what_the_servers_show(query: Query) -> None:
    assert unknown(query.raw) == []
    assert "$_" not in query.expression


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"modelyard-{name.removesuffix('.json')}"
    assert [one["name"] for one in board["annotations"]["list"]] == ["Changes", "Critical alerts"]
    identifiers = [panel["id"] for panel in board["panels"]]
    assert len(identifiers) == len(set(identifiers))
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels cover each other"
    assert max(x for x, _ in cells) < 24


def test_prometheus_understands_every_query(promtool: str, tmp_path: Path) -> None:
    """As rules, because promtool of this age parses nothing else."""
    rules = [
        {"record": f"q{place}", "expr": query.expression} for place, query in enumerate(QUERIES)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_two_releases_the_later_is_live(promtool: str, tmp_path: Path) -> None:
    """Whoever joins both gets an error instead of a value, and Prometheus shows both after it was
    restarted itself."""
    series = 'modelyard_release_info{{instance="one",service="redis",release="{}"}}'
    test = {
        "interval": "1m",
        "input_series": [
            {"series": series.format("former"), "values": "1 1 _ _"},
            {"series": series.format("live"), "values": "_ _ 1 1"},
        ],
        "promql_expr_test": [
            {
                "expr": RELEASE,
                "eval_time": "3m",
                "exp_samples": [
                    {"labels": '{instance="one",service="redis",release="live"}', "value": 1}
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(json.dumps({"tests": [test]}))
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
