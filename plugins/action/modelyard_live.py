"""Ask a host what is live, and take no answer for an answer (see the module's documentation)."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError

from modelyard_ansible.action import Action


class ActionModule(Action):
    """Runs the module; a host that cannot be asked is a result like any other, with the reason in
    `unknown`.
    """

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result, or why there is none in `unknown`."""
        try:
            result = self._module(variables, self._task.args)
        except AnsibleError as error:
            how = (
                "not reachable"
                if isinstance(error, AnsibleConnectionFailure)
                else "cannot be queried"
            )
            return {"changed": False, "unknown": f"{how}: {brief(error.message)}"}
        if "services" not in result:
            return {
                "changed": False,
                "unknown": f"cannot be queried: {brief(result.get('msg', ''))}",
            }
        return result


def brief(message: str) -> str:
    """Return the last line of an error, which is the reason, without what each of ssh begins
    with.
    """
    return (message.strip().splitlines() or ["no reason given"])[-1].rpartition("ssh: ")[2]
