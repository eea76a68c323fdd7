"""The new catalogue as it is being made, and its files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import yaml

from modelyard.catalogue import models, providers
from modelyard_importer.oldfiles import Node

WIDTH = 120

ROUTING = "group_vars/llm_stack/routing.yml"
"""The file with `llm_routing`, in the new inventory."""

ORDER = [*providers.Provider.model_fields, *models.Model.model_fields]
"""Keys stand in the order of the reference."""

Value = str | int | float | list[str] | dict[str, float]

_BLOCK = re.compile(r"[A-Za-z]([A-Za-z0-9_./:-]*[A-Za-z0-9_])?")
_FLOW = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_WORDS = frozenset("y n yes no on off true false null".split())


@dataclass(eq=False, slots=True)
class Model:
    """A model.

    `node` is the place of its name: a provider's list, or (not `listed`) `exact_matches`.
    """

    name: str
    node: Node
    listed: bool = True
    comment: str = ""
    keys: dict[str, Value] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        """True for embedding models, as far as the name tells."""
        return "embed" in self.name.lower()


@dataclass(eq=False, slots=True)
class Provider:
    """A provider that is taken over. `disabled` says why it is; empty if it is active."""

    old_name: str
    name: str
    node: Node
    kind: str
    disabled: str
    comments: list[str] = field(default_factory=list)
    keys: dict[str, Value] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Its path in the catalogue."""
        return f"llm_providers.{self.name}"


@dataclass(slots=True)
class Commented:
    """The steps of a chain or capability, or the target of an alias, with its comment."""

    names: list[str]
    comment: str = ""


@dataclass(slots=True)
class Routing:
    """`llm_routing`. A chain without steps is terminal. The default chain is only proposed."""

    fallbacks: dict[str, Commented] = field(default_factory=dict)
    default_fallbacks: Commented = field(default_factory=lambda: Commented([]))
    aliases: dict[str, str] = field(default_factory=dict)
    capabilities: dict[str, Commented] = field(default_factory=dict)


def write_providers(providers: Iterable[Provider], modeline: str) -> str:
    """Return the file with `llm_providers`."""
    lines = [
        *_head(modeline),
        (
            "# Providers and their models. Imported from providers.yaml and model-mappings.yaml;"
            " the report says"
        ),
        (
            "# what became of each value. It replaces the shipped providers"
            " (group_vars/all/providers.yml)."
        ),
        "# A base_url with localhost is the gateway's own machine.",
    ]
    body: list[str] = []
    for provider in providers:
        body += ["", *(line for comment in provider.comments for line in _comment(comment, 2))]
        body += [f"  {text(provider.name)}:", *_keys(provider.keys, 4), "    models:"]
        for model in provider.models.values():
            body += _comment(model.comment, 6)
            body += [f"      - name: {text(model.name)}", *_keys(model.keys, 8)]
    return "\n".join([*lines, "llm_providers:" if body else "llm_providers: {}", *body, ""])


def write_routing(routing: Routing, modeline: str) -> str:
    """Return the file with `llm_routing`."""
    lines = [
        *_head(modeline),
        (
            "# Fallbacks, aliases and capabilities. Imported from model-mappings.yaml; "
            "IMPORT-REPORT.md says what became of each line."
        ),
        "# It replaces the shipped routing (group_vars/all/routing.yml).",
        "llm_routing:",
        "",
        *_section("fallbacks", routing.fallbacks),
        "",
        *_proposed(routing),
        "  aliases:" if routing.aliases else "  aliases: {}",
        *(f"    {text(alias)}: {text(target)}" for alias, target in routing.aliases.items()),
        "",
        *_section("capabilities", routing.capabilities),
    ]
    return "\n".join([*lines, ""])


def write_default(routing: Routing) -> str:
    """Return the line with the default chain."""
    return f"default_fallbacks: {_flow(routing.default_fallbacks.names)}"


def _proposed(routing: Routing) -> list[str]:
    if not routing.default_fallbacks.names:
        return []
    return [
        *_comment(
            "fallback_chains.default, which the old gateway never read. The chain of every model"
            " without an entry above:",
            2,
        ),
        *_comment(routing.default_fallbacks.comment, 2),
        f"  # {write_default(routing)}",
        "",
    ]


def _head(modeline: str) -> list[str]:
    return ["---", *([f"# yaml-language-server: $schema={modeline}"] if modeline else [])]


def _section(name: str, entries: Mapping[str, Commented]) -> list[str]:
    key = "chain" if name == "fallbacks" else "models"
    lines = [f"  {name}:" if entries else f"  {name}: {{}}"]
    for head, entry in entries.items():
        lines += _comment(entry.comment, 4)
        flow = f"{{{key}: {_flow(entry.names)}}}" if entry.names else "{terminal: true}"
        line = f"    {text(head)}: {flow}"
        lines += (
            [line] if len(line) <= WIDTH else [f"    {text(head)}:", *_names(key, entry.names, 6)]
        )
    return lines


def _names(key: str, names: list[str], indent: int) -> list[str]:
    line = f"{' ' * indent}{key}: {_flow(names)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{' ' * indent}{key}:", *(f"{' ' * indent}  - {text(name)}" for name in names)]


def _keys(keys: Mapping[str, Value], indent: int) -> list[str]:
    lines: list[str] = []
    for key in sorted(keys, key=ORDER.index):
        value = keys[key]
        if isinstance(value, list):
            lines += _names(key, value, indent)
        elif isinstance(value, dict):
            pairs = ", ".join(f"{name}: {_number(number)}" for name, number in value.items())
            lines.append(f"{' ' * indent}{key}: {{{pairs}}}")
        else:
            lines.append(f"{' ' * indent}{key}: {text(value) if isinstance(value, str) else value}")
    return lines


def _number(value: float) -> str:
    """Without an exponent, which YAML would read as text (`1e-07`)."""
    return str(int(value)) if value == int(value) else f"{Decimal(repr(value)):f}"


def _flow(names: Iterable[str]) -> str:
    return f"[{', '.join(text(name, _FLOW) for name in names)}]"


def text(value: str, plain: re.Pattern[str] = _BLOCK) -> str:
    """Write a string as YAML, quoted where it would be read as something else."""
    if plain.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return str(
        yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    ).rstrip("\n")


def _comment(words: str, indent: int) -> list[str]:
    printable = "".join(letter if letter.isprintable() else " " for letter in words)
    prefix = " " * indent + "# "
    return textwrap.wrap(
        printable, WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False
    )
