"""Which GPU each model gets, and whether it fits: from what the inventory declares, before anything is contacted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelyard.diagnostics import Diagnostic, diagnose
from modelyard.resolve import Deployment, Resolved
from modelyard.schema import Gpu
from modelyard.sourcemap import Path, SourceMap


@dataclass(slots=True)
class Load:
    """One declared GPU, and the models on it with the MiB each takes there (None if not declared)."""

    index: int
    gpu: Gpu
    models: list[tuple[str, float | None]] = field(default_factory=list)

    @property
    def free_mib(self) -> float:
        return self.gpu.memory_mib - sum(share or 0 for _model, share in self.models)

    def describe(self) -> str:
        """E.g. `GPU 0 has 4096 of 24576 MiB left beside "small" (20480)`."""
        beside = ", ".join(f'"{model}" ({share:g})' for model, share in self.models if share)
        left = f"GPU {self.index} has {self.free_mib:g} of {self.gpu.memory_mib} MiB left"
        return left + (f" beside {beside}" if beside else "")


@dataclass(slots=True)
class Placement:
    """The GPUs of each host that declares some, and the GPUs (index or UUID) of each deployment by its id."""

    loads: dict[str, list[Load]] = field(default_factory=dict)
    gpus: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def place_on_gpus(resolved: Resolved, declared: Mapping[str, Sequence[Gpu]], source: SourceMap) -> Placement:
    """Place the models of every host of ours, first those that name their GPUs, then first fit in catalogue order.

    `declared` are the GPUs of each host that says so; on other hosts only `gpus` as written is passed on. On several
    GPUs each holds an equal share. Of one Ollama's models only the largest counts: it unloads one for another.
    """
    out = Placement({host: [Load(index, gpu) for index, gpu in enumerate(gpus)] for host, gpus in declared.items()})
    members = [member for member in _counted(resolved.all()) if member.host is not None]
    for member in members:
        if member.model.gpus is not None:
            _place_as_written(member, out, source)
    for member in members:
        if member.model.gpus is None and member.model.vram_mib is not None and member.host in out.loads:
            _place_first_fit(member, member.model.vram_mib, out.loads[member.host], out, source)
    out.diagnostics = _once(out.diagnostics)
    return out


def _counted(deployments: Sequence[Deployment]) -> list[Deployment]:
    """All deployments, but of each Ollama (one process for all its models) only the one that needs most."""
    largest: dict[tuple[str, str | None], Deployment] = {}
    for member in deployments:
        if member.provider.type == "ollama":
            key = (member.provider_name, member.host)
            if key not in largest or (member.model.vram_mib or 0) > (largest[key].model.vram_mib or 0):
                largest[key] = member
    return [
        member
        for member in deployments
        if member.provider.type != "ollama" or largest[member.provider_name, member.host] is member
    ]


def _place_as_written(member: Deployment, out: Placement, source: SourceMap) -> None:
    gpus = member.model.gpus or []
    out.gpus[member.id] = tuple(gpus)
    if member.host not in out.loads:
        return
    loads = out.loads[member.host]
    by_name: dict[int | str, Load] = {load.index: load for load in loads}
    by_name.update({load.gpu.uuid: load for load in loads if load.gpu.uuid is not None})
    for position, gpu in enumerate(gpus):
        if gpu not in by_name:
            _error(
                out,
                "unknown-gpu",
                f'"{member.model.name}" wants GPU {gpu} of {member.host}, which does not declare it',
                (*member.path, "gpus", position),
                source,
                f"llm_gpus of {member.host} has {_listed(loads)}",
            )
            return
    chosen = [by_name[gpu] for gpu in gpus]
    share = member.model.vram_mib / len(chosen) if member.model.vram_mib is not None else None
    full = [load for load in chosen if share is not None and load.free_mib < share]
    if full:
        _error(
            out,
            "vram-exceeded",
            f'"{member.model.name}" needs {share:g} MiB on each of its GPUs of {member.host}, but {full[0].describe()}',
            (*member.path, "vram_mib"),
            source,
            "choose other gpus, a smaller model or quantization, or a shorter context_length",
        )
        return
    for load in chosen:
        load.models.append((member.model.name, share))


def _place_first_fit(member: Deployment, need: int, loads: list[Load], out: Placement, source: SourceMap) -> None:
    for load in loads:
        if load.free_mib >= need:
            load.models.append((member.model.name, float(need)))
            out.gpus[member.id] = (load.index,)
            return
    rooms = "; ".join(load.describe() for load in loads) or "it declares no GPU"
    _error(
        out,
        "vram-exceeded",
        f'"{member.model.name}" needs {need} MiB on one GPU of {member.host}: {rooms}',
        (*member.path, "vram_mib"),
        source,
        "name several GPUs in gpus to split it, narrow its hosts, or choose a smaller model or context_length",
    )


def _once(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic per model, however many hosts it is about."""
    by_place: dict[tuple[str, Path], list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        by_place.setdefault((diagnostic.code, diagnostic.path), []).append(diagnostic)
    return [
        replace(same[0], message=f"{same[0].message} (and so on {len(same) - 1} more)") if len(same) > 1 else same[0]
        for same in by_place.values()
    ]


def _listed(loads: Sequence[Load]) -> str:
    return (
        ", ".join(f"GPU {load.index}" + (f" ({load.gpu.uuid})" if load.gpu.uuid else "") for load in loads) or "no GPU"
    )


def _error(out: Placement, code: str, message: str, path: Path, source: SourceMap, hint: str) -> None:
    out.diagnostics.append(diagnose(source, code, message, path, hint))
