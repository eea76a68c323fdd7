"""Warnings about routes: names without a fallback, fallbacks with less context, single points of
failure.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.chains import SECTIONS, Section
from modelyard.compiler.routes import Route, Router
from modelyard.diagnostics import Report, listing


class RouteChecks:
    """What can be said once everything has its place. Only a chain that lost every step, or
    leads to its own model, is an error.
    """

    def __init__(self, router: Router, gateways: frozenset[str], report: Report) -> None:
        self.router = router
        self.chains = router.chains
        self.routing, self.models = router.chains.routing, router.chains.models
        self.resolved = router.resolved
        self.gateways = gateways
        self.report = report

    def add(
        self,
        code: str,
        message: str,
        path: Path,
        hint: str = "",
        *,
        key: bool = False,
        warning: bool = False,
    ) -> None:
        """Add a diagnostic at `path` below `llm_routing`; at the key itself with `key`."""
        tell = self.report.warning if warning else self.report.error
        tell(code, message, ("routing", *path), hint, key=key)

    def check(self, routes: Sequence[Route]) -> None:
        """Check what is known once everything has its place. See the class for what is an error."""
        models = [route for route in routes if route.kind == "model"]
        for route in models:
            self.check_lost(route)
            self.check_windows(route)
        self.check_default(models)
        self.check_single_points(models)
        public = {route.name for route in routes}
        for section, names in (
            ("capabilities", self.routing.capabilities),
            ("aliases", self.routing.aliases),
        ):
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
        """Look for chains none of whose steps is deployed, or is another model."""
        if route.name not in self.routing.fallbacks and not self.chains.defaults(route.name):
            self.add_undeclared(route.name)
        for section in SECTIONS:
            attempts = route.tried(section)
            if self.chains.written(section, route.name):
                if len(attempts) == 1:
                    self.add_lost(section, route)
                else:
                    self.check_same(section, route)

    def add_undeclared(self, name: str, why: str = "") -> None:
        """Warn of a model without any fallback, where it is declared."""
        path = self.resolved.deployments[name][0].path
        mode = self.models[name].mode
        steps = [one for step in self.routing.default_fallbacks for one in self.chains.expand(step)]
        if steps and all(self.models[one].mode != mode for one in steps if one in self.models):
            why = f": no step of default_fallbacks ({listing(steps)}) has its mode, {mode}"
        self.report.warning(
            "chain-undeclared",
            f'"{name}" has no fallback{why}',
            path,
            f'declare llm_routing.fallbacks["{name}"]: {{chain: [...]}}, or {{terminal: true}}',
        )

    def same(self, name: str, other: str) -> bool:
        """Return whether all that serves `other` serves `name`, too: then they fail together."""
        first, second = (
            {one.served_by for one in self.resolved.deployments.get(model, ())}
            for model in (name, other)
        )
        return bool(second) and second <= first

    def check_same(self, section: Section, route: Route) -> None:
        """Refuse a chain in which a model falls back to nothing but itself under other names; warn
        of such a step beside others.
        """
        only = all(self.same(route.name, name) for name in route.tried(section)[1:])
        steps = self.chains.of(section)[route.name].chain or []
        for position, step in enumerate(steps):
            models = self.chains.expand(step)
            if all(self.same(route.name, name) for name in models):
                self.add(
                    "chain-self",
                    f'step "{step}" of the chain of "{route.name}" is the same model, served by the'
                    " same process or address: it fails whenever that one does",
                    (section, route.name, "chain", position),
                    "name another model, or write terminal: true" if only else "remove this step",
                    warning=not only,
                )

    def check_default(self, routes: Sequence[Route]) -> None:
        """Look for models whose default chain lost every step, or leads to themselves."""
        lost: list[str] = []
        for route in routes:
            steps = self.chains.defaults(route.name)
            if route.name in self.routing.fallbacks or not steps:
                continue
            behind = route.attempts[1:]
            if not behind and not self.chains.alternatives(route.name).issuperset(steps):
                lost.append(route.name)
            elif behind and all(self.same(route.name, name) for name in behind):
                same = f": {listing([*behind])} of default_fallbacks is the same model"
                self.add_undeclared(route.name, same)
        if lost:
            steps = list(dict.fromkeys(one for name in lost for one in self.chains.defaults(name)))
            reasons = "; ".join(
                f"{one}: {self.resolved.absent.get(one, 'not deployed')}" for one in steps
            )
            self.add(
                "chain-lost",
                f"every step of default_fallbacks for {listing(lost)} was left out ({reasons})",
                ("default_fallbacks",),
                "add a step that is deployed, or accept it: llm_overrides: {routing: {fallbacks: {"
                + ", ".join(f'"{name}": {{terminal: true}}' for name in lost)
                + "}}}",
            )

    def add_lost(self, section: Section, route: Route) -> None:
        """Refuse a chain that lost every step.

        Only warn if each is an alternative of the model itself: which of them runs is changed by a
        switch, and then the chain says who answers for this name.
        """
        lost = [
            name
            for name in self.router.order(section, [route.name])
            if name not in route.tried(section)
        ]
        reasons = "; ".join(
            f"{name}: {self.resolved.absent.get(name, 'not deployed')}" for name in lost
        )
        switched = self.chains.alternatives(route.name).issuperset(lost)
        self.add(
            "chain-lost",
            f'every step of the chain of "{route.name}" was left out ({reasons})',
            (section, route.name),
            "add a step that can run at the same time, if there is to be one"
            if switched
            else f"add a step that is deployed, or accept it: llm_overrides: "
            f'{{routing: {{{section}: {{"{route.name}": {{terminal: true}}}}}}}}',
            warning=switched,
        )

    def window(self, name: str) -> int | None:
        """Return the tokens of context of a model, the least of its deployments; None where one is
        not known from the catalogue.
        """
        found = [
            one.provider.engine.window(one.model, one.provider.settings)
            if one.provider.engine
            else one.model.context_length
            for one in self.resolved.deployments[name]
        ]
        known = [length for length in found if length is not None]
        return min(known) if len(known) == len(found) else None

    def check_windows(self, route: Route) -> None:
        """Warn of steps with a smaller context window than the model they replace."""
        window = self.window(route.name)
        for section in SECTIONS[:2]:
            smaller = [
                f'"{name}" ({length})'
                for name in route.tried(section)[1:]
                if window is not None
                and (length := self.window(name)) is not None
                and length < window
            ]
            if smaller and route.name in self.chains.of(section):
                self.add(
                    "context-shrinks",
                    f'the chain of "{route.name}" ({window} tokens) has steps with a smaller '
                    f"context: {listing(smaller)}",
                    (section, route.name),
                    "they refuse long conversations: raise context_length, or choose steps with at"
                    " least as much",
                    key=True,
                    warning=True,
                )

    def check_single_points(self, routes: list[Route]) -> None:
        """Chains that hang on one host or one provider: told once for each of those."""
        found: dict[str, list[str]] = {}
        # Where there is but one provider, no chain can do better.
        choice = len({deployment.provider_name for deployment in self.resolved.all()}) > 1
        for route in routes:
            members = [
                deployment
                for name in route.attempts
                for deployment in self.resolved.deployments[name]
            ]
            if len(route.attempts) == 1:
                continue  # No fallback, which is reported elsewhere or intended.
            hosts = {deployment.host for deployment in members}
            providers = {deployment.provider_name for deployment in members}
            # A host that is the only gateway too takes everything with it, whatever the chains say.
            if len(hosts) == 1 and hosts != {None} and hosts != self.gateways:
                found.setdefault(f"host {members[0].host}", []).append(route.name)
            # A step elsewhere that is left out is listed as such: the chain itself is well written.
            elif len(providers) == 1 and choice and not route.dropped:
                found.setdefault(f'provider "{members[0].provider_name}"', []).append(route.name)
        for place, names in found.items():
            chains = "chain" if len(names) == 1 else "chains"
            self.add(
                "single-point-of-failure",
                f"every step of the {chains} of {listing(names)} is on {place}: if it fails, all of"
                " them fail",
                ("fallbacks", names[0]),
                "add a step on another host or provider",
                key=True,
                warning=True,
            )
