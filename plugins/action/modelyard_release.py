"""Render a release's templates on the controller, then stage it on the host (see the module's documentation)."""

from __future__ import annotations

from typing import Any

from ansible import context
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from modelyard.controller.runs import whoever_runs


class ActionModule(ActionBase):
    """Turns `template:` entries into `content:` and hands the rest to the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for group, key in (("files", "path"), ("units", "name")):
            entries = arguments.get(group) or []
            arguments[group] = [
                {key: entry[key], "content": self._content(entry, task_vars or {})} for entry in entries
            ]
        if arguments.get("state") == "absent":
            arguments["by"] = whoever_runs(context.CLIARGS.get("args", ()))
        return self._execute_module(module_args=arguments, task_vars=task_vars)

    def _content(self, entry: dict[str, Any], task_vars: dict[str, Any]) -> str:
        if "template" not in entry:
            return str(entry["content"])
        # The lookup finds the file in the role's templates/ and renders it the way `template` does.
        expression = trust_as_template("{{ lookup('ansible.builtin.template', __file, template_vars=__vars) }}")
        variables = {**task_vars, "__file": entry["template"], "__vars": entry.get("vars", {})}
        rendered = self._templar.copy_with_new_env(available_variables=variables).template(expression)
        return str(rendered).rstrip("\n") + "\n"
