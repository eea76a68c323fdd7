"""The routing of a catalogue: checked, then expanded into the routes of its public names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.catalogue.schema import Catalogue
from modelyard.compiler.alike import check_alike
from modelyard.compiler.chain_checks import ChainChecks
from modelyard.compiler.chains import Chains
from modelyard.compiler.resolve import Resolved
from modelyard.compiler.route_checks import RouteChecks
from modelyard.compiler.routes import Route, Router
from modelyard.diagnostics import Report


def build_routes(
    catalogue: Catalogue,
    resolved: Resolved,
    declared: frozenset[str],
    public: frozenset[str],
    gateways: frozenset[str],
    report: Report,
    *,
    sound: bool,
) -> tuple[Route, ...]:
    """Check the routing and expand it: models, then aliases and capabilities, in the catalogue's
    order.

    `declared` are all model names written anywhere, refused ones too, `public` those with aliases
    and capabilities. With `sound` false (something
    was refused before), what is merely absent is not reported.
    """
    chains = Chains(catalogue, declared, public)
    ChainChecks(chains, resolved, report).check()
    check_alike(catalogue, report)
    routes: list[Route] = []
    if not report.has_errors:
        router = Router(chains, resolved)
        routes = router.build()
        if sound:
            RouteChecks(router, gateways, report).check(routes)
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
    sections = (
        [routing.get(key) for key in ("aliases", "capabilities")]
        if isinstance(routing, Mapping)
        else []
    )
    return declared_names(tree).union(
        *(map(str, section) for section in sections if isinstance(section, Mapping))
    )
