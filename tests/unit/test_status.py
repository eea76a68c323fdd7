"""One screen about everything: what is down, different, edited or too old is told, and what could
not be asked."""

from __future__ import annotations

import re
from typing import Any

import pytest
from test_engines import CATALOGUE
from test_monitoring import result as watched

from modelyard.operations.status import NO_PLAN, render, status

PLANS = watched(CATALOGUE).hosts
HOST = next(host for host, plan in PLANS.items() if plan.litellm)
WANTED = dict(PLANS[HOST].parts())


def service(**changes: Any) -> dict[str, Any]:
    name = changes.pop("unit", "modelyard-x.service")
    well = {
        "release": "0123456789ab",
        "since": "2026-01-31T12:00:00Z",
        "unit": name,
        "state": "active",
        "restarts": 0,
    }
    return {**well, "differences": [], "edited": [], **changes}


def seen(
    engines: tuple[dict[str, Any], ...] = (), failed: tuple[str, ...] = (), **changed: Any
) -> dict[str, Any]:
    return {
        "services": {name: changed.get(name, service()) for name in WANTED},
        "pools": {},
        "engines": list(engines),
        "failed_units": list(failed),
    }


LIVE = {
    HOST: {
        name: {"release": "0123456789ab", "since": "", "plan": plan}
        for name, plan in WANTED.items()
    }
}


def told(found: Any, live: Any = LIVE, compiled: Any = PLANS) -> tuple[dict[str, Any], str]:
    result = status({HOST: compiled[HOST]} if compiled else None, live, {HOST: found})
    return result, render(result)


def test_all_well() -> None:
    result, text = told(seen())
    assert result["ok"]
    assert text.startswith(f"Host {HOST}: all well\n")
    assert "!!" not in text
    assert text.count("as planned") == len(WANTED)


def at_gateway(**states: str) -> dict[str, Any]:
    """What a front end says of a pool of these hosts."""
    hosts = {
        host: {
            "state": state.partition(" ")[0],
            "since": "2026-01-31T12:00:00Z",
            "why": "refused" if state == "down" else "",
            "in_flight": 2,
            "until": "2026-01-31T12:30:00Z" if state == "drained until" else None,
        }
        for host, state in states.items()
    }
    return {**seen(), "pools": {"pool.a": {"waiting": 5, "hosts": hosts}}}


def test_pools_are_told_as_the_front_end_sees_them() -> None:
    result, text = told(at_gateway(gpu1="up", gpu2="up", gpu3="drained until"))
    assert result["ok"], "a drain that ends is somebody's work"
    assert "  pool    up          not up          in flight  waiting\n" in text
    assert "  pool.a  gpu1, gpu2  gpu3 (drained)  6          5\n" in text
    since = "since 2026-01-31 12:00:00"
    assert f"  pool.a: gpu3 is drained {since}, until 2026-01-31 12:30:00" in text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("down", "is down since 2026-01-31 12:00:00: refused"),
        ("drained", "is drained since 2026-01-31 12:00:00, without an end"),
        ("stopped", "was taken out by hand at 2026-01-31 12:00:00"),
    ],
)
def test_a_host_without_requests_is_not_well(state: str, words: str) -> None:
    result, text = told(at_gateway(gpu1=state))
    assert not result["ok"]
    assert f"!! pool.a: gpu1 {words}" in text
    assert re.search(rf"pool\.a +NONE +gpu1 \({state}\)", text)


def test_a_host_behind_its_plan_is_named_so() -> None:
    live = {HOST: {**LIVE[HOST], "haproxy": {**LIVE[HOST]["haproxy"], "plan": {}}}}
    result, text = told(seen(), live)
    assert result["hosts"][HOST]["behind"] == ["haproxy"]
    assert text.startswith(f"Host {HOST}: NOT WELL, behind the plan: haproxy\n")


def test_what_is_down_is_told_and_the_rest_too() -> None:
    engine = {
        "service": "llama-cpp@a",
        "model": "a",
        "skipped": None,
        "first_token_s": None,
        "problem": "refused",
    }
    asleep = {"service": "ollama@b", "model": "b", "skipped": "not loaded"}
    quick = {
        "service": "vllm@c",
        "model": "c",
        "skipped": None,
        "first_token_s": 0.25,
        "tokens_per_s": 31.5,
    }
    down = service(
        state="failed", unit="modelyard-haproxy.service", differences=["it runs nothing"]
    )
    result, text = told(seen((engine, asleep, quick), ("modelyard-haproxy.service",), haproxy=down))
    assert not result["ok"]
    assert "!! haproxy: is failed: journalctl -u modelyard-haproxy.service" in text
    assert "it runs nothing" not in text, "that is the same again"
    assert "!! llama-cpp@a: a: refused" in text
    assert "b      not asked              ollama@b (not loaded)" in text
    assert "c      0.250 s      31.5      vllm@c" in text
    assert "!! failed units: modelyard-haproxy.service" in text


def test_what_was_edited_or_differs() -> None:
    edited = service(
        edited=["config/x"], differences=["modelyard-x.service differs from its release"]
    )
    result, text = told(
        seen(litellm=edited),
        {HOST: {**LIVE[HOST], "haproxy": {**LIVE[HOST]["haproxy"], "plan": {}}}},
    )
    assert not result["ok"]
    assert "!! litellm: config/x was edited by hand" in text
    assert "!! litellm: modelyard-x.service differs from its release" in text
    assert result["hosts"][HOST]["services"]["haproxy"]["plan"] == "differs"


def test_what_the_plan_has_and_the_host_does_not() -> None:
    result, _text = told(
        {**seen(), "services": {"redis": service()}},
        {HOST: {"stranger": {"release": "", "since": "", "plan": {}}}},
    )
    assert not result["ok"]
    services = result["hosts"][HOST]["services"]
    assert (services["litellm"]["state"], services["litellm"]["plan"]) == (
        "absent",
        "not there yet",
    )
    assert services["stranger"]["plan"] == "not in the plan"


def test_a_version_with_known_holes() -> None:
    old = {**LIVE[HOST]["litellm"], "plan": {**WANTED["litellm"], "version": "1.82.6"}}
    _result, text = told(
        seen(litellm=service(unit="modelyard-litellm@blue.service")),
        {HOST: {**LIVE[HOST], "litellm": old}},
    )
    assert (
        "!! litellm: version 1.82.6 is below 1.83.7, the minimum version without known"
        " vulnerabilities" in text
    )


def test_without_a_plan_and_without_a_host() -> None:
    result = status(None, LIVE, {HOST: seen(), "away": "not reachable: No route to host"})
    assert not result["ok"]
    assert {one["plan"] for one in result["hosts"][HOST]["services"].values()} == {NO_PLAN}
    assert render(result).endswith("Host away: NOT WELL\n  not reachable: No route to host")
