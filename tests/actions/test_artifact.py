"""Which host builds an artifact, and who waits for it. The action is real; what it has a host do is
a stand-in."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins/action/modelyard_artifact.py"
SPEC = importlib.util.spec_from_file_location("artifact_action", PLUGIN)
assert SPEC
assert SPEC.loader
action = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(action)

ARTIFACT = {"name": "engine", "version": "1.0", "script": "true"}


class Host(action.ActionModule):  # type: ignore[name-defined, misc]
    """One host of a play; `done` is what was done on it."""

    def __init__(self, name: str, play: tuple[str, ...] = ("one", "two")) -> None:
        self.variables = {"inventory_hostname": name, "ansible_play_hosts": list(play)}
        self.done: list[str] = []
        self.building = self.present = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def call(self, *, wait: bool = True, check: bool = False) -> dict[str, Any]:
        """What the task returns."""
        self._task = SimpleNamespace(args={**ARTIFACT, "wait": wait}, check_mode=check)
        return dict(self.act(self.variables))

    def _step(self, step: str, identifier: str, **_arguments: Any) -> dict[str, Any]:
        if step == "query":
            return {"present": self.present, "building": self.building, "cores": 2}
        if step == "poll":
            self.goes_on.wait(10)
            return {"ended": True, "status": 0, "line": "", "tail": []}
        self.done.append(step)
        if step == "start":
            self.building = True
        elif step in ("finish", "unpack"):
            self.present, self.building = True, False
        return {"archive": identifier, "sha256": ""}

    def _push_sources(self, _wanted: list[dict[str, str]]) -> dict[str, str]:
        return {}

    def _keep(self, _packed: dict[str, Any], archive: Path) -> None:
        archive.touch()

    def _copy(self, identifier: str, _archive: Path) -> None:
        self._step("unpack", identifier)


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty cache; returns what the locks' files hold."""
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path))
    monkeypatch.setattr(action, "BUILDER_S", 1)
    return lambda: [lock.read_text() for lock in (tmp_path / "artifacts").glob("*.lock")]


def test_what_was_started_is_collected(locks: Any) -> None:
    one = Host("one")
    assert one.call(wait=False)["changed"]
    assert one.done == ["start"]
    assert locks() == ["one"]
    assert not one.call(wait=False)["changed"]
    result = one.call()
    assert (result["changed"], result["built"]) == (True, True)
    assert one.done == ["start", "finish", "discard"]
    assert locks() == [""]
    assert not one.call(wait=False)["changed"]
    assert not one.call()["changed"]


def test_a_build_that_failed_is_started_again(locks: Any) -> None:
    one = Host("one")
    one.call(wait=False)
    one.building = False  # the module says so of one that failed
    assert one.call()["built"]
    assert one.done == ["start", "start", "finish", "discard"]


def test_what_the_controller_has_is_not_built(locks: Any) -> None:
    Host("one").call()
    two = Host("two")
    assert not two.call(wait=False)["changed"]
    assert two.done == []
    assert not two.call()["built"]
    assert two.done == ["unpack"]


def test_check_mode_starts_nothing(locks: Any) -> None:
    one = Host("one")
    assert one.call(wait=False, check=True)["changed"]
    assert one.done == []


@pytest.mark.parametrize("first", ["one", "two"])
def test_one_host_builds_and_the_other_copies(locks: Any, first: str) -> None:
    """Whichever gets to the lock first."""
    one, two = Host("one"), Host("two")
    assert one.call(wait=False)["changed"]
    assert not two.call(wait=False)["changed"]
    one.goes_on.clear()
    threads = [threading.Thread(target=host.call) for host in (one, two)]
    for thread in threads if first == "one" else reversed(threads):
        thread.start()
        time.sleep(0.2)
    one.goes_on.set()
    for thread in threads:
        thread.join()
    assert one.done == ["start", "finish", "discard"]
    assert two.done == ["unpack"]


@pytest.mark.parametrize("play", [("one", "two"), ("two",)])
def test_a_builder_that_never_comes_holds_nobody_up(locks: Any, play: tuple[str, ...]) -> None:
    one, two = Host("one"), Host("two", play)
    one.call(wait=False)
    assert two.call()["built"]
    # It collects its own build all the same: what is under way must not be unpacked over.
    assert one.call()["built"]
    assert one.done == ["start", "finish", "discard"]
