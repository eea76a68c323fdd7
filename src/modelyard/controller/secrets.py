"""Where the value of a secret comes from.

Not part of the compiler, which knows names of secrets only: this module reads the environment and
the disk, and writes what it generates.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from modelyard.catalogue.secrets import MISTYPED, NAME, VARIABLE, SecretView, SeenSecret
from modelyard.catalogue.sourcemap import Origin, Probe, SourceMap
from modelyard.names import SHORTEST_CLIENT_KEY, former


class SecretError(Exception):
    """A secret cannot be used; the text is for the user."""


ENVIRONMENT = "the environment"
"""Where a secret may be defined, beside the variable and its file."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a secret.

    `value` is None if it is not defined, or cannot be used: `fault` says why then. `where` is
    `VARIABLE`, `ENVIRONMENT`, or the path of its file. `empty`: where it is set to nothing, if it
    is defined nowhere.
    """

    value: str | None = None
    where: str = ""
    fault: str = ""
    empty: str = ""


def look(name: str, given: Mapping[str, Any], store: Path) -> Found:
    """Look for a secret in `given` (the variable llm_secrets), else in the environment, else in its
    file in `store`. White space around a value is none of it.

    A variable that is set to nothing counts as not set: `{{ lookup('env', 'KEY') }}` gives that
    where there is no KEY.
    """
    value = given.get(name)
    if value is not None and value != "":
        return _found(name, value, VARIABLE)
    if from_environment := os.environ.get(name):
        return _found(name, from_environment, ENVIRONMENT)
    kept = _kept(store / name)
    if kept is not None:
        return kept
    empty = VARIABLE if name in given else ENVIRONMENT if name in os.environ else ""
    return Found(empty=empty)


def _found(name: str, value: object, where: str) -> Found:
    if not isinstance(value, str):
        kinds: list[Any] = [bool, (int, float), date, Mapping, list, object]
        fits = [isinstance(value, kind) for kind in kinds]
        return Found(where=where, fault=MISTYPED[fits.index(True)])
    text = str.__str__(value).strip()
    fault = _fault(name, text)
    return Found(None if fault else text, where, fault)


def _fault(name: str, text: str) -> str:
    """Return why text cannot be a secret; empty if it can."""
    if not text:
        return "is blank"
    if re.search(r"[\r\n\u2028\u2029]", text):
        return "has several lines"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        return "has a control character"
    if re.search(r"[\ud800-\udfff]", text):
        return "is not UTF-8 text"
    if text.startswith(f"{name}="):
        return "begins with its own name: only the value belongs there"
    if re.fullmatch(r"""\$?(["']).*\1""", text):
        return "is in quotes, which would be part of it"
    return ""


def _kept(path: Path) -> Found | None:
    """Return what a secret's file says; None without one."""
    if not os.path.lexists(path):
        return None
    if path.is_dir():
        return Found(where=str(path), fault="is a directory")
    if path.exists() and not path.is_file():
        return Found(where=str(path), fault="is not a regular file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return Found(where=str(path), fault="is not UTF-8 text")
    except OSError as error:
        return Found(where=str(path), fault=f"cannot be read ({error.strerror})")
    return (
        _found(path.name, text, str(path))
        if text.strip()
        else Found(where=str(path), fault="is empty")
    )


def find(name: str, given: Mapping[str, Any], store: Path) -> str | None:
    """Return a secret as `look` finds it; None where it is not defined.

    Raises SecretError if what is there cannot be used.
    """
    found = look(name, given, store)
    if found.fault:
        hint = "correct it there"
        if found.where == str(store / name) and not (store / name).is_dir():
            hint = "delete the file, and a new one is generated"
        raise SecretError(f"secret {name} {found.fault}: {found.where}; {hint}")
    return found.value


def resolve(name: str, given: Mapping[str, Any], store: Path, *, write: bool) -> tuple[str, bool]:
    """Return the value of a secret and whether it was generated now. Raises SecretError if what is
    there cannot be used.

    Check mode writes nothing (`write=False`): a secret that would be generated is a different one
    each time, which reports the change that a real run would make.
    """
    value = find(name, given, store)
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


def survey(
    hosts: Mapping[str, tuple[Mapping[str, Any], Path]],
    probe: Probe,
    place: Callable[[str], str] = str,
) -> list[SecretView]:
    """Return what hosts see of the secrets, without their values: one view for all that see the
    same.

    `hosts` has the variable llm_secrets and the directory of files of each. `place` shortens the
    path of a file.
    """
    seeing: dict[tuple[int, Path], list[str]] = {}
    for host, (given, store) in hosts.items():
        seeing.setdefault((id(given), store), []).append(host)
    numbers: dict[str, int] = {}
    views: list[SecretView] = []
    for members in seeing.values():
        given, store = hosts[members[0]]
        source = SourceMap({VARIABLE: given}, probe)
        kept, fault = _names(store)
        secrets: dict[str, SeenSecret] = {}
        values: set[str] = set()
        for name in sorted({*map(str, given), *os.environ, *kept}):
            found = look(name, given, store)
            origin = None
            if VARIABLE in (found.where, found.empty):
                origin = source.origin((VARIABLE, name), key=True)
            elif found.where and found.where != ENVIRONMENT:
                origin = Origin(place(found.where))
            secrets[name] = _seen(found, origin, numbers)
            # Under what is no name stands, if the two were swapped, a name.
            if found.value and found.where == VARIABLE and re.fullmatch(NAME, name):
                values.add(found.value)
        origin = source.origin((VARIABLE,)) if given else None
        views.append(
            SecretView(
                tuple(members),
                place(str(store)),
                secrets,
                fault,
                origin,
                frozenset(values).__contains__,
            )
        )
    return views


def _seen(found: Found, origin: Origin | None, numbers: dict[str, int]) -> SeenSecret:
    value = found.value or ""
    return SeenSecret(
        number=numbers.setdefault(value, len(numbers) + 1) if value else 0,
        where=found.where or found.empty,
        origin=origin,
        fault=found.fault,
        short=0 < len(value) < SHORTEST_CLIENT_KEY,
        unsendable=re.search(r"[^\x21-\x7e]", value) is not None,
    )


def _names(store: Path) -> tuple[set[str], str]:
    """Return the names of the secrets kept in a directory, and what is wrong with it."""
    if not os.path.lexists(store):
        return set(), ""
    try:
        return {entry.name for entry in store.iterdir() if not entry.name.startswith(".")}, ""
    except OSError as error:
        return set(), f"cannot be read ({error.strerror})"


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
