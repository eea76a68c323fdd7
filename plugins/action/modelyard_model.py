"""Look the hub's token up on the controller, then put the model in place (see the module's documentation)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from modelyard.controller.secrets import find
except ImportError as error:
    raise ImportError("the controller's environment lacks the package modelyard: run `make env`") from error


class ActionModule(ActionBase):
    """Gives the module a token that is never a variable of Ansible's, so it cannot be printed as one."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        name = arguments.pop("token_secret", None)
        if name and arguments.get("repo"):
            given = self._templar.template(variables.get("llm_secrets") or {})
            arguments["token"] = find(str(name), given, Path(variables["inventory_dir"] or ".") / ".credentials")
            if not arguments["token"]:
                raise AnsibleActionFail(
                    f"the secret {name} is not defined, but {arguments['repo']} is to be fetched with it: put the "
                    "hub's token into the environment, llm_secrets, or that file in the inventory's .credentials"
                )
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
