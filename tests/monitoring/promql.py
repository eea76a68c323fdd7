"""What an expression of Prometheus asks for, and what the servers of the stack are known to show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

METRICS = Path(__file__).parent / "metrics"
"""One file per job, its lines as record.py prints them."""

RULES = sorted(Path(__file__).parents[2].glob("roles/prometheus/files/rules/*.yml"))

OF_PROMETHEUS = {"up": {"job"}, "ALERTS": {"alertname", "alertstate", "severity"}}
"""What Prometheus itself adds, beside the labels of targets."""

OF_TARGETS = {"job", "instance", "host", "service", "target"}
"""Labels that the scrape configuration gives."""

WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "group_left", "group_right", "inf"}


@cache
def known() -> dict[str, set[str]]:
    """Every metric and its labels."""
    found = {name: labels | OF_TARGETS for name, labels in OF_PROMETHEUS.items()}
    for path in METRICS.glob("*.txt"):
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                name, _kind, *labels = line.split()
                found.setdefault(name, set(OF_TARGETS)).update(labels[0].split(",") if labels else [])
    for rule in (rule for group in groups() for rule in group["rules"] if "record" in rule):
        found[rule["record"]] = grouped(rule["expr"])
    return found


def groups() -> list[dict[str, Any]]:
    """The groups of rules of all files."""
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of an expression with the labels that it is chosen by."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    for match in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(\s*\()?", text):
        name, matchers, function = match.groups()
        # Not a name: what begins with a digit (a duration) and what is called.
        if not function and name not in WORDS and not text[match.start() - 1 : match.start()].isdigit():
            yield name, set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)", matchers or ""))


def grouped(expression: str) -> set[str]:
    """The labels that an expression sums up or matches by."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression)
    return {label.strip() for one in lists for label in one.split(",") if label.strip()}


def unknown(expression: str) -> list[str]:
    """Metrics and labels of an expression that no server is known to show."""
    metrics = known()
    found = list(selectors(expression))
    problems = [name for name, _ in found if name not in metrics]
    problems += [f"{name}: {label}" for name, used in found if name in metrics for label in used - metrics[name]]
    labels = set(re.findall(r'"(\w+)", "\$1"', expression))  # what label_replace makes
    labels = labels.union(*(metrics.get(name, set()) for name, _ in found))
    return problems + [f"grouped by {label}" for label in sorted(grouped(expression) - labels)]
