"""Whose key a request carries: the master's, a client's, or an unknown one.

The master key may do everything that the gateway serves, and so may the one before it while it is
rotated. A client's key may call the models that the client is given, by exactly their public names.
Clients are no part of a release: MODELYARD_CLIENTS names the file, which is read again as soon as
it has changed. So a key that was revoked stays so whichever release runs, and nothing is restarted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from modelyard_gateway.errors import Refusal
from modelyard_gateway.journal import say

SALT = b"modelyard client key\0"
"""The host holds SHA-256(SALT + key): LiteLLM shows a key's plain SHA-256 in places, and that is
nobody's business."""

KEY_HEADERS = (
    b"authorization",
    b"x-litellm-api-key",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"ocp-apim-subscription-key",
)
"""Where LiteLLM looks for a key. The guard takes them all away when it knows whose request it
is."""


class Client(NamedTuple):
    """An application. `models` None: all public names."""

    name: str
    sha256: str
    models: tuple[str, ...] | None
    rpm: int | None

    def allowed(self, names: Iterable[str]) -> list[str]:
        """Which of all public names it may ask for."""
        return [name for name in names if self.models is None or name in self.models]

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Client:
        """Read one entry of the file. Raises KeyError, TypeError or ValueError."""
        name, digest, models, rpm = entry["name"], entry["sha256"], entry["models"], entry["rpm"]
        if (
            not isinstance(name, str)
            or not isinstance(digest, str)
            or len(bytes.fromhex(digest)) != 32
        ):
            raise ValueError(f"no client: {name!r}")
        if models is not None and not (
            isinstance(models, list) and all(isinstance(model, str) for model in models)
        ):
            raise ValueError(f"models of {name}")
        if rpm is not None and not (isinstance(rpm, int) and rpm > 0):
            raise ValueError(f"rpm of {name}")
        return cls(name, digest, None if models is None else tuple(models), rpm)


class Clients:
    """The file of clients: as it is now, or as it was when it was last whole."""

    def __init__(self, path: str) -> None:
        self.path = path
        # Of the file that was read last; None: there was none.
        self.stamp: tuple[int, ...] | None = ()
        self.known: tuple[Client, ...] = ()

    def find(self, key: bytes) -> Client | None:
        """Return whose key this is. All are compared, each in constant time."""
        self.refresh()
        digest = hashlib.sha256(SALT + key).hexdigest()
        found = None
        for client in self.known:
            if hmac.compare_digest(client.sha256, digest):
                found = client
        return found

    def refresh(self) -> None:
        """Read the file if it is another one than last time."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            stamp = None
        if stamp == self.stamp:
            return
        self.stamp = stamp
        if stamp is None:
            self.known = ()
            say(f"{self.path} cannot be found: no client's key is accepted")
            return
        try:
            entries = json.loads(Path(self.path).read_text(encoding="utf-8"))["clients"]
            self.known = tuple(Client.read(entry) for entry in entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            kept = f"the {len(self.known)} clients of before are kept"
            say(f"{self.path} is damaged, {kept}: {type(error).__name__} {error}")
        else:
            say(f"{len(self.known)} clients")


MASTER = Client("", "", None, None)
"""Whoever holds the master key: no limits, and no name in the metrics."""


class Keys:
    """All keys that are accepted."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        names = ("LITELLM_MASTER_KEY", "LITELLM_MASTER_KEY_FORMER")
        self.masters = [os.environ[name].encode() for name in names if os.environ.get(name)]

    def owner(self, headers: Iterable[tuple[bytes, bytes]]) -> Client:
        """Return the client, by the headers.

        Raises Refusal: no or an unknown key 401, several 400.
        """
        sent = {
            key
            for name, value in headers
            if name in KEY_HEADERS
            for key in [bare(name, value)]
            if key
        }
        if len(sent) > 1:
            raise Refusal(400, "The request carries two different keys.")
        if not sent:
            raise Refusal(401, "No key was sent: Authorization: Bearer KEY.")
        (key,) = sent
        if any(hmac.compare_digest(key, master) for master in self.masters):
            return MASTER
        client = self.clients.find(key)
        if client is None:
            raise Refusal(401, "This key is not known.")
        return client


def bare(name: bytes, value: bytes) -> bytes:
    """The key in a header, without the word that stands before it."""
    scheme, _, rest = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    # A key alone is no value of Authorization.
    return b"" if name == b"authorization" else value.strip()
