"""What the compiler refuses or warns of that concerns several parts of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.secrets import nearest_secret
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.emit import one_of_each
from modelyard.compiler.inventory import Inventory
from modelyard.compiler.resolve import Resolved, former_secrets
from modelyard.compiler.topology import Topology
from modelyard.diagnostics import Diagnostic, Report, did_you_mean, listing, variable_path
from modelyard.names import GATEWAY, MONITORING, OWN_SECRETS, REDIS, STACK

REMEMBERED = 80
"""Deployments with which a gateway without Redis still remembers failures: measured, 80 work and
100 do not."""


def check_secrets(
    model: Catalogue, secrets: frozenset[str], empty: frozenset[str], report: Report
) -> None:
    """Secrets that something else than a provider names. Of those that are `empty`, `check_values`
    tells.
    """
    wanted: list[tuple[str | None, str, Path]] = []
    if model.versions:
        path: Path = ("versions", "hugging_face", "token_env")
        wanted.append((model.versions.hugging_face.token_env, "model repositories need", path))
    if model.monitoring:
        settings = model.monitoring.alertmanager
        if settings.webhook:
            path = ("monitoring", "alertmanager", "webhook", "token_env")
            wanted.append((settings.webhook.token_env, "the webhook for alerts needs", path))
        if settings.email:
            path = ("monitoring", "alertmanager", "email", "password_env")
            wanted.append((settings.email.password_env, "e-mail for alerts needs", path))
    reserved = former_secrets(model) | {name: name for name in OWN_SECRETS}
    for name, what, path in wanted:
        if name in reserved:
            message = f"{what} {name}, a secret of Modelyard itself"
            report.error("secret-reserved", message, path, "use a separate secret")
        elif name is not None and name not in secrets | empty:
            hint = (
                nearest_secret(name, secrets - reserved.keys())
                or f"export {name}, define it in llm_secrets, or remove {path[-1]}"
            )
            report.error(
                "secret-undefined", f"{what} secret {name}, which is not defined", path, hint
            )


def check_gateway(model: Catalogue, resolved: Resolved, topology: Topology, report: Report) -> None:
    """Check the settings of the gateway that need something else."""
    if model.gateway.cache.enabled and topology.redis is None:
        report.error(
            "cache-without-redis",
            f"the cache is enabled, but no host is in group {REDIS}",
            ("gateway", "cache", "enabled"),
            f"put a host into {REDIS}, or set enabled: false",
        )
    check_timeouts(model, resolved, report)


def check_timeouts(model: Catalogue, resolved: Resolved, report: Report) -> None:
    """Check that nothing waits longer than what is around it.

    A stream's own time-out takes the place of an attempt's (LiteLLM's `router.py:_get_timeout`), so
    it may be longer; the gateway's `stream_s` is only a default, and never is.
    """
    timeouts = model.gateway.timeouts
    longest = timeouts.request_s
    waits: dict[Path, tuple[str, float]] = {
        ("gateway", "timeouts", "request_s"): ("an attempt may take", timeouts.request_s)
    }
    for member in resolved.all():
        own, theirs = member.path, ("providers", member.provider_name)
        longest = max(longest, member.model.timeout or member.provider.timeout or 0)
        for key, what in (
            ("timeout", "an attempt may take"),
            ("stream_timeout", "a stream may be silent for"),
        ):
            if (mine := getattr(member.model, key)) is not None:
                waits[(*own, key)] = (what, mine)
            elif (common := getattr(member.provider, key)) is not None:
                waits[(*theirs, key)] = (what, common)
    for path, (what, seconds) in waits.items():
        if seconds > timeouts.door_s:
            report.error(
                "invalid-value",
                f"{what} {seconds:g} s, but the front end gives up after {timeouts.door_s} s",
                path,
                "raise llm_gateway.timeouts.door_s, or lower this",
            )
    if "stream_s" in timeouts.model_fields_set and timeouts.stream_s > longest:
        report.warning(
            "no-effect",
            f"stream_s has no effect beyond {longest:g} s: no attempt may take longer",
            ("gateway", "timeouts", "stream_s"),
            "raise request_s, or lower this",
        )


def check_memory(model: Catalogue, resolved: Resolved, topology: Topology, report: Report) -> None:
    """Warn of what only works as written with a Redis that all processes of the gateway share."""
    if topology.redis is not None:
        return
    members = one_of_each(resolved.all())
    processes = len(topology.gateways) * model.gateway.workers
    limited = [member for member in members if member.model.rpm or member.model.tpm]
    clients = [name for name, client in model.clients.items() if client.rpm]
    warnings: list[tuple[Path, str]] = []
    if processes > 1 and clients:
        message = (
            f'each of the gateway\'s {processes} processes counts rpm of client "{clients[0]}" on'
            " its own, "
        )
        warnings.append((("clients", clients[0], "rpm"), f"{message}so the limit is multiplied"))
    if processes > 1 and limited:
        key = "rpm" if limited[0].model.rpm else "tpm"
        message = (
            f"each of the gateway's {processes} processes counts {key} of"
            f' "{limited[0].model.name}" on its own, '
        )
        warnings.append(((*limited[0].path, key), f"{message}so the limit is multiplied"))
    if len(members) >= REMEMBERED:
        message = (
            f"with {len(members)} deployments the gateway forgets failures before it can act on"
            " them, "
        )
        warnings.append((("providers",), f"{message}so failed deployments keep getting requests"))
    for path, message in warnings:
        hint = f"put a host into {REDIS}"
        report.warning("redis-advised", message, path, hint, key=True)


def _check_first(model: Catalogue, stack: Sequence[str], report: Report) -> None:
    first = model.rollout.first
    if first is not None and first not in stack:
        report.error(
            "unknown-host",
            f'rollouts begin with "{first}", which is not in {STACK}',
            ("rollout", "first"),
            did_you_mean(first, stack) or f"hosts of {STACK}: {listing(stack)}",
        )


def check_stack(
    model: Catalogue, stack: Sequence[str], inventory: Inventory, report: Report
) -> None:
    """Hosts of our groups, or the first one of rollouts, that are outside the top group: they would
    be compiled for, but never reached.
    """
    _check_first(model, stack, report)
    members = set(stack)
    groups: dict[str, Path] = {GATEWAY: (), REDIS: (), MONITORING: ()}
    for name, provider in model.providers.items():
        if provider.group is not None and provider.status == "active":
            groups.setdefault(provider.group, ("providers", name, "group"))
    for group, path in groups.items():
        outside = [host for host in inventory.groups.get(group, ()) if host not in members]
        if outside:
            are = "is" if len(outside) == 1 else "are"
            message = f"{listing(outside)} of group {group} {are} not in {STACK}"
            hint = f"make {group} a child of {STACK} in the inventory"
            place = inventory.group_origins.get(group) or report.source.origin(path)
            report.found.append(
                Diagnostic("host-outside-stack", "error", message, variable_path(path), place, hint)
            )
