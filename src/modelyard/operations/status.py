"""How everything is: what the hosts say of themselves beside the compiled plans, as one screen and
as JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.catalogue.versions import unsafe
from modelyard.diagnostics import listing
from modelyard.operations.diff import Live, compare
from modelyard.output.tables import table
from modelyard.plan.model import HostPlan

NO_PLAN = "not compared"
DOWN_STATES = ("failed", "inactive", "activating", "deactivating", "unknown")


def status(
    plans: Mapping[str, HostPlan] | None,
    live: Mapping[str, Live | str],
    found: Mapping[str, Mapping[str, Any] | str],
) -> dict[str, Any]:
    """Collect what is known of every host.

    `plans` is None if the catalogue has errors. `live` and `found` are by host what modelyard_live
    and modelyard_status returned, or why the host could not be asked. Returns `{ok, hosts: {HOST:
    {ok, unknown, behind, services, pools, engines, failed_units}}}`; a service has `problems`, a
    list of text, and `behind` are the services that are not as planned.
    """
    compared = {change.host: change for change in compare(plans or {}, live)}
    hosts: dict[str, Any] = {}
    for host, seen in found.items():
        if isinstance(seen, str):
            hosts[host] = {
                "ok": False,
                "unknown": seen,
                "behind": [],
                "services": {},
                "pools": {},
                "engines": [],
                "failed_units": [],
            }
            continue
        here = live.get(host, {})
        known: Live = {} if isinstance(here, str) else here
        services = {
            name: {
                **service,
                "plan": NO_PLAN,
                "problems": list(_problems(service, known.get(name, {}))),
            }
            for name, service in seen["services"].items()
        }
        if plans is not None and host in compared:
            change = compared[host]
            for name in change.unchanged:
                services.setdefault(name, _absent())["plan"] = "as planned"
            for one in change.services:
                services.setdefault(one.service, _absent())["plan"] = _PLAN[one.kind]
        engines = [dict(engine) for engine in seen["engines"]]
        behind = [name for name, service in services.items() if service["plan"] in _DIFFERS]
        well = not behind and not any(service["problems"] for service in services.values())
        answers = not any(engine.get("problem") for engine in engines)
        pools = {pool: dict(one) for pool, one in seen["pools"].items()}
        hosts[host] = {
            "ok": (
                well and answers and not seen["failed_units"] and not any(_pool_problems(pools))
            ),
            "unknown": None,
            "behind": behind,
            "services": services,
            "pools": pools,
            "engines": engines,
            "failed_units": list(seen["failed_units"]),
        }
    return {"ok": all(host["ok"] for host in hosts.values()), "hosts": hosts}


_PLAN = {
    "add": "not there yet",
    "change": "differs",
    "remove": "not in the plan",
    "left": "not in the plan",
    "unclear": "cannot be compared",
}
_DIFFERS = ("not there yet", "differs", "not in the plan")


def _absent() -> dict[str, Any]:
    return {"state": "absent", "problems": [], "differences": [], "edited": []}


def _problems(service: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[str]:
    if service["state"] in DOWN_STATES:
        yield f"is {service['state']}: journalctl -u {service.get('unit', '')}"
    else:
        yield from service["differences"]
    for path in service["edited"]:
        yield f"{path} was edited by hand; site.yml restores it"
    plan = live.get("plan") or {}
    version = plan.get("version") or plan.get("build", {}).get("version")
    component = (
        service.get("unit", "").removeprefix("modelyard-").partition("@")[0].partition(".")[0]
    )
    if version and (problem := unsafe(component.replace("-", "_"), str(version))):
        yield f"version {version} {problem}"


def _pool_problems(pools: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield which hosts get no requests, but for those that will again by themselves: a drain with
    an end is somebody's work.
    """
    for pool, one in pools.items():
        for host, seen in one["hosts"].items():
            since = _moment(seen["since"])
            if seen["state"] == "down":
                why = f": {seen['why']}" if seen["why"] else ""
                yield f"{pool}: {host} is down since {since}{why}"
            elif seen["state"] == "stopped":
                yield f"{pool}: {host} was taken out by hand at {since}"
            elif seen["state"] == "drained" and not seen["until"]:
                yield f"{pool}: {host} is drained since {since}, without an end"


def _moment(text: str) -> str:
    """Return a time as people read it. It is UTC."""
    return text.replace("T", " ").removesuffix("Z")


# -- as text ---------------------------------------------------------------------------------------


def render(found: Mapping[str, Any]) -> str:
    """One screen."""
    lines: list[str] = []
    for host, seen in found["hosts"].items():
        behind = f", behind the plan: {listing(seen['behind'])}" if seen["behind"] else ""
        lines.append(f"Host {host}: {'all well' if seen['ok'] else 'NOT WELL'}{behind}")
        lines += [f"  {line}" for line in _host(seen)]
    return "\n".join(lines)


def _host(seen: Mapping[str, Any]) -> Iterator[str]:
    if seen["unknown"]:
        yield seen["unknown"]
        return
    rows = [("service", "state", "live release", "since", "restarts", "plan")]
    for name, service in seen["services"].items():
        since = _moment(service.get("since", ""))
        restarts = str(service["restarts"]) if service.get("restarts") else ""
        rows.append(
            (name, service["state"], service.get("release", ""), since, restarts, service["plan"])
        )
    yield from table(rows)
    yield from _pools(seen["pools"])
    yield from _engines(seen["engines"])
    for name, service in seen["services"].items():
        for problem in service["problems"]:
            yield f"!! {name}: {problem}"
    if seen["failed_units"]:
        yield f"!! failed units: {', '.join(seen['failed_units'])}"


def _pools(pools: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not pools:
        return
    rows = [("pool", "up", "not up", "in flight", "waiting")]
    notes = [f"!! {problem}" for problem in _pool_problems(pools)]
    for pool, one in pools.items():
        hosts = one["hosts"]
        rest = [
            f"{host} ({seen['state']})" for host, seen in hosts.items() if seen["state"] != "up"
        ]
        rows.append(
            (
                pool,
                listing(host for host, seen in hosts.items() if seen["state"] == "up") or "NONE",
                listing(rest),
                str(sum(seen["in_flight"] for seen in hosts.values())),
                str(one["waiting"]),
            )
        )
        notes += [
            f"{pool}: {host} is drained since {_moment(seen['since'])}, until"
            f" {_moment(seen['until'])}"
            for host, seen in hosts.items()
            if seen["until"]
        ]
    yield from table(rows)
    yield from notes


def _engines(engines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not engines:
        return
    rows = [("model", "first token", "tokens/s", "by")]
    for engine in engines:
        first, rate = engine.get("first_token_s"), engine.get("tokens_per_s")
        rows.append(
            (
                engine["model"],
                (
                    "not asked"
                    if engine["skipped"]
                    else "NO ANSWER"
                    if first is None
                    else f"{first:.3f} s"
                ),
                "" if rate is None else f"{rate:g}",
                f"{engine['service']}" + (f" ({engine['skipped']})" if engine["skipped"] else ""),
            )
        )
    yield from table(rows)
    for engine in engines:
        if engine.get("problem"):
            yield f"!! {engine['service']}: {engine['model']}: {engine['problem']}"
