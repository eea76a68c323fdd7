"""Providers times hosts times models: the deployments, and what is left out on purpose."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalogue.models import ENGINE_KEYS, Model
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path, SourceMap
from modelyard.diagnostics import Diagnostic, diagnose, did_you_mean, listing
from modelyard.engines import ENGINES
from modelyard.engines.base import Engine
from modelyard.names import OWN_SECRETS, deployment_id, engine_secret

BASE_MODELS = ("port", "hosts", "gpus", "vram_mib", "context_length", "quantization", "options")
"""Keys that a LoRA adapter shares with the model it belongs to."""


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
        return deployment_id(self.provider_name, self.host, self.model.name)

    @property
    def base(self) -> Model:
        """The model whose process serves this one: itself, or what it is an adapter of (if that exists)."""
        return next((model for model in self.provider.models if model.name == self.model.adapter_of), self.model)

    @property
    def engine(self) -> Engine:
        """What serves it. Only of a provider whose type is an engine's."""
        assert self.provider.engine is not None, "whoever asks has looked whether it has a host, or an engine's type"
        return self.provider.engine

    @property
    def port(self) -> int:
        """The port of an engine of ours."""
        port = self.base.port or self.provider.port
        assert port is not None, "the schema demands a port wherever there is a group"
        return port

    @property
    def where(self) -> str:
        return self.host or str(self.provider.base_url)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something left out on purpose: a provider, or a model of it. `reason` is a sentence for the user."""

    kind: str
    name: str
    reason: str
    models: tuple[str, ...]
    path: Path

    def as_dict(self, source: SourceMap) -> dict[str, Any]:
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
    """Names whose model is switched off for another one: whoever steps in for them answers."""
    left_out: list[LeftOut] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def all(self) -> list[Deployment]:
        return [deployment for members in self.deployments.values() for deployment in members]


def resolve(
    catalogue: Catalogue,
    groups: Mapping[str, Sequence[str]],
    secrets: frozenset[str],
    source: SourceMap,
    *,
    away: frozenset[str] = frozenset(),
    sound: bool,
) -> Resolved:
    """Place every model of every provider.

    `secrets` are the names defined, `away` the providers nobody is sent to for now. `sound` is false if the schema
    refused something: then nothing is called missing that may only have been cut out.
    """
    out = Resolved()
    index = _model_indices(source.tree)
    running = _running(catalogue, groups)
    inactive: dict[str, None] = {}
    first_path: dict[str, tuple[str, Model, Path]] = {}

    def error(code: str, message: str, path: Path, hint: str = "", *, key: bool = False) -> None:
        out.diagnostics.append(diagnose(source, code, message, path, hint, key=key))

    for name, provider in catalogue.providers.items():
        path: Path = ("providers", name)
        names = tuple(model.name for model in provider.models)
        if not provider.models and sound:
            error(
                "no-models",
                f'provider "{name}" has no models',
                path,
                "list at least one under models:, or remove it",
            )
        hosts = _hosts(name, provider, groups, error)
        reason, kind = "", "provider"
        secret = provider.api_key_env
        rival = running.get(provider.exclusive_group or "")
        if name in away:
            reason = "its model is being switched"
        elif provider.status == "disabled":
            reason = f'"{rival}" is the active one of {provider.exclusive_group}' if rival else "status: disabled"
        elif provider.group is not None and not hosts:
            reason = f"no host in group {provider.group}"
        elif secret in OWN_SECRETS:
            error(
                "secret-reserved",
                f'provider "{name}" would be given {secret}, a secret of Modelyard itself',
                (*path, "api_key_env"),
                "use a secret of the provider's own",
            )
        elif secret is not None and secret not in secrets:
            if provider.when_secret_missing == "skip":
                reason = f"secret {secret} is not defined (when_secret_missing: skip)"
            else:
                error(
                    "secret-undefined",
                    f'provider "{name}" needs secret {secret}, which is not defined',
                    (*path, "api_key_env"),
                    did_you_mean(secret, secrets)
                    or f"export {secret}, put it in llm_secrets or in .credentials/{secret} beside the "
                    "inventory, or set when_secret_missing: skip",
                )
        if is_keyed(provider) and provider.api_key_env is None:
            secret = engine_secret(name)
        if reason:
            out.left_out.append(LeftOut(kind, name, reason, names, path))
        if provider.active is not None and provider.active not in names and sound:
            error(
                "unknown-model",
                f'the active model of "{name}" is "{provider.active}", which is none of its models',
                (*path, "active"),
                did_you_mean(provider.active, names) or f"its models: {listing(names)}",
            )
        seen: set[str] = set()
        for model in provider.models:
            at: Path = (*path, "models", index.get((name, model.name), 0))
            if model.name in seen:
                error("duplicate-model", f'provider "{name}" has "{model.name}" twice', at, "keep one of them")
                continue
            seen.add(model.name)
            _check_model(name, provider, model, at, sound, error)
            asleep = reason
            if not reason and provider.active is not None and (model.adapter_of or model.name) != provider.active:
                asleep = f'"{provider.active}" is the active model of "{name}"'
                out.left_out.append(LeftOut("model", model.name, asleep, (model.name,), at))
            if provider.status == "disabled":
                pass  # An alternative that is switched off may have the name of the one that is on.
            elif model.name in first_path:
                other, other_model, other_path = first_path[model.name]
                if model.weight is None or other_model.weight is None:
                    error(
                        "duplicate-model",
                        f'"{model.name}" is a model of "{other}" too ({source.origin(other_path) or "?"})',
                        (*at, "name"),
                        "rename one; or, if both shall share the requests for this name, give both a weight",
                    )
                elif model.mode != other_model.mode:
                    error(
                        "duplicate-model",
                        f'"{model.name}" is {other_model.mode} at "{other}" but {model.mode} at "{name}"',
                        (*at, "mode"),
                        "rename one of them",
                    )
            else:
                first_path[model.name] = (name, model, at)
            if asleep:
                if model.name not in out.deployments:
                    out.absent[model.name] = f'provider "{name}": {asleep}'
                    if asleep != reason or name in away or (rival and provider.status == "disabled"):
                        inactive[model.name] = None
                    elif provider.status == "disabled":
                        out.disabled.add(model.name)
                continue
            members = _place(name, provider, model, hosts, secret, at, error)
            if members:
                out.deployments.setdefault(model.name, []).extend(members)
                out.absent.pop(model.name, None)
                out.disabled.discard(model.name)
    out.inactive = [name for name in inactive if name not in out.deployments]
    out.disabled -= inactive.keys()
    _check_exclusive(catalogue, groups, error)
    out.diagnostics += _lonely_weights(catalogue, index, source)
    return out


def is_keyed(provider: Provider) -> bool:
    """Whether it is an engine of ours that checks a key."""
    return provider.group is not None and provider.engine is not None and provider.engine.keyed


def _lonely_weights(
    catalogue: Catalogue, index: Mapping[tuple[str, str], int], source: SourceMap
) -> Iterator[Diagnostic]:
    """Weights of names that no second provider serves, not even a disabled one."""
    served = Counter(model.name for provider in catalogue.providers.values() for model in provider.models)
    for name, provider in catalogue.providers.items():
        for model in provider.models:
            if model.weight is not None and served[model.name] == 1:
                path: Path = ("providers", name, "models", index.get((name, model.name), 0), "weight")
                yield diagnose(
                    source,
                    "no-effect",
                    f'only "{name}" serves "{model.name}", so its weight changes nothing',
                    path,
                    "remove it; hosts of one group share the requests equally",
                    key=True,
                    severity="warning",
                )


def _running(catalogue: Catalogue, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """By exclusive group, the first provider that is active and has a host."""
    running: dict[str, str] = {}
    for name, provider in catalogue.providers.items():
        if provider.exclusive_group is not None and provider.status == "active" and groups.get(provider.group or ""):
            running.setdefault(provider.exclusive_group, name)
    return running


def _check_exclusive(catalogue: Catalogue, groups: Mapping[str, Sequence[str]], error: Any) -> None:
    owner: dict[tuple[str, str], str] = {}
    for name, provider in catalogue.providers.items():
        if provider.exclusive_group is None or provider.group is None or provider.status == "disabled":
            continue
        for host in dict.fromkeys(groups.get(provider.group, ())):
            other = owner.setdefault((provider.exclusive_group, host), name)
            if other != name:
                error(
                    "exclusive-group",
                    f'"{other}" and "{name}" exclude each other ({provider.exclusive_group}), '
                    f"but both are active on {host}",
                    ("providers", name, "exclusive_group"),
                    "set one of them to status: disabled, or take the host out of one group",
                )


def _hosts(name: str, provider: Provider, groups: Mapping[str, Sequence[str]], error: Any) -> list[str]:
    if provider.group is None:
        return []
    if provider.group not in groups:
        near = did_you_mean(provider.group, (group for group in groups if group.startswith("llm_")))
        define = f"define it in the inventory, empty if nothing shall run: {provider.group}: {{}}"
        error(
            "unknown-group",
            f'provider "{name}" names group "{provider.group}", which the inventory does not define',
            ("providers", name, "group"),
            f"{near} Or {define}" if near else define,
        )
        return []
    return list(dict.fromkeys(groups[provider.group]))


def _check_model(name: str, provider: Provider, model: Model, at: Path, sound: bool, error: Any) -> None:
    """Keys that need something else to make sense."""
    written = model.model_fields_set
    if provider.group is None:
        for key in ("source", "options", "hosts", "port", "gpus", "vram_mib", *ENGINE_KEYS):
            if key in written and getattr(model, key):
                error(
                    "invalid-value",
                    f'{key} has no effect on "{model.name}": provider "{name}" runs elsewhere',
                    (*at, key),
                    "remove it",
                    key=True,
                )
        return
    engine = provider.engine
    assert engine is not None, "the schema allows a group for types of engines only"
    for key in ENGINE_KEYS:
        if getattr(model, key) and key not in engine.keys:
            others = " and ".join(one.name for one in ENGINES if key in one.keys)
            error(
                "invalid-value",
                f'{key} has no effect on "{model.name}": it is for {others}, not {engine.name}',
                (*at, key),
                "remove it",
                key=True,
            )
    if model.adapter_of is not None:
        _check_adapter(name, provider, model, at, error)
    _check_source(name, provider.type, engine, model, at, sound, error)
    reserved = engine.reserved
    for option in model.options:
        if option in reserved:
            error(
                "invalid-value",
                f'option "{option}" of "{model.name}" is set by the unit itself, or reaches outside its sandbox',
                (*at, "options", option),
                "use the model's own keys: port, source, served_name, context_length, quantization",
                key=True,
            )


def _check_adapter(name: str, provider: Provider, model: Model, at: Path, error: Any) -> None:
    bases = [other.name for other in provider.models if other.adapter_of is None]
    if model.adapter_of not in bases:
        error(
            "unknown-model",
            f'"{model.name}" is an adapter of "{model.adapter_of}", which is no other model of "{name}"',
            (*at, "adapter_of"),
            did_you_mean(str(model.adapter_of), bases) or f"models of {name}: {listing(bases) or 'none'}",
        )
    for key in BASE_MODELS:
        if getattr(model, key):
            error(
                "invalid-value",
                f'{key} has no effect on "{model.name}": an adapter shares that of "{model.adapter_of}"',
                (*at, key),
                "remove it",
                key=True,
            )


def _check_source(name: str, kind: str, engine: Engine, model: Model, at: Path, sound: bool, error: Any) -> None:
    """A GGUF file or a directory, as the engine takes it."""
    source, directory = model.source, engine.takes == "directory"
    if source is None:
        if not engine.pulls and sound:
            error(
                "missing-key",
                f'model "{model.name}" of provider "{name}" has no source',
                at,
                "add source: {path: /...} or source: {repo: OWNER/NAME, revision: COMMIT}"
                if directory
                else "add source: {path: /...} or source: {url: ..., sha256: ...}",
            )
        return
    problem = ""
    if directory and source.url is not None:
        problem, hint = f"{engine.title} takes a directory, not one file", "name a path or a repo"
    elif directory and source.file is not None:
        problem, hint = f"{engine.title} takes the whole repository, not one file of it", "remove file"
    elif directory and source.sha256 is not None:
        problem, hint = "a directory has no checksum", "remove sha256"
    elif not directory and source.repo is not None and source.file is None:
        problem, hint = f"{kind} takes one file of the repository", "add file, the name of a .gguf file in it"
    if problem:
        error("invalid-value", f'the source of "{model.name}": {problem}', (*at, "source"), hint, key=True)


def _place(
    name: str, provider: Provider, model: Model, hosts: list[str], secret: str | None, at: Path, error: Any
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
                "remove hosts or list one",
            )
        for position, host in enumerate(model.hosts):
            if host not in hosts and hosts:
                error(
                    "unknown-host",
                    f'"{model.name}" is placed on "{host}", which is not in group {provider.group}',
                    (*at, "hosts", position),
                    did_you_mean(host, hosts) or f"hosts of {provider.group}: {listing(hosts)}",
                )
        hosts = [host for host in hosts if host in model.hosts]
    return [Deployment(name, provider, model, host, secret, at) for host in hosts]


def _model_indices(tree: Any) -> dict[tuple[str, str], int]:
    """Where each model stands in the tree as it was written (refused ones are cut out of the catalogue)."""
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


def is_own_address(address: str) -> bool:
    """True for an IP address that other hosts can reach."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (ip.is_loopback or ip.is_unspecified)
