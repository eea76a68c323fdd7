"""A stand-in for a slot of the gateway, for this scenario alone. Usage: stand_in.py PORT NAME.

Readiness, and an echo of what arrived (so that a test sees what the front end let through). The
header `X-Do`, as JSON, makes it do something else, see `Slot.do_GET`.
"""

from __future__ import annotations

import collections
import http.server
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

PORT, NAME = int(sys.argv[1]), sys.argv[2]
PAUSE_S = 0.1
LEAVE_S = 20
"""How long a client that does not leave is waited for."""
GATEWAY_HEADERS = {
    "Server": "uvicorn",
    "x-litellm-call-id": "call-1",
    "x-litellm-model-api-base": "http://192.0.2.7:8000/v1",
    "x-litellm-model-id": "a/-/a",
    "x-litellm-version": "1",
    "llm_provider-server": "engine-7",
    "x-ratelimit-remaining-requests": "5",
    "retry-after": "7",
}
"""What answers of the gateway carry, some of it for nobody outside."""

tries: dict[str, list[str]] = collections.defaultdict(list)
"""The numbers of the requests that arrived, by the name that their test gave them."""
left: dict[str, float] = {}
"""Seconds after which the client of a request was seen to leave, by name."""


class Slot(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200: what is refused was refused by the front end."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Do what `X-Do` asks for: an object with some of these keys, or nothing.

        name: of the request, for `tries` and `left` in later echoes early: answer this status
        before the body is read, and close once no more of it comes late: answer after so many
        seconds drop: close this many tries without an answer; with `reset` by a reset, with `part`
        after part of an answer events, silence_s: stream so many events, pausing this long instead
        of 0.1 s before each but the first leave: "whole" answers nothing, "stream" one event, until
        the client is gone
        """
        do = json.loads(self.headers.get("x-do") or "{}")
        name = do.get("name", "")
        tries[name].append(self.headers.get("x-modelyard-request", ""))
        if "early" in do:
            self._whole(do["early"], {"early": True})
            # Closed with something unread, the connection would be reset, and the answer might be
            # lost.
            while select.select([self.connection], [], [], PAUSE_S)[0] and self.connection.recv(
                65536
            ):
                pass
            self.close_connection = True
            return
        body = self._body()
        time.sleep(do.get("late", 0))
        if len(tries[name]) <= do.get("drop", 0):
            self._drop(do)
        elif "leave" in do:
            self._wait_for_leaving(name, do["leave"])
        elif "events" in do:
            self._head("text/event-stream")
            for number in range(do["events"]):
                if number:
                    time.sleep(do.get("silence_s", PAUSE_S))
                self._event(number)
            self.wfile.write(b"0\r\n\r\n")
        else:
            names = {name.lower() for name in self.headers}
            headers = {name: ", ".join(self.headers.get_all(name, [])) for name in names}
            echo = {
                "slot": NAME,
                "method": self.command,
                "path": self.path,
                "headers": headers,
                "body": len(body),
            }
            self._whole(200, {**echo, "tries": tries[name], "left": left.get(name)})

    # As the gateway, it knows no HEAD.
    do_POST = do_OPTIONS = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _whole(self, status: int, what: dict[str, Any]) -> None:
        answer = json.dumps(what).encode()
        self.send_response_only(status)
        for name, value in GATEWAY_HEADERS.items():
            self.send_header(name, value)
        if "origin" in self.headers:
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Expose-Headers", "x-litellm-cache-key")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _head(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, number: int) -> None:
        event = f"data: {NAME} {number}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _drop(self, do: dict[str, Any]) -> None:
        if do.get("part"):
            self._head("text/event-stream")
            self._event(0)
            time.sleep(PAUSE_S)
        if do.get("reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Closed here: the server would shut it down first, which a process that was killed does
            # not.
            os.close(self.connection.detach())
        self.close_connection = True

    def _wait_for_leaving(self, name: str, kind: str) -> None:
        started = time.monotonic()
        if kind == "stream":
            self._head("text/event-stream")
            self._event(0)
        if select.select([self.connection], [], [], LEAVE_S)[0]:
            left[name] = time.monotonic() - started
        self.close_connection = True


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Slot).serve_forever()
