"""Answers on their way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from modelyard_gateway.errors import Refusal
from modelyard_gateway.rules import Rules

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Answer:
    """What LiteLLM sends an answer through."""

    def __init__(self, send: Send, path: str, rules: Rules) -> None:
        self.send = send
        self.path = path
        self.rules = rules
        self.headers: Mapping[str, str] = {}
        """Headers of ours."""

    async def __call__(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_encoded(self.headers)]}
        await self.send(message)


async def refuse(send: Send, refusal: Refusal, *, head: bool = False) -> None:
    """Send a refusal, and end the connection: what there is of a body was not read."""
    body = refusal.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    headers |= refusal.headers
    await send({"type": "http.response.start", "status": refusal.status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": b"" if head else body})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
