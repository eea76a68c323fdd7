"""A pull by Ollama, over as many attempts as it takes, and the space it needs.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import time
from typing import Any, Callable

from ansible.module_utils.modelyard_download import RetryableError, gib
from ansible.module_utils.modelyard_ollama_server import OllamaError, Server

PROGRESS_EVERY_S = 10.0
# What the server says when another attempt cannot help.
FINAL = (
    "file does not exist",
    "no space left",
    "unauthorized",
    "denied",
    "insecure protocol",
    "newer version",
    "invalid",
)


class Space:
    """The disk on which the models lie."""

    def __init__(
        self, path: str, margin_mib: int, free_bytes: Callable[[str], int] | None = None
    ) -> None:
        self.path, self.margin = path, margin_mib << 20
        self.free_bytes = free_bytes or (lambda directory: shutil.disk_usage(directory).free)

    def here(self, digest: str) -> int:
        """Return how many bytes of a layer are on the disk already; a partial file has holes."""
        blob = os.path.join(self.path, "blobs", digest.replace(":", "-"))
        for file in (blob, f"{blob}-partial"):
            if os.path.exists(file):
                return os.stat(file).st_blocks * 512
        return 0

    def require(self, name: str, size: int) -> None:
        """Raise OllamaError if `size` bytes and the margin do not fit."""
        free = self.free_bytes(self.path) if os.path.isdir(self.path) else size + self.margin
        if free < size + self.margin:
            raise OllamaError(
                f"not enough space for {name} in {self.path}: {gib(size)} are still to be "
                f"fetched and {gib(self.margin)} must stay free, but only {gib(free)} are free. "
                "Free some space, or put it elsewhere (models_path)"
            )


class Pull:
    """One model that the server pulls, over as many attempts as it takes."""

    def __init__(
        self,
        server: Server,
        name: str,
        options: dict[str, Any],
        log: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server, self.name, self.options, self.log, self.sleep = (
            server,
            name,
            options,
            log,
            sleep,
        )
        self.layers: dict[str, tuple[int, int]] = {}

    def arrived(self) -> tuple[int, int]:
        """Return how many bytes are there, and how many there will be, as far as the server
        said.
        """
        return sum(done for done, _ in self.layers.values()), sum(
            total for _, total in self.layers.values()
        )

    def run(self) -> None:
        """Pull. Raises OllamaError."""
        failures, before, reason = 0, 0, ""
        while True:
            try:
                return self._attempt()
            except RetryableError as error:
                # An attempt that meets the end of the one before it says no more than that.
                reason = (
                    str(error) if "context canceled" not in str(error) else reason or str(error)
                )
                done, total = self.arrived()
                failures = failures + 1 if done <= before else 0
                before = max(before, done)
                if failures >= self.options["attempts"]:
                    kept = (
                        f"{gib(done)} of {gib(total)} are kept in the model store; "
                        if total
                        else ""
                    )
                    raise OllamaError(
                        f"{self.name} could not be pulled: {reason}. {kept}run again to continue"
                    ) from error
                self.log(f"{self.name}: {reason}, retrying")
                self.sleep(min(2.0**failures, 30.0))

    def _attempt(self) -> None:
        shown = moved = time.monotonic()
        body = {"model": self.name, "insecure": self.options["insecure"]}
        event: dict[str, Any] = {}
        try:
            # Closed at once when an attempt ends: that is how the server learns that it has to stop
            # and note its place.
            with contextlib.closing(self.server.events("/api/pull", body)) as events:
                for event in events:
                    if "error" in event:
                        self._failed(str(event["error"]))
                    now, before = time.monotonic(), self.arrived()[0]
                    if event.get("digest"):
                        self.layers[event["digest"]] = (
                            event.get("completed", 0),
                            event.get("total", 0),
                        )
                    done, total = self.arrived()
                    if done > before or not event.get("digest"):
                        moved = now
                    if now - moved > self.options["stall_s"]:
                        raise RetryableError(f"no data for {self.options['stall_s']} s")
                    if now - shown >= PROGRESS_EVERY_S:
                        shown = now
                        self.log(f"{self.name}: {event.get('status')}: {gib(done)} of {gib(total)}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RetryableError(
                f"the connection to Ollama failed ({error or type(error).__name__})"
            ) from error
        if event.get("status") != "success":
            raise RetryableError("Ollama ended the pull without an error message")

    def _failed(self, reason: str) -> None:
        if "file does not exist" in reason:
            raise OllamaError(
                f"{self.name} could not be pulled: the registry does not have it. Correct its name"
                " or tag"
            )
        if any(part in reason.lower() for part in FINAL):
            raise OllamaError(f"{self.name} could not be pulled: {reason}")
        raise RetryableError(reason)
