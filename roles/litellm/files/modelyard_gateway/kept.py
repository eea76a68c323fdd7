"""What a provider keeps under our key, for anyone who knows its id: no other client reaches it.

Responses are an exception: LiteLLM encrypts their ids with the client's name
(`previous_response_id`), so that each client has its own. Nothing tells whose a file, a saved
prompt, a container or an item of an answer is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard_gateway.errors import Refusal, shown

IDS = frozenset(
    {"container", "container_id", "conversation", "file_id", "file_ids", "vector_store_ids"}
)
"""Fields that name something kept, if they hold text, texts, or an object with an id."""
WITH_ID = frozenset({"audio", "prompt", "voice"})
"""Fields that name something kept if they hold an object with an id."""
FREE = frozenset({"arguments", "input_schema", "json_schema", "metadata", "parameters", "schema"})
"""What stands in these is no field of the API."""


def check_kept(path: str, body: Mapping[str, Any]) -> None:
    """Raise Refusal if a request refers to something that a provider keeps (400)."""
    if path != "responses" and body.get("previous_response_id"):
        raise _refers("previous_response_id")
    if body.get("background"):
        raise Refusal(
            400, "An answer in the background could not be fetched here.", param="background"
        )
    for name in _references(body):
        raise _refers(name)


def _refers(name: str) -> Refusal:
    text = (
        f"{shown(name)} refers to something that a provider keeps, and nothing tells whose it is:"
        " send it whole."
    )
    return Refusal(400, text, param=name)


def _references(body: Mapping[str, Any]) -> Iterator[str]:
    level: list[Any] = [body]
    while level:
        found = level.pop()
        if isinstance(found, list):
            level += found
        elif isinstance(found, dict):
            if found.get("type") == "item_reference" or found.keys() - {"type"} == {"id"}:
                yield "item_reference"
            if found.get("type") == "image_generation_call" and not found.get("result"):
                yield "image_generation_call"
            for name, value in found.items():
                if (name in IDS and _is_id(value)) or (
                    name in WITH_ID and isinstance(value, dict) and "id" in value
                ):
                    yield name
                if name not in FREE:
                    level.append(value)


def _is_id(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_id, value))
    return bool(
        "id" in value or "file_ids" in value
        if isinstance(value, dict)
        else isinstance(value, str) and value
    )
