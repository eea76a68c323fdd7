"""What can be broken on purpose, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import inventory
from test_engines import ADDRESSES, CATALOGUE, GROUPS

from modelyard.compile import Compiled, compile_inventory
from modelyard.operations.drill import FAULTS, Drill, DrillError, drill


@pytest.fixture
def compiled() -> Compiled:
    return compile_inventory(
        inventory(CATALOGUE, groups=GROUPS, addresses=ADDRESSES, secrets=frozenset())
    )


def drilled(compiled: Compiled, fault: str, **changes: Any) -> Drill:
    arguments = {"model": "coder", "environment": "staging", "confirmed": False, **changes}
    return drill(compiled.hosts, compiled.local_chat_models, fault, **arguments)


@pytest.mark.parametrize(
    "fault", [name for name, (part, _shell) in FAULTS.items() if part == "engine"]
)
def test_an_engine_is_broken_where_the_model_runs(compiled: Compiled, fault: str) -> None:
    found = drilled(compiled, fault)
    assert (found.model, found.units) == ("coder", {"b": "modelyard-vllm@coder.service"})


def test_the_gateway_and_its_door(compiled: Compiled) -> None:
    assert drilled(compiled, "gateway-killed").units == {"g": "modelyard-litellm@*.service"}
    assert drilled(compiled, "door-reloaded").units == {"g": "modelyard-haproxy.service"}


def test_without_a_model_the_first_local_one_is_asked(compiled: Compiled) -> None:
    assert drilled(compiled, "door-reloaded", model="").model == compiled.local_chat_models[0]


@pytest.mark.parametrize(
    ("fault", "changes", "words"),
    [
        ("engine-kiled", {}, 'Unknown fault "engine-kiled": did you mean "engine-killed"'),
        ("", {}, "engine-killed, engine-stopped"),
        ("engine-killed", {"model": "codr"}, '"codr" is not a chat model.*did you mean "coder"'),
        (
            "engine-killed",
            {"environment": "production"},
            "not marked as staging or lab.*-e confirm=engine-killed",
        ),
    ],
)
def test_what_is_refused(
    compiled: Compiled, fault: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(DrillError, match=words):
        drilled(compiled, fault, **changes)


def test_production_is_broken_only_by_who_said_it_twice(compiled: Compiled) -> None:
    assert drilled(compiled, "engine-killed", environment="production", confirmed=True).units


def test_what_is_not_there_cannot_be_broken(compiled: Compiled) -> None:
    plans = {host: plan.model_copy(update={"redis": None}) for host, plan in compiled.hosts.items()}
    with pytest.raises(DrillError, match="This inventory has no redis"):
        drill(plans, compiled.local_chat_models, "redis-stopped", "coder", "lab", False)
