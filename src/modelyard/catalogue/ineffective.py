"""Variables that are set somewhere and have no effect: Ansible lets one place win, and says nothing
of the others.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelyard.catalogue.overrides import SECTIONS, is_override
from modelyard.catalogue.sourcemap import Origin
from modelyard.diagnostics import Diagnostic, did_you_mean
from modelyard.names import STACK

GROUP_KEYS = ("hosts", "children", "vars")
"""What Ansible reads of a group in YAML. It ignores everything else, mostly without a word."""

HOST_VARIABLES = ("llm_address", "llm_gpus")
"""Variables that describe one host. An empty group may keep them for the hosts it will have."""


@dataclass(frozen=True, slots=True)
class Ineffective:
    """A place that sets `variable` for a `kind` (group or host) of this `name`, without effect.

    `host` is the first host of the stack that this place is meant for, `winner` the place whose
    value that host has. Without a host the place is meant for no host of the stack; without a
    winner Ansible does not read it.
    """

    variable: str
    origin: Origin | None
    kind: str
    name: str
    host: str | None = None
    winner: Origin | None = None


@dataclass(frozen=True, slots=True)
class UnreadDirectory:
    """A directory that was meant to be the one of the name `near`. Of an inventory that is a
    directory, Ansible reads it as a part of the inventory (`as_inventory`).
    """

    origin: Origin
    near: str
    as_inventory: bool


@dataclass(frozen=True, slots=True)
class UnreadKey:
    """A key of a group in an inventory's file that Ansible does not read. Of what is no group at
    all, and of a group that has the name of such a key, the key is empty.
    """

    group: str
    key: str
    group_origin: Origin | None = None
    origin: Origin | None = None


def check_layout(
    directories: Iterable[UnreadDirectory],
    keys: Iterable[UnreadKey],
    known: Iterable[str],
    groups: Mapping[str, Sequence[str]],
) -> list[Diagnostic]:
    """Find what an inventory has in a wrong place. `known` are the `llm_*` variables of
    Modelyard, `groups` all groups of the inventory with their hosts.
    """
    found = [
        Diagnostic(
            "variable-without-effect",
            "error",
            "Ansible reads this directory as a part of the inventory, not as variables"
            if directory.as_inventory
            else "Ansible does not read this directory",
            origin=directory.origin,
            hint=f"rename it to {directory.near}, or move it out of the inventory's directory",
        )
        for directory in directories
    ]
    variables, told = {*known}, set()
    names = {*groups, *(host for hosts in groups.values() for host in hosts)}
    for one in keys:
        if one.group in GROUP_KEYS:
            found.append(
                Diagnostic(
                    "unknown-group",
                    "error",
                    f'Ansible takes "{one.group}" for the name of a group here',
                    (one.group,),
                    one.group_origin,
                    f"indent {one.group}: below the group that it belongs to",
                )
            )
        elif one.group in variables or is_override(one.group):
            meant = one.key in names or did_you_mean(one.key, GROUP_KEYS)
            if meant and not is_override(one.group):
                found.append(_unread_key(one, groups, variables))
            elif one.group not in told:
                told.add(one.group)
                found.append(
                    Diagnostic(
                        "variable-without-effect",
                        "error",
                        f"{one.group} has no effect: Ansible takes it for a group of the inventory",
                        (one.group,),
                        one.group_origin,
                        f"move it into a file of group_vars/{STACK}/ beside the inventory",
                    )
                )
        elif one.key:
            found.append(_unread_key(one, groups, variables))
    return found


def _unread_key(
    one: UnreadKey, groups: Mapping[str, Sequence[str]], variables: Container[str]
) -> Diagnostic:
    """Return what is wrong with a key of a group."""
    key = one.key
    if key in variables or is_override(key) or key.startswith("ansible_"):
        hint = f"write it below vars: {{vars: {{{key}: ...}}}}"
    elif key in groups or key.startswith("llm_"):
        hint = f"write it below children: {{children: {{{key}: ...}}}}"
    elif any(key in hosts for hosts in groups.values()):
        hint = f"write it below hosts: {{hosts: {{{key}: }}}}"
    else:
        hint = did_you_mean(key, GROUP_KEYS) or (
            "a group has hosts:, children: and vars:, and all else is below one of them"
        )
    return Diagnostic(
        "unknown-key",
        "error",
        f'Ansible does not read "{key}" of group {one.group}',
        (one.group, key),
        one.origin or one.group_origin,
        hint,
    )


def misread_groups(
    directories: Iterable[UnreadDirectory],
    keys: Iterable[UnreadKey],
    origins: Mapping[str, Origin],
) -> set[str]:
    """Return the groups that are variables in a wrong place, of which `check_layout` tells."""
    below = tuple(f"{directory.origin.file}/" for directory in directories)
    found = {name for name, origin in origins.items() if str(origin.file).startswith(below)}
    return found | {one.group for one in keys if is_override(one.group)}


def check_effect(
    places: Iterable[Ineffective], groups: Mapping[str, Sequence[str]]
) -> list[Diagnostic]:
    """One `variable-without-effect` per place. `groups` are all groups of the inventory, with their
    hosts.
    """
    hosts = {host for members in groups.values() for host in members}
    found: list[Diagnostic] = []
    for place in places:
        known = sorted(groups if place.kind == "group" else hosts)
        subject = f"{place.variable} of {place.kind} {place.name}"
        if place.winner is not None:
            message, hint = (
                f"{subject} has no effect: {place.winner} wins for {place.host}",
                _instead(place.variable),
            )
        elif place.host is not None:
            message = f"{subject} has no effect: Ansible does not read this file"
            hint = f"there is also a directory {place.name}/: move the file into it"
        elif place.name not in known:
            message = f"{subject} has no effect: the inventory has no {place.kind} of this name"
            hint = did_you_mean(place.name, known) or _for_the_stack(place.variable)
        elif place.variable in HOST_VARIABLES and place.kind == "group" and not groups[place.name]:
            continue
        else:
            message, hint = (
                f"{subject} applies to no host of {STACK}",
                _for_the_stack(place.variable),
            )
        found.append(
            Diagnostic(
                "variable-without-effect", "error", message, (place.variable,), place.origin, hint
            )
        )
    return found


def check_files(unread: Iterable[Origin], backups: Iterable[Origin]) -> list[Diagnostic]:
    """One warning per file of variables that Ansible does not read because of its name, and per
    file of the inventory that looks like a copy of another and is read.
    """
    read = [
        Diagnostic(
            "backup-read",
            "warning",
            "Ansible reads this file as a part of the inventory, beside the others",
            origin=origin,
            hint="if it is a copy, move it out of the inventory's directory",
        )
        for origin in backups
    ]
    return read + [
        Diagnostic(
            "variable-without-effect",
            "warning",
            "Ansible does not read this file",
            origin=origin,
            hint="it reads files that end in .yml, .yaml or .json: rename it, or remove it",
        )
        for origin in unread
    ]


def _instead(variable: str) -> str:
    section = variable.removeprefix("llm_")
    if section in SECTIONS:
        return (
            f"put your values into group_vars/{STACK}/ of the inventory, as llm_overrides:"
            f" {{{section}: ...}}"
        )
    if is_override(variable):
        return "give each its own name, such as llm_overrides_site; all llm_overrides_* are merged"
    return "keep one of the two"


def _for_the_stack(variable: str) -> str:
    if variable in HOST_VARIABLES:
        return f"set it for a host of {STACK}, or remove it"
    return f"move it to group_vars/{STACK}/ of the inventory"
