"""Variables of a host, beside the catalogue."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from modelyard.kinds import (
    GpuUuid,
    IPAddress,
    Positive,
    Strict,
    mebibytes,
    unit,
)

LEAST_MIB, MOST_MIB = 1024, 1024**2
"""No GPU that an engine runs on has less, none of today more: other numbers are of other units."""


def _memory(value: int) -> int:
    return mebibytes(value, LEAST_MIB, MOST_MIB, "a GPU")


def _own_uuids(gpus: list[Gpu]) -> list[Gpu]:
    uuids = [gpu.uuid for gpu in gpus if gpu.uuid is not None]
    folded = [uuid.lower() for uuid in uuids]
    twice = next((uuid for at, uuid in enumerate(uuids) if uuid.lower() in folded[:at]), None)
    if twice is not None:
        raise ValueError(f"two GPUs have the UUID {twice}; nvidia-smi -L lists them")
    return gpus


class Gpu(Strict):
    """One GPU of a host, as declared."""

    memory_mib: Annotated[Positive, AfterValidator(_memory)] = Field(
        examples=[24576], json_schema_extra=unit("MiB")
    )
    """Its memory, as `nvidia-smi --query-gpu=memory.total` prints it."""
    name: str | None = Field(None, examples=["NVIDIA GeForce RTX 4090"])
    """Shown by `plan`."""
    uuid: GpuUuid | None = Field(None, examples=["GPU-5d2b7c3e-0000-0000-0000-000000000000"])
    """Lets a model name it by UUID."""


class HostVariables(Strict):
    """What the inventory may say of one host, beside the catalogue."""

    address: IPAddress | None = Field(None, examples=["192.0.2.11", "2001:db8::11"])
    """The address at which other hosts reach it, without a port. Default: `ansible_host`."""
    gpus: Annotated[list[Gpu], AfterValidator(_own_uuids)] | None = Field(
        None, examples=[[{"memory_mib": 24576}]]
    )
    """Its GPUs in the order of their indexes, so that a plan that cannot fit is refused before
    anything is contacted. Default: not known, nothing is checked."""
