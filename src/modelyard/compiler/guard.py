"""The rules of the gateway's guard (roles/litellm/files/modelyard_gateway/rules.py reads it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from modelyard.catalogue.gateway import Gateway, GuardLimits
from modelyard.compiler.emit import View, api_base, one_of_each, pool_base, pools_url
from modelyard.compiler.resolve import Deployment
from modelyard.compiler.routes import Route
from modelyard.names import GATEWAY_USER, REDIS_NAMESPACE, REDIS_PASSWORD


def emit_rules(
    deployments: Mapping[str, Sequence[Deployment]],
    routes: Sequence[Route],
    gateway: Gateway,
    view: View,
    redis_port: int,
) -> dict[str, Any]:
    """Return the rules for the gateway on `view.host`."""
    everything = one_of_each(member for members in deployments.values() for member in members)
    blind = {name for name, members in deployments.items() if all(map(reads_text_only, members))}
    redis = {
        "host": view.redis_address,
        "port": redis_port,
        "username": GATEWAY_USER,
        "password_env": REDIS_PASSWORD,
        "namespace": REDIS_NAMESPACE,
    }
    health = {
        deployment.id: url for deployment in everything if (url := health_url(deployment, view))
    }
    addresses = {urlsplit(api_base(deployment, view)).netloc for deployment in everything}
    return {
        "public_names": [route.name for route in routes],
        # Of a capability, one model that may read more is enough.
        "text_only": [
            route.name for route in routes if blind.issuperset(route.attempts[: route.heads])
        ],
        "paths": {
            route.name: sorted(paths)
            for route in routes
            if (paths := served_paths(route, deployments)) is not None
        },
        "cached": gateway.cache.enabled,
        # Sorted, so that the order of the classes is not a change of the release.
        "limits": dict(
            sorted(gateway.limits.model_dump(include=set(GuardLimits.model_fields)).items())
        ),
        "pools": pools_url(view) if view.pools else None,
        "health": health,
        "windows": {
            deployment.id: window
            for deployment in everything
            if (window := cut_at(deployment)) is not None
        },
        "constraints": {
            deployment.id: constraint
            for deployment in everything
            if (constraint := constrained(deployment)) is not None
        },
        "hidden": sorted(addresses | {deployment.id for deployment in everything}),
        "redis": redis if view.redis_address is not None else None,
    }


def reads_text_only(deployment: Deployment) -> bool:
    """Return whether a model is known to read nothing but text. Of what runs elsewhere nothing is
    known.
    """
    return deployment.provider.group is not None and deployment.engine.reads_text_only(
        deployment.base
    )


def served_paths(
    route: Route, deployments: Mapping[str, Sequence[Deployment]]
) -> frozenset[str] | None:
    """Return the paths that anybody behind a name can answer. Of what runs elsewhere nothing is
    known, so a name that leads there has None.
    """
    members = [member for name in route.attempts for member in deployments.get(name, ())]
    if not members or any(member.provider.group is None for member in members):
        return None
    return frozenset().union(*(member.engine.serves(member.model) for member in members))


def cut_at(deployment: Deployment) -> int | None:
    """Return the tokens at which an engine cuts a prompt without a word; None if it does not, or
    the catalogue does not say.
    """
    engine, provider = deployment.provider.engine, deployment.provider
    if engine is None or not engine.cuts_prompts:
        return None
    return engine.window(deployment.model, provider.settings)


def constrained(deployment: Deployment) -> dict[str, Any] | None:
    """Return what of a request would end an engine; None if nothing is known to."""
    engine = deployment.provider.engine
    if engine is None or engine.constraint is None:
        return None
    schemas, refused, plain = engine.constraint
    return {"schemas": list(schemas), "refused": list(refused), "plain": plain}


def health_url(deployment: Deployment, view: View) -> str | None:
    """Where is said without a key whether an engine is well, if only by asking for one: of a pool,
    whether any of its hosts is. None where nobody says so.
    """
    engine = deployment.provider.engine
    path = engine and (engine.health or (engine.probe and engine.probe.path))
    if not path:
        return None
    if pool := pool_base(deployment, view):
        # HAProxy answers for its checks of all hosts.
        return pool
    return api_base(deployment, view).rstrip("/").removesuffix("/v1") + path
