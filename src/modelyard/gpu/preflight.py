"""Places the models of one host on the GPUs that it has, and says what does not fit: preflight's
part of the core.

It imports nothing of the compiler (see fit.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.gpu.estimate import Estimate, estimate
from modelyard.gpu.fit import Card, Memory, Part, Process, Refusal, largest, place

OURS = "modelyard-"
TOLERANCE = 0.05
"""Declared memory may differ this much: a driver keeps some for itself, more or less of it."""


@dataclass(slots=True)
class Fitted:
    """What preflight returns of the GPUs; `gpus` is what tables.gpu_table shows."""

    problems: list[str] = field(default_factory=list)
    placed: dict[str, list[int | str]] = field(default_factory=dict)
    estimates: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    gpus: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """One GPU or MIG instance of the host."""

    card: Card
    name: str
    uuid: str
    index: int | None  # None: a MIG instance


def fit_on_host(
    host: str,
    engines: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    declared: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
) -> Fitted:
    """Check and place. `engines` and `declared` are preflight's options, `facts` what
    modelyard_gpu_facts returns.

    `models` is what the host said of the files of models without `vram_mib`: each has `service`,
    `model`, and either `header` or the `reason` why there is none.
    """
    out = Fitted()
    capable = [engine for engine in engines if engine.get("gpu", True)]
    if not capable:
        return out
    found = find(facts)
    asking = dict.fromkeys(e["model"] for e in capable if e.get("gpus") or e.get("vram_mib"))
    if not found:
        if asking or declared:
            out.problems.append(_without(host, list(asking), declared, facts))
        return out
    if facts.get("reason"):
        out.notices.append(str(facts["reason"]))
    out.problems += disagreements(host, declared, found)
    services = _parts(capable, models, found, out)
    processes = [_process(members) for members in services.values()]
    placed, refusals = place(processes, [one.card for one in found], host, "which it does not have")
    _tell(refusals, processes, out)
    for index, service in enumerate(services):
        if index in placed and not processes[index].gpus and not processes[index].late:
            out.placed[service] = list(placed[index])
    for one in found:
        if one.card.memory.mib is None and one.card.memory.ours:
            names = ", ".join(f'"{part.model}"' for part in one.card.memory.ours)
            out.notices.append(
                f"{one.card.label} does not report its memory (it shares the host's): not checked"
                f" whether {names} fits"
            )
    out.gpus = [_row(one) for one in found]
    return out


def _parts(
    capable: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    found: Sequence[Found],
    out: Fitted,
) -> dict[str, list[tuple[Part, bool, Mapping[str, Any]]]]:
    """By service, its models with the memory they need, and whether that is known in every run."""
    headers = {(model["service"], model["model"]): model for model in models}
    services: dict[str, list[tuple[Part, bool, Mapping[str, Any]]]] = {}
    for engine in capable:
        mib, late = engine.get("vram_mib"), False
        if engine.get("share"):  # What it reserves counts, whatever its model needs.
            mib = None
        elif mib is None:
            answer = _estimate(engine, headers.get((engine["service"], engine["model"]), {}), found)
            mib, late = answer.mib, "path" not in (engine.get("source") or {})
            out.estimates.append(
                {
                    "service": engine["service"],
                    "model": engine["model"],
                    "mib": mib,
                    "how": answer.how,
                }
            )
        estimated = engine.get("vram_mib") is None and not engine.get("share")
        part = Part(engine["model"], mib, estimated=estimated)
        services.setdefault(engine["service"], []).append((part, late, engine))
    return services


def _tell(refusals: Sequence[Refusal], processes: Sequence[Process], out: Fitted) -> None:
    """Say what does not fit: a problem, or a notice where the need is not known in every run."""
    for refusal in refusals:
        text = (
            f"{refusal.message}: {refusal.hint}"
            if refusal.code == "unknown-gpu"
            else refusal.message
        )
        how = [
            f"{part.model}: {entry['how']}"
            for part in processes[refusal.process].parts
            for entry in out.estimates
            if part.estimated and entry["model"] == part.model and entry["mib"] is not None
        ]
        text += "".join(f" [{line}]" for line in how)
        if processes[refusal.process].late and refusal.code != "unknown-gpu":
            out.notices.append(f"{text}. It may run with a shorter context or partly on the CPU")
        elif refusal.code == "unknown-gpu":
            out.problems.append(text)
        else:
            measured = ", or set vram_mib to a measured value" if how else ""
            out.problems.append(f"{text}. Fix: {refusal.hint}{measured}")


def find(facts: Mapping[str, Any]) -> list[Found]:
    """Return the GPUs that can be used: of one with MIG on, its instances, those of one GPU
    instance with one memory.
    """
    found: list[Found] = []
    gpus: Sequence[Mapping[str, Any]] = facts.get("gpus") or []
    mig = any(gpu["mig_mode"] == "enabled" for gpu in gpus)
    for gpu in gpus:
        index, uuid = gpu["index"], gpu["uuid"]
        if gpu["mig_mode"] != "enabled":
            memory = Memory(gpu["memory_mib"], others=_others(gpu["processes"]))
            # Indexes of CUDA and of nvidia-smi need not agree beside a GPU with MIG on.
            card = Card(uuid if mig else index, f"GPU {index}", (index, uuid), memory)
            found.append(Found(card, gpu["name"], uuid, index))
            continue
        shared: dict[int, Memory] = {}
        for instance in gpu["mig_instances"]:
            own, number = Memory(instance["memory_mib"]), instance["gpu_instance"]
            if number is not None:
                own.others = _others([p for p in gpu["processes"] if p["gpu_instance"] == number])
                own = shared.setdefault(number, own)
            label = f"MIG {instance['profile']} of GPU {index}"
            found.append(
                Found(
                    Card(instance["uuid"], label, (instance["uuid"],), own),
                    gpu["name"],
                    instance["uuid"],
                    None,
                )
            )
    return found


def disagreements(
    host: str, declared: Sequence[Mapping[str, Any]], found: Sequence[Found]
) -> list[str]:
    """How the GPUs of llm_gpus differ from those of the host: each names both."""
    if not declared:
        return []
    there = "; ".join(_described(one) for one in found)
    fix = f"Correct llm_gpus of {host}, or remove it to use the GPUs that the host reports"
    if len(declared) != len(found):
        return [
            f"llm_gpus of {host} declares {_many(declared)}, the host has {len(found)}: {there}."
            f" {fix}"
        ]
    by_uuid = {one.uuid: one for one in found}
    by_index = {one.index: one for one in found}
    problems = []
    for gpu in declared:
        index, uuid, memory = gpu["index"], gpu.get("uuid"), gpu["memory_mib"]
        one = by_uuid.get(uuid) if uuid else by_index.get(index)
        what = f"llm_gpus of {host} declares GPU {index}" + (f" as {uuid}" if uuid else "")
        if one is None:
            problems.append(f"{what}, which the host does not have. It has {there}. {fix}")
        elif uuid and one.index not in (None, index):
            problems.append(f"{what}, but on the host it is {_described(one)}. {fix}")
        elif (
            one.card.memory.mib is not None
            and abs(one.card.memory.mib - memory) > TOLERANCE * memory
        ):
            problems.append(
                f"{what} with {memory} MiB, but on the host it is {_described(one)}. {fix}"
            )
    return problems


def _without(
    host: str,
    asking: Sequence[str],
    declared: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> str:
    names = ", ".join(f'"{name}"' for name in asking)
    who = " and ".join(
        ([f"llm_gpus of {host} declares {_many(declared)}"] if declared else [])
        + ([f"GPUs are required (gpus, vram_mib) by {names}"] if asking else [])
    )
    gpus = facts.get("gpus") or []
    reason = facts.get("reason") or (
        f"MIG is enabled and has no instances (GPU {gpus[0]['index']})"
        if gpus
        else "nvidia-smi lists no GPU"
    )
    fix = "Install or repair the NVIDIA driver, or move the models to a host that has GPUs"
    return f"{who}, but the host has no usable GPU: {reason}. {fix}"


def _estimate(
    engine: Mapping[str, Any], model: Mapping[str, Any], found: Sequence[Found]
) -> Estimate:
    if not model.get("header"):
        return Estimate(None, str(model.get("reason") or "its file is unknown"))
    mine = [
        one for one in found if not engine.get("gpus") or set(engine["gpus"]) & set(one.card.names)
    ]
    default = own_context(
        engine.get("contexts") or (), sum(one.card.memory.mib or 0 for one in mine)
    )
    return estimate(
        model["header"],
        engine.get("context_length"),
        engine.get("options") or {},
        default,
        engine.get("slots") or 1,
    )


def own_context(contexts: Sequence[Sequence[int]], total_mib: float) -> int | None:
    """Return the context that an engine gives a model which does not say one; None if it is the
    model's.
    """
    return next((tokens for least, tokens in contexts if total_mib >= least), None)


def _process(members: Sequence[tuple[Part, bool, Mapping[str, Any]]]) -> Process:
    """Return the process of some models. A need that is known in every run comes before one that is
    not: else the placement would change in the second.
    """
    engine = members[0][2]
    firm = [part for part, late, _engine in members if part.mib is not None and not late]
    parts = firm or [part for part, _late, _engine in members]
    if engine.get("max_loaded"):
        parts = list(largest(parts, engine["max_loaded"]))
    gpus = dict.fromkeys(
        gpu for _part, _late, engine in members for gpu in engine.get("gpus") or ()
    )
    share = engine.get("share")
    late = not firm and not share
    return Process(tuple(parts), tuple(gpus), late, fraction=share, width=engine.get("width"))


def _others(processes: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return what programs use that are not ours, as one entry: a desktop has a dozen of them."""
    using = [p for p in processes if p["memory_mib"] and not (p.get("unit") or "").startswith(OURS)]
    if not using:
        return []
    using.sort(key=lambda process: -process["memory_mib"])
    names = list(
        dict.fromkeys(
            str(process["name"]).rpartition("/")[2] or f"pid {process['pid']}" for process in using
        )
    )
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return [(", ".join(names[:2]) + more, sum(process["memory_mib"] for process in using))]


def _many(gpus: Sequence[Any]) -> str:
    return f"{len(gpus)} GPU" + ("" if len(gpus) == 1 else "s")


def _described(one: Found) -> str:
    memory = "memory not reported" if one.card.memory.mib is None else f"{one.card.memory.mib} MiB"
    return f"{one.card.label}, {one.name}, {memory}, {one.uuid}"


def _row(one: Found) -> dict[str, Any]:
    return {
        "index": one.index,
        "label": str(one.index) if one.index is not None else one.card.label,
        "name": one.name,
        "memory_mib": one.card.memory.mib,
        "models": [
            {"name": p.model, "vram_mib": p.mib, "estimated": p.estimated}
            for p in one.card.memory.ours
        ],
        "others": list(one.card.memory.others),
    }
