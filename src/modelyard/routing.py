"""Who answers for a public name, and who steps in, in which order.

Chains are expanded here, depth first, into one flat list per public name: the gateway only ever gets flat
lists (nested ones it would walk neither depth first nor to the end).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.diagnostics import Diagnostic, did_you_mean
from modelyard.resolve import Resolved
from modelyard.schema import Catalogue, Chain
from modelyard.sourcemap import Path, SourceMap

RESERVED = frozenset({"default"})
"""Names the gateway uses for itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to a request for `name`.

    `attempts` are models in order: the first answers, the rest step in. `dropped` are the steps that were
    left out, with the reason. `target` is what an alias points at.
    """

    name: str
    kind: Literal["model", "alias", "capability"]
    attempts: tuple[str, ...]
    heads: int
    """How many of the attempts are the name itself (1, or a capability's models); the rest step in."""
    dropped: tuple[tuple[str, str], ...]
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """All routes, in the order of the catalogue: models, aliases, capabilities."""

    routes: tuple[Route, ...]
    diagnostics: tuple[Diagnostic, ...]


class _Router:
    def __init__(self, catalogue: Catalogue, resolved: Resolved, declared: frozenset[str], source: SourceMap) -> None:
        self.routing = catalogue.routing
        self.resolved = resolved
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self.models = {model.name: model for p in catalogue.providers.values() for model in p.models}
        self.declared = declared | self.models.keys()
        """Model names, those of refused models too: a typo elsewhere must not make them unknown."""
        self.names = sorted(self.declared | self.routing.aliases.keys() | self.routing.capabilities.keys())

    def add(
        self, code: str, message: str, path: Path, hint: str = "", *, key: bool = False, warning: bool = False
    ) -> None:
        at: Path = ("routing", *path)
        self.diagnostics.append(
            Diagnostic(
                code,
                "warning" if warning else "error",
                message,
                (f"llm_{at[0]}", *at[1:]),
                self.source.origin(at, key=key),
                hint,
            )
        )

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
                self.add(
                    "unknown-alias-target",
                    f'alias "{alias}" points at "{target}", which nothing declares',
                    path,
                    did_you_mean(target, self.names),
                )
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
        for model, chain in self.routing.fallbacks.items():
            self.check_chain(model, chain)

    def check_chain(self, model: str, chain: Chain) -> None:
        path: Path = ("fallbacks", model)
        if model not in self.declared:
            kind = "an alias" if model in self.routing.aliases else "a capability"
            known = model in self.routing.aliases or model in self.routing.capabilities
            self.add(
                "unknown-model",
                f'"{model}" is {kind}, not a model: it has no chain of its own'
                if known
                else f'a chain for "{model}", which no provider declares',
                path,
                "declare the chain of the model it stands for" if known else did_you_mean(model, self.names),
                key=True,
            )
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
                    "list who steps in, or write terminal: true",
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
                self.add("chain-self", f'{subject} leads to "{own}" itself (step "{step}")', at, "remove this step")
            elif step in seen:
                self.add("chain-duplicate", f'{subject} names "{step}" twice', at, "remove one of them")
            elif step not in self.declared and (
                models_only or (step not in self.routing.aliases and step not in self.routing.capabilities)
            ):
                self.add(
                    "unknown-model",
                    f'{subject} names "{step}", which no provider declares',
                    at,
                    did_you_mean(step, self.declared if models_only else self.names),
                )
            else:
                self.deployable(step, subject, at)
                self.check_mode(own, step, subject, at)
            seen.add(step)

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
                    "a step must do the same kind of work",
                )

    # -- what it means -----------------------------------------------------------------------------------

    def expand(self, step: str) -> list[str]:
        """The models a step stands for: itself, an alias' target, a capability's models."""
        step = self.routing.aliases.get(step, step)
        if step in self.routing.capabilities and step not in self.declared:
            return list(self.routing.capabilities[step].models)
        return [step]

    def next(self, model: str) -> list[str]:
        chain = self.routing.fallbacks.get(model)
        return [name for step in (chain.chain or [] if chain else []) for name in self.expand(step)]

    def walk(self, model: str) -> list[str]:
        """`model` and everything that steps in for it, depth first, each once. Needs no recursion limit."""
        order: dict[str, None] = {}
        stack = [model]
        while stack:
            name = stack.pop()
            if name not in order:
                order[name] = None
                stack.extend(reversed(self.next(name)))
        return list(order)

    def check_cycles(self) -> None:
        """Every cycle once, at the step that closes it."""
        done: set[str] = set()
        for start in self.routing.fallbacks:
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
                for follower in reversed(self.next(name)):
                    if follower in on_trail and follower != name:
                        self.report_cycle([*trail[trail.index(follower) :], follower])
                    elif follower not in done:
                        stack.append((follower, False))

    def report_cycle(self, cycle: list[str]) -> None:
        last = cycle[-2]
        chain = self.routing.fallbacks[last].chain or []
        position = next(i for i, step in enumerate(chain) if cycle[-1] in self.expand(step))
        self.add(
            "chain-cycle",
            f"chains lead back to where they began: {' → '.join(cycle)}",
            ("fallbacks", last, "chain", position),
            "remove one of these steps",
        )

    # -- what comes out ----------------------------------------------------------------------------------

    def route(
        self, name: str, kind: Literal["model", "alias", "capability"], heads: list[str], target: str | None
    ) -> Route:
        order = dict.fromkeys(heads)
        for head in heads:
            order.update(dict.fromkeys(self.walk(head)))
        live = [step for step in order if step in self.resolved.deployments]
        dropped = [
            (step, self.resolved.absent.get(step, "not deployed"))
            for step in order
            if step not in self.resolved.deployments
        ]
        return Route(
            name,
            kind,
            tuple(live),
            sum(head in self.resolved.deployments for head in dict.fromkeys(heads)),
            tuple(dropped),
            target,
        )

    def build(self) -> list[Route]:
        routes = [self.route(name, "model", [name], None) for name in self.resolved.deployments]
        for name in self.routing.capabilities:
            routes.append(self.route(name, "capability", self.expand(name), None))
        for alias, target in self.routing.aliases.items():
            routes.append(self.route(alias, "alias", self.expand(alias), target))
        return [route for route in routes if route.heads]

    def check_routes(self, routes: list[Route]) -> None:
        for route in routes:
            if route.kind != "model":
                continue
            chain = self.routing.fallbacks.get(route.name)
            if chain is None:
                self.add(
                    "chain-undeclared",
                    f'nobody steps in for "{route.name}"',
                    ("fallbacks",),
                    f'declare fallbacks["{route.name}"]: {{chain: [...]}}, or {{terminal: true}}',
                    key=True,
                    warning=True,
                )
            elif chain.chain and len(route.attempts) == 1:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in route.dropped)
                self.add(
                    "chain-lost",
                    f'every step of the chain of "{route.name}" was left out ({reasons})',
                    ("fallbacks", route.name),
                    f"add a step that is deployed, or accept it: llm_overrides: "
                    f'{{routing: {{fallbacks: {{"{route.name}": {{terminal: true}}}}}}}}',
                )


def build_routes(
    catalogue: Catalogue, resolved: Resolved, declared: frozenset[str], source: SourceMap, *, sound: bool
) -> Routes:
    """Check the routing and expand it. `declared` are all model names written anywhere, refused ones too.

    With `sound` false (something was refused before), what is merely absent is not reported.
    """
    router = _Router(catalogue, resolved, declared, source)
    router.check_names()
    router.check_cycles()
    routes: list[Route] = []
    if not router.diagnostics:
        routes = router.build()
        if sound:
            router.check_routes(routes)
    return Routes(tuple(routes), tuple(router.diagnostics))


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
