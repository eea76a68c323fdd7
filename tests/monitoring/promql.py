"""What an expression of Prometheus asks for, and what the servers of the stack are known to
show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from modelyard.dashboards.queries import queries

METRICS = Path(__file__).parent / "metrics"
"""One file per job, its lines as record.py prints them."""

RULES = sorted(Path(__file__).parents[2].glob("roles/prometheus/files/rules/*.yml"))

DASHBOARDS = Path(__file__).parents[2] / "roles/grafana/files/dashboards"

OF_PROMETHEUS = {"up": {"job"}, "ALERTS": {"alertname", "alertstate", "severity"}}
"""What Prometheus itself adds, beside the labels of targets."""

OF_TARGETS = {"job", "instance", "host", "service", "target"}
"""Labels that the scrape configuration gives."""

WORDS = {
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "inf",
}
LISTS = r"(?:by|without|on|ignoring|group_left|group_right)"
JOINS = r"\b(?:and|or|unless)\b"

EXCUSED = {
    "modelyard_gpu_": "no GPU in the lab",
    "litellm_cache_hits_metric_total": "the cache of answers is off, as shipped",
    "litellm_cached_tokens_metric_total": "the cache of answers is off, as shipped",
}
"""How metrics begin that molecule/engines does not have, and why. Its test fails if one is there
after all."""

REFUSALS = {
    'exception_status="401"': "every key is right in the lab",
    'exception_status="403"': "every key is right in the lab",
}
"""By what metrics are chosen that show themselves in tests/gateway only, and why."""


@cache
def known() -> dict[str, set[str]]:
    """Every metric and its labels."""
    found = {name: labels | OF_TARGETS for name, labels in OF_PROMETHEUS.items()}
    for path in METRICS.glob("*.txt"):
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                name, _kind, *labels = line.split()
                found.setdefault(name, set(OF_TARGETS)).update(
                    labels[0].split(",") if labels else []
                )
    for rule in (rule for group in groups() for rule in group["rules"] if "record" in rule):
        found[rule["record"]] = grouped(rule["expr"])
    return found


def groups() -> list[dict[str, Any]]:
    """The groups of rules of all files."""
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def masked(expression: str) -> str:
    """An expression without what stands in quotes, which may look like anything. The rest keeps its
    place."""
    return re.sub(r'"([^"]*)"', lambda quoted: f'"{" " * len(quoted[1])}"', expression)


def chosen(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric of an expression, alone and with the labels that it is chosen by."""
    text = re.sub(
        rf"\[[^\]]*\]|\b{LISTS}\s*\([^)]*\)", lambda found: " " * len(found[0]), masked(expression)
    )
    for match in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(\s*\()?", text):
        name, matchers, function = match.groups()
        # Not a name: what begins with a digit (a duration) and what is called.
        if (
            not function
            and name not in WORDS
            and not text[match.start() - 1 : match.start()].isdigit()
        ):
            yield name, name + (expression[slice(*match.span(2))] if matchers else "")


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of an expression and the names of the labels that it is chosen by."""
    for name, choice in chosen(expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=|!)", masked(choice)))


def operands(expression: str) -> Iterator[str]:
    """The parts of a rule that have values on good days, too: what it compares, or joins by `and`,
    `or` and `unless`.

    Of `a / (b > 0) > 0.9` that is `a / (b > 0)`; of what has a join in parentheses, what is joined:
    of `sum by (l) (a unless a offset 5m)` it is `a`, as it is now.
    """
    text, depth, begin, opened = masked(expression), 0, 0, 0
    pieces, groups = [], []
    for match in re.finditer(rf"[(\[{{]|[)\]}}]|{JOINS}|[<>]=?|[=!]=", text):
        if match[0] in "([{":
            opened = opened if depth else match.start()
            depth += 1
        elif match[0] in ")]}":
            depth -= 1
            if depth == 0 and match[0] == ")" and not re.search(rf"\b{LISTS}\s*$", text[:opened]):
                groups.append(expression[opened + 1 : match.start()])
        elif depth == 0:
            pieces.append(expression[begin : match.start()])
            begin = match.end()
    if pieces:
        for piece in [*pieces, expression[begin:]]:
            yield from operands(re.sub(rf"^(\s|bool\b|{LISTS}\s*\([^)]*\))*", "", piece))
    elif re.search(JOINS, text):
        for group in groups:
            yield from operands(group)
    elif any(chosen(expression)):
        yield re.sub(r"\s+offset \w+", "", expression).strip()


def grouped(expression: str) -> set[str]:
    """The labels that an expression sums up or matches by."""
    lists = re.findall(
        r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression
    )
    return {label.strip() for one in lists for label in one.split(",") if label.strip()}


def unknown(expression: str) -> list[str]:
    """Metrics and labels of an expression that no server is known to show."""
    metrics = known()
    found = list(selectors(expression))
    problems = [name for name, _ in found if name not in metrics]
    problems += [
        f"{name}: {label}"
        for name, used in found
        if name in metrics
        for label in used - metrics[name]
    ]
    labels = set(re.findall(r'"(\w+)", "\$1"', expression))  # what label_replace makes
    labels = labels.union(*(metrics.get(name, set()) for name, _ in found))
    return problems + [f"grouped by {label}" for label in sorted(grouped(expression) - labels)]


def panels() -> set[str]:
    """The expressions of all panels and annotations."""
    return {query.expression for query in queries(DASHBOARDS)}


def rules() -> set[str]:
    """The expressions of all rules."""
    return {rule["expr"] for group in groups() for rule in group["rules"]}


def parts() -> set[str]:
    """What has to have a value in a real Prometheus that watches real servers at work.

    The expression of a panel as it is. That of a rule has none on a good day, its operands have.
    And each metric with the labels that it is chosen by: `or vector(0)` hides one that is not
    there.
    """
    alone = {choice for expression in panels() | rules() for _, choice in chosen(expression)}
    return (
        alone | panels() | {operand for expression in rules() for operand in operands(expression)}
    )


def excuse(expression: str) -> str | None:
    """Why molecule/engines has no value for an expression."""
    reasons = [
        *(
            reason
            for name, _ in chosen(expression)
            for begin, reason in EXCUSED.items()
            if name.startswith(begin)
        ),
        *(
            reason
            for _, choice in chosen(expression)
            for label, reason in REFUSALS.items()
            if label in choice
        ),
    ]
    return next(iter(reasons), None)
