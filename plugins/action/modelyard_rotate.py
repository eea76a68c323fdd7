"""Give a secret of this inventory another value, on the controller (see the module's
documentation).
"""

from __future__ import annotations

from typing import Any

from modelyard.controller.secrets import SecretError, begin_rotation, end_rotation, is_given
from modelyard_ansible.action import ControllerAction, Refusal


class ActionModule(ControllerAction):
    """Moves values between files; none of them is ever a variable of Ansible's."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return whether anything changed, and whether the value is the user's. Raises Refusal."""
        wanted = self._options(
            {
                "secret": {"type": "str", "required": True},
                "state": {
                    "type": "str",
                    "choices": ["begun", "ended", "undone"],
                    "default": "begun",
                },
            }
        )
        name, state = wanted["secret"], wanted["state"]
        given, store = self._secrets(variables)
        try:
            if state == "begun":
                changed = begin_rotation(name, given, store, write=self._writes)
            else:
                changed = end_rotation(
                    name, given, store, back=state == "undone", write=self._writes
                )
        except SecretError as error:
            raise Refusal(str(error)) from error
        return {"changed": changed, "given": is_given(name, given)}
