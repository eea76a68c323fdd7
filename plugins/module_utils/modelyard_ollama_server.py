"""The HTTP interface of a running Ollama, and the names of its models.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.parse
from typing import Any, Generator

OWN_REGISTRY = "registry.ollama.ai"
TIMEOUT_S = 60.0
# The server says nothing while it verifies or copies a model, which takes minutes for a large one.
SILENCE_S = 3600.0


class OllamaError(Exception):
    """The server or its registry refused; the text says what, where, why and the likely fix."""


def display_name(name: str) -> str:
    """Return a model's name as the server lists it: with its tag, without the registry and
    namespace it assumes.
    """
    for assumed in (f"{OWN_REGISTRY}/", "library/"):
        if name.startswith(assumed):
            name = name[len(assumed) :]
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def key(name: str) -> str:
    """Return what two names of one model have in common: the server tells them apart by no upper
    case.
    """
    return display_name(name).lower()


def remote_name(name: str, registry: str | None) -> str:
    """Return the name to pull by. One that names its own registry keeps it."""
    if registry is None or name.count("/") > 1:
        return name
    return f"{registry}/{name if '/' in name else f'library/{name}'}"


def manifest_url(name: str, insecure: bool) -> str:
    """Return where the registry tells what a model consists of."""
    path, _, tag = display_name(name).rpartition(":")
    parts = path.split("/")
    host = parts[0] if len(parts) > 2 else OWN_REGISTRY
    repository = "/".join(parts[-2:]) if len(parts) > 1 else f"library/{path}"
    return f"{'http' if insecure else 'https'}://{host}/v2/{repository}/manifests/{tag}"


class Server:
    """The HTTP interface of a running Ollama."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.url, self.host, self.port = url, parts.hostname or "", parts.port

    def _request(
        self, method: str, path: str, body: Any, headers: dict[str, str], timeout: float
    ) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        connection.request(method, path, body, {"User-Agent": "modelyard", **headers})
        return connection, connection.getresponse()

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = TIMEOUT_S
    ) -> tuple[int, dict[str, Any]]:
        """Send a request; returns the status and the answer. Raises OSError or HTTPException."""
        payload = json.dumps(body).encode() if body is not None else None
        connection, response = self._request(
            method, path, payload, {"Content-Type": "application/json"}, timeout
        )
        try:
            text = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, {"error": text.decode("utf-8", "replace").strip()}

    def must(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request that has to succeed. Raises OllamaError."""
        status, answer = self.call(method, path, body, SILENCE_S)
        if status >= 300:
            raise OllamaError(f"{method} {self.url}{path} answered {status}: {answer.get('error')}")
        return answer

    def events(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Send a request and yield the lines of its answer as they come; one with `error` is the
        last.
        """
        payload = json.dumps(body).encode()
        connection, response = self._request(
            "POST", path, payload, {"Content-Type": "application/json"}, SILENCE_S
        )
        try:
            while line := response.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def send_file(self, path: str, digest: str) -> None:
        """Give the server a file's content under its digest. Raises OllamaError."""
        headers = {"Content-Length": str(os.path.getsize(path))}
        with open(path, "rb") as handle:
            connection, response = self._request(
                "POST", f"/api/blobs/{digest}", handle, headers, SILENCE_S
            )
            try:
                if response.status >= 300:
                    raise OllamaError(
                        f"Ollama rejected {path}:"
                        f" {response.read().decode('utf-8', 'replace').strip()}"
                    )
            finally:
                connection.close()

    def models(self) -> dict[str, dict[str, Any]]:
        """Return {key: {name, digest}} of every model there is. Raises OllamaError."""
        entries = self.must("GET", "/api/tags")["models"]
        return {
            key(entry["name"]): {"name": entry["name"], "digest": entry["digest"]}
            for entry in entries
        }
