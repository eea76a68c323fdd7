"""Look the hub's token up on the controller, then put the model in place (see the module's
documentation).
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from modelyard.controller.secrets import SecretError, find
from modelyard_ansible.action import Action


class ActionModule(Action):
    """Gives the module a token that is never a variable of Ansible's, so it cannot be printed as
    one.
    """

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result. Raises AnsibleActionFail if the token is not defined."""
        arguments = dict(self._task.args)
        name = arguments.pop("token_secret", None)
        if name and arguments.get("repo"):
            try:
                arguments["token"] = find(str(name), *self._secrets(variables))
            except SecretError as error:
                raise AnsibleActionFail(str(error)) from error
            if not arguments["token"]:
                raise AnsibleActionFail(
                    f"secret {name} is not defined, but fetching {arguments['repo']} needs it: "
                    "define the hub's token in the environment, llm_secrets or .credentials/ "
                    "beside the inventory"
                )
        return self._module(variables, arguments)
