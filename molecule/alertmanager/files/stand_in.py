"""Stand-ins for a chat's webhook and for a mail server. Each message that they accept becomes a
file for the tests.

Both know the SHA-256 of their secret only, so that it is in no file and no argument of theirs.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

TOKEN, PASSWORD = sys.argv[1:]
WHERE = Path("/var/lib/stand-in")


def is_secret(given: str, digest: str) -> bool:
    return hashlib.sha256(given.encode()).hexdigest() == digest


def keep(kind: str, text: str) -> None:
    unfinished = WHERE / uuid.uuid4().hex
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(WHERE / f"{kind}-{unfinished.name}")


class Chat(BaseHTTPRequestHandler):
    """Takes a message from those who know the token."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        known = is_secret(self.headers.get("Authorization", "").removeprefix("Bearer "), TOKEN)
        if known:
            keep("chat", body)
        self.send_response(200 if known else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Mail(StreamRequestHandler):
    """As much of SMTP as a client of a submission server uses: STARTTLS, then AUTH PLAIN, then a
    message."""

    def handle(self) -> None:
        secure = trusted = False
        self.say("220 stand-in")
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            if verb == "EHLO":
                self.say("250-stand-in", "250 AUTH PLAIN" if secure else "250 STARTTLS")
            elif verb == "STARTTLS":
                self.say("220 go on")
                self.connection = TLS.wrap_socket(self.connection, server_side=True)
                self.setup_streams()
                secure = True
            elif verb == "AUTH" and secure:
                user, password = (
                    base64.b64decode(rest.removeprefix("PLAIN ")).decode().split("\0")[1:]
                )
                trusted = user == "modelyard" and is_secret(password, PASSWORD)
                self.say("235 welcome" if trusted else "535 no")
            elif verb in ("MAIL", "RCPT"):
                self.say("250 fine" if trusted else "530 who are you?")
            elif verb == "DATA" and trusted:
                self.say("354 go on")
                message = b"".join(iter(self.rfile.readline, b".\r\n"))
                keep("mail", message.decode())
                self.say("250 kept")
            else:
                self.say("221 bye" if verb == "QUIT" else "500 what?")

    def setup_streams(self) -> None:
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
TLS.load_cert_chain(WHERE / "certificate.pem", WHERE / "key.pem")
ThreadingTCPServer.allow_reuse_address = True
threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", 8901), Chat).serve_forever).start()
ThreadingTCPServer(("127.0.0.1", 8902), Mail).serve_forever()
