"""Mistakes in the routing as it is written: unknown names, chains that lead nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterable

from modelyard.catalogue.overrides import as_override
from modelyard.catalogue.routing import Chain
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.chains import SECTIONS, Chains, Section
from modelyard.compiler.clients import no_name
from modelyard.compiler.resolve import Resolved
from modelyard.compiler.vectors import SAY_SO, strangers
from modelyard.diagnostics import Report, did_you_mean, listing
from modelyard.names import GATEWAY_WORDS

RESERVED = GATEWAY_WORDS | {"default"}
"""Names the gateway uses for itself."""


class ChainChecks:
    """Checks of aliases, capabilities and chains. What they find goes into `report`."""

    def __init__(self, chains: Chains, resolved: Resolved, report: Report) -> None:
        self.chains = chains
        self.catalogue = chains.catalogue
        self.routing, self.models = chains.routing, chains.models
        self.declared, self.names = chains.declared, chains.names
        self.resolved = resolved
        self.report = report

    def check(self) -> None:
        """Check all of it.

        Models may fall back to each other: flat chains have every model once, so a circle ends
        where it began.
        """
        self.check_names()

    def add(
        self, code: str, message: str, path: Path, hint: str = "", *, key: bool = False
    ) -> None:
        """Add an error at `path` below `llm_routing`; at the key itself with `key`."""
        self.report.error(code, message, ("routing", *path), hint, key=key)

    def check_names(self) -> None:
        """Check aliases, capabilities, the default chain, and every chain that is written."""
        for alias, target in self.routing.aliases.items():
            path: Path = ("aliases", alias)
            self.check_shadow("alias", alias, path)
            if target in self.routing.aliases and target not in self.declared:
                other = "itself" if target == alias else f'another alias, "{target}"'
                end = self.chains.end(alias)
                self.add(
                    "unknown-alias-target",
                    f'alias "{alias}" points at {other}',
                    path,
                    f'point it at "{end}"' if end else "point it at a model or a capability",
                )
            elif target in self.chains.refused:
                continue
            elif target not in self.declared and target not in self.routing.capabilities:
                near = [name for name in self.names if name not in self.routing.aliases]
                why, hint = self.unknown(target, near, path, "null")
                self.add(
                    "unknown-alias-target",
                    f'alias "{alias}" points at "{target}", {why}',
                    path,
                    hint,
                )
            else:
                self.deployable(target, f'alias "{alias}"', path)
        for capability, entry in self.routing.capabilities.items():
            path = ("capabilities", capability)
            self.check_shadow("capability", capability, path)
            self.check_steps(
                entry.models, f'capability "{capability}"', (*path, "models"), models_only=True
            )
            modes = {name: self.models[name].mode for name in entry.models if name in self.models}
            if len(set(modes.values())) > 1:
                self.add(
                    "chain-mode",
                    f'capability "{capability}" mixes modes: '
                    + ", ".join(f'"{name}" ({mode})' for name, mode in modes.items()),
                    (*path, "models"),
                    "declare one capability per mode",
                )
            self.check_capability_vectors(capability, entry.models)
        for section in SECTIONS:
            for model, chain in self.chains.of(section).items():
                self.check_chain(section, model, chain)
        self.check_steps(
            self.routing.default_fallbacks, "default_fallbacks", ("default_fallbacks",)
        )

    def check_capability_vectors(self, capability: str, names: list[str]) -> None:
        """Refuse a capability of several embedding models: the second one answers for the first."""
        models = [self.models[name] for name in names if name in self.models]
        for other in strangers(models):
            self.add(
                "chain-vectors",
                f'capability "{capability}" has embedding models with vectors of their own:'
                f' "{models[0].name}", "{other.name}"',
                ("capabilities", capability, "models", names.index(other.name)),
                f"{SAY_SO}; make an alias of one model instead",
            )

    def check_shadow(self, kind: str, name: str, path: Path) -> None:
        """Check that an alias or a capability has a name of its own."""
        provider, hint = self.chains.owners.get(name), "rename it"
        if name in RESERVED:
            whose = "a word that the gateway uses itself"
        elif name in self.declared:
            off = " (disabled)" if name in self.resolved.disabled else ""
            whose = "the name of a model" + (f' of provider "{provider}"{off}' if provider else "")
            if provider and off:
                hint = f"rename it, or take the model out: {self.freeing(name, provider)}"
        elif kind == "capability" and name in self.routing.aliases:
            whose = "an alias"
        else:
            return
        self.add("shadowed-name", f'{kind} "{name}" is also {whose}', path, hint, key=True)

    def freeing(self, model: str, provider: str) -> str:
        """Return the override that takes a model and its chains out."""
        alone = [name for name, owner in self.chains.owners.items() if owner == provider] == [model]
        entry = "null" if alone else f"{{models: {{{json.dumps(model)}: null}}}}"
        chains = ", ".join(
            f"{section}: {{{json.dumps(model)}: null}}"
            for section in SECTIONS
            if model in self.chains.of(section)
        )
        routing = f", routing: {{{chains}}}" if chains else ""
        return f"llm_overrides: {{providers: {{{provider}: {entry}}}{routing}}}"

    def check_chain(self, section: Section, model: str, chain: Chain) -> None:
        """Check one chain as it is written: that it is a model's, that it has steps, and each of
        them.
        """
        path: Path = (section, model)
        if model not in self.declared:
            kind = "an alias" if model in self.routing.aliases else "a capability"
            if model in self.routing.aliases or model in self.routing.capabilities:
                message = f'"{model}" is {kind}, not a model, so it cannot have a chain'
                models = [json.dumps(one) for one in self.chains.expand(model)]
                hint = f"declare it for what it refers to, {listing(models)}, or remove it here"
            elif model in self.chains.refused:
                return
            else:
                why, hint = self.unknown(model, self.names, path, "null")
                message = f'a chain for "{model}", {why}'
            self.add("unknown-model", message, path, hint, key=True)
            if model in self.report.source.removed:
                return  # The whole entry has to go, whatever its steps are.
        if chain.terminal and chain.chain:
            self.add(
                "invalid-value",
                f'"{model}" is terminal and has a chain',
                (*path, "terminal"),
                "keep one of the two",
                key=True,
            )
        if not chain.chain:
            if not chain.terminal:
                self.add(
                    "chain-empty",
                    f'the chain of "{model}" is empty',
                    path,
                    "list fallbacks, or write terminal: true",
                )
            return
        if model in self.resolved.disabled:
            return  # Nobody asks for it; its chain waits for the provider to be switched on.
        self.check_steps(chain.chain, f'the chain of "{model}"', (*path, "chain"), own=model)

    def check_steps(
        self,
        steps: list[str],
        subject: str,
        path: Path,
        *,
        own: str | None = None,
        models_only: bool = False,
    ) -> None:
        """Check each of some steps: it exists, is deployed, and is there once.

        `own` is the model whose chain they are: no step stands for it, and all have its mode. With
        `models_only` a step cannot be an alias or a capability.
        """
        seen: dict[str, str] = {}
        covered: set[str] = set()
        for position, step in enumerate(steps):
            at: Path = (*path, position)
            target = step if step in self.declared else self.routing.aliases.get(step, step)
            if own is not None and own in self.chains.expand(step):
                self.add(
                    "chain-self",
                    f'{subject} contains "{own}" itself (step "{step}")',
                    at,
                    self.instead_of(step, own),
                )
            elif target in seen:
                same = "" if step == seen[target] else f': "{step}" is the same as "{seen[target]}"'
                self.add(
                    "chain-duplicate",
                    f'{subject} has a duplicate entry "{step}"{same}',
                    at,
                    "remove one of them",
                )
            elif step not in self.declared and (
                models_only
                or (step not in self.routing.aliases and step not in self.routing.capabilities)
            ):
                known = self.declared if models_only else self.names
                near = [
                    name for name in known if name not in (own, *steps) and self.fits(own, name)
                ]
                rest = self.rest(steps, own, known)
                if models_only and step in self.names:
                    why, hint = self.no_model(step, steps)
                elif step in self.chains.refused:
                    continue
                elif rest or len(path) < 3:
                    why, hint = self.unknown(step, near, path, json.dumps(rest))
                else:
                    why, hint = self.unknown(
                        step, near, path[:2], "null" if models_only else "{terminal: true}"
                    )
                self.add("unknown-model", f'{subject} names "{step}", {why}', at, hint)
            else:
                self.deployable(step, subject, at)
                self.check_mode(own, step, subject, at)
                self.check_vectors(own, step, subject, at)
                if covered.issuperset(models := self.chains.expand(step)):
                    self.report.warning(
                        "chain-duplicate",
                        f'in {subject} step "{step}" has no effect: its models are there already',
                        ("routing", *at),
                        "remove it",
                    )
                covered.update(models)
            seen.setdefault(target, step)

    def fits(self, own: str | None, name: str) -> bool:
        """Return whether `name` could be a step for `own`, for which it would not be refused."""
        if own not in self.models:
            return True
        mine = self.models[own]
        models = [self.models[one] for one in self.chains.expand(name) if one in self.models]
        return all(one.mode == mine.mode for one in models) and not strangers([mine, *models])

    def instead_of(self, step: str, own: str) -> str:
        """Return the hint for a step that stands for `own`, whose chain it is in."""
        others = [name for name in self.chains.expand(step) if name != own]
        if not others:
            return "remove this step"
        return f"write {', '.join(json.dumps(name) for name in others)} in its place"

    def rest(self, steps: list[str], own: str | None, known: Iterable[str]) -> list[str]:
        """Return those of some steps that would not be refused if they stood alone."""
        good = {*known} - self.resolved.disabled - {own}
        return [step for step in dict.fromkeys(steps) if step in good]

    def no_model(self, name: str, steps: list[str]) -> tuple[str, str]:
        """Why an alias or a capability is no member of a capability with these `steps`, and the
        hint: those of its models that have the mode of the others.
        """
        kind, target = "a capability", name
        if name in self.routing.aliases:
            target = self.routing.aliases[name]
            kind = f'an alias of "{target}"'
        models = [one for one in self.chains.expand(target) if one in self.declared]
        wanted = [self.models[one].mode for one in (*steps, *models) if one in self.models]
        models = [
            one for one in models if one not in self.models or self.models[one].mode == wanted[0]
        ]
        instead = ", ".join(json.dumps(one) for one in models)
        hint = f"write {instead} in its place" if models else "remove it"
        return f"which is {kind}: a capability lists models", hint

    def unknown(self, name: str, near: Iterable[str], path: Path, instead: str) -> tuple[str, str]:
        """Why nothing declares `name`, and the hint. An override that writes `instead` at `path`
        does without it.
        """
        if name in self.catalogue.providers and name not in self.report.source.removed:
            why, hint = no_name(self.catalogue, self.resolved, name)
            return why, hint or "remove it here"
        if name not in self.report.source.removed:
            meant = did_you_mean(name, {*near} - self.resolved.disabled)
            hint = meant or "add it to the models of a provider, or remove it here"
            return "which no provider declares", hint
        place = self.report.source.removed[name] or "an unknown place"
        return (
            f"which was removed at {place}",
            f"to remove it here, too, add to {as_override(('routing', *path), instead)}",
        )

    def deployable(self, name: str, subject: str, path: Path) -> None:
        """Add an error if `name` is a model whose provider is switched off."""
        if name in self.resolved.disabled:
            self.add(
                "model-not-deployed",
                f'{subject} names "{name}", but {self.resolved.absent[name]}',
                path,
                "remove it here, or set the provider to status: active",
            )

    def check_mode(self, own: str | None, step: str, subject: str, path: Path) -> None:
        """Check that all models of `step` have the mode of `own`, whose chain it is in."""
        if own not in self.models:
            return
        mode = self.models[own].mode
        for name in self.chains.expand(step):
            if name in self.models and self.models[name].mode != mode:
                self.add(
                    "chain-mode",
                    f'{subject} ({mode}) names "{name}" ({self.models[name].mode})',
                    path,
                    "a step must have the same mode",
                )

    def check_vectors(self, own: str | None, step: str, subject: str, path: Path) -> None:
        """Check that what answers for an embedding model is the same model elsewhere."""
        if own not in self.models:
            return
        steps = [self.models[name] for name in self.chains.expand(step) if name in self.models]
        for other in strangers([self.models[own], *steps]):
            self.add(
                "chain-vectors",
                f'{subject} names "{other.name}", another embedding model: clients would get'
                " vectors that do not fit those they have",
                path,
                f"{SAY_SO}; without another, write terminal: true",
            )
