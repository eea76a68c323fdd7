"""What becomes of an old `base_url`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from modelyard.kinds import BaseUrl
from modelyard.urls import corrected
from modelyard_importer.report import Outcome

UNKNOWN = "http://set-me.invalid"
"""Stands where no address is known. No name server ever answers for `.invalid` (RFC 2606)."""

OLLAMA_CLOUD_HOSTS = frozenset({"ollama.com", "www.ollama.com", "api.ollama.com"})

_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^{}]*))?\}")
_PORT_PLACEHOLDER = re.compile(
    r"(https?://[A-Za-z0-9._-]+):(?:[A-Z][A-Z0-9_]*|\$\{\w+\}|<\w+>)(/.*)?"
)
_BASE_URL: TypeAdapter[str] = TypeAdapter(BaseUrl)


@dataclass(frozen=True, slots=True)
class Address:
    """The new `base_url`, the type it belongs to, and what is reported of both.

    `unusable` says why nothing can be reached there; the provider is then disabled. `advice` is a
    remark.
    """

    url: str
    kind: str
    outcome: Outcome = Outcome.TAKEN
    text: str = ""
    unusable: str = ""
    advice: str = ""


def convert(written: str, kind: str) -> Address:
    """Turn an old address of a provider of type `kind` into one that the schema and the gateway
    take.

    Never repeats what is written in a text: there may be a password in it.
    """
    told: list[str] = []
    text = _VARIABLE.sub(lambda found: found[0] if found[2] is None else found[2], written.strip())
    if text != written.strip():
        told.append("the variable's default is used; Modelyard does not read the variable")
    placeholder = _PORT_PLACEHOLDER.fullmatch(text)
    if placeholder:
        text = placeholder[1] + (placeholder[2] or "")
    if _VARIABLE.search(text) or re.search(r"\{[{%#]|[<>]", text):
        return _unusable(UNKNOWN, kind, "the address is a variable without a default")
    try:
        url = _BASE_URL.validate_python(text)
    except ValidationError as error:
        reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        return _unusable(UNKNOWN, kind, reason if text else "it has no address")
    if placeholder:
        return _unusable(url, kind, "the port is a placeholder")
    parts = urlsplit(url)
    bare, path = f"{parts.scheme}://{parts.netloc}", parts.path
    if kind == "ollama" and parts.hostname in OLLAMA_CLOUD_HOSTS:
        kind = "ollama_cloud"
        told.append("Ollama's cloud has its own type (ollama_cloud), which needs a key")
    if kind in ("ollama", "ollama_cloud") and path == "/api":
        path = ""
        told.append("without /api: the gateway uses Ollama's OpenAI-compatible API, /v1")
    url, why = corrected(kind, bare + path)
    if why:
        told.append(why)
    advice = ""
    if kind == "openai_compatible" and not urlsplit(url).path:
        advice = (
            "it has no path: the gateway will call /chat/completions; most servers want base_url to"
            " end in /v1"
        )
    if url != written and not told:
        told.append("normalised, the same address")
    return Address(
        url, kind, Outcome.CHANGED if told else Outcome.TAKEN, "; ".join(told), advice=advice
    )


def _unusable(url: str, kind: str, reason: str) -> Address:
    text = f"{reason}; the provider is disabled until base_url and status are set"
    return Address(url, kind, Outcome.CHANGED, text, unusable=reason)
