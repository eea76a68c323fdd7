"""Switch a service on the host, and let the host remember who did it (see the module's documentation)."""

from __future__ import annotations

from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase

from modelyard.controller.runs import whoever_runs


class ActionModule(ActionBase):
    """Adds who runs what to the arguments of the module."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        by = whoever_runs(context.CLIARGS.get("args", ()))
        return self._execute_module(module_args={**self._task.args, "by": by}, task_vars=task_vars)
