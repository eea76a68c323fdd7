"""Each step of a chain is asked once: the next step is the retry.

LiteLLM 1.106.2 forbids OpenAI's library to ask again in a chat, but not for embeddings, images and moderations: one
request was three calls of an engine that fails, and three time-outs. For images no setting changes that.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from openai import AsyncOpenAI


def mend() -> None:
    """Have OpenAI's library ask once. Raises AssertionError if it has become another one."""
    original = AsyncOpenAI.__init__
    assert "max_retries" in inspect.signature(original).parameters

    @functools.wraps(original)
    def once(self: AsyncOpenAI, **given: Any) -> None:
        original(self, **{**given, "max_retries": 0})

    AsyncOpenAI.__init__ = once  # type: ignore[method-assign]
