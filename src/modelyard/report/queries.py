"""The period of a report, and what Prometheus is asked about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modelyard.dashboards.expressions import (
    FAILED,
    NOT_TAKEN,
    POOL_ANSWERS,
    POOL_QUEUE,
    POOL_STATUS,
    POOLED,
    READ,
    REFUSED,
    RELEASE,
    TAKEN,
    TTFT,
    WRITTEN,
    asked,
    by_provider,
    grown,
    refused,
    summed,
    unanswered,
)

STEPS = [60 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)]
MOST_POINTS = 300
"""More than a plot can show."""


class ReportError(Exception):
    """No report can be made, and why."""


@dataclass(frozen=True, slots=True)
class Span:
    """How long a period is: `points` times `step_s` seconds."""

    points: int
    step_s: int

    @property
    def seconds(self) -> int:
        """The length of the period in seconds."""
        return self.points * self.step_s


def span(hours: object, retention_days: int) -> Span:
    """Return the requested period, in whole steps. Raises ReportError if it makes no sense."""
    try:
        wanted = float(str(hours))
    except ValueError:
        wanted = math.nan
    if not (math.isfinite(wanted) and wanted > 0):
        raise ReportError(
            f"hours={hours}: how many hours back? A number above zero, for example -e hours=24"
        )
    if wanted > retention_days * 24:
        raise ReportError(
            f"hours={hours}: Prometheus keeps {retention_days} days, which are"
            f" {retention_days * 24} hours (llm_monitoring.prometheus.retention_days)"
        )
    step = next((step for step in STEPS if wanted * 3600 <= step * MOST_POINTS), STEPS[-1])
    return Span(math.ceil(wanted * 3600 / step), step)


def over_time(step_s: int) -> dict[str, str]:
    """Return what is asked for each step: by name, the expression about the `step_s` seconds before
    a point.
    """
    window = f"{step_s}s"
    way = grown(window)
    return {
        "watched": f"max(count_over_time(up[{window}]))",
        "silent": (
            "1 - min by (job, instance, service)"
            f" (avg_over_time(probe_success[{window}]) or avg_over_time(up[{window}])) > 0"
        ),
        "asked": asked(way),
        "unanswered": unanswered(way),
        "answers": by_provider(way),
        "taken": summed(way, TAKEN, "requested_model", "fallback_model"),
        "not_taken": summed(way, NOT_TAKEN, "requested_model", "fallback_model"),
        "first_tokens": summed(way, f"{TTFT}_bucket", "requested_model", "le"),
        "read": summed(way, READ, "requested_model"),
        "written": summed(way, WRITTEN, "requested_model"),
        "errors": summed(way, FAILED, "requested_model", "exception_class", "exception_status"),
        "refused": refused(way),
        "refusals": summed(way, REFUSED, "api_key_alias", "status_code"),
        "pooled": summed(way, POOL_ANSWERS, "proxy", "server"),
        "queued": f"max by (proxy) (max_over_time({POOL_QUEUE}[{window}]))",
        "pool_down": (
            "max by (proxy, server)"
            f' (avg_over_time({POOL_STATUS}{{{POOLED},state="DOWN"}}[{window}])) > 0'
        ),
        "firing": f'count_over_time(ALERTS{{alertstate="firing"}}[{window}])',
        "activated": (
            "modelyard_activation_last_timestamp_seconds * on (instance, service) group_left"
            f" (release, version) {RELEASE} or modelyard_activation_last_timestamp_seconds unless"
            " on (instance, service) modelyard_release_info"
        ),
        "activation_good": "modelyard_activation_last_success",
    }


AT_THE_END = {"firing": 'ALERTS{alertstate="firing"}'}
"""What is asked once, by name."""
