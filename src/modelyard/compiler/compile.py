"""The one entry point: a snapshot of the inventory in, plans and diagnostics out. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalogue.hosts import Gpu, HostVariables
from modelyard.catalogue.ineffective import Ineffective, check_effect
from modelyard.catalogue.overrides import SECTIONS, apply_overrides, is_override
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Merged, Origin, Path, Probe, SourceMap, is_list, no_origin, plain
from modelyard.catalogue.validate import check, validate
from modelyard.catalogue.versions import below_floor
from modelyard.compiler.placement import place_on_gpus
from modelyard.compiler.resolve import Deployment, LeftOut, Resolved, is_own_address, resolve
from modelyard.compiler.routing import Route, Routes, build_routes, declared_names, public_names
from modelyard.diagnostics import Diagnostic, diagnose, did_you_mean, listing
from modelyard.engines import ROLES
from modelyard.names import GATEWAY, MONITORING, REDIS, STACK
from modelyard.plan.clients import check_clients
from modelyard.plan.planner import Planner, Topology, check_ports

CATALOGUE_VARIABLES = tuple(f"llm_{section}" for section in SECTIONS)
OTHER_VARIABLES = (
    "llm_overrides",
    "llm_address",
    "llm_gpus",
    "llm_allow_removal",
    "llm_environment",
    "llm_secrets",
    "llm_report",
    "llm_graph",
)
"""llm_* variables that are not part of the catalogue: overrides, a host's address and GPUs, and settings of a run."""

REMEMBERED = 80
"""Deployments with which a gateway without Redis still remembers failures: measured, 80 work and 100 do not."""


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
    """A snapshot of an inventory.

    `secrets` are the names of the secrets that are defined somewhere, `short` those that are too short for a client's
    key, `ineffective` the places that set a variable for nobody, `locks` by role the versions whose packages can be
    checked (a role that is missing: not known).
    `away` are providers nobody is sent to for now, as if none of their models ran.
    """

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Host]
    secrets: frozenset[str] = frozenset()
    probe: Probe = no_origin
    ineffective: Sequence[Ineffective] = ()
    locks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    away: frozenset[str] = frozenset()
    short: frozenset[str] = frozenset()


@dataclass(slots=True)
class Compiled:
    """The result. With any error in `diagnostics` there are no plans."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    public_names: list[str] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    local_chat_models: list[str] = field(default_factory=list)
    """Public names of chat models that run on hosts of ours."""
    catalogue: Catalogue | None = None
    """What was compiled, if it has no errors."""

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
            "engine_roles": list(ROLES),
            "public_names": self.public_names,
            "routes": self.routes,
            "left_out": self.left_out,
            "local_chat_models": self.local_chat_models,
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
    out.diagnostics += check_effect(inventory.ineffective, inventory.groups)
    first = inventory.hosts[stack[0]].variables
    catalogue = {name.removeprefix("llm_"): first[name] for name in CATALOGUE_VARIABLES if name in first}
    overrides = {name: first[name] for name in first if is_override(name)}
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
    *,
    hosts: bool = True,
) -> None:
    """Compile the catalogue given by section (providers, routing, ...) for the hosts of `stack`.

    Without `hosts` only the gateway's document is wanted, and nobody asks who may call whom.
    """
    given = {key: value for key, value in sections.items() if value is not None}
    switch = given.get("monitoring")
    if isinstance(switch, bool):
        given["monitoring"] = {}
    merged, removed, problems = apply_overrides(given, overrides, inventory.probe)
    if switch is False:  # Whatever an override says of its parts.
        merged = Merged(merged, None)
        merged.pop("monitoring", None)
    out.diagnostics += problems
    source = SourceMap(merged, inventory.probe, removed)
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
    topology = _topology(inventory, stack, out, watched=model is not None and model.monitoring is not None)
    gpus = _declared_gpus(inventory, stack, out)
    if model is None:
        return
    resolved = resolve(model, inventory.groups, inventory.secrets, source, away=inventory.away, sound=sound)
    out.diagnostics += [d for d in resolved.diagnostics if not _is_within(d.path, broken)]
    out.diagnostics += _check_versions(model, resolved, inventory.locks, source, sound=sound)
    sound = sound and not any(problem.severity == "error" for problem in resolved.diagnostics)
    routing = Routes((), ())
    if tree.get("providers"):  # Without any, every name in the routing would be unknown.
        # While providers are away for a minute, nothing is said about chains that miss them.
        whole = sound and not inventory.away
        routing = build_routes(model, resolved, declared, frozenset(topology.gateways), source, sound=whole)
        out.diagnostics += [d for d in routing.diagnostics if not _is_within(d.path, broken)]
    _check_stack(model, stack, inventory, source, out)
    out.diagnostics += check_ports(model, resolved, topology, source, broken)
    placement = place_on_gpus(resolved, gpus, source)
    out.diagnostics += [d for d in placement.diagnostics if not _is_within(d.path, broken)]
    out.diagnostics += _check_secrets(model, inventory.secrets, source)
    clients = check_clients(model, public_names(tree), resolved, inventory.short, source)
    out.diagnostics += [d for d in clients if not _is_within(d.path, broken)]
    out.diagnostics += _check_gateway(model, resolved, topology, source)
    out.diagnostics += _check_memory(model, resolved, topology, source)
    _check_addresses(topology, resolved, inventory, out, callers=hosts)
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
    out.catalogue = model
    _note_absent_names(model, routing.routes, resolved)
    _note_monitoring(model, topology, resolved)
    planner = Planner(
        model, model.versions, resolved, routing.routes, topology, placement, inventory.groups, inventory.secrets
    )
    out.plans = planner.plans()
    out.public_names = planner.public_names
    out.local_chat_models = [
        name for name, members in resolved.deployments.items() if members[0].host and members[0].model.mode == "chat"
    ]
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
    compile_catalogue(sections, {}, inventory, list(inventory.groups[STACK]), out, hosts=False)
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


def _check_variables(inventory: Inventory, stack: Sequence[str], out: Compiled) -> None:
    """Unknown and unreadable variables, catalogues that differ: each told once, not per host."""
    known = (*CATALOGUE_VARIABLES, *OTHER_VARIABLES)
    unknown: dict[str, Origin | None] = {}
    unreadable: dict[tuple[str, str], tuple[Origin | None, list[str]]] = {}
    for name in stack:
        host = inventory.hosts[name]
        for variable in host.variables:
            if variable not in known and not is_override(variable):
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
        compared += sorted(v for v in inventory.hosts[name].variables if is_override(v) and v not in compared)
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


def _topology(inventory: Inventory, stack: Sequence[str], out: Compiled, *, watched: bool) -> Topology:
    gateways = tuple(dict.fromkeys(inventory.groups.get(GATEWAY, ())))
    redis = list(dict.fromkeys(inventory.groups.get(REDIS, ())))
    monitoring = list(dict.fromkeys(inventory.groups.get(MONITORING, ()))) if watched else []
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
    if len(monitoring) > 1:
        _add(
            out,
            "too-many-monitoring",
            f"group {MONITORING} has {listing(monitoring)}: one Prometheus watches the whole inventory",
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
    return Topology(
        tuple(stack), gateways, redis[0] if redis else None, addresses, monitoring[0] if monitoring else None
    )


def _declared_gpus(inventory: Inventory, stack: Sequence[str], out: Compiled) -> dict[str, list[Gpu]]:
    """The GPUs of the hosts that declare some. What several hosts share is read, and complained about, once."""
    read: dict[int, list[Gpu] | None] = {}
    gpus: dict[str, list[Gpu]] = {}
    for name in stack:
        given = inventory.hosts[name].variables.get("llm_gpus")
        if given is None:
            continue
        if id(given) not in read:
            tree = {"gpus": plain(given)}
            problems = check(HostVariables, tree, SourceMap({"gpus": given}, inventory.probe))
            out.diagnostics += problems
            read[id(given)] = None if problems else HostVariables.model_validate(tree).gpus
        if (found := read[id(given)]) is not None:
            gpus[name] = found
    return gpus


def _check_secrets(model: Catalogue, secrets: frozenset[str], source: SourceMap) -> Iterator[Diagnostic]:
    """Secrets that something else than a provider names."""
    wanted: list[tuple[str | None, str, Path]] = []
    if model.versions:
        path: Path = ("versions", "hugging_face", "token_env")
        wanted.append((model.versions.hugging_face.token_env, "repositories are asked with", path))
    if model.monitoring:
        settings = model.monitoring.alertmanager
        if settings.webhook:
            path = ("monitoring", "alertmanager", "webhook", "token_env")
            wanted.append((settings.webhook.token_env, "alerts are posted with", path))
        if settings.email:
            path = ("monitoring", "alertmanager", "email", "password_env")
            wanted.append((settings.email.password_env, "alerts are mailed with", path))
    for name, what, path in wanted:
        if name is not None and name not in secrets:
            hint = did_you_mean(name, secrets) or f"export {name}, or put it in llm_secrets; or remove {path[-1]}"
            yield diagnose(source, "secret-undefined", f"{what} secret {name}, which is not defined", path, hint)


def _check_gateway(model: Catalogue, resolved: Resolved, topology: Topology, source: SourceMap) -> Iterator[Diagnostic]:
    """Settings of the gateway that need something else."""
    if model.gateway.cache.enabled and topology.redis is None:
        yield diagnose(
            source,
            "cache-without-redis",
            f"answers shall be kept in Redis, but no host is in group {REDIS}",
            ("gateway", "cache", "enabled"),
            f"put a host in {REDIS}, or set enabled: false",
        )
    timeouts = model.gateway.timeouts
    attempts: dict[Path, float] = {("gateway", "timeouts", "request_s"): timeouts.request_s}
    for member in resolved.all():
        if member.model.timeout:
            attempts[(*member.path, "timeout")] = member.model.timeout
        elif member.provider.timeout:
            attempts[("providers", member.provider_name, "timeout")] = member.provider.timeout
    for path, seconds in attempts.items():
        if seconds > timeouts.door_s:
            yield diagnose(
                source,
                "invalid-value",
                f"an attempt may take {seconds:g} s, but the door gives up after {timeouts.door_s} s",
                path,
                "raise llm_gateway.timeouts.door_s, or lower this",
            )


def _check_memory(model: Catalogue, resolved: Resolved, topology: Topology, source: SourceMap) -> Iterator[Diagnostic]:
    """What only works as written with a Redis that all processes of the gateway share."""
    if topology.redis is not None:
        return
    members = resolved.all()
    processes = len(topology.gateways) * model.gateway.workers
    limited = [member for member in members if member.model.rpm or member.model.tpm]
    clients = [name for name, client in model.clients.items() if client.rpm]
    warnings: list[tuple[Path, str]] = []
    if processes > 1 and clients:
        message = f'each of the gateway\'s {processes} processes lets rpm of client "{clients[0]}" through: '
        warnings.append((("clients", clients[0], "rpm"), f"{message}they count for themselves"))
    if processes > 1 and limited:
        key = "rpm" if limited[0].model.rpm else "tpm"
        message = f'each of the gateway\'s {processes} processes lets {key} of "{limited[0].model.name}" through: '
        warnings.append(((*limited[0].path, key), f"{message}they count for themselves"))
    if len(members) >= REMEMBERED:
        message = f"with {len(members)} deployments the gateway forgets failures before it can act on them: "
        warnings.append((("providers",), f"{message}what is down is asked again and again"))
    for path, message in warnings:
        hint = f"put a host in {REDIS}"
        yield diagnose(source, "redis-advised", message, path, hint, key=True, severity="warning")


def _check_stack(
    model: Catalogue, stack: Sequence[str], inventory: Inventory, source: SourceMap, out: Compiled
) -> None:
    """Hosts of our groups that are outside the top group: they would be compiled for, but never reached."""
    members = set(stack)
    groups: dict[str, Path] = {GATEWAY: (), REDIS: (), MONITORING: ()}
    for name, provider in model.providers.items():
        if provider.group is not None and provider.status == "active":
            groups.setdefault(provider.group, ("providers", name, "group"))
    for group, path in groups.items():
        outside = [host for host in inventory.groups.get(group, ()) if host not in members]
        if outside:
            message = f"{listing(outside)} of group {group} is not in {STACK}"
            hint = f"make {group} a child of {STACK} in the inventory"
            out.diagnostics.append(diagnose(source, "host-outside-stack", message, path, hint))


def _check_addresses(
    topology: Topology, resolved: Resolved, inventory: Inventory, out: Compiled, *, callers: bool
) -> None:
    """Addresses that other hosts need: of what is called, and (`callers`) of the gateways that are let in."""
    needed: dict[str, str] = {}
    for deployment in resolved.all():
        if deployment.host is not None:
            needed.setdefault(deployment.host, f'"{deployment.model.name}"')
    if topology.redis is not None:
        needed.setdefault(topology.redis, "redis")
    problems: dict[str, str] = {}
    for host, what in needed.items():
        others = [gateway for gateway in topology.gateways if gateway != host]
        if host in topology.addresses and others:
            problems.setdefault(host, f"{what} on {host} is called by the gateway on {others[0]}")
            for caller in others if callers else []:
                problems.setdefault(caller, f"the gateway on {caller} is let in to {what} on {host} by its address")
    watching = topology.monitoring
    for host in topology.hosts if watching is not None else ():
        if host != watching:
            problems.setdefault(host, f"{host} is watched by the Prometheus on {watching}")
            problems.setdefault(str(watching), f"the Prometheus on {watching} is let in to {host} by its address")
    for host, problem in problems.items():
        address = topology.addresses[host]
        if not is_own_address(address) and inventory.hosts[host].variables.get("llm_address") is None:
            _add(
                out,
                "address-unusable",
                f'{problem}, but "{address}" is not an IP address that other hosts can reach',
                ("llm_address",),
                None,
                f"set llm_address for {host} in the inventory",
            )


def _check_versions(
    model: Catalogue, resolved: Resolved, locks: Mapping[str, frozenset[str]], source: SourceMap, *, sound: bool
) -> Iterator[Diagnostic]:
    """Versions that are too old, cannot be checked, or are not said of an engine that is deployed."""
    if model.versions is None:
        return
    deployed = {member.engine.role for member in resolved.all() if member.host}
    for component in ("litellm", *ROLES):
        entry = model.versions.of(component)
        path: Path = ("versions", component)
        if entry is None:
            if component in deployed and sound:
                message = f"{component} is deployed, but its version is not said"
                yield diagnose(source, "missing-key", message, path, "see group_vars/all/versions.yml")
            continue
        version, path = entry.version, (*path, "version")
        known = locks.get(component)
        if least := below_floor(component, version):
            message = f"{component} {version} is below {least}: it has known holes"
            yield diagnose(source, "version-unsafe", message, path, f"use {least} or newer")
        elif known is not None and version not in known:
            message = f"{component} {version} has no lock, so its packages could not be checked"
            listed = ", ".join(sorted(known)) or "none"
            hint = f"locked: {listed}; roles/{component}/README.md says how to lock another one"
            yield diagnose(source, "version-without-lock", message, path, hint)


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


def _note_monitoring(model: Catalogue, topology: Topology, resolved: Resolved) -> None:
    """What is not watched, or not shown."""
    if model.monitoring is None:
        return
    if topology.monitoring is None:
        reason = f"no host in group {MONITORING}"
        resolved.left_out.append(LeftOut("monitoring", "prometheus", reason, (), ("monitoring",)))
    elif model.versions is None or model.versions.grafana is None:
        reason = "llm_versions does not say where its archive is"
        resolved.left_out.append(LeftOut("monitoring", "grafana", reason, (), ("versions",)))


def _servers(members: Sequence[Deployment]) -> str:
    """The provider of a name; where several share it, all of them with their weights."""
    weights = {member.provider_name: member.model.weight for member in members}
    return ", ".join(weights) if len(weights) == 1 else ", ".join(f"{p} (weight {w})" for p, w in weights.items())


def _route(route: Route, resolved: Resolved) -> dict[str, Any]:
    return {
        "name": route.name,
        "kind": route.kind,
        "target": route.target,
        "attempts": [
            {
                "model": name,
                "provider": _servers(resolved.deployments[name]),
                "where": [deployment.where for deployment in resolved.deployments[name]],
            }
            for name in route.attempts
        ],
        "context_window": list(route.context_window) if route.context_window != route.attempts else None,
        "content_policy": list(route.content_policy) if route.content_policy != route.attempts else None,
        "left_out": [{"model": step, "reason": reason} for step, reason in route.dropped],
    }


def _add(out: Compiled, code: str, message: str, path: Path = (), origin: Origin | None = None, hint: str = "") -> None:
    out.diagnostics.append(Diagnostic(code, "error", message, path, origin, hint))
