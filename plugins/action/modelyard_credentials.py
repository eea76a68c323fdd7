"""Resolve secrets on the controller, then put them on the host (see the module's documentation)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from modelyard.controller.secrets import SecretError, resolve
except ImportError as error:
    raise ImportError("the controller's environment lacks the package modelyard: run `make env`") from error


class ActionModule(ActionBase):
    """Gives the module values; a value is never a variable of Ansible's, so it cannot be printed as one."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        given = self._templar.template(variables.get("llm_secrets") or {})
        store = Path(variables["inventory_dir"] or ".") / ".credentials"
        values: dict[str, str] = {}
        generated: list[str] = []
        for name, secret in self._task.args["secrets"].items():
            try:
                value, fresh = resolve(str(secret), given, store, write=not self._task.check_mode)
            except SecretError as error:
                raise AnsibleActionFail(str(error)) from error
            values[name] = value
            if fresh:
                generated.append(str(secret))
        result = self._execute_module(
            module_args={"service": self._task.args["service"], "values": values}, task_vars=task_vars
        )
        return {**result, "generated": generated}
