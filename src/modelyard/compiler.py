"""The one entry point: a snapshot of the inventory in, plans and diagnostics out. Pure and deterministic."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.diagnostics import Diagnostic, did_you_mean, listing
from modelyard.overrides import SECTIONS, apply_overrides
from modelyard.plan import Planner, Topology, check_ports
from modelyard.resolve import GATEWAY, REDIS, STACK, LeftOut, Resolved, is_own_address, resolve
from modelyard.routing import Route, Routes, build_routes, declared_names
from modelyard.schema import Catalogue
from modelyard.sourcemap import Origin, Path, Probe, SourceMap, is_list, no_origin, plain
from modelyard.validate import validate

CATALOGUE_VARIABLES = tuple(f"llm_{section}" for section in SECTIONS)
OTHER_VARIABLES = ("llm_overrides", "llm_address", "llm_allow_removal", "llm_secrets", "llm_report")
"""llm_* variables that are not part of the catalogue: overrides, a host's address, and settings of a run."""

LITELLM_FLOOR = (1, 83, 7)
"""Everything older has a hole that is being exploited; 1.82.7 and 1.82.8 were compromised releases."""


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of one host: its `llm_*` variables and the address Ansible reaches it at.

    `unreadable` are variables that could not be templated, with the reason and the origin.
    """

    variables: Mapping[str, Any]
    address: str
    unreadable: Mapping[str, tuple[str, Origin | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """A snapshot of an inventory. `secrets` are the names of the secrets that are defined somewhere."""

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Host]
    secrets: frozenset[str] = frozenset()
    probe: Probe = no_origin


@dataclass(slots=True)
class Compiled:
    """The result. With any error in `diagnostics` there are no plans."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    public_names: list[str] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.diagnostics if d.severity == "error"]

    @property
    def warnings(self) -> list[Diagnostic]:
        return [d for d in self.diagnostics if d.severity == "warning"]

    def as_dict(self) -> dict[str, Any]:
        """The structure of docs/architecture.md, "The compiled plan"."""
        return {
            "plans": self.plans,
            "public_names": self.public_names,
            "routes": self.routes,
            "left_out": self.left_out,
            "warnings": [diagnostic.render() for diagnostic in self.warnings],
            "report": [diagnostic.as_dict() for diagnostic in self.diagnostics],
        }


def compile_inventory(inventory: Inventory) -> Compiled:
    """Compile the catalogue of a whole inventory. Never raises for anything a user wrote."""
    out = Compiled()
    stack = list(dict.fromkeys(inventory.groups.get(STACK, ())))
    if not stack:
        _add(
            out,
            "no-hosts",
            f"no host is in group {STACK}",
            hint=f"put the hosts of this stack in {STACK}, as in inventories/workstation/hosts.yml; "
            "is the right inventory chosen (-i)?",
        )
        return out
    _check_variables(inventory, stack, out)
    first = inventory.hosts[stack[0]].variables
    catalogue = {name.removeprefix("llm_"): first[name] for name in CATALOGUE_VARIABLES if name in first}
    overrides = {name: first[name] for name in first if _is_override(name)}
    if first.get("llm_versions") is None and "llm_versions" not in inventory.hosts[stack[0]].unreadable:
        _add(
            out,
            "missing-key",
            "llm_versions is not defined",
            ("llm_versions",),
            hint="see group_vars/all/versions.yml",
        )
    compile_catalogue(catalogue, overrides, inventory, stack, out)
    return out


def compile_catalogue(
    sections: Mapping[str, Any],
    overrides: Mapping[str, Any],
    inventory: Inventory,
    stack: Sequence[str],
    out: Compiled,
) -> None:
    """Compile the catalogue given by section (providers, routing, ...) for the hosts of `stack`."""
    merged, problems = apply_overrides({k: v for k, v in sections.items() if v is not None}, overrides, inventory.probe)
    out.diagnostics += problems
    source = SourceMap(merged, inventory.probe)
    tree = plain(merged)
    declared = declared_names(tree)
    if not tree.get("providers"):
        _add(
            out,
            "empty-catalogue",
            "the catalogue has no providers",
            ("llm_providers",),
            source.origin(("providers",)),
            "declare llm_providers in group_vars, as group_vars/all/providers.yml does; "
            "a playbook outside playbooks/ does not see it",
        )
    model, problems, broken = validate(tree, source)
    out.diagnostics += problems
    sound = not out.errors
    topology = _topology(inventory, stack, out)
    if model is None:
        return
    _check_versions(model, source, out)
    resolved = resolve(model, inventory.groups, inventory.secrets, source, sound=sound)
    out.diagnostics += [d for d in resolved.diagnostics if not _is_within(d.path, broken)]
    sound = sound and not resolved.diagnostics
    routing = Routes((), ())
    if tree.get("providers"):  # Without any, every name in the routing would be unknown.
        routing = build_routes(model, resolved, declared, source, sound=sound)
        out.diagnostics += [d for d in routing.diagnostics if not _is_within(d.path, broken)]
    _check_stack(model, stack, inventory, source, out)
    out.diagnostics += check_ports(model, resolved, topology, source, broken)
    _check_addresses(topology, resolved, inventory, out)
    if not out.errors and not resolved.deployments:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in resolved.left_out)
        _add(
            out,
            "no-deployment",
            f"nothing is left that the gateway could serve ({reasons})",
            ("llm_providers",),
            source.origin(("providers",)),
            "put a host in the group of a provider, or define the secret of one",
        )
    if out.errors:
        return
    _note_absent_names(model, routing.routes, resolved)
    planner = Planner(model, model.versions, resolved, routing.routes, topology)
    out.plans = planner.plans()
    out.public_names = planner.public_names
    out.routes = [_route(route, resolved) for route in routing.routes]
    out.left_out = [entry.as_dict(source) for entry in resolved.left_out] + [
        {
            "kind": "step",
            "name": step,
            "of": route.name,
            "reason": reason,
            "models": [step],
            "origin": "",
        }
        for route in routing.routes
        for step, reason in route.dropped
    ]


def compile_document(
    catalogue: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
    secrets: frozenset[str],
    gateway_host: str | None = None,
    probe: Probe = no_origin,
) -> tuple[dict[str, Any], list[Diagnostic]]:
    """The gateway's document alone, from a catalogue as one mapping. What the filters are made of.

    `gateway_host` is the gateway whose view of the network is taken (the first one by default). Returns an
    empty document beside errors.
    """
    out = Compiled()
    for key in catalogue:
        if key not in SECTIONS:
            _add(
                out,
                "unknown-key",
                f'unknown key "{key}" in the catalogue',
                (str(key),),
                probe(key),
                did_you_mean(str(key), SECTIONS) or f"the keys are {', '.join(SECTIONS)}",
            )
    hosts = list(dict.fromkeys(host for members in groups.values() for host in members))
    inventory = Inventory(
        {**groups, STACK: groups.get(STACK) or hosts},
        {host: Host({}, addresses.get(host, host)) for host in hosts},
        secrets,
        probe,
    )
    sections = {key: value for key, value in catalogue.items() if key in SECTIONS}
    compile_catalogue(sections, {}, inventory, list(inventory.groups[STACK]), out)
    gateways = list(groups.get(GATEWAY, ()))
    if out.errors:
        return {}, out.diagnostics
    host = gateway_host or gateways[0]
    if host not in gateways:
        _add(out, "unknown-host", f'"{host}" is not in group {GATEWAY}', hint=did_you_mean(host, gateways))
        return {}, out.diagnostics
    return out.plans[host]["litellm"]["document"], out.diagnostics


def _is_within(path: Path, broken: frozenset[Path]) -> bool:
    """True for a diagnostic about something the schema has already refused a part of."""
    inside = (str(path[0]).removeprefix("llm_"), *path[1:]) if path else ()
    return any(len(place) > 1 and inside[: len(place)] == place for place in broken)


# -- variables ---------------------------------------------------------------------------------------------


def _is_override(name: str) -> bool:
    return name == "llm_overrides" or name.startswith("llm_overrides_")


def _check_variables(inventory: Inventory, stack: Sequence[str], out: Compiled) -> None:
    """Unknown and unreadable variables, catalogues that differ: each told once, not per host."""
    known = (*CATALOGUE_VARIABLES, *OTHER_VARIABLES)
    unknown: dict[str, Origin | None] = {}
    unreadable: dict[tuple[str, str], tuple[Origin | None, list[str]]] = {}
    for name in stack:
        host = inventory.hosts[name]
        for variable in host.variables:
            if variable not in known and not _is_override(variable):
                value = host.variables[variable]
                unknown.setdefault(variable, inventory.probe(variable) or inventory.probe(value))
        for variable, (reason, origin) in host.unreadable.items():
            unreadable.setdefault((variable, reason), (origin, []))[1].append(name)
    for variable, origin in unknown.items():
        hint = did_you_mean(variable, known) or f"variables of Modelyard are {', '.join(known)} and llm_overrides_*"
        _add(out, "unknown-variable", f"{variable} is no variable of Modelyard", (variable,), origin, hint)
    for (variable, reason), (origin, hosts) in unreadable.items():
        _add(
            out,
            "unreadable-variable",
            f"{variable} cannot be read for {listing(hosts)}: {reason}",
            (variable,),
            origin,
            "the catalogue is compiled before any host is contacted: it cannot use facts or registers",
        )
    given = inventory.hosts[stack[0]].variables.get("llm_secrets")
    if given is not None and not isinstance(given, Mapping):
        _add(
            out,
            "invalid-value",
            "llm_secrets is not a mapping of names to values",
            ("llm_secrets",),
            inventory.probe(given),
            "write NAME: value, with the value encrypted by ansible-vault",
        )
    _check_same(inventory, stack, out)


def _check_same(inventory: Inventory, stack: Sequence[str], out: Compiled) -> None:
    first_name = stack[0]
    first = inventory.hosts[first_name]
    compared = [*CATALOGUE_VARIABLES]
    for name in stack:
        compared += sorted(v for v in inventory.hosts[name].variables if _is_override(v) and v not in compared)
    for variable in compared:
        mine = first.variables.get(variable)
        mine_plain: Any = plain(mine)
        differing: dict[str, tuple[Origin | None, Origin | None, Path, list[str]]] = {}
        for name in stack[1:]:
            host = inventory.hosts[name]
            if variable in host.unreadable or variable in first.unreadable:
                continue
            theirs = host.variables.get(variable)
            if theirs is mine:
                continue
            theirs_plain = plain(theirs)
            if theirs_plain == mine_plain:
                continue
            path = (variable, *_first_difference(mine_plain, theirs_plain))
            here = SourceMap(first.variables, inventory.probe).origin(path)
            there = SourceMap(host.variables, inventory.probe).origin(path)
            differing.setdefault(repr((path, str(there))), (here, there, path, []))[3].append(name)
        for here, there, path, names in differing.values():
            _add(
                out,
                "differing-catalogues",
                f"{listing(names)} and {first_name} do not see the same {variable}: "
                f"{_where(there, variable in inventory.hosts[names[0]].variables)} and "
                f"{_where(here, variable in first.variables)}",
                path,
                there or here,
                f"the catalogue is one for the inventory: set it for all of {STACK}",
            )


def _where(origin: Origin | None, defined: bool) -> str:
    return str(origin) if origin else "(a place without origin)" if defined else "(not defined)"


def _first_difference(left: Any, right: Any) -> Path:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            if key not in left or key not in right:
                return (key,)
            if left[key] != right[key]:
                return (key, *_first_difference(left[key], right[key]))
    if is_list(left) and is_list(right):
        for position, (one, two) in enumerate(zip(left, right, strict=False)):
            if one != two:
                return (position, *_first_difference(one, two))
    return ()


# -- the inventory -----------------------------------------------------------------------------------------


def _topology(inventory: Inventory, stack: Sequence[str], out: Compiled) -> Topology:
    gateways = tuple(dict.fromkeys(inventory.groups.get(GATEWAY, ())))
    redis = list(dict.fromkeys(inventory.groups.get(REDIS, ())))
    if not gateways:
        near = did_you_mean(GATEWAY, [group for group in inventory.groups if group.startswith("llm_")])
        known = GATEWAY in inventory.groups
        _add(
            out,
            "no-gateway",
            f"no host is in group {GATEWAY}: there would be nothing to send requests to",
            hint="put at least one host in it" if known or not near else near,
        )
    if len(redis) > 1:
        _add(
            out,
            "too-many-redis",
            f"group {REDIS} has {listing(redis)}: the gateways share one Redis",
            hint="leave one host in it, or none",
        )
    addresses: dict[str, str] = {}
    for name in stack:
        host = inventory.hosts[name]
        own = host.variables.get("llm_address")
        if own is not None and not (isinstance(own, str) and is_own_address(str(own))):
            _add(
                out,
                "address-unusable",
                f"llm_address of {name} is not an IP address that other hosts can reach: {plain(own)!r}",
                ("llm_address",),
                inventory.probe(own),
                "give the host's address in the network the stack shares, without a port",
            )
        addresses[name] = str.__str__(own) if isinstance(own, str) else str.__str__(host.address)
    return Topology(tuple(stack), gateways, redis[0] if redis else None, addresses)


def _check_stack(
    model: Catalogue, stack: Sequence[str], inventory: Inventory, source: SourceMap, out: Compiled
) -> None:
    """Hosts of our groups that are outside the top group: they would be compiled for, but never reached."""
    members = set(stack)
    groups: dict[str, Path] = {GATEWAY: (), REDIS: ()}
    for name, provider in model.providers.items():
        if provider.group is not None and provider.status == "active":
            groups.setdefault(provider.group, ("providers", name, "group"))
    for group, path in groups.items():
        outside = [host for host in inventory.groups.get(group, ()) if host not in members]
        if outside:
            _add(
                out,
                "host-outside-stack",
                f"{listing(outside)} of group {group} is not in {STACK}",
                (f"llm_{path[0]}", *path[1:]) if path else (),
                source.origin(path) if path else None,
                f"make {group} a child of {STACK} in the inventory",
            )


def _check_addresses(topology: Topology, resolved: Resolved, inventory: Inventory, out: Compiled) -> None:
    needed: dict[str, str] = {}
    for deployment in resolved.all():
        if deployment.host is not None:
            needed.setdefault(deployment.host, f'"{deployment.model.name}"')
    if topology.redis is not None:
        needed.setdefault(topology.redis, "redis")
    for host, what in needed.items():
        if host not in topology.addresses or not topology.others_need(host):
            continue
        address = topology.addresses[host]
        if not is_own_address(address) and inventory.hosts[host].variables.get("llm_address") is None:
            caller = next(gateway for gateway in topology.gateways if gateway != host)
            _add(
                out,
                "address-unusable",
                f'{what} on {host} is called by the gateway on {caller}, but "{address}" is not an '
                "IP address that other hosts can reach",
                ("llm_address",),
                None,
                f"set llm_address for {host} in the inventory",
            )


def _check_versions(model: Catalogue, source: SourceMap, out: Compiled) -> None:
    if model.versions is None:
        return
    version = model.versions.litellm.version
    release = re.split(r"\.post|rc|a|b", version)[0]
    numbers = tuple(int(part) for part in release.split("."))
    if numbers < LITELLM_FLOOR:
        floor = ".".join(map(str, LITELLM_FLOOR))
        _add(
            out,
            "version-unsafe",
            f"litellm {version} is below {floor}: it has known holes that are being exploited",
            ("llm_versions", "litellm", "version"),
            source.origin(("versions", "litellm", "version")),
            f"use {floor} or newer",
        )


# -- the result --------------------------------------------------------------------------------------------


def _note_absent_names(model: Catalogue, routes: Sequence[Route], resolved: Resolved) -> None:
    """Aliases and capabilities nobody is left to answer for."""
    live = {route.name for route in routes}
    for alias, target in model.routing.aliases.items():
        if alias not in live:
            resolved.left_out.append(
                LeftOut("alias", alias, f'"{target}" is left out', (), ("routing", "aliases", alias))
            )
    for capability in model.routing.capabilities:
        if capability not in live:
            reason = "all its models are left out"
            resolved.left_out.append(
                LeftOut("capability", capability, reason, (), ("routing", "capabilities", capability))
            )


def _route(route: Route, resolved: Resolved) -> dict[str, Any]:
    return {
        "name": route.name,
        "kind": route.kind,
        "target": route.target,
        "attempts": [
            {
                "model": name,
                "provider": resolved.deployments[name][0].provider_name,
                "where": [deployment.where for deployment in resolved.deployments[name]],
            }
            for name in route.attempts
        ],
        "left_out": [{"model": step, "reason": reason} for step, reason in route.dropped],
    }


def _add(out: Compiled, code: str, message: str, path: Path = (), origin: Origin | None = None, hint: str = "") -> None:
    out.diagnostics.append(Diagnostic(code, "error", message, path, origin, hint))
