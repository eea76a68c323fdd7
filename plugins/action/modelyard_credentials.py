"""Resolve secrets on the controller, then put them on the host (see the module's documentation)."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail

from modelyard.controller.secrets import SecretError, resolve
from modelyard_ansible.action import Action


class ActionModule(Action):
    """Gives the module values; a value is never a variable of Ansible's, so it cannot be printed as
    one.
    """

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result, and which secrets were generated.

        Raises AnsibleActionFail.
        """
        given, store = self._secrets(variables)
        values: dict[str, str] = {}
        generated: list[str] = []
        for name, secret in self._task.args["secrets"].items():
            try:
                values[name], fresh = resolve(str(secret), given, store, write=self._writes)
            except SecretError as error:
                raise AnsibleActionFail(str(error)) from error
            if fresh:
                generated.append(str(secret))
        result = self._module(variables, {"service": self._task.args["service"], "values": values})
        return {**result, "generated": generated}
