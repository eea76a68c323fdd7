"""Whatever is wrong with a host, the run that asks first changes what the full run changes."""

from __future__ import annotations

from typing import Any

import pytest
from changing import site
from modelyard_breaks import BREAKS, changed, judge

QUICK = (
    "a configuration is edited",
    "a unit is edited",
    "an engine is stopped",
    "a credential is edited",
)
"""A file of a release, one of systemd, a process and a secret, each of another service (Redis,
HAProxy, an engine, the gateway), so that none is found only because of another."""


@pytest.fixture(scope="module", autouse=True)
def as_planned() -> None:
    """The first run after the scenario's other tests may have something to do."""
    done = site()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_host_as_planned_costs_few_tasks(one: Any) -> None:
    done = site()
    assert changed(done) == []
    assert "TASK [Gathering Facts]" not in done.stdout
    assert "PLAY [Prepare the hosts]" not in done.stdout or "skipping" in done.stdout
    assert changed(site("--check", "-e", "llm_full=true")) == []


def test_asking_first_finds_what_each_service_needs(one: Any) -> None:
    """All at once, as each costs three runs; in full every way to break one is tried alone."""
    repaired = judge(one.check_output, site, "; ".join(BREAKS[name] for name in QUICK))
    assert len(repaired) >= len(QUICK)


@pytest.mark.full
@pytest.mark.parametrize("what", BREAKS)
def test_asking_first_finds_what_the_full_run_finds(one: Any, what: str) -> None:
    judge(one.check_output, site, BREAKS[what])


def test_the_full_run_finds_nothing_afterwards() -> None:
    assert changed(site("--check", "-e", "llm_full=true")) == []
