"""Ask Prometheus where it runs, write the report here. Documented in the module of this name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from modelyard.catalogue.sourcemap import plain
from modelyard.names import journal
from modelyard.plan.parts import HaproxyPart, PrometheusPart
from modelyard.report.page import page
from modelyard.report.parts import Pool
from modelyard.report.queries import AT_THE_END, ReportError, over_time, span
from modelyard.report.sections import Author
from modelyard.report.told import read
from modelyard_ansible.action import Action, Refusal, write_whole

CLONE = Path(__file__).parents[2]


class ActionModule(Action):
    """Runs on the host that has Prometheus; the page is written on the controller."""

    TRANSFERS_FILES = False

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return where the page is. Raises Refusal, and leaves what was there."""
        arguments = self._options(
            {
                "plans": {"type": "dict", "required": True},
                "public_names": {"type": "list", "elements": "str", "required": True},
                "hours": {"type": "str", "default": "24"},
                "destination": {"type": "str", "default": ""},
                "inventory": {"type": "str", "required": True},
            }
        )
        host, settings = watcher(arguments["plans"])
        try:
            period = span(arguments["hours"], settings.retention_days)
        except ReportError as error:
            raise Refusal(str(error)) from None
        answer = self._module(
            variables,
            {
                "url": f"http://{settings.listen[0]}:{settings.port}",
                "points": period.points,
                "step_s": period.step_s,
                "over_time": over_time(period.step_s),
                "at_the_end": AT_THE_END,
                "hint": f"{journal('modelyard-prometheus.service')}    (on {host})",
            },
            "modelyard_prometheus",
        )
        if "over_time" not in answer:
            return answer
        told = read(plain(answer), period)
        if not told.over_time["watched"]:
            raise Refusal(
                f"Prometheus on {host} has no data for the last {arguments['hours']} hours"
            )
        now = time.time()
        report = Author(
            told,
            plain(arguments["public_names"]),
            settings.scrape_interval_s,
            clock,
            pools_of(arguments["plans"]),
        ).write()
        text = page(report, told, shown(arguments["inventory"]), now, clock, get_plotlyjs())
        path = Path(
            os.path.abspath(
                os.path.expanduser(arguments["destination"] or f"report-{clock(now):%Y-%m-%d}.html")
            )
        )
        if self._writes:
            try:
                write_whole(path, text)
            except OSError as error:
                raise Refusal(f"the report cannot be written to {path}: {error.strerror}") from None
        figures = ", ".join(f"{name.lower()} {value}" for name, value in report.headline.items())
        lines = [
            f"{clock(told.begin):%Y-%m-%d %H:%M} to {clock(told.end):%Y-%m-%d %H:%M %Z}: {figures}",
            *report.missing,
        ]
        lines.append(path.as_uri() if self._writes else "Check mode: nothing was written.")
        return {"changed": True, "path": str(path), "summary": "\n".join(lines)}


def clock(moment: float) -> datetime:
    """Return a time, in seconds since 1970, as the controller's: the report is read there."""
    return datetime.fromtimestamp(moment).astimezone()


def watcher(plans: Mapping[str, Any]) -> tuple[str, PrometheusPart]:
    """Return the host that has Prometheus, and its part of the plan.

    Raises Refusal if there is none.
    """
    for host, plan in plans.items():
        if plan["prometheus"] is not None:
            return host, PrometheusPart.model_validate(plain(plan["prometheus"]))
    raise Refusal(
        "This inventory has no monitoring, so there is nothing to report: its group "
        "llm_monitoring is empty, or `llm_monitoring: false` disables it\n  try: put a host into "
        "llm_monitoring, run site.yml, and run this again after some traffic"
    )


def pools_of(plans: Mapping[str, Any]) -> dict[str, Pool]:
    """Return the pools of engines by name. Every gateway has the same."""
    for plan in plans.values():
        if plan["haproxy"] is not None:
            part = HaproxyPart.model_validate(plain(plan["haproxy"]))
            return {
                name: Pool(list(one.servers), one.max_parallel, one.queue_s)
                for name, one in part.pools.items()
            }
    return {}


def shown(inventory: str) -> str:
    """Return the inventory's directory as it is named in the clone.

    Of any other it is the last part: a path of the user's stays out of a page that is passed on.
    """
    path = Path(inventory)
    return str(path.relative_to(CLONE)) if path.is_relative_to(CLONE) else path.name
