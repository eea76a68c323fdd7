"""`llm_routing`: public names and fallbacks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelyard.kinds import Name, Strict


class Chain(Strict):
    """Fallbacks of a model: a `chain` of names, or none (`terminal: true`)."""

    chain: list[Name] | None = Field(None, examples=[["qwen2.5-coder:7b", "gpt-oss:20b-cloud"]])
    """Models, aliases or capabilities, tried in this order; each step is followed by its own
    fallbacks, and no model is tried twice. So two models may be each other's fallback."""
    terminal: Literal[True] | None = Field(None, examples=[True])
    """No fallback, on purpose."""


class Capability(Strict):
    """A name for a purpose."""

    models: Annotated[list[Name], Field(min_length=1)] = Field(
        examples=[["qwen2.5-coder:7b", "qwen-coder"]]
    )
    """Tried in this order, then their fallbacks."""


class Routing(Strict):
    """Public names and fallbacks."""

    fallbacks: dict[Name, Chain] = Field(
        {}, examples=[{"qwen2.5-coder:7b": {"chain": ["gpt-oss:20b-cloud"]}}]
    )
    """By model: fallbacks for any error. Expanded depth first; `plan` prints the result."""
    default_fallbacks: list[Name] = Field([], examples=[["gpt-oss:20b-cloud"]])
    """The chain of every model that has no entry in `fallbacks`. A model in this list gets the
    steps after it."""
    context_window_fallbacks: dict[Name, Chain] = Field(
        {}, examples=[{"small": {"chain": ["large-context"]}}]
    )
    """By model: other fallbacks for requests that are too long for it. Models without an entry
    keep their chain of `fallbacks`. Only errors in words that the gateway knows are recognised as
    such: OpenAI's and some engines'."""
    content_policy_fallbacks: dict[Name, Chain] = Field(
        {}, examples=[{"gpt-4o-mini": {"chain": ["qwen2.5-coder:7b"]}}]
    )
    """By model: other fallbacks for content that a provider refuses. Models without an entry keep
    their chain of `fallbacks`."""
    aliases: dict[Name, Name] = Field({}, examples=[{"chat": "llama3.1:latest"}])
    """Another name for one model or capability. It shares its chain and its cool-downs."""
    capabilities: dict[Name, Capability] = Field(
        {}, examples=[{"code": {"models": ["qwen2.5-coder:7b"]}}]
    )
    """A name for a purpose, answered by the first available of its models."""
