"""Compile the catalogue of the whole inventory, on the controller. Documented in the module of this name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from modelyard.catalogue.overrides import SWITCHED
    from modelyard.compiler.compile import Compiled, Host, Inventory, compile_inventory
    from modelyard.controller.origins import ansible_origin
    from modelyard.controller.places import ineffective
    from modelyard.controller.secrets import find
    from modelyard.engines import ENGINES
    from modelyard.names import SHORTEST_CLIENT_KEY, STACK
    from modelyard.operations.switching import UPGRADED, SwitchError, rotation, switch, upgrade
    from modelyard.output.graph import graph_file
    from modelyard.output.render import render_plan, render_summary
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None

display = Display()

ROLES = Path(__file__).parents[2] / "roles"


class Refusal(AnsibleActionFail):
    """Fails with its result alone: Ansible would print the message twice, the first time as a fault of the playbook."""

    omit_exception_key = True


class ActionModule(ActionBase):
    """Hands the `llm_*` variables of every host in llm_stack to the compiler. Contacts nobody."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the compiled plan, or fail with every diagnostic."""
        super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            raise AnsibleActionFail(
                f"{IMPORT_ERROR}. This Python ({sys.executable}) is not Modelyard's: run `make env`, then "
                "`.venv/bin/ansible-playbook` (or `. .venv/bin/activate` first)."
            )
        variables = task_vars or {}
        inventory = snapshot(variables)
        if "component" in self._task.args:
            return self._upgrade(inventory)
        if "secret" in self._task.args:
            return self._rotation(inventory)
        if self._task.args:
            return self._switch(inventory)
        compiled = compile_inventory(inventory)
        if path := self._templar.template(variables.get("llm_report")):
            write("llm_report", str(path), report(compiled))
        for warning in compiled.warnings:
            display.warning(warning.render())
        if compiled.errors:
            raise Refusal(refusal(compiled))
        if path := self._templar.template(variables.get("llm_graph")):
            write("llm_graph", str(path), graph_file(compiled, str(path)))
        return result(compiled)

    def _switch(self, inventory: Inventory) -> dict[str, Any]:
        """The plans of a choice that is not made yet."""
        _validated, wanted = self.validate_argument_spec(
            {"provider": {"type": "str", "required": True}, "model": {"type": "str", "required": True}}
        )
        try:
            found = switch(inventory, wanted["provider"], wanted["model"])
        except SwitchError as error:
            raise Refusal(str(error)) from error
        return {
            **result(found.final),
            "away": result(found.away),
            "switch": {
                "overrides": {SWITCHED: found.overrides},
                "hosts": list(found.hosts),
                "differs": found.changed,
                "uncovered": list(found.uncovered),
            },
        }

    def _rotation(self, inventory: Inventory) -> dict[str, Any]:
        """The plans for a secret that gets another value."""
        _validated, wanted = self.validate_argument_spec({"secret": {"type": "str", "required": True}})
        try:
            found = rotation(inventory, wanted["secret"])
        except SwitchError as error:
            raise Refusal(str(error)) from error
        told = {"kind": found.kind, "hosts": list(found.hosts), "uncovered": list(found.uncovered)}
        return {**result(found.final), "away": result(found.away), "rotation": told}

    def _upgrade(self, inventory: Inventory) -> dict[str, Any]:
        """The plans with a version that is not chosen yet."""
        _validated, wanted = self.validate_argument_spec(
            {
                "component": {"type": "str", "required": True},
                "version": {"type": "str", "required": True},
                "source": {"type": "dict"},
            }
        )
        try:
            found = upgrade(inventory, wanted["component"], wanted["version"], wanted["source"])
        except SwitchError as error:
            raise Refusal(str(error)) from error
        chosen = {"overrides": {UPGRADED: found.overrides}, "former": found.former, "hosts": list(found.hosts)}
        return {**result(found.final), "upgrade": chosen}


def result(compiled: Compiled) -> dict[str, Any]:
    """What the task returns of a compiled catalogue."""
    return {
        "changed": False,
        **compiled.as_dict(),
        "summary": render_summary(compiled),
        "text": render_plan(compiled),
    }


def refusal(compiled: Compiled) -> str:
    """Everything that is wrong, one diagnostic after the other, each beginning on a line of its own."""
    count = len(compiled.errors)
    head = f"The catalogue has {count} error{'s' if count > 1 else ''}. No host was contacted."
    return "\n".join([head, *(diagnostic.render() for diagnostic in compiled.errors), "Codes: docs/diagnostics.md"])


def snapshot(variables: Mapping[str, Any]) -> Inventory:
    """What the compiler needs to know of the inventory, from the variables of any one host."""
    groups = {str(name): [str(host) for host in hosts] for name, hosts in variables["groups"].items()}
    hostvars = variables["hostvars"]
    fixed: dict[int, Any] = {}
    written = {name: read_raw(name, hostvars) for name in groups.get(STACK, [])}
    hosts = {name: read_host(name, hostvars, raw, fixed) for name, raw in written.items()}
    given: dict[str, Any] = {}
    stores: dict[Path, set[str]] = {}
    for name, host in hosts.items():
        mine = host.variables.get("llm_secrets")
        given |= {str(key): value for key, value in mine.items() if value} if isinstance(mine, Mapping) else {}
        store = Path(str(hostvars[name].get("inventory_dir") or "."), ".credentials")
        if store not in stores:
            stores[store] = stored_secrets(store)
    secrets = {*given, *(name for name, value in os.environ.items() if value)}.union(*stores.values())
    values = {name: [find(name, given, store) or "" for store in stores] for name in secrets}
    short = {name for name, found in values.items() if any(0 < len(value) < SHORTEST_CLIENT_KEY for value in found)}
    return Inventory(
        groups,
        hosts,
        frozenset(secrets),
        ansible_origin,
        ineffective(hostvars, groups, written),
        {role: found for role in roles_with_locks() if (found := locked_versions(role))},
        short=frozenset(short),
    )


def roles_with_locks() -> list[str]:
    """Roles that install Python packages, from a lock of theirs."""
    return ["litellm", *(engine.role for engine in ENGINES if engine.locked)]


def locked_versions(role: str) -> frozenset[str]:
    """Versions a role has locks of, e.g. from vllm-0.32.0-cuda.txt. The plugins may be used without the roles."""
    name = role.replace("_", "-")
    return frozenset(
        path.stem.removeprefix(f"{name}-").split("-")[0]
        for path in (ROLES / role / "files/locks").glob(f"{name}-*.txt")
    )


def read_raw(name: str, hostvars: Any) -> dict[str, Any]:
    """The `llm_*` variables of one host as they are written. The keys, too, know where that was."""
    return {variable: value for variable, value in hostvars.raw_get(name).items() if variable.startswith("llm_")}


def read_host(name: str, hostvars: Any, raw: Mapping[str, Any], fixed: dict[int, Any]) -> Host:
    """The `llm_*` variables of one host, templated in its own context. `raw` is what `read_raw` says of it.

    `fixed` holds values without templates by identity: hosts share what group_vars says, and templating it
    again for each of them is what takes the time in a large inventory.
    """
    mine = hostvars[name]
    values: dict[str, Any] = {}
    unreadable: dict[str, Any] = {}
    for variable, written in sorted(raw.items()):
        if id(written) not in fixed and isinstance(written, Mapping) and is_fixed(written):
            fixed[id(written)] = written
        if id(written) in fixed:
            values[variable] = written
            continue
        try:
            values[variable] = mine[variable]
        except AnsibleError as error:
            origin = ansible_origin(getattr(error, "obj", None))
            unreadable[variable] = (str(getattr(error, "message", error)).split("\n", 1)[0], origin)
    try:
        address = str(mine.get("ansible_host") or name)
    except AnsibleError:
        address = name
    return Host(values, address, unreadable)


def is_fixed(value: Any) -> bool:
    """True for a value that templating cannot change: no templates and nothing encrypted in it."""
    if value is None or isinstance(value, bool | int | float):
        return True
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value and "{#" not in value
    if isinstance(value, Mapping):
        return all(is_fixed(key) and is_fixed(child) for key, child in value.items())
    return isinstance(value, list) and all(is_fixed(child) for child in value)


def stored_secrets(store: Path) -> set[str]:
    """Names of the secrets kept beside the inventory."""
    return {entry.name for entry in store.iterdir() if not entry.name.startswith(".")} if store.is_dir() else set()


def report(compiled: Compiled) -> str:
    """All diagnostics as JSON."""
    return json.dumps([diagnostic.as_dict() for diagnostic in compiled.diagnostics], indent=2) + "\n"


def write(variable: str, target: str, text: str) -> None:
    """Write the file that a variable asks for. Who reads it never sees half of it."""
    path = Path(target).expanduser()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise AnsibleActionFail(f"{variable} cannot be written: {error}") from error
