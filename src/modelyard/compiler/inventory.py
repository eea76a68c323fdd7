"""What the compiler is given, a snapshot of an inventory, and what it finds wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalogue.ineffective import Ineffective, UnreadDirectory, UnreadKey
from modelyard.catalogue.overrides import SECTIONS
from modelyard.catalogue.secrets import SecretView
from modelyard.catalogue.sourcemap import Origin, Path, Probe, no_line, no_origin
from modelyard.catalogue.strays import Variable
from modelyard.catalogue.versions import Lock
from modelyard.diagnostics import Diagnostic

CATALOGUE_VARIABLES = tuple(f"llm_{section}" for section in SECTIONS)
OTHER_VARIABLES = (
    "llm_overrides",
    "llm_address",
    "llm_gpus",
    "llm_allow_removal",
    "llm_full",
    "llm_environment",
    "llm_secrets",
    "llm_report",
    "llm_graph",
)
"""llm_* variables that are not part of the catalogue: overrides, a host's address and GPUs, and
settings of a run."""


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of one host: its `llm_*` variables and the address Ansible reaches it at.

    `unreadable` are variables that could not be templated, with the reason and the origin;
    `endless` those that contain themselves or are far too large, with the reason, the path and the
    origin. `origin` is where the inventory names the host first, `address_origin` where it says its
    `ansible_host`. `local` says that Ansible does not connect to it at all: whatever the address
    is, its tasks run on the controller; `local_origin` is where that was said. `way` is what leads
    to a host beside its address, such as a port: two hosts with the same of both are one machine.
    `raw` are the variables as they are written, before templates are filled in.
    """

    variables: Mapping[str, Any]
    address: str
    unreadable: Mapping[str, tuple[str, Origin | None]] = field(default_factory=dict)
    endless: Mapping[str, tuple[str, Path, Origin | None]] = field(default_factory=dict)
    origin: Origin | None = None
    address_origin: Origin | None = None
    local: bool = False
    local_origin: Origin | None = None
    way: str = "ssh 22"
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """A snapshot of an inventory.

    `secrets` are the names of the secrets that are defined somewhere, `views` what hosts see of
    them (a host in none: not known), `ineffective` the places that set a variable without effect,
    `locks` by role the versions whose packages can be checked (a role that is missing: not known),
    `pins` what these locks hold.
    `others` are the variables that the inventory and the command line set beside `llm_*`,
    `role_variables` those that roles take (that could be meant by one of `others`), and whether the
    inventory's value would replace a default. `unread` are files of variables that Ansible does
    not read because of their names. `away` are providers that get no requests for now, as if none
    of their models ran. `line` returns the line of a file that a place is in. `group_origins` is
    where the inventory names a group first, `own_addresses` are those addresses of `local` hosts
    that the controller has. `unread_directories` and `unread_keys` are what lies in the inventory
    itself and is not what Ansible takes it for, `backups` its files that look like copies of
    others. `idle_groups` have a name like ours, and only list hosts. `shipped` are the variables of
    the shipped catalogue that the inventory or the command line replaces: the shipped value, and
    where it was replaced.
    """

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Host]
    secrets: frozenset[str] = frozenset()
    probe: Probe = no_origin
    ineffective: Sequence[Ineffective] = ()
    locks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    away: frozenset[str] = frozenset()
    others: Sequence[Variable] = ()
    role_variables: Mapping[str, bool] = field(default_factory=dict)
    views: Sequence[SecretView] = ()
    pins: Sequence[Lock] = ()
    unread: Sequence[Origin] = ()
    line: Callable[[Origin], str] = no_line
    group_origins: Mapping[str, Origin] = field(default_factory=dict)
    own_addresses: frozenset[str] = frozenset()
    unread_directories: Sequence[UnreadDirectory] = ()
    unread_keys: Sequence[UnreadKey] = ()
    backups: Sequence[Origin] = ()
    idle_groups: frozenset[str] = frozenset()
    shipped: Mapping[str, tuple[Any, Origin | None]] = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    """What is wrong with an inventory, in the order in which it is found."""

    diagnostics: list[Diagnostic] = field(default_factory=list)

    def refuse(
        self, code: str, message: str, path: Path = (), origin: Origin | None = None, hint: str = ""
    ) -> None:
        """Add an error about something else than a place in the catalogue; `path` begins with a
        variable.
        """
        self.diagnostics.append(Diagnostic(code, "error", message, path, origin, hint))

    @property
    def errors(self) -> list[Diagnostic]:
        """The errors, in the order in which they were found."""
        return [d for d in self.diagnostics if d.severity == "error"]

    @property
    def warnings(self) -> list[Diagnostic]:
        """The warnings, in the order in which they were found."""
        return [d for d in self.diagnostics if d.severity == "warning"]
