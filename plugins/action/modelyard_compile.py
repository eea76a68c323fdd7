"""Compile the catalogue of the whole inventory, on the controller.

Documented in the module of this name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible.context
import ansible.release
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.utils.display import Display

from modelyard.catalogue.overrides import SWITCHED
from modelyard.catalogue.secrets import VARIABLE as SECRETS
from modelyard.catalogue.sourcemap import Bounds, Origin, SourceMap
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Host, Inventory
from modelyard.compiler.variables import reason_told
from modelyard.controller.addresses import own
from modelyard.controller.code import digest
from modelyard.controller.layout import backups, idle_groups, unread_directories, unread_keys
from modelyard.controller.locks import locked
from modelyard.controller.origins import ansible_origin, line_at, shorten
from modelyard.controller.places import declared, ineffective, others, places_of, replaced, unread
from modelyard.controller.secrets import survey
from modelyard.engines import ENGINES
from modelyard.names import STACK
from modelyard.operations.switching import (
    UPGRADED,
    Rotation,
    Switch,
    SwitchError,
    Upgrade,
    rotation,
    switch,
    upgrade,
)
from modelyard.output.graph import graph_file
from modelyard.output.render import render_plan, render_summary
from modelyard_ansible.action import ControllerAction, Refusal, store_of, write_whole

display = Display()

LOCKED = ("litellm", *(engine.role for engine in ENGINES if engine.locked))
"""Roles that install Python packages, from a lock of theirs."""

ROLES = Path(__file__).parents[2] / "roles"

REQUIRED = {"type": "str", "required": True}
OPERATIONS: dict[str, dict[str, Any]] = {
    "compile": {},
    "switch": {"provider": REQUIRED, "model": REQUIRED},
    "upgrade": {"component": REQUIRED, "version": REQUIRED, "source": {"type": "dict"}},
    "rotate": {"secret": REQUIRED},
}
"""The arguments of each operation. Those of another one are refused."""


class ActionModule(ControllerAction):
    """Hands the `llm_*` variables of every host in llm_stack to the compiler. Contacts no host."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the compiled plans. Raises Refusal with everything that is wrong."""
        operation = str(self._task.args.get("operation", "compile"))
        choices = {"type": "str", "choices": list(OPERATIONS), "default": "compile"}
        options = self._options({"operation": choices, **OPERATIONS.get(operation, {})})
        inventory = snapshot(variables)
        try:
            if operation == "switch":
                return switched(switch(inventory, options["provider"], options["model"]))
            if operation == "upgrade":
                wanted = options["component"], options["version"], options["source"]
                return upgraded(upgrade(inventory, *wanted))
            if operation == "rotate":
                return rotated(rotation(inventory, options["secret"]))
        except SwitchError as error:
            raise Refusal(str(error)) from error
        return self._compile(inventory, variables)

    def _compile(self, inventory: Inventory, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Compile what is there, and write the files that were asked for."""
        compiled = compile_inventory(inventory)
        if path := self._templar.template(variables.get("llm_report")):
            write("llm_report", str(path), report(compiled))
        for warning in compiled.warnings:
            display.warning(warning.render())
        if compiled.errors:
            raise Refusal(refusal(compiled))
        if path := self._templar.template(variables.get("llm_graph")):
            write("llm_graph", str(path), graph_file(compiled, str(path)))
        # Once a run, here: the tasks of a hundred hosts would each read all files again.
        return {**result(compiled), "code": digest(ROLES.parent, ansible.release.__version__)}


def switched(found: Switch) -> dict[str, Any]:
    """Return the task's result for a choice of a model that is not made yet."""
    told = {
        "overrides": {SWITCHED: found.overrides},
        "hosts": list(found.hosts),
        "differs": found.changed,
        "uncovered": list(found.uncovered),
        "watching": list(found.watching),
    }
    return {**result(found.final), "switch": told}


def upgraded(found: Upgrade) -> dict[str, Any]:
    """Return the task's result for a version that is not chosen yet."""
    told = {
        "overrides": {UPGRADED: found.overrides},
        "former": found.former,
        "hosts": list(found.hosts),
    }
    return {**result(found.final), "upgrade": told}


def rotated(found: Rotation) -> dict[str, Any]:
    """Return the task's result for a secret that gets another value."""
    told = {"kind": found.kind, "hosts": list(found.hosts), "uncovered": list(found.uncovered)}
    return {**result(found.final), "away": result(found.away), "rotation": told}


def result(compiled: Compiled) -> dict[str, Any]:
    """Return the task's result for a compiled catalogue."""
    return {
        "changed": False,
        **compiled.as_dict(),
        "summary": render_summary(compiled),
        "text": render_plan(compiled),
    }


def refusal(compiled: Compiled) -> str:
    """Return the message about all that is wrong; each diagnostic begins on a line of its own."""
    count = len(compiled.errors)
    head = f"The catalogue has {count} error{'s' if count > 1 else ''}. No host was contacted."
    return "\n".join(
        [
            head,
            *(diagnostic.render() for diagnostic in compiled.errors),
            "Codes: docs/diagnostics.md",
        ]
    )


def snapshot(variables: Mapping[str, Any]) -> Inventory:
    """Return what the compiler needs to know of the inventory, from the variables of any one
    host.
    """
    groups = {
        str(name): [str(host) for host in hosts] for name, hosts in variables["groups"].items()
    }
    hostvars = variables["hostvars"]
    fixed: dict[int, Any] = {}
    bounds = Bounds()
    written = {name: read_raw(name, hostvars) for name in groups.get(STACK, [])}
    hosts = {name: read_host(name, hostvars, raw, fixed, bounds) for name, raw in written.items()}
    views = survey(seeing(hosts, hostvars), ansible_origin, shorten)
    defined = {name for view in views for name, seen in view.secrets.items() if seen.is_there}
    pins = [lock for role in LOCKED for lock in locked(ROLES, role, shorten)]
    locks = {
        role: frozenset(lock.version for lock in pins if lock.role == role)
        for role in LOCKED
        if (ROLES / role).is_dir()
    }
    places = places_of(hostvars)
    strange = others(hostvars, places, groups)
    return Inventory(
        groups,
        hosts,
        frozenset(defined | unreadable_secrets(hosts, written)),
        ansible_origin,
        ineffective(places, groups, written),
        locks,
        views=views,
        pins=pins,
        others=strange,
        role_variables=declared(ROLES, (one.name for one in strange)),
        unread=unread(hostvars, groups),
        group_origins=group_origins(hostvars),
        unread_directories=unread_directories(hostvars),
        unread_keys=unread_keys(hostvars),
        backups=backups(hostvars),
        idle_groups=idle_groups(hostvars, places),
        own_addresses=own(
            text
            for host in hosts.values()
            if host.local
            for text in (host.address, host.variables.get("llm_address"))
            if isinstance(text, str)
        ),
        line=line_at,
        shipped=replaced(places, written),
    )


def read_raw(name: str, hostvars: Any) -> dict[str, Any]:
    """Return the `llm_*` variables of one host as they are written.

    The keys, too, know where that was.
    """
    return {
        variable: value
        for variable, value in hostvars.raw_get(name).items()
        if isinstance(variable, str) and variable.startswith("llm_")
    }


def read_host(
    name: str, hostvars: Any, raw: Mapping[str, Any], fixed: dict[int, Any], bounds: Bounds
) -> Host:
    """Return what the compiler needs to know of one host, with its `llm_*` variables templated in
    its own context.

    `raw` is what `read_raw` says of it. `fixed` holds values without templates by identity: hosts
    share what group_vars says, and templating it again for each of them is what takes the time in
    a large inventory.
    """
    mine = hostvars[name]
    values: dict[str, Any] = {}
    unreadable: dict[str, Any] = {}
    endless: dict[str, Any] = {}
    for variable, written in sorted(raw.items()):
        if flaw := bounds.flaw(written):
            reason, path = flaw
            origin = SourceMap(raw, ansible_origin).origin((variable, *path), key=True)
            endless[variable] = (reason, path, origin)
            continue
        if id(written) not in fixed and isinstance(written, Mapping) and is_fixed(written):
            fixed[id(written)] = written
        if id(written) in fixed:
            values[variable] = written
            continue
        try:
            values[variable] = mine[variable]
        except AnsibleError as error:
            origin = ansible_origin(getattr(error, "obj", None)) or ansible_origin(written)
            told = str(getattr(error, "message", error)).split("\n", 1)[0]
            text = getattr(error, "obj", None)
            unreadable[variable] = (reason_told(variable, text, told), origin)
    address = templated(mine, "ansible_host")
    return Host(
        values,
        str(address or name),
        unreadable,
        endless,
        origin_of(name, hostvars),
        ansible_origin(address),
        connection(mine) == "local",
        ansible_origin(templated(mine, "ansible_connection")),
        way(mine),
        raw,
    )


def templated(mine: Any, variable: str) -> Any:
    """Return a variable of a host; None if it is not set, or cannot be templated or decrypted."""
    try:
        value = mine.get(variable)
        # Text of a vault is decrypted when it is used.
        str(value)
    except AnsibleError:
        return None
    return value


def connection(mine: Any) -> str:
    """Return how Ansible connects to a host, without the collection's name."""
    given = templated(mine, "ansible_connection") or ansible.context.CLIARGS.get("connection")
    return str(given).removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def way(mine: Any) -> str:
    """Return what leads to a host beside its address."""
    ports = (templated(mine, name) for name in ("ansible_port", "ansible_ssh_port"))
    arguments = (
        templated(mine, f"ansible_ssh_{name}") for name in ("common_args", "extra_args", "args")
    )
    port = next((str(port) for port in ports if port), "22")
    return " ".join([connection(mine), port, *(str(one) for one in arguments if one)])


def origin_of(name: str, hostvars: Any) -> Origin | None:
    """Return where the inventory names a host first; None where its internals look different."""
    known = getattr(getattr(hostvars, "_inventory", None), "hosts", {})
    return ansible_origin(getattr(known.get(name), "name", None))


def group_origins(hostvars: Any) -> dict[str, Origin]:
    """Return where the inventory names each group first."""
    known = getattr(getattr(hostvars, "_inventory", None), "groups", {})
    found = {str(name): ansible_origin(group.name) for name, group in known.items()}
    return {name: origin for name, origin in found.items() if origin}


def seeing(hosts: Mapping[str, Host], hostvars: Any) -> dict[str, tuple[Mapping[str, Any], Path]]:
    """Return where the secrets of each host are looked for: its llm_secrets, and the directory
    beside its inventory. A host whose llm_secrets cannot be read is left out.
    """
    found: dict[str, tuple[Mapping[str, Any], Path]] = {}
    nothing: dict[str, Any] = {}
    for name, host in hosts.items():
        given = host.variables.get(SECRETS, nothing)
        if SECRETS not in host.unreadable:
            usable = given if isinstance(given, Mapping) else nothing
            found[name] = (usable, store_of(hostvars[name]))
    return found


def unreadable_secrets(
    hosts: Mapping[str, Host], written: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return the names in every llm_secrets that cannot be read: they are defined, whatever the
    values are.
    """
    given = (
        written[name].get(SECRETS) for name, host in hosts.items() if SECRETS in host.unreadable
    )
    return {str(name) for one in given if isinstance(one, Mapping) for name in one}


def is_fixed(value: Any) -> bool:
    """Return whether templating cannot change a value: no templates and nothing encrypted in it."""
    if value is None or isinstance(value, bool | int | float):
        return True
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value and "{#" not in value
    if isinstance(value, Mapping):
        return all(is_fixed(key) and is_fixed(child) for key, child in value.items())
    return isinstance(value, list) and all(is_fixed(child) for child in value)


def report(compiled: Compiled) -> str:
    """Return all diagnostics as JSON."""
    return (
        json.dumps([diagnostic.as_dict() for diagnostic in compiled.diagnostics], indent=2) + "\n"
    )


def write(variable: str, target: str, text: str) -> None:
    """Write the file that a variable asks for. Raises AnsibleActionFail."""
    try:
        write_whole(Path(target).expanduser(), text)
    except OSError as error:
        raise AnsibleActionFail(f"{variable} cannot be written: {error}") from error
