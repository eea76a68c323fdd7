"""Choices that a playbook makes for the user: which model runs on a GPU, which version of a
component runs.

What has to be overridden for it, and what that makes of the plans. The catalogue itself is not
touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from modelyard.catalogue.overrides import SWITCHED, is_override
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.versions import COMPONENTS
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Inventory
from modelyard.compiler.resolve import is_keyed
from modelyard.diagnostics import did_you_mean, listing
from modelyard.names import MASTER_KEY, ROTATED, engine_secret
from modelyard.plan.model import HostPlan

UPGRADED = "llm_overrides_upgraded"
"""What `playbooks/upgrade.yml` writes into the inventory. Unlike a switched model it does not win
over `llm_overrides`: a version in the user's own overrides is to be changed there."""

PACKAGED = ("redis", "haproxy", "prometheus", "alertmanager")
"""Components that the distribution's package manager upgrades."""


class SwitchError(Exception):
    """The switch is refused before anything is touched; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A choice, and the plans on the way to it.

    `changed` is false if the model runs already.
    `uncovered` are public names that no model answers meanwhile. `watching` are the hosts whose
    exporters or Prometheus change.
    """

    overrides: dict[str, Any]
    hosts: tuple[str, ...]
    final: Compiled
    changed: bool
    uncovered: tuple[str, ...]
    watching: tuple[str, ...]


def switch(inventory: Inventory, provider: str, model: str) -> Switch:
    """Let `model` of `provider` run, instead of the other models of the provider and of its
    exclusive group.

    Raises SwitchError if the catalogue has errors, before or with the choice, or if the two names
    are not in it.
    """
    former = _compiled(inventory, "The catalogue")
    assert former.catalogue is not None, "a catalogue without errors was compiled"
    affected, overrides = _choice(former.catalogue, inventory.groups, provider, model)
    with_choice, chosen = _with(inventory, SWITCHED, {"providers": overrides})
    final = _compiled(with_choice, "With this choice the catalogue")
    away = _while_away(with_choice, affected, former)
    hosts = tuple(
        dict.fromkeys(
            h for name in affected for h in _hosts(former.catalogue, inventory.groups, name)
        )
    )
    uncovered = _uncovered(final, away, former)
    watching = tuple(
        host
        for host, plan in final.hosts.items()
        if _watched(plan) != _watched(former.hosts.get(host))
    )
    return Switch(chosen, hosts, final, final.hosts != former.hosts, uncovered, watching)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A version, and the plans with it. `hosts` are those whose plan it changes; none if it is the
    plan's already.
    """

    overrides: dict[str, Any]
    former: str
    final: Compiled
    hosts: tuple[str, ...]


def upgrade(
    inventory: Inventory, component: str, version: str, source: Mapping[str, Any] | None = None
) -> Upgrade:
    """Let `component` run in `version`, newer or older, from `source` where the catalogue's does
    not fit.

    Raises SwitchError if the catalogue has errors, before or with that version (one below the
    security floor or without a lock is one), if there is no such component, or if something in the
    inventory wins over the choice.
    """
    before = _compiled(inventory, "The catalogue")
    assert before.catalogue is not None, "a catalogue without errors was compiled"
    if component in PACKAGED:
        raise SwitchError(
            f"{component} comes from the distribution: run apt-get install --only-upgrade on its "
            "host, then site.yml to restart it"
        )
    former = before.catalogue.versions.of(component) if before.catalogue.versions else None
    if former is None:
        near = did_you_mean(component, COMPONENTS) or f"components: {listing(COMPONENTS)}"
        raise SwitchError(f'The catalogue has no version of "{component}": {near}')
    entry: dict[str, Any] = {"version": version}
    if source:
        entry["source"] = dict(source)
    elif version != former.version and _is_pinned(former):
        raise SwitchError(
            f"The checksum of {component} {former.version} is in the catalogue and fits no other"
            " version. Say where "
            f"""the new one is: -e '{{"source": {{...}}}}' with the keys of llm_versions.{component}.source"""
        )
    chosen, overrides = _with(inventory, UPGRADED, {"versions": {component: entry}})
    final = _compiled(chosen, f"With {component} {version} the catalogue")
    assert final.catalogue is not None, "a catalogue without errors was compiled"
    planned = final.catalogue.versions.of(component) if final.catalogue.versions else None
    assert planned is not None, "the choice is in the catalogue"
    if planned.version != version:
        raise SwitchError(
            f"The inventory's own overrides set {component} {planned.version} and take "
            f"precedence: change or remove versions.{component} there "
            f"({listing(_who_says(inventory, component))})"
        )
    hosts = tuple(host for host, plan in final.hosts.items() if plan != before.hosts.get(host))
    return Upgrade(overrides, former.version, final, hosts)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A secret that gets another value, and which services need it.

    `kind` is what it belongs to. Of an engine's key `hosts` are the engine's, `away` the plans in
    which it gets no requests (what runs now, if there is no other), and `uncovered` the public
    names that no model answers meanwhile; of the others both are as ever.
    """

    kind: Literal["gateway", "redis", "engine"]
    hosts: tuple[str, ...]
    final: Compiled
    away: Compiled
    uncovered: tuple[str, ...]


def rotation(inventory: Inventory, secret: str) -> Rotation:
    """Return what it takes to give `secret` another value. Raises SwitchError if it is none that
    can be rotated.
    """
    final = _compiled(inventory, "The catalogue")
    assert final.catalogue is not None, "a catalogue without errors was compiled"
    engines = {
        engine_secret(name): name
        for name, provider in final.catalogue.providers.items()
        if is_keyed(provider)
    }
    if secret in ROTATED:
        return Rotation("gateway" if secret == MASTER_KEY else "redis", (), final, final, ())
    if secret not in engines:
        raise SwitchError(
            f'"{secret}" cannot be rotated; {listing([*ROTATED, *engines])} can. For a '
            "client's key, add a second entry to llm_clients, move the client, and remove the "
            "first; for a provider's key, change it where it is defined, then run site.yml"
        )
    provider = engines[secret]
    away = _while_away(inventory, [provider], final)
    uncovered = _uncovered(final, away, final)
    hosts = tuple(_hosts(final.catalogue, inventory.groups, provider))
    return Rotation("engine", hosts, final, away, uncovered)


def _is_pinned(former: Any) -> bool:
    """Return whether the source says what its bytes are, so that another version cannot come from
    it.
    """
    source = getattr(former, "source", None)
    return source is not None and getattr(source, "sha256", None) is not None


def _who_says(inventory: Inventory, component: str) -> list[str]:
    found = {
        variable
        for host in inventory.hosts.values()
        for variable, value in host.variables.items()
        if is_override(variable) and variable != UPGRADED and isinstance(value, Mapping)
        if component in (value.get("versions") or {})
    }
    return sorted(found)


def _with(
    inventory: Inventory, variable: str, more: Mapping[str, Any]
) -> tuple[Inventory, dict[str, Any]]:
    """Return the inventory with `more` in an override variable on every host, and what that
    variable is then.
    """
    first = next(iter(inventory.hosts.values())).variables.get(variable)
    chosen = _merged(first if isinstance(first, Mapping) else {}, more)
    hosts = {
        name: replace(host, variables={**host.variables, variable: chosen})
        for name, host in inventory.hosts.items()
    }
    return replace(inventory, hosts=hosts), chosen


def _compiled(inventory: Inventory, what: str) -> Compiled:
    return _without_errors(compile_inventory(inventory), what)


def _without_errors(compiled: Compiled, what: str) -> Compiled:
    if compiled.errors:
        count = len(compiled.errors)
        head = f"{what} has {count} error{'s' if count > 1 else ''}. Nothing was changed."
        raise SwitchError("\n".join([head, *(error.render() for error in compiled.errors)]))
    return compiled


def _while_away(inventory: Inventory, providers: Sequence[str], former: Compiled) -> Compiled:
    """Return the plans in which `providers` get no requests.

    Where there are no others, no other could be called, and a gateway that serves nothing is none:
    then `former`, what runs now. Raises SwitchError.
    """
    away = compile_inventory(replace(inventory, away=frozenset(providers)))
    if {error.code for error in away.errors} == {"no-deployment"}:
        return former
    return _with_pools_of(former, _without_errors(away, "While the engines change, the catalogue"))


def _with_pools_of(former: Compiled, away: Compiled) -> Compiled:
    """Return plans whose front ends keep the pools of `former`: the slot that is still live asks
    them until the next one has taken its place, and its streams go on.
    """
    for host, plan in away.hosts.items():
        away.hosts[host] = plan.model_copy(update={"haproxy": former.hosts[host].haproxy})
        away.plans[host]["haproxy"] = former.plans[host]["haproxy"]
    return away


def _uncovered(final: Compiled, away: Compiled, former: Compiled) -> tuple[str, ...]:
    """Public names that no model answers meanwhile: all of them, where the gateway stays as it
    is.
    """
    return tuple(
        name for name in final.public_names if away is former or name not in away.public_names
    )


def _watched(plan: HostPlan | None) -> object:
    """Return the parts of a plan that say what its host measures."""
    return (plan.exporters, plan.prometheus) if plan else None


def _hosts(catalogue: Catalogue, groups: Mapping[str, Sequence[str]], provider: str) -> list[str]:
    return list(groups.get(catalogue.providers[provider].group or "", ()))


def _choice(
    catalogue: Catalogue, groups: Mapping[str, Sequence[str]], name: str, model: str
) -> tuple[list[str], dict[str, Any]]:
    """Return the providers concerned, and what to set on each of them. Raises SwitchError."""
    provider = catalogue.providers.get(name)
    if provider is None:
        known = list(catalogue.providers)
        near = did_you_mean(name, known) or f"providers: {listing(known)}"
        raise SwitchError(f'Unknown provider "{name}": {near}')
    models = [entry.name for entry in provider.models if entry.adapter_of is None]
    engine = provider.engine
    if provider.group is None or engine is None or engine.per_provider:
        why = (
            f"one {engine.title} serves all its models"
            if engine and provider.group
            else "it runs elsewhere"
        )
        raise SwitchError(f'"{name}" has no model to switch: {why}')
    if not groups.get(provider.group):
        raise SwitchError(f'"{name}" is not deployed: no host is in group {provider.group}')
    if model not in models:
        near = did_you_mean(model, models) or f"its models: {listing(models)}"
        raise SwitchError(f'"{model}" is not a model of provider "{name}": {near}')
    if provider.exclusive_group is None and provider.active is None:
        raise SwitchError(
            f'All models of "{name}" run at the same time, so there is nothing to switch. Give the'
            " provider an exclusive_group or an active model"
        )
    overrides: dict[str, Any] = {name: {"status": "active"}}
    if len(models) > 1:
        overrides[name]["active"] = model
    affected = [name]
    for rival, entry in catalogue.providers.items():
        if (
            rival != name
            and provider.exclusive_group
            and entry.exclusive_group == provider.exclusive_group
        ):
            affected.append(rival)
            if entry.status == "active":
                overrides[rival] = {"status": "disabled"}
    return affected, overrides


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return `new` merged over `old`, key by key."""
    out = dict(old)
    for key, value in new.items():
        before = out.get(key)
        out[key] = (
            _merged(before, value)
            if isinstance(before, Mapping) and isinstance(value, Mapping)
            else value
        )
    return out
