"""`llm_secrets`: what the compiler knows of secrets, which is everything but their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalogue.sourcemap import Origin, Path
from modelyard.diagnostics import Diagnostic, did_you_mean
from modelyard.names import OWN_SECRETS, former
from modelyard.showing import NAMES_OF_SECRETS, VALUE, looks_secret

VARIABLE = "llm_secrets"

NAME = r"[A-Z][A-Z0-9_]*"
"""What the name of a secret looks like."""

MISTYPED = (
    "is a boolean, as YAML reads yes, no, on, off, true and false",
    "is a number, as YAML reads it",
    "is a date, as YAML reads it",
    "is a mapping",
    "is a list",
    "is not text",
)
"""What a value of llm_secrets may be by mistake."""


@dataclass(frozen=True, slots=True)
class SeenSecret:
    """What the compiler knows of a secret as some hosts see it: everything but its value.

    `number` stands for the value: secrets with one value have one number, and 0 is none. `where` is
    where it is defined, for people, `origin` the same with its line, if it has one. `fault` says
    why what is there cannot be used. `short`: too short for a client's key. `unsendable`: no HTTP
    header takes it.
    """

    number: int
    where: str = ""
    origin: Origin | None = None
    fault: str = ""
    short: bool = False
    unsendable: bool = False

    @property
    def is_there(self) -> bool:
        """Whether there is something, and be it useless."""
        return bool(self.number or self.fault)


def _holds_nothing(_text: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class SecretView:
    """The secrets that some hosts see, by name. `store` is where theirs are kept, and generated,
    `fault` what is wrong with it. `origin` is where their llm_secrets is, `holds` says whether a
    text is one of its values.
    """

    hosts: tuple[str, ...]
    store: str
    secrets: Mapping[str, SeenSecret]
    fault: str = ""
    origin: Origin | None = None
    holds: Callable[[str], bool] = field(default=_holds_nothing, repr=False, compare=False)


def check_variable(known: Iterable[str], views: Sequence[SecretView]) -> list[Diagnostic]:
    """Return what is wrong with llm_secrets itself: values of a wrong type, and names that nothing
    could use.

    `known` are the names of secrets in the catalogue, whether they are used today or not, and of
    those that belong to Modelyard. Where a value stands instead of a name, its own name is unused
    for that reason.
    """
    found: dict[str, Diagnostic] = {}
    names = {*known, *OWN_SECRETS}
    swapped = any(view.holds(name) for view in views for name in names)
    for view in views:
        for name, seen in view.secrets.items():
            if seen.where != VARIABLE or name in found:
                continue
            path = (VARIABLE, name)
            if seen.fault in MISTYPED:
                message = f"the value of {name} {seen.fault}"
                found[name] = Diagnostic(
                    "invalid-value",
                    "error",
                    message,
                    path,
                    seen.origin,
                    "put text there, in quotes",
                )
            elif name not in names and VALUE not in names:
                found[name] = _unused(name, names, seen.origin, swapped=swapped)
    return list(found.values())


def _unused(name: str, names: Iterable[str], origin: Origin | None, *, swapped: bool) -> Diagnostic:
    """Return the warning of a secret that nothing names. Its name may be a key, where somebody
    swapped the two: it is shown only if it looks like a name.
    """
    hint = did_you_mean(name, _present(names))
    path: Path = (VARIABLE, name)
    message = f"nothing in the catalogue names secret {name}"
    if swapped or (not hint and (not re.fullmatch(NAME, name) or looks_secret(name))):
        path = (VARIABLE,)
        message = "a name in llm_secrets (not shown) is not the name of a secret"
        hint = "write NAME: value, like OPENAI_API_KEY: sk-...; are name and value swapped?"
    hint = hint or "remove it, or correct the name"
    return Diagnostic("no-effect", "warning", message, path, origin, hint)


def nearest_secret(name: str, defined: Iterable[str]) -> str:
    """Return the hint for a secret that is not defined while one with a similar name is; else an
    empty string.
    """
    hint = did_you_mean(name, _present(defined))
    near = re.search(r'"([^"]*)"', hint)
    if near and not re.fullmatch(NAME, near[1]):
        return f'it is defined as "{near[1]}": rename that to {name}'
    return hint


def _present(names: Iterable[str]) -> list[str]:
    """Return names without those of former values: nobody means one of these."""
    return [name for name in names if not name.endswith(former(""))]


def set_to_nothing(views: Iterable[SecretView]) -> frozenset[str]:
    """Return the names of secrets that an llm_secrets has without a value."""
    return frozenset(
        name
        for view in views
        for name, seen in view.secrets.items()
        if seen.where == VARIABLE and not seen.is_there
    )


def hide_values(tree: object, views: Sequence[SecretView]) -> None:
    """Put `VALUE` in the place of every text in a tree of the catalogue that should be a secret's
    name and is a value of llm_secrets. The schema refuses it there.
    """
    for node in _nodes(tree):
        for key in NAMES_OF_SECRETS:
            text = node.get(key)
            if isinstance(text, str) and any(view.holds(text) for view in views):
                node[key] = VALUE


def _nodes(tree: object) -> Iterator[dict[Any, Any]]:
    """Yield every mapping in a tree."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list | tuple):
        for child in tree:
            yield from _nodes(child)


def names_of(tree: object) -> Iterator[str]:
    """Yield every text in a tree of the catalogue that is a secret's name by its key, however wrong
    the rest is.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key in NAMES_OF_SECRETS and isinstance(value, str):
                yield value
            else:
                yield from names_of(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from names_of(value)
