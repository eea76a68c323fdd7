"""Finds the places of an inventory that set a variable, and those of `llm_*` variables without
effect.

Of several places that set one variable Ansible takes one, and says nothing about the others. Its
rules are not repeated here: a place has an effect if the value that Ansible chose for a host is the
very value written there.

Ansible's inventory and loader are reached through internals of `hostvars`. Where these look
different one day, nothing is found, and the compiler goes on without this check.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from modelyard.catalogue.ineffective import Ineffective
from modelyard.catalogue.overrides import SECTIONS
from modelyard.catalogue.sourcemap import Bounds, Origin
from modelyard.catalogue.strays import Variable
from modelyard.controller.origins import ansible_origin, shorten
from modelyard.names import STACK

EXTENSIONS = (".yml", ".yaml", ".json")
"""Of the files that Ansible reads in group_vars and host_vars."""


UNREAD = re.compile(r"\.(ya?ml|json)\.txt|\.(ymal|yalm|ylm|yam)")
"""How a file of variables ends that an editor or a slip of the hand has given another name. A copy
(`.bak`, `~`) is meant to be left out."""

ALWAYS_GIVEN = ("exporter_instances", "service_departing", "service_package", "service_program")
"""Arguments that our playbooks and roles never leave to a default, beside the plans."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place that sets one variable: a group or a host of this `name`."""

    variable: str
    value: object
    origin: Origin | None
    kind: str
    name: str
    shipped: bool
    """The catalogue beside the playbooks: it is there to be overridden."""


def places_of(hostvars: Any) -> list[Place]:
    """Every place of the inventory that sets a variable. `hostvars` is Ansible's variable of that
    name.
    """
    return list(_places(hostvars))


def others(
    hostvars: Any, places: Iterable[Place], groups: Mapping[str, Sequence[str]]
) -> list[Variable]:
    """Return the variables that are not `llm_*` and that the command line sets, or a place does for
    a host of the stack. `groups` are the hosts of each group.
    """
    given = getattr(getattr(hostvars, "_variable_manager", None), "extra_vars", {})
    bounds = Bounds()
    found = [
        Variable(name, _legible(value, bounds), ansible_origin(value), command_line=True)
        for name, value in given.items()
        if isinstance(name, str)
    ]
    reached = _reached(groups)
    found += [
        Variable(place.variable, _legible(place.value, bounds), place.origin)
        for place in places
        if place.name in reached[place.kind]
    ]
    return [variable for variable in found if not variable.name.startswith("llm_")]


def _legible(value: object, bounds: Bounds) -> object:
    """Return a value that may be for another tool; None instead of one that contains itself."""
    return None if bounds.flaw(value) else _clear(value)


def _clear(value: Any) -> Any:
    """Copy a value, with a word in the place of each text that is encrypted.

    To look at such text decrypts it, and the password may be another tool's. It is no `str`.
    """
    if isinstance(value, Mapping):
        return {key: _clear(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_clear(child) for child in value]
    return value if isinstance(value, str | int | float | date | None) else "encrypted"


def _reached(groups: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return the groups and hosts whose variables apply to a host of the stack."""
    stack = {*groups.get(STACK, ())}
    mine = {name for name, hosts in groups.items() if not stack.isdisjoint(hosts)} | {"all"}
    return {"group": mine, "host": stack}


def unread(hostvars: Any, groups: Mapping[str, Sequence[str]]) -> list[Origin]:
    """Return the files of variables for hosts of the stack that Ansible does not read because of
    their names, such as `llm.yml.txt`.
    """
    found = []
    for source in sources_of(getattr(hostvars, "_inventory", None)):
        base = source if os.path.isdir(source) else os.path.dirname(source)
        for kind, names in _reached(groups).items():
            directory = Path(base, f"{kind}_vars")
            files = [*directory.glob("*.*"), *directory.glob("*/*.*")]
            found += [
                Origin(shorten(str(file)))
                for file in sorted(files)
                if UNREAD.fullmatch("".join(file.suffixes[-2:])) or UNREAD.fullmatch(file.suffix)
                if {file.parent.name, file.name.partition(".")[0]} & names
            ]
    return list(dict.fromkeys(found))


def sources_of(inventory: Any) -> list[str]:
    """Return the files and directories that an inventory was read from."""
    return [source for source in getattr(inventory, "_sources", ()) if os.path.exists(source)]


def declared(roles: Path, names: Iterable[str]) -> dict[str, bool]:
    """Return the variables that roles of the directory `roles` take, and whether a value of the
    inventory would replace the role's default. Only roles that one of `names` could be for are
    read; none if they are not there.
    """
    there = [path.name for path in roles.iterdir()] if roles.is_dir() else []
    asked = {*names}
    wanted = [role for role in there if any(name.startswith(f"{role}_") for name in asked)]
    found: dict[str, bool] = {}
    for role in sorted(wanted):
        specification, defaults = (
            _yaml(roles / role / file) for file in ("meta/argument_specs.yml", "defaults/main.yml")
        )
        taken = specification.get("argument_specs", {}).get("main", {}).get("options", {})
        given_anyway = (*ALWAYS_GIVEN, f"{role}_plan")
        found |= {name: name in defaults and name not in given_anyway for name in taken}
    return found


def _yaml(file: Path) -> dict[str, Any]:
    return (yaml.safe_load(file.read_bytes()) if file.is_file() else None) or {}


def ineffective(
    places: Iterable[Place],
    groups: Mapping[str, Sequence[str]],
    values: Mapping[str, Mapping[str, object]],
) -> list[Ineffective]:
    """Every place whose value no host of the stack has.

    `groups` are the hosts of each group, and `values` what Ansible chose: the `llm_*` variables of
    each host of the stack, untemplated. A place that loses to no other place, but to `-e` or a
    fact, is not reported: the user who sets those knows.
    """
    by_variable: dict[str, list[Place]] = {}
    for place in places:
        if not place.variable.startswith("llm_"):
            continue
        by_variable.setdefault(place.variable, []).append(place)
    found: list[Ineffective] = []
    for variable, rivals in by_variable.items():
        for place in rivals:
            members = groups.get(place.name, ()) if place.kind == "group" else (place.name,)
            reached = [values[host].get(variable) for host in members if host in values]
            if place.shipped or any(_is_from(place, value) for value in reached):
                continue
            host = next((host for host in members if host in values), None)
            winner = next(
                (other for other in rivals if reached and _is_from(other, reached[0])), None
            )
            if winner is None and host is not None and variable in values[host]:
                continue
            found.append(
                Ineffective(
                    variable,
                    place.origin,
                    place.kind,
                    place.name,
                    host,
                    winner.origin if winner else None,
                )
            )
    return found


def replaced(
    places: Sequence[Place], values: Mapping[str, Mapping[str, object]]
) -> dict[str, tuple[object, Origin | None]]:
    """Return the variables of the shipped catalogue of which the stack has another value: what is
    shipped, and where the other value was set. `values` are as in `ineffective`.
    """
    first = next(iter(values.values()), {})
    found = {}
    for place in places:
        value = first.get(place.variable, place.value)
        if place.shipped and not _is_from(place, value):
            winners = (
                other.origin
                for other in places
                if other.variable == place.variable and _is_from(other, value)
            )
            found[place.variable] = (place.value, next(winners, ansible_origin(value)))
    return found


def _is_from(place: Place, value: object) -> bool:
    """Return whether `value` was written at `place`. One file reached by two paths is one place."""
    if value is place.value:
        return True
    origin = ansible_origin(value)
    return origin is not None and origin.line is not None and origin == ansible_origin(place.value)


def _places(hostvars: Any) -> Iterator[Place]:
    inventory, loader = getattr(hostvars, "_inventory", None), getattr(hostvars, "_loader", None)
    if inventory is None or loader is None:
        return
    for group in inventory.groups.values():
        yield from _of(group.vars, "group", group.name)
    for host in inventory.hosts.values():
        yield from _of(host.vars, "host", host.name)
    playbooks = os.path.realpath(loader.get_basedir())
    sources = sources_of(inventory)
    bases = [
        os.path.realpath(source if os.path.isdir(source) else os.path.dirname(source))
        for source in sources
    ]
    complete = len(sources) == 1 and _is_complete(sources[0])
    for base in dict.fromkeys((playbooks, *bases)):
        for kind, known in (("group", inventory.groups), ("host", inventory.hosts)):
            for name, file in _files(
                loader, os.path.join(base, f"{kind}_vars"), known, complete and base in bases
            ):
                try:
                    content = loader.load_from_file(file, unsafe=True, trusted_as_template=True)
                except Exception:
                    # Ansible reads the files of hosts it needs, and has told of those by now.
                    continue
                yield from _of(
                    content,
                    kind,
                    name,
                    Origin(shorten(file)),
                    shipped=base == playbooks and name == "all",
                )


def _is_complete(source: str) -> bool:
    """Return whether a group or host that this inventory does not know is a mistake.

    What lies beside an inventory file may be for others too, and programs and plugins know other
    hosts tomorrow.
    """
    if not os.path.isdir(source):
        return False
    for entry in os.scandir(source):
        if entry.is_file() and not entry.name.startswith("."):
            with open(entry, "rb") as file:
                if os.access(entry, os.X_OK) or any(line.startswith(b"plugin:") for line in file):
                    return False
    return True


def _files(
    loader: Any, directory: str, known: Container[str], others: bool
) -> Iterator[tuple[str, str]]:
    """Names of groups or hosts with their files; with `others`, names that the inventory does not
    know too.
    """
    for entry in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        path = os.path.join(directory, entry)
        stem, extension = os.path.splitext(entry)
        if entry in known or (others and os.path.isdir(path) and not entry.startswith(".")):
            yield from ((entry, file) for file in loader.find_vars_files(directory, entry))
        elif extension in EXTENSIONS and (stem in known or others) and os.path.isfile(path):
            yield stem, path


def _of(
    content: object, kind: str, name: str, file: Origin | None = None, *, shipped: bool = False
) -> Iterator[Place]:
    for variable, value in content.items() if isinstance(content, Mapping) else ():
        if not isinstance(variable, str):
            continue
        origin = ansible_origin(variable) or ansible_origin(value) or file
        yield Place(
            variable,
            value,
            origin,
            kind,
            name,
            shipped and variable.removeprefix("llm_") in SECTIONS,
        )
