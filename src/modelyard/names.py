"""Names derived from names: unit instances, secrets, ids, URLs. Both ends of every wire get them
here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

STACK, GATEWAY, REDIS, MONITORING = "llm_stack", "llm_gateway", "llm_redis", "llm_monitoring"
"""Groups of the inventory: all hosts of the stack, and those of its parts."""

GATEWAY_WORDS = frozenset({"all-proxy-models", "all-team-models", "no-default-models"})
"""Names that stand for something else where the gateway lists the models of a key
(`SpecialModelNames` in LiteLLM 1.106.2)."""

MASTER_KEY = "LITELLM_MASTER_KEY"
REDIS_PASSWORD = "REDIS_PASSWORD"
REDIS_MONITOR_PASSWORD = "REDIS_MONITOR_PASSWORD"
GRAFANA_PASSWORD = "GRAFANA_ADMIN_PASSWORD"
GRAFANA_SECRET_KEY = "GRAFANA_SECRET_KEY"
GATEWAY_USER = "gateway"
"""The Redis ACL user of the gateways."""

MONITOR_USER = "monitor"
"""The Redis ACL user that reads figures and no keys."""

REDIS_NAMESPACE = "litellm"
"""Every key of the gateway in Redis begins with this and a colon; its user may reach nothing
else."""

OWN_SECRETS = frozenset(
    {MASTER_KEY, REDIS_PASSWORD, REDIS_MONITOR_PASSWORD, GRAFANA_PASSWORD, GRAFANA_SECRET_KEY}
)
"""Generated once per inventory, so they always exist; no provider may be given one of them."""

PROCESS_VARIABLES = frozenset(
    "PATH HOME USER LOGNAME SHELL PWD LANG LC_ALL TMPDIR TERM LD_PRELOAD LD_LIBRARY_PATH PYTHONPATH"
    " PYTHONHOME PYTHONFAULTHANDLER HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY SSL_CERT_FILE"
    " LITELLM_MODE LITELLM_LOCAL_MODEL_COST_MAP LITELLM_LOG NO_DOCS NO_REDOC NO_OPENAPI"
    " DISABLE_ADMIN_UI WEB_CONCURRENCY CONFIG_FILE_PATH AIOHTTP_KEEPALIVE_TIMEOUT DATABASE_URL"
    " PROMETHEUS_MULTIPROC_DIR MODELYARD_CLIENTS MODELYARD_RELEASE CREDENTIALS_DIRECTORY".split()
)
"""Variables that the gateway's process reads. Keys of providers are variables of that process by
their names (`EnvironmentFile`), so none may have one of these."""

ROTATED = (MASTER_KEY, REDIS_PASSWORD, REDIS_MONITOR_PASSWORD)
"""Secrets whose former value is accepted beside the new one for a while."""

SHORTEST_CLIENT_KEY = 24
"""Characters of a client's key. Hosts have its plain SHA-256, from which short text can be
guessed."""

LOOPBACK = "127.0.0.1"

POOLS = "pools"
"""The role of the front end's listener for the gateway's own requests to engines, in place of that
of its clients."""

WATCHERS = ("prometheus", "alertmanager", "grafana")
"""Roles that only the host of Prometheus has, each a service of the same name."""


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Unit-safe instance names: lower case, everything but a-z and 0-9 becomes `-`, at most 48
    characters.

    Names whose slugs collide (or are empty or too long) all get a short hash of the name, whatever
    their order, so that adding a model never renames another's unit unless the two really collide.
    """
    names = list(names)
    bare = {name: re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in names}
    taken = Counter(bare.values())
    result: dict[str, str] = {}
    for name, slug in bare.items():
        if not slug or len(slug) > 48 or taken[slug] > 1:
            digest = hashlib.sha256(name.encode()).hexdigest()[:6]
            slug = f"{slug[:41].strip('-') or 'model'}-{digest}"
        result[name] = slug
    return result


def engine_secret(provider: str) -> str:
    """Return the name of the generated key of an engine we deploy: `my-gpus` gives
    `MY_GPUS_API_KEY`.
    """
    return re.sub(r"[^A-Z0-9]+", "_", provider.upper()) + "_API_KEY"


def former(secret: str) -> str:
    """Return the name under which the value that a secret had before is kept for as long as it is
    accepted, too.
    """
    return f"{secret}_FORMER"


def deployment_id(provider: str, model: str) -> str:
    """Return the gateway's id of one deployment: a model of a provider, on however many hosts.
    Never made from an address: it outlives a move to another one. The middle keeps it apart from
    names of models, some of which have a slash.
    """
    return f"{provider}/-/{model}"


def pool_name(provider: str, process: str | None) -> str:
    """Return the name of a pool: what HAProxy's backend is called, and the first component of the
    paths that lead to it. `process` is the slug of the model that the processes are named after;
    None where one process serves all models of the provider.

    A provider has no dot in its name, and no backend of HAProxy's other tasks begins so.
    """
    return ".".join(filter(None, ("pool", provider, process)))


def pool_server(host: str) -> str:
    """Return the name of a host in its pools: its own, where HAProxy can take that (letters,
    digits, `.`, `:`, `_` and `-`), else one made of it.
    """
    plain = re.sub(r"[^A-Za-z0-9.:_-]", "-", host)
    if plain == host:
        return host
    return f"{plain}-{hashlib.sha256(host.encode()).hexdigest()[:6]}"


def url_host(address: str) -> str:
    """Return an address as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def journal(unit: str) -> str:
    """Return the command that shows what a unit said last: the hint of most checks."""
    return f"journalctl -u {unit} -n 50"


def reach(listen: str) -> str:
    """Return the address to connect to for a listener on `listen`, from the same host."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(listen, listen)
