"""The one entry point: a snapshot of the inventory in, plans and diagnostics out. Pure and
deterministic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalogue.dedented import Dedented
from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.hosts import Gpu, HostVariables
from modelyard.catalogue.ineffective import (
    check_effect,
    check_files,
    check_layout,
    misread_groups,
)
from modelyard.catalogue.overrides import apply_overrides, is_override
from modelyard.catalogue.scalars import check_numbers
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.secrets import check_variable, hide_values, names_of, set_to_nothing
from modelyard.catalogue.sourcemap import Merged, Origin, SourceMap, encrypted_in, is_list, plain
from modelyard.catalogue.strays import check_groups, check_strays, like_the_stack
from modelyard.catalogue.validate import check, validate
from modelyard.compiler.checks import (
    check_gateway,
    check_memory,
    check_secrets,
    check_stack,
)
from modelyard.compiler.clients import asked_names, check_asked, check_clients
from modelyard.compiler.hosts import check_machines
from modelyard.compiler.inventory import CATALOGUE_VARIABLES, OTHER_VARIABLES, Findings, Inventory
from modelyard.compiler.listeners import check_ports
from modelyard.compiler.placement import place_on_gpus
from modelyard.compiler.pools import Pool
from modelyard.compiler.processes import check_processes
from modelyard.compiler.reach import check_reach
from modelyard.compiler.replaced import check_replaced
from modelyard.compiler.resolve import Deployment, LeftOut, Resolved, former_secrets, resolve
from modelyard.compiler.routes import Route
from modelyard.compiler.routing import build_routes, declared_names, public_names
from modelyard.compiler.secrets import check_values, uses
from modelyard.compiler.topology import Topology, build_topology, check_addresses
from modelyard.compiler.variables import check_variables
from modelyard.compiler.versions import check_versions
from modelyard.diagnostics import Report
from modelyard.engines import ROLES
from modelyard.names import MONITORING, STACK
from modelyard.plan.model import HostPlan
from modelyard.plan.planner import Planner
from modelyard.plan.scope import Scope
from modelyard.plan.waves import plan_rollout

KNOWN = (*CATALOGUE_VARIABLES, *OTHER_VARIABLES)
"""The `llm_*` variables of Modelyard, but for `llm_overrides_*`."""


@dataclass(slots=True)
class Compiled(Findings):
    """The result. With any error in `diagnostics` there are no plans."""

    hosts: dict[str, HostPlan] = field(default_factory=dict)
    """The plan of every host."""
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same as plain data, as playbooks get it."""
    public_names: list[str] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    pools: list[dict[str, Any]] = field(default_factory=list)
    """Which hosts share the requests for a process of an engine."""
    local_chat_models: list[str] = field(default_factory=list)
    """Public names of chat models that run on hosts of ours."""
    rollout: dict[str, Any] = field(default_factory=dict)
    """`llm_rollout`, with `waves` in place of what they follow from: lists of hosts, and `silent`,
    by host the public names that nothing answers while one of its engines restarts."""
    catalogue: Catalogue | None = None
    """What was compiled, if it has no errors."""

    def as_dict(self) -> dict[str, Any]:
        """Return the structure of docs/plan.md."""
        return {
            "plans": self.plans,
            "engine_roles": list(ROLES),
            "public_names": self.public_names,
            "routes": self.routes,
            "pools": self.pools,
            "left_out": self.left_out,
            "local_chat_models": self.local_chat_models,
            "rollout": self.rollout,
            "warnings": [diagnostic.render() for diagnostic in self.warnings],
            "report": [diagnostic.as_dict() for diagnostic in self.diagnostics],
        }


def compile_inventory(inventory: Inventory) -> Compiled:
    """Compile the catalogue of a whole inventory. Never raises for anything a user wrote."""
    out = Compiled()
    stack = list(dict.fromkeys(inventory.groups.get(STACK, ())))
    out.diagnostics += check_layout(
        inventory.unread_directories, inventory.unread_keys, KNOWN, inventory.groups
    )
    if not stack:
        out.refuse(
            "no-hosts",
            f"no host is in group {STACK}",
            hint=like_the_stack(inventory.groups)
            or (
                f"put the hosts of this stack into {STACK}, as in "
                "inventories/workstation/hosts.yml; check that -i names the right inventory"
            ),
        )
        return out
    check_variables(inventory, stack, out)
    out.diagnostics += check_effect(inventory.ineffective, inventory.groups)
    out.diagnostics += check_files(inventory.unread, inventory.backups)
    if any(inventory.hosts[name].endless for name in stack):
        return out
    first = inventory.hosts[stack[0]].variables
    so_far = tuple(out.diagnostics)
    _compile_variables(first, inventory, stack, out)

    def compile_again(variables: Mapping[str, Any]) -> Findings:
        again = Compiled([*so_far])
        _compile_variables(variables, inventory, stack, again)
        return again

    check_replaced(first, inventory, compile_again, out)
    if out.errors:
        hidden = _encrypted(first, inventory)
        out.diagnostics = [one.without(hidden) for one in out.diagnostics]
    return out


def _encrypted(variables: Mapping[str, Any], inventory: Inventory) -> set[str]:
    """Return the texts of the catalogue that are encrypted: wherever one is repeated, it is not
    shown. Of one or two characters nobody makes a secret.
    """
    return {
        text
        for name, value in variables.items()
        if name != "llm_secrets"
        for text in encrypted_in(value, inventory.probe)
        if len(text) > 2
    }


def _compile_variables(
    variables: Mapping[str, Any], inventory: Inventory, stack: Sequence[str], out: Compiled
) -> None:
    """Compile the catalogue that some `llm_*` variables make, with the overrides among them."""
    catalogue = {
        name.removeprefix("llm_"): variables[name]
        for name in CATALOGUE_VARIABLES
        if name in variables
    }
    overrides = {name: variables[name] for name in variables if is_override(name)}
    compile_catalogue(catalogue, overrides, inventory, stack, out)


def compile_catalogue(
    sections: Mapping[str, Any],
    overrides: Mapping[str, Any],
    inventory: Inventory,
    stack: Sequence[str],
    out: Compiled,
) -> None:
    """Compile the catalogue given by section (providers, routing, ...) for the hosts of `stack`."""
    source, tree = _merge(sections, overrides, inventory, out)
    declared, public, asked = declared_names(tree), public_names(tree), asked_names(tree)
    out.diagnostics += check_strays(
        inventory.others,
        inventory.role_variables,
        KNOWN,
        tree,
        _mentioned(inventory),
        Dedented(
            {**{f"llm_{name}": value for name, value in sections.items()}, **overrides},
            inventory.probe,
            tree,
            lambda: _owners(tree),
        ).judge,
    )
    named, groups = frozenset(names_of(tree)), _named_groups(tree)
    model, problems, broken = validate(tree, source)
    out.diagnostics += [*problems, *check_numbers(source, problems)]
    sound = not out.errors
    check_machines(inventory, stack, out)
    topology = build_topology(
        inventory, stack, out, watched=model is not None and model.monitoring is not None
    )
    gpus = _declared_gpus(inventory, stack, out)
    out.diagnostics += check_groups(
        inventory.groups,
        groups,
        inventory.group_origins,
        misread_groups(
            inventory.unread_directories, inventory.unread_keys, inventory.group_origins
        ),
        inventory.idle_groups,
    )
    if model is None:
        return
    found = Report(source)
    resolved = resolve(
        model,
        inventory.groups,
        inventory.secrets,
        found,
        away=inventory.away,
        empty=set_to_nothing(inventory.views),
        sound=sound,
    )
    out.diagnostics += found.outside(broken)
    checked = Report(source)
    check_versions(model, resolved, inventory, checked, sound=sound)
    out.diagnostics += checked.found
    routes: tuple[Route, ...] = ()
    if tree.get("providers"):  # Without any, every name in the routing would be unknown.
        routed = Report(source)
        # While providers are away for a minute, nothing is said about chains that miss them.
        whole = sound and not found.has_errors and not inventory.away
        routes = build_routes(
            model, resolved, declared, public, frozenset(topology.gateways), routed, sound=whole
        )
        out.diagnostics += routed.outside(broken)
    checked = Report(source)
    check_stack(model, stack, inventory, checked)
    check_ports(model, resolved, topology, inventory.hosts, checked, broken)
    shared = Report(source)
    check_processes(model, resolved, shared)
    checked.found += shared.outside(broken)
    placed = Report(source)
    placement = place_on_gpus(resolved, gpus, model.versions, placed, _of_gpus(inventory, gpus))
    checked.found += placed.outside(broken)
    clients = Report(source)
    check_clients(model, public, resolved, routes, inventory.views, clients)
    checked.found += clients.outside(broken) + check_asked(
        model, asked, public, resolved, source, {one.path for one in problems}
    )
    _check_secrets(model, named, resolved, topology, inventory, checked)
    check_gateway(model, resolved, topology, checked)
    check_reach(model, resolved, topology, inventory, checked, broken)
    check_memory(model, resolved, topology, checked)
    out.diagnostics += checked.found
    check_addresses(topology, resolved, inventory, out)
    if not out.errors and not resolved.deployments:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in resolved.left_out)
        out.refuse(
            "no-deployment",
            f"no deployment is left for the gateway ({reasons})",
            ("llm_providers",),
            source.origin(("providers",)),
            "put a host into a provider's group, or define a provider's secret",
        )
    if not out.errors:
        _note_absent_names(model, routes, resolved)
        _note_monitoring(model, topology, resolved)
        _fill(
            out,
            Scope(
                model, resolved, routes, topology, placement, inventory.groups, inventory.secrets
            ),
            source,
        )


def _mentioned(inventory: Inventory) -> set[str]:
    """Return the words in the templates of all variables: whatever is in a template is used."""
    written = {id(one): one for host in inventory.hosts.values() for one in host.raw.values()}
    others = [variable.value for variable in inventory.others]
    return {
        word
        for text in _texts([*written.values(), *others])
        if "{{" in text or "{%" in text
        for word in re.findall(r"\w+", text)
    }


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for child in node.values():
            yield from _texts(child)
    elif is_list(node):
        for child in node:
            yield from _texts(child)


def _owners(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return the provider of every model."""
    providers = tree.get("providers")
    return {
        name: str(provider)
        for provider, entry in (providers.items() if isinstance(providers, Mapping) else ())
        for name in declared_names({"providers": {provider: entry}})
    }


def _check_secrets(
    model: Catalogue,
    named: Iterable[str],
    resolved: Resolved,
    topology: Topology,
    inventory: Inventory,
    report: Report,
) -> None:
    """Secrets that are missing, and what is wrong with the others. `named` are all names of secrets
    in the catalogue.
    """
    check_secrets(model, inventory.secrets, set_to_nothing(inventory.views), report)
    ours = former_secrets(model)
    known = {*named, *ours, *ours.values()}
    report.found += check_variable(known, inventory.views)
    used = uses(model, resolved, topology, inventory.secrets)
    report.found += check_values(used, inventory.views, report.source)


def _named_groups(tree: Mapping[str, Any]) -> list[str]:
    """Return the groups that providers name, however wrong the rest of them is."""
    providers = tree.get("providers")
    entries = providers.values() if isinstance(providers, Mapping) else ()
    return [
        str(entry["group"]) for entry in entries if isinstance(entry, Mapping) and "group" in entry
    ]


def _merge(
    sections: Mapping[str, Any], overrides: Mapping[str, Any], inventory: Inventory, out: Compiled
) -> tuple[SourceMap, dict[str, Any]]:
    """Return the sections with the overrides merged over them: where each value stands, and all of
    it as plain data.
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
    source = SourceMap(merged, inventory.probe, removed, inventory.line)
    tree = plain(merged)
    hide_values(tree, inventory.views)
    if not tree.get("providers"):
        out.refuse(
            "empty-catalogue",
            "the catalogue has no providers",
            ("llm_providers",),
            source.origin(("providers",)),
            "declare llm_providers in group_vars, as group_vars/all/providers.yml does; "
            "playbooks outside playbooks/ do not see them",
        )
    return source, tree


def _fill(out: Compiled, scope: Scope, source: SourceMap) -> None:
    """Make the plans, and what is said beside them."""
    out.catalogue = scope.catalogue
    out.hosts = Planner(scope).plans()
    out.plans = {host: plan.model_dump() for host, plan in out.hosts.items()}
    out.public_names = scope.public_names
    members = scope.resolved.deployments.items()
    out.local_chat_models = [
        name for name, (first, *_) in members if first.host and first.model.mode == "chat"
    ]
    out.rollout = plan_rollout(scope)
    out.routes = [_route(route, scope.resolved) for route in scope.routes]
    out.pools = [_pool(pool, scope.catalogue.gateway) for pool in scope.pools]
    out.left_out = [entry.as_dict(source) for entry in scope.resolved.left_out] + [
        {
            "kind": "step",
            "name": step,
            "of": route.name,
            "reason": reason,
            "models": [step],
            "origin": "",
        }
        for route in scope.routes
        for step, reason in route.dropped
    ]


def _declared_gpus(
    inventory: Inventory, stack: Sequence[str], out: Compiled
) -> dict[str, list[Gpu]]:
    """Return the GPUs of the hosts that declare some. What several hosts share is read, and
    complained about, once.
    """
    read: dict[int, list[Gpu] | None] = {}
    gpus: dict[str, list[Gpu]] = {}
    for name in stack:
        given = inventory.hosts[name].variables.get("llm_gpus")
        if given is None:
            continue
        if id(given) not in read:
            tree = {"gpus": plain(given)}
            source = SourceMap({"gpus": given}, inventory.probe, line=inventory.line)
            problems = check(HostVariables, tree, source)
            problems += check_numbers(source, problems)
            out.diagnostics += problems
            read[id(given)] = None if problems else HostVariables.model_validate(tree).gpus
        if (found := read[id(given)]) is not None:
            gpus[name] = found
    return gpus


def _of_gpus(inventory: Inventory, hosts: Iterable[str]) -> dict[str, Origin | None]:
    """Return where these hosts declare their GPUs."""
    return {name: inventory.probe(inventory.hosts[name].variables["llm_gpus"]) for name in hosts}


def _note_absent_names(model: Catalogue, routes: Sequence[Route], resolved: Resolved) -> None:
    """Aliases and capabilities that no deployment serves."""
    live = {route.name for route in routes}
    for alias, target in model.routing.aliases.items():
        if alias not in live:
            resolved.left_out.append(
                LeftOut(
                    "alias", alias, f'"{target}" is left out', (), ("routing", "aliases", alias)
                )
            )
    for capability in model.routing.capabilities:
        if capability not in live:
            reason = "all its models are left out"
            resolved.left_out.append(
                LeftOut(
                    "capability", capability, reason, (), ("routing", "capabilities", capability)
                )
            )


def _note_monitoring(model: Catalogue, topology: Topology, resolved: Resolved) -> None:
    """Note what is not watched, or not shown."""
    if model.monitoring is None:
        return
    if topology.monitoring is None:
        reason = f"no host in group {MONITORING}"
        resolved.left_out.append(LeftOut("monitoring", "prometheus", reason, (), ("monitoring",)))
    elif model.versions is None or model.versions.grafana is None:
        reason = "llm_versions names no archive of it"
        resolved.left_out.append(LeftOut("monitoring", "grafana", reason, (), ("versions",)))


def _servers(members: Sequence[Deployment]) -> str:
    """Return the provider of a name; where several share it, all of them with their weights."""
    weights = {member.provider_name: member.model.weight for member in members}
    return (
        ", ".join(weights)
        if len(weights) == 1
        else ", ".join(f"{p} (weight {w})" for p, w in weights.items())
    )


def _pool(pool: Pool, gateway: Gateway) -> dict[str, Any]:
    return {
        "name": pool.name,
        "provider": pool.members[0].provider_name,
        "models": [model.name for model in pool.models],
        "hosts": pool.hosts,
        "max_parallel": pool.max_parallel,
        "queue_s": pool.queue_s(gateway),
    }


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
        "context_window": list(route.context_window)
        if route.context_window != route.attempts
        else None,
        "content_policy": list(route.content_policy)
        if route.content_policy != route.attempts
        else None,
        "left_out": [{"model": step, "reason": reason} for step, reason in route.dropped],
    }
