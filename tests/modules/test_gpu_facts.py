"""What the GPU module makes of `nvidia-smi`'s output, of its errors and of its silence.

`nvidia-smi` is a stand-in here: a shell script that prints sections of a file in
tests/data/nvidia-smi. Each file says in its head what of it is real and what was composed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import ansible.module_utils
import modelyard_gpu_facts
import pytest
from ansible.module_utils import modelyard_gpus

DATA = Path(__file__).parents[1] / "data/nvidia-smi"
MASKED = "GPU-00000000-0000-0000-0000-000000000000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the stand-in will be."""
    return tmp_path / "nvidia-smi"


def put(path: Path, script: str) -> str:
    """Make the stand-in a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def replay(path: Path, name: str, edit: tuple[str, str] = ("", "")) -> str:
    """Make a stand-in that prints the section of a file that belongs to its arguments, and writes
    these to a log."""
    sections: dict[str, str] = {}
    for section in (DATA / f"{name}.txt").read_text(encoding="utf-8").split("$ nvidia-smi ")[1:]:
        arguments, _, output = section.partition("\n")
        sections[arguments] = output.replace(*edit) if edit[0] else output
    cases = []
    for number, (arguments, output) in enumerate(sections.items()):
        path.with_suffix(f".{number}").write_text(output, encoding="utf-8")
        cases.append(f'"{arguments}") cat "$0.{number}" ;;')
    script = "\n".join(
        [
            'echo "$*" >> "$0.log"',
            'case "$*" in',
            *cases,
            '*) echo "no such call: $*"; exit 2 ;;',
            "esac",
        ]
    )
    return put(path, script)


def gpu(
    index: int,
    uuid: str,
    name: str,
    memory: int | None,
    free: int | None,
    capability: str,
    **mig: object,
) -> dict:
    return {
        "index": index,
        "uuid": uuid,
        "name": name,
        "memory_mib": memory,
        "memory_free_mib": free,
        "compute_capability": capability,
        "mig_mode": None,
        "mig_instances": [],
        "processes": [],
        **mig,
    }


def process(pid: int, name: str, memory: int | None, gpu_instance: int | None = None) -> dict:
    return {"pid": pid, "name": name, "gpu_instance": gpu_instance, "memory_mib": memory}


def instance(uuid: str, profile: str, gpu_instance: int, memory: int) -> dict:
    return {"uuid": uuid, "profile": profile, "gpu_instance": gpu_instance, "memory_mib": memory}


H200_INSTANCE = instance("MIG-f165f0ad-bde2-5b72-acdf-73bbf48eeb2c", "3g.71gb", 2, 71424)
A100 = "NVIDIA A100-SXM4-80GB"
RTX_4090 = "GPU-5d2b7c3e-0000-0000-0000-00000000000"
EXPECTED = {
    "p2000-525": (
        ("525.125.06", "12.0"),
        [gpu(0, "GPU-396caaed-39ca-3199-2e68-717cdb786ec6", "Quadro P2000", 5120, 5051, "6.1")],
    ),
    "t4-525": (
        ("525.89.02", "12.0"),
        [gpu(0, "GPU-84b0bf9a-67bf-493c-9214-4fad8b125a6d", "Tesla T4", 15360, 14958, "7.5")],
    ),
    "rtx4090-535": (
        ("535.86.05", "12.2"),
        [
            gpu(0, f"{RTX_4090}0", "NVIDIA GeForce RTX 4090", 24564, 24214, "8.9"),
            gpu(
                1,
                f"{RTX_4090}1",
                "NVIDIA GeForce RTX 4090",
                24564,
                4214,
                "8.9",
                processes=[process(4242, "/opt/app/bin/python3", 20000)],
            ),
        ],
    ),
    "a100-mig-535": (
        ("535.54.03", "12.2"),
        [
            gpu(
                0,
                "GPU-513536b6-7d19-9063-b049-1e69664bb298",
                A100,
                81920,
                80999,
                "8.0",
                mig_mode="enabled",
                mig_instances=[
                    instance(
                        "MIG-GPU-513536b6-7d19-9063-b049-1e69664bb298/3/0", "1g.20gb", 3, 19968
                    ),
                    instance("MIG-00000001-aaaa-0000-0000-000000000001", "1g.20gb", 4, 19968),
                    instance("MIG-00000002-aaaa-0000-0000-000000000002", "1g.20gb", 5, 19968),
                    instance("MIG-00000003-aaaa-0000-0000-000000000003", "1g.20gb", 6, 19968),
                ],
            ),
            gpu(
                1,
                "GPU-11111111-7d19-9063-b049-1e69664bb298",
                A100,
                81920,
                80999,
                "8.0",
                mig_mode="disabled",
            ),
            gpu(
                2,
                "GPU-22222222-7d19-9063-b049-1e69664bb298",
                A100,
                81920,
                80999,
                "8.0",
                mig_mode="enabled",
                mig_instances=[
                    instance("MIG-00000000-bbbb-0000-0000-000000000000", "1c.3g.40gb", 1, 40192),
                    instance("MIG-00000001-bbbb-0000-0000-000000000001", "1c.3g.40gb", 1, 40192),
                ],
                processes=[process(991, "/usr/bin/python3.11", 16, gpu_instance=1)],
            ),
        ],
    ),
    "laptop-550": (
        ("550.120", "12.4"),
        [
            gpu(
                0,
                f"{RTX_4090}2",
                "NVIDIA GeForce RTX 4060 Laptop GPU",
                8188,
                3984,
                "8.9",
                processes=[process(1483, "/usr/lib/xorg/Xorg", 3979)],
            )
        ],
    ),
    "gb10-580": (
        ("580.126.09", "13.0"),
        [gpu(0, "GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5", "NVIDIA GB10", None, None, "12.1")],
    ),
    "h200-mig-580": (
        ("580.173.02", "13.0"),
        [
            gpu(
                0,
                MASKED,
                "NVIDIA H200",
                143771,
                143113,
                "9.0",
                mig_mode="enabled",
                mig_instances=[H200_INSTANCE],
            )
        ],
    ),
    "h100-mig-590": (
        ("590.48.01", "13.1"),
        [
            gpu(
                0,
                MASKED,
                "NVIDIA H100 80GB HBM3",
                81559,
                81022,
                "9.0",
                mig_mode="enabled",
                mig_instances=[
                    instance("MIG-00000000-0000-0000-0000-000000000000", "3g.40gb", 2, 40448),
                    instance("MIG-00000001-0000-0000-0000-000000000001", "2g.20gb", 3, 20096),
                    instance("MIG-00000002-0000-0000-0000-000000000002", "1g.10gb", 9, 9984),
                    instance("MIG-00000003-0000-0000-0000-000000000003", "1g.10gb", 10, 9984),
                ],
            )
        ],
    ),
    "rtx4080super-595": (
        ("595.71.05", "13.2"),
        [
            gpu(
                0,
                MASKED,
                "NVIDIA GeForce RTX 4080 SUPER",
                16376,
                15348,
                "8.9",
                processes=[
                    process(2165, "/usr/bin/kwin_wayland", 25),
                    process(2496, "/usr/bin/plasma-keyboard", 200),
                    process(2620, "/usr/bin/Xwayland", 4),
                    process(2954, "/usr/bin/plasmashell", 120),
                    process(3527, "/usr/bin/xwaylandvideobridge", 3),
                    process(5021, "ffmpeg", 360),
                    process(5022, "ffmpeg", 503),
                ],
            )
        ],
    ),
    "h200-mig-610": (
        ("610.43.02", "13.3"),
        [
            gpu(
                0,
                MASKED,
                "NVIDIA H200",
                143771,
                143105,
                "9.0",
                mig_mode="enabled",
                mig_instances=[H200_INSTANCE],
            )
        ],
    ),
}


def test_every_sample_is_used() -> None:
    assert {sample.stem for sample in DATA.glob("*.txt")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_cards_and_drivers(path: Path, name: str) -> None:
    (driver_version, cuda_version), gpus = EXPECTED[name]
    assert modelyard_gpus.survey(replay(path, name)) == {
        "gpus": gpus,
        "driver_version": driver_version,
        "cuda_version": cuda_version,
        "reason": None,
    }
    calls = path.with_suffix(".log").read_text(encoding="utf-8").splitlines()
    assert len(calls) == (3 if "mig" in name else 2), "one call more only for MIG"


@pytest.mark.parametrize(
    ("line", "cuda_version"),
    [
        ("Not Found", None),  # seen on a vGPU host with driver 580.105.06
        (
            "Deprecated\nCUDA UMD Version        : 14.1",
            "14.1",
        ),  # composed: what driver 610 announces for CUDA 14
    ],
)
def test_cuda_version_of_odd_drivers(path: Path, line: str, cuda_version: str | None) -> None:
    found = modelyard_gpus.survey(replay(path, "laptop-550", ("12.4", line)))
    assert found["cuda_version"] == cuda_version
    assert len(found["gpus"]) == 1


@pytest.mark.parametrize(
    "unknown", ["[N/A]", "[Not Supported]", "[Unknown Error]", "[GPU requires reset]", "N/A"]
)
def test_what_a_card_does_not_tell_is_null(path: Path, unknown: str) -> None:
    (found,) = modelyard_gpus.survey(
        replay(path, "laptop-550", ("8188, 3984, 8.9, [N/A]", ", ".join([unknown] * 4)))
    )["gpus"]
    assert {**found, "processes": []} == gpu(
        0, f"{RTX_4090}2", "NVIDIA GeForce RTX 4060 Laptop GPU", None, None, None
    )


@pytest.mark.parametrize("text", ["N/A", "Not available in WDDM driver model", "[Not Found]"])
def test_memory_of_a_process_that_is_not_told(path: Path, text: str) -> None:
    (found,) = modelyard_gpus.survey(replay(path, "laptop-550", (": 3979 MiB", f": {text}")))[
        "gpus"
    ]
    assert found["processes"] == [process(1483, "/usr/lib/xorg/Xorg", None)]


# The texts are real, from public reports. The exit statuses are only passed on.
DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
OLD = 'Field "compute_cap" is not a valid field to query.'  # driver 470
LOST = "Unable to determine the device handle for GPU0000:20:00.0: Unknown Error"


@pytest.mark.parametrize(
    ("said", "status"),
    [("No devices were found", 6), (DRIVER, 9), (MISMATCH, 18), (OLD, 2), (LOST, 255)],
)
def test_why_there_is_no_gpu(path: Path, said: str, status: int) -> None:
    program = put(path, f"cat <<'END'\n{said}\n\nEND\nexit {status}")
    assert modelyard_gpus.survey(program) == {
        "gpus": [],
        "driver_version": None,
        "cuda_version": None,
        "reason": f"nvidia-smi: {said} (exit status {status})",
    }


def test_errors_of_the_loader_are_told_too(path: Path) -> None:
    program = put(path, "echo 'cannot open shared object file: libnvidia-ml.so.1' >&2; exit 127")
    assert "libnvidia-ml.so.1 (exit status 127)" in modelyard_gpus.survey(program)["reason"]


def test_no_output_at_all(path: Path) -> None:
    assert (
        modelyard_gpus.survey(put(path, "exit 0"))["reason"]
        == "nvidia-smi: it lists no GPU (exit status 0)"
    )


def test_program_that_cannot_be_run(path: Path) -> None:
    path.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    path.chmod(0o755)
    found = modelyard_gpus.survey(str(path))
    assert found["gpus"] == []
    assert found["reason"] == f"{path} cannot be run: No such file or directory"


def test_a_lost_gpu_leaves_the_others_and_a_reason(path: Path) -> None:
    """Composed: one of two cards answers, the other one has fallen off the bus."""
    second = (
        "1, GPU-5d2b7c3e-0000-0000-0000-000000000001, NVIDIA GeForce RTX 4090, 24564, 4214, 8.9,"
        " [N/A], 535.86.05"
    )
    found = modelyard_gpus.survey(replay(path, "rtx4090-535", (second, LOST)))
    assert [card["index"] for card in found["gpus"]] == [0]
    assert found["reason"] == f"nvidia-smi: {LOST}"


def test_a_warning_is_told_once_and_hides_no_gpu(path: Path) -> None:
    """Exit status 14 is a damaged infoROM: everything is printed, then the warning."""
    warning = "WARNING: infoROM is corrupted at gpu 0000:84:00.0"
    program = replay(path, "rtx4090-535")
    program = put(path, f"{Path(program).read_text(encoding='utf-8')}\necho '{warning}'\nexit 14")
    found = modelyard_gpus.survey(program)
    assert [card["index"] for card in found["gpus"]] == [0, 1]
    assert found["cuda_version"] == "12.2"
    assert found["reason"] == f"nvidia-smi: {warning}"


def test_instances_that_cannot_be_listed_leave_a_reason(path: Path) -> None:
    """Composed: why -L alone would fail is not known."""
    program = replay(path, "h200-mig-580")
    script = (
        Path(program)
        .read_text(encoding="utf-8")
        .replace('"-L") cat', '"-L") echo "Insufficient Permissions"; exit 4; cat')
    )
    found = modelyard_gpus.survey(put(path, script))
    assert found["gpus"][0]["mig_instances"] == []
    assert found["reason"] == "nvidia-smi: Insufficient Permissions"


def test_bytes_that_are_no_text(path: Path) -> None:
    """Names of processes are printed as they are."""
    program = replay(path, "laptop-550")
    path.with_suffix(".1").write_bytes(
        path.with_suffix(".1").read_bytes() + b"        Name : \xff\xfe&<\n"
    )
    found = modelyard_gpus.survey(program)
    assert found["cuda_version"] == "12.4"
    assert found["reason"] is None


@pytest.mark.parametrize("when", ["first call", "second call"])
def test_a_driver_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A program that waits inside the driver survives SIGKILL. No test can cause that, so `kill`
    does nothing here."""
    started: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: started.append(process))
    if when == "first call":
        program = put(path, "exec sleep 60")
    else:
        program = replay(path, "laptop-550")
        put(
            path,
            Path(program)
            .read_text(encoding="utf-8")
            .replace('"-q") cat', '"-q") exec sleep 60; cat'),
        )
    begin = time.monotonic()
    found = modelyard_gpus.survey(program, timeout_s=1)
    took = time.monotonic() - begin
    monkeypatch.undo()
    (process,) = started
    assert process.poll() is None, "it had ended by itself"
    process.kill()
    process.wait()
    assert took < 10
    assert found["gpus"] == []
    assert found["reason"].startswith("nvidia-smi gave no answer within 1 s: the driver hangs")


def run_module(directory: Path, **arguments: object) -> dict:
    """Run the module as Ansible does, with its arguments on standard input and only `directory` on
    the PATH."""
    bootstrap = (
        "import ansible.module_utils, ansible.module_utils.basic as b, sys, runpy\n"
        f"ansible.module_utils.__path__.append({ansible.module_utils.__path__[-1]!r})\n"
        "b._ANSIBLE_ARGS = sys.stdin.buffer.read()\n"
        "b._ANSIBLE_PROFILE = 'legacy'\n"
        f"runpy.run_path({modelyard_gpu_facts.__file__!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", bootstrap],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(directory)},
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_module_with_a_gpu(path: Path, check_mode: bool) -> None:
    (driver_version, cuda_version), gpus = EXPECTED["h100-mig-590"]
    replay(path, "h100-mig-590")
    path.write_text(
        f"#!/bin/sh\nPATH=/usr/bin:/bin\n{path.read_text(encoding='utf-8')}", encoding="utf-8"
    )
    done = run_module(path.parent, _ansible_check_mode=check_mode)
    assert {key: value for key, value in done.items() if key != "invocation"} == {
        "changed": False,
        "gpus": gpus,
        "driver_version": driver_version,
        "cuda_version": cuda_version,
        "reason": None,
    }


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_module_without_nvidia_smi(tmp_path: Path, check_mode: bool) -> None:
    done = run_module(tmp_path, _ansible_check_mode=check_mode)
    assert done["changed"] is False
    assert "failed" not in done
    assert done["gpus"] == []
    assert done["reason"] == "nvidia-smi is not installed; it comes with the NVIDIA driver"
