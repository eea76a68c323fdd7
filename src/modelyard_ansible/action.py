"""The base of the action plugins."""

from __future__ import annotations

import inspect
import os
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible.constants
import ansible.context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from modelyard.controller.runs import whoever_runs


class Refusal(AnsibleActionFail):
    """Fails with its result alone.

    Ansible would print the message twice otherwise, the first time as a fault of the playbook.
    """

    omit_exception_key = True


def store_of(variables: Mapping[str, Any]) -> Path:
    """Return the directory of the secrets that are kept beside the inventory of a host."""
    return Path(str(variables.get("inventory_dir") or "."), ".credentials")


def unset(plugin: Path) -> str:
    """Return why Ansible lacks the settings of the clone that an action plugin belongs to; empty if
    it has them.

    It reads ansible.cfg of the directory that it is called in. Where that is another one, it finds
    this plugin by the links in playbooks/, but neither filters nor module_utils.
    """
    directory = plugin.resolve().parent
    configured = ansible.constants.DEFAULT_ACTION_PLUGIN_PATH
    if any(Path(path).resolve() == directory for path in configured):
        return ""
    root = directory.parents[1]
    found = ansible.constants.CONFIG_FILE or "no ansible.cfg"
    return (
        f"Run this from the root of the clone: cd {root}. Ansible takes its settings from the"
        f" ansible.cfg there, and has read {found}. From another directory, set"
        f" ANSIBLE_CONFIG={root}/ansible.cfg. If you are there: Ansible ignores the file while"
        " everybody may write to the directory (chmod o-w .)."
    )


class Action(ActionBase):
    """An action plugin: `act` is what it does."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task. Called by Ansible."""
        super().run(tmp, task_vars)
        if refused := unset(Path(inspect.getfile(type(self)))):
            raise Refusal(refused)
        return self.act(task_vars or {})

    @abstractmethod
    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result, from the variables of its host. Raises AnsibleError."""

    @property
    def _writes(self) -> bool:
        """Whether something may be changed: not in check mode."""
        return not self._task.check_mode

    def _options(self, specification: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's arguments, checked and with defaults. Raises AnsibleError."""
        _, options = self.validate_argument_spec(dict(specification))
        return dict(options)

    def _module(
        self, variables: dict[str, Any], arguments: Mapping[str, Any], name: str | None = None
    ) -> dict[str, Any]:
        """Return the result of a module on the host; of the one named like the task by default."""
        return dict(
            self._execute_module(module_name=name, module_args=dict(arguments), task_vars=variables)
        )

    def _secrets(self, variables: Mapping[str, Any]) -> tuple[Mapping[str, Any], Path]:
        """Return what the functions of modelyard.controller.secrets want: llm_secrets and the
        inventory's store.

        Their values must not get into variables of Ansible's, which can be printed.
        """
        return self._templar.template(variables.get("llm_secrets") or {}), store_of(variables)

    def _runner(self) -> dict[str, str]:
        """Return who runs what, for what a host remembers of it."""
        return whoever_runs(ansible.context.CLIARGS.get("args", ()))


class ControllerAction(Action):
    """An action plugin that contacts no host."""

    TRANSFERS_FILES = False
    _requires_connection = False


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half. Raises OSError, and leaves what was there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
