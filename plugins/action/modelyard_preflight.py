"""Ask a host once, judge its GPUs here, and refuse it with all problems (see the module's
documentation).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.context
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display

from modelyard.gpu.preflight import fit_on_host
from modelyard.output.tables import gpu_table
from modelyard_ansible.action import Action
from modelyard_ansible.asking import Question
from modelyard_ansible.locking import me, take_on_host

display = Display()
SHOWN = 3
"""Reasons for a role that are shown; the result has all of them."""


class ActionModule(Action):
    """Runs the module; places the models on the GPUs that the host has told."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result with the placement, failed if there are problems."""
        arguments = dict(self._task.args)
        asking = arguments.get("question")
        locking = boolean(arguments.pop("lock", False))
        if asking:
            inventory = Path(str(variables.get("inventory_dir") or "."))
            secrets = self._secrets(variables)
            question = Question(asking["plan"], str(asking["code"]), secrets, inventory)
            arguments["question"] = question.asked()
        result, refused = self._asked(variables, arguments, locking=locking)
        if result.get("failed"):
            return result
        if refused:
            return {"changed": False, "refused": refused}
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
        if asking and "answer" in result:
            told = question.due(result, full=boolean(asking.get("full", False)))
            for role, reasons in told.why.items():
                display.display(f"{host}: {role}: {'; '.join(reasons[:SHOWN])}")
            result["asked"] = {
                "roles": list(told.why),
                "why": dict(told.why),
                "stages": list(told.stages),
            }
        if result["problems"]:
            lines = "\n".join(f"  - {problem}" for problem in result["problems"])
            result.update(
                failed=True,
                msg=f"This host cannot run the planned services; nothing was changed.\n{lines}",
            )
        return result

    def _asked(
        self, variables: dict[str, Any], arguments: dict[str, Any], *, locking: bool
    ) -> tuple[dict[str, Any], str]:
        """Return the module's result, and who has the lock of the host."""
        if not locking:
            return self._module(variables, arguments), ""
        mine = me(ansible.context.CLIARGS.get("args", ()))
        result: dict[str, Any] = {}

        def take(over: str) -> Any:
            result.clear()
            lock = {"mine": mine, "over": over}
            result.update(self._module(variables, {**arguments, "lock": lock}))
            return result.get("owner")

        return result, take_on_host(mine, take)
