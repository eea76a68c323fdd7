"""Places the models of all hosts on the GPUs that the inventory declares (gpu/fit.py has the
algorithm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, inf

from modelyard.catalogue.hosts import Gpu
from modelyard.catalogue.sourcemap import Origin, Path
from modelyard.catalogue.versions import Versions
from modelyard.compiler.resolve import Deployment, Key, Resolved
from modelyard.diagnostics import Diagnostic, Report, listing
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
    deployment. `shares` are the parts of their memory that are what its `vram_mib` says, of those
    whose engine reserves a part. `on_cpu` are the ids of those that use none, because of how their
    engine is built.
    """

    loads: dict[str, list[Load]] = field(default_factory=dict)
    gpus: dict[Key, tuple[int | str, ...]] = field(default_factory=dict)
    shares: dict[Key, str] = field(default_factory=dict)
    on_cpu: set[Key] = field(default_factory=set)


def place_on_gpus(
    resolved: Resolved,
    declared: Mapping[str, Sequence[Gpu]],
    versions: Versions | None,
    report: Report,
    places: Mapping[str, Origin | None],
) -> Placement:
    """Place the models of every host of ours; on hosts that do not declare their GPUs only `gpus`
    as written is passed on.

    A model whose engine is built for CPUs there (`versions`) is not placed. `places` are where
    hosts declare their GPUs.
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
            out.on_cpu.add(member.key)
        if backend == "cpu":
            _warn(member, told)
        elif backend == "cuda" and without:
            _refuse_build(member, places.get(member.host), told)
        elif member.key not in out.on_cpu:
            # An adapter lives in the process of its base model.
            of = "" if member.engine.per_provider else member.base.name
            by_host.setdefault(member.host, {}).setdefault((member.provider_name, of), []).append(
                member
            )
    for host in dict.fromkeys([*declared, *by_host]):
        _place_on_host(host, list(by_host.get(host, {}).values()), declared.get(host), out, told)
    report.found += _once(told.found)
    return out


def _place_on_host(
    host: str,
    served: Sequence[Sequence[Deployment]],
    gpus: Sequence[Gpu] | None,
    out: Placement,
    report: Report,
) -> None:
    """Place the processes of one host, each of some deployments, on its GPUs, if it declares
    them.
    """
    processes = [_process(members, known=gpus is not None) for members in served]
    if gpus is not None:
        cards = [_declared_card(index, gpu) for index, gpu in enumerate(gpus)]
        _note_uncounted(served, processes, report)
    else:
        # What is known is only what the catalogue names.
        processes = [process if process.gpus else Process(()) for process in processes]
        names = dict.fromkeys(gpu for process in processes for gpu in process.gpus)
        cards = [Card(name, f"GPU {name}", (name,), Memory(None)) for name in names]
    placed, refusals = place(processes, cards, host, "which does not declare it")
    if gpus is not None:
        out.loads[host] = [
            Load(index, gpu, [(part.model, part.mib) for part in card.memory.ours])
            for index, (gpu, card) in enumerate(zip(gpus, cards, strict=True))
        ]
    for index, chosen in placed.items():
        members = served[index]
        out.gpus.update({member.key: chosen for member in members})
        used = [card for gpu in chosen for card in cards if gpu in card.names]
        used = used[: processes[index].count]
        if share := _share(processes[index], members[0], used):
            out.shares.update({member.key: share for member in members})
        _check_share(processes[index], members[0], used, host, report)
        _note_idle(processes[index], members[0], report)
    for refusal in refusals:
        _tell(refusal, processes[refusal.process], served[refusal.process], report)


def _share(process: Process, member: Deployment, cards: Sequence[Card]) -> str | None:
    """Return the part of each GPU's memory that is what `vram_mib` says, for an engine that
    reserves a part; rounded down, because what is left may be another's.
    """
    if member.engine.share is None or process.fraction is not None or process.mib is None:
        return None
    parts = [process.mib / process.count / (card.memory.mib or inf) for card in cards]
    return f"{max(floor(min(parts, default=0) * 10000), 1) / 10000:g}" if parts else None


def _check_share(
    process: Process, member: Deployment, cards: Sequence[Card], host: str, report: Report
) -> None:
    """Refuse an option that reserves less than `vram_mib` says; else the option is what counts."""
    if process.fraction is None or member.engine.share_of(member.model) is None:
        return
    needed = (member.model.vram_mib or 0) / process.count
    for card in cards:
        taken = process.mib_on(card)
        if taken is not None and taken < needed:
            option = next(name for name in member.engine.shares if name in member.model.options)
            report.error(
                "invalid-value",
                f'"{member.model.name}" reserves {taken:.0f} MiB of {card.label} of {host} by its'
                f" option {option}, and its vram_mib says that it needs {needed:g} there",
                (*member.path, "options", option),
                "remove the option: it then follows from vram_mib",
            )
            return


def _note_idle(process: Process, member: Deployment, report: Report) -> None:
    """Say that a process is given GPUs which it does not use."""
    given = member.model.gpus or []
    if process.count < len(given):
        report.warning(
            "no-effect",
            f'"{member.model.name}" has {len(given)} GPUs and is split over {process.count}: the'
            " others have no effect",
            (*member.path, "gpus"),
            "name as many as it is split over, or remove the option that says so",
        )


def _note_uncounted(
    served: Sequence[Sequence[Deployment]], processes: Sequence[Process], report: Report
) -> None:
    """Say which models are not in the arithmetic of a host, where there is any."""
    if not any(process.is_known for process in processes):
        return
    for members in served:
        engine = members[0].engine
        names = [
            member.model.name
            for member in members
            if member.model.vram_mib is None
            and engine.share is None
            and engine.unestimated(member.model) is not None
        ]
        if names:
            report.warning(
                "vram-uncounted",
                f"{listing(names)} of {members[0].host} {'are' if len(names) > 1 else 'is'} not"
                " counted: what stands in llm_gpus may not be enough",
                ("providers", members[0].provider_name, "models"),
                "give each vram_mib, as nvidia-smi shows it while the model is loaded",
            )


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


def _refuse_build(member: Deployment, place: Origin | None, report: Report) -> None:
    """Refuse a host without GPUs for an engine that is built for them, at its `llm_gpus`."""
    role = member.engine.role
    report.found.append(
        Diagnostic(
            "unknown-gpu",
            "error",
            f"{member.engine.title} is built for GPUs, and {member.host} has none (llm_gpus: [])",
            ("llm_gpus",),
            place,
            f"declare its GPUs there, or set llm_versions.{role}.backend to auto, which chooses for"
            f" each host, or take {member.host} out of group {member.provider.group}",
        )
    )


def _process(members: Sequence[Deployment], *, known: bool) -> Process:
    """Return the process of some models. `known`: it is known which GPUs its host has."""
    provider, engine = members[0].provider, members[0].engine
    main = next((one.model for one in members if one.model.adapter_of is None), members[0].model)
    fraction = engine.share_of(main)
    if engine.share is not None and fraction is None and (main.vram_mib is None or not known):
        fraction = engine.share
    parts = [
        Part(member.model.name, member.model.vram_mib if fraction is None else None)
        for member in members
        if member.model.adapter_of is None
    ]
    models = [member.model for member in members]
    if (at_once := engine.at_once(provider.settings, models)) is not None:
        parts = list(largest(parts, at_once))
    gpus = dict.fromkeys(gpu for member in members for gpu in member.model.gpus or ())
    return Process(
        tuple(parts), tuple(gpus), fraction=fraction, width=engine.width(main, len(gpus) or 1)
    )


def _declared_card(index: int, gpu: Gpu) -> Card:
    # A MIG instance is found by its UUID alone.
    mig = gpu.uuid is not None and gpu.uuid.startswith("MIG-")
    names = (index, gpu.uuid) if gpu.uuid is not None else (index,)
    return Card(
        gpu.uuid if mig and gpu.uuid else index, f"GPU {index}", names, Memory(gpu.memory_mib)
    )


def _tell(
    refusal: Refusal, process: Process, members: Sequence[Deployment], report: Report
) -> None:
    """Report what cannot be placed, at the key of the model that says it."""
    if refusal.position is not None:
        gpu = process.gpus[refusal.position]
        member = next(one for one in members if gpu in (one.model.gpus or ()))
        position = (member.model.gpus or []).index(gpu)
        hint = f"llm_gpus of {refusal.hint}" if refusal.code == "unknown-gpu" else refusal.hint
        path: Path = (*member.path, "gpus", position)
        report.error(refusal.code, refusal.message, path, hint)
        return
    member = max(members, key=lambda member: member.model.vram_mib or 0)
    engine, model = member.engine, member.model
    options = engine.spreads if refusal.code == "gpu-mismatch" else engine.shares
    named = next((name for name in options if name in model.options), None)
    key: Path = ("options", named) if named else ("vram_mib",) if model.vram_mib else ("gpus",)
    path = (*member.path, *key) if named or model.vram_mib or model.gpus else member.path
    report.error(refusal.code, refusal.message, path, refusal.hint)


def _once(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic per model, however many hosts it is about."""
    by_place: dict[tuple[str, Path, Origin | None], list[Diagnostic]] = {}
    for one in diagnostics:
        by_place.setdefault((one.code, one.path, one.origin), []).append(one)
    return [
        replace(same[0], message=f"{same[0].message} (and so on {len(same) - 1} more)")
        if len(same) > 1
        else same[0]
        for same in by_place.values()
    ]
