"""A stand-in for targets: metrics for those who know the token, and a prober that tells what it was
asked."""

from __future__ import annotations

import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class StandIn(BaseHTTPRequestHandler):
    """Knows the token's SHA-256 only, so that the token is in no file and no argument of its
    own."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if url.path == "/probe":
            self.answer(
                200,
                f'stand_in_probe{{asked="{asked["target"]}",by="{asked["module"]}"}}'
                " 1\nprobe_success 1\n",
            )
        elif url.path == "/metrics" and hashlib.sha256(token.encode()).hexdigest() == sys.argv[1]:
            self.answer(200, 'stand_in_answers 1\nstand_in_says{service="redis"} 1\n')
        else:
            self.answer(401, "no\n")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", 8901), StandIn).serve_forever()
