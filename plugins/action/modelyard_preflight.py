"""Ask a host once, judge its GPUs here, and refuse it with all problems (see the module's
documentation).
"""

from __future__ import annotations

from typing import Any

from ansible.utils.display import Display

from modelyard.gpu.preflight import fit_on_host
from modelyard.output.tables import gpu_table
from modelyard_ansible.action import Action

display = Display()


class ActionModule(Action):
    """Runs the module; places the models on the GPUs that the host has told."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result with the placement, failed if there are problems."""
        result = self._module(variables, self._task.args)
        if result.get("failed"):
            return result
        arguments = self._task.args
        host = str(variables["inventory_hostname"])
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
        result.update(
            placed=fitted.placed,
            estimates=fitted.estimates,
            notices=fitted.notices,
            gpu_table=table,
        )
        result.setdefault("warnings", []).extend(f"{host}: {notice}" for notice in fitted.notices)
        if result["problems"]:
            lines = "\n".join(f"  - {problem}" for problem in result["problems"])
            result.update(
                failed=True,
                msg=f"This host cannot run the planned services; nothing was changed.\n{lines}",
            )
        return result
