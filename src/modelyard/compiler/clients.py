"""Applications with their own keys: what the compiler refuses, and what a gateway gets."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.secrets import SecretView
from modelyard.catalogue.sourcemap import Path, SourceMap
from modelyard.compiler.resolve import Resolved, former_secrets
from modelyard.compiler.routes import Route
from modelyard.diagnostics import Diagnostic, Report, did_you_mean, listing, variable_path
from modelyard.names import OWN_SECRETS, SHORTEST_CLIENT_KEY, engine_secret


def check_clients(
    catalogue: Catalogue,
    public: Collection[str],
    resolved: Resolved,
    routes: Sequence[Route],
    views: Sequence[SecretView],
    report: Report,
) -> None:
    """Secrets that are used elsewhere, clients that may use nothing.

    `public` are all names that clients can ask for, those of refused models too, `routes` those of
    them that are served (none if that is not known), `views` what hosts see of the secrets.
    """
    owners = dict(other_secrets(catalogue))
    short = {name for view in views for name, seen in view.secrets.items() if seen.short}
    live = {route.name for route in routes}
    for name, client in catalogue.clients.items():
        path: Path = ("clients", name)
        owner = owners.setdefault(client.secret, f'client "{name}"')
        if owner != f'client "{name}"':
            report.error(
                "secret-shared",
                f'client "{name}" uses {client.secret}, which is also a secret of {owner}',
                (*path, "secret"),
                "name another secret; it is generated if it is not defined",
            )
        elif client.secret in short:
            report.error(
                "secret-too-short",
                f'{client.secret}, the key of client "{name}", has fewer than {SHORTEST_CLIENT_KEY}'
                " characters",
                (*path, "secret"),
                "hosts store its hash, from which a short key could be guessed; delete it where "
                "it is defined, and one is generated",
            )
        names = {*(client.models or ())} & {*public}
        if live and names and names.isdisjoint({*live, *resolved.disabled}):
            message = f'client "{name}" may use nothing: {listing(sorted(names))} is left out'
            hint = "plan says why; deploy it, or give the client another name"
            report.warning("name-unreachable", message, (*path, "models"), hint)


def asked_names(tree: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return the names that clients may ask for, with their places, of refused clients, too."""
    clients = tree.get("clients")
    found: list[tuple[Path, str]] = []
    for name, client in clients.items() if isinstance(clients, Mapping) else ():
        models = client.get("models") if isinstance(client, Mapping) else None
        for position, model in enumerate(models if isinstance(models, list) else ()):
            if isinstance(model, str):
                found.append((("clients", name, "models", position), model))
    return found


def check_asked(
    catalogue: Catalogue,
    asked: Iterable[tuple[Path, str]],
    public: Collection[str],
    resolved: Resolved,
    source: SourceMap,
    told: Collection[Path],
) -> list[Diagnostic]:
    """Return what is wrong with the names that clients may ask for, but for places in `told`."""
    report = Report(source)
    for at, model in asked:
        client = f'client "{at[1]}" may use "{model}"'
        if variable_path(at) in told:
            continue
        if model in source.removed:
            place = source.removed[model] or "an unknown place"
            report.error(
                "unknown-model",
                f"{client}, which was removed at {place}",
                at,
                "remove it here, too",
            )
        elif model not in public:
            why, hint = no_name(catalogue, resolved, model)
            hint = hint or did_you_mean(model, public)
            hint = hint or "add it to the models of a provider, or remove it here"
            report.error("unknown-model", f"{client}, {why}", at, hint)
        elif model in resolved.disabled:
            hint = "remove it here, or set the provider to status: active"
            report.error("model-not-deployed", f"{client}, but {resolved.absent[model]}", at, hint)
    return report.found


def no_name(catalogue: Catalogue, resolved: Resolved, name: str) -> tuple[str, str]:
    """Return why nothing has a name, and the hint if it is a provider's."""
    provider = catalogue.providers.get(name)
    if provider is None:
        return "which no provider declares", ""
    models = [one.name for one in provider.models if one.name not in resolved.disabled]
    hint = f"name its models: {listing(json.dumps(one) for one in models)}" if models else ""
    return "which is a provider, not a model", hint


def other_secrets(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Secrets that are no client's, with who has them."""
    for secret in sorted(OWN_SECRETS):
        yield secret, "Modelyard itself"
    for secret, of in former_secrets(catalogue).items():
        yield secret, f"Modelyard itself, where it keeps the former value of {of}"
    for name, provider in catalogue.providers.items():
        if provider.api_key_env is not None:
            yield provider.api_key_env, f'provider "{name}"'
        elif provider.group is not None:
            yield engine_secret(name), f'provider "{name}"'
    if catalogue.versions and catalogue.versions.hugging_face.token_env:
        yield catalogue.versions.hugging_face.token_env, "llm_versions.hugging_face"
    if catalogue.monitoring:
        settings = catalogue.monitoring.alertmanager
        if settings.webhook and settings.webhook.token_env:
            yield settings.webhook.token_env, "Alertmanager"
        if settings.email and settings.email.password_env:
            yield settings.email.password_env, "Alertmanager"
