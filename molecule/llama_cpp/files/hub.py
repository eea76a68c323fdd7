"""A stand-in for a hub of models, on port 8900 of every loopback address.

It answers `/OWNER/NAME/resolve/COMMIT/FILE` as Hugging Face does: with a redirect to another host
and a header that says the checksum. Everything else is a file below /srv/hub. It notes who asked
for what in /srv/hub.log.
"""

from __future__ import annotations

import hashlib
import http.server
import json
from pathlib import Path

FILES, LOG = Path("/srv/hub"), Path("/srv/hub.log")


class Hub(http.server.BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Note the request and answer it."""
        noted = {
            "method": self.command,
            "host": self.headers.get("Host"),
            "path": self.path,
            "token": self.headers.get("Authorization"),
        }
        with LOG.open("a", encoding="utf-8") as log:
            print(json.dumps(noted), file=log)
        file = FILES / Path(self.path).name
        if not file.is_file():
            return self.send_error(404)
        body = file.read_bytes()
        if "/resolve/" in self.path:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.2:8900/{file.name}")
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            body = b""
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    do_GET = do_HEAD = answer  # noqa: N815 (the names are http.server's)


http.server.ThreadingHTTPServer(("0.0.0.0", 8900), Hub).serve_forever()
