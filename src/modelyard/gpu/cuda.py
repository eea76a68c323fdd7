"""Which build of an engine a host gets: for its CPU, or for its NVIDIA GPUs with a toolkit that
supports them.

A toolkit compiles for a range of compute capabilities, and what it compiled runs with drivers of
the same major version of CUDA or a later one. That holds for machine code, so nothing but machine
code is built ("real" architectures).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PACKAGED = "13.0"
"""The toolkit made of packages (a lock of the role that builds). There is none for 12: its packages
hold no nvcc."""

Version = tuple[int, int]


class CudaError(Exception):
    """No build suits the GPUs, the driver and the toolkit; the text names the problem and the
    fix.
    """


@dataclass(frozen=True)
class Card:
    """A GPU of the host, as far as a build is concerned."""

    name: str
    capability: Version


def choose_build(
    backend: str,
    facts: Mapping[str, Any],
    toolkit: str = "auto",
    architectures: Sequence[str] = (),
    nvcc: str = "",
    prefix: str = "",
) -> dict[str, Any]:
    """Return what decides the bytes of a build: `{backend}`, and for CUDA the `toolkit` and the
    `architectures` too.

    `backend` is auto, cuda or cpu. `facts` are those of the module modelyard_gpu_facts. `toolkit`
    is auto or the path of one on the host, of which `nvcc` is what `nvcc --version` says.
    `architectures` are compute capabilities (8.9); without any, those of the GPUs. `prefix` is what
    the names of these variables begin with. Raises CudaError.
    """
    if backend == "cpu" or (backend == "auto" and not facts.get("gpus")):
        return {"backend": "cpu"}
    packaged = toolkit == "auto"
    version = _version(PACKAGED if packaged else _release(toolkit, nvcc, prefix))
    cards = [
        Card(str(gpu["name"]), _version(gpu["compute_capability"]))
        for gpu in facts.get("gpus") or []
        if gpu.get("compute_capability")
    ]
    way_out = (
        f"set {prefix}cuda_toolkit to the path of {'a toolkit on the host' if packaged else 'one'}"
        f" that does, or {prefix}backend to cpu"
    )
    supported = facts.get("cuda_version") if cards else None
    if supported and _version(supported)[0] < version[0]:
        raise CudaError(
            f"binaries built with CUDA toolkit {_text(version)} do not run here: the driver "
            f"({facts.get('driver_version')}) supports CUDA up to {supported}. Update the "
            f"driver, or {way_out}"
        )
    wanted = sorted(
        {_capability(text, prefix) for text in architectures} or {card.capability for card in cards}
    )
    if not wanted:
        reason = f" ({facts['reason']})" if facts.get("reason") else ""
        raise CudaError(
            f"no NVIDIA GPU to build for{reason}: set {prefix}cuda_architectures to the compute "
            "capabilities of the GPUs, for example ['8.9']"
        )
    lowest, highest = _range(version)
    foreign = [capability for capability in wanted if not lowest <= capability <= highest]
    if foreign:
        names = {card.capability: f" ({card.name})" for card in reversed(cards)}
        named = ", ".join(_text(capability) + names.get(capability, "") for capability in foreign)
        others = f"; to leave a GPU out, set {prefix}cuda_architectures to those of the others"
        raise CudaError(
            f"CUDA toolkit {_text(version)} builds for compute capabilities {_text(lowest)} to"
            f" {_text(highest)}, not for {named}:"
            f" {way_out}{others if len(wanted) > len(foreign) else ''}"
        )
    return {
        "backend": "cuda",
        "toolkit": _text(version) if packaged else f"{_text(version)} in {toolkit}",
        "architectures": [f"{major}{minor}-real" for major, minor in wanted],
    }


def _range(toolkit: Version) -> tuple[Version, Version]:
    """Return the lowest and the highest compute capability that a toolkit compiles for."""
    lowest = (7, 5) if toolkit >= (13, 0) else (5, 0)
    for since, highest in (((12, 9), (12, 1)), ((12, 8), (12, 0)), ((11, 8), (9, 0))):
        if toolkit >= since:
            return lowest, highest
    return lowest, (8, 6)


def _release(toolkit: str, nvcc: str, prefix: str) -> str:
    found = re.search(r"release (\d+\.\d+)", nvcc)
    if not found:
        raise CudaError(
            f"{toolkit}/bin/nvcc does not print its version. Is {prefix}cuda_toolkit the path of a"
            " CUDA toolkit?"
        )
    return found[1]


def _capability(text: str, prefix: str) -> Version:
    if not re.fullmatch(r"\d+\.\d", str(text)):
        raise CudaError(
            f"{prefix}cuda_architectures: {text} is not a compute capability such as '8.9'"
        )
    return _version(text)


def _version(text: object) -> Version:
    major, _, minor = str(text).partition(".")
    return int(major), int(minor or 0)


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
