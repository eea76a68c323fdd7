"""Where the value of a secret comes from.

Not part of the compiler, which knows names of secrets only: this module reads the environment and
the disk, and writes what it generates.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.names import former


class SecretError(Exception):
    """A secret cannot be used; the text is for the user."""


def find(name: str, given: Mapping[str, Any], store: Path) -> str | None:
    """Return a secret from `given` (the variable llm_secrets), else the environment, else its file
    in `store`.

    None where it is not defined; an empty text if its file is empty.
    """
    value = given.get(name) or os.environ.get(name)
    if value:
        return str(value)
    path = store / name
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def resolve(name: str, given: Mapping[str, Any], store: Path, *, write: bool) -> tuple[str, bool]:
    """Return the value of a secret and whether it was generated now. Raises SecretError if it is
    empty.

    Check mode writes nothing (`write=False`): a secret that would be generated is a different one
    each time, which reports the change that a real run would make.
    """
    value = find(name, given, store)
    if value == "":
        raise SecretError(
            f"secret {name} is empty: {store / name}; delete the file, and a new one is generated"
        )
    if value is not None:
        return value, False
    value = _fresh()
    if not write:
        return value, True
    with _locked(store):  # two hosts that need the same secret must get the same one
        path = store / name
        if path.is_file():
            return path.read_text(encoding="utf-8").strip(), False
        _write(path, value)
    return value, True


def is_given(name: str, given: Mapping[str, Any]) -> bool:
    """Return whether the user says what a secret is, in `given` (the variable llm_secrets) or the
    environment.
    """
    return bool(given.get(name) or os.environ.get(name))


def begin_rotation(name: str, given: Mapping[str, Any], store: Path, *, write: bool) -> bool:
    """Give a secret a new value, and keep the one it had under its former name. Returns whether
    anything changes.

    Where that was begun already nothing changes: an interrupted rotation continues with the same
    value. Raises SecretError if the secret is none of ours to generate, and the user has not done
    the same by hand.
    """
    old = former(name)
    if is_given(name, given):
        if find(old, given, store):
            return False
        raise SecretError(
            f"{name} is defined in llm_secrets or the environment: put the new value there and "
            f"the present one under {old}, then run this again"
        )
    value = find(name, given, store)
    if not value:
        raise SecretError(f"{name} does not exist yet; site.yml generates it")
    if find(old, given, store) not in (None, value):
        return False
    if write:
        with _locked(store):
            _write(store / old, value)
            _write(store / name, _fresh())
    return True


def end_rotation(
    name: str, given: Mapping[str, Any], store: Path, *, back: bool = False, write: bool
) -> bool:
    """Forget the former value of a secret, or put it back. Returns whether anything changes.

    Raises SecretError if the former value is the user's to remove, or to put back.
    """
    old = former(name)
    if is_given(old, given):
        raise SecretError(
            f"{old} is defined in llm_secrets or the environment: "
            + (f"put it back under {name}" if back else "delete it there, then run site.yml")
        )
    if not (store / old).is_file():
        return False
    if write:
        with _locked(store):
            if back:
                (store / old).rename(store / name)
            else:
                (store / old).unlink()
    return True


def _fresh() -> str:
    """Return a new value. The gateway wants its master key to start with `sk-`; the others do not
    mind.
    """
    return f"sk-{secrets.token_urlsafe(32)}"


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(store / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, value: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode=0o600)
    temporary.write_text(f"{value}\n", encoding="utf-8")
    temporary.rename(path)
