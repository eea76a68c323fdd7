"""Requests that are too long for a model: who says so, and who does not.

LiteLLM has a chain of its own for them, and answers 400 if nobody takes them. It knows the words of
some engines; those of others are told to it here.

An engine that cuts a prompt without a word (Ollama on OpenAI's paths, where no field forbids it) is
not asked with one that is certainly too long: words between blanks are counted, and no tokenizer
makes one token of two of them. And what it says that it has read tells of the rest: as much as its
window holds, where it has cut the last message, or less than there are words, where it has left
messages out. That is too late for a stream, whose answer has begun.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeGuard

import litellm
from litellm import utils
from litellm.exceptions import ContextWindowExceededError
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.exception_mapping_utils import ExceptionCheckers

Answered = Callable[[Any, Any, Any], Awaitable[Any]]

TOO_LONG = re.compile(
    r"""
    is\ too\ large\ to\ process | larger\ than\ the\ max\ context\ size  # llama.cpp, server-context.cpp
    | context\ size\ has\ been\ exceeded                               # the same, of several requests
    | longer\ than\ the\ maximum\ model\ length                       # vLLM, renderers
    | input\ (length\ )?exceeds\ (the|maximum)\ context\ length        # Ollama, llm/server.go, routes.go
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What engines say of a request that is too long, beside what LiteLLM knows."""

COUNTED = re.compile(
    r"""
    (?:input|request)\ \((?P<asked>\d+)\ tokens\)\ (?:
        is\ too\ large\ to\ process\.\ increase\ the\ physical\ batch\ size
        \ \(current\ batch\ size:\ (?P<batch>\d+)\)
        | exceeds\ the\ available\ context\ size\ \((?P<context>\d+)\ tokens\) )
    """,
    re.VERBOSE,
)
"""What llama.cpp says of it (server-context.cpp): a hint for who runs it, not for who asks."""


def mend(windows: Mapping[str, int]) -> None:
    """Put this in LiteLLM's place. Raises AssertionError if it has become another one.

    `windows`: by the id of a deployment whose engine cuts prompts the tokens of its context.
    """
    name = "is_error_str_context_window_exceeded"
    setattr(ExceptionCheckers, name, staticmethod(knowing(getattr(ExceptionCheckers, name))))
    ContextWindowExceededError.__init__ = as_400(ContextWindowExceededError.__init__)
    watch = Windows(windows)
    litellm.callbacks.append(watch)
    utils.async_post_call_success_deployment_hook = watch.behind(
        utils.async_post_call_success_deployment_hook
    )


def knowing(original: Callable[[str], bool]) -> Callable[[str], bool]:
    """Know an error of a request that is too long by more engines' words."""
    assert list(inspect.signature(original).parameters) == ["error_str"]

    def known(error_str: str) -> bool:
        return original(error_str) or TOO_LONG.search(error_str) is not None

    return known


def as_400(original: Callable[..., None]) -> Callable[..., None]:
    """Make it a request's fault, also where an engine said 500."""
    assert "response" in inspect.signature(original).parameters

    @functools.wraps(original)
    def made(self: ContextWindowExceededError, *words: Any, **given: Any) -> None:
        original(self, *words, **given)
        self.status_code = 400

    return made


def for_clients(text: str) -> str:
    """Word an error of a request that is too long as OpenAI does, with what was counted."""
    found = COUNTED.search(text)
    if found is None:
        return text
    limit = found["batch"] or found["context"]
    return (
        f"This model's maximum context length is {limit} tokens. However, your request has"
        f" {found['asked']} tokens. Please reduce its length."
    )


class Windows(CustomLogger):
    """LiteLLM's word that it is about to ask a deployment."""

    def __init__(self, windows: Mapping[str, int]) -> None:
        super().__init__()
        self.windows = windows

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: object
    ) -> dict[str, Any] | None:
        """Raise ContextWindowExceededError instead of having a prompt cut."""
        window = self.of(kwargs)
        if window is not None and any(is_over(texts, window) for texts in prompts(kwargs)):
            raise too_long(kwargs, window)
        return None

    def behind(self, original: Answered) -> Answered:
        """LiteLLM's hook for an answer that is whole, which passes no exception on. Ours raises
        ContextWindowExceededError if the prompt was cut.
        """
        names = ["request_data", "response", "call_type"]
        assert list(inspect.signature(original).parameters) == names

        @functools.wraps(original)
        async def answered(request_data: Any, response: Any, call_type: Any) -> Any:
            window = self.of(request_data)
            if window is not None and was_cut(request_data, response, window):
                raise too_long(request_data, window)
            return await original(request_data, response, call_type)

        return answered

    def of(self, asked: Mapping[str, Any]) -> int | None:
        """The window of the deployment that is asked, if it cuts prompts."""
        return self.windows.get((asked.get("model_info") or {}).get("id", ""))


def too_long(asked: Mapping[str, Any], window: int) -> ContextWindowExceededError:
    """The error that begins a chain for long requests."""
    return ContextWindowExceededError(
        message=f"The request is longer than the model's context of {window} tokens.",
        model=str(asked.get("model")),
        llm_provider="openai",
    )


def was_cut(asked: Mapping[str, Any], response: Any, window: int) -> bool:
    """Whether an engine says that it has read less than it was sent. Of inputs that are apart it
    counts the sum, and refuses each that is too long.
    """
    usage = getattr(response, "usage", None)
    read = getattr(usage, "prompt_tokens", None) or getattr(usage, "input_tokens", None)
    if not isinstance(read, int) or not read or hasattr(response, "data"):
        return False
    return read >= window or any(is_over(texts, read) for texts in prompts(asked))


def prompts(asked: Mapping[str, Any]) -> Iterator[list[str | list[int]]]:
    """Yield what has to fit at once, each as texts, or tokens. Inputs of a list are apart."""
    if messages := asked.get("messages"):
        yield list(_texts(messages))
        return
    for name in ("prompt", "input"):
        given = asked.get(name)
        if isinstance(given, str) or _is_tokens(given):
            yield [given]
        elif isinstance(given, list) and all(isinstance(one, dict) for one in given):
            yield list(_texts([*given, {"content": asked.get("instructions")}]))
        elif isinstance(given, list):
            yield from ([one] for one in given if isinstance(one, str) or _is_tokens(one))


def is_over(texts: list[str | list[int]], window: int) -> bool:
    """Whether texts are certainly more tokens than `window`."""
    left = window
    for text in texts:
        left -= len(text.split(None, left)) if isinstance(text, str) else len(text)
        if left < 0:
            return True
    return False


def _is_tokens(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)


def _texts(parts: list[Any]) -> Iterator[str]:
    """The texts of messages, and of their parts."""
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            for inner in ("content", "text", "output"):
                value = part.get(inner)
                yield from _texts(value if isinstance(value, list) else [value])
