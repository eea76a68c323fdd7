"""The whole CUDA build, on a host without a card: `make cuda`, and no part of the scenario's own
tests."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from modelyard_playbook import ansible_playbook

CAPABILITIES = os.environ["MODELYARD_CUDA"].split()
UNIT = "modelyard-llama-cpp@one"
# Says what nvidia-smi says where no process uses a card.
SILENT_SMI = "#!/bin/sh\nexit 0\n"


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook for CUDA."""
    options = {
        "backend": "cuda",
        "cuda_architectures": CAPABILITIES,
        # Without a card nothing lasts long, but the machine may be busy.
        "ready_timeout_s": 120,
        **variables,
    }
    return ansible_playbook("converge.yml", "-e", json.dumps(options))


def output(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def store(host: Any) -> str:
    """The store entry of the build, once the playbook has run."""
    started = time.monotonic()
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"the playbook took {time.monotonic() - started:.0f} s")
    unit = host.check_output(f"systemctl cat {UNIT}")
    return str(
        next(line for line in unit.splitlines() if line.startswith("ExecStart="))[10:].split(
            "/bin/"
        )[0]
    )


def test_the_build_is_kept_with_its_log(
    host: Any, store: str, measured: Callable[[str], None]
) -> None:
    log = host.file(f"{store}/build.log").content_string.splitlines()
    assert any(
        f"Using CMAKE_CUDA_ARCHITECTURES={CAPABILITIES[0].replace('.', '')}-real" in line
        for line in log
    )
    assert log[-1].startswith("built in "), log[-1]
    measured(f"{log[-1]}; {host.check_output(f'du -sm {store}').split()[0]} MiB in the store")


def test_it_brings_its_libraries_and_needs_no_driver_to_start(host: Any, store: str) -> None:
    server = f"{store}/bin/llama-server"
    linked = host.check_output(f"ldd {server}")
    assert "not found" not in linked
    for library in ("libcudart", "libcublas", "libcublasLt"):
        assert f"=> {store}/bin/../lib/{library}.so" in linked, linked
    assert "libcuda.so" not in linked
    assert "$ORIGIN/../lib" in host.check_output(f"grep -ao '$ORIGIN/../lib' {server}")


def test_it_says_that_there_is_no_card(host: Any, store: str) -> None:
    listed = host.run(f"{store}/bin/llama-server --list-devices")
    assert listed.rc == 0
    assert "Available devices:" in listed.stdout + listed.stderr
    assert "CUDA0" not in listed.stdout + listed.stderr


def test_without_gpus_asked_for_it_serves_from_the_processor(host: Any, store: str) -> None:
    key = "$(cat /etc/modelyard/credentials/llama-cpp@one/current/API_KEY)"
    body = json.dumps({"messages": [{"role": "user", "content": "say something"}], "max_tokens": 2})
    url = "http://127.0.0.1:8080/v1/chat/completions"
    answer = host.check_output(
        f"curl -sf -m 60 -H \"Authorization: Bearer {key}\" -d '{body}' {url}"
    )
    assert json.loads(answer)["usage"]["completion_tokens"] >= 1
    assert host.file(f"/etc/systemd/system/{UNIT}.service").contains("DeviceAllow=char-nvidia")


def test_with_gpus_asked_for_it_must_not_go_live(host: Any, store: str) -> None:
    """nvidia-smi is a stand-in here that knows no process, as on a host whose driver is too old for
    the build."""
    release = host.check_output("readlink /opt/modelyard/services/llama-cpp@one/current")
    host.check_output(
        f"printf %s '{SILENT_SMI}' > /usr/bin/nvidia-smi; chmod +x /usr/bin/nvidia-smi"
    )
    done = converge(one_gpus=[0])
    host.check_output("rm /usr/bin/nvidia-smi")
    assert done.returncode != 0
    assert "it is running, but not as planned" in output(done)
    assert f"no process of {UNIT}.service holds GPU memory: it runs on the CPU" in output(done)
    assert "failed to initialize CUDA: " in output(done)
    assert "is live again and passes its checks" in output(done)
    assert host.check_output("readlink /opt/modelyard/services/llama-cpp@one/current") == release
