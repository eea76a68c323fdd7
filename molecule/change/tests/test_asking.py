"""Whatever is wrong with a host, the run that asks first changes what the full run changes."""

from __future__ import annotations

from typing import Any

import pytest
from changing import site
from modelyard_breaks import BREAKS, changed, judge

QUICK = ("a configuration is edited", "a service is stopped", "a credential is edited")
"""One of a file, of a process and of a secret; the others are variants."""


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


@pytest.mark.parametrize(
    "what", [pytest.param(name, marks=() if name in QUICK else pytest.mark.full) for name in BREAKS]
)
def test_asking_first_finds_what_the_full_run_finds(one: Any, what: str) -> None:
    judge(one.check_output, site, BREAKS[what])


def test_the_full_run_finds_nothing_afterwards() -> None:
    assert changed(site("--check", "-e", "llm_full=true")) == []
