"""`llm_clients`: applications with keys of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from modelyard.kinds import (
    Name,
    PerMinute,
    SecretName,
    Strict,
    Unique,
    distinct,
    unit,
)


class Client(Strict):
    """An application with its own key for the gateway."""

    secret: SecretName = Field(examples=["CHAT_KEY"])
    """Name of the secret that holds its key, never the key itself. Generated if it is not defined.
    Hosts only get a hash, so one that you choose must have 24 characters or more."""
    models: Annotated[list[Name], Field(min_length=1), AfterValidator(distinct), Unique] | None = (
        Field(None, examples=[["chat", "qwen2.5-coder:7b"]])
    )
    """Names it may ask for: models, aliases and capabilities. Their fallbacks may answer, too.
    Default: all."""
    rpm: PerMinute | None = Field(
        None, examples=[60], json_schema_extra=unit("requests per minute")
    )
    """In any 60 seconds; more are answered with 429. Default: no limit."""
