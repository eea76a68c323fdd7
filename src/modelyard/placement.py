"""Which GPU each process gets, and whether it fits. One algorithm, asked twice: by the compiler about the GPUs that the
inventory declares, before anything is contacted, and by preflight (fit.py) about those that the host has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelyard.diagnostics import Diagnostic, diagnose
from modelyard.resolve import Deployment, Resolved
from modelyard.schema import Gpu, OllamaSettings
from modelyard.sourcemap import Path, SourceMap

SPLIT_IT = "name several GPUs in gpus to split it, narrow its hosts, or choose a smaller model or context_length"
CHOOSE_OTHERS = "choose other gpus, a smaller model or quantization, or a shorter context_length"


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a process, and the MiB it needs (None: not known)."""

    model: str
    mib: float | None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """One process of an engine: the models it holds at once, and the GPUs it was given (empty: it takes one with room).

    `late`: it is placed after all others, because its need is not known in every run.
    """

    parts: tuple[Part, ...]
    gpus: tuple[int | str, ...] = ()
    late: bool = False

    @property
    def mib(self) -> float | None:
        known = [part.mib for part in self.parts if part.mib is not None]
        return sum(known) if known else None

    def describe(self) -> str:
        return " and ".join(f'"{part.model}"' for part in self.parts)

    def need(self, share: float) -> str:
        """E.g. `needs 6144 MiB`, `are estimated to need 9000 MiB (together 5000 + 4000)`."""
        several = len(self.parts) > 1
        verb = "need" if several else "needs"
        if any(part.estimated for part in self.parts):
            verb = "are estimated to need" if several else "is estimated to need"
        terms = " + ".join(f"{part.mib:g}" for part in self.parts if part.mib is not None)
        return f"{verb} {share:g} MiB" + (f" (together {terms})" if several else "")


@dataclass(slots=True)
class Memory:
    """The memory of one GPU (None: not known), and what is in it. MIG instances of one GPU instance share theirs."""

    mib: float | None
    ours: list[Part] = field(default_factory=list)
    others: list[tuple[str, float]] = field(default_factory=list)

    @property
    def unplanned_mib(self) -> float | None:
        """What our models leave, whatever others use."""
        return None if self.mib is None else self.mib - sum(part.mib or 0 for part in self.ours)

    @property
    def free_mib(self) -> float | None:
        left = self.unplanned_mib
        return None if left is None else left - sum(mib for _program, mib in self.others)


@dataclass(slots=True)
class Card:
    """One GPU or MIG instance. `id` is what a process is given to find it by, `names` what people may call it."""

    id: int | str
    label: str
    names: tuple[int | str, ...]
    memory: Memory

    def describe(self) -> str:
        """E.g. `GPU 0 has 4096 of 24576 MiB left beside "small" (20480)`."""
        memory = self.memory
        if memory.free_mib is None:
            return f"the memory of {self.label} is not known"
        beside = [
            *(f'"{part.model}" ({"about " if part.estimated else ""}{part.mib:g})' for part in memory.ours if part.mib),
            *(f"{program} ({mib:g}, not ours)" for program, mib in memory.others),
        ]
        left = f"{self.label} has {max(memory.free_mib, 0):g} of {memory.mib:g} MiB left"
        return left + (f" beside {', '.join(beside)}" if beside else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the process at an index cannot be placed. `position` is that of the GPU in its list which does not exist."""

    process: int
    code: str
    message: str
    hint: str
    position: int | None = None


def place(
    processes: Sequence[Process], cards: Sequence[Card], host: str, lacks: str
) -> tuple[dict[int, tuple[int | str, ...]], list[Refusal]]:
    """Fill the cards. Return the GPUs of each process by its index (one without known need has none), and refusals.

    First come the processes that were given GPUs, where each GPU holds an equal share, then first fit in their order.
    What others use never decides where, only whether: a placement that followed it would change from run to run.
    `lacks` is what to say of a host and a GPU that it does not have, e.g. `which does not declare it`.
    """
    by_name = {name: card for card in cards for name in card.names}
    placed: dict[int, tuple[int | str, ...]] = {}
    refusals: list[Refusal] = []
    order = sorted(enumerate(processes), key=lambda item: (item[1].late, not item[1].gpus))
    for index, process in order:
        need = process.mib
        if process.gpus:
            placed[index] = process.gpus
            missing = next((at for at, gpu in enumerate(process.gpus) if gpu not in by_name), None)
            if missing is not None:
                message = f"{process.describe()} wants GPU {process.gpus[missing]} of {host}, {lacks}"
                there = ", ".join(_called(card) for card in cards) or "no GPU"
                refusals.append(Refusal(index, "unknown-gpu", message, f"{host} has {there}", missing))
                continue
            chosen = [by_name[gpu] for gpu in process.gpus]
        elif need is None:
            continue
        else:
            fitting = [card for card in cards if _has_room(card.memory.unplanned_mib, need)]
            if not fitting:
                rooms = "; ".join(card.describe() for card in cards) or "it has no GPU"
                message = f"{process.describe()} {process.need(need)} on one GPU of {host}: {rooms}"
                refusals.append(Refusal(index, "vram-exceeded", message, SPLIT_IT))
                continue
            chosen = fitting[:1]
            placed[index] = (chosen[0].id,)
        share = (need or 0) / len(chosen)
        full = next((card for card in chosen if not _has_room(card.memory.free_mib, share)), None)
        if full is not None:
            where = "on each of its GPUs" if len(chosen) > 1 else f"on {full.label}"
            message = f"{process.describe()} {process.need(share)} {where} of {host}, but {full.describe()}"
            refusals.append(Refusal(index, "vram-exceeded", message, CHOOSE_OTHERS))
            continue
        for card in chosen:
            for part in process.parts:
                mib = None if part.mib is None else part.mib / len(chosen)
                card.memory.ours.append(replace(part, mib=mib))
    return placed, sorted(refusals, key=lambda refusal: refusal.process)


def largest(parts: Sequence[Part], most: int | None) -> tuple[Part, ...]:
    """What an Ollama that holds `most` models at once may need: its largest ones. By default one: it unloads models
    that do not fit together."""
    ranked = sorted(range(len(parts)), key=lambda at: (-(parts[at].mib or 0), at))[: most or 1]
    return tuple(parts[at] for at in sorted(ranked))


def _has_room(left: float | None, need: float) -> bool:
    return left is None or left >= need


def _called(card: Card) -> str:
    return card.label + "".join(f" ({name})" for name in card.names if isinstance(name, str) and name != card.id)


# -- what the inventory declares ---------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """One declared GPU, and the models on it with the MiB each takes there (None if not declared)."""

    index: int
    gpu: Gpu
    models: list[tuple[str, float | None]]


@dataclass(slots=True)
class Placement:
    """The GPUs of each host that declares some, and the GPUs (index or UUID) of each deployment by its id."""

    loads: dict[str, list[Load]] = field(default_factory=dict)
    gpus: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def place_on_gpus(resolved: Resolved, declared: Mapping[str, Sequence[Gpu]], source: SourceMap) -> Placement:
    """Place the models of every host of ours; on hosts that declare no GPUs only `gpus` as written is passed on."""
    out = Placement()
    by_host: dict[str, dict[tuple[str, str], list[Deployment]]] = {}
    for member in resolved.all():
        if member.host is not None:
            # One Ollama serves all its models; an adapter lives in the process of its base model.
            of = "" if member.provider.type == "ollama" else member.base.name
            by_host.setdefault(member.host, {}).setdefault((member.provider_name, of), []).append(member)
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
            placed, refusals = {index: process.gpus for index, process in enumerate(processes) if process.gpus}, []
        for index, gpus in placed.items():
            out.gpus.update({member.id: gpus for member in served[index]})
        out.diagnostics += [_diagnose(refusal, served[refusal.process], source) for refusal in refusals]
    out.diagnostics = _once(out.diagnostics)
    return out


def _process(members: Sequence[Deployment]) -> Process:
    provider = members[0].provider
    parts = [Part(member.model.name, member.model.vram_mib) for member in members if member.model.adapter_of is None]
    if provider.type == "ollama":
        parts = list(largest(parts, (provider.ollama or OllamaSettings()).max_loaded_models))
    gpus = dict.fromkeys(gpu for member in members for gpu in member.model.gpus or ())
    return Process(tuple(parts), tuple(gpus))


def _declared_card(index: int, gpu: Gpu) -> Card:
    # A MIG instance is found by its UUID alone.
    mig = gpu.uuid is not None and gpu.uuid.startswith("MIG-")
    names = (index, gpu.uuid) if gpu.uuid is not None else (index,)
    return Card(gpu.uuid if mig and gpu.uuid else index, f"GPU {index}", names, Memory(gpu.memory_mib))


def _diagnose(refusal: Refusal, members: Sequence[Deployment], source: SourceMap) -> Diagnostic:
    if refusal.code == "unknown-gpu":
        member = next(member for member in members if member.model.gpus)
        path: Path = (*member.path, "gpus", refusal.position or 0)
        return diagnose(source, refusal.code, refusal.message, path, f"llm_gpus: {refusal.hint}")
    member = max(members, key=lambda member: member.model.vram_mib or 0)
    return diagnose(source, refusal.code, refusal.message, (*member.path, "vram_mib"), refusal.hint)


def _once(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic per model, however many hosts it is about."""
    by_place: dict[tuple[str, Path], list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        by_place.setdefault((diagnostic.code, diagnostic.path), []).append(diagnostic)
    return [
        replace(same[0], message=f"{same[0].message} (and so on {len(same) - 1} more)") if len(same) > 1 else same[0]
        for same in by_place.values()
    ]
