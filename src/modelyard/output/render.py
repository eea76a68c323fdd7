"""The compiled plan as text for people. No colours, no clock: the same plan is the same text. What
looks like a key is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.catalogue.clients import Client
from modelyard.compile import Compiled
from modelyard.diagnostics import listing
from modelyard.names import POOLS, url_host
from modelyard.operations.diff import HostChanges
from modelyard.output.tables import gpu_table, table
from modelyard.plan.model import HostPlan
from modelyard.showing import censored

MOST_DETAILS = 20
"""Differences shown per service; with a new catalogue there are thousands."""


def plural(count: int, word: str) -> str:
    """Return a count with its word, which gets an `s` unless there is one."""
    return f"{count} {word}" + ("" if count == 1 else "s")


def render_summary(compiled: Compiled) -> str:
    """Two or three lines: what is valid, and what is left out."""
    lines = [
        f"The catalogue is valid: {plural(len(compiled.plans), 'host')},"
        f" {plural(len(compiled.public_names), 'public name')},"
        f" {plural(len(compiled.warnings), 'warning')}."
    ]
    for entry in compiled.left_out:
        if entry["kind"] != "step":
            lines.append(f"Left out: {entry['kind']} {entry['name']}: {entry['reason']}")
    return censored("\n".join(lines))


def render_plan(compiled: Compiled) -> str:
    """Return as text what runs where, who answers for which name, and what is left out and why."""
    blocks = [_host(host, plan) for host, plan in compiled.hosts.items()]
    if compiled.pools:
        pools = [_pool(pool) for pool in compiled.pools]
        blocks.append(["Pools: hosts that share an engine's requests", *_indented(table(pools))])
    blocks.append(
        [
            "Order of attempts for each public name",
            *(line for route in compiled.routes for line in _route(route)),
        ]
    )
    if rollout := _rollout(compiled):
        blocks.append(rollout)
    clients = [plan.litellm.clients for plan in compiled.hosts.values() if plan.litellm]
    if clients and clients[0]:
        rows = [_client(name, client) for name, client in clients[0].items()]
        blocks.append(["Clients with their own keys", *_indented(table(rows))])
    rest = [entry for entry in compiled.left_out if entry["kind"] != "step"]
    if rest:
        blocks.append(["Left out"])
        for entry in rest:
            models = f" ({', '.join(entry['models'])})" if entry["models"] else ""
            blocks[-1].append(f"  {entry['kind']} {entry['name']}: {entry['reason']}{models}")
    if compiled.warnings:
        lines = [line for warning in compiled.warnings for line in warning.render().splitlines()]
        blocks.append(["Warnings", *(f"  {line}" for line in lines)])
    return censored("\n\n".join("\n".join(block) for block in blocks))


def render_changes(changes: Sequence[HostChanges]) -> str:
    """Return as text what a run would change on every host, as far as that is known."""
    lines = ["Pending changes"]
    for host in changes:
        if host.unknown:
            lines.append(f"  {host.host}: live releases are not known ({host.unknown})")
        elif not host.services and not host.names_added and not host.names_removed:
            what = (
                f"nothing, {plural(len(host.unchanged), 'service')} as planned"
                if host.unchanged
                else "nothing"
            )
            lines.append(f"  {host.host}: {what}")
        else:
            lines += [f"  {host.host}", *(f"    {line}" for line in _changes(host))]
    if not all(host.unknown for host in changes):
        lines.append(
            "Only the plans are compared; site.yml --check --diff compares files, packages and"
            " processes, too."
        )
    return censored("\n".join(lines))


# -- the plan --------------------------------------------------------------------------------------


COUNTED = {"haproxy": "public name", POOLS: "pool"}
"""By role of a listener, what is counted there."""


def _host(host: str, plan: HostPlan) -> list[str]:
    rows = [
        (
            f"{url_host(service.address)}:{service.port}",
            service.unit.removesuffix(".service"),
            # All of them stand below; here they would be a line of many screens.
            (
                plural(len(service.models), COUNTED[service.role])
                if service.role in COUNTED
                else ", ".join(service.models)
            ),
            f"GPU {', '.join(map(str, service.gpus))}" if service.gpus else "",
        )
        for service in plan.services
    ]
    lines = [*(table(rows) or ["nothing"]), *gpu_table([gpu.model_dump() for gpu in plan.gpus])]
    return [f"Host {host}", *(f"  {line}" for line in lines)]


def _indented(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in lines)


def _pool(pool: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return pool["name"], ", ".join(pool["hosts"]), at_once(pool), ", ".join(pool["models"])


def at_once(pool: Mapping[str, Any]) -> str:
    """Return how many requests a host of a pool gets, and what becomes of the rest."""
    if pool["max_parallel"] is None:
        return "as many at once as come"
    each = " on each" if len(pool["hosts"]) > 1 else ""
    return f"{pool['max_parallel']} at once{each}, others wait up to {pool['queue_s']} s"


def _route(route: Mapping[str, Any]) -> list[str]:
    if route["kind"] == "alias":
        return [f"  {route['name']} (alias of {route['target']})"]
    attempts = [
        (f"{number}. {attempt['model']}", f"{attempt['provider']} on {', '.join(attempt['where'])}")
        for number, attempt in enumerate(route["attempts"], start=1)
    ]
    lines = table(attempts) + [
        f"-  {step['model']} is left out: {step['reason']}" for step in route["left_out"]
    ]
    for what, names in (
        ("on a context-window error", route["context_window"]),
        ("on a content-policy error", route["content_policy"]),
    ):
        if names:
            lines.append(f"{what}: {' → '.join(names)}")
    kind = f" ({route['kind']})" if route["kind"] in ("capability", "inactive") else ""
    return [f"  {route['name']}{kind}", *(f"    {line}" for line in lines)]


def _rollout(compiled: Compiled) -> list[str]:
    """Return in which waves engines change, and what nothing answers meanwhile; empty where one
    host has them all, and another one answers for each of its models.
    """
    services = {
        host: [instance.service for part in plan.engines for instance in part.instances]
        for host, plan in compiled.hosts.items()
    }
    waves = [[host for host in wave if services[host]] for wave in compiled.rollout["waves"]]
    rows = [
        (f"wave {number}", host, ", ".join(services[host]))
        for number, wave in enumerate(filter(None, waves), start=1)
        for host in wave
    ]
    lines = table(rows) if len(rows) > 1 else []
    for host, names in compiled.rollout["silent"].items():
        lines.append(f"while its engine on {host} restarts, nothing else answers {listing(names)}")
    return ["Rollout", *(f"  {line}" for line in lines)] if lines else []


def _client(name: str, client: Client) -> tuple[str, str, str]:
    models = "all names" if client.models is None else ", ".join(client.models)
    return name, models, "" if client.rpm is None else f"{client.rpm} requests a minute"


# -- changes ---------------------------------------------------------------------------------------


def _changes(host: HostChanges) -> Iterator[str]:
    for change in host.services:
        since = f" (live since {change.since})" if change.since else ""
        note = (
            ": unknown to this version; site.yml leaves it running" if change.kind == "left" else ""
        )
        yield f"{change.kind:<7}  {change.service}{since}{note}"
        for detail in change.details[:MOST_DETAILS]:
            yield f"           {detail}"
        if len(change.details) > MOST_DETAILS:
            yield f"           and {len(change.details) - MOST_DETAILS} more differences"
    if host.unchanged:
        yield f"keep     {', '.join(host.unchanged)}"
    if host.names_added:
        yield f"new public names: {listing(host.names_added)}"
    if host.names_removed:
        yield f"public names to be removed: {listing(host.names_removed)}"
        yield (
            "  (requests for them fail; site.yml removes them only with -e llm_allow_removal=true)"
        )
