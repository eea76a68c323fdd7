"""`plan` as a user runs it, on an inventory whose hosts are not there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
PLAN = "playbooks/plan.yml"
CHANGES = "Pending changes"


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_hosts_that_are_down_neither_fail_nor_hide_anything(
    ansible: Run, stack: Path, arguments: list[str]
) -> None:
    started = time.monotonic()
    done = ansible("ansible-playbook", "-i", stack, PLAN, *arguments)
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - started < 20
    plan, _, changes = done.stdout.partition(CHANGES)
    assert "127.0.0.1:6379  modelyard-redis" in plan
    assert "1. llama-cpp-native  llama_cpp_native on gpu" in plan
    for host in ("gw", "gpu"):
        assert f"{host}: live releases are not known (not reachable: " in changes
    assert "UNREACHABLE" not in done.stdout
    assert "failed=0" in changes


def test_limit_asks_those_hosts_alone(ansible: Run, stack: Path) -> None:
    done = ansible("ansible-playbook", "-i", stack, PLAN, "--limit", "gpu")
    assert done.returncode == 0, done.stdout
    plan, _, changes = done.stdout.partition(CHANGES)
    assert "Host gw\n" in plan
    assert "gw: live releases are not known (not asked (--limit))" in changes
    assert "gpu: live releases are not known (not reachable: " in changes


def test_nobody_is_contacted_without_the_tag(ansible: Run, stack: Path) -> None:
    done = ansible("ansible-playbook", "-i", stack, PLAN, "--skip-tags", "live")
    assert done.returncode == 0, done.stdout
    assert "Order of attempts for each public name" in done.stdout
    assert CHANGES not in done.stdout
    assert "Live releases are read" not in done.stdout


def test_graph_is_written_on_the_controller(ansible: Run, stack: Path, tmp_path: Path) -> None:
    bare, page = tmp_path / "graph.mmd", tmp_path / "graph.md"
    for path in (bare, page):
        done = ansible(
            "ansible-playbook", "-i", stack, PLAN, "--skip-tags", "live", "-e", f"llm_graph={path}"
        )
        assert done.returncode == 0, done.stdout
    assert '["llama_cpp_native on gpu"]' in bare.read_text(encoding="utf-8")
    assert (
        page.read_text(encoding="utf-8") == f"```mermaid\n{bare.read_text(encoding='utf-8')}```\n"
    )
    done = ansible(
        "ansible-playbook", "-i", stack, PLAN, "-e", f"llm_graph={tmp_path}/absent/graph.md"
    )
    assert done.returncode != 0
    assert "llm_graph cannot be written" in done.stdout
