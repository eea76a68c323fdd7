"""Runs the real ansible-core, as a user would, on inventories of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warm import BIN, LIMIT_S, Warm

ROOT = Path(__file__).parents[2]
GROUPS = ("llm_redis", "llm_ollama", "llm_llama_cpp_python", "llm_vllm_qwen", "llm_vllm_dolphin")


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with Warm() as server:
        yield server


@pytest.fixture
def ansible(warm: Warm) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of ansible's programs, in the root of the clone unless told otherwise; `stdout` has
    stderr in it."""

    def run(
        program: str, *arguments: object, directory: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        keep = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("ANSIBLE_") and not k.endswith("_API_KEY")
        }
        command = [program, *map(str, arguments)]
        path = f"{BIN}:{os.environ['PATH']}"
        env = {**keep, "PATH": path, "ANSIBLE_NOCOLOR": "1", **environment}
        if not any(name.startswith("PYTHON") for name in environment):
            return warm.run(command, directory, env)
        # What Python reads at its start needs a start.
        return subprocess.run(
            [BIN / program, *command[1:]],
            cwd=directory,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    return run


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """An inventory of two hosts nobody can contact: `gw` (gateway, Redis) and `gpu` (native
    llama.cpp)."""
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    empty = "".join(f"        {group}: {{}}\n" for group in GROUPS[1:])
    (inventory / "hosts.yml").write_text(
        "---\nall:\n  children:\n    llm_stack:\n      children:\n"
        "        llm_gateway: {hosts: {gw: {ansible_host: 192.0.2.1}}}\n"
        "        llm_redis: {hosts: {gw: }}\n"
        "        llm_llama_cpp_native: {hosts: {gpu: {ansible_host: 192.0.2.2}}}\n" + empty,
        encoding="utf-8",
    )
    return inventory


@pytest.fixture
def variables(stack: Path) -> Callable[[str], Path]:
    """Write the variables of llm_stack and return their file."""

    def write(text: str, group: str = "llm_stack") -> Path:
        path = stack / "group_vars" / group / "llm.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
