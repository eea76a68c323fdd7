"""The check that a service computes on a GPU.

`nvidia-smi`, `systemctl` and `journalctl` are stand-ins here: scripts that print what a test gives
them. The processes are real, this one's. What llama.cpp says is composed after its source
(src/llama-model.cpp, ggml-cuda.cu of 0c1e570).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import modelyard_checks as checks

ALL = (
    "load_tensors: offloading 32 repeating layers to GPU\nload_tensors: offloaded 33/33 layers to"
    " GPU\n"
)
BUFFERS = (
    "load_tensors:   CPU_Mapped model buffer size =   281.81 MiB\n"
    "load_tensors:        CUDA0 model buffer size =  4403.49 MiB\n"
)
SOME = "load_tensors: offloaded 20/33 layers to GPU\n"
NONE = "load_tensors: offloaded 0/33 layers to GPU\n"
DRAFT = "load_tensors: offloaded 0/17 layers to GPU\n"
NO_CUDA = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs the check with what the stand-ins print; `smi` is the output (ME: this process) and
    status of nvidia-smi."""
    groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    group = groups[-1].split(":", 2)[2]

    def put(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def check(smi: tuple[str, int] | None, journal: str = "", **more: Any) -> dict[str, Any]:
        put(
            "systemctl",
            f'case "$2" in --property=ControlGroup) echo {shlex.quote(group)} ;; *) echo 1234abcd'
            " ;; esac",
        )
        put(
            "journalctl",
            f'[ "$1" = _SYSTEMD_INVOCATION_ID=1234abcd ] && printf %s {shlex.quote(journal)}',
        )
        if smi is not None:
            # No process has the other number: it is beyond what Linux gives.
            printed = smi[0].replace("ME", str(os.getpid())).replace("OTHER", "4194305")
            put("nvidia-smi", f"printf %s {shlex.quote(printed)}; exit {smi[1]}")
        put("head", 'exec /usr/bin/head "$@"')
        monkeypatch.setenv("PATH", str(tmp_path))
        wanted = {
            "name": "n",
            "service": "s",
            "kind": "gpu",
            "hint": "h",
            "unit": "x.service",
            "layers": "all",
            **more,
        }
        return checks.run_check(wanted)

    return check


@pytest.mark.parametrize(
    ("smi", "journal", "layers", "detail"),
    [
        ("ME, 5120\n", "", "all", "holds 5120 MiB of GPU memory"),
        # Two cards, and somebody else's process.
        ("OTHER, 300\nME, 5120\nME, 4096\n", "", "all", "holds 9216 MiB of GPU memory"),
        (
            "ME, 5120\n",
            ALL + BUFFERS,
            "all",
            "holds 5120 MiB of GPU memory, 33 of 33 layers are on the GPU",
        ),
        (
            "ME, 5120\n",
            SOME,
            "some",
            "holds 5120 MiB of GPU memory, 20 of 33 layers are on the GPU",
        ),
        # A second model for drafts may stay on the processor.
        (
            "ME, 5120\n",
            ALL + DRAFT,
            "all",
            "holds 5120 MiB of GPU memory, 33 of 33 layers are on the GPU",
        ),
        # Some drivers know the process and not its memory.
        ("ME, [N/A]\n", "", "all", "uses a GPU"),
        # In a container nvidia-smi sees no process at all.
        (
            "",
            ALL + BUFFERS,
            "all",
            "holds 4403 MiB of GPU memory, as it reports itself, 33 of 33 layers are on the GPU",
        ),
    ],
)
def test_on_the_gpu(
    run: Callable[..., dict[str, Any]], smi: str, journal: str, layers: str, detail: str
) -> None:
    assert run((smi, 0), journal, layers=layers) | {"seconds": 0} == {
        "name": "n",
        "service": "s",
        "kind": "gpu",
        "hint": "h",
        "status": "ok",
        "detail": detail,
        "seconds": 0,
        "final": False,
    }


@pytest.mark.parametrize(
    ("smi", "journal", "layers", "detail"),
    [
        (
            ("OTHER, 300\n", 0),
            "",
            "all",
            "no process of x.service holds GPU memory: it runs on the CPU",
        ),
        (
            ("", 0),
            NO_CUDA,
            "some",
            (
                "no process of x.service holds GPU memory: it runs on the CPU "
                "(failed to initialize CUDA: no CUDA-capable device is detected)"
            ),
        ),
        (("", 0), "", "all", "In a container it cannot: set the model's option log-verbosity: 4"),
        # Its own account does not count where nvidia-smi sees other processes and not this one.
        (("OTHER, 300\n", 0), ALL + BUFFERS, "all", "no process of x.service holds GPU memory"),
        # A process holds some memory of every GPU it sees, also when nothing is computed there.
        (("ME, 300\n", 0), NONE, "some", "0 of 33 layers are on the GPU"),
        (("ME, 3000\n", 0), SOME, "all", "20 of 33 layers are on the GPU"),
        (
            ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9),
            "",
            "all",
            (
                "nvidia-smi: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA"
                " driver."
            ),
        ),
        (("", 3), "", "all", "nvidia-smi: exit status 3"),
        (None, "", "all", "nvidia-smi is not installed"),
    ],
)
def test_on_the_processor(
    run: Callable[..., dict[str, Any]],
    smi: tuple[str, int] | None,
    journal: str,
    layers: str,
    detail: str,
) -> None:
    result = run(smi, journal, layers=layers)
    assert (result["status"], detail in result["detail"]) == ("failed", True), result
    assert result["final"] is True


def test_a_long_journal_is_not_read_to_its_end(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_FIRST_LINES", 2)
    assert run(("ME, 9\n", 0), "a\n" + SOME + ALL)["detail"] == "20 of 33 layers are on the GPU"
