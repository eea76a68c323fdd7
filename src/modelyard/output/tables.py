"""Tables as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text in columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def gpu_table(gpus: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row per GPU: what is on it, in MiB, and what is left. Empty without GPUs.

    Each is as in a plan: `index`, `name`, `memory_mib` (None: not known) and `models`. What
    preflight found has more: `label` instead of an index, `others` beside our models, and models
    that are `estimated`.
    """
    if not gpus:
        return []
    rows = [("GPU", "MiB", "free", "name", "models")]
    for gpu in gpus:
        users = [
            *map(_model, gpu["models"]),
            *(f"{name} {mib:g} (unmanaged)" for name, mib in gpu.get("others", ())),
        ]
        taken = sum(m["vram_mib"] or 0 for m in gpu["models"]) + sum(
            mib for _name, mib in gpu.get("others", ())
        )
        total = gpu["memory_mib"]
        rows.append(
            (
                str(gpu.get("label", gpu["index"])),
                "?" if total is None else f"{total:g}",
                "?" if total is None else f"{total - taken:g}",
                gpu["name"] or "",
                ", ".join(users),
            )
        )
    return table(rows)


def _model(model: Mapping[str, Any]) -> str:
    if not model["vram_mib"]:
        return f"{model['name']} (need unknown)"
    return f"{model['name']} {'about ' if model.get('estimated') else ''}{model['vram_mib']:g}"
