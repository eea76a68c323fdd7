"""What can be broken on purpose, what is refused, and what is foretold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from catalogues import inventory
from test_engines import ADDRESSES, CATALOGUE, GROUPS

from modelyard.compile import compile_inventory
from modelyard.operations.drill import (
    FAULTS,
    Drill,
    DrillError,
    Forecast,
    Stack,
    differences,
    drill,
)

POOLED = {**GROUPS, "llm_native": ["a", "b", "g"]}
"""Three hosts share Tiny.7b."""


def stack(groups: dict[str, list[str]] = GROUPS) -> Stack:
    result = compile_inventory(
        inventory(CATALOGUE, groups=groups, addresses=ADDRESSES, secrets=frozenset())
    )
    assert result.errors == []
    attempts = {
        route["name"]: [attempt["model"] for attempt in route["attempts"]]
        for route in result.routes
    }
    return Stack(result.hosts, result.local_chat_models, result.pools, attempts)


@pytest.fixture
def compiled() -> Stack:
    return stack()


def drilled(compiled: Stack, fault: str, **changes: Any) -> Drill:
    arguments = {"model": "coder", "host": "", "environment": "staging", "confirmed": False}
    return drill(compiled, fault, **{**arguments, **changes})


@pytest.mark.parametrize(
    "fault", [name for name, (part, _shell) in FAULTS.items() if part == "engine"]
)
def test_an_engine_is_broken_where_the_model_runs(compiled: Stack, fault: str) -> None:
    found = drilled(compiled, fault)
    assert (found.model, found.units) == ("coder", {"b": "modelyard-vllm@coder.service"})


def test_the_gateway_and_its_door(compiled: Stack) -> None:
    assert drilled(compiled, "gateway-killed").units == {"g": "modelyard-litellm@*.service"}
    found = drilled(compiled, "door-reloaded")
    assert found.units == {"g": "modelyard-haproxy.service"}
    assert found.forecast == Forecast(), "of the gateway nothing is foretold"


def test_without_a_model_the_first_local_one_is_asked(compiled: Stack) -> None:
    assert drilled(compiled, "door-reloaded", model="").model == compiled.local_models[0]


def test_one_host_of_a_pool_is_broken_and_the_others_answer() -> None:
    compiled = stack(POOLED)
    unit = "modelyard-llama-cpp@tiny-7b.service"
    found = drilled(compiled, "engine-killed", model="Tiny.7b")
    assert found.units == {"a": unit}
    assert found.forecast == Forecast(
        "b, g answer in its place, and no request fails",
        ["Tiny.7b"],
        ["pool.native.tiny-7b"],
        ["b", "g"],
        may_fail=False,
    )
    found = drilled(compiled, "engine-frozen", model="Tiny.7b", host="b")
    assert (found.units, found.forecast.hosts) == ({"b": unit}, ["a", "g"])
    assert found.forecast.text.endswith("; what it was given waits, up to 15 s")
    found = drilled(compiled, "engine-killed", model="Tiny.7b", host="all")
    assert list(found.units) == ["a", "b", "g"]
    assert found.forecast.text == "nobody answers until it is back: requests may fail"
    assert (found.forecast.hosts, found.forecast.may_fail) == ([], True)


def test_without_another_host_the_next_step_that_survives_answers(compiled: Stack) -> None:
    found = drilled(compiled, "engine-killed").forecast
    assert found.text == "ready answers, the next step of the chain, and no request fails"
    assert found.models == ["coder", "ready", "chatty", "Tiny.7b"]
    # One Ollama has both, so the fallback dies with it.
    found = drilled(compiled, "engine-killed", model="ready").forecast
    assert found.models == ["ready", "Tiny.7b"]
    assert found.text.startswith("Tiny.7b answers")
    found = drilled(compiled, "engine-frozen").forecast
    assert found.text == "requests wait for it, up to 15 s, or ready answers after their time-out"


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ({"answered_by": {"Tiny.7b": 160}, "answered_at": {"b": 150, "a": 10}}, []),
        (
            {"failed": {"status 503": 2, "timed out": 1}, "answered_by": {"Tiny.7b": 157}},
            ["3 of 160 requests failed, and none was to"],
        ),
        (
            {"answered_by": {"Tiny.7b": 80, "big": 80}},
            ["big answered, and only Tiny.7b were to"],
        ),
        ({"answered_at": {"a": 160}}, ["b, g answered nothing"]),
    ],
)
def test_what_was_seen_is_compared_with_the_forecast(seen: dict[str, Any], told: list[str]) -> None:
    forecast = drilled(stack(POOLED), "engine-killed", model="Tiny.7b").forecast
    well = {"asked": 160, "failed": {}, "answered_by": {"Tiny.7b": 160}, "answered_at": {"b": 160}}
    assert list(differences(forecast, {**well, **seen})) == told
    assert list(differences(Forecast(), {**well, **seen})) == [], "nothing was foretold"


@pytest.mark.parametrize(
    ("fault", "changes", "words"),
    [
        ("engine-kiled", {}, 'Unknown fault "engine-kiled": did you mean "engine-killed"'),
        ("", {}, "engine-killed, engine-stopped"),
        ("engine-killed", {"model": "codr"}, '"codr" is not a chat model.*did you mean "coder"'),
        ("engine-killed", {"host": "a"}, '"a" has no engine to break: b'),
        (
            "engine-killed",
            {"environment": "production"},
            "not marked as staging or lab.*-e confirm=engine-killed",
        ),
    ],
)
def test_what_is_refused(compiled: Stack, fault: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DrillError, match=words):
        drilled(compiled, fault, **changes)


def test_production_is_broken_only_by_who_said_it_twice(compiled: Stack) -> None:
    assert drilled(compiled, "engine-killed", environment="production", confirmed=True).units


def test_what_is_not_there_cannot_be_broken(compiled: Stack) -> None:
    plans = {host: plan.model_copy(update={"redis": None}) for host, plan in compiled.plans.items()}
    with pytest.raises(DrillError, match="This inventory has no redis"):
        drilled(replace(compiled, plans=plans), "redis-stopped")
