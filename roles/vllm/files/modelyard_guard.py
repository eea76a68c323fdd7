"""vLLM asks for its key below a few paths only; some others answer without one, /invocations even
with a chat.

This middleware leaves what the key guards, and what the gateway and Prometheus read without a key.
"""

from typing import Any

OPEN = ("/health", "/metrics")


class Guard:
    """Answers 404 to every path that is neither guarded by the key nor meant to be open."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind, path = scope["type"], scope.get("path", "")
        if kind == "lifespan" or path.startswith("/v1/") or path.rstrip("/") in OPEN:
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {
                    "type": "http.response.start",
                    "status": 404,
                    "headers": [(b"content-length", b"0")],
                }
            )
            await send({"type": "http.response.body", "body": b""})
