"""Breaking something on purpose: what can be broken, on which hosts, where that is refused, what a
client should see of it, and whether it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.diagnostics import did_you_mean, listing
from modelyard.names import pool_server
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

FROZEN = "engine-frozen"
EVERY_HOST = "all"


class DrillError(Exception):
    """Nothing is broken; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What was compiled: plans by host, chat models that run on hosts of the inventory, pools as in
    docs/plan.md, and by public name the order of attempts.
    """

    plans: Mapping[str, HostPlan]
    local_models: Sequence[str]
    pools: Sequence[Mapping[str, Any]]
    attempts: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a client should see while an engine is broken. `pools` are where the model is asked,
    `hosts` who answers in them instead (HAProxy's names), `models` who may answer; without any of
    these nothing is foretold.
    """

    text: str = ""
    models: Sequence[str] = ()
    pools: Sequence[str] = ()
    hosts: Sequence[str] = ()
    may_fail: bool = True


@dataclass(frozen=True, slots=True)
class Drill:
    """A fault. `units` are by host what it is done to, `model` is the public name that is asked
    meanwhile.
    """

    fault: str
    model: str
    shell: str
    units: dict[str, str]
    forecast: Forecast


def drill(
    stack: Stack, fault: str, model: str, host: str, environment: str, confirmed: bool
) -> Drill:
    """Return what `fault` means for what was compiled. It is done on one host, the first that has
    what is broken unless `host` names another, or on each (`all`).

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
    local = stack.local_models
    asked = model or next(iter(local), "")
    if asked not in local:
        near = did_you_mean(asked, local) or (listing(local) if local else "there are none")
        raise DrillError(f'"{asked}" is not a chat model on hosts of this inventory: {near}')
    part, shell = FAULTS[fault]
    there = {name: unit for name, plan in stack.plans.items() if (unit := _unit(part, plan, asked))}
    if not there:
        raise DrillError(f"This inventory has no {part} to break")
    if host not in ("", EVERY_HOST, *there):
        near = did_you_mean(host, there) or listing(there)
        raise DrillError(f'"{host}" has no {part} to break: {near}')
    one = host or next(iter(there))
    units = there if host == EVERY_HOST else {one: there[one]}
    foretold = _forecast(stack, fault, asked, units) if part == "engine" else Forecast()
    return Drill(fault, asked, shell, units, foretold)


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


def _forecast(stack: Stack, fault: str, model: str, units: Mapping[str, str]) -> Forecast:
    pools = [pool for pool in stack.pools if model in pool["models"]]
    others = [host for pool in pools for host in pool["hosts"] if host not in units]
    steps = [step for step in stack.attempts[model][1:] if _survives(stack, step, pools, units)]
    if others:
        verb = "answers" if len(others) == 1 else "answer"
        text = f"{listing(others)} {verb} in its place, and no request fails"
        if fault == FROZEN:
            text += f"; what it was given waits, up to {AWAY_S} s"
    elif fault == FROZEN:
        text = f"requests wait for it, up to {AWAY_S} s"
        text += f", or {steps[0]} answers after their time-out" if steps else ""
    elif steps:
        text = f"{steps[0]} answers, the next step of the chain, and no request fails"
    else:
        text = "nobody answers until it is back: requests may fail"
    return Forecast(
        text,
        [model, *steps],
        [pool["name"] for pool in pools],
        [pool_server(host) for host in others],
        may_fail=not (others or steps or fault == FROZEN),
    )


def _survives(
    stack: Stack, step: str, broken: Sequence[Mapping[str, Any]], units: Mapping[str, str]
) -> bool:
    """Return whether a step of the chain still answers: it runs elsewhere, or on a host or in a
    process that nothing is done to.
    """
    pools = [pool for pool in stack.pools if step in pool["models"]]
    return not pools or any(
        pool not in broken or host not in units for pool in pools for host in pool["hosts"]
    )


def differences(forecast: Forecast, seen: Mapping[str, Any]) -> Iterator[str]:
    """Yield how what a client saw differs from what was foretold. `seen` is the result of the
    module modelyard_drill.
    """
    if not forecast.models:
        return
    failed = seen["asked"] - sum(seen["answered_by"].values())
    if failed and not forecast.may_fail:
        yield f"{failed} of {seen['asked']} requests failed, and none was to"
    if strangers := [name for name in seen["answered_by"] if name not in forecast.models]:
        yield f"{listing(strangers)} answered, and only {listing(forecast.models)} were to"
    if forecast.hosts and not any(seen["answered_at"].get(host) for host in forecast.hosts):
        yield f"{listing(forecast.hosts)} answered nothing"
