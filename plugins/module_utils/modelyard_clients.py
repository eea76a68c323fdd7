"""The file that says who may ask the gateway of a host.

The gateway reads it again whenever it has changed.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import json
import os
from typing import Any

PATH = "/var/lib/modelyard/litellm/clients.json"


def content(clients: dict[str, Any], hashes: dict[str, Any]) -> str:
    """Return the file's text for clients by name and the hashes of their keys."""
    entries = [
        {"name": name, "sha256": hashes[name], "models": client["models"], "rpm": client["rpm"]}
        for name, client in sorted(clients.items())
    ]
    return json.dumps({"version": 1, "clients": entries}, indent=1) + "\n"


def there() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the clients of this host and the hashes of their keys, both by name; none if the file
    is damaged.
    """
    try:
        with open(PATH, encoding="utf-8") as handle:
            entries = json.load(handle)["clients"]
        clients = {
            entry["name"]: {"models": entry["models"], "rpm": entry["rpm"]} for entry in entries
        }
        return clients, {entry["name"]: entry["sha256"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}


def describe(clients: dict[str, Any], hashes: dict[str, Any], former: dict[str, Any]) -> str:
    """Return one line for every client, for a diff.

    A hash is not shown: a key that is another one is said to be.
    """
    lines = []
    for name, client in sorted(clients.items()):
        models = "all models" if client["models"] is None else ", ".join(client["models"])
        rpm = "" if client["rpm"] is None else f"; {client['rpm']} requests a minute"
        key = "; key changed" if former.get(name, hashes[name]) != hashes[name] else ""
        lines.append(f"{name}: {models}{rpm}{key}\n")
    return "".join(lines)


def is_private(path: str, gid: int) -> bool:
    """Whether a file is root's, and readable only for root and one group."""
    status = os.stat(path)
    return (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, gid, 0o640)
