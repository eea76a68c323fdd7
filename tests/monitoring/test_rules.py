"""The rules of Prometheus: each alert fires and stays silent when it should, and asks for what is
really there."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml
from promql import EXCUSED, RULES, chosen, groups, operands, panels, rules, unknown

HERE = Path(__file__).parent
TESTS = sorted(HERE.glob("rules/*_test.yml"))
ALERTS = {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}
"""All of them, by name."""


def test_every_file_has_its_tests() -> None:
    assert [f"{path.stem}_test" for path in RULES] == [path.stem for path in TESTS]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_prometheus_accepts_the_rules(promtool: str, path: Path) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_silent(promtool: str, path: Path) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def fired() -> dict[str, set[str]]:
    """The labels of every alert that fires in a test."""
    found: dict[str, set[str]] = {}
    for path in TESTS:
        for one in re.findall(r"'ALERTS\{(.*)\}'", path.read_text()):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', one))
            if "severity" in labels and labels["alertstate"] == "firing":
                found.setdefault(labels["alertname"], set()).update(labels)
    return found


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["for"]
    assert alert["labels"] in ({"severity": "warning"}, {"severity": "critical"})
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert annotations["runbook"] == f"docs/operations.md#{name.lower()}"
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(annotations.values())))
    assert used <= fired().get(name, set()), (
        "a label that the alert does not have would be left blank"
    )


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_what_the_servers_show(name: str) -> None:
    assert unknown(ALERTS[name]["expr"]) == []


def test_what_is_recorded_asks_for_what_the_servers_show() -> None:
    recorded = [rule["expr"] for group in groups() for rule in group["rules"] if "record" in rule]
    assert recorded
    assert [unknown(expression) for expression in recorded] == [[] for _ in recorded]


def test_the_list_of_our_own_exporter_is_complete() -> None:
    own = runpy.run_path(str(HERE.parents[1] / "roles/exporter/files/exporter.py"))["METRICS"]
    listed = [line.split()[:2] for line in (HERE / "metrics/host.txt").read_text().splitlines()[1:]]
    assert listed == sorted([name, kind] for name, (kind, _) in own.items())


@pytest.mark.parametrize("component", ["litellm", "llama_cpp", "vllm"])
def test_the_list_is_of_the_pinned_version(component: str) -> None:
    """Another version may show other metrics: record them anew (record.py)."""
    versions = yaml.safe_load((HERE.parents[1] / "group_vars/all/versions.yml").read_text())[
        "llm_versions"
    ]
    head = (HERE / f"metrics/{component}.txt").read_text().partition("\n")[0]
    assert versions[component]["version"] in head


def test_what_no_server_shows_is_found() -> None:
    """The names that vLLM had before, a label that is misspelt, one that is summed by and not
    there."""
    assert unknown("vllm:gpu_cache_usage_perc > 0.9") == ["vllm:gpu_cache_usage_perc"]
    assert unknown(
        'sum by (instance) (rate(redis_up{jop="redis"}[5m] offset 10m)) unless up == 0'
    ) == ["redis_up: jop"]
    overhead = "rate(litellm_overhead_latency_metric_bucket[5m])"
    assert unknown(f"histogram_quantile(0.95, sum by (modell, le) ({overhead}))") == [
        "grouped by modell"
    ]


def test_what_is_compared_or_joined_is_taken_apart() -> None:
    assert list(operands('a / (b{l="x > 1 or (y"} > 0) > bool 0.9')) == [
        'a / (b{l="x > 1 or (y"} > 0)'
    ]
    assert list(
        operands("(sum by (l) ((a unless a offset 5m) and on (l) b == 1)) or rate(c[5m]) > 0")
    ) == [
        "a",
        "a",
        "b",
        "rate(c[5m])",
    ]


def test_every_excuse_is_needed() -> None:
    asked = {name for expression in panels() | rules() for name, _ in chosen(expression)}
    assert [begin for begin in EXCUSED if not any(name.startswith(begin) for name in asked)] == []
