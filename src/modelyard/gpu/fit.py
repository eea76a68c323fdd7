"""Which GPU each process gets, and whether it fits.

One algorithm, asked twice: by the compiler about the GPUs that an inventory declares, before
anything is contacted (compiler/placement.py), and by preflight about those of the host
(preflight.py). It imports nothing of the compiler, because preflight's action runs in a process of
its own for every host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

SPLIT_IT = (
    "name several GPUs in gpus to split it, narrow its hosts, or choose a smaller model or"
    " context_length"
)
CHOOSE_OTHERS = "choose other gpus, a smaller model or quantization, or a shorter context_length"


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a process, and the MiB it needs (None: not known)."""

    model: str
    mib: float | None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """One process of an engine: the models it holds at once, and the GPUs it was given (empty: it
    takes one with room).

    `late`: it is placed after all others, because its need is not known in every run.
    """

    parts: tuple[Part, ...]
    gpus: tuple[int | str, ...] = ()
    late: bool = False

    @property
    def mib(self) -> float | None:
        """MiB that its models need together, of those whose need is known; None if none is."""
        known = [part.mib for part in self.parts if part.mib is not None]
        return sum(known) if known else None

    def describe(self) -> str:
        """Return the names of its models in quotes, for a message."""
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
    """The memory of one GPU (None: not known), and what is in it. MIG instances of one GPU instance
    share theirs.
    """

    mib: float | None
    ours: list[Part] = field(default_factory=list)
    others: list[tuple[str, float]] = field(default_factory=list)

    @property
    def unplanned_mib(self) -> float | None:
        """What our models leave, whatever others use."""
        return None if self.mib is None else self.mib - sum(part.mib or 0 for part in self.ours)

    @property
    def free_mib(self) -> float | None:
        """MiB left beside our models and other programs, below zero where they take more than there
        is; None if the GPU's memory is not known.
        """
        left = self.unplanned_mib
        return None if left is None else left - sum(mib for _program, mib in self.others)


@dataclass(slots=True)
class Card:
    """One GPU or MIG instance. `id` is what a process is given to find it by, `names` what people
    may call it.
    """

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
            *(
                f'"{part.model}" ({"about " if part.estimated else ""}{part.mib:g})'
                for part in memory.ours
                if part.mib
            ),
            *(f"{program} ({mib:g}, unmanaged)" for program, mib in memory.others),
        ]
        left = f"{self.label} has {max(memory.free_mib, 0):g} of {memory.mib:g} MiB left"
        return left + (f" beside {', '.join(beside)}" if beside else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the process at an index cannot be placed. `position` is that of the GPU in its list which
    does not exist.
    """

    process: int
    code: str
    message: str
    hint: str
    position: int | None = None


def place(
    processes: Sequence[Process], cards: Sequence[Card], host: str, lacks: str
) -> tuple[dict[int, tuple[int | str, ...]], list[Refusal]]:
    """Fill the GPUs. Return the GPUs of each process by its index (one without known need has
    none), and refusals.

    First come the processes that were given GPUs, where each GPU holds an equal share, then first
    fit in their order. What others use never decides where, only whether: a placement that followed
    it would change from run to run. `lacks` is what to say of a host and a GPU that it does not
    have, e.g. `which does not declare it`.
    """
    by_name = {name: card for card in cards for name in card.names}
    placed: dict[int, tuple[int | str, ...]] = {}
    refusals: list[Refusal] = []
    order = sorted(enumerate(processes), key=lambda item: (item[1].late, not item[1].gpus))
    for index, process in order:
        need = process.mib
        if process.gpus:
            missing = next((at for at, gpu in enumerate(process.gpus) if gpu not in by_name), None)
            if missing is not None:
                message = (
                    f"{process.describe()} is assigned GPU {process.gpus[missing]} of {host},"
                    f" {lacks}"
                )
                there = ", ".join(_called(card) for card in cards) or "no GPU"
                refusals.append(
                    Refusal(index, "unknown-gpu", message, f"{host} has {there}", missing)
                )
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
        share = (need or 0) / len(chosen)
        full = next((card for card in chosen if not _has_room(card.memory.free_mib, share)), None)
        if full is not None:
            where = "on each of its GPUs" if len(chosen) > 1 else f"on {full.label}"
            message = (
                f"{process.describe()} {process.need(share)} {where} of {host}, but"
                f" {full.describe()}"
            )
            refusals.append(Refusal(index, "vram-exceeded", message, CHOOSE_OTHERS))
            continue
        placed[index] = process.gpus or (chosen[0].id,)
        for card in chosen:
            for part in process.parts:
                mib = None if part.mib is None else part.mib / len(chosen)
                card.memory.ours.append(replace(part, mib=mib))
    return placed, sorted(refusals, key=lambda refusal: refusal.process)


def largest(parts: Sequence[Part], most: int) -> tuple[Part, ...]:
    """Return what a process that holds `most` of its models at once may need: its largest ones."""
    ranked = sorted(range(len(parts)), key=lambda at: (-(parts[at].mib or 0), at))[:most]
    return tuple(parts[at] for at in sorted(ranked))


def _has_room(left: float | None, need: float) -> bool:
    return left is None or left >= need


def _called(card: Card) -> str:
    return card.label + "".join(f" ({name})" for name in card.names if isinstance(name, str))
