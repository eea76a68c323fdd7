"""A stand-in for model servers, on port 8900 of loopback.

It streams answers in the shape of OpenAI's interface, to those who know its key, and says as Ollama
does which models it has loaded. The model `broken` breaks off. It notes who was asked in
/srv/asked.log.
"""

from __future__ import annotations

import http.server
import json
from pathlib import Path
from typing import Any

KEY, LOG = "planted-key-of-the-model", Path("/srv/asked.log")
PIECES = 8


class Models(http.server.BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"") -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Be healthy, and say what is loaded."""
        if self.path == "/health":
            return self.answer(200, b"ok")
        if self.path == "/api/ps":
            return self.answer(
                200,
                json.dumps({"models": [{"name": "warm:latest", "model": "warm:latest"}]}).encode(),
            )
        return self.answer(401 if self.path == "/v1/models" else 404)

    def do_POST(self) -> None:
        """Stream an answer."""
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.answer(401)
        with LOG.open("a", encoding="utf-8") as log:
            print(question["model"], file=log)
        self.send_response(200)
        self.end_headers()
        self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for number in range(PIECES):
            self.event({"choices": [{"delta": {"content": f"word {number} "}}]})
        if question["model"] != "broken":
            self.event({"choices": [], "usage": {"completion_tokens": PIECES}})
            self.wfile.write(b"data: [DONE]\n\n")
        return None

    def event(self, data: dict[str, Any]) -> None:
        """Send one piece."""
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        self.wfile.flush()


http.server.ThreadingHTTPServer(("127.0.0.1", 8900), Models).serve_forever()
