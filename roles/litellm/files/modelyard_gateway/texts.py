"""Streams of /v1/completions, as the engine sends them.

LiteLLM 1.106.2 makes chunks of a chat of them and texts of these again: the last one has no text,
all have index 0, log probabilities are lost and the usage is 0. And it asks the engine only after
it has chosen it, so no fallback answers for one that fails.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from litellm.llms.openai.common_utils import OpenAIError
from litellm.llms.openai.completion.handler import OpenAITextCompletion
from litellm.main import openai_chat_completions
from litellm.utils import TextCompletionStreamWrapper
from openai import APIStatusError, APITimeoutError, AsyncOpenAI
from openai.types import Completion
from pydantic import BaseModel, PrivateAttr


class Event(BaseModel):
    """One event, in the shape of OpenAI's API: with all that belongs to a choice, null where there
    is nothing.
    """

    model: str
    """LiteLLM puts the public name here."""
    _content: Mapping[str, Any] = PrivateAttr()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Event:
        """Make an event of what an engine sent."""
        event = cls(model=content.get("model") or "")
        event._content = {
            **content,
            "choices": [_choice(choice) for choice in content.get("choices") or ()],
        }
        return event

    def model_dump_json(self, **_: Any) -> str:
        """The event as it is sent. LiteLLM asks for it without nulls."""
        return json.dumps(
            {**self._content, "model": self.model}, ensure_ascii=False, separators=(",", ":")
        )


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index": 0,
        "logprobs": None,
        "finish_reason": None,
        **choice,
        "text": choice.get("text") or "",
    }


def client_of(given: dict[str, Any]) -> AsyncOpenAI:
    """The client for an engine, with its connections.

    LiteLLM makes one for each text, and closes none of them.
    """
    names = ("api_key", "api_base", "timeout", "max_retries", "organization")
    client = openai_chat_completions._get_openai_client(
        is_async=True, **{name: given.get(name) for name in names}
    )
    assert isinstance(client, AsyncOpenAI)
    return client


def failure(error: BaseException) -> Exception:
    """An error as LiteLLM raises it in a chat: what cools an engine down there does so here."""
    if isinstance(error, (APIStatusError, APITimeoutError)):
        return error
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(error.request)
    return OpenAIError(500, str(error))


def whole(original: Callable[..., Any]) -> Callable[..., Any]:
    """Ask for a whole text, with an error that says what the engine said."""

    async def acompletion(self: OpenAITextCompletion, **given: Any) -> Any:
        try:
            return await original(self, **{**given, "client": given["client"] or client_of(given)})
        except OpenAIError as error:
            found = failure(error.__context__ or error)
        # Not in there: that would write over where it comes from, which is what the engine said.
        raise found

    return acompletion


async def stream(_: OpenAITextCompletion, **given: Any) -> AsyncIterator[Completion]:
    """Ask for a stream, and return its events as soon as the first one is there: until then another
    step may answer.

    Raises what LiteLLM knows as an engine's failure.
    """
    client = given["client"] or client_of(given)
    try:
        response = await client.completions.with_raw_response.create(**given["data"])
        events = aiter(response.parse())
        first = await anext(events, None)
    except Exception as error:
        found = failure(error)
    else:
        if first is not None:
            return _told(
                first,
                events,
                given["model"],
                given["logging_obj"],
                given["data"].get("stream_options"),
            )
        found = OpenAIError(500, "The engine's stream has no events.")
    raise found


async def _told(
    first: Completion, rest: AsyncIterator[Completion], model: str, logging_obj: Any, options: Any
) -> AsyncIterator[Completion]:
    """The events, of which LiteLLM hears too: it counts tokens and seconds."""
    heard: list[Completion] = []

    async def source() -> AsyncIterator[Completion]:
        heard.append(first)
        yield first
        async for event in rest:
            heard.append(event)
            yield event

    chunks = CustomStreamWrapper(
        source(), model, logging_obj, "text-completion-openai", stream_options=options
    )
    async for _ in chunks:
        for event in heard:
            yield event
        heard.clear()
    for event in heard:  # without a text
        yield event


def convert(original: Callable[..., Any]) -> Callable[..., Event]:
    """What LiteLLM makes an event of /v1/completions with, whether an engine or a chat tells it."""

    def event_of(self: TextCompletionStreamWrapper, chunk: Any) -> Event:
        if isinstance(chunk, Completion):
            return Event.of(chunk.model_dump(mode="json", exclude_unset=True))
        content = original(self, chunk).model_dump(mode="json", exclude_none=True)
        (choice,) = content["choices"]
        if not (self.stream_options or {}).get("include_usage"):
            content.pop("usage", None)
        elif "usage" in content and not choice.get("text") and not choice.get("finish_reason"):
            content["choices"] = []
        return Event.of(content)

    return event_of


def mend() -> None:
    """Put this in LiteLLM's place. Raises AssertionError if it has become another one."""
    used = {
        "api_key",
        "api_base",
        "timeout",
        "max_retries",
        "organization",
        "client",
        "data",
        "model",
        "logging_obj",
    }
    handler, wrapper = OpenAITextCompletion, TextCompletionStreamWrapper
    assert used <= inspect.signature(handler.async_streaming).parameters.keys()
    assert used <= inspect.signature(handler.acompletion).parameters.keys()
    assert inspect.isasyncgenfunction(handler.async_streaming)
    assert list(inspect.signature(wrapper.convert_to_text_completion_object).parameters) == [
        "self",
        "chunk",
    ]
    handler.async_streaming = stream
    handler.acompletion = whole(handler.acompletion)
    wrapper.convert_to_text_completion_object = convert(wrapper.convert_to_text_completion_object)
