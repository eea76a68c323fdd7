"""The lock of a host: one run has it, and one that has ended does not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible.module_utils import modelyard_host_lock as lock

ANN, BOB = {"run": "1", "user": "ann"}, {"run": "2", "user": "bob"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def test_the_second_run_is_told_who_has_it(path: str) -> None:
    assert lock.take(ANN, path=path) is None
    assert lock.take(ANN, path=path) is None, "the same run again"
    owner = lock.take(BOB, path=path)
    assert owner is not None
    assert (owner["user"], round(owner["heard"] - time.time())) == ("ann", 0)


def test_who_has_it_gives_it_back(path: str) -> None:
    lock.take(ANN, path=path)
    assert not lock.release("2", path)
    assert not lock.release("", path)
    assert lock.release("1", path)
    assert not lock.release("1", path)
    assert lock.take(BOB, path=path) is None


def test_a_run_that_is_known_to_have_ended_holds_nothing(path: str) -> None:
    lock.take(ANN, path=path)
    assert lock.take(BOB, over="3", path=path) is not None
    assert lock.take(BOB, over="1", path=path) is None
    assert lock.take(ANN, path=path) is not None


@pytest.mark.parametrize("offset_s", [-lock.SILENCE_S - 60, lock.SILENCE_S + 60])
def test_silence_ends_it(path: str, offset_s: int) -> None:
    lock.take(ANN, path=path)
    then = time.time() + offset_s
    os.utime(path, (then, then))
    assert lock.take(BOB, path=path) is None


def test_a_call_of_its_run_breaks_the_silence(path: str) -> None:
    lock.take(ANN, path=path)
    os.utime(path, (1, 1))
    lock.heard(path)
    assert lock.take(BOB, path=path) is not None


def test_looking_takes_nothing(path: str) -> None:
    assert lock.take(ANN, look=True, path=path) is None
    assert lock.owner(path) is None
    lock.take(ANN, path=path)
    assert lock.take(BOB, look=True, path=path) is not None


def test_a_damaged_lock_holds_nothing(path: str) -> None:
    for text in ("{", "[]", "{}", ""):
        Path(path).write_text(text, encoding="utf-8")
        assert lock.take(BOB, path=path) is None


def test_nothing_is_heard_where_there_is_none(path: str) -> None:
    lock.heard(path)
    assert not os.path.exists(path)
