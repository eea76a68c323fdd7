"""What listens on a host: what preflight looks for, and what the firewall guards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def listeners(
    service: str,
    role: str,
    listen: Sequence[str],
    port: int,
    variable: str,
    models: Sequence[str] = (),
    gpus: Sequence[int | str] = (),
) -> list[dict[str, Any]]:
    """What listens on a host, one entry for each address. `variable` is where the port is written."""
    return [
        {
            "service": service,
            "role": role,
            "unit": f"modelyard-{service}.service",
            "address": address,
            "port": port,
            "models": list(models),
            "gpus": list(gpus),
            "variable": variable,
        }
        for address in listen
    ]
