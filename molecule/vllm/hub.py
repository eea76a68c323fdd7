#!/usr/bin/env python3
"""A stand-in for Hugging Face: repositories are directories ROOT/OWNER/NAME/COMMIT.

It answers what `modelyard_model` asks: the list of a commit's files with their checksums, and the
files, big ones by a redirect to another host name as the real one does. Nothing here is Hugging
Face's.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import os
import re
import urllib.parse
from pathlib import Path
from typing import Any


class Hub(http.server.ThreadingHTTPServer):
    """Serves the repositories below `root`, to those who have the token if there is one."""

    def __init__(self, root: Path, port: int = 0, token: str = "") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root, self.token = root, token
        self.seen: list[
            tuple[str, str | None, str | None]
        ] = []  # path, token and range of every request

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client's hanging up is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.seen.append(
            (path, self.headers.get("Authorization"), self.headers.get("Range"))
        )
        if content := re.fullmatch(r"/content/(.+)", path):
            return self.send_file(self.server.root / content[1])
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.send_error(401, "Access to model is restricted")
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
            directory = self.server.root / listing[1] / listing[2]
            if directory.is_dir():
                return self.send_bytes(
                    json.dumps({"sha": listing[2], "siblings": self.siblings(directory)}).encode()
                )
        elif resolve := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            file = self.server.root / resolve[1] / resolve[2] / resolve[3]
            if file.suffix == ".safetensors":
                self.send_response(302)
                relative = urllib.parse.quote(str(file.relative_to(self.server.root)))
                self.send_header(
                    "Location", f"http://localhost:{self.server.server_port}/content/{relative}"
                )
                self.send_header("Content-Length", "0")
                return self.end_headers()
            return self.send_file(file)
        return self.send_error(404)

    def siblings(self, directory: Path) -> list[dict[str, Any]]:
        """Describe a commit's files; FILE.published holds other bytes that the checksum is made
        of."""
        described = []
        for file in sorted(
            path for path in directory.rglob("*") if path.is_file() and path.suffix != ".published"
        ):
            published = file.with_name(f"{file.name}.published")
            content = (published if published.exists() else file).read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {
                "rfilename": str(file.relative_to(directory)),
                "size": len(content),
                "blobId": blob,
            }
            if file.suffix == ".safetensors":
                entry["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                }
            described.append(entry)
        return described

    def send_file(self, file: Path) -> None:
        if not file.is_file():
            return self.send_error(404)
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        return self.send_bytes(file.read_bytes()[start:], 206 if start else 200)

    def send_bytes(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    """Serve until killed; $HUB_TOKEN is the token that one has to have."""
    parser = argparse.ArgumentParser(
        description="Serve the repositories below a directory as a hub of models does."
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    Hub(options.root, options.port, os.environ.get("HUB_TOKEN", "")).serve_forever()


if __name__ == "__main__":
    main()
