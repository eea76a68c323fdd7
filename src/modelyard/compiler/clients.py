"""Applications with their own keys: what the compiler refuses, and what a gateway gets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.secrets import SecretView
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.resolve import Resolved, former_secrets
from modelyard.compiler.routes import Route
from modelyard.diagnostics import Report, did_you_mean, listing
from modelyard.names import OWN_SECRETS, SHORTEST_CLIENT_KEY, engine_secret


def check_clients(
    catalogue: Catalogue,
    public: Collection[str],
    resolved: Resolved,
    routes: Sequence[Route],
    views: Sequence[SecretView],
    report: Report,
) -> None:
    """Names that do not exist, secrets that are used elsewhere.

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
        for position, model in enumerate(client.models or ()):
            at = (*path, "models", position)
            if model in report.source.removed:
                place = report.source.removed[model] or "an unknown place"
                message = f'client "{name}" may use "{model}", which was removed at {place}'
                report.error("unknown-model", message, at, "remove it here, too")
            elif model not in public:
                message = f'client "{name}" may use "{model}", which no provider declares'
                report.error("unknown-model", message, at, did_you_mean(model, public))
            elif model in resolved.disabled:
                message = f'client "{name}" may use "{model}", but {resolved.absent[model]}'
                hint = "remove it here, or set the provider to status: active"
                report.error("model-not-deployed", message, at, hint)
        names = {*(client.models or ())} & {*public}
        if live and names and names.isdisjoint({*live, *resolved.disabled}):
            message = f'client "{name}" may use nothing: {listing(sorted(names))} is left out'
            hint = "plan says why; deploy it, or give the client another name"
            report.warning("name-unreachable", message, (*path, "models"), hint)


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
