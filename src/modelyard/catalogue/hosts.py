"""Variables of a host, beside the catalogue."""

from __future__ import annotations

from pydantic import Field

from modelyard.kinds import (
    GpuUuid,
    IPAddress,
    Positive,
    Strict,
    unit,
)


class Gpu(Strict):
    """One GPU of a host, as declared."""

    memory_mib: Positive = Field(examples=[24576], json_schema_extra=unit("MiB"))
    """Its memory, as `nvidia-smi --query-gpu=memory.total` prints it."""
    name: str | None = Field(None, examples=["NVIDIA GeForce RTX 4090"])
    """Shown by `plan`."""
    uuid: GpuUuid | None = Field(None, examples=["GPU-5d2b7c3e-0000-0000-0000-000000000000"])
    """Lets a model name it by UUID."""


class HostVariables(Strict):
    """What the inventory may say of one host, beside the catalogue."""

    address: IPAddress | None = Field(None, examples=["192.0.2.11", "2001:db8::11"])
    """The address at which other hosts reach it, without a port. Default: `ansible_host`."""
    gpus: list[Gpu] | None = Field(None, examples=[[{"memory_mib": 24576}]])
    """Its GPUs in the order of their indexes, so that a plan that cannot fit is refused before
    anything is contacted. Default: not known, nothing is checked."""
