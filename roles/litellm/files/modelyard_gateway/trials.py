"""The smallest request there is, to an engine that says it is well but answered 5xx.

Its health check may know nothing of a graphics card that fails. Whether the client's request was
wrong or the engine is, only another request tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

TRIAL_S = 5.0
"""Seconds an engine has to answer. One that needs longer is busy or loads a model: no failure."""

TEXT = "Hi"

AWAY = "engine_away"
"""The code of HAProxy's answer for a pool without a host that is up, or has room in time. It came
at once or after a wait that the catalogue wants, and says nothing of the next request: nobody is
left alone for it (roles/haproxy/templates/haproxy.cfg.j2)."""


async def fails(deployment: Mapping[str, Any]) -> bool:
    """Whether an engine answers 5xx, or breaks off, though nothing is wrong with the request.

    `deployment`: the entry of LiteLLM's list of models, with the key itself.
    """
    params = deployment["litellm_params"]
    path, asks = (
        ("/embeddings", {"input": TEXT})
        if deployment["model_info"].get("mode") == "embedding"
        else (
            "/chat/completions",
            {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 1},
        )
    )
    body = {"model": params["model"].removeprefix("openai/"), **asks}
    headers = {"Authorization": f"Bearer {params['api_key']}"}
    timeout = aiohttp.ClientTimeout(total=TRIAL_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.post(params["api_base"].rstrip("/") + path, json=body) as answer,
        ):
            return answer.status >= 500 and AWAY.encode() not in await answer.read()
    # A class of its own until Python 3.11.
    except asyncio.TimeoutError:  # noqa: UP041
        return False
    except (aiohttp.ClientError, OSError):
        return True
