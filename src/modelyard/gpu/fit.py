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
GIVE_A_SHARE = (
    "declare llm_gpus of the host and vram_mib of the model, from which its share follows, choose"
    " other gpus, or narrow its hosts"
)


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

    `late`: it is placed after all others, because its need is not known in every run. `fraction`:
    the part of the memory of each GPU that it reserves, whatever its model needs. `width`: how many
    GPUs it is split over, if its options say so.
    """

    parts: tuple[Part, ...]
    gpus: tuple[int | str, ...] = ()
    late: bool = False
    fraction: float | None = None
    width: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is known what it takes."""
        return self.fraction is not None or self.mib is not None

    @property
    def count(self) -> int:
        """How many GPUs it takes: those it is split over, else those it was given, or one."""
        return self.width or len(self.gpus) or 1

    def mib_on(self, card: Card) -> float | None:
        """MiB that it takes on one of its GPUs; None if that is not known."""
        if self.fraction is not None:
            return None if card.memory.mib is None else self.fraction * card.memory.mib
        return None if self.mib is None else self.mib / self.count

    def fits(self, card: Card, left: float | None) -> bool:
        """Return whether there is room on a GPU with so many MiB left (None: not known)."""
        if card.memory.mib is None and self.fraction is not None:
            return card.memory.reserved + self.fraction <= 1
        return left is None or left >= (self.mib_on(card) or 0)

    def on(self, card: Card) -> str:
        """E.g. `needs 6144 MiB`, or `reserves 0.92 of the memory`."""
        if self.fraction is None:
            return self.need((self.mib or 0) / self.count)
        taken = self.mib_on(card)
        what = "" if taken is None else f", {taken:.0f} MiB"
        return f"reserves {self.fraction:g} of the memory{what}"

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
    reserved: float = 0
    """Of a memory that is not known: the parts of it that are reserved."""
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
            names = ", ".join(f'"{part.model}"' for part in memory.ours)
            return f"{1 - memory.reserved:.2g} of {self.label} is left" + (
                f" beside {names}" if names else ""
            )
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
    placed: dict[int, tuple[int | str, ...]] = {}
    refusals: list[Refusal] = []
    order = sorted(enumerate(processes), key=lambda item: (item[1].late, not item[1].gpus))
    for index, process in order:
        if not process.gpus and not process.is_known:
            continue
        found = (
            _given(index, process, cards, host, lacks)
            if process.gpus
            else _fitting(index, process, cards, host)
        )
        if isinstance(found, Refusal):
            refusals.append(found)
            continue
        chosen = found[: process.count]
        full = next((card for card in chosen if not process.fits(card, card.memory.free_mib)), None)
        if full is not None:
            where = "on each of its GPUs" if len(chosen) > 1 else f"on {full.label}"
            message = (
                f"{process.describe()} {process.on(full)} {where} of {host}, but {full.describe()}"
            )
            hint = CHOOSE_OTHERS if process.fraction is None else GIVE_A_SHARE
            refusals.append(Refusal(index, "vram-exceeded", message, hint))
            continue
        placed[index] = _named(process, found if process.gpus else chosen)
        for card in chosen:
            card.memory.reserved += process.fraction or 0
            for part in process.parts:
                mib = None if part.mib is None else part.mib / len(chosen)
                if process.fraction is not None:
                    mib = process.mib_on(card)
                card.memory.ours.append(replace(part, mib=mib))
    return placed, sorted(refusals, key=lambda refusal: refusal.process)


def _named(process: Process, chosen: Sequence[Card]) -> tuple[int | str, ...]:
    """Return the GPUs of a process as it was given them, or all of them by index or by UUID: of a
    list with both CUDA sees only what comes before the first of the other kind. Empty if they have
    no names of one kind.
    """
    given = process.gpus or tuple(card.id for card in chosen)
    if len({isinstance(gpu, str) for gpu in given}) == 1:
        return given
    for kind in (int, str):
        names = [next((n for n in card.names if isinstance(n, kind)), None) for card in chosen]
        if None not in names and all(isinstance(card.id, kind) or kind is str for card in chosen):
            return tuple(name for name in names if name is not None)
    return ()


def _given(
    index: int, process: Process, cards: Sequence[Card], host: str, lacks: str
) -> list[Card] | Refusal:
    """Return the GPUs that a process was given, or why it cannot have them."""
    by_name = {name: card for card in cards for name in card.names}
    are = "are" if len(process.parts) > 1 else "is"
    there = f"{host} has {', '.join(_called(card) for card in cards) or 'no GPU'}"
    chosen: list[Card] = []
    for at, gpu in enumerate(process.gpus):
        if gpu not in by_name:
            message = f"{process.describe()} {are} assigned GPU {gpu} of {host}, {lacks}"
            return Refusal(index, "unknown-gpu", message, there, at)
        card = by_name[gpu]
        twice = next((one for one, other in enumerate(chosen) if other is card), None)
        if twice is not None:
            message = (
                f"{process.describe()} {are} assigned {card.label} of {host} twice, as"
                f" {process.gpus[twice]} and as {gpu}"
            )
            return Refusal(index, "gpu-mismatch", message, f"name it once; {there}", at)
        chosen.append(card)
    if process.count > len(process.gpus):
        message = (
            f"{process.describe()} is split over {process.count} GPUs, and is assigned"
            f" {len(process.gpus)} of {host} ({', '.join(map(str, process.gpus))})"
        )
        hint = "name as many in gpus, or split it over as many as it has"
        return Refusal(index, "gpu-mismatch", message, hint)
    if not _named(process, chosen):
        kinds = [isinstance(gpu, str) for gpu in process.gpus]
        message = (
            f"{process.describe()} names its GPUs of {host} by index and by UUID, and CUDA reads"
            " such a list only up to the first of the other kind"
        )
        hint = "name all of them in one way"
        return Refusal(index, "gpu-mismatch", message, hint, kinds.index(not kinds[0]))
    return chosen


def _fitting(
    index: int, process: Process, cards: Sequence[Card], host: str
) -> list[Card] | Refusal:
    """Return the GPUs with room for a process that was given none, or why there are too few."""
    count = process.count
    if count > 1 and count > len(cards):
        message = f"{process.describe()} is split over {count} GPUs, and {host} has {len(cards)}"
        hint = "split it over as many as there are, or narrow its hosts"
        return Refusal(index, "gpu-mismatch", message, hint)
    fitting = [card for card in cards if process.fits(card, card.memory.unplanned_mib)]
    if len(fitting) >= count:
        return fitting
    rooms = "; ".join(card.describe() for card in cards) or "it has no GPU"
    where = "one GPU" if count == 1 else f"each of {count} GPUs"
    what = process.on(cards[0]) if cards else process.on(Card(0, "", (), Memory(None)))
    message = f"{process.describe()} {what} on {where} of {host}: {rooms}"
    hint = SPLIT_IT if process.fraction is None else GIVE_A_SHARE
    return Refusal(index, "vram-exceeded", message, hint)


def largest(parts: Sequence[Part], most: int) -> tuple[Part, ...]:
    """Return what a process that holds `most` of its models at once may need: its largest ones."""
    ranked = sorted(range(len(parts)), key=lambda at: (-(parts[at].mib or 0), at))[:most]
    return tuple(parts[at] for at in sorted(ranked))


def _called(card: Card) -> str:
    return card.label + "".join(f" ({name})" for name in card.names if isinstance(name, str))
