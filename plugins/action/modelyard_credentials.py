"""Resolve secrets on the controller, then put them on the host (see the module's documentation)."""

from __future__ import annotations

import fcntl
import secrets
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

try:
    from modelyard.secrets import find
except ImportError as error:
    raise ImportError("the controller's environment lacks the package modelyard: run `make env`") from error


class ActionModule(ActionBase):
    """Gives the module values; a value is never a variable of Ansible's, so it cannot be printed as one."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action."""
        super().run(tmp, task_vars)
        variables = task_vars or {}
        given = self._templar.template(variables.get("llm_secrets") or {})
        store = Path(variables["inventory_dir"] or ".") / ".credentials"
        values: dict[str, str] = {}
        generated: list[str] = []
        for name, secret in self._task.args["secrets"].items():
            value, fresh = resolve(str(secret), given, store, write=not self._task.check_mode)
            values[name] = value
            if fresh:
                generated.append(str(secret))
        result = self._execute_module(
            module_args={"service": self._task.args["service"], "values": values}, task_vars=task_vars
        )
        return {**result, "generated": generated}


def resolve(name: str, given: dict[str, Any], store: Path, *, write: bool) -> tuple[str, bool]:
    """Return the value of a secret and whether it was generated now.

    Check mode writes nothing (`write=False`): a secret that would be generated is a different one each time, which
    reports the change that a real run would make.
    """
    value = find(name, given, store)
    if value == "":
        raise AnsibleActionFail(
            f"the secret {name} is empty: {store / name}; delete the file to have a new one generated"
        )
    if value is not None:
        return value, False
    # The gateway wants its master key to start with `sk-`; the others do not mind.
    value = f"sk-{secrets.token_urlsafe(32)}"
    if not write:
        return value, True
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(store / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two hosts that need the same secret must get the same one
        path = store / name
        if path.is_file():
            return path.read_text(encoding="utf-8").strip(), False
        temporary = store / f".{name}.new"
        temporary.touch(mode=0o600)
        temporary.write_text(f"{value}\n", encoding="utf-8")
        temporary.rename(path)
    return value, True
