"""What our own exporter makes of services, GPUs and models: of what is right, wrong, missing, and
of what hangs.

systemctl, nvidia-smi and journalctl are stand-ins here, shell scripts; molecule/exporter runs it on
a real host.
"""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import exporter
import pytest
from ansible.module_utils import modelyard_services

ROLE = Path(exporter.__file__).parents[1]
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read the text format; what is not of it, and what is told twice, fails."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    block = ""
    seen = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            block = line.split()[2]
            assert block not in seen, f"{block} has two blocks"
            seen.add(block)
        elif line.startswith("# TYPE "):
            assert line.split()[2:] == [block, exporter.METRICS[block][0]]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            assert name == block
            pairs = {
                (key, re.sub(r"\\.", lambda one: UNESCAPED[one[0]], raw))
                for key, raw in LABEL.findall(labels or "")
            }
            key = (name, frozenset(pairs))
            assert key not in found, line
            found[key] = float(value)
    return found


class Told:
    """Metrics, to be asked by name (without its prefix) and labels."""

    def __init__(self, text: str) -> None:
        self.values = parse(text)

    def __call__(self, name: str, /, **labels: str) -> float | None:
        return self.values.get((f"modelyard_{name}", frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def collected(collect: Callable[[exporter.Samples], None]) -> tuple[Told, str | None]:
    """Return what a part tells, and its complaint."""
    samples = exporter.Samples()
    problem = None
    try:
        collect(samples)
    except exporter.PartError as error:
        problem = str(error)
    return Told(samples.text()), problem


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Make stand-ins for programs, as shell scripts that come first on the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")

    def put(name: str, script: str) -> Path:
        path = directory / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return put


# The file
# ------------------------------------------------------------------------------------------


def test_the_oldest_python_reads_it_and_nothing_has_to_be_installed() -> None:
    for file in ROLE.glob("files/*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_its_text_survives_becoming_a_file_of_a_release() -> None:
    text = Path(exporter.__file__).read_text(encoding="utf-8")
    assert not re.search("@(RELEASE|CREDENTIALS|SLOT|PORT)@", text)


def test_every_metric_is_named_well_and_documented() -> None:
    documented = (ROLE / "README.md").read_text(encoding="utf-8")
    for name, (kind, description) in exporter.METRICS.items():
        assert name.startswith("modelyard_")
        assert (kind == "counter") == name.endswith("_total")
        assert description.endswith(".")
        assert "\n" not in description + name
        assert "\\" not in description
        assert f"`{name.removeprefix('modelyard_')}" in documented, name


# Text format
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['say "hi"', "back\\slash", "two\nlines", 'all\\"\n', "ünï", "\\n", "{a=b}, "]
)
def test_labels_say_what_they_were_given(text: str) -> None:
    samples = exporter.Samples()
    samples.add("modelyard_release_info", 1, service=text, release="r", version="")
    assert Told(samples.text())("release_info", service=text, release="r") == 1


def test_no_samples_is_an_empty_answer() -> None:
    assert exporter.Samples().text() == ""


# Services
# ------------------------------------------------------------------------------------------


class Host:
    """Directories of a host in a temporary place, written by the code that writes them on a real
    one."""

    def __init__(self, root: Path, program: Callable[[str, str], Path]) -> None:
        self.root = root
        self.program = program
        self.states: dict[str, dict[str, str]] = {}
        for name in ("services", "activations", "units", "proc"):
            (root / name).mkdir()

    def release(
        self, service: str, units: dict[str, str], **more: Any
    ) -> modelyard_services.Release:
        """Make a release live, its files and units written and its processes running, as after an
        activation."""
        spec: dict[str, Any] = {
            "user": "nobody",
            "files": {"config/a.conf": "from @RELEASE@ with @CREDENTIALS@\n"},
            "units": units,
            "store": [],
            "generation": "",
            "activation": {"strategy": "restart"},
            "checks": [],
            "plan": None,
            **more,
        }
        release = modelyard_services.Release(service, spec)
        config = Path(release.path, "config")
        config.mkdir(parents=True)
        for path, content in spec["files"].items():
            Path(release.path, path).write_text(release.fill(content), encoding="utf-8")
        Path(release.path, "manifest.json").write_text(release.manifest(), encoding="utf-8")
        modelyard_services.Service(service).point("current", release)
        for slot in release.slots or [None]:
            for unit, content in release.unit_files(slot).items():
                self.install(unit, content)
                self.runs(unit, release.path)
        return release

    def install(self, unit: str, content: str) -> None:
        (self.root / "units" / unit).write_text(content, encoding="utf-8")

    def runs(self, unit: str, release: str | None, **state: str) -> None:
        """Have a unit run, its process started from a release."""
        pid = str(1000 + len(self.states))
        (self.root / "proc" / pid).mkdir()
        named = "" if release is None else f"MODELYARD_RELEASE={release}\0"
        (self.root / "proc" / pid / "environ").write_text(f"HOME=/\0{named}", encoding="utf-8")
        known = {
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "MainPID": pid,
            "NRestarts": "0",
        }
        self.states[unit] = {"Id": unit, **known, **state}

    def told(self) -> tuple[Told, str | None]:
        """Collect, with a systemctl that tells the states of the units it is asked for."""
        cases = []
        for unit, state in self.states.items():
            lines = "".join(f"echo '{key}={value}'; " for key, value in state.items())
            cases.append(f"'{unit}') {lines};;".replace("; ;;", " ;;"))
        self.program(
            "systemctl",
            'while [ "$1" != -- ]; do shift; done; shift; separator=\nfor unit; do printf'
            f' "$separator"; separator="\\n"; case $unit in {" ".join(cases)} *) echo "Id=$unit";'
            " printf 'ActiveState=inactive\\nUnitFileState=\\nMainPID=0\\nNRestarts=0\\n' ;;"
            " esac; done",
        )
        return collected(exporter.collect_services)


@pytest.fixture
def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], Path]
) -> Host:
    for module, names in (
        (exporter, ("SERVICES", "UNITS", "PROC", "ACTIVATIONS")),
        (modelyard_services, ("SERVICES",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, str(tmp_path / name.lower()))
    return Host(tmp_path, program)


UNIT = "modelyard-redis.service"
REDIS = {UNIT: "[Service]\nExecStart=/bin/redis @RELEASE@/config/a.conf\n"}


def test_a_service_as_it_should_be(host: Host) -> None:
    release = host.release("redis", REDIS, generation="g1", plan={"port": 6379})
    (host.root / "activations/redis.json").write_text(
        '{"changed": true, "release": "x"}', encoding="utf-8"
    )
    told, problem = host.told()
    assert problem is None
    assert told("release_info", service="redis", release=release.id) == 1
    link = os.lstat(host.root / "services/redis/current").st_mtime
    assert told("release_live_since_seconds", service="redis") == link
    assert told("activation_last_success", service="redis") == 1
    ended = os.stat(host.root / "activations/redis.json").st_mtime
    assert told("activation_last_timestamp_seconds", service="redis") == ended
    assert told("unit_active", service="redis", unit=UNIT) == 1
    assert told("unit_restarts_total", service="redis", unit=UNIT) == 0
    for what in ("unit", "process", "files"):
        assert told("unit_drift", service="redis", unit=UNIT, what=what) == 0


@pytest.mark.parametrize(
    ("plan", "version"),
    [
        ({"version": "1.2"}, "1.2"),
        ({"build": {"version": "3"}, "instance": {}}, "3"),
        ({"rules": []}, ""),
        (None, ""),
    ],
)
def test_version_of_what_a_release_runs(host: Host, plan: Any, version: str) -> None:
    release = host.release("redis", REDIS, plan=plan)
    labels = {"version": version} if version else {}
    assert host.told()[0]("release_info", service="redis", release=release.id, **labels) == 1


def drift(host: Host, unit: str = UNIT) -> dict[str, float | None]:
    told, problem = host.told()
    assert problem is None
    service = unit.removeprefix("modelyard-").removesuffix(".service").partition("@")[0]
    return {
        what: told("unit_drift", service=service, unit=unit, what=what)
        for what in ("unit", "process", "files")
    }


def test_drift_of_an_edited_unit(host: Host) -> None:
    host.release("redis", REDIS)
    with open(host.root / "units" / UNIT, "a", encoding="utf-8") as handle:
        handle.write("Nice=5\n")
    assert drift(host) == {"unit": 1, "process": 0, "files": 0}


@pytest.mark.parametrize("state", ["disabled", ""])
def test_drift_of_a_unit_that_would_not_come_back(host: Host, state: str) -> None:
    host.release("redis", REDIS)
    host.states[UNIT]["UnitFileState"] = state
    assert drift(host) == {"unit": 1, "process": 0, "files": 0}


def test_drift_of_a_unit_that_is_gone(host: Host) -> None:
    host.release("redis", REDIS)
    (host.root / "units" / UNIT).unlink()
    assert drift(host) == {"unit": 1, "process": 0, "files": 0}


@pytest.mark.parametrize("release", ["/opt/modelyard/services/redis/releases/0123456789ab", None])
def test_drift_of_a_process_of_another_release(host: Host, release: str | None) -> None:
    host.release("redis", REDIS)
    host.runs(UNIT, release)
    assert drift(host) == {"unit": 0, "process": 1, "files": 0}


def test_drift_of_an_edited_file(host: Host) -> None:
    release = host.release("redis", REDIS)
    Path(release.path, "config/a.conf").write_text("mine\n", encoding="utf-8")
    assert drift(host) == {"unit": 0, "process": 0, "files": 1}
    Path(release.path, "config/a.conf").unlink()
    assert drift(host) == {"unit": 0, "process": 0, "files": 1}


def test_what_does_not_run_has_no_process_that_could_drift(host: Host) -> None:
    host.release("redis", REDIS)
    host.runs(UNIT, "/other", ActiveState="failed", MainPID="0", NRestarts="4")
    assert drift(host) == {"unit": 0, "process": None, "files": 0}
    told, _ = host.told()
    assert told("unit_active", service="redis", unit=UNIT) == 0
    assert told("unit_restarts_total", service="redis", unit=UNIT) == 4


def test_a_process_that_has_just_ended_is_left_out(host: Host) -> None:
    host.release("redis", REDIS)
    host.states[UNIT]["MainPID"] = "4000000"
    assert drift(host) == {"unit": 0, "process": None, "files": 0}


def test_a_reload_keeps_the_environment_so_it_says_nothing(host: Host) -> None:
    host.release(
        "haproxy", {"modelyard-haproxy.service": "[Service]\n"}, activation={"strategy": "reload"}
    )
    host.runs("modelyard-haproxy.service", "/opt/modelyard/services/haproxy/releases/older")
    assert drift(host, "modelyard-haproxy.service") == {"unit": 0, "process": None, "files": 0}


SLOTS = {
    "units": {
        "modelyard-litellm@.service": (
            "[Service]\nExecStart=/bin/gateway @SLOT@ --port @PORT@ @CREDENTIALS@\n"
        )
    },
    "generation": "g7",
    "activation": {"strategy": "slots", "slots": {"blue": 4001, "green": 4002}},
}


def test_slots_that_are_installed_are_told(host: Host) -> None:
    host.release("litellm", **SLOTS)
    blue, green = (f"modelyard-litellm@{slot}.service" for slot in ("blue", "green"))
    assert drift(host, green) == {"unit": 0, "process": 0, "files": None}
    (host.root / "units" / green).unlink()
    told, problem = host.told()
    assert problem is None
    assert told("unit_active", service="litellm", unit=blue) == 1
    assert told("unit_active", service="litellm", unit=green) is None
    assert told("unit_drift", service="litellm", unit=blue, what="files") == 0
    (host.root / "units" / blue).unlink()
    assert drift(host, blue)["unit"] == drift(host, green)["unit"] == 1


def test_what_a_release_is_to_us_is_what_it_is_to_the_activation(host: Host) -> None:
    """The exporter reads manifests with code of its own: it must fill them in as the code does that
    wrote them."""
    for service, more in (("redis", {"units": REDIS, "generation": "g1"}), ("litellm", SLOTS)):
        wanted = host.release(service, **more)
        seen = exporter.Release(service)
        expected: dict[str, str] = {}
        for slot in wanted.slots or [None]:
            expected |= wanted.unit_files(slot)
        assert (seen.id, seen.path, seen.units()) == (wanted.id, wanted.path, expected)
        assert not seen.edited()


def test_an_activation_that_failed_and_one_under_way(host: Host) -> None:
    host.release("redis", REDIS)
    told, problem = host.told()
    assert (told("activation_last_success", service="redis"), problem) == (None, None)
    (host.root / "activations/redis.json").write_text(
        '{"failed": true, "msg": "no"}', encoding="utf-8"
    )
    assert host.told()[0]("activation_last_success", service="redis") == 0


def test_a_service_that_was_never_live_has_only_its_failure(host: Host) -> None:
    (host.root / "services/redis/releases").mkdir(parents=True)
    (host.root / "activations/redis.json").write_text('{"failed": true}', encoding="utf-8")
    assert host.told()[0].names() == set(), "nothing is staged: it left the plan"
    (host.root / "services/redis/staged").symlink_to("releases/0123456789ab")
    told, problem = host.told()
    assert (told.names(), problem) == (
        {"modelyard_activation_last_success", "modelyard_activation_last_timestamp_seconds"},
        None,
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"units": {}}'])
def test_a_broken_manifest_does_not_take_the_others(host: Host, text: str) -> None:
    broken = host.release("ollama@a", {"modelyard-ollama@a.service": "[Service]\n"})
    host.release("redis", REDIS)
    Path(broken.path, "manifest.json").write_text(text, encoding="utf-8")
    told, problem = host.told()
    assert told("unit_active", service="redis", unit=UNIT) == 1
    assert problem is not None
    assert problem.startswith("ollama@a: ")


def test_systemctl_that_fails_leaves_a_reason(host: Host) -> None:
    host.release("redis", REDIS)
    host.program = lambda name, script: Path()
    (host.root / "bin/systemctl").write_text(
        "#!/bin/sh\necho 'Failed to connect to bus'; exit 1\n", encoding="utf-8"
    )
    (host.root / "bin/systemctl").chmod(0o755)
    assert host.told()[1] == "systemctl show: Failed to connect to bus"


# GPUs
# ------------------------------------------------------------------------------------------

# Real: github.com/utkuozdemir/nvidia_gpu_exporter, internal/captures (595.80 L40S, 580.173.02 H200
# MIG, 595.71.05 RTX 4080 SUPER), our columns of them, without units. The collector masked UUIDs;
# one is changed here to tell cards apart.
MASKED = "GPU-00000000-0000-0000-0000-000000000000"
L40S = (
    f"0, {MASKED}, NVIDIA L40S, 00000000:01:00.0, 595.80, 46068, 0, 100, 63, 144.97, 350.00, 0, 0"
)
H200_MIG = (
    f"0, {MASKED}, NVIDIA H200, 00000000:83:00.0, 580.173.02, 143771, 44, [N/A], 37, 89.93, 700.00,"
    " 0, 0"
)
RTX_4080 = (
    "1, GPU-00000000-0000-0000-0000-000000000001, NVIDIA GeForce RTX 4080 SUPER, 00000000:02:00.0,"
    " 595.71.05, 16376, 596, 0, 43, 26.20, 320.00, [N/A], [N/A]"
)
# Real texts, from public reports.
LOST = "Unable to determine the device handle for GPU0000:20:00.0: Unknown Error"
DRIVER = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
FALLEN = "NVRM: Xid (PCI:0000:44:00): 79, GPU has fallen off the bus"


def smi(*lines: str, status: int = 0) -> str:
    return "\n".join(["cat <<'END'", *lines, "END", f"exit {status}"])


def test_a_card_that_tells_all(program: Callable[[str, str], Path]) -> None:
    program("nvidia-smi", f'echo "$*" > "$0.log"\n{smi(L40S)}')
    told, problem = collected(exporter.Gpus().collect)
    gpu = {"index": "0", "uuid": MASKED, "name": "NVIDIA L40S"}
    assert problem is None
    assert told("gpu_info", **gpu, driver_version="595.80") == 1
    assert told("gpu_memory_total_bytes", **gpu) == 46068 * 2**20
    assert told("gpu_memory_used_bytes", **gpu) == 0
    assert told("gpu_utilization_ratio", **gpu) == 1
    assert told("gpu_temperature_celsius", **gpu) == 63
    assert told("gpu_power_watts", **gpu) == 144.97
    assert told("gpu_power_limit_watts", **gpu) == 350
    assert told("gpu_ecc_errors_total", **gpu, type="corrected") == 0
    assert told("gpu_ecc_errors_total", **gpu, type="uncorrected") == 0


def test_what_a_card_does_not_tell_is_left_out(program: Callable[[str, str], Path]) -> None:
    program("nvidia-smi", smi(H200_MIG, RTX_4080))
    told, problem = collected(exporter.Gpus().collect)
    assert problem is None
    mig = {"index": "0", "uuid": MASKED, "name": "NVIDIA H200"}
    rtx = {"index": "1", "uuid": MASKED[:-1] + "1", "name": "NVIDIA GeForce RTX 4080 SUPER"}
    assert told("gpu_utilization_ratio", **mig) is None
    assert told("gpu_utilization_ratio", **rtx) == 0
    assert told("gpu_ecc_errors_total", **mig, type="uncorrected") == 0
    assert told("gpu_ecc_errors_total", **rtx, type="uncorrected") is None
    assert told("gpu_memory_used_bytes", **rtx) == 596 * 2**20


@pytest.mark.parametrize(
    "unknown", ["[N/A]", "[Not Supported]", "[Unknown Error]", "[GPU requires reset]", "N/A"]
)
def test_all_ways_of_not_telling(program: Callable[[str, str], Path], unknown: str) -> None:
    program("nvidia-smi", smi(", ".join(L40S.split(", ")[:5] + [unknown] * 8)))
    told, problem = collected(exporter.Gpus().collect)
    assert (told.names(), problem) == ({"modelyard_gpu_info"}, None)


def test_a_lost_card_leaves_the_others_and_a_reason(program: Callable[[str, str], Path]) -> None:
    program("nvidia-smi", smi(L40S, LOST, status=255))
    told, problem = collected(exporter.Gpus().collect)
    assert told("gpu_temperature_celsius", index="0", uuid=MASKED, name="NVIDIA L40S") == 63
    assert problem == f"nvidia-smi: {LOST} (exit status 255)"


def test_no_driver_is_a_reason(program: Callable[[str, str], Path]) -> None:
    program("nvidia-smi", smi(DRIVER, status=9))
    told, problem = collected(exporter.Gpus().collect)
    assert (told.values, problem) == ({}, f"nvidia-smi: {DRIVER} (exit status 9)")


def entry(cursor: int, message: Any) -> str:
    return json.dumps({"__CURSOR": f"c{cursor}", "MESSAGE": message})


def test_errors_in_the_kernels_log(program: Callable[[str, str], Path]) -> None:
    program("nvidia-smi", smi(L40S, RTX_4080))
    lines = [
        entry(1, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module"),
        entry(2, "NVRM: Xid (PCI:0000:01:00): 31, pid=4711, name=python3, MMU Fault"),
        entry(3, "NVRM: Xid (PCI:0000:01:00): 43, pid=4711, name=python3"),
        entry(4, [1, 2, 3]),
        entry(5, FALLEN),
        "no JSON",
    ]
    first = "\n".join(["cat <<'END'", *lines, "END"])
    later = entry(6, "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.")
    cases = f"*--after-cursor=c5) echo '{later}' ;; *--after-cursor*) ;; *) {first}\n"
    log = program("journalctl", f'echo "$*" >> "$0.log"\ncase "$*" in {cases}esac')
    gpus = exporter.Gpus()
    collected(gpus.collect)
    l40s = {"index": "0", "uuid": MASKED, "name": "NVIDIA L40S"}
    rtx = {"index": "1", "uuid": MASKED[:-1] + "1", "name": "NVIDIA GeForce RTX 4080 SUPER"}
    for total, last in ((2, 43), (3, 79), (3, 79)):
        told, problem = collected(gpus.collect_xids)
        assert problem is None
        assert (told("gpu_xid_errors_total", **l40s), told("gpu_last_xid", **l40s)) == (total, last)
        assert (told("gpu_xid_errors_total", **rtx), told("gpu_last_xid", **rtx)) == (0, 0)
        # nvidia-smi does not list it: its place on the bus is all that is known of it.
        assert told("gpu_last_xid", name="0000:44:00") == 79
    asked = (log.parent / "journalctl.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition("--after-cursor=")[2] for line in asked] == ["", "c5", "c6"]


@pytest.mark.parametrize(
    ("smis", "kernels"),
    [
        ("00000000:65:00.0", "0000:65:00"),
        ("00000001:0B:00.0", "0001:0b:00"),
        ("00000000:65:00.0", "0000:65:00.0"),
    ],
)
def test_places_on_the_bus(smis: str, kernels: str) -> None:
    assert exporter.bus_place(smis) == exporter.bus_place(kernels)


# Parts
# ------------------------------------------------------------------------------------------


def scrape(*parts: exporter.Part) -> Told:
    made = exporter.Exporter({"probes": [], "probe_interval_s": None})
    made.services, *others = parts
    made.gpus = list(others)
    return Told(made.scrape())


@pytest.fixture
def nvidia(program: Callable[[str, str], Path]) -> None:
    program("nvidia-smi", "exit 1")


def fine(samples: exporter.Samples) -> None:
    samples.add("modelyard_unit_active", 1, service="a")


@pytest.mark.usefixtures("nvidia")
def test_a_part_that_fails_takes_neither_what_it_told_nor_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(samples: exporter.Samples) -> None:
        samples.add("modelyard_gpu_info", 1, index="0")
        raise KeyError("what?")

    broken = exporter.Part("gpus", fails)
    for _ in range(2):
        told = scrape(exporter.Part("services", fine), broken)
        assert told("exporter_part_up", part="services") == 1
        assert told("exporter_part_up", part="gpus") == 0
        assert told("unit_active", service="a") == 1
        assert told("gpu_info", index="0") == 1
    assert capsys.readouterr().err == "gpus: KeyError('what?')\n", "told once"


@pytest.mark.usefixtures("nvidia")
def test_a_part_that_hangs_is_not_asked_again_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As nvidia-smi does inside a driver that hangs, where it cannot even be killed."""
    monkeypatch.setattr(exporter, "PART_TIMEOUT_S", 5)
    free, asked = threading.Event(), []

    def hangs(samples: exporter.Samples) -> None:
        asked.append(1)
        free.wait(60)
        samples.add("modelyard_gpu_info", 1, index="0")

    part = exporter.Part("gpus", hangs)
    for _ in range(3):
        told = scrape(exporter.Part("services", fine), part)
        assert told("exporter_part_up", part="services") == 1
        assert told("exporter_part_up", part="gpus") == 0
        assert told("gpu_info", index="0") is None
    assert len(asked) == 1
    free.set()
    assert part.thread is not None
    part.thread.join(60)
    monkeypatch.setattr(exporter, "PART_TIMEOUT_S", 60)
    told = scrape(exporter.Part("services", fine), part)
    assert (told("exporter_part_up", part="gpus"), told("gpu_info", index="0")) == (1, 1)
    assert len(asked) == 2


def test_a_program_that_hangs_is_ended(
    program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "COMMAND_TIMEOUT_S", 0.5)
    path = program("nvidia-smi", 'echo $$ > "$0.pid"; exec sleep 60')
    _, problem = collected(exporter.Gpus().collect)
    assert problem == "nvidia-smi did not answer within 0.5 s"
    noted = Path(f"{path}.pid")
    if noted.exists():  # a slow machine may not have come that far
        assert not Path("/proc", noted.read_text(encoding="utf-8").strip()).exists()


def test_without_nvidia_smi_nothing_is_told_of_gpus(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.release("redis", REDIS)
    host.told()
    monkeypatch.setenv("PATH", str(host.root / "bin"))
    told = Told(exporter.Exporter({"probes": [], "probe_interval_s": None}).scrape())
    assert not [name for name in told.names() if "gpu" in name]
    assert [key for key in told.values if "part_up" in key[0]] == [
        ("modelyard_exporter_part_up", frozenset({("part", "services")}))
    ]


# Probes
# ------------------------------------------------------------------------------------------


class ModelServer(http.server.ThreadingHTTPServer):
    """A stand-in for a model's server: answers with what it was told to."""

    status = 200
    body = b""
    loaded = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ModelHandler)
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class ModelHandler(http.server.BaseHTTPRequestHandler):
    server: ModelServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(200, self.server.loaded)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers["Authorization"]))
        self.answer(self.server.status, self.server.body)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def stream(*events: dict[str, Any], done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return b"".join([b": ping\n\n", *lines, b"data: [DONE]\n\n" if done else b""])


def word(text: str, key: str = "content") -> dict[str, Any]:
    return {"choices": [{"delta": {key: text}}]}


def probed(server: ModelServer, **more: Any) -> Told:
    probe = {
        "service": "llama-cpp@m",
        "model": "m",
        "url": f"{server.url}/v1/chat/completions",
        "credential": None,
        "loaded_url": None,
        **more,
    }
    return Told(exporter.Prober([probe], 60).once(probe).text())


LABELS = {"service": "llama-cpp@m", "model": "m"}


def test_a_probe_streams_one_bounded_answer(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = stream(word(""), word("one"), word("two"))
    (tmp_path / "KEY").write_text("secret\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    before = time.time()
    told = probed(server, credential="KEY")
    ((path, question, key),) = server.seen
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert question["model"] == "m"
    assert question["stream"] is True
    assert question["max_tokens"] == exporter.PROBE_TOKENS
    assert told("probe_success", **LABELS) == 1
    assert told("probe_skipped", **LABELS) == 0
    first = told("probe_time_to_first_token_seconds", **LABELS)
    assert first is not None
    assert first > 0
    began = told("probe_timestamp_seconds", **LABELS)
    assert began is not None
    assert before <= began <= time.time()


def timed(monkeypatch: pytest.MonkeyPatch, *events: tuple[float, dict[str, Any]]) -> Any:
    """Read a stream whose pieces come at given times."""
    times = [when for when, _ in events]
    clock = iter([*times, times[-1]])
    monkeypatch.setattr(exporter.time, "monotonic", lambda: next(clock))
    lines = [f"data: {json.dumps(event)}\n".encode() for _, event in events]
    return exporter.measure(iter([*lines, b"data: [DONE]\n"]), 10.0)


def test_time_to_first_token_leaves_out_the_empty_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    got = timed(
        monkeypatch, (10.1, word("")), (10.5, word("a")), (10.6, word("b")), (10.9, word("c"))
    )
    assert got == (10.5, 10.9, 3)


def test_what_a_model_thinks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    got = timed(
        monkeypatch, (10.2, word("hm", "reasoning_content")), (10.4, word("hm", "reasoning"))
    )
    assert got == (10.2, 10.4, 2)


@pytest.mark.parametrize("field", exporter.GENERATED)
def test_any_field_that_a_model_fills_counts(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    assert timed(monkeypatch, (10.2, word("a", field)), (10.4, word("b", field)))[2] == 2


def test_the_exporter_and_the_checks_know_the_same_fields() -> None:
    checks = (ROLE.parents[1] / "plugins/module_utils/modelyard_checks.py").read_text(
        encoding="utf-8"
    )
    assert all(f'"{field}",' in checks for field in exporter.GENERATED)


def test_the_servers_own_count_of_tokens_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece may hold several tokens."""
    usage = {"choices": [], "usage": {"completion_tokens": 9}}
    assert timed(monkeypatch, (10.2, word("a b c")), (10.4, word("d e f")), (10.5, usage)) == (
        10.2,
        10.4,
        9,
    )


def test_an_answer_without_a_word_is_an_answer(server: ModelServer) -> None:
    server.body = stream(word(""))
    told = probed(server)
    assert told("probe_success", **LABELS) == 1
    assert told("probe_time_to_first_token_seconds", **LABELS) is None
    assert told("probe_tokens_per_second", **LABELS) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, stream(word("one"), done=False)),
        (200, b""),
        (200, b"data: {no JSON\n\n"),
        (200, b"data: [1]\n\n"),
        (200, stream({"error": {"message": "no"}})),
        (401, b"no key"),
        (404, b"\xff"),
        (500, b""),
    ],
)
def test_what_is_no_whole_answer_is_a_failure(
    server: ModelServer, status: int, body: bytes
) -> None:
    server.status, server.body = status, body
    told = probed(server)
    assert told("probe_success", **LABELS) == 0
    assert told("probe_time_to_first_token_seconds", **LABELS) is None


def test_nobody_there_is_a_failure(server: ModelServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1/chat/completions"
        assert probed(server, url=url)("probe_success", **LABELS) == 0


def test_an_answer_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b": ping\n"

    monkeypatch.setattr(exporter, "PROBE_TIMEOUT_S", 0.2)
    with pytest.raises(exporter.PartError, match=r"the answer did not end within 0\.2 s"):
        exporter.measure(endless(), time.monotonic())


@pytest.mark.parametrize(
    ("asked", "loaded", "skipped"),
    [
        ("m", ["m:latest"], 0),
        ("m:7b", ["m:7b"], 0),
        ("registry:5000/library/m", ["registry:5000/library/m:latest"], 0),
        ("m", ["m:7b"], 1),
        ("m:7b", ["m:latest", "n:7b"], 1),
        ("m", [], 1),
    ],
)
def test_ollama_is_not_made_to_load_a_model(
    server: ModelServer, asked: str, loaded: list[str], skipped: int
) -> None:
    server.loaded = json.dumps(
        {"models": [{"name": name, "model": name} for name in loaded]}
    ).encode()
    server.body = stream(word("one"))
    told = probed(server, model=asked, loaded_url=f"{server.url}/api/ps")
    labels = {"service": "llama-cpp@m", "model": asked}
    assert told("probe_skipped", **labels) == skipped
    assert told("probe_success", **labels) == (None if skipped else 1)
    assert len(server.seen) == (0 if skipped else 1)


def test_ollama_that_is_gone_is_a_failure_not_a_reason_to_skip(server: ModelServer) -> None:
    server.loaded = b"oops"
    told = probed(server, loaded_url=f"{server.url}/api/ps")
    assert told("probe_success", **LABELS) == 0
    assert server.seen == []


def test_what_goes_wrong_is_said_once(
    server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = {
        "service": "a",
        "model": "1",
        "url": f"{server.url}/v1",
        "credential": None,
        "loaded_url": None,
    }
    prober = exporter.Prober([probe], 60)
    for body in (
        stream(),
        stream(done=False),
        stream(done=False),
        b"data: [1]\n",
        stream(),
        stream(),
    ):
        server.body = body
        prober.once(probe)
    assert capsys.readouterr().err.splitlines() == [
        "probe of 1 (a): the stream ended without [DONE]",
        "probe of 1 (a): AttributeError(\"'list' object has no attribute 'get'\")",
        "probe of 1 (a): all is well again",
    ]


def test_models_are_probed_in_turn_and_a_failure_is_told(server: ModelServer) -> None:
    server.body = stream(word("one"))
    base = {"url": f"{server.url}/v1/chat/completions", "credential": None, "loaded_url": None}
    probes = [
        {"service": "a", "model": "1", **base},
        {"service": "b", "model": "2", **base, "credential": "NONE"},
    ]
    prober = exporter.Prober(probes, 3600)
    told, problem = collected(prober.collect)
    assert (told.values, problem) == ({}, "the thread that probes has ended"), "it has not begun"
    prober.thread.start()
    deadline = time.monotonic() + 60
    while told("probe_success", service="b", model="2") is None and time.monotonic() < deadline:
        time.sleep(0.02)
        told, problem = collected(prober.collect)
    assert problem is None
    assert told("probe_success", service="a", model="1") == 1
    assert told("probe_success", service="b", model="2") == 0
    assert len(server.seen) == 1


@pytest.mark.parametrize(("interval", "probes"), [(None, [{}]), (0, [{}]), (300, [])])
def test_probing_can_be_left_out(interval: Any, probes: list[Any]) -> None:
    assert exporter.Exporter({"probes": probes, "probe_interval_s": interval}).probes is None


# The server
# ------------------------------------------------------------------------------------------


@pytest.fixture
def url(host: Host) -> Iterator[str]:
    """The address of an exporter that tells of one service."""
    host.release("redis", REDIS)
    host.told()
    served = exporter.Server(
        "127.0.0.1", 0, exporter.Exporter({"probes": [], "probe_interval_s": None})
    )
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


def test_metrics_over_http(url: str) -> None:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert Told(answer.read().decode())("exporter_part_up", part="services") == 1


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/metrics%2f"])
def test_nothing_else_is_answered(url: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + path, timeout=60)


def test_a_client_that_says_nothing_holds_up_nobody(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port))),
        urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer,
    ):
        assert answer.status == 200


def test_an_address_that_is_no_ipv4() -> None:
    try:
        served = exporter.Server(
            "::1", 0, exporter.Exporter({"probes": [], "probe_interval_s": None})
        )
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with served:
        assert served.server_address[0] == "::1"
