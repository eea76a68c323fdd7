"""What uvicorn runs (`modelyard_gateway.app:app`), and what LiteLLM asks whose request it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import litellm
from fastapi import Request
from litellm.constants import LITELLM_PROXY_MASTER_KEY_ALIAS
from litellm.proxy import proxy_server
from litellm.proxy._types import LitellmUserRoles, SpecialModelNames, UserAPIKeyAuth

from modelyard_gateway import (
    affinity,
    constraints,
    engines,
    journal,
    ledger,
    library,
    requests,
    texts,
    windows,
)
from modelyard_gateway.clients import MASTER, Client, Clients, Keys
from modelyard_gateway.guard import CALLER, Guard, Receive, Scope, Send
from modelyard_gateway.limits import Limits
from modelyard_gateway.rules import Rules
from modelyard_gateway.workers import Workers

RULES = Rules.read(Path(os.environ["CONFIG_FILE_PATH"]).with_name("rules.json"))
RUNTIME = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
"""A directory in memory that all workers of the slot share and that is empty when it starts."""


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Tell LiteLLM whose request this is (`general_settings.custom_auth`): the guard has seen the
    key.
    """
    client: Client = request.scope[CALLER]
    if client is MASTER:
        return UserAPIKeyAuth(
            api_key=LITELLM_PROXY_MASTER_KEY_ALIAS,
            user_role=LitellmUserRoles.PROXY_ADMIN,
            user_id=proxy_server.litellm_proxy_admin_name,
        )
    asks = request.method == "POST"
    return UserAPIKeyAuth(
        # Not the key, nor a hash of it: LiteLLM names it in its answers.
        api_key=f"client {client.name}",
        key_alias=client.name,
        # Whose the answers are that are kept by their id.
        user_id=f"client {client.name}",
        # For LiteLLM an empty list is no limit.
        models=client.allowed(RULES.public_names) or [SpecialModelNames.no_default_models.value],
        user_role=LitellmUserRoles.INTERNAL_USER,
        allowed_routes=[
            f"{version}/{route}"
            for route in (requests.ASKING if asks else [requests.READING])
            for version in ("", "/v1")
        ],
    )


class Worker:
    """The guard, and what runs beside it as long as its worker does."""

    def __init__(self, guard: Guard, all_workers: Workers) -> None:
        self.guard = guard
        self.workers = all_workers
        self.tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.guard(scope, receive, send)
            return

        async def sent(message: Mapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.workers.enter()
                self.tasks.add(asyncio.create_task(self.workers.watch(RULES.worker_bytes)))
                journal.close()
            await send(message)

        await self.guard(scope, receive, sent)


library.mend()
texts.mend()
windows.mend(RULES.windows)
constraints.mend(RULES.constraints)
engines.install(RULES.health)
affinity.mend(RULES.pools)
litellm.input_callback.append(ledger.Asks())
app = Worker(
    Guard(
        proxy_server.app,
        RULES,
        Keys(Clients(os.environ["MODELYARD_CLIENTS"])),
        Limits(RULES.redis),
        ledger.Ledger(RUNTIME / "requests"),
    ),
    Workers(RUNTIME / "workers", int(os.environ["WEB_CONCURRENCY"])),
)
