"""`llm_secrets`: what the compiler knows of secrets, which is everything but their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelyard.catalogue.sourcemap import Origin
from modelyard.diagnostics import Diagnostic, did_you_mean
from modelyard.names import OWN_SECRETS
from modelyard.showing import NAMES_OF_SECRETS

VARIABLE = "llm_secrets"

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


@dataclass(frozen=True, slots=True)
class SecretView:
    """The secrets that some hosts see, by name. `store` is where theirs are kept, and generated,
    `fault` what is wrong with it.
    """

    hosts: tuple[str, ...]
    store: str
    secrets: Mapping[str, SeenSecret]
    fault: str = ""


def check_variable(known: Iterable[str], views: Sequence[SecretView]) -> list[Diagnostic]:
    """Return what is wrong with llm_secrets itself: values of a wrong type, and names that nothing
    could use.

    `known` are the names of secrets in the catalogue, whether they are used today or not, and of
    those that belong to Modelyard.
    """
    found: dict[str, Diagnostic] = {}
    names = {*known, *OWN_SECRETS}
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
            elif name not in names:
                hint = did_you_mean(name, names) or "remove it, or correct the name"
                message = f"nothing in the catalogue names secret {name}"
                found[name] = Diagnostic("no-effect", "warning", message, path, seen.origin, hint)
    return list(found.values())


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
