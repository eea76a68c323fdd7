"""Resolve the keys of clients on the controller and hash them there (see the module's
documentation).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail

from modelyard.controller.secrets import SecretError, find, resolve
from modelyard.names import SHORTEST_CLIENT_KEY
from modelyard_ansible.action import Action

SALT = b"modelyard client key\0"
"""The same as in roles/litellm/files/modelyard_gateway/clients.py."""


class ActionModule(Action):
    """Gives the module hashes: no host ever sees a client's key."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result, and which secrets were generated.

        Raises AnsibleActionFail.
        """
        given, store = self._secrets(variables)
        arguments = self._task.args
        clients = {str(name): dict(client) for name, client in arguments["clients"].items()}
        try:
            taken = {
                value: name
                for name in arguments.get("others", ())
                if (value := find(str(name), given, store))
            }
            hashes, generated = keys(clients, taken, given, store, write=self._writes)
        except SecretError as error:
            raise AnsibleActionFail(str(error)) from error
        known = {
            name: {key: client.get(key) for key in ("models", "rpm")}
            for name, client in clients.items()
        }
        result = self._module(
            variables, {"user": arguments["user"], "clients": known, "hashes": hashes}
        )
        return {**result, "generated": generated}


def keys(
    clients: Mapping[str, Mapping[str, Any]],
    taken: Mapping[str, str],
    given: Mapping[str, Any],
    store: Path,
    *,
    write: bool,
) -> tuple[dict[str, str], list[str]]:
    """Return the hash of every client's key, and the names of the secrets that were generated now.

    `taken` are values that are no client's, with the names of their secrets. Raises SecretError.
    """
    hashes: dict[str, str] = {}
    generated: list[str] = []
    owners = dict(taken)
    for name, client in clients.items():
        secret = str(client["secret"])
        value, fresh = resolve(secret, given, store, write=write)
        if len(value) < SHORTEST_CLIENT_KEY:
            raise SecretError(
                f"{secret}, the key of client {name}, has fewer than {SHORTEST_CLIENT_KEY} "
                "characters: hosts store its hash, from which a short key could be guessed; "
                "delete it where it is defined, and one is generated"
            )
        owner = owners.setdefault(value, f"that of client {name}")
        if owner != f"that of client {name}":
            raise SecretError(
                f"{secret}, the key of client {name}, is also {owner}: each needs one of its own"
            )
        hashes[name] = hashlib.sha256(SALT + value.encode()).hexdigest()
        if fresh:
            generated.append(secret)
    return hashes, generated
