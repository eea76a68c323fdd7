"""Chains as they are written: what a step stands for, and which models follow a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from modelyard.catalogue.routing import Chain
from modelyard.catalogue.schema import Catalogue
from modelyard.compiler.vectors import strangers

Section = Literal["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"]
"""Which chain: on any error, or on the errors that have one of their own."""

SECTIONS: tuple[Section, ...] = get_args(Section)


class Chains:
    """The routing of a catalogue. `declared` are all model names written anywhere, refused ones
    too, and `public` those with aliases and capabilities.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        declared: frozenset[str],
        public: frozenset[str] = frozenset(),
    ) -> None:
        self.catalogue = catalogue
        self.routing = catalogue.routing
        # A disabled alternative may have the name of the one that is on: that one counts.
        self.providers = sorted(
            catalogue.providers.values(), key=lambda provider: provider.status == "active"
        )
        self.models = {
            model.name: model for provider in self.providers for model in provider.models
        }
        self.owners = {
            model.name: name
            for name, provider in sorted(
                catalogue.providers.items(), key=lambda entry: entry[1].status == "active"
            )
            for model in provider.models
        }
        """The provider of each model; the active one if it is not alone."""
        self.declared = declared | self.models.keys()
        """Model names, those of refused models too: a typo elsewhere must not make them unknown."""
        self.refused = public - (
            self.declared | self.routing.aliases.keys() | self.routing.capabilities.keys()
        )
        """Aliases and capabilities that are written, and were refused."""
        self._next: dict[tuple[Section, str], list[str]] = {}
        self.names = sorted(
            self.declared | self.routing.aliases.keys() | self.routing.capabilities.keys()
        )

    def of(self, section: Section) -> Mapping[str, Chain]:
        """Return the chains of one section, as written."""
        chains: Mapping[str, Chain] = getattr(self.routing, section)
        return chains

    def expand(self, step: str) -> list[str]:
        """Return the models a step stands for: itself, an alias' target, a capability's models."""
        step = self.routing.aliases.get(step, step)
        if step in self.routing.capabilities and step not in self.declared:
            return list(self.routing.capabilities[step].models)
        return [step]

    def end(self, alias: str) -> str:
        """Return where aliases of aliases end, from `alias` on; empty if they go in a circle."""
        seen = {alias}
        alias = self.routing.aliases[alias]
        while alias in self.routing.aliases and alias not in (*seen, *self.declared):
            seen.add(alias)
            alias = self.routing.aliases[alias]
        return "" if alias in seen else alias

    def written(self, section: Section, model: str) -> list[str]:
        """Return the models behind `model` in its chain as written; none if it has no chain."""
        chain = self.of(section).get(model)
        return [name for step in (chain.chain or [] if chain else []) for name in self.expand(step)]

    def defaults(self, model: str) -> list[str]:
        """Return the chain of a model without an entry: the default one, or the part of it behind
        the model itself.
        """
        known = self.models.get(model)
        steps = [name for step in self.routing.default_fallbacks for name in self.expand(step)]
        behind = steps[steps.index(model) + 1 :] if model in steps else steps
        return [
            name
            for name in behind
            if known
            and name in self.models
            and self.models[name].mode == known.mode
            and not strangers([known, self.models[name]])
        ]

    def alternatives(self, model: str) -> set[str]:
        """Return the models that cannot run beside `model`: those of its exclusive group, and the
        others of its provider where one is `active`.
        """
        homes = [one for one in self.providers if any(m.name == model for m in one.models)]
        groups = {home.exclusive_group for home in homes} - {None}
        return {
            other.name
            for provider in self.providers
            if (provider in homes and provider.active is not None)
            or (provider not in homes and provider.exclusive_group in groups)
            for other in provider.models
        } - {model}

    def next(self, section: Section, model: str) -> list[str]:
        """Return the models behind `model`, the default chain included."""
        key = (section, model)
        if key not in self._next:
            without = section == "fallbacks" and model not in self.routing.fallbacks
            self._next[key] = self.defaults(model) if without else self.written(section, model)
        return self._next[key]

    def walk(self, section: Section, model: str) -> list[str]:
        """`model` and all its fallbacks, depth first, each once. Needs no recursion limit."""
        order: dict[str, None] = {}
        stack = [model]
        while stack:
            name = stack.pop()
            if name not in order:
                order[name] = None
                behind = self.next(section, name)
                stack.extend(step for step in reversed(behind) if step not in order)
        return list(order)
