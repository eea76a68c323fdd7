"""Which model runs on a card: what has to be overridden so that another one does, and what that changes for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelyard.compiler import Compiled, Inventory, compile_inventory
from modelyard.diagnostics import did_you_mean, listing
from modelyard.overrides import SWITCHED
from modelyard.schema import Catalogue


class SwitchError(Exception):
    """The switch is refused before anything is touched; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A choice, and the plans on the way to it.

    `away` is for the gateways while the engines change: nobody is sent to the providers concerned. `changed` is false
    if the model runs already. `uncovered` are public names that nobody answers meanwhile.
    """

    overrides: dict[str, Any]
    hosts: tuple[str, ...]
    final: Compiled
    away: Compiled
    changed: bool
    uncovered: tuple[str, ...]


def switch(inventory: Inventory, provider: str, model: str) -> Switch:
    """Let `model` of `provider` run, instead of the other models of the provider and of its exclusive group.

    Raises SwitchError if the catalogue has errors, before or with the choice, or if the two names are not in it.
    """
    former = _compiled(inventory, "The catalogue")
    assert former.catalogue is not None, "a catalogue without errors was compiled"
    affected, overrides = _choice(former.catalogue, inventory.groups, provider, model)
    first = next(iter(inventory.hosts.values())).variables.get(SWITCHED)
    chosen = _merged(first if isinstance(first, Mapping) else {}, {"providers": overrides})
    with_choice = replace(
        inventory,
        hosts={
            name: replace(host, variables={**host.variables, SWITCHED: chosen})
            for name, host in inventory.hosts.items()
        },
    )
    final = _compiled(with_choice, "With this choice the catalogue")
    away = _compiled(replace(with_choice, away=frozenset(affected)), "While the engines change, the catalogue")
    hosts = tuple(dict.fromkeys(h for name in affected for h in _hosts(former.catalogue, inventory.groups, name)))
    uncovered = tuple(name for name in final.public_names if name not in away.public_names)
    return Switch(chosen, hosts, final, away, final.plans != former.plans, uncovered)


def _compiled(inventory: Inventory, what: str) -> Compiled:
    compiled = compile_inventory(inventory)
    if compiled.errors:
        count = len(compiled.errors)
        head = f"{what} has {count} error{'s' if count > 1 else ''}. No host was contacted."
        raise SwitchError("\n".join([head, *(error.render() for error in compiled.errors)]))
    return compiled


def _hosts(catalogue: Catalogue, groups: Mapping[str, Sequence[str]], provider: str) -> list[str]:
    return list(groups.get(catalogue.providers[provider].group or "", ()))


def _choice(
    catalogue: Catalogue, groups: Mapping[str, Sequence[str]], name: str, model: str
) -> tuple[list[str], dict[str, Any]]:
    """The providers concerned, and what has to be set on each of them. Raises SwitchError."""
    provider = catalogue.providers.get(name)
    if provider is None:
        known = list(catalogue.providers)
        near = did_you_mean(name, known) or f"providers: {listing(known)}"
        raise SwitchError(f'There is no provider "{name}": {near}')
    models = [entry.name for entry in provider.models if entry.adapter_of is None]
    if provider.group is None or provider.type == "ollama":
        why = "one Ollama serves all its models" if provider.group else "it runs elsewhere"
        raise SwitchError(f'"{name}" has no model to switch: {why}')
    if not groups.get(provider.group):
        raise SwitchError(f'"{name}" runs nowhere: no host is in group {provider.group}')
    if model not in models:
        near = did_you_mean(model, models) or f"its models: {listing(models)}"
        raise SwitchError(f'"{model}" is no model of provider "{name}": {near}')
    if provider.exclusive_group is None and provider.active is None:
        raise SwitchError(
            f'All models of "{name}" run at the same time, so there is nothing to switch. Give the provider an '
            "exclusive_group or an active model"
        )
    overrides: dict[str, Any] = {name: {"status": "active"}}
    if len(models) > 1:
        overrides[name]["active"] = model
    affected = [name]
    for rival, entry in catalogue.providers.items():
        if rival != name and provider.exclusive_group and entry.exclusive_group == provider.exclusive_group:
            affected.append(rival)
            if entry.status == "active":
                overrides[rival] = {"status": "disabled"}
    return affected, overrides


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `old`, key by key."""
    out = dict(old)
    for key, value in new.items():
        before = out.get(key)
        out[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return out
