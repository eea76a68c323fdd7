"""The ways in which a model server fails, as stubs do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stubs import Behaviour

Kind = Literal["any", "context_window", "content_policy"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One class of error."""

    slug: str
    words: str
    behaviour: Behaviour | None
    """None: nothing listens."""
    provider: Literal["openai_compatible", "anthropic"] = "openai_compatible"
    kind: Kind = "any"
    """What the gateway takes it for: decides which chain is used, where there is more than one."""


def openai(
    status: int, message: str, kind: str = "", code: str | int | None = None, **headers: str
) -> Behaviour:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Behaviour(
        status, {"error": error}, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def anthropic(status: int, kind: str, message: str) -> Behaviour:
    """An error in Anthropic's shape."""
    return Behaviour(status, {"type": "error", "error": {"type": kind, "message": message}})


HTML = b"<html><body>Sign in to this network</body></html>"
EVENTS = b"data: <html>\n\ndata: nonsense\n\n"

FAULTS = (
    Fault("refused", "connection refused", None),
    Fault("closed", "connection closed without an answer", Behaviour(until="request", then="cut")),
    Fault("silent", "silence before headers", Behaviour(until="request")),
    Fault("silent-headers", "headers, then silence", Behaviour(until="headers")),
    Fault("silent-role", "a first event without text, then silence", Behaviour(until="role")),
    Fault("silent-token", "a first token, then silence", Behaviour(until="token")),
    Fault("cut-headers", "headers, then cut off", Behaviour(until="headers", then="cut")),
    Fault(
        "cut-role", "a first event without text, then cut off", Behaviour(until="role", then="cut")
    ),
    Fault("cut-token", "a first token, then cut off", Behaviour(until="token", then="cut")),
    Fault("500", "500", openai(500, "out of order", "server_error")),
    Fault("502", "502", openai(502, "bad gateway", "server_error")),
    Fault("503", "503", openai(503, "Loading model", "unavailable_error", 503)),
    Fault("429", "429", openai(429, "too many requests", "rate_limit_error")),
    Fault(
        "429-retry",
        "429 with retry-after: 7",
        openai(429, "too many requests", "rate_limit_error", retry_after="7"),
    ),
    Fault("html", "200 with a page of HTML", Behaviour(200, HTML, {"content-type": "text/html"})),
    Fault(
        "garbled",
        "a stream of events that are no JSON",
        Behaviour(200, EVENTS, {"content-type": "text/event-stream"}),
    ),
    Fault("401", "401", openai(401, "Invalid API Key", "authentication_error", 401)),
    Fault("403", "403", openai(403, "not allowed", "permission_error")),
    Fault("404", "404", openai(404, "no such model", "not_found_error")),
    Fault("400", "400", openai(400, "bad request", "invalid_request_error")),
    Fault(
        "long-openai",
        "too long, OpenAI's code `context_length_exceeded`",
        openai(
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in"
            " 9000 tokens.",
            "invalid_request_error",
            "context_length_exceeded",
        ),
        kind="context_window",
    ),
    Fault(
        "long-vllm",
        "too long, vLLM's words `This model's maximum context length is …`",
        openai(
            400,
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
            " (4900 in the messages, 100 in the completion). Please reduce the length of the"
            " messages or completion.",
            "BadRequestError",
            400,
        ),
        kind="context_window",
    ),
    Fault(
        "long-vllm-decoder",
        "too long, vLLM's words `… longer than the maximum model length …`",
        openai(
            400,
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make"
            " sure that `max_model_len` is no smaller than the number of text tokens.",
            "BadRequestError",
            400,
        ),
        kind="context_window",
    ),
    Fault(
        "long-llama-cpp",
        "too long, llama.cpp's words `… exceeds the available context size …`",
        openai(
            400,
            "request (5000 tokens) exceeds the available context size (4096 tokens), try"
            " increasing it",
            "exceed_context_size_error",
            400,
        ),
        kind="context_window",
    ),
    Fault(
        "long-ollama",
        "too long, Ollama's words `input length exceeds the context length`",
        openai(400, "the input length exceeds the context length", "api_error"),
        kind="context_window",
    ),
    Fault(
        "long-llama-cpp-input",
        "too long, llama.cpp's words in a 500 `… is too large to process …`",
        openai(
            500,
            "input (900 tokens) is too large to process. increase the physical batch size (current"
            " batch size: 512)",
            "server_error",
            500,
        ),
        kind="context_window",
    ),
    Fault(
        "policy",
        "content refused, OpenAI's code `content_policy_violation`",
        openai(
            400,
            "Your request was rejected as a result of our safety system.",
            "invalid_request_error",
            "content_policy_violation",
        ),
        kind="content_policy",
    ),
    Fault(
        "filtered",
        "an answer with `finish_reason: content_filter`",
        Behaviour(finish_reason="content_filter"),
        kind="content_policy",
    ),
    Fault("a-silent", "Anthropic: silence before headers", Behaviour(until="request"), "anthropic"),
    Fault("a-529", "Anthropic: 529", anthropic(529, "overloaded_error", "Overloaded"), "anthropic"),
    Fault(
        "a-429",
        "Anthropic: 429",
        anthropic(429, "rate_limit_error", "too many requests"),
        "anthropic",
    ),
    Fault(
        "a-401",
        "Anthropic: 401",
        anthropic(401, "authentication_error", "invalid x-api-key"),
        "anthropic",
    ),
    Fault(
        "a-400",
        "Anthropic: 400",
        anthropic(400, "invalid_request_error", "bad request"),
        "anthropic",
    ),
    Fault(
        "a-long",
        "Anthropic: too long, `prompt is too long`",
        anthropic(
            400, "invalid_request_error", "prompt is too long: 215000 tokens > 200000 maximum"
        ),
        "anthropic",
        kind="context_window",
    ),
)
