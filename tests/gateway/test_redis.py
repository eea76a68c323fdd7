"""Redis that is down, slow or silent while an engine fails: others do not wait, chains go on, and
it is used again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gateway, compiled, plan
from stubs import Stubs
from trouble import BOUND_S, CATALOGUE, COOLDOWN_S, FAIL, TROUBLES, Lab, measure, running

SHARED_AGAIN_S = 10


@pytest.fixture(scope="module")
def lab(environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running(environment, stubs, tmp_path_factory.mktemp("redis")) as lab:
        yield lab


def shared(lab: Lab, stubs: Stubs) -> bool:
    """Whether both workers know what cools down: nobody asks `other` after two failures, whoever is
    asked."""
    stubs.behaviours["other"] = FAIL
    for _ in range(3):
        lab.gateway.chat("other")
    time.sleep(1.1)  # Workers read it once a second.
    with stubs.recording() as calls:
        for _ in range(12):
            lab.gateway.chat("other")
    del stubs.behaviours["other"]
    return [call.model for call in calls] == ["step"] * 12


@pytest.mark.parametrize("at_once", [3, 20])
@pytest.mark.parametrize("kind", TROUBLES)
def test_nobody_waits_for_redis(lab: Lab, kind: str, at_once: int) -> None:
    answers, others = measure(lab, kind, at_once)
    assert {(answer.status, answer.model) for answer in answers} == {(200, "step")}
    assert max(answer.seconds for answer in answers) < BOUND_S
    assert {answer.status for answer in others} == {200}
    assert max(answer.seconds for answer in others) < BOUND_S


@pytest.mark.parametrize("kind", TROUBLES)
def test_cool_downs_go_on_by_worker_and_are_shared_again(lab: Lab, stubs: Stubs, kind: str) -> None:
    with lab.trouble(kind):
        time.sleep(COOLDOWN_S)
        started = time.monotonic()
        with stubs.recording() as calls:
            for _ in range(20):
                lab.gateway.chat("head")
        # Each of two workers finds out for itself, by two failures, and again when its cool-down
        # is over: on a busy machine the requests take longer than one.
        cooldowns = 1 + int((time.monotonic() - started) / COOLDOWN_S)
        assert [call.model for call in calls].count("head") <= 4 * cooldowns
    deadline = time.monotonic() + SHARED_AGAIN_S
    while not shared(lab, stubs):
        assert time.monotonic() < deadline, (
            f"cool-downs are not shared again within {SHARED_AGAIN_S} s"
        )
        time.sleep(COOLDOWN_S)
    time.sleep(COOLDOWN_S)


def test_a_gateway_starts_without_redis(environment: Path, stubs: Stubs, tmp_path: Path) -> None:
    emitted = plan(compiled(CATALOGUE, {"llm_redis": ["rd"]}, {"rd": "192.0.2.28"}))
    with Gateway(environment, emitted, tmp_path) as gateway:
        assert gateway.chat("fine").status == 200
