"""Preflight as site.yml runs it, on this machine. `nvidia-smi` is a stand-in: a script that prints
what was recorded.

This machine is no host of ours, so there are problems beside those of the GPUs; only the latter are
looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.tiny_gguf import write_model

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/nvidia-smi"


def engine(model: str, **more: object) -> dict[str, Any]:
    """One entry of the plan's engines."""
    return {
        "service": f"llama-cpp@{model}",
        "model": model,
        "role": "llama_cpp",
        "gpu": True,
        "gpus": [],
        "vram_mib": None,
        "source": None,
        "context_length": None,
        "options": {},
        "max_loaded": None,
        **more,
    }


def preflight(
    directory: Path, stand_in: str, engines: list[dict[str, Any]], *arguments: str, **more: object
) -> tuple[dict[str, Any], str]:
    """Run the task; return its result and what was shown."""
    program = directory / "bin/nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{stand_in}\n", encoding="utf-8")
    program.chmod(0o755)
    playbook, result = directory / "play.yml", directory / "result.json"
    task = {
        "modelyard_preflight": {"free_mib": {}, "engines": engines, **more},
        "environment": {"PATH": f"{program.parent}:/usr/bin:/bin"},
        "register": "found",
        "ignore_errors": True,
    }
    keep = {
        "ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(result)},
        "check_mode": False,
    }
    play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": [task, keep]}
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "gpuhost,", playbook, *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.exists(), done.stdout
    return json.loads(result.read_text(encoding="utf-8")), done.stdout


def recorded(directory: Path, name: str) -> str:
    """The stand-in's script: prints the section of a recording that belongs to its arguments."""
    cases = []
    for number, section in enumerate(
        (DATA / f"{name}.txt").read_text(encoding="utf-8").split("$ nvidia-smi ")[1:]
    ):
        arguments, _, output = section.partition("\n")
        (directory / f"{number}.txt").write_text(output, encoding="utf-8")
        cases.append(f'"{arguments}") cat {directory}/{number}.txt ;;')
    return "\n".join(['case "$*" in', *cases, "*) exit 2 ;;", "esac"])


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_models_are_placed_on_the_gpus_of_the_host(tmp_path: Path, arguments: list[str]) -> None:
    write_model(tmp_path / "tiny.gguf")
    engines = [
        engine("tiny", source={"path": str(tmp_path / "tiny.gguf")}),
        engine("large", vram_mib=24000),
        engine(
            "split",
            vram_mib=1000,
            gpus=[f"GPU-5d2b7c3e-0000-0000-0000-00000000000{n}" for n in (0, 1)],
        ),
        engine("pulled", service="ollama@local", role="ollama"),
    ]
    found, shown = preflight(tmp_path, recorded(tmp_path, "rtx4090-535"), engines, *arguments)
    assert found["changed"] is False
    assert [card["memory_mib"] for card in found["gpus"]["gpus"]] == [24564, 24564]
    assert found["gpus"]["driver_version"] == "535.86.05"
    assert found["placed"] == {"llama-cpp@tiny": [0]}
    tiny, pulled = found["estimates"]
    assert tiny["how"] == "estimate: 1 weights + 2 cache for 4096 tokens + 522 for computing"
    assert tiny["mib"] == 525
    assert pulled["mib"] is None
    problems = [problem for problem in found["problems"] if "GPU" in problem]
    assert problems == [
        '"large" needs 24000 MiB on GPU 1 of gpuhost, but GPU 1 has 4064 of 24564 MiB left beside'
        ' "split" (500), python3 (20000, unmanaged). Fix: choose other gpus, a smaller model or'
        " quantization, or a shorter context_length"
    ]
    assert problems[0] in found["msg"]
    assert "gpuhost: 0    24564  23539  NVIDIA GeForce RTX 4090  split 500, tiny about 525" in shown


def test_a_host_without_a_usable_gpu(tmp_path: Path) -> None:
    """Asked for: refused, with the driver's own words. Not asked for: a host that serves from its
    processor."""
    script = "echo 'No devices were found'; exit 6"
    declared = [{"index": 0, "name": None, "uuid": None, "memory_mib": 24576, "models": []}]
    found, _ = preflight(
        tmp_path, script, [engine("a", vram_mib=1), engine("b")], declared_gpus=declared
    )
    assert [problem for problem in found["problems"] if "GPU" in problem] == [
        'llm_gpus of gpuhost declares 1 GPU and GPUs are required (gpus, vram_mib) by "a", but '
        "the host has no usable GPU: nvidia-smi: No devices were found (exit status 6). Install "
        "or repair the NVIDIA driver, or move the models to a host that has GPUs"
    ]
    found, _ = preflight(tmp_path, script, [engine("b")])
    assert not [problem for problem in found["problems"] if "GPU" in problem]
    assert (found["placed"], found["estimates"], found["gpu_table"]) == ({}, [], [])


def test_without_engines_no_gpu_is_asked_for(tmp_path: Path) -> None:
    found, _ = preflight(tmp_path, f"touch {tmp_path}/asked; exit 6", [])
    assert found["gpus"]["reason"] == "no engine runs on this host"
    assert not (tmp_path / "asked").exists()
