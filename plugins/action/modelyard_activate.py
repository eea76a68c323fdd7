"""Switch a service on the host, and let the host remember who did it (see the module's
documentation).
"""

from __future__ import annotations

from typing import Any

from modelyard_ansible.action import Action


class ActionModule(Action):
    """Adds who runs what to the arguments of the module."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result."""
        return self._module(variables, {**self._task.args, "by": self._runner()})
