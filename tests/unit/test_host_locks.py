"""What a run makes of the lock that it finds on a host."""

from __future__ import annotations

import os
from typing import Any

from modelyard.controller.runs import started
from modelyard_ansible.locking import has_ended, take_on_host

HERE = "boot 1"
ALIVE = {"pid": os.getpid(), "started": started(os.getpid())}
OWNER = {
    "machine": HERE,
    "run": "1",
    "user": "ann",
    "host": "ws",
    "since": "noon",
    "purpose": "site.yml",
    "heard": 0.0,
    **ALIVE,
}
ENDED = {**OWNER, "started": "1"}
MINE: dict[str, Any] = {"machine": HERE, "run": "2"}


def test_only_a_run_on_this_machine_can_be_judged() -> None:
    assert not has_ended(OWNER, MINE)
    assert has_ended(ENDED, MINE)
    assert not has_ended({**ENDED, "machine": "boot 2"}, MINE)
    assert not has_ended({**ENDED, "machine": None}, MINE)


def test_a_free_lock_is_asked_for_once() -> None:
    asked: list[str] = []
    assert take_on_host(MINE, lambda over: asked.append(over)) == ""
    assert asked == [""]


def test_the_lock_of_a_run_that_has_ended_is_taken_over() -> None:
    asked: list[str] = []

    def take(over: str) -> dict[str, Any] | None:
        asked.append(over)
        return None if over == "1" else ENDED

    assert take_on_host(MINE, take) == ""
    assert asked == ["", "1"]


def test_who_has_it_is_told() -> None:
    text = take_on_host(MINE, lambda _over: OWNER)
    assert text.startswith("site.yml has been changing the hosts of this inventory since noon: ")
    assert f"ann@ws, process {os.getpid()}." in text
    assert "remove /run/modelyard.lock" in text
