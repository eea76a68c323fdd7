"""Ask a host what is live, and take no answer for an answer (see the module's documentation)."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs the module; a host that cannot be asked is a result like any other, with the reason in `unknown`."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        try:
            result = self._execute_module(module_args=self._task.args, task_vars=task_vars)
        except AnsibleError as error:
            how = "not reachable" if isinstance(error, AnsibleConnectionFailure) else "cannot be asked"
            return {"changed": False, "unknown": f"{how}: {brief(error.message)}"}
        if "services" not in result:
            return {"changed": False, "unknown": f"cannot be asked: {brief(result.get('msg', ''))}"}
        return result


def brief(message: str) -> str:
    """The last line of an error, which is the reason, without what every error of ssh begins with."""
    return (message.strip().splitlines() or ["no reason given"])[-1].rpartition("ssh: ")[2]
