"""What runs keep of the modules that they packed."""

from __future__ import annotations

import os
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins/vars/modelyard_payloads.py"
STAT = "ansible.modules.stat-ZIP_DEFLATED-none"


@pytest.fixture
def plugin() -> dict[str, Any]:
    """The plugin's names."""
    return runpy.run_path(str(PLUGIN))


@pytest.fixture
def place(tmp_path: Path, plugin: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's directory, a run's directory in it and one directory of modules."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/modelyard_x.py").write_text("A = 1\n")
    names = plugin["link"].__globals__
    constants = SimpleNamespace(
        DEFAULT_LOCAL_TMP=tmp_path,
        DEFAULT_MODULE_PATH=[str(tmp_path / "modules")],
        DEFAULT_MODULE_UTILS_PATH=[],
    )
    monkeypatch.setitem(names, "constants", constants)
    monkeypatch.setitem(names, "KEPT", tmp_path / "kept")
    monkeypatch.setitem(names, "atexit", SimpleNamespace(register=lambda *call: None))
    return tmp_path


def test_a_second_run_packs_nothing(
    ansible: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Ansible itself says so; with another layout of its cache it would pack again."""
    arguments = ("localhost", "-m", "ansible.builtin.stat", "-a", "path=/")
    runs = [ansible("ansible", *arguments, ANSIBLE_DEBUG="1") for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[-1].stdout
    assert "ANSIBALLZ: using cached module" in runs[1].stdout
    assert "ANSIBALLZ: Creating module" not in runs[1].stdout


def test_only_modules_are_kept_whose_sources_the_key_covers(
    place: Path, plugin: dict[str, Any]
) -> None:
    run, kept = place / "ansiballz_cache", place / "kept"
    run.mkdir()
    kept.mkdir()
    for name in (
        STAT,
        "ansible.legacy.modelyard_x-ZIP_DEFLATED-none",
        "ansible.legacy.other-ZIP_DEFLATED-none",
        "ansible_collections.a.b.plugins.modules.c-ZIP_DEFLATED-none",
        "ansible.modules.find-ZIP_DEFLATED-none.lock",
        "ansible.modules.file-ZIP_DEFLATED-none-part",
        "ansible.modules.copy-ZIP_DEFLATED-debugpy",
    ):
        (run / name).write_text(name)
    plugin["keep"](run, kept)
    assert sorted(path.name for path in kept.iterdir()) == [
        "ansible.legacy.modelyard_x-ZIP_DEFLATED-none",
        STAT,
    ]


def test_changed_sources_begin_anew(place: Path, plugin: dict[str, Any]) -> None:
    kept = place / "kept" / plugin["key"]()
    kept.mkdir(parents=True)
    (kept / STAT).write_text("packed")
    plugin["link"]()
    assert (place / "ansiballz_cache" / STAT).resolve() == kept / STAT
    (place / "ansiballz_cache" / STAT).unlink()
    (place / "modules/modelyard_x.py").write_text("A = 22\n")
    plugin["link"]()
    assert not (place / "ansiballz_cache" / STAT).exists()


def test_another_user_s_payloads_are_not_read(
    place: Path, plugin: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = place / "kept" / plugin["key"]()
    kept.mkdir(parents=True)
    (kept / STAT).write_text("packed")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    plugin["link"]()
    assert not (place / "ansiballz_cache").exists()


def test_payloads_of_other_sources_are_deleted_after_a_day(
    place: Path, plugin: dict[str, Any]
) -> None:
    for name, age_s in (("old", 90_000), ("young", 80_000)):
        (place / "kept" / name).mkdir(parents=True)
        then = (place / "kept").stat().st_mtime - age_s
        os.utime(place / "kept" / name, (then, then))
    plugin["link"]()
    assert not (place / "kept/old").exists()
    assert (place / "kept/young").exists()
