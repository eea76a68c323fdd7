"""Which requests belong together, so that HAProxy sends them to the host that has their beginning
in its cache.

A conversation is known by what its client calls it, the header `X-Session-Id` or OpenAI's
`prompt_cache_key`, else by how it begins: each turn repeats all before it. The key that is made of
it goes to HAProxy with the requests to engines of ours, and to nobody else.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import httpx

from modelyard_gateway.bodies import dump_json

SESSION_HEADER = b"x-session-id"
"""What chat programs and other gateways call it."""
HEADER = "X-Modelyard-Affinity"
"""What HAProxy reads (roles/haproxy/templates/haproxy.cfg.j2)."""

PROMPT_CHARACTERS = 1024
PROMPT_TOKENS = 256
"""Of a prompt without messages, which nothing parts into turns: as much as OpenAI routes by
(https://platform.openai.com/docs/guides/prompt-caching)."""

CURRENT: ContextVar[str | None] = ContextVar("modelyard_affinity", default=None)
"""The key of the request that is being answered."""


def mend(pools: str | None) -> None:
    """Have requests to URLs that begin with `pools` carry the key. Raises AssertionError if httpx
    has become another one.
    """
    if pools is not None:
        httpx.AsyncClient.send = carrying(httpx.AsyncClient.send, pools)


def carrying(original: Callable[..., Awaitable[Any]], pools: str) -> Callable[..., Any]:
    """LiteLLM's ways to an engine all end here: OpenAI's library and its own."""
    assert list(inspect.signature(original).parameters)[:2] == ["self", "request"]

    @functools.wraps(original)
    async def send(self: httpx.AsyncClient, request: httpx.Request, **given: Any) -> Any:
        key = CURRENT.get()
        if key is not None and str(request.url).startswith(pools):
            request.headers[HEADER] = key
        return await original(self, request, **given)

    return send


def session(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What a client calls its conversation in a header."""
    found = next((value for name, value in headers if name == SESSION_HEADER), b"")
    return found.decode("latin-1") or None


def key_of(client: str, called: str | None, path: str, body: Mapping[str, Any]) -> str | None:
    """The key of a request's conversation. None: nothing is kept of such a request.

    `called`: what `session` says. Two clients have nothing in common.
    """
    if path not in BEGINNINGS:
        return None
    name = called or body.get("prompt_cache_key")
    begins = {"session": name} if isinstance(name, str) and name else BEGINNINGS[path](body)
    whose = hashlib.blake2b(client.encode() + b"\0" + dump_json(begins), digest_size=16)
    return whose.hexdigest()


def of_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The messages to the first one of the user."""
    return {"messages": _opening(body["messages"])}


def of_prompt(body: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of the first prompt."""
    prompt = body["prompt"]
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]
    most = PROMPT_CHARACTERS if isinstance(prompt, str) else PROMPT_TOKENS
    return {"prompt": prompt[:most]}


def of_response(body: Mapping[str, Any]) -> dict[str, Any]:
    """The instructions, and what was put in to the first message of the user."""
    given = body["input"]
    opening = _opening(given) if isinstance(given, list) else given
    return {"instructions": body.get("instructions"), "input": opening}


BEGINNINGS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "chat/completions": of_chat,
    "completions": of_prompt,
    "responses": of_response,
}
"""By path how a conversation begins. A request on another path has nothing before it: the host with
the fewest requests is the best one for it."""


def _opening(messages: list[Any]) -> list[Any]:
    first = (
        number
        for number, message in enumerate(messages, start=1)
        if isinstance(message, dict) and message.get("role") == "user"
    )
    return messages[: next(first, len(messages))]
