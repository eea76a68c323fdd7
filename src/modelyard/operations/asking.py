"""Which roles a run has to run on a host: what each is given, what it looks at, and how both are
compared with what was noted when it last ended. Pure; `modelyard_preflight` asks the host.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.engines import ROLES, by_role
from modelyard.names import WATCHERS

STAGES: Mapping[str, str] = {
    "firewall": "prepare",
    "redis": "redis",
    **dict.fromkeys(ROLES, "engines"),
    "litellm": "gateway",
    "haproxy": "gateway",
    "exporter": "monitoring",
    **dict.fromkeys(WATCHERS, "monitoring"),
}
"""By role, the part of site.yml that runs it."""

LEAVING = ("redis", "litellm", "haproxy")
"""Roles whose services leave a host in a stage of their own, once all gateways were told."""

GPU_KEYS = (
    "index",
    "uuid",
    "name",
    "memory_mib",
    "compute_capability",
    "mig_mode",
    "mig_instances",
)
"""What a role can make of a GPU; what is in use of it changes all the time."""


ASKED_FOR = "llm_full is true"


@dataclass(frozen=True, slots=True)
class PlannedRole:
    """One role of a host's plan.

    `given` is all it is given of the plan. `services` are its services; `models` the sources of
    their models, `places` further paths on the host, `loaded` what a server has to have in memory:
    `{url, models}`. `secrets` are names of secrets.
    """

    role: str
    given: Mapping[str, Any]
    services: tuple[str, ...]
    models: tuple[Mapping[str, Any], ...] = ()
    places: tuple[str, ...] = ()
    loaded: tuple[Mapping[str, Any], ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of all secrets in what it is given."""
        return tuple(sorted(set(_secrets(self.given))))

    def watch(self, always: Mapping[str, Sequence[str]], endpoint: str) -> dict[str, Any]:
        """Return what the module has to look at. `always` are the `users` and `paths` that the
        role's meta/watched.yml names; `endpoint` is the hub of models.
        """
        return {
            "users": list(always.get("users", ())),
            "paths": [*always.get("paths", ()), *self.places],
            "models": list(self.models),
            "services": list(self.services),
            "loaded": list(self.loaded),
            "endpoint": endpoint,
        }

    def digest(self, salt: str, about: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """Return a digest of all that decides what the role does.

        `about` is what is true of the run and the host: code, facts, GPUs. `values` are the values
        of its secrets. The salt is random, so two digests of one value have nothing in common.
        """
        text = json.dumps([self.role, self.given, about, values], sort_keys=True, default=str)
        return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def planned(plan: Mapping[str, Any]) -> dict[str, PlannedRole]:
    """Return the roles of a host's plan, by name."""
    found = {}
    if plan["firewall"]["rules"]:
        found["firewall"] = PlannedRole("firewall", plan["firewall"], ("firewall",))
    if plan["exporters"]:
        services = tuple(one["service"] for one in plan["exporters"])
        found["exporter"] = PlannedRole("exporter", {"instances": plan["exporters"]}, services)
    for part in plan["engines"]:
        found[part["role"]] = _engine(part, plan)
    for role in ("redis", "litellm", "haproxy", *WATCHERS):
        if plan.get(role):
            found[role] = PlannedRole(role, plan[role], (role,))
    return found


def _engine(part: Mapping[str, Any], plan: Mapping[str, Any]) -> PlannedRole:
    engine, instances = by_role(part["role"]), part["instances"]
    services = tuple(one["service"] for one in instances)
    return PlannedRole(
        part["role"],
        {"part": part, "hugging_face": plan["hugging_face"]},
        services,
        models=tuple(_sources(instances)),
        places=tuple(engine.places(part)),
        loaded=tuple(found for one in instances if (found := engine.loaded(one))),
    )


def _sources(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every `source` in instances of an engine."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            if key == "source" and isinstance(child, Mapping):
                yield child
            else:
                yield from _sources(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _sources(child)


def _secrets(value: Any) -> Iterator[str]:
    """Yield the names of secrets in a part: those in `secrets`, and those of clients."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            if key == "secrets" and isinstance(child, Mapping):
                yield from map(str, child.values())
            elif key == "secret" and isinstance(child, str):
                yield str(child)
            else:
                yield from _secrets(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _secrets(child)


def about(code: str, answer: Mapping[str, Any], preflight: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is true of the run and the host, for the digest of an engine's role or any other:
    the digest of the bundle's `code`, and what the host has told.
    """
    gpus = preflight["gpus"]
    known = [{key: gpu.get(key) for key in GPU_KEYS} for gpu in gpus["gpus"]]
    return {
        "code": code,
        "system": answer["system"],
        "gpus": [known, gpus["driver_version"], gpus["cuda_version"], bool(gpus["reason"])],
        "placed": preflight["placed"],
    }


def role_of(service: str) -> str:
    """Return the role of a service or an instance."""
    return service.partition("@")[0].replace("-", "_")


@dataclass(frozen=True, slots=True)
class Due:
    """What runs on a host: by role the reasons, and the stages of site.yml that have them."""

    why: Mapping[str, tuple[str, ...]]
    stages: tuple[str, ...]


def due(
    roles: Mapping[str, PlannedRole],
    answer: Mapping[str, Any],
    digests: Mapping[str, str],
    *,
    unknown: Collection[str] = (),
    full: bool,
) -> Due:
    """Return what has to run, from what the host answered.

    `digests` are those of the roles with the salts of their records. `unknown` are roles that do
    not say what they look at.
    """
    why: dict[str, list[str]] = {}
    if answer["base"] or full:
        why["base"] = list(answer["base"]) or [ASKED_FOR]
    for role in roles:
        told = answer["roles"][role]
        if told["digest"] and not hmac.compare_digest(told["digest"], digests[role]):
            why.setdefault(role, []).append(
                "its part of the plan, its code, its secrets or the host's facts changed"
            )
        why.setdefault(role, []).extend(told["differs"])
        if role in unknown:
            why[role].append("it does not say what it looks at (meta/watched.yml)")
        if full:
            why[role].append(ASKED_FOR)
    planned_services = {name for one in roles.values() for name in one.services}
    stages = {"prepare"}
    for service in sorted(set(answer["services"]) - planned_services):
        role = role_of(service)
        if role in STAGES:
            why.setdefault(role, []).append(f"{service} leaves the host")
            stages.add("leaving" if role in LEAVING else STAGES[role])
    reasons = {role: tuple(dict.fromkeys(given)) for role, given in why.items() if given}
    if not reasons:
        return Due({}, ())
    stages |= {STAGES[role] for role in reasons if role in roles}
    return Due(reasons, tuple(sorted(stages)))
