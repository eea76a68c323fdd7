"""Prints the keys the installed gateway knows, by section, as JSON. Runs with the gateway's own
Python.

`fields` are those of a request that it reads, `closed` those that the role's guard refuses, which
has to be importable.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Callable
from types import ModuleType

import litellm
from litellm._redis import _get_redis_kwargs
from litellm.caching.caching import Cache
from litellm.caching.redis_cache import RedisCache
from litellm.proxy import common_request_processing, litellm_pre_call_utils, route_llm_request
from litellm.proxy._types import ConfigGeneralSettings
from litellm.proxy.auth import auth_checks, auth_utils, user_api_key_auth
from litellm.proxy.proxy_server import ROUTER_SETTINGS_MANAGED_OUTSIDE_CONFIG, ProxyConfig
from litellm.types.router import LiteLLM_Params, ModelInfo, RoutingGroup
from litellm.types.utils import ModelInfo as ListedModelInfo
from litellm.types.utils import all_litellm_params
from modelyard_gateway import requests


def parameters(function: Callable[..., object]) -> set[str]:
    """The names of a function's parameters."""
    return set(inspect.signature(function).parameters) - {"self", "kwargs", "args"}


def compared_names(function: Callable[..., object], variable: str) -> set[str]:
    """The texts a variable is compared with in a function: how the gateway reads settings that have
    a branch."""
    names = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if (
            isinstance(node, ast.Compare)
            and isinstance(node.left, ast.Name)
            and node.left.id == variable
        ):
            names |= {
                c.value
                for c in node.comparators
                if isinstance(c, ast.Constant) and isinstance(c.value, str)
            }
    return names


def read_keys(module: ModuleType, *variables: str) -> set[str]:
    """What a module reads of variables: `kwargs.get("x")`, `kwargs["x"]`, `"x" in kwargs`,
    `getattr(kwargs, "x")`."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case (
                ast.Call(
                    func=ast.Attribute(value=ast.Name(id=variable)),
                    args=[ast.Constant(value=str(key)), *_],
                )
                | ast.Call(
                    func=ast.Name(id="getattr"),
                    args=[ast.Name(id=variable), ast.Constant(value=str(key)), *_],
                )
                | ast.Subscript(value=ast.Name(id=variable), slice=ast.Constant(value=str(key)))
                | ast.Compare(
                    left=ast.Constant(value=str(key)), comparators=[ast.Name(id=variable)]
                )
            ) if variable in variables:
                names.add(key)
    return names


fields: set[str] = set()
for module in (
    litellm.router,
    litellm.utils,
    route_llm_request,
    litellm_pre_call_utils,
    common_request_processing,
):
    fields |= read_keys(module, "kwargs", "data", "request_kwargs", "request_data")
for module in (auth_checks, auth_utils, user_api_key_auth):
    fields |= read_keys(module, "data", "request_data", "request_body", "_request_body")
redis = set(_get_redis_kwargs())
known = {
    "router_settings": set(litellm.Router.get_valid_args())
    - set(ROUTER_SETTINGS_MANAGED_OUTSIDE_CONFIG),
    "router_settings.routing_groups": set(RoutingGroup.model_fields),
    # What is passed on to the client of Redis, besides what the cache takes for itself.
    "router_settings.cache_kwargs": redis | parameters(RedisCache.__init__),
    # Everything else in litellm_params becomes a parameter of the request. Headers are no part of
    # its body.
    "litellm_params": set(all_litellm_params)
    | set(LiteLLM_Params.model_fields)
    | {"extra_headers"},
    "model_info": set(ModelInfo.model_fields) | set(ListedModelInfo.__annotations__),
    # Settings are set as attributes of the module, so one that it does not have has no effect.
    "litellm_settings": set(vars(litellm))
    | compared_names(ProxyConfig.load_config, "key")
    | read_keys(user_api_key_auth, "litellm"),
    "litellm_settings.cache_params": redis | parameters(Cache.__init__),
    "general_settings": set(ConfigGeneralSettings.model_fields)
    | read_keys(user_api_key_auth, "general_settings"),
    "fields": fields,
    "closed": set(requests.CLOSED)
    | {name for name in fields if name.startswith(requests.CLOSED_PREFIXES)},
}
print(json.dumps({section: sorted(names) for section, names in known.items()}))
