"""Render a release's templates on the controller, then stage it on the host (see the module's
documentation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.template import trust_as_template

from modelyard.catalogue.sourcemap import plain
from modelyard.plan.parts import recorded
from modelyard_ansible.action import Action


class ActionModule(Action):
    """Turns `template:` entries into `content:`, and leaves out of `plan` what a host does not
    record.
    """

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result."""
        arguments = dict(self._task.args)
        for group, key in (("files", "path"), ("units", "name")):
            entries = arguments.get(group) or []
            arguments[group] = [
                {key: entry[key], "content": self._content(entry, variables)} for entry in entries
            ]
        if isinstance(part := arguments.get("plan"), Mapping):
            arguments["plan"] = recorded(str(arguments["service"]), plain(part))
        if arguments.get("state") == "absent":
            arguments["by"] = self._runner()
        return self._module(variables, arguments)

    def _content(self, entry: dict[str, Any], variables: dict[str, Any]) -> str:
        if "template" not in entry:
            return str(entry["content"])
        # The lookup finds the file in the role's templates/ and renders it the way `template` does.
        expression = trust_as_template(
            "{{ lookup('ansible.builtin.template', __file, template_vars=__vars) }}"
        )
        available = {**variables, "__file": entry["template"], "__vars": entry.get("vars", {})}
        rendered = self._templar.copy_with_new_env(available_variables=available).template(
            expression
        )
        return str(rendered).rstrip("\n") + "\n"
