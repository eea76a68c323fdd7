"""Where the value of a secret comes from.

Not part of the compiler, which knows names of secrets only: this module reads the environment and the disk, and writes
what it generates.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class SecretError(Exception):
    """A secret cannot be used; the text is for the user."""


def find(name: str, given: Mapping[str, Any], store: Path) -> str | None:
    """Return a secret from `given` (the variable llm_secrets), else the environment, else its file in `store`.

    None where nobody defined it; an empty text if its file is empty.
    """
    value = given.get(name) or os.environ.get(name)
    if value:
        return str(value)
    path = store / name
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def resolve(name: str, given: Mapping[str, Any], store: Path, *, write: bool) -> tuple[str, bool]:
    """Return the value of a secret and whether it was generated now. Raises SecretError if it is empty.

    Check mode writes nothing (`write=False`): a secret that would be generated is a different one each time, which
    reports the change that a real run would make.
    """
    value = find(name, given, store)
    if value == "":
        raise SecretError(f"the secret {name} is empty: {store / name}; delete the file to have a new one generated")
    if value is not None:
        return value, False
    # The gateway wants its master key to start with `sk-`; the others do not mind.
    value = f"sk-{secrets.token_urlsafe(32)}"
    if not write:
        return value, True
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(store / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two hosts that need the same secret must get the same one
        path = store / name
        if path.is_file():
            return path.read_text(encoding="utf-8").strip(), False
        temporary = store / f".{name}.new"
        temporary.touch(mode=0o600)
        temporary.write_text(f"{value}\n", encoding="utf-8")
        temporary.rename(path)
    return value, True
