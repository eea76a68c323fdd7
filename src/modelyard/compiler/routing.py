"""Who answers for a public name, and who steps in, in which order.

Chains are expanded here, depth first, into one flat list per public name: the gateway only ever gets flat
lists (nested ones it would walk neither depth first nor to the end).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from modelyard.catalogue.overrides import as_override
from modelyard.catalogue.routing import Chain
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.resolve import Resolved
from modelyard.diagnostics import Report, did_you_mean, listing

RESERVED = frozenset({"default"})
"""Names the gateway uses for itself."""

Section = Literal["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"]
"""Which chain: on any error, or on the errors that have one of their own."""

SECTIONS: tuple[Section, ...] = get_args(Section)


Kind = Literal["model", "alias", "capability", "inactive"]
"""`inactive`: a model that is switched off for another one; whoever steps in for it answers to its name."""


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to a request for `name`.

    `attempts` are models in order: the first answers, the rest step in. `dropped` are the steps that were
    left out, with the reason. `target` is what an alias points at.
    """

    name: str
    kind: Kind
    attempts: tuple[str, ...]
    heads: int
    """How many of the attempts are the name itself (1, or a capability's models); the rest step in."""
    dropped: tuple[tuple[str, str], ...]
    context_window: tuple[str, ...]
    """`attempts` when the request is too long for the head."""
    content_policy: tuple[str, ...]
    """`attempts` when the head refuses the content."""
    target: str | None = None

    def tried(self, section: Section) -> tuple[str, ...]:
        """The models in order, on the errors of a section."""
        if section == "context_window_fallbacks":
            return self.context_window
        return self.content_policy if section == "content_policy_fallbacks" else self.attempts

    def behind(self, section: Section) -> tuple[str, ...]:
        """What the gateway has to be told: who is tried after the name itself has failed.

        On ordinary errors it tries all heads by itself; on the others it leaves the group after the first.
        """
        return self.tried(section)[self.heads if section == "fallbacks" else 1 :]


class _Router:
    def __init__(
        self,
        catalogue: Catalogue,
        resolved: Resolved,
        declared: frozenset[str],
        gateways: frozenset[str],
        report: Report,
    ) -> None:
        self.routing = catalogue.routing
        self.gateways = gateways
        self.resolved = resolved
        self.report = report
        # A disabled alternative may have the name of the one that is on: that one counts.
        providers = sorted(catalogue.providers.values(), key=lambda provider: provider.status == "active")
        self.models = {model.name: model for provider in providers for model in provider.models}
        self.declared = declared | self.models.keys()
        """Model names, those of refused models too: a typo elsewhere must not make them unknown."""
        self.names = sorted(self.declared | self.routing.aliases.keys() | self.routing.capabilities.keys())

    def add(
        self, code: str, message: str, path: Path, hint: str = "", *, key: bool = False, warning: bool = False
    ) -> None:
        tell = self.report.warning if warning else self.report.error
        tell(code, message, ("routing", *path), hint, key=key)

    # -- what is written ---------------------------------------------------------------------------------

    def check_names(self) -> None:
        for alias, target in self.routing.aliases.items():
            path: Path = ("aliases", alias)
            if alias in self.declared or alias in RESERVED:
                self.add(
                    "shadowed-name",
                    f'alias "{alias}" is also the name of a model',
                    path,
                    "rename it",
                    key=True,
                )
            if target in self.routing.aliases:
                self.add(
                    "unknown-alias-target",
                    f'alias "{alias}" points at another alias, "{target}"',
                    path,
                    f'point it at "{self.routing.aliases[target]}"',
                )
            elif target not in self.declared and target not in self.routing.capabilities:
                why, hint = self.unknown(target, self.names, path, "null")
                self.add("unknown-alias-target", f'alias "{alias}" points at "{target}", {why}', path, hint)
            else:
                self.deployable(target, f'alias "{alias}"', path)
        for capability, entry in self.routing.capabilities.items():
            path = ("capabilities", capability)
            if capability in self.declared or capability in self.routing.aliases or capability in RESERVED:
                self.add(
                    "shadowed-name",
                    f'capability "{capability}" is also the name of something else',
                    path,
                    "rename it",
                    key=True,
                )
            self.check_steps(entry.models, f'capability "{capability}"', (*path, "models"), models_only=True)
            modes = {name: self.models[name].mode for name in entry.models if name in self.models}
            if len(set(modes.values())) > 1:
                self.add(
                    "chain-mode",
                    f'capability "{capability}" mixes modes: '
                    + ", ".join(f'"{name}" ({mode})' for name, mode in modes.items()),
                    (*path, "models"),
                    "declare one capability per mode",
                )
        for section in SECTIONS:
            for model, chain in self.chains(section).items():
                self.check_chain(section, model, chain)
        self.check_steps(self.routing.default_fallbacks, "default_fallbacks", ("default_fallbacks",))

    def chains(self, section: Section) -> Mapping[str, Chain]:
        """The chains of one section, as written."""
        chains: Mapping[str, Chain] = getattr(self.routing, section)
        return chains

    def check_chain(self, section: Section, model: str, chain: Chain) -> None:
        path: Path = (section, model)
        if model not in self.declared:
            kind = "an alias" if model in self.routing.aliases else "a capability"
            if model in self.routing.aliases or model in self.routing.capabilities:
                message = f'"{model}" is {kind}, not a model, so it cannot have a chain'
                hint = "declare a chain for the model it refers to"
            else:
                why, hint = self.unknown(model, self.names, path, "null")
                message = f'a chain for "{model}", {why}'
            self.add("unknown-model", message, path, hint, key=True)
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
        self, steps: list[str], subject: str, path: Path, *, own: str | None = None, models_only: bool = False
    ) -> None:
        seen: set[str] = set()
        for position, step in enumerate(steps):
            at: Path = (*path, position)
            if own is not None and own in self.expand(step):
                self.add("chain-self", f'{subject} contains "{own}" itself (step "{step}")', at, "remove this step")
            elif step in seen:
                self.add("chain-duplicate", f'{subject} has a duplicate entry "{step}"', at, "remove one of them")
            elif step not in self.declared and (
                models_only or (step not in self.routing.aliases and step not in self.routing.capabilities)
            ):
                near = self.declared if models_only else self.names
                rest = [step for step in steps if step not in self.report.source.removed]
                if rest or len(path) < 3:
                    why, hint = self.unknown(step, near, path, json.dumps(rest))
                else:
                    why, hint = self.unknown(step, near, path[:2], "null" if models_only else "{terminal: true}")
                self.add("unknown-model", f'{subject} names "{step}", {why}', at, hint)
            else:
                self.deployable(step, subject, at)
                self.check_mode(own, step, subject, at)
            seen.add(step)

    def unknown(self, name: str, near: Iterable[str], path: Path, instead: str) -> tuple[str, str]:
        """Why nothing declares `name`, and the hint. An override that writes `instead` at `path` does without it."""
        if name not in self.report.source.removed:
            return "which no provider declares", did_you_mean(name, near)
        place = self.report.source.removed[name] or "an unknown place"
        return (
            f"which was removed at {place}",
            f"to remove it here, too, add to {as_override(('routing', *path), instead)}",
        )

    def deployable(self, name: str, subject: str, path: Path) -> None:
        if name in self.resolved.disabled:
            self.add(
                "model-not-deployed",
                f'{subject} names "{name}", but {self.resolved.absent[name]}',
                path,
                "remove it here, or set the provider to status: active",
            )

    def check_mode(self, own: str | None, step: str, subject: str, path: Path) -> None:
        if own not in self.models:
            return
        mode = self.models[own].mode
        for name in self.expand(step):
            if name in self.models and self.models[name].mode != mode:
                self.add(
                    "chain-mode",
                    f'{subject} ({mode}) names "{name}" ({self.models[name].mode})',
                    path,
                    "a step must have the same mode",
                )

    # -- what it means -----------------------------------------------------------------------------------

    def expand(self, step: str) -> list[str]:
        """The models a step stands for: itself, an alias' target, a capability's models."""
        step = self.routing.aliases.get(step, step)
        if step in self.routing.capabilities and step not in self.declared:
            return list(self.routing.capabilities[step].models)
        return [step]

    def written(self, section: Section, model: str) -> list[str]:
        """The models behind `model` in its chain as written; none if it has no chain."""
        chain = self.chains(section).get(model)
        return [name for step in (chain.chain or [] if chain else []) for name in self.expand(step)]

    def defaults(self, model: str) -> list[str]:
        """The chain of a model without an entry: the default one, or the part of it behind the model itself."""
        known = self.models.get(model)
        steps = [name for step in self.routing.default_fallbacks for name in self.expand(step)]
        behind = steps[steps.index(model) + 1 :] if model in steps else steps
        return [name for name in behind if known and name in self.models and self.models[name].mode == known.mode]

    def next(self, section: Section, model: str) -> list[str]:
        """The models behind `model`, the default chain included."""
        if section == "fallbacks" and model not in self.routing.fallbacks:
            return self.defaults(model)
        return self.written(section, model)

    def walk(self, section: Section, model: str) -> list[str]:
        """`model` and everything that steps in for it, depth first, each once. Needs no recursion limit."""
        order: dict[str, None] = {}
        stack = [model]
        while stack:
            name = stack.pop()
            if name not in order:
                order[name] = None
                stack.extend(reversed(self.next(section, name)))
        return list(order)

    def check_cycles(self, section: Section) -> None:
        """Every cycle of the chains as written, once, at the step that closes it.

        Default chains may lead back: they just end there.
        """
        done: set[str] = set()
        for start in self.chains(section):
            trail: list[str] = []
            on_trail: set[str] = set()
            stack: list[tuple[str, bool]] = [(start, False)]
            while stack:
                name, leaving = stack.pop()
                if leaving:
                    trail.pop()
                    on_trail.discard(name)
                    done.add(name)
                    continue
                if name in done or name in on_trail:
                    continue
                trail.append(name)
                on_trail.add(name)
                stack.append((name, True))
                for follower in reversed(self.written(section, name)):
                    if follower in on_trail and follower != name:
                        self.report_cycle(section, [*trail[trail.index(follower) :], follower])
                    elif follower not in done:
                        stack.append((follower, False))

    def report_cycle(self, section: Section, cycle: list[str]) -> None:
        last = cycle[-2]
        chain = self.chains(section)[last].chain or []
        position = next(i for i, step in enumerate(chain) if cycle[-1] in self.expand(step))
        self.add(
            "chain-cycle",
            f"chains form a cycle: {' → '.join(cycle)}",
            (section, last, "chain", position),
            "remove one of these steps",
        )

    # -- what comes out ----------------------------------------------------------------------------------

    def order(self, section: Section, heads: list[str]) -> dict[str, None]:
        """`heads`, then whoever steps in for them.

        On an error with chains of its own, each head is followed by its chain of that kind before the next head is
        tried: whoever takes longer requests goes before a sibling that may not. Heads without one keep their ordinary
        chain.
        """
        order: dict[str, None] = {}
        for head in heads:
            order[head] = None
            if section != "fallbacks" and head in self.chains(section):
                order.update(dict.fromkeys(self.walk(section, head)))
        for head in heads:
            if section == "fallbacks" or head not in self.chains(section):
                order.update(dict.fromkeys(self.walk("fallbacks", head)))
        return order

    def live(self, section: Section, heads: list[str]) -> tuple[str, ...]:
        return tuple(step for step in self.order(section, heads) if step in self.resolved.deployments)

    def route(self, name: str, kind: Kind, heads: list[str], target: str | None) -> Route:
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
        """The route of a name whose model is switched off: the first of its chain answers. None if nobody is left."""
        attempts = self.live("fallbacks", [name])
        if not attempts:
            return None
        long, refused = (tuple(dict.fromkeys((attempts[0], *self.live(section, [name])))) for section in SECTIONS[1:])
        dropped = self.route(name, "model", [name], None).dropped
        return Route(name, "inactive", attempts, 1, dropped, long, refused)

    def build(self) -> list[Route]:
        routes = [self.route(name, "model", [name], None) for name in self.resolved.deployments]
        stand_ins = {name: route for name in self.resolved.inactive if (route := self.stand_in(name))}
        routes += stand_ins.values()
        for name in self.routing.capabilities:
            routes.append(self.route(name, "capability", self.expand(name), None))
        for alias, target in self.routing.aliases.items():
            if target in stand_ins:
                routes.append(replace(stand_ins[target], name=alias, kind="alias", target=target))
            else:
                routes.append(self.route(alias, "alias", self.expand(alias), target))
        return [route for route in routes if route.heads]

    def check_routes(self, routes: list[Route]) -> None:
        """What can be said once everything has its place. Only the first is an error."""
        models = [route for route in routes if route.kind == "model"]
        for route in models:
            self.check_lost(route)
            self.check_windows(route)
        self.check_single_points(models)
        public = {route.name for route in routes}
        for section, names in (("capabilities", self.routing.capabilities), ("aliases", self.routing.aliases)):
            for name in names:
                if name not in public:
                    self.add(
                        "name-unreachable",
                        f'no deployment serves "{name}": everything it refers to is left out',
                        (section, name),
                        "`plan` shows why each is left out; requests for this name fail",
                        key=True,
                        warning=True,
                    )

    def check_lost(self, route: Route) -> None:
        if route.name not in self.routing.fallbacks and not self.defaults(route.name):
            self.add(
                "chain-undeclared",
                f'"{route.name}" has no fallback',
                ("fallbacks",),
                f'declare fallbacks["{route.name}"]: {{chain: [...]}}, or {{terminal: true}}',
                key=True,
                warning=True,
            )
        for section in SECTIONS:
            attempts = route.tried(section)
            if self.written(section, route.name) and len(attempts) == 1:
                reasons = "; ".join(
                    f"{name}: {self.resolved.absent.get(name, 'not deployed')}"
                    for name in self.order(section, [route.name])
                    if name not in attempts
                )
                self.add(
                    "chain-lost",
                    f'every step of the chain of "{route.name}" was left out ({reasons})',
                    (section, route.name),
                    f"add a step that is deployed, or accept it: llm_overrides: "
                    f'{{routing: {{{section}: {{"{route.name}": {{terminal: true}}}}}}}}',
                )

    def check_windows(self, route: Route) -> None:
        """Steps with a smaller context window than the model they stand in for."""
        window = self.models[route.name].context_length
        for section in SECTIONS[:2]:
            smaller = [
                f'"{name}" ({length})'
                for name in route.tried(section)[1:]
                if window is not None and (length := self.models[name].context_length) is not None and length < window
            ]
            if smaller and route.name in self.chains(section):
                self.add(
                    "context-shrinks",
                    f'the chain of "{route.name}" ({window} tokens) has steps with a smaller '
                    f"context: {listing(smaller)}",
                    (section, route.name),
                    "they refuse long conversations: raise context_length, or choose steps with at least as much",
                    key=True,
                    warning=True,
                )

    def check_single_points(self, routes: list[Route]) -> None:
        """Chains that hang on one host or one provider: told once for each of those."""
        found: dict[str, list[str]] = {}
        # Where there is but one provider, no chain can do better.
        choice = len({deployment.provider_name for deployment in self.resolved.all()}) > 1
        for route in routes:
            members = [deployment for name in route.attempts for deployment in self.resolved.deployments[name]]
            if len(route.attempts) == 1:
                continue  # Nobody steps in, which is said elsewhere or wanted.
            hosts = {deployment.host for deployment in members}
            providers = {deployment.provider_name for deployment in members}
            # A host that is the only gateway too takes everything with it, whatever the chains say.
            if len(hosts) == 1 and hosts != {None} and hosts != self.gateways:
                found.setdefault(f"host {members[0].host}", []).append(route.name)
            elif len(providers) == 1 and choice:
                found.setdefault(f'provider "{members[0].provider_name}"', []).append(route.name)
        for place, names in found.items():
            chains = "chain" if len(names) == 1 else "chains"
            self.add(
                "single-point-of-failure",
                f"every step of the {chains} of {listing(names)} is on {place}: if it fails, all of them fail",
                ("fallbacks", names[0]),
                "add a step on another host or provider",
                key=True,
                warning=True,
            )


def build_routes(
    catalogue: Catalogue,
    resolved: Resolved,
    declared: frozenset[str],
    gateways: frozenset[str],
    report: Report,
    *,
    sound: bool,
) -> tuple[Route, ...]:
    """Check the routing and expand it: all routes in the catalogue's order, models, then aliases, then capabilities.
    `declared` are all model names written anywhere, refused ones too.

    With `sound` false (something was refused before), what is merely absent is not reported.
    """
    router = _Router(catalogue, resolved, declared, gateways, report)
    router.check_names()
    for section in SECTIONS:
        router.check_cycles(section)
    routes: list[Route] = []
    if not report.found:
        routes = router.build()
        if sound:
            router.check_routes(routes)
    return tuple(routes)


def declared_names(tree: Mapping[str, Any]) -> frozenset[str]:
    """Every model name written in the tree, refused or not."""
    names: set[str] = set()
    providers = tree.get("providers")
    for provider in providers.values() if isinstance(providers, Mapping) else ():
        models = provider.get("models") if isinstance(provider, Mapping) else None
        for model in models if isinstance(models, list) else ():
            if isinstance(model, Mapping) and isinstance(model.get("name"), str):
                names.add(model["name"])
    return frozenset(names)


def public_names(tree: Mapping[str, Any]) -> frozenset[str]:
    """Every name written in the tree that clients can ask for: models, aliases and capabilities."""
    routing = tree.get("routing")
    sections = [routing.get(key) for key in ("aliases", "capabilities")] if isinstance(routing, Mapping) else []
    return declared_names(tree).union(*(map(str, section) for section in sections if isinstance(section, Mapping)))
