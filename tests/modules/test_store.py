"""What the store keeps and what it gives back to the disk. The files are real; who builds is a
stand-in for systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modelyard_artifact as artifact
import modelyard_preflight as preflight
import pytest
from ansible.module_utils import modelyard_host as hosts
from ansible.module_utils import modelyard_prepared as base
from ansible.module_utils import modelyard_services as services
from ansible.module_utils import modelyard_store as store
from ansible.module_utils.modelyard_services import DAY_S, Release, Service

LONG = 3 * DAY_S
YEAR = 365 * DAY_S


@dataclass
class Host:
    """The directories of one host, below a temporary one."""

    root: Path
    builds: set[str] = field(default_factory=set)  # transient units that are active

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def work(self) -> Path:
        return self.root / "cache/build"

    def have(self, name: str, age_s: float = LONG, *, whole: bool = True) -> Path:
        """Put an artifact there, or the half of one; returns its path."""
        path = self.store / f"{name}-1.0-0123456789ab"
        (path / "bin").mkdir(parents=True)
        (path / "bin/program").write_text("program\n" * 1000, encoding="utf-8")
        if whole:
            (path / store.COMPLETE).write_text("{}\n", encoding="utf-8")
        self.age(path, age_s)
        return path

    def work_on(self, name: str, age_s: float) -> Path:
        path = self.work / name
        path.mkdir(parents=True)
        (path / "build.log").write_text("error: no space left\n", encoding="utf-8")
        self.age(path, age_s)
        return path

    def age(self, path: Path, age_s: float) -> None:
        at = time.time() - age_s
        for one in [*path.rglob("*"), path]:
            os.utime(one, (at, at))

    def release(self, service: str, links: Sequence[str], *needs: Path) -> Release:
        """Put a release there that needs these artifacts, under these links."""
        spec = {
            "user": "nobody",
            "files": {},
            "units": {},
            "store": sorted(map(str, needs)),
            "generation": "",
            "activation": {},
            "checks": [],
            "plan": {},
        }
        release = Release(service, spec)
        Path(release.path).mkdir(parents=True)
        (Path(release.path) / "manifest.json").write_text(release.manifest(), encoding="utf-8")
        for link in links:
            Service(service).point(link, release)
        return release

    def systemctl(
        self, argv: list[str], timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        if argv[0] != "systemctl":
            return hosts.run(argv, timeout)
        state = "active" if argv[-1] in self.builds else "inactive"
        return subprocess.CompletedProcess(argv, 0, f"ActiveState={state}\n", "")

    def there(self) -> set[str]:
        """What is in the store and beside the builds, by name without version and hash."""
        return {name.removesuffix("-1.0-0123456789ab") for name in os.listdir(self.store)}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    for directory in (
        host.store,
        host.work,
        tmp_path / "services",
        tmp_path / "units",
        tmp_path / "tried",
    ):
        directory.mkdir(parents=True)
    for module, names in (
        (services, ("SERVICES",)),
        (store, ("SERVICES", "UNITS", "TRIED_UNITS")),
    ):
        for name in names:
            monkeypatch.setattr(
                module, name, str(tmp_path / {"TRIED_UNITS": "tried"}.get(name, name.lower()))
            )
    for module in (store, artifact):
        monkeypatch.setattr(module, "STORE", str(host.store))
        monkeypatch.setattr(module, "WORK", str(host.work))
    monkeypatch.setattr(services, "CREDENTIALS", str(tmp_path / "credentials"))
    monkeypatch.setattr(store, "COMMANDS", (str(tmp_path / "ollama"),))
    monkeypatch.setattr(store, "run", host.systemctl)
    return host


def test_an_artifact_goes_when_no_release_names_it(host: Host) -> None:
    old, live, shared = host.have("old"), host.have("live"), host.have("shared")
    oldest = host.release("litellm", (), host.have("oldest"))
    host.release("litellm", ("staged", "current"), live)
    host.release("llama-cpp@a", (), shared)
    host.release("llama-cpp@b", ("current",), shared)
    host.release("grafana", ("previous",), host.have("retired"))
    Service("grafana").record("retired", "any")
    assert base.cleaned(False) == [f"unused {old} deleted"]
    assert host.there() == {"live", "shared", "oldest", "retired"}
    assert services.missing(oldest) == [], "one can still go back to it"
    assert base.cleaned(False) == [], "a second run changes nothing"


def test_it_goes_with_the_last_release_that_named_it(host: Host) -> None:
    shared = host.have("shared")
    one, other = host.release("llama-cpp@a", (), shared), host.release("llama-cpp@b", (), shared)
    shutil.rmtree(one.path)
    assert base.cleaned(False) == []
    shutil.rmtree(other.path)
    assert base.cleaned(False) == [f"unused {shared} deleted"]


def test_what_was_asked_for_today_stays(host: Host) -> None:
    path = host.have("vllm")
    assert artifact.query(path.name, check_mode=True)["present"]
    assert store.unneeded(time.time()) == [str(path)], "asking in check mode leaves no trace"
    assert artifact.query(path.name, check_mode=False)["present"]
    assert base.cleaned(False) == []
    assert base.cleaned(True) == []
    host.age(path, DAY_S + 60)
    assert base.cleaned(False) == [f"unused {path} deleted"]


def test_check_mode_says_the_same_and_deletes_nothing(host: Host) -> None:
    path = host.have("vllm")
    release = host.release("vllm@a", ("previous",), path)
    Service("vllm@a").record("retired", release.id)
    history = Path(Service("vllm@a").root, "history.jsonl")
    history.write_text(
        json.dumps({**json.loads(history.read_text()), "at": int(time.time()) - 8 * DAY_S}) + "\n"
    )
    would = base.cleaned(True)
    assert would == ["retired service vllm@a deleted", f"unused {path} deleted"]
    assert path.exists()
    assert base.cleaned(False) == would
    assert not path.exists()
    assert base.cleaned(True) == []


def test_a_build_under_way_stays_and_what_others_left_goes(host: Host) -> None:
    going_on = host.have("vllm", whole=False)
    host.builds.add(store.unit_name(going_on.name))
    work = host.work_on(going_on.name, LONG)
    log = host.work_on("failed-1.0-0123456789ab", 3600)
    half, leftover = host.have("half", whole=False), host.work_on(f"half-{'0' * 12}", LONG)
    unpacked = host.have("litellm").rename(host.store / ".litellm-1.0-0123456789ab.new")
    archive = host.work / "grafana-1.0-0123456789ab.tar.zst"
    archive.write_bytes(b"gigabytes")
    host.age(archive, LONG)
    gone = [str(path) for path in (unpacked, half, archive, leftover)]
    assert store.delete_unneeded(time.time()) == gone
    assert {str(path) for path in host.store.iterdir()} == {str(going_on)}
    assert set(host.work.iterdir()) == {work, log}


def test_what_is_not_ours_stays(host: Host) -> None:
    for name in ("lost+found", "mine", "notes-1.0"):
        (host.store / name).mkdir()
        host.age(host.store / name, LONG)
    elsewhere = host.have("elsewhere").rename(host.root / "disk")
    (host.store / "linked-1.0-0123456789ab").symlink_to(elsewhere)
    assert base.cleaned(False) == []
    assert host.there() == {"lost+found", "mine", "notes-1.0", "linked"}
    assert (elsewhere / store.COMPLETE).exists()


@pytest.mark.parametrize(
    "place",
    [
        "units/modelyard-x.service",
        "tried/modelyard-x.service",
        "units/modelyard-x.service.d/mine.conf",
        "ollama",
    ],
)
def test_a_unit_or_a_command_names_it_too(host: Host, place: str) -> None:
    path, named = host.have("x"), host.root / place
    named.parent.mkdir(exist_ok=True)
    named.write_text(f"ExecStart={path}/bin/program serve\n", encoding="utf-8")
    (host.root / "units/modelyard-gone.service").symlink_to("nowhere")
    assert base.cleaned(False) == []
    named.unlink()
    assert base.cleaned(False) == [f"unused {path} deleted"]


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_a_clock_that_jumps_costs_nothing_that_is_used(host: Host, jump: float) -> None:
    live, going_on = host.have("live", 60), host.have("vllm", 60, whole=False)
    kept = host.release("litellm", ("current",), live)
    host.builds.add(store.unit_name(going_on.name))
    unused = host.have("unused", 60)
    assert store.delete_unneeded(time.time() + jump) == [str(unused)]
    assert services.missing(kept) == []
    assert going_on.exists()
    # The clock is right again, and what was asked for meanwhile says another year.
    host.age(live, -jump)
    assert base.cleaned(False) == []


def test_half_deleted_is_not_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = host.have("vllm")

    def cut_off(_path: str) -> None:
        raise OSError("read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(store.shutil, "rmtree", cut_off)
        assert base.cleaned(False) == [], "it is not said that it was deleted"
    assert (path / "bin/program").exists()
    assert not artifact.query(path.name, check_mode=False)["present"], (
        "nobody takes what is left for the whole"
    )
    host.age(path, LONG)
    assert base.cleaned(False) == [f"unused {path} deleted"]


def test_asked_for_while_another_is_deleted(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = host.have("a"), host.have("b")
    rmtree = shutil.rmtree

    def ask_meanwhile(path: str) -> None:
        artifact.query(second.name, check_mode=False)
        rmtree(path)

    monkeypatch.setattr(store.shutil, "rmtree", ask_meanwhile)
    assert store.delete_unneeded(time.time()) == [str(first)]
    assert (second / store.COMPLETE).exists()


def test_a_copy_counts_from_when_it_came(host: Host) -> None:
    path = host.have("litellm", whole=False)
    packed = artifact.finish(path.name)
    assert Path(packed["archive"]).parent == host.work, "where it is found if nobody fetches it"
    host.age(path, LONG)
    tar = [
        "tar",
        "--use-compress-program=zstd",
        "-cf",
        packed["archive"],
        "-C",
        str(host.store),
        path.name,
    ]
    subprocess.run(tar, check=True)
    shutil.rmtree(path)
    artifact.unpack(path.name, packed["archive"], hosts.sha256_of(packed["archive"]))
    assert time.time() - (path / "bin/program").stat().st_mtime > DAY_S
    assert base.cleaned(False) == []


def test_a_disk_full_of_it_is_no_reason_to_refuse(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = host.have("vllm")
    (path / "weights").write_bytes(os.urandom(8 << 20))
    host.age(path, LONG)
    space = os.statvfs(host.store)
    room = os.statvfs_result((*space[:2], *[(4 << 20) // space.f_frsize] * 3, *space[5:]))
    monkeypatch.setattr(preflight.os, "statvfs", lambda _path: room)
    asked: dict[str, Any] = {str(host.root): 10}
    assert preflight.disk_problems(asked) == []
    assert path.exists(), "preflight deletes nothing"
    (problem,) = preflight.disk_problems({str(host.root): 20})
    assert "12 MiB are free, 20 MiB are needed" in problem
    host.release("vllm@a", ("current",), path)
    (problem,) = preflight.disk_problems(asked)
    assert "4 MiB are free, 10 MiB are needed" in problem


@pytest.mark.parametrize(
    ("status", "active", "under_way"),
    [(None, True, True), (None, False, False), ("0\n", False, True), ("1\n", False, False)],
)
def test_a_build_that_succeeded_waits_to_be_collected(
    host: Host, status: str | None, active: bool, under_way: bool
) -> None:
    identifier = "engine-1.0-0123456789ab"
    work = host.work_on(identifier, 0)
    if status is not None:
        (work / "status").write_text(status, encoding="utf-8")
    if active:
        host.builds.add(store.unit_name(identifier))
    assert artifact.query(identifier, check_mode=False) == {
        "present": False,
        "building": under_way,
        "cores": os.cpu_count(),
    }
