"""The compiled plan as text for people. No colours, no clock: the same plan is the same text."""

from __future__ import annotations

from modelyard.compiler import Compiled
from modelyard.names import url_host


def plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def render_summary(compiled: Compiled) -> str:
    """Two or three lines: what is valid, and what is left out."""
    lines = [
        f"The catalogue is valid: {plural(len(compiled.plans), 'host')}, "
        f"{plural(len(compiled.public_names), 'public name')}, {plural(len(compiled.warnings), 'warning')}."
    ]
    for entry in compiled.left_out:
        if entry["kind"] != "step":
            lines.append(f"Left out: {entry['kind']} {entry['name']}: {entry['reason']}")
    return "\n".join(lines)


def render_plan(compiled: Compiled) -> str:
    """What runs where, who answers for which name, and what is left out and why."""
    lines: list[str] = []
    for host, plan in compiled.plans.items():
        lines.append(f"Host {host}")
        rows = [
            (
                f"{url_host(s['address'])}:{s['port']}",
                s["unit"].removesuffix(".service"),
                ", ".join(s["models"]),
            )
            for s in plan["services"]
        ]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines += [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows] or ["  nothing"]
        lines.append("")
    lines.append("Who answers, in this order")
    for route in compiled.routes:
        alias = f" (alias of {route['target']})" if route["target"] else ""
        kind = " (capability)" if route["kind"] == "capability" else ""
        lines.append(f"  {route['name']}{alias}{kind}")
        width = max(len(attempt["model"]) for attempt in route["attempts"])
        for number, attempt in enumerate(route["attempts"], start=1):
            where = ", ".join(attempt["where"])
            lines.append(f"    {number}. {attempt['model']:<{width}}  {attempt['provider']} on {where}")
        lines += [f"    -  {step['model']} is left out: {step['reason']}" for step in route["left_out"]]
    rest = [entry for entry in compiled.left_out if entry["kind"] != "step"]
    if rest:
        lines += ["", "Left out"]
        for entry in rest:
            models = f" ({', '.join(entry['models'])})" if entry["models"] else ""
            lines.append(f"  {entry['kind']} {entry['name']}: {entry['reason']}{models}")
    if compiled.warnings:
        lines += ["", "Warnings"]
        lines += [f"  {line}" for warning in compiled.warnings for line in warning.render().splitlines()]
    return "\n".join(lines)
