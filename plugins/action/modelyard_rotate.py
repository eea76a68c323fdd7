"""Give a secret of this inventory another value, on the controller (see the module's documentation)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from modelyard.controller.secrets import SecretError, begin_rotation, end_rotation, is_given
except ImportError as error:
    raise ImportError("the controller's environment lacks the package modelyard: run `make env`") from error


class Refusal(AnsibleActionFail):
    """Fails with its result alone: it is no fault of the playbook."""

    omit_exception_key = True


class ActionModule(ActionBase):
    """Moves values between files; none of them is ever a variable of Ansible's."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        _validated, wanted = self.validate_argument_spec(
            {
                "secret": {"type": "str", "required": True},
                "state": {"type": "str", "choices": ["begun", "ended", "undone"], "default": "begun"},
            }
        )
        variables = task_vars or {}
        given = self._templar.template(variables.get("llm_secrets") or {})
        store = Path(variables["inventory_dir"] or ".") / ".credentials"
        write = not self._task.check_mode
        try:
            if wanted["state"] == "begun":
                changed = begin_rotation(wanted["secret"], given, store, write=write)
            else:
                changed = end_rotation(wanted["secret"], given, store, back=wanted["state"] == "undone", write=write)
        except SecretError as error:
            raise Refusal(str(error)) from error
        return {"changed": changed, "given": is_given(wanted["secret"], given)}
