"""The catalogue, schema version 1. A key enters the schema together with the code that makes it do
something.

Everything is strict: no unknown keys, no silent conversion (`port: "4000"` is refused). The text
under a key is its documentation: docs/catalogue.md and the editor's JSON Schema are generated from
it.
"""

from __future__ import annotations

from pydantic import Field

from modelyard.catalogue.clients import Client
from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.rollout import Rollout
from modelyard.catalogue.routing import Routing
from modelyard.catalogue.versions import Versions
from modelyard.engines import TYPES
from modelyard.kinds import ClientName, Identifier, Strict


class Catalogue(Strict):
    """The whole: `llm_providers`, `llm_routing`, `llm_gateway`, `llm_clients`, `llm_monitoring`,
    `llm_versions` and `llm_rollout` together.
    """

    providers: dict[Identifier, Provider] = Field(
        {}, examples=[{"local": {"type": TYPES[0], "group": f"llm_{TYPES[0]}", "port": 11434}}]
    )
    """Who serves which model, and where. Providers by name; the name is part of the gateway's
    deployment ids."""
    routing: Routing = Field(Routing(), examples=[{"aliases": {"chat": "llama3.1:latest"}}])
    """Public names and fallbacks."""
    gateway: Gateway = Field(Gateway(), examples=[{"port": 4000}])
    """The gateway and its front end."""
    clients: dict[ClientName, Client] = Field(
        {}, examples=[{"chat-app": {"secret": "CHAT_KEY", "models": ["chat"]}}]
    )
    """Applications and what they may ask for. Their names appear in the gateway's metrics and
    journal."""
    monitoring: Monitoring | None = Field(None, examples=[{"prometheus": {"retention_days": 90}}])
    """Prometheus, Alertmanager, Grafana and their exporters. `llm_monitoring: false`: none of
    them."""
    versions: Versions | None = Field(None, examples=[{"litellm": {"version": "1.106.2"}}])
    """Every component's version and checksum, in one place."""
    rollout: Rollout = Field(Rollout(), examples=[{"batch": "20%"}])
    """How a change reaches several hosts."""
