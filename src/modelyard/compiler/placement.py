"""Places the models of all hosts on the GPUs that the inventory declares (gpu/fit.py has the
algorithm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelyard.catalogue.hosts import Gpu
from modelyard.catalogue.sourcemap import Path
from modelyard.catalogue.versions import Versions
from modelyard.compiler.resolve import Deployment, Resolved
from modelyard.diagnostics import Diagnostic, Report
from modelyard.gpu.fit import Card, Memory, Part, Process, Refusal, largest, place


@dataclass(slots=True)
class Load:
    """One declared GPU, and the models on it with the MiB each takes there (None if not
    declared).
    """

    index: int
    gpu: Gpu
    models: list[tuple[str, float | None]]


@dataclass(slots=True)
class Placement:
    """The GPUs of each host that declares some, and by its id the GPUs (index or UUID) of each
    deployment. `on_cpu` are the ids of those that use none, because of how their engine is built.
    """

    loads: dict[str, list[Load]] = field(default_factory=dict)
    gpus: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    on_cpu: set[str] = field(default_factory=set)


def place_on_gpus(
    resolved: Resolved,
    declared: Mapping[str, Sequence[Gpu]],
    versions: Versions | None,
    report: Report,
) -> Placement:
    """Place the models of every host of ours; on hosts that do not declare their GPUs only `gpus`
    as written is passed on.

    A model whose engine is built for CPUs there (`versions`) is not placed.
    """
    out = Placement()
    told = Report(report.source)
    by_host: dict[str, dict[tuple[str, str], list[Deployment]]] = {}
    for member in resolved.all():
        if member.host is None:
            continue
        backend = versions.backend(member.engine) if versions else None
        without = member.host in declared and not declared[member.host]
        if backend == "cpu" or (backend == "auto" and without):
            out.on_cpu.add(member.id)
        if backend == "cpu":
            _warn(member, told)
        elif backend == "cuda" and without:
            _refuse_build(member, told)
        elif member.id not in out.on_cpu:
            # An adapter lives in the process of its base model.
            of = "" if member.engine.per_provider else member.base.name
            by_host.setdefault(member.host, {}).setdefault((member.provider_name, of), []).append(
                member
            )
    for host in dict.fromkeys([*declared, *by_host]):
        served = list(by_host.get(host, {}).values())
        processes = [_process(members) for members in served]
        cards = [_declared_card(index, gpu) for index, gpu in enumerate(declared.get(host, ()))]
        if host in declared:
            placed, refusals = place(processes, cards, host, "which does not declare it")
            out.loads[host] = [
                Load(index, gpu, [(part.model, part.mib) for part in card.memory.ours])
                for index, (gpu, card) in enumerate(zip(declared[host], cards, strict=True))
            ]
        else:
            placed, refusals = (
                {index: process.gpus for index, process in enumerate(processes) if process.gpus},
                [],
            )
        for index, gpus in placed.items():
            out.gpus.update({member.id: gpus for member in served[index]})
        for refusal in refusals:
            _tell(refusal, served[refusal.process], told)
    report.found += _once(told.found)
    return out


def _warn(member: Deployment, report: Report) -> None:
    """Say which keys of a model change nothing because its engine uses no GPUs."""
    role = member.engine.role
    for key in ("gpus", "vram_mib"):
        if getattr(member.model, key) is not None:
            report.warning(
                "no-effect",
                f'{key} of "{member.model.name}" has no effect: llm_versions.{role}.backend is cpu',
                (*member.path, key),
                f"remove it, or set llm_versions.{role}.backend to auto or cuda",
                key=True,
            )


def _refuse_build(member: Deployment, report: Report) -> None:
    """Refuse a host without GPUs for an engine that is built for them."""
    role = member.engine.role
    report.error(
        "unknown-gpu",
        f"{member.engine.title} is built for GPUs, and {member.host} has none (llm_gpus: [])",
        ("providers", member.provider_name, "group"),
        f"set llm_versions.{role}.backend to auto, which chooses for each host, or take "
        f"{member.host} out of group {member.provider.group}",
    )


def _process(members: Sequence[Deployment]) -> Process:
    provider = members[0].provider
    parts = [
        Part(member.model.name, member.model.vram_mib)
        for member in members
        if member.model.adapter_of is None
    ]
    models = [member.model for member in members]
    if (at_once := members[0].engine.at_once(provider.settings, models)) is not None:
        parts = list(largest(parts, at_once))
    gpus = dict.fromkeys(gpu for member in members for gpu in member.model.gpus or ())
    return Process(tuple(parts), tuple(gpus))


def _declared_card(index: int, gpu: Gpu) -> Card:
    # A MIG instance is found by its UUID alone.
    mig = gpu.uuid is not None and gpu.uuid.startswith("MIG-")
    names = (index, gpu.uuid) if gpu.uuid is not None else (index,)
    return Card(
        gpu.uuid if mig and gpu.uuid else index, f"GPU {index}", names, Memory(gpu.memory_mib)
    )


def _tell(refusal: Refusal, members: Sequence[Deployment], report: Report) -> None:
    if refusal.code == "unknown-gpu":
        member = next(member for member in members if member.model.gpus)
        path: Path = (*member.path, "gpus", refusal.position or 0)
        report.error(refusal.code, refusal.message, path, f"llm_gpus of {refusal.hint}")
        return
    member = max(members, key=lambda member: member.model.vram_mib or 0)
    report.error(refusal.code, refusal.message, (*member.path, "vram_mib"), refusal.hint)


def _once(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic per model, however many hosts it is about."""
    by_place: dict[tuple[str, Path], list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        by_place.setdefault((diagnostic.code, diagnostic.path), []).append(diagnostic)
    return [
        replace(same[0], message=f"{same[0].message} (and so on {len(same) - 1} more)")
        if len(same) > 1
        else same[0]
        for same in by_place.values()
    ]
