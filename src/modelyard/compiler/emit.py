"""The gateway's document (LiteLLM's config.yaml as data), with its invariants asserted.

Why it looks like this, all measured with the pinned release: flat chains and `max_fallbacks: 1`,
because nested chains are not walked in the order they are written; no retries, because the next
step is the retry; `allowed_fails: 1`, because with more than that a group of one is never left
alone while it is down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from modelyard.catalogue.gateway import Gateway
from modelyard.compiler.chains import SECTIONS, Section
from modelyard.compiler.resolve import Deployment
from modelyard.compiler.routes import Route
from modelyard.names import (
    GATEWAY_USER,
    LOOPBACK,
    MASTER_KEY,
    REDIS_NAMESPACE,
    REDIS_PASSWORD,
)
from modelyard.urls import corrected

PARALLEL_WITH_LIMITS = 1000
"""`max_parallel_requests` of a deployment with rpm or tpm. Without it the gateway takes rpm (or
6/1000 of tpm) as the number of requests allowed at once and answers 429 at the next one, without a
queue."""


COLD_LOAD_S = 300
"""Seconds a stream may be silent by default where a model is loaded on the first request: 40 GB
from a disk that reads 200 MB/s take 200 s, and a model that is being read is not a dead backend."""

CACHED_CALLS = ("acompletion", "atext_completion", "aembedding", "aresponses")
"""What answers are kept of: requests in JSON. Of a form the guard does not see enough to tell two
apart."""

PASSED = (
    "audio",
    "context_management",
    "dimensions",
    "max_completion_tokens",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "thinking",
    "user",
    "verbosity",
    "web_search_options",
)
"""Fields that the gateway refuses or drops on some paths where it does not know the model. Whether
a model has them is the engine's to say."""

UNTAGGED = "default"
"""The gateway's own tag for deployments that take requests whose tag no deployment has."""


@dataclass(frozen=True, slots=True)
class View:
    """How the network looks from one gateway host."""

    host: str
    redis_address: str | None
    pools: Mapping[str, str] = field(default_factory=dict)
    """Pool by the id of the deployment whose hosts share its requests."""
    pool_port: int = 0
    """Where the pools are, on loopback."""


def one_of_each(members: Iterable[Deployment]) -> list[Deployment]:
    """Return the deployments as the gateway has them: one per provider and model, however many
    hosts share its requests.
    """
    return list({member.id: member for member in reversed(list(members))}.values())[::-1]


def pool_base(deployment: Deployment, view: View) -> str | None:
    """Return the URL of the pool of a deployment, without a path of its engine; None of what runs
    elsewhere.
    """
    pool = view.pools.get(deployment.id)
    return pool and f"{pools_url(view)}{pool}"


def pools_url(view: View) -> str:
    """Return how the URLs of all pools begin."""
    return f"http://{LOOPBACK}:{view.pool_port}/"


def api_base(deployment: Deployment, view: View) -> str:
    """Return the base URL of a deployment as the gateway on `view.host` calls it."""
    provider = deployment.provider
    if deployment.host is None:
        assert provider.base_url is not None, "the schema requires base_url if there is no group"
        if provider.engine and not urlsplit(provider.base_url).path:
            return f"{provider.base_url}/v1"
        return corrected(provider.type, provider.base_url)[0]
    return f"{pool_base(deployment, view)}/v1"


def timeouts(deployment: Deployment, gateway: Gateway) -> tuple[float, float]:
    """Seconds an attempt may take and a stream may be silent: the model's, else the provider's,
    else the gateway's.
    """
    model, provider = deployment.model, deployment.provider
    timeout = model.timeout or provider.timeout or gateway.timeouts.request_s
    silence = gateway.timeouts.stream_s
    if provider.engine and provider.engine.on_demand:
        silence = max(silence, COLD_LOAD_S)
    return timeout, model.stream_timeout or provider.stream_timeout or min(timeout, silence)


def emit_deployment(
    deployment: Deployment,
    view: View,
    gateway: Gateway,
    *,
    weighted: bool,
    last: bool,
    tags: Sequence[str],
) -> dict[str, Any]:
    """One entry of `model_list`. `last`: it has no fallback, so it is never cooled down."""
    model = deployment.model
    timeout, stream_timeout = timeouts(deployment, gateway)
    prefix = "anthropic" if deployment.provider.type == "anthropic" else "openai"
    params: dict[str, Any] = {
        "model": f"{prefix}/{model.served}",
        "api_base": api_base(deployment, view),
        # Something must be there for the client library; an engine without a key never looks at it.
        "api_key": f"os.environ/{deployment.secret}" if deployment.secret else "none",
        "timeout": timeout,
        "stream_timeout": stream_timeout,
    }
    if prefix == "openai":
        params["allowed_openai_params"] = list(PASSED)
    engine = deployment.provider.engine
    if engine and engine.closes_connections and deployment.host is None:
        # llama-server gives every connection a thread for as long as it is kept, and closes it
        # under the next request: measured with 20 requests a second beside one stream, 3 of 500
        # failed and streams were 20 times slower. (HAProxy opens one for every request anyway.)
        params["extra_headers"] = {"Connection": "close"}
    if last:
        # Otherwise two transient errors would refuse every request for half a minute, without a
        # fallback.
        params["cooldown_time"] = 0
    if weighted:
        params["weight"] = model.weight or 1
    for limit in ("rpm", "tpm"):
        if getattr(model, limit) is not None:
            params[limit] = getattr(model, limit)
            params["max_parallel_requests"] = PARALLEL_WITH_LIMITS
    if model.price is not None:
        params["input_cost_per_token"] = model.price.input / 1e6
        params["output_cost_per_token"] = model.price.output / 1e6
    if tags:
        params["tags"] = list(tags)
    info: dict[str, Any] = {"id": deployment.id, "mode": model.mode}
    if prefix == "openai":
        # Without it the gateway refuses `reasoning` on /v1/responses.
        info["supports_reasoning"] = True
    return {"model_name": model.name, "litellm_params": params, "model_info": info}


def emit_tags(members: Sequence[Deployment]) -> list[list[str]]:
    """Return the tags of each of one name's deployments, once any model has some.

    A name none of whose deployments is untagged would refuse a request with another tag (401), even
    as a step of a chain; so all of them take it then.
    """
    tagged = all(member.model.tags for member in members)
    return [
        [*member.model.tags, UNTAGGED] if tagged or not member.model.tags else member.model.tags
        for member in members
    ]


def emit_chains(routes: Sequence[Route], section: Section) -> list[dict[str, list[str]]]:
    """One flat chain per public name that has one."""
    return [{route.name: list(rest)} for route in routes if (rest := route.behind(section))]


LABELS_OF_CLIENTS = (
    "client_ip",
    "end_user",
    "hashed_api_key",
    "org_alias",
    "org_id",
    "service_tier",
    "team",
    "team_alias",
    "user",
    "user_agent",
    "user_email",
)
"""Labels that the gateway's metrics do without: clients choose some of their values, so Prometheus
would get a new series from whoever sends another `User-Agent`; the others are people, or always
empty without a database."""


def last_steps(routes: Sequence[Route]) -> set[str]:
    """Return the models that end a chain for good.

    Of models that fall back to each other none is one: each is the last step of another's chain,
    and has steps behind it. The gateway cools down all but the last of them that is left
    (`roles/litellm/files/modelyard_gateway/engines.py`).
    """
    lasts: set[str] = set()
    for section in SECTIONS:
        tried = {route.name: route.tried(section) for route in routes}
        for last in {steps[-1] for steps in tried.values()}:
            if not any(last in tried[step] for step in tried[last][1:]):
                lasts.add(last)
    return lasts


def is_never_cooled(members: Sequence[Deployment], lasts: Collection[str]) -> bool:
    """Return whether the gateway never cools down the deployments of one name: the last step of a
    chain, on its own.
    """
    return len(one_of_each(members)) == 1 and members[0].model.name in lasts


def emit_router_settings(
    routes: Sequence[Route],
    gateway: Gateway,
    view: View,
    redis_port: int,
    *,
    tagged: bool,
    limited: bool,
) -> dict[str, Any]:
    """Return the chains, and how the gateway tries their steps."""
    router: dict[str, Any] = {
        "num_retries": 0,
        "max_fallbacks": 1,
        "allowed_fails": 1,
        "cooldown_time": gateway.cooldown_s,
        "enable_weighted_failover": True,
        "fallbacks": emit_chains(routes, "fallbacks"),
    }
    for section in SECTIONS[1:]:
        # For all names or for none: once the section is there, the gateway uses nothing else for
        # these errors.
        if any(route.tried(section) != route.attempts for route in routes):
            router[section] = emit_chains(routes, section)
    if tagged:
        router["enable_tag_filtering"] = True
    aliases = {route.name: route.target for route in routes if route.kind == "alias"}
    if aliases:
        router["model_group_alias"] = aliases
    # The name of a model that is switched off is a group, too, of the one that answers for it.
    capabilities = [route for route in routes if route.kind in ("capability", "inactive")]
    if capabilities:
        router["routing_groups"] = [
            {
                "group_name": route.name,
                "models": list(route.attempts[: route.heads]),
                "routing_strategy": "priority",
                "model_priorities": {
                    name: rank for rank, name in enumerate(route.attempts[: route.heads], start=1)
                },
            }
            for route in capabilities
        ]
    if limited:
        router["optional_pre_call_checks"] = ["enforce_model_rate_limits"]
    if view.redis_address is not None:
        router["redis_host"] = view.redis_address
        router["redis_port"] = redis_port
        router["redis_password"] = f"os.environ/{REDIS_PASSWORD}"
        # The router has no redis_username of its own; this is passed to the Redis client unchanged.
        router["cache_kwargs"] = {"username": GATEWAY_USER, "namespace": REDIS_NAMESPACE}
    return router


def emit_library_settings(gateway: Gateway, view: View, redis_port: int) -> dict[str, Any]:
    """Return the settings of LiteLLM's library: metrics, messages, and the cache."""
    settings: dict[str, Any] = {
        "num_retries": 0,
        "expose_router_debug_in_errors": False,
        "turn_off_message_logging": True,
        "callbacks": ["prometheus"],
        # Slots listen on loopback, and the front end admits only Prometheus.
        "require_auth_for_metrics_endpoint": False,
        "prometheus_exclude_labels": list(LABELS_OF_CLIENTS),
        "enable_post_custom_auth_checks": True,
    }
    if gateway.cache.enabled:
        settings["cache"] = True
        settings["cache_params"] = {
            "type": "redis",
            "host": view.redis_address,
            "port": redis_port,
            "username": GATEWAY_USER,
            "password": f"os.environ/{REDIS_PASSWORD}",
            "namespace": REDIS_NAMESPACE,
            "ttl": gateway.cache.ttl_s,
            "supported_call_types": list(CACHED_CALLS),
        }
    return settings


def emit_document(
    deployments: Mapping[str, Sequence[Deployment]],
    routes: Sequence[Route],
    gateway: Gateway,
    view: View,
    redis_port: int,
) -> dict[str, Any]:
    """Return the whole document for the gateway on `view.host`. Raises AssertionError if it breaks
    an invariant.
    """
    model_list: list[dict[str, Any]] = []
    lasts = last_steps(routes)
    everything = [member for members in deployments.values() for member in members]
    any_tags = any(member.model.tags for member in everything)
    any_limits = any(member.model.rpm or member.model.tpm for member in everything)
    for every in deployments.values():
        members = one_of_each(every)
        # One entry with a weight and one without: the gateway would never choose the latter. And
        # where there are limits but no weights it takes the limits for weights.
        weighted = len(members) > 1 and any(
            m.model.weight or m.model.rpm or m.model.tpm for m in members
        )
        last = is_never_cooled(members, lasts)
        tags = emit_tags(members) if any_tags else [[]] * len(members)
        model_list.extend(
            emit_deployment(member, view, gateway, weighted=weighted, last=last, tags=own)
            for member, own in zip(members, tags, strict=True)
        )
    router = emit_router_settings(
        routes, gateway, view, redis_port, tagged=any_tags, limited=any_limits
    )
    settings = emit_library_settings(gateway, view, redis_port)
    general: dict[str, Any] = {
        "master_key": f"os.environ/{MASTER_KEY}",
        # A file of role litellm, beside the document. What it allows, the gateway checks once more.
        "custom_auth": "modelyard_gateway.app.authenticate",
        "custom_auth_run_common_checks": True,
        "cancel_on_disconnect": True,
    }
    document = {
        "model_list": model_list,
        "router_settings": router,
        "litellm_settings": settings,
        "general_settings": general,
    }
    assert_invariants(document, [route.name for route in routes])
    return document


def assert_invariants(document: Mapping[str, Any], public_names: Sequence[str]) -> None:
    """Check what must hold for every document ever emitted, whatever the catalogue. Raises
    AssertionError.

    Ids are unique; every name used exists; chains are flat (the gateway walks none inside another),
    and none repeats a name or contains its own head, whatever leads back to whatever in the
    catalogue; what can be called is exactly the public names; weights and tags stand at all of a
    name's deployments or at none; a limit per minute is not one on parallel requests; no key stands
    in the document itself.
    """
    entries = document["model_list"]
    router = document["router_settings"]
    ids = [entry["model_info"]["id"] for entry in entries]
    if len(ids) != len(set(ids)):
        raise AssertionError(
            f"duplicate deployment ids: {sorted({i for i in ids if ids.count(i) > 1})}"
        )
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
        raise AssertionError(
            f"callable are {sorted(callable_names)}, public are {sorted(public_names)}"
        )
    if router["max_fallbacks"] != 1:
        raise AssertionError("the gateway would walk chains inside of chains")
    _assert_chains(router, set(callable_names), models)
    taggable = {
        entry["model_name"]
        for entry in entries
        if UNTAGGED in entry["litellm_params"].get("tags", ())
    }
    if router.get("enable_tag_filtering") and taggable != models:
        raise AssertionError(f"a request with a tag is refused by {sorted(models - taggable)}")
    _assert_entries(entries)


def _assert_chains(router: Mapping[str, Any], names: set[str], models: set[str]) -> None:
    aliases = router.get("model_group_alias", {})
    for section in SECTIONS:
        heads = [next(iter(entry)) for entry in router.get(section, [])]
        if len(heads) != len(set(heads)):
            raise AssertionError(f"duplicate entry in {section}")
        for entry in router.get(section, []):
            for head, chain in entry.items():
                own = aliases.get(head, head)
                if head not in names or not chain or len(chain) != len(set(chain)) or own in chain:
                    raise AssertionError(
                        f"chain of {head} is empty, repeats a step or contains itself: {chain}"
                    )
                if not set(chain) <= models:
                    raise AssertionError(
                        f"chain of {head} leaves model_list: {sorted(set(chain) - models)}"
                    )


def _assert_entries(entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries:
        params = entry["litellm_params"]
        if params["api_key"] != "none" and not params["api_key"].startswith("os.environ/"):
            raise AssertionError(f"{entry['model_info']['id']} contains a key")
        if ("rpm" in params or "tpm" in params) and "max_parallel_requests" not in params:
            raise AssertionError(
                f"{entry['model_info']['id']} has a limit that limits parallel requests too"
            )
    weighted: dict[str, bool] = {}
    for entry in entries:
        name, has_weight = entry["model_name"], "weight" in entry["litellm_params"]
        if weighted.setdefault(name, has_weight) != has_weight:
            raise AssertionError(
                f"some deployments of {name} have no weight, so they would get no requests"
            )
