"""Breaking something on purpose: what can be broken, on which hosts, and where that is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modelyard.diagnostics import did_you_mean, listing
from modelyard.plan.model import HostPlan

AWAY_S = 15
"""How long something is stopped, in seconds: longer than a health check takes to see it."""

Part = Literal["engine", "redis", "gateway", "door"]

FAULTS: dict[str, tuple[Part, str]] = {
    "engine-killed": ("engine", 'systemctl kill --signal=KILL "$0"'),
    "engine-stopped": ("engine", f'systemctl stop "$0"; sleep {AWAY_S}; systemctl start "$0"'),
    "engine-frozen": (
        "engine",
        f'systemctl kill --signal=STOP "$0"; sleep {AWAY_S}; systemctl kill --signal=CONT "$0"',
    ),
    "redis-stopped": ("redis", f'systemctl stop "$0"; sleep {AWAY_S}; systemctl start "$0"'),
    "gateway-killed": ("gateway", 'systemctl kill --signal=KILL "$0"'),
    "door-reloaded": ("door", 'systemctl reload "$0"'),
}
"""By name, what is broken, and the shell's words for it; `$0` is the unit. What is stopped is
started by the same words, so that it comes back whether the controller lives or not."""


class DrillError(Exception):
    """Nothing is broken; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Drill:
    """A fault. `units` are by host what it is done to, `model` is the public name that is asked
    meanwhile.
    """

    fault: str
    model: str
    shell: str
    units: dict[str, str]


def drill(
    plans: Mapping[str, HostPlan],
    local_models: list[str],
    fault: str,
    model: str,
    environment: str,
    confirmed: bool,
) -> Drill:
    """Return what `fault` means for these plans. `local_models` are the chat models that run on
    hosts of the inventory.

    Raises DrillError: no such fault, no such model, nothing there to break, or an inventory that
    people depend on and whose owner did not confirm.
    """
    if fault not in FAULTS:
        raise DrillError(
            f'Unknown fault "{fault}": {did_you_mean(fault, FAULTS) or listing(list(FAULTS))}'
        )
    if environment not in ("staging", "lab") and not confirmed:
        raise DrillError(
            "This inventory is not marked as staging or lab (llm_environment), so users may "
            f"depend on it. To run the drill anyway: -e production=true -e confirm={fault}"
        )
    asked = model or next(iter(local_models), "")
    if asked not in local_models:
        near = did_you_mean(asked, local_models) or (
            listing(local_models) if local_models else "there are none"
        )
        raise DrillError(f'"{asked}" is not a chat model on hosts of this inventory: {near}')
    part, shell = FAULTS[fault]
    units = {host: unit for host, plan in plans.items() if (unit := _unit(part, plan, asked))}
    if not units:
        raise DrillError(f"This inventory has no {part} to break")
    return Drill(fault, asked, shell, units)


def _unit(part: Part, plan: HostPlan, model: str) -> str | None:
    if part == "engine":
        services = [entry.service for entry in plan.demands if entry.model == model]
        return f"modelyard-{services[0]}.service" if services else None
    if part == "redis":
        return "modelyard-redis.service" if plan.redis else None
    if plan.litellm is None:
        return None
    # One of the two slots runs, and a pattern means units that do.
    return "modelyard-litellm@*.service" if part == "gateway" else "modelyard-haproxy.service"
