"""What the models of one process, and the processes of one host, must not share."""

from __future__ import annotations

from collections.abc import Sequence
from posixpath import normpath

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.listeners import EngineServices
from modelyard.compiler.resolve import Deployment, Resolved
from modelyard.diagnostics import Diagnostic, Report, did_you_mean, listing

Process = Sequence[Deployment]

MADE_FROM = ("source", "context_length", "options")
"""Keys of a model that an engine which makes models puts into the model itself."""


def check_processes(model: Catalogue, resolved: Resolved, report: Report) -> None:
    """Check the names, the stores and what is preloaded, and how weights are quantized."""
    services = EngineServices(model)
    found = Report(report.source)
    hosts: dict[str, dict[tuple[str, str], list[Deployment]]] = {}
    for member in resolved.all():
        if member.host is not None:
            of = "" if member.engine.per_provider else member.base.name
            processes = hosts.setdefault(member.host, {})
            processes.setdefault((member.provider_name, of), []).append(member)
            _check_quantization(model, member, found)
    for processes in hosts.values():
        for members in processes.values():
            _check_names(members, found)
            _check_preloads(members, found)
        _check_stores([one[0] for one in processes.values()], services, found)
    # Hosts of one group have the same mistakes.
    once: dict[tuple[str, Path], Diagnostic] = {}
    for one in found.found:
        once.setdefault((one.code, one.path), one)
    report.found += once.values()


def _check_names(members: Process, report: Report) -> None:
    """Refuse models that their process would know by one name."""
    engine = members[0].engine
    known: dict[str, Deployment] = {}
    for member in members:
        model, name = member.model, engine.identity(member.model.served)
        other = known.setdefault(name, member)
        if other is member:
            continue
        differing = [key for key in MADE_FROM if getattr(model, key) != getattr(other.model, key)]
        if engine.per_provider and not differing:
            continue
        first, second = other.model.name, model.name
        key = "served_name" if model.served_name else "name"
        if engine.per_provider:
            message = (
                f'"{second}" and "{first}" are one model of {engine.title}, "{model.served}", with'
                f" another {listing(differing)}, which is part of the model"
            )
            hint = (
                f"give both the same {differing[0]}; for another one make one of them a model of a"
                " provider of its own, with its own port"
            )
        else:
            message = (
                f'"{second}" has the served_name of "{first}", "{model.served}", in one process'
            )
            hint = "give one of them another served_name; the default is its own name"
        report.error("duplicate-model", message, (*member.path, key), hint)


def _check_preloads(members: Process, report: Report) -> None:
    """Refuse more models that stay loaded than the process holds."""
    engine, provider = members[0].engine, members[0].provider
    key = engine.holds
    most = getattr(provider.settings, key) if key else None
    names = [member.model.name for member in members if member.model.preload]
    if key is not None and most is not None and len(names) > most:
        report.error(
            "invalid-value",
            f"{len(names)} models have preload ({listing(names)}), but {key} is {most}, so each"
            f" that {engine.title} loads ends another",
            ("providers", members[0].provider_name, provider.type, key),
            f"set {key} to {len(names)} if they fit, or preload: false for the others",
        )


def _check_stores(mains: Process, services: EngineServices, report: Report) -> None:
    """Refuse two processes of one host that would keep their models in one directory."""
    stores: list[tuple[str, Deployment]] = []
    for mine in mains:
        engine, settings = mine.engine, mine.provider.settings
        key = engine.keeps
        if key is None:
            continue
        store = "/" + normpath(engine.store(services.of(mine), settings)).strip("/")
        for other, rival in stores:
            if _within(store, other) or _within(other, store):
                # Of the two, blame one that somebody wrote.
                pair = [(mine, store), (rival, other)]
                if getattr(settings, key) is None:
                    pair.reverse()
                (blamed, place), (left, its) = pair
                name, kind = blamed.provider_name, blamed.provider.type
                report.error(
                    "invalid-value",
                    f'"{name}" would keep its models in {place}, and "{left.provider_name}" keeps'
                    f" its own in {its} of {mine.host}: two {engine.title} cannot share a store",
                    ("providers", name, kind, key),
                    "give each a directory of its own, or write the models of both under one of"
                    " them",
                )
        stores.append((store, mine))


def _within(place: str, other: str) -> bool:
    return place == other or place.startswith(f"{other}/")


def _check_quantization(model: Catalogue, member: Deployment, report: Report) -> None:
    """Refuse a quantization that the engine does not know."""
    engine, given = member.engine, member.model.quantization
    if given is None or not engine.quantizations or given in engine.quantizations:
        return
    entry = model.versions.of(engine.role) if model.versions else None
    version = entry.version if entry else None
    message = f'unknown value "{given}" for quantization of "{member.model.name}"'
    hint = did_you_mean(given, engine.quantizations) or (
        f"{engine.title} knows {listing(sorted(engine.quantizations), 40)}; without this key it"
        " reads what the model itself says"
    )
    path = (*member.path, "quantization")
    if version in (None, engine.quantizations_of):
        report.error("unknown-value", message, path, hint)
    else:
        message += f": {engine.title} {engine.quantizations_of} does not know it"
        report.warning("unknown-value", message, path, hint)
