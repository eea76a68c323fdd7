"""Ask a host once, judge its GPUs here, and refuse it with all problems (see the module's documentation)."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from modelyard.gpu.preflight import fit_on_host
    from modelyard.output.tables import gpu_table
except ImportError as error:
    raise ImportError("the controller's environment lacks the package modelyard: run `make env`") from error

display = Display()


class ActionModule(ActionBase):
    """Runs the module; places the models on the GPUs that the host has told."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        result = self._execute_module(task_vars=task_vars)
        if result.get("failed"):
            return result
        arguments = self._task.args
        host = str((task_vars or {})["inventory_hostname"])
        fitted = fit_on_host(
            host,
            arguments.get("engines") or [],
            result["gpus"],
            arguments.get("declared_gpus") or [],
            result.pop("models"),
        )
        result["problems"] += fitted.problems
        table = gpu_table(fitted.gpus)
        for line in table:
            display.display(f"{host}: {line}")
        result.update(placed=fitted.placed, estimates=fitted.estimates, notices=fitted.notices, gpu_table=table)
        result.setdefault("warnings", []).extend(f"{host}: {notice}" for notice in fitted.notices)
        if result["problems"]:
            lines = "\n".join(f"  - {problem}" for problem in result["problems"])
            result.update(failed=True, msg=f"This host cannot take the planned services; nothing was changed.\n{lines}")
        return result
