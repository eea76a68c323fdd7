"""OpenAI's library, with which LiteLLM asks engines: it asks once, and passes on what it is given
as it is.

LiteLLM 1.106.2 forbids the library to ask again in a chat, but not for embeddings, images and
moderations: one request was three calls of an engine that fails, and three time-outs. For images no
setting changes that. Moderations have no time-out at all. And fields of chats in a request for a
text are arguments that the library does not have: 500, as if the engine were broken. And the
library walks through lists and objects for names to translate, of which there are none: a request
with 100,000 messages stopped a worker for 100 s.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import litellm
from openai import AsyncOpenAI
from openai.resources import AsyncCompletions
from openai.resources.chat import AsyncCompletions as AsyncChats

BESIDE = frozenset({"extra_body", "extra_headers", "extra_query"})
"""Arguments of the library that are no fields of the body."""


def mend() -> None:
    """Put this in the library's place. Raises AssertionError if it has become another one."""
    AsyncOpenAI.__init__ = once(AsyncOpenAI.__init__)
    for asks in (AsyncCompletions, AsyncChats):
        asks.create = passing(asks.create)
    litellm.amoderation = in_time(litellm.amoderation)


def once(original: Callable[..., None]) -> Callable[..., None]:
    """Make a client that does not ask again: the next step of a chain is the retry."""
    assert "max_retries" in inspect.signature(original).parameters

    @functools.wraps(original)
    def made(self: AsyncOpenAI, **given: Any) -> None:
        original(self, **{**given, "max_retries": 0})

    return made


def passing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Ask with whatever there is: what the library does not know, and lists and objects, go into
    the body as it is.
    """
    known = inspect.signature(original).parameters
    assert "extra_body" in known

    @functools.wraps(original)
    async def create(self: Any, **given: Any) -> Any:
        unknown = {name: given.pop(name) for name in given.keys() - known.keys()}
        # The body has the last word. The library itself wants a list that is there.
        plain = {
            name: given[name]
            for name in given.keys() - BESIDE
            if isinstance(given[name], (dict, list))
        }
        if unknown or plain:
            given["extra_body"] = {**(given.get("extra_body") or {}), **unknown, **plain}
            given |= dict.fromkeys(plain, ())
        return await original(self, **given)

    return create


def in_time(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Ask as long as the deployment's `timeout` allows, in seconds; then raise litellm.Timeout."""

    @functools.wraps(original)
    async def asked(**given: Any) -> Any:
        try:
            return await asyncio.wait_for(original(**given), given.get("timeout"))
        # A class of its own until Python 3.11.
        except asyncio.TimeoutError as late:  # noqa: UP041
            raise litellm.Timeout("Request timed out.", given["model"], "openai") from late

    return asked
