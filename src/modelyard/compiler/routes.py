"""Which models answer for a public name, fallbacks included, in which order.

Chains are expanded here, depth first, into one flat list per public name: the gateway only ever
gets flat lists (nested ones it would walk neither depth first nor to the end).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from modelyard.compiler.chains import SECTIONS, Chains, Section
from modelyard.compiler.resolve import Resolved

Kind = Literal["model", "alias", "capability", "inactive"]
"""`inactive`: a model that is switched off for another one; its fallbacks answer to its name."""


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to a request for `name`.

    `attempts` are models in order: the first answers, the rest are fallbacks. `dropped` are the
    steps that were left out, with the reason. `target` is what an alias points at.
    """

    name: str
    kind: Kind
    attempts: tuple[str, ...]
    heads: int
    """How many of the attempts are the name itself (1, or a capability's models); the rest are
    fallbacks."""
    dropped: tuple[tuple[str, str], ...]
    context_window: tuple[str, ...]
    """`attempts` when the request is too long for the head."""
    content_policy: tuple[str, ...]
    """`attempts` when the head refuses the content."""
    target: str | None = None

    def tried(self, section: Section) -> tuple[str, ...]:
        """Return the models in order, on the errors of a section."""
        if section == "context_window_fallbacks":
            return self.context_window
        return self.content_policy if section == "content_policy_fallbacks" else self.attempts

    def behind(self, section: Section) -> tuple[str, ...]:
        """Return what the gateway has to be told: who is tried after the name itself has failed.

        On ordinary errors it tries all heads by itself; on the others it leaves the group after the
        first.
        """
        return self.tried(section)[self.heads if section == "fallbacks" else 1 :]


class Router:
    """Expands chains into routes. Needs a routing without errors."""

    def __init__(self, chains: Chains, resolved: Resolved) -> None:
        self.chains = chains
        self.resolved = resolved

    def order(self, section: Section, heads: list[str]) -> dict[str, None]:
        """`heads`, then their fallbacks.

        On an error with chains of its own, each head is followed by its chain of that kind before
        the next head is tried: a model that takes longer requests goes before a sibling that may
        not. Heads without one keep their ordinary chain.
        """
        order: dict[str, None] = {}
        for head in heads:
            order[head] = None
            if section != "fallbacks" and head in self.chains.of(section):
                order.update(dict.fromkeys(self.chains.walk(section, head)))
        for head in heads:
            if section == "fallbacks" or head not in self.chains.of(section):
                order.update(dict.fromkeys(self.chains.walk("fallbacks", head)))
        return order

    def live(self, section: Section, heads: list[str]) -> tuple[str, ...]:
        """Return `heads` and their fallbacks in order, without those that are not deployed."""
        return tuple(
            step for step in self.order(section, heads) if step in self.resolved.deployments
        )

    def route(self, name: str, kind: Kind, heads: list[str], target: str | None) -> Route:
        """Return the route of a name that stands for `heads`. An alias points at `target`."""
        return Route(
            name,
            kind,
            self.live("fallbacks", heads),
            sum(head in self.resolved.deployments for head in dict.fromkeys(heads)),
            tuple(
                (step, self.resolved.absent.get(step, "not deployed"))
                for step in self.order("fallbacks", heads)
                if step not in self.resolved.deployments
            ),
            self.live("context_window_fallbacks", heads),
            self.live("content_policy_fallbacks", heads),
            target,
        )

    def stand_in(self, name: str) -> Route | None:
        """Return the route of a name whose model is switched off: the first of its chain answers.
        None if none is left.
        """
        attempts = self.live("fallbacks", [name])
        if not attempts:
            return None
        long, refused = (
            tuple(dict.fromkeys((attempts[0], *self.live(section, [name]))))
            for section in SECTIONS[1:]
        )
        dropped = self.route(name, "model", [name], None).dropped
        return Route(name, "inactive", attempts, 1, dropped, long, refused)

    def build(self) -> list[Route]:
        """Return the routes of all names that something answers: models, capabilities, aliases."""
        routes = [self.route(name, "model", [name], None) for name in self.resolved.deployments]
        stand_ins = {
            name: route for name in self.resolved.inactive if (route := self.stand_in(name))
        }
        routes += stand_ins.values()
        for name in self.chains.routing.capabilities:
            routes.append(self.route(name, "capability", self.chains.expand(name), None))
        for alias, target in self.chains.routing.aliases.items():
            if target in stand_ins:
                routes.append(replace(stand_ins[target], name=alias, kind="alias", target=target))
            else:
                routes.append(self.route(alias, "alias", self.chains.expand(alias), target))
        return [route for route in routes if route.heads]
