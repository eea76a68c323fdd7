"""Note on a host what roles were given and looked at (see the module's documentation)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.catalogue.sourcemap import plain
from modelyard.operations.asking import STAGES
from modelyard_ansible.action import Action
from modelyard_ansible.asking import Question


class ActionModule(Action):
    """Makes the records of the roles of a stage that were due."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result."""
        arguments = self._task.args
        preflight = plain(arguments["preflight"])
        question = Question(
            arguments["plan"],
            str(arguments["code"]),
            self._secrets(variables),
            Path(str(variables.get("inventory_dir") or ".")),
        )
        ended = [
            role
            for role in question.roles
            if STAGES[role] == arguments["stage"] and role in preflight["asked"]["roles"]
        ]
        if not ended or not self._writes:
            return {"changed": False, "recorded": ended}
        records = {role: question.record(role, preflight) for role in ended}
        return self._module(variables, {"records": records})
