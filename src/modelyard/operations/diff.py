"""What a run would change: the compiled plans beside what is live on the hosts. Pure; who asks the
hosts is Ansible.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.catalogue.sourcemap import Path
from modelyard.diagnostics import show_path
from modelyard.engines import ENGINES
from modelyard.names import WATCHERS
from modelyard.plan.model import HostPlan
from modelyard.plan.parts import known

NOT_ASKED = "not asked (--limit)"

RETIRED = (
    *("firewall", "redis", "litellm", "haproxy", "exporter@", *WATCHERS),
    *(engine.prefix for engine in ENGINES),
)
"""Services that site.yml takes away once the plan no longer has them. It knows no others."""

MODELS: Path = ("document", "model_list")
"""Where the gateway's models are in its part of the plan."""

LONGEST_VALUE = 60
"""Characters of a value that are shown; the line is to be read, not copied."""

Live = Mapping[str, Mapping[str, Any]]
"""By service `{release, since, plan}`, and for the gateway `public_names`: what `modelyard_live`
returns."""


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """What would happen to one service. `left`: this version does not know it, and a run leaves it
    alone. `unclear`: its release does not say what it was made from.

    `since` is when the live release was switched to (ISO 8601, UTC), empty for a service that is
    not there.
    """

    service: str
    kind: Literal["add", "change", "remove", "left", "unclear"]
    details: tuple[str, ...] = ()
    since: str = ""


@dataclass(frozen=True, slots=True)
class HostChanges:
    """What would change on one host. With `unknown` (a reason) nothing is known of it."""

    host: str
    unknown: str = ""
    services: tuple[ServiceChange, ...] = ()
    unchanged: tuple[str, ...] = ()
    names_added: tuple[str, ...] = ()
    names_removed: tuple[str, ...] = ()


def observed(result: Mapping[str, Any]) -> Live | str:
    """Return what a host's result of `modelyard_live` says: its services, or why they are not
    known.

    `unknown` is the task's own word, `msg` Ansible's if it ended the task.
    """
    found: Live | str = (
        result["services"]
        if "services" in result
        else str(result.get("unknown", result.get("msg")))
    )
    return found


def compare(plans: Mapping[str, HostPlan], live: Mapping[str, Live | str]) -> list[HostChanges]:
    """Return what a run would change on every host of `plans`.

    `live` is by host what is there, or the reason why that is not known; a host it does not have
    was not asked.
    """
    served = {name for plan in plans.values() if plan.litellm for name in plan.litellm.public_names}
    return [_host(host, plan, live.get(host, NOT_ASKED), served) for host, plan in plans.items()]


def _host(host: str, plan: HostPlan, live: Live | str, served: Set[str]) -> HostChanges:
    """Return the changes of one host; `served` are the names that any gateway of the plan answers
    to.
    """
    if isinstance(live, str):
        return HostChanges(host, unknown=live)
    wanted = dict(plan.parts())
    changes: list[ServiceChange] = []
    unchanged: list[str] = []
    for service, part in wanted.items():
        if service not in live:
            changes.append(ServiceChange(service, "add"))
        elif live[service]["plan"] is None:
            reason = (
                "cannot be compared: the live release was made by an older version of Modelyard"
            )
            changes.append(ServiceChange(service, "unclear", (reason,), live[service]["since"]))
        elif found := differences(known(service, live[service]["plan"]), part):
            changes.append(ServiceChange(service, "change", tuple(found), live[service]["since"]))
        else:
            unchanged.append(service)
    for service in sorted(live.keys() - wanted.keys()):
        kind: Literal["remove", "left"] = "remove" if service.startswith(RETIRED) else "left"
        changes.append(ServiceChange(service, kind, since=live[service]["since"]))
    planned = plan.litellm.public_names if plan.litellm else []
    there: list[str] = list(live.get("litellm", {}).get("public_names", []))
    return HostChanges(
        host,
        services=tuple(changes),
        unchanged=tuple(unchanged),
        names_added=tuple(name for name in planned if name not in there),
        names_removed=tuple(name for name in there if name not in served),
    )


# -- one service -----------------------------------------------------------------------------------


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, how the plan of a service differs from the one it was made from."""
    found = list(_changes((), _keyed(old), _keyed(new)))
    return found or (["only the order of its entries differs"] if old != new else [])


def _keyed(value: Any) -> Any:
    """`value` with the lists of the gateway's document that are sets by name as mappings, so that
    names are compared.

    Deployments become model: id: deployment.
    """
    if isinstance(value, Mapping):
        return {key: _keyed(child) for key, child in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if not value or not all(isinstance(child, Mapping) for child in value):
        return list(value)
    if all("model_name" in child for child in value):
        models: dict[str, dict[str, Any]] = {}
        for child in value:
            rest = {key: _keyed(entry) for key, entry in child.items() if key != "model_name"}
            models.setdefault(child["model_name"], {})[child["model_info"]["id"]] = rest
        return models
    if all("group_name" in child for child in value):
        return {child["group_name"]: _keyed(child) for child in value}
    if all(len(child) == 1 for child in value):
        return {key: chain for child in value for key, chain in child.items()}
    return list(value)


def _changes(path: Path, old: Any, new: Any) -> Iterator[str]:
    """Yield the differences of two trees, one line each, named by path or by model."""
    if old == new:
        return
    # An empty list has no entries that would tell that it is a set by name; the other side does.
    if old == [] and isinstance(new, Mapping):
        old = {}
    if new == [] and isinstance(old, Mapping):
        new = {}
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield f"{show_path(path)}: {_show(old)} → {_show(new)}"
    elif path == MODELS:
        for name in _both(old, new):
            yield from _model_changes(name, old.get(name, {}), new.get(name, {}))
    else:
        for key in _both(old, new):
            at = (*path, key)
            if key in old and key in new:
                yield from _changes(at, old[key], new[key])
            elif key in new:
                yield f"{show_path(at)} added: {_show(new[key])}"
            else:
                yield f"{show_path(at)} removed (was {_show(old[key])})"


def _model_changes(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the same for one model's deployments, with their ids where these say something."""
    if not old or not new:
        yield f"model {name} {'added' if new else 'removed'}"
        return
    for key in _both(old, new):
        subject = (
            f"model {name}"
            if old.keys() == new.keys() and len(new) == 1
            else f"model {name}, deployment {key}"
        )
        if key in old and key in new:
            yield from (f"{subject}: {line}" for line in _changes((), old[key], new[key]))
        else:
            yield f"{subject} {'added' if key in new else 'removed'}"


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the keys of both, in the order of the new one."""
    return [*new, *sorted(key for key in old if key not in new)]


def _show(value: Any) -> str:
    """Return a value in a line of text, shortened to LONGEST_VALUE characters."""
    if value is None:
        return "not set"
    if isinstance(value, str) and value:
        text = value
    elif isinstance(value, list) and value and all(isinstance(child, str) for child in value):
        text = ", ".join(value)
    else:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
