"""Who may ask the gateway, and for what: LiteLLM's `general_settings.custom_auth`.

The master key may do everything, and so may the one before it while it is rotated. A client's key may call the models
that the client is given, by exactly their public names, and may not steer the gateway. Clients are no part of a
release: MODELYARD_CLIENTS names the file, which is read again as soon as it has changed. So a key that was revoked
stays so whichever release runs, and nothing is restarted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from fastapi import Request
from litellm.constants import LITELLM_PROXY_MASTER_KEY_ALIAS
from litellm.proxy import proxy_server
from litellm.proxy._types import LitellmUserRoles, ProxyException, SpecialModelNames, UserAPIKeyAuth
from litellm.proxy.common_utils.http_parsing_utils import read_request_body
from litellm.types.utils import all_litellm_params

SALT = b"modelyard client key\0"
"""The host holds SHA-256(SALT + key): LiteLLM shows a key's plain SHA-256 in places, and that is nobody's business."""

HARMLESS = frozenset({"metadata", "tags", "cache"})
"""Of LiteLLM's own parameters those that clients may use: they say something about their request alone."""

CLOSED = (frozenset(all_litellm_params) - HARMLESS) | frozenset(
    """
    acreate_batch acreate_fine_tuning_job adapter_id agent amoderation api_type arerank aresponses aspeech
    atranscription azure_ad_token base_url call_type callbacks config content_policy_fallbacks context_window_fallbacks
    default_headers deployment_id engine exception extra_body extra_headers extra_query failure_callback
    fallback_model_group include_fallback_errors initial_prompt_value input_callback litellm_params
    model_group_retry_policy model_id organization original_function original_generic_function passthrough
    passthrough_on_no_deployment priority router_settings_override routing_groups routing_strategy_args
    selected_guardrail service_callback specific_deployment standard_callback_dynamic_params standard_logging_object
    success_callback timeout user_config
    """.split()
)
"""Fields of a request that LiteLLM takes for itself or puts into the request to the engine: who is asked, with which
key and headers, how long and how often. A request that has one is refused."""

CLOSED_PREFIXES = ("_", "litellm", "mock_")

OPEN_HEADERS = frozenset({"x-litellm-api-key", "x-litellm-session-id", "x-litellm-tags", "x-litellm-trace-id"})
"""All other headers that begin with x-litellm- do the same as the closed fields."""

ASKING = (
    "chat/completions completions embeddings responses moderations rerank audio/speech audio/transcriptions "
    "images/generations images/edits"
).split()
READING = ["models"]
"""What the front door opens, for POST and for the rest, with and without /v1. Users of this host could otherwise ask a
slot for more, such as where engines are."""

SHOWN = 100
"""Characters of what a client sent that an error repeats."""


class Client(NamedTuple):
    """An application. `models` None: all public names."""

    name: str
    sha256: str
    models: tuple[str, ...] | None
    rpm: int | None

    @classmethod
    def read(cls, entry: dict) -> Client:
        """Read one entry of the file. Raises KeyError, TypeError or ValueError."""
        name, digest, models, rpm = entry["name"], entry["sha256"], entry["models"], entry["rpm"]
        if not isinstance(name, str) or not isinstance(digest, str) or len(bytes.fromhex(digest)) != 32:
            raise ValueError(f"no client: {name!r}")
        if models is not None and not (isinstance(models, list) and all(isinstance(model, str) for model in models)):
            raise ValueError(f"models of {name}")
        if rpm is not None and not (isinstance(rpm, int) and rpm > 0):
            raise ValueError(f"rpm of {name}")
        return cls(name, digest, None if models is None else tuple(models), rpm)


class Clients:
    """The file of clients: as it is now, or as it was when it was last whole."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamp: tuple[int, ...] | None = ()
        self.known: tuple[Client, ...] = ()

    def find(self, key: str) -> Client | None:
        """Return whose key this is. All are compared, each in constant time."""
        self.refresh()
        digest = hashlib.sha256(SALT + key.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for client in self.known:
            if hmac.compare_digest(client.sha256, digest):
                found = client
        return found

    def refresh(self) -> None:
        """Read the file if it is another one than last time."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            stamp = None
        if stamp == self.stamp:
            return
        self.stamp = stamp
        if stamp is None:
            self.known = ()
            say(f"{self.path} cannot be found: no client's key is accepted")
            return
        try:
            entries = json.loads(Path(self.path).read_text(encoding="utf-8"))["clients"]
            self.known = tuple(Client.read(entry) for entry in entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            kept = f"the {len(self.known)} clients of before are kept"
            say(f"{self.path} is damaged, {kept}: {type(error).__name__} {error}")
        else:
            say(f"{len(self.known)} clients")


def say(text: str) -> None:
    """Write a line to the journal."""
    print(f"modelyard: {text}", file=sys.stderr, flush=True)


def public_names() -> tuple[str, ...]:
    """What this release serves, in its order: models, aliases, capabilities."""
    document = json.loads(Path(__file__).with_name("gateway.yaml").read_text(encoding="utf-8"))
    router = document.get("router_settings", {})
    groups = [group["group_name"] for group in router.get("routing_groups", ())]
    models = [entry["model_name"] for entry in document.get("model_list", ())]
    return tuple(dict.fromkeys([*models, *router.get("model_group_alias", {}), *groups]))


CLIENTS = Clients(os.environ["MODELYARD_CLIENTS"])
PUBLIC_NAMES = public_names()


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Say whose request this is. Raises ProxyException: nobody's (401), not allowed (403), steering (400)."""
    key = api_key or ""
    if is_master(key):
        return UserAPIKeyAuth(
            api_key=LITELLM_PROXY_MASTER_KEY_ALIAS,
            user_role=LitellmUserRoles.PROXY_ADMIN,
            user_id=proxy_server.litellm_proxy_admin_name,
        )
    client = CLIENTS.find(key)
    if client is None:
        message = "This key is not known." if key else "No key was sent: Authorization: Bearer KEY."
        raise ProxyException(message, "invalid_request_error", None, 401)
    models = [name for name in PUBLIC_NAMES if client.models is None or name in client.models]
    asks = request.method == "POST"
    asked = await check(client, request, models) if asks else ""
    say(f"client {client.name}: {request.method} {shown(request.url.path)[1:-1]} {asked}".rstrip())
    return UserAPIKeyAuth(
        # What limits are counted for. Not the key, nor a hash of it: LiteLLM names it in its answers.
        api_key=f"client {client.name}",
        key_alias=client.name,
        # For LiteLLM an empty list is no limit.
        models=models or [SpecialModelNames.no_default_models.value],
        rpm_limit=client.rpm,
        user_role=LitellmUserRoles.INTERNAL_USER,
        allowed_routes=[f"{version}/{route}" for route in (ASKING if asks else READING) for version in ("", "/v1")],
    )


def is_master(key: str) -> bool:
    """Whether this is the master key, or the one before it while that is accepted, too."""
    sent = key.encode("utf-8", "surrogatepass")
    masters = [proxy_server.master_key, os.environ.get("LITELLM_MASTER_KEY_FORMER")]
    return any(hmac.compare_digest(sent, master.encode()) for master in masters if master)


async def check(client: Client, request: Request, models: list[str]) -> str:
    """Return the model that is asked for. Raises ProxyException unless the client may ask like this."""
    body = await read_request_body(request)
    fields = [name for name in body if name in CLOSED or str(name).startswith(CLOSED_PREFIXES)]
    fields += [name for name in request.headers if name.startswith("x-litellm-") and name not in OPEN_HEADERS]
    if fields:
        field = shown(fields[0])
        message = f"{field} steers the gateway, which client {client.name} may not."
        raise ProxyException(message, "invalid_request_error", str(fields[0])[:SHOWN], 400)
    asked = body.get("model")
    # Exactly one public name: LiteLLM takes ids of deployments, and several names with commas between, too.
    if not isinstance(asked, str) or asked not in models:
        message = f"Client {client.name} may not use the model {shown(asked)}; see GET /v1/models."
        raise ProxyException(message, "invalid_request_error", "model", 403)
    return asked


def shown(value: object) -> str:
    """Show on one line, shortened, what a client sent."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
