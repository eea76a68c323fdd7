"""Providers times hosts times models: the deployments, and what is left out on purpose."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalogue.models import Model
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.secrets import nearest_secret
from modelyard.catalogue.sourcemap import Path, SourceMap
from modelyard.compiler.models import check_model
from modelyard.compiler.vectors import SAY_SO, strangers
from modelyard.diagnostics import Report, did_you_mean, listing, misspelt_choice
from modelyard.engines.base import Engine
from modelyard.names import (
    GATEWAY_WORDS,
    OWN_SECRETS,
    PROCESS_VARIABLES,
    deployment_id,
    engine_secret,
    former,
)
from modelyard.urls import corrected

Key = tuple[str, str | None, str]
"""A provider, a host (None: elsewhere) and a model: one deployment."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model of one provider, on one host (or elsewhere: `host` is None)."""

    provider_name: str
    provider: Provider
    model: Model
    host: str | None
    secret: str | None
    path: Path

    @property
    def id(self) -> str:
        """Its id in the gateway's document (`deployment_id`): that of all its hosts."""
        return deployment_id(self.provider_name, self.model.name)

    @property
    def key(self) -> Key:
        """What no other deployment has."""
        return self.provider_name, self.host, self.model.name

    @property
    def base(self) -> Model:
        """The model whose process serves this one: itself, or what it is an adapter of (if that
        exists).
        """
        if self.model.adapter_of is None:
            return self.model
        return next(
            (model for model in self.provider.models if model.name == self.model.adapter_of),
            self.model,
        )

    @property
    def engine(self) -> Engine:
        """What serves it. Only of a provider whose type is an engine's."""
        assert self.provider.engine is not None, (
            "callers ask only about deployments with a host or an engine"
        )
        return self.provider.engine

    @property
    def port(self) -> int:
        """The port of an engine of ours."""
        port = self.base.port or self.provider.port
        assert port is not None, "the schema requires a port if there is a group"
        return port

    @property
    def where(self) -> str:
        """Its host, or the base URL of what runs elsewhere."""
        return self.host or str(self.provider.base_url)

    @property
    def served_by(self) -> tuple[str | None, ...]:
        """What answers in the end: the process or the address, the account there, and what it calls
        the model. Two names with the same one fail together.
        """
        engine, served = self.provider.engine, self.model.served
        name = engine.identity(served) if engine else served
        if self.host is None:
            url = corrected(self.provider.type, str(self.provider.base_url))[0]
            return ("", url.removesuffix("/v1").lower(), self.secret, name)
        per_provider = engine is not None and engine.per_provider
        process = "" if per_provider else self.base.name
        return (self.host, self.provider_name, process, name)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something left out on purpose: a provider, or a model of it. `reason` is a sentence for the
    user.
    """

    kind: str
    name: str
    reason: str
    models: tuple[str, ...]
    path: Path

    def as_dict(self, source: SourceMap) -> dict[str, Any]:
        """Return the same as JSON-able data. `origin` is text, empty if it is not known."""
        origin = source.origin(self.path)
        return {
            "kind": self.kind,
            "name": self.name,
            "reason": self.reason,
            "models": list(self.models),
            "origin": str(origin) if origin else "",
        }


@dataclass(slots=True)
class Resolved:
    """What is deployed, by public name in catalogue order; what is not, and why, by public name."""

    deployments: dict[str, list[Deployment]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    inactive: list[str] = field(default_factory=list)
    """Names whose model is switched off for another one: their fallbacks answer."""
    left_out: list[LeftOut] = field(default_factory=list)

    def all(self) -> list[Deployment]:
        """Return all deployments, by public name in catalogue order."""
        return [deployment for members in self.deployments.values() for deployment in members]


def resolve(
    catalogue: Catalogue,
    groups: Mapping[str, Sequence[str]],
    secrets: frozenset[str],
    report: Report,
    *,
    away: frozenset[str] = frozenset(),
    empty: frozenset[str] = frozenset(),
    sound: bool,
) -> Resolved:
    """Place every model of every provider.

    `secrets` are the names defined, `empty` those that are set to nothing, of which `check_values`
    tells, `away` the providers that get no requests for now. `sound` is false if the schema refused
    something: then nothing is called missing that may only have been cut out.
    """
    resolver = _Resolver(catalogue, groups, secrets, away, empty, report, sound)
    for name, provider in catalogue.providers.items():
        resolver.provider(name, provider)
    out = resolver.out
    out.inactive = [name for name in resolver.inactive if name not in out.deployments]
    out.disabled -= resolver.inactive.keys()
    _check_exclusive(catalogue, groups, report.error)
    _check_processes(out, report)
    _check_weights(catalogue, resolver.index, report)
    return out


class _Resolver:
    """What is known while the providers are placed, one after the other."""

    def __init__(
        self,
        catalogue: Catalogue,
        groups: Mapping[str, Sequence[str]],
        secrets: frozenset[str],
        away: frozenset[str],
        empty: frozenset[str],
        report: Report,
        sound: bool,
    ) -> None:
        self.catalogue = catalogue
        self.groups, self.secrets, self.away, self.report, self.sound = (
            groups,
            secrets,
            away,
            report,
            sound,
        )
        self.empty = empty
        self.out = Resolved()
        self.index = _model_indices(report.source.tree)
        self.running = _running(catalogue, groups)
        self.reserved = OWN_SECRETS | former_secrets(catalogue).keys()
        clients = {client.secret for client in catalogue.clients.values()}
        self.taken = self.reserved | PROCESS_VARIABLES | clients
        self.inactive: dict[str, None] = {}
        self.first: dict[str, tuple[str, Model, Path]] = {}
        """By public name, the first provider that has it, and where."""

    def provider(self, name: str, provider: Provider) -> None:
        """Place the models of one provider."""
        path: Path = ("providers", name)
        names = tuple(model.name for model in provider.models)
        if not provider.models and self.sound:
            self.report.error(
                "no-models",
                f'provider "{name}" has no models',
                (*path, "models"),
                "list at least one under models:, or remove it",
                key=True,
            )
        hosts = _hosts(name, provider, self.catalogue, self.groups, self.report.error)
        reason = self.left_out(name, provider, hosts)
        if reason:
            self.out.left_out.append(LeftOut("provider", name, reason, names, path))
        if provider.active is not None and provider.active not in names and self.sound:
            self.report.error(
                "unknown-model",
                f'active model "{provider.active}" is not a model of provider "{name}"',
                (*path, "active"),
                did_you_mean(provider.active, names) or f"its models: {listing(names)}",
            )
        seen: set[str] = set()
        for model in provider.models:
            at: Path = (*path, "models", self.index.get((name, model.name), 0))
            if model.name in seen:
                message = f'provider "{name}" has two models named "{model.name}"'
                self.report.error("duplicate-model", message, at, "keep one of them")
                continue
            seen.add(model.name)
            self.model(name, provider, model, at, hosts, reason)

    def why_secret(self, name: str) -> Path:
        """Return what makes a provider need its secret: who switches on a shipped provider did
        not write its `api_key_env`.
        """
        keys: list[Path] = [("providers", name, key) for key in ("api_key_env", "status")]
        return next(filter(self.report.source.overrides, keys), keys[0])

    def left_out(self, name: str, provider: Provider, hosts: Sequence[str]) -> str:
        """Why a provider is left out; empty if it is not. A secret that it lacks may be an error
        instead.
        """
        secret, at = provider.api_key_env, self.why_secret(name)
        rival = self.running.get(provider.exclusive_group or "")
        if name in self.away:
            return "its model is being switched"
        if provider.status == "disabled":
            return (
                f'"{rival}" is active in {provider.exclusive_group}'
                if rival
                else "status: disabled"
            )
        if provider.group is not None and not hosts:
            return f"no host in group {provider.group}"
        if secret in self.reserved:
            self.report.error(
                "secret-reserved",
                f'provider "{name}" uses {secret}, a secret of Modelyard itself',
                at,
                "use a separate secret for the provider",
            )
        elif secret in PROCESS_VARIABLES:
            self.report.error(
                "secret-reserved",
                f'provider "{name}" uses {secret}, a variable that the gateway\'s own process reads',
                at,
                "give the secret another name, such as the provider's with _API_KEY",
            )
        elif secret is not None and secret not in self.secrets:
            if provider.when_secret_missing == "skip":
                return f"secret {secret} is not defined (when_secret_missing: skip)"
            if secret in self.empty:
                return ""
            self.report.error(
                "secret-undefined",
                f'provider "{name}" needs secret {secret}, which is not defined',
                at,
                nearest_secret(secret, self.secrets - self.taken)
                or (
                    f"export {secret}, define it in llm_secrets or in .credentials/{secret} "
                    "beside the inventory, or set when_secret_missing: skip"
                ),
            )
        return ""

    def model(
        self, name: str, provider: Provider, model: Model, at: Path, hosts: list[str], reason: str
    ) -> None:
        """Place one model, or note why it is not there: `reason` is that of its provider."""
        check_model(name, provider, model, at, self.sound, self.report.error)
        asleep = reason
        if (
            not reason
            and provider.active is not None
            and (model.adapter_of or model.name) != provider.active
        ):
            asleep = f'"{provider.active}" is the active model of "{name}"'
            self.out.left_out.append(LeftOut("model", model.name, asleep, (model.name,), at))
        # An alternative that is switched off may have the name of the one that is on.
        if provider.status != "disabled":
            self.check_name(name, model, at)
        if asleep:
            self.absent(name, provider, model.name, asleep, own=asleep != reason)
            return
        secret = provider.api_key_env or (engine_secret(name) if is_keyed(provider) else None)
        members = _place(name, provider, model, hosts, secret, at, self.report.error)
        if members:
            self.out.deployments.setdefault(model.name, []).extend(members)
            self.out.absent.pop(model.name, None)
            self.out.disabled.discard(model.name)

    def absent(self, name: str, provider: Provider, model: str, asleep: str, *, own: bool) -> None:
        """Note a public name whose model does not run. `own`: it is the model that is left out, not
        its provider.
        """
        if model in self.out.deployments:
            return
        self.out.absent[model] = f'provider "{name}": {asleep}'
        disabled = provider.status == "disabled"
        if (
            own
            or name in self.away
            or (disabled and self.running.get(provider.exclusive_group or ""))
        ):
            self.inactive[model] = None
        elif disabled:
            self.out.disabled.add(model)

    def check_name(self, name: str, model: Model, at: Path) -> None:
        """Two providers may share a public name if both say how much of the requests they take."""
        if model.name in GATEWAY_WORDS:
            self.report.error(
                "shadowed-name",
                f'"{model.name}" is a word that the gateway uses itself',
                (*at, "name"),
                "give it another name, and this one as served_name",
            )
        if model.name not in self.first:
            self.first[model.name] = (name, model, at)
            return
        other, other_model, other_path = self.first[model.name]
        if model.weight is None or other_model.weight is None:
            self.report.error(
                "duplicate-model",
                f'"{model.name}" is also a model of "{other}"'
                f" ({self.report.source.origin(other_path) or '?'})",
                (*at, "name"),
                "rename one, or give both a weight to share the requests for this name",
            )
        elif model.mode != other_model.mode:
            self.report.error(
                "duplicate-model",
                f'"{model.name}" is {other_model.mode} at "{other}" but {model.mode} at "{name}"',
                (*at, "mode"),
                "rename one of them",
            )
        elif strangers([other_model, model]):
            self.report.error(
                "chain-vectors",
                f'"{model.name}" is another embedding model at "{other}" than at "{name}": clients'
                " would get vectors of both",
                (*at, "name"),
                f"{SAY_SO}; rename one of them",
            )


def is_keyed(provider: Provider) -> bool:
    """Return whether a provider runs an engine of ours that checks a key."""
    return provider.group is not None and provider.engine is not None and provider.engine.keyed


def former_secrets(catalogue: Catalogue) -> dict[str, str]:
    """Return the names under which former values of secrets of ours are kept, with those of the
    secrets.
    """
    engines = (
        engine_secret(name) for name, provider in catalogue.providers.items() if is_keyed(provider)
    )
    return {former(secret): secret for secret in (*sorted(OWN_SECRETS), *engines)}


def _check_processes(resolved: Resolved, report: Report) -> None:
    """Two providers that share a public name on one host: their processes would be one unit, and
    the gateway would call the other where nobody listens.
    """
    told: set[str] = set()
    for name, members in resolved.deployments.items():
        first: dict[tuple[str | None, str], Deployment] = {}
        for one in members:
            if one.host is None or one.engine.per_provider or name in told:
                continue
            other = first.setdefault((one.host, one.engine.role), one)
            if other.provider_name != one.provider_name:
                told.add(name)
                report.error(
                    "duplicate-model",
                    f'"{name}" is a model of "{other.provider_name}" and of "{one.provider_name}"'
                    f" on {one.host}, and a host has one process of a name",
                    (*one.path, "name"),
                    "rename one of them, or keep them apart with hosts: [...]; a capability lists"
                    " both under one name",
                )


def _check_weights(
    catalogue: Catalogue, index: Mapping[tuple[str, str], int], report: Report
) -> None:
    """Weights of names that no second provider serves, not even a disabled one."""
    served = Counter(
        model.name for provider in catalogue.providers.values() for model in provider.models
    )
    for name, provider in catalogue.providers.items():
        for model in provider.models:
            if model.weight is not None and served[model.name] == 1:
                path: Path = (
                    "providers",
                    name,
                    "models",
                    index.get((name, model.name), 0),
                    "weight",
                )
                report.warning(
                    "no-effect",
                    f'only "{name}" serves "{model.name}", so its weight has no effect',
                    path,
                    "remove it; hosts of one group share the requests equally",
                    key=True,
                )


def _running(catalogue: Catalogue, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """By exclusive group, the first provider that is active and has a host."""
    running: dict[str, str] = {}
    for name, provider in catalogue.providers.items():
        if (
            provider.exclusive_group is not None
            and provider.status == "active"
            and groups.get(provider.group or "")
        ):
            running.setdefault(provider.exclusive_group, name)
    return running


def _check_exclusive(catalogue: Catalogue, groups: Mapping[str, Sequence[str]], error: Any) -> None:
    owner: dict[tuple[str, str], str] = {}
    for name, provider in catalogue.providers.items():
        if (
            provider.exclusive_group is None
            or provider.group is None
            or provider.status == "disabled"
        ):
            continue
        for host in dict.fromkeys(groups.get(provider.group, ())):
            other = owner.setdefault((provider.exclusive_group, host), name)
            if other != name:
                error(
                    "exclusive-group",
                    f'"{other}" and "{name}" exclude each other ({provider.exclusive_group}), '
                    f"but both are active on {host}",
                    ("providers", name, "exclusive_group"),
                    "set one of them to status: disabled, or remove the host from one group",
                )


def _group_meant(name: str, group: str, catalogue: Catalogue, groups: Iterable[str]) -> str:
    """Return which group the provider may mean. One that another provider names is its own, unless
    this can only be a misspelling of it.
    """
    near = did_you_mean(group, (one for one in groups if one.startswith("llm_")))
    for other, provider in catalogue.providers.items():
        taken = provider.group
        if other != name and taken and f'"{taken}"' in near and not misspelt_choice(group, [taken]):
            return ""
    return near


def _hosts(
    name: str,
    provider: Provider,
    catalogue: Catalogue,
    groups: Mapping[str, Sequence[str]],
    error: Any,
) -> list[str]:
    if provider.group is None:
        return []
    if provider.group not in groups:
        near = _group_meant(name, provider.group, catalogue, groups)
        define = f"define it in the inventory; it may be empty: {provider.group}: {{}}"
        error(
            "unknown-group",
            f'provider "{name}" names group "{provider.group}", which the inventory does not'
            " define",
            ("providers", name, "group"),
            f"{near} Or {define}" if near else define,
        )
        return []
    return list(dict.fromkeys(groups[provider.group]))


def _place(
    name: str,
    provider: Provider,
    model: Model,
    hosts: list[str],
    secret: str | None,
    at: Path,
    error: Any,
) -> list[Deployment]:
    if provider.group is None:
        return [Deployment(name, provider, model, None, secret, at)]
    if model.adapter_of is not None:
        base = next((other for other in provider.models if other.name == model.adapter_of), model)
        hosts = [host for host in hosts if base.hosts is None or host in base.hosts]
    if model.hosts is not None:
        if not model.hosts and hosts:
            error(
                "invalid-value",
                f'"{model.name}" is placed on no host',
                (*at, "hosts"),
                "remove hosts, or list a host",
            )
        for position, host in enumerate(model.hosts):
            if host not in hosts and hosts:
                error(
                    "unknown-host",
                    f'"{model.name}" is placed on "{host}", which is not in group {provider.group}',
                    (*at, "hosts", position),
                    _no_pattern(host, str(provider.group))
                    or did_you_mean(host, hosts)
                    or f"hosts of {provider.group}: {listing(hosts)}",
                )
        hosts = [host for host in hosts if host in model.hosts]
    return [Deployment(name, provider, model, host, secret, at) for host in hosts]


def _no_pattern(host: str, group: str) -> str:
    """Return what to write in place of a pattern of hosts, as Ansible's --limit takes it.
    Empty if it is none.
    """
    if not re.search(r"[][*!&,:]", host):
        return ""
    return (
        "list the hosts by their names, or write a template:"
        f""" "{{{{ groups['{group}'] | difference(['HOST']) }}}}\""""
    )


def _model_indices(tree: Any) -> dict[tuple[str, str], int]:
    """Where each model stands in the tree as it was written (refused ones are cut out of the
    catalogue).
    """
    indices: dict[tuple[str, str], int] = {}
    providers = tree.get("providers")
    if isinstance(providers, Mapping):
        for provider, entry in providers.items():
            models = entry.get("models") if isinstance(entry, Mapping) else None
            if isinstance(models, Sequence) and not isinstance(models, str | bytes):
                for position, model in enumerate(models):
                    if isinstance(model, Mapping) and isinstance(model.get("name"), str):
                        indices[(str(provider), str(model["name"]))] = position
    return indices
