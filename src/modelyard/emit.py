"""The gateway's document (LiteLLM's config.yaml as data), with its invariants asserted.

Why it looks like this, all measured with the pinned release: flat chains and `max_fallbacks: 1`, because
nested chains are not walked in the order they are written; no retries, because the next step is the retry;
`allowed_fails: 1`, because with more than that a group of one is never left alone while it is down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.names import GATEWAY_USER, LOOPBACK, MASTER_KEY, REDIS_NAMESPACE, REDIS_PASSWORD, url_host
from modelyard.resolve import Deployment
from modelyard.routing import Route
from modelyard.schema import Gateway

PARALLEL_WITH_LIMITS = 1000
"""`max_parallel_requests` of a deployment with rpm or tpm. Without it the gateway takes rpm (or 6/1000 of
tpm) as the number of requests allowed at once and answers 429 at the next one, without a queue."""


@dataclass(frozen=True, slots=True)
class View:
    """How the network looks from one gateway host."""

    host: str
    addresses: Mapping[str, str]
    """Engine host: the address it is reached at from here."""
    redis_address: str | None


def api_base(deployment: Deployment, view: View) -> str:
    """The base URL of a deployment as the gateway on `view.host` calls it."""
    provider = deployment.provider
    if deployment.host is None:
        assert provider.base_url is not None, "the schema demands a base_url where there is no group"
        return provider.base_url
    return f"http://{url_host(view.addresses.get(deployment.host, LOOPBACK))}:{deployment.port}/v1"


def emit_deployment(
    deployment: Deployment, view: View, gateway: Gateway, *, weighted: bool, last: bool
) -> dict[str, Any]:
    """One entry of `model_list`. `last`: nothing steps in for it, so it is never cooled down."""
    model = deployment.model
    prefix = "anthropic" if deployment.provider.type == "anthropic" else "openai"
    params: dict[str, Any] = {
        "model": f"{prefix}/{model.served}",
        "api_base": api_base(deployment, view),
        # Something must be there for the client library; an engine without a key never looks at it.
        "api_key": f"os.environ/{deployment.secret}" if deployment.secret else "none",
        "timeout": model.timeout or gateway.timeouts.request_s,
        "stream_timeout": min(model.timeout or gateway.timeouts.request_s, gateway.timeouts.stream_s),
    }
    if deployment.provider.type == "llama_cpp":
        # llama-server gives every connection a thread for as long as it is kept, and closes it under the next request:
        # measured with 20 requests a second beside one stream, 3 of 500 failed and streams were 20 times slower.
        params["extra_headers"] = {"Connection": "close"}
    if last:
        # Two hiccups would otherwise turn away every request for half a minute, with nobody else to take them.
        params["cooldown_time"] = 0
    if weighted:
        params["weight"] = model.weight or 1
    for limit in ("rpm", "tpm"):
        if getattr(model, limit) is not None:
            params[limit] = getattr(model, limit)
            params["max_parallel_requests"] = PARALLEL_WITH_LIMITS
    return {
        "model_name": model.name,
        "litellm_params": params,
        "model_info": {"id": deployment.id, "mode": model.mode},
    }


def emit_fallbacks(routes: Sequence[Route]) -> list[dict[str, list[str]]]:
    """One flat chain per public name that has one."""
    return [{route.name: list(route.attempts[route.heads :])} for route in routes if route.attempts[route.heads :]]


def emit_document(
    deployments: Mapping[str, Sequence[Deployment]],
    routes: Sequence[Route],
    gateway: Gateway,
    view: View,
    redis_port: int,
) -> dict[str, Any]:
    """The whole document for the gateway on `view.host`. Raises AssertionError if it breaks an invariant."""
    model_list: list[dict[str, Any]] = []
    lasts = {route.attempts[-1] for route in routes}
    for members in deployments.values():
        # One entry with a weight and one without: the gateway would never choose the latter. And where there
        # are limits but no weights it takes the limits for weights.
        weighted = len(members) > 1 and any(m.model.weight or m.model.rpm or m.model.tpm for m in members)
        last = len(members) == 1 and members[0].model.name in lasts
        model_list.extend(emit_deployment(member, view, gateway, weighted=weighted, last=last) for member in members)
    router: dict[str, Any] = {
        "num_retries": 0,
        "max_fallbacks": 1,
        "allowed_fails": 1,
        "cooldown_time": gateway.cooldown_s,
        "enable_weighted_failover": True,
        "fallbacks": emit_fallbacks(routes),
    }
    aliases = {route.name: route.target for route in routes if route.kind == "alias"}
    if aliases:
        router["model_group_alias"] = aliases
    capabilities = [route for route in routes if route.kind == "capability"]
    if capabilities:
        router["routing_groups"] = [
            {
                "group_name": route.name,
                "models": list(route.attempts[: route.heads]),
                "routing_strategy": "priority",
                "model_priorities": {name: rank for rank, name in enumerate(route.attempts[: route.heads], start=1)},
            }
            for route in capabilities
        ]
    if any(member.model.rpm or member.model.tpm for members in deployments.values() for member in members):
        router["optional_pre_call_checks"] = ["enforce_model_rate_limits"]
    if view.redis_address is not None:
        router["redis_host"] = view.redis_address
        router["redis_port"] = redis_port
        router["redis_password"] = f"os.environ/{REDIS_PASSWORD}"
        # The router has no redis_username of its own; what stands here reaches the Redis client as it is.
        router["cache_kwargs"] = {"username": GATEWAY_USER, "namespace": REDIS_NAMESPACE}
    document = {
        "model_list": model_list,
        "router_settings": router,
        "litellm_settings": {
            "num_retries": 0,
            "expose_router_debug_in_errors": False,
            "turn_off_message_logging": True,
            "callbacks": ["prometheus"],
        },
        "general_settings": {"master_key": f"os.environ/{MASTER_KEY}"},
    }
    assert_invariants(document, [route.name for route in routes])
    return document


def assert_invariants(document: Mapping[str, Any], public_names: Sequence[str]) -> None:
    """What must hold for every document ever emitted, whatever the catalogue. Raises AssertionError.

    Ids are unique; every name used exists; no chain repeats a name or contains its own head; what can be
    called is exactly the public names; no key stands in the document itself.
    """
    entries = document["model_list"]
    router = document["router_settings"]
    ids = [entry["model_info"]["id"] for entry in entries]
    if len(ids) != len(set(ids)):
        raise AssertionError(f"deployment ids repeat: {sorted({i for i in ids if ids.count(i) > 1})}")
    models = {entry["model_name"] for entry in entries}
    groups = {group["group_name"]: group["models"] for group in router.get("routing_groups", [])}
    aliases = router.get("model_group_alias", {})
    for group, members in groups.items():
        if not set(members) <= models:
            raise AssertionError(f"capability {group} names models that are not in model_list")
    for alias, target in aliases.items():
        if target not in models | groups.keys():
            raise AssertionError(f"alias {alias} points at {target}, which is not in model_list")
    callable_names = [*models, *groups, *aliases]
    if sorted(callable_names) != sorted(public_names):
        raise AssertionError(f"callable are {sorted(callable_names)}, public are {sorted(public_names)}")
    names = set(callable_names)
    heads = [next(iter(entry)) for entry in router["fallbacks"]]
    if len(heads) != len(set(heads)):
        raise AssertionError("two chains for one name")
    for entry in router["fallbacks"]:
        for head, chain in entry.items():
            if head not in names or not chain or len(chain) != len(set(chain)) or head in chain:
                raise AssertionError(f"chain of {head} is empty, repeats a step or contains itself: {chain}")
            if not set(chain) <= models:
                raise AssertionError(f"chain of {head} leaves model_list: {sorted(set(chain) - models)}")
    for entry in entries:
        key = entry["litellm_params"]["api_key"]
        if key != "none" and not key.startswith("os.environ/"):
            raise AssertionError(f"{entry['model_info']['id']} holds a key")
