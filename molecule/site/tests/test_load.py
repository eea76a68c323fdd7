"""`make loadtest` in short: a real load through the real gateway. How fast it is here, nobody
judges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from modelyard_playbook import SCENARIO, ansible_playbook

LOAD = SCENARIO.parents[1] / "tests/load"
KEY = "sk-planted-master-key"
NAMES = ["llama-cpp-native", "stand-by"]


def test_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Callable[[str], None]
) -> None:
    """Every name is asked in both ways, nothing fails, and the first tokens of streams are
    measured."""
    monkeypatch.setenv("LITELLM_MASTER_KEY", KEY)
    target, results = tmp_path / "target.json", tmp_path / "results"
    found = ansible_playbook(str(LOAD / "target.yml"), "-e", f"target={target}")
    assert found.returncode == 0, found.stdout + found.stderr
    command = [
        sys.executable,
        str(LOAD / "loadtest.py"),
        "--target",
        str(target),
        "--results",
        str(results),
    ]
    command += ["--users", "2", "--seconds", "5", "--untimed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    for name in NAMES:
        chat, stream = (
            [row for row in rows if row[:2] == [name, kind]] for kind in ("chat", "stream")
        )
        assert [len(chat), len(stream)] == [1, 1], done.stdout
        assert [row[3] for row in chat + stream] == ["0", "0"], done.stdout
        assert stream[0][-1].isdigit(), done.stdout
    entries = json.loads((results / "stats.json").read_text(encoding="utf-8"))
    assert {(one["name"], one["method"]) for one in entries} == {
        (name, kind) for name in NAMES for kind in ("chat", "stream", "first token")
    }
    for path in results.iterdir():
        assert KEY not in path.read_text(encoding="utf-8")
    measured(done.stdout)
