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
    """What can be said once everything has its place. Only a chain that lost every step is an
    error.
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
        """Check what is known once everything has its place. Only a lost chain is an error."""
        models = [route for route in routes if route.kind == "model"]
        for route in models:
            self.check_lost(route)
            self.check_windows(route)
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
        """Warn of a model without any fallback declared; look for chains none of whose steps is
        deployed.
        """
        if route.name not in self.routing.fallbacks and not self.chains.defaults(route.name):
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
            if self.chains.written(section, route.name) and len(attempts) == 1:
                self.add_lost(section, route)

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

    def check_windows(self, route: Route) -> None:
        """Warn of steps with a smaller context window than the model they replace."""
        window = self.models[route.name].context_length
        for section in SECTIONS[:2]:
            smaller = [
                f'"{name}" ({length})'
                for name in route.tried(section)[1:]
                if window is not None
                and (length := self.models[name].context_length) is not None
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
            elif len(providers) == 1 and choice:
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
