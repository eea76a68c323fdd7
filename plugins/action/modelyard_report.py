"""Ask Prometheus where it runs, write the report here. Documented in the module of this name."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from plotly.offline import get_plotlyjs

    from modelyard.catalogue.sourcemap import plain
    from modelyard.names import journal
    from modelyard.report.page import page
    from modelyard.report.queries import AT_THE_END, ReportError, over_time, span
    from modelyard.report.sections import Author
    from modelyard.report.told import read
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None

CLONE = Path(__file__).parents[2]


class Refusal(AnsibleActionFail):
    """Fails with its result alone: Ansible would print the message twice, the first time as a fault of the playbook."""

    omit_exception_key = True


class ActionModule(ActionBase):
    """Runs on the host that has Prometheus; the page is written on the controller."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return where the page is, or fail and leave what was there."""
        super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            raise AnsibleActionFail(
                f"{IMPORT_ERROR}. This Python ({sys.executable}) is not Modelyard's: run `make env`, then "
                "`.venv/bin/ansible-playbook` (or `. .venv/bin/activate` first)."
            )
        _, arguments = self.validate_argument_spec(
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
            period = span(arguments["hours"], settings["retention_days"])
        except ReportError as error:
            raise Refusal(str(error)) from None
        answer = self._execute_module(
            module_name="modelyard_prometheus",
            module_args={
                "url": f"http://{settings['listen'][0]}:{settings['port']}",
                "points": period.points,
                "step_s": period.step_s,
                "over_time": over_time(period.step_s),
                "at_the_end": AT_THE_END,
                "hint": f"{journal('modelyard-prometheus.service')}    (on {host})",
            },
            task_vars=task_vars,
        )
        if "over_time" not in answer:
            return answer
        told = read(plain(answer), period)
        if not told.over_time["watched"]:
            raise Refusal(
                f"Prometheus on {host} has nothing about the last {arguments['hours']} hours: nothing to report"
            )
        now = time.time()
        report = Author(told, plain(arguments["public_names"]), settings["scrape_interval_s"], clock).write()
        text = page(report, told, shown(arguments["inventory"]), now, clock, get_plotlyjs())
        path = Path(
            os.path.abspath(os.path.expanduser(arguments["destination"] or f"report-{clock(now):%Y-%m-%d}.html"))
        )
        if not self._task.check_mode:
            write(path, text)
        figures = ", ".join(f"{name.lower()} {value}" for name, value in report.headline.items())
        lines = [
            f"{clock(told.begin):%Y-%m-%d %H:%M} to {clock(told.end):%Y-%m-%d %H:%M %Z}: {figures}",
            *report.missing,
        ]
        lines.append("Check mode: nothing was written." if self._task.check_mode else path.as_uri())
        return {"changed": True, "path": str(path), "summary": "\n".join(lines)}


def clock(moment: float) -> datetime:
    """The controller's time, where the report is read."""
    return datetime.fromtimestamp(moment).astimezone()


def watcher(plans: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The host that has Prometheus, and its part of the plan."""
    for host, plan in plans.items():
        if plan["prometheus"] is not None:
            return host, plain(plan["prometheus"])
    raise Refusal(
        "Nobody watches this inventory, so there is nothing to report: its group llm_monitoring is empty, or "
        "`llm_monitoring: false` leaves monitoring out\n"
        "  try: put a host into llm_monitoring, run site.yml, and come back when there was traffic"
    )


def shown(inventory: str) -> str:
    """The inventory's directory as it is named in the clone; of any other its last part, which is no path of a user."""
    path = Path(inventory)
    return str(path.relative_to(CLONE)) if path.is_relative_to(CLONE) else path.name


def write(path: Path, text: str) -> None:
    """Who reads it never sees half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.rename(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Refusal(f"the report cannot be written to {path}: {error.strerror}") from None
