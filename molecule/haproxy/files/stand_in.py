"""A stand-in for a slot of the gateway, for this scenario alone. Usage: stand_in.py PORT NAME.

Readiness, an echo of what arrived (so that a test sees what the door let through), and a stream of events.
"""

from __future__ import annotations

import http.server
import json
import sys
import time

PORT, NAME = int(sys.argv[1]), sys.argv[2]
PAUSE_S = 0.1


class Slot(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200: what is refused was refused by the door."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with an echo, or with a stream of `events` events if the body asks for that."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        events = int(json.loads(body).get("events", 0)) if body else 0
        if events:
            self._stream(events)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        echo = json.dumps({"slot": NAME, "path": self.path, "headers": headers}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(echo)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(echo)

    do_POST = do_HEAD = do_OPTIONS = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _stream(self, events: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(events):
            event = f"data: {NAME} {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            time.sleep(PAUSE_S)
        self.wfile.write(b"0\r\n\r\n")


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Slot).serve_forever()
