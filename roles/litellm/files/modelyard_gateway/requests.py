"""What a request may ask, and what it may say: paths, fields, names of models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from litellm.types.utils import all_litellm_params

from modelyard_gateway.errors import Refusal, shown

JSON, FORM = b"application/json", b"multipart/form-data"

ASKING: Mapping[str, bytes] = {
    "chat/completions": JSON,
    "completions": JSON,
    "embeddings": JSON,
    "responses": JSON,
    "moderations": JSON,
    "audio/speech": JSON,
    "audio/transcriptions": FORM,
    "images/generations": JSON,
    "images/edits": FORM,
}
"""What is asked with POST, with and without /v1, and the media type of the body. The front end
opens the same."""

READING = "models"
OPEN = ("/health/liveliness", "/health/readiness", "/metrics/")
"""What needs no key. The front end keeps /metrics/ for Prometheus."""

HARMLESS = frozenset({"metadata", "tags"})
"""Of LiteLLM's own parameters those that clients may use: they say something about their request
alone."""

CLOSED = (frozenset(all_litellm_params) - HARMLESS) | frozenset(
    """
    acreate_batch acreate_fine_tuning_job adapter_id agent amoderation api_type arerank aresponses aspeech
    atranscription azure_ad_token base_url call_type callbacks candidate_deployment_id config content_policy_fallbacks
    context_window_fallbacks conversation current_deployment_id default_headers deployment_id drop_params
    dynamic_cache_object endpoint engine exception extra_body extra_headers extra_query failure_callback
    fallback_model_group guardrail_config hash_hex include_fallback_errors include_guardrail_response
    initial_prompt_value input_callback litellm_params model_group_retry_policy model_id organization original_function
    original_generic_function passthrough passthrough_on_no_deployment policies priority retrieval_config
    router_settings_override routing_groups routing_strategy_args selected_guardrail service_callback
    specific_deployment standard_callback_dynamic_params standard_logging_object success_callback target_model_names
    timeout user_config
    """.split()
)
"""Fields of a request that LiteLLM takes for itself or puts into the request to the engine: who is
asked, with which key and headers, how long and how often; and `conversation`, which is kept at a
provider under the provider's key. A client's request that has one is refused."""

CLOSED_PREFIXES = ("_", "litellm", "mock_")

DROPPED = ("cache",)
"""How long answers are kept, and whether, is not a client's to say. Programs send it, so it is
taken out of JSON."""

OPEN_HEADERS = frozenset({b"x-litellm-session-id", b"x-litellm-tags", b"x-litellm-trace-id"})
"""All other headers that begin with x-litellm- do the same as the closed fields."""

PASSED_HEADERS = OPEN_HEADERS | frozenset(
    b"""
    accept access-control-request-headers access-control-request-method anthropic-beta anthropic-version connection
    content-encoding content-length content-type host origin traceparent tracestate user-agent x-forwarded-for
    x-forwarded-proto x-modelyard-request
    """.split()
)
"""What LiteLLM sees of a client's headers. It reads more of them than anybody has listed."""

STEERING_HEADERS = (b"anthropic-", b"x-litellm-")
"""How those of them begin that an answer can depend on."""

MEDIA = frozenset(
    {
        "image_url",
        "input_image",
        "image",
        "video_url",
        "input_audio",
        "audio_url",
        "file",
        "input_file",
    }
)
"""Types of parts of a message that are no text, of chat completions, responses and messages."""


def path_of(path: str) -> str | None:
    """The path without its /v1 if it is one of ASKING or READING, else None."""
    bare = path.removeprefix("/v1").removeprefix("/")
    if bare in ASKING or bare == READING or bare.startswith(f"{READING}/"):
        return bare
    return None


def check_headers(client: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise Refusal if a client steers the gateway by a header (400)."""
    for name, _ in headers:
        if name.startswith(b"x-litellm-") and name not in OPEN_HEADERS:
            raise _steers(client, name.decode("latin-1"))


def check_fields(client: str, body: Iterable[str]) -> None:
    """Raise Refusal if a client steers the gateway by a field (400)."""
    for name in body:
        # A form's field can be an element of another: metadata[tags].
        bare = name.partition("[")[0]
        if bare in CLOSED or bare.startswith(CLOSED_PREFIXES):
            raise _steers(client, name)


def _steers(client: str, name: str) -> Refusal:
    return Refusal(
        400, f"{shown(name)} steers the gateway, which client {client} may not.", param=name[:100]
    )


def check_model(client: str, asked: object, allowed: Iterable[str]) -> str:
    """Return the model that is asked for.

    Raises Refusal unless it is exactly one of the client's names (403).

    LiteLLM takes ids of deployments, too, and several names with commas between.
    """
    if not isinstance(asked, str) or asked not in allowed:
        message = f"Client {client} may not use the model {shown(asked)}; see GET /v1/models."
        raise Refusal(403, message, param="model")
    return asked


def check_path(model: str, path: str, served: Collection[str]) -> None:
    """Raise Refusal if nobody behind a model answers this path (404): an engine that is asked in
    vain looks as if it were broken.
    """
    if path not in served:
        there = " and ".join(f"/v1/{one}" for one in served)
        message = f"The model {shown(model)} answers {there} only."
        raise Refusal(404, message, param="model", code="model_not_for_path")


def check_media(model: str, body: Mapping[str, Any]) -> None:
    """Raise Refusal if a request for a model that reads text has anything else in it (400)."""
    for kind in kinds_of_parts(body.get("messages")) + kinds_of_parts(body.get("input")):
        if kind in MEDIA:
            raise Refusal(
                400,
                f"The model {shown(model)} reads text only, and the request has {kind!r}.",
                param=kind,
            )


def kinds_of_parts(messages: object) -> list[str]:
    """The types of all parts of messages, those in a message's content among them."""
    return list(_kinds(messages)) if isinstance(messages, list) else []


def _kinds(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, dict):
            if isinstance(part.get("type"), str):
                yield part["type"]
            for inner in ("content", "output"):
                if isinstance(part.get(inner), list):
                    yield from _kinds(part[inner])


# -- types of fields -------------------------------------------------------------------------------

Check = Callable[[Any], bool]


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    # JSON has one kind of number, and some programs write 256.0.
    return _number(value) and float(value) == int(value)  # type: ignore[arg-type, call-overload]  # a number


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _object(value: object) -> bool:
    return isinstance(value, dict)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def _filled(check: Check) -> Check:
    return lambda value: (
        check(value) and value != [] and not (isinstance(value, list) and [] in value)
    )


def _never(value: object) -> bool:
    return False


def _part(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, dict) and isinstance(value.get("type"), str)
    )


def _message(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        return False
    content = value.get("content")
    return content is None or isinstance(content, str) or _list_of(_part)(content)


TOKENS = _list_of(_whole)
TEXTS = _filled(_either(_text, _list_of(_either(_text, TOKENS)), TOKENS))
FIELDS: Mapping[str, tuple[str, Check]] = {
    "additional_drop_params": ("a list of strings", _list_of(_text)),
    "cache": ("an object", _object),
    "dimensions": ("a whole number", _whole),
    "encoding_format": ("a string", _text),
    "endpoint": ("a string", _text),
    "frequency_penalty": ("a number", _number),
    "functions": ("a list of objects", _list_of(_object)),
    "instructions": ("a string", _either(_text, _list_of(_object))),
    "litellm_logging_obj": ("left out", _never),
    "logit_bias": ("an object", _object),
    "max_completion_tokens": ("a whole number", _whole),
    "max_output_tokens": ("a whole number", _whole),
    "max_tokens": ("a whole number", _whole),
    "messages": ("a list of messages, each with a role", _list_of(_message)),
    "metadata": ("an object", _object),
    "model": ("a string", _text),
    # An engine computes all of them, while others wait. OpenAI's own limit.
    "n": ("a whole number from 1 to 128", lambda value: _whole(value) and 1 <= value <= 128),
    "parallel_tool_calls": ("true or false", _flag),
    "presence_penalty": ("a number", _number),
    "previous_response_id": ("a string", _text),
    "provider_specific_header": ("an object", _object),
    "reasoning_effort": ("a string", _text),
    "response_format": ("an object", _either(_object, _text)),
    "seed": ("a whole number", _whole),
    "stop": ("a string or a list of strings", _either(_text, _list_of(_text))),
    "stream": ("true or false", _flag),
    "stream_options": ("an object", _object),
    "tags": ("a list of strings", _list_of(_text)),
    "temperature": ("a number", _number),
    "tool_choice": ("a string or an object", _either(_text, _object)),
    "tools": ("a list of objects", _list_of(_object)),
    "top_logprobs": ("a whole number", _whole),
    "top_p": ("a number", _number),
    "user": ("a string", _text),
    "web_search_options": ("an object", _object),
}
"""Of fields that mean the same everywhere what OpenAI's API wants; null is as if it were not there.
An engine answers 500 to some that are wrong, and that would look as if it were broken."""

OF_A_PATH: Mapping[str, Mapping[str, tuple[str, Check]]] = {
    "chat/completions": {
        "messages": (
            "a list of one or more messages, each with a role",
            _filled(_list_of(_message)),
        ),
        "response_format": ("an object", _object),
    },
    "completions": {
        "messages": ("left out", _never),
        "prompt": ("a string, a list of strings or tokens", TEXTS),
        "response_format": ("an object", _object),
    },
    "embeddings": {"input": ("a string, a list of strings or tokens", TEXTS)},
    "responses": {"input": ("a string or a list of objects", _either(_text, _list_of(_object)))},
    "audio/speech": {"input": ("a string", _text), "voice": ("a string", _text)},
    "images/generations": {
        "prompt": ("a string", _text),
        "stream": ("false", lambda value: value is False),
    },
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "chat/completions": ("messages",),
    "completions": ("prompt",),
    "embeddings": ("input",),
    "responses": ("input",),
    "moderations": ("input",),
    "audio/speech": ("input", "voice"),
    "images/generations": ("prompt",),
}
"""The fields without which a request is none."""


def check_types(path: str, body: Mapping[str, Any]) -> None:
    """Raise Refusal if a field is not what OpenAI's API wants (400)."""
    for needed in NEEDED.get(path, ()):
        if body.get(needed) is None:
            raise Refusal(400, f"The field {needed!r} is missing.", param=needed)
    for name, (wanted, check) in {**FIELDS, **OF_A_PATH.get(path, {})}.items():
        value = body.get(name)
        if value is not None and not check(value):
            raise Refusal(400, f"{name!r} has to be {wanted}.", param=name)
