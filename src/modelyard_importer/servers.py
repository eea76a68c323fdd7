"""Who serves which name: the providers of `providers.yaml` with their models."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelyard.catalogue.providers import PROVIDER_TYPES
from modelyard.compiler.chain_checks import RESERVED
from modelyard.diagnostics import did_you_mean
from modelyard.kinds import Identifier, Name
from modelyard_importer.address import Address, convert
from modelyard_importer.catalogue import Model, Provider
from modelyard_importer.oldfiles import Node
from modelyard_importer.providers import NOT_ACTIVE, finish_provider
from modelyard_importer.report import Outcome, Report
from modelyard_importer.values import fits, text_of

UNSUPPORTED = Outcome.UNSUPPORTED

NO_MODELS = {
    "tool_server": "a tool_server has no models; it keeps running unchanged",
    "web_ui": "a web_ui is a client; give it the gateway's address and key",
}
"""Types of the old files that no gateway calls."""


class Servers:
    """Who serves which name. `providers` are by their old name, `aliases` point at models."""

    def __init__(self, old: Node, report: Report) -> None:
        self.old = old
        self.report = report
        self.providers: dict[str, Provider] = {}
        self.aliases: dict[str, str] = {}
        self.gone: dict[str, str] = {}
        """Names of the old files that are not in the catalogue, with the reason."""
        self.renamed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        """Providers that are not taken over, with the reason."""
        self._addresses: dict[str, Address] = {}

    def read(self) -> None:
        """Take over the providers of `providers.yaml` whose type a gateway can call."""
        for name, node in entries(self.old, "providers", self.report):
            self._read_provider(name, node)

    def finish(self) -> None:
        """Set the keys of the providers. One that no file gives a model is left out."""
        for provider in list(self.providers.values()):
            if provider.models:
                finish_provider(provider, self._addresses[provider.old_name], self.report)
            else:
                reason = (
                    "it has no models, so the old gateway never knew it; list them in"
                    " providers.yaml"
                )
                self._leave_out(provider.old_name, provider.node, reason)

    @property
    def active(self) -> dict[str, list[Provider]]:
        """By name of a model: the active providers that serve it."""
        found: dict[str, list[Provider]] = {}
        for provider in self.providers.values():
            if not provider.disabled:
                for name in provider.models:
                    found.setdefault(name, []).append(provider)
        return found

    def disabled(self, name: str) -> str:
        """Return the disabled provider that lists a model; empty if none does."""
        return next(
            (p.name for p in self.providers.values() if p.disabled and name in p.models), ""
        )

    def serving(self, name: str) -> list[Provider]:
        """Return the providers that list a model, disabled ones too."""
        return [provider for provider in self.providers.values() if name in provider.models]

    def public_name(self, text: str) -> tuple[str, str]:
        """Return a name like `text` that clients can ask for, or the reason why there is none."""
        name = text if not fits(Name, text) else re.sub(r"[^\w.:/+@-]+", "-", text).strip("-")
        if problem := fits(Name, name):
            return "", problem
        if name in RESERVED:
            return "", f'"{name}" is a reserved word of the gateway'
        if name in self.aliases or self.serving(name):
            return "", f'another model, alias or capability is called "{name}"'
        return name, ""

    def _read_provider(self, old_name: str, node: Node) -> None:
        kind, known = text_of(node.get("type")), PROVIDER_TYPES
        if kind not in known:
            reason = NO_MODELS.get(kind) or (
                f"its type is not one of {', '.join(known)}; {did_you_mean(kind, known)}".rstrip(
                    "; "
                )
            )
            self._leave_out(old_name, node, reason)
            return
        address = convert(text_of(node.get("base_url")), kind)
        status = text_of(node.get("status")) or "active"
        disabled = address.unusable
        if status != "active":
            disabled = NOT_ACTIVE.get(status, "its status is unknown")
        provider = Provider(old_name, self._provider_name(old_name), node, address.kind, disabled)
        provider.comments = [text_of(node.get("description"))]
        if disabled and status != "disabled":
            provider.comments.append(f"Disabled: {disabled}.")
        self._addresses[old_name] = address
        self.providers[old_name] = provider
        models = node.get("models")
        for entry in models.sequence if models else ():
            self._read_model(provider, entry)

    def _provider_name(self, old_name: str) -> str:
        if not fits(Identifier, old_name):
            return old_name
        name = re.sub(r"[^a-z0-9_-]+", "_", old_name.lower()).strip("_-")
        name = name if re.match(r"[a-z]", name) else f"provider_{name}".rstrip("_")
        # A name that stands in the old file as it is belongs to that provider.
        taken = {provider.name for provider in self.providers.values()} | self.old.mapping[
            "providers"
        ].mapping.keys()
        candidates = (
            name if number == 1 else f"{name}_{number}" for number in range(1, len(taken) + 2)
        )
        return next(candidate for candidate in candidates if candidate not in taken)

    def _leave_out(self, name: str, node: Node, reason: str) -> None:
        self.providers.pop(name, None)
        self.left_out[name] = reason
        models = node.get("models")
        for entry in models.sequence if models else ():
            self.gone.setdefault(
                text_of(entry.get("name") or entry), f'provider "{name}" is left out'
            )
        urgent = (
            text_of(node.get("status")) in ("", "active")
            and text_of(node.get("type")) not in NO_MODELS
        )
        self.report.claim(node, UNSUPPORTED, f"the provider is left out: {reason}", urgent=urgent)

    def _read_model(self, provider: Provider, entry: Node) -> None:
        name = text_of(entry.get("name") if entry.entries is not None else entry)
        if problem := fits(Name, name):
            self.gone.setdefault(name, f"its name cannot be used: {problem}")
            self.report.claim(entry, UNSUPPORTED, f"the model is left out: {problem}", urgent=True)
        elif name in provider.models:
            line = provider.models[name].node.line
            self.report.claim(
                entry, UNSUPPORTED, f"left out: duplicate model, first in line {line}"
            )
        else:
            provider.models[name] = Model(name, entry, comment=text_of(entry.get("description")))


def entries(root: Node, section: str, report: Report) -> Iterator[tuple[str, Node]]:
    """Yield the entries of a section that are mappings; report the others."""
    node = root.get(section)
    for key, entry in (node.mapping if node else {}).items():
        if entry.entries is not None:
            yield key, entry
        else:
            report.claim(entry, UNSUPPORTED, "this must be a mapping", urgent=True)
