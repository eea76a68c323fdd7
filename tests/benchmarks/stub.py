"""A stand-in for a model server that costs next to nothing: `stub.py PORT`.

Every request gets the same answer at once, in OpenAI's shape, or Ollama's on its own path. Written
on asyncio's protocols, without a framework: it shares one core with the client and must not be what
is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys

WORDS = {"role": "assistant", "content": "Hello"}
OPENAI = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "stub",
    "choices": [{"index": 0, "message": WORDS, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}
OLLAMA = {
    "model": "stub",
    "created_at": "2026-01-01T00:00:00Z",
    "message": WORDS,
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 5,
    "eval_count": 1,
}


def answer(body: object, connection: str) -> bytes:
    """A whole HTTP response."""
    text = json.dumps(body)
    head = [
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        f"Content-Length: {len(text)}",
        f"Connection: {connection}",
    ]
    return "\r\n".join([*head, "", text]).encode()


ANSWERS = {
    (ollama, close): answer(OLLAMA if ollama else OPENAI, "close" if close else "keep-alive")
    for ollama in (True, False)
    for close in (True, False)
}


class Stub(asyncio.Protocol):
    """One connection. Requests are not chunked and not pipelined."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection's transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer when the request is complete."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(headers.get(b"content-length", 0)):
            return
        self.received = b""
        close = headers.get(b"connection") == b"close"
        self.transport.write(ANSWERS[head.startswith(b"POST /api/chat "), close])
        if close:
            self.transport.close()


async def main() -> None:
    """Serve on loopback until killed."""
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
