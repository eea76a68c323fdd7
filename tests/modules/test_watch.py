"""Whether anything that a role looks at has changed: on real files, in a temporary directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import modelyard_watch as watch
from ansible.module_utils.modelyard_services import Service


@pytest.fixture(autouse=True)
def _records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECORDS", str(tmp_path / "roles"))
    monkeypatch.setattr(watch, "MODELS", str(tmp_path / "models"))


def looked_at(**more: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"users": [], "paths": [], "models": [], "services": [], "loaded": []}
    return {**nothing, "endpoint": "https://hub.example", **more}


def differs(wanted: dict[str, Any]) -> list[str]:
    return watch.changed_since(watch.read_record("redis"), wanted)


def test_a_role_without_a_record_runs() -> None:
    assert differs(looked_at()) == ["it has no record of a run that succeeded"]


def test_nothing_changed(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("1", encoding="utf-8")
    wanted = looked_at(users=["root"], paths=[str(tmp_path / "program"), str(tmp_path / "none")])
    watch.write_record("redis", "salt", "digest", wanted)
    assert differs(wanted) == []
    record = tmp_path / "roles/redis.json"
    assert record.stat().st_mode & 0o777 == 0o600
    record.write_text("{", encoding="utf-8")
    assert differs(wanted) == ["it has no record of a run that succeeded"]


@pytest.mark.parametrize("what", ["content", "mode", "time", "gone", "more", "link"])
def test_every_change_below_a_path_is_noticed(tmp_path: Path, what: str) -> None:
    place = tmp_path / "store"
    (place / "below").mkdir(parents=True)
    path = place / "below/model"
    path.write_text("1", encoding="utf-8")
    wanted = looked_at(paths=[str(place)])
    watch.write_record("redis", "salt", "digest", wanted)
    before = path.stat()
    if what == "content":  # the time is set back by hand
        path.write_text("2", encoding="utf-8")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "mode":
        path.chmod(0o600)
    elif what == "time":
        path.touch()
    elif what == "gone":
        path.unlink()
    elif what == "more":
        (place / "below/other").touch()
    else:
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
    assert differs(wanted) == [f"{place} has changed"]


def test_a_file_that_was_there_for_a_moment_is_no_change(tmp_path: Path) -> None:
    place = tmp_path / "store"
    place.mkdir()
    wanted = looked_at(paths=[str(place)])
    watch.write_record("redis", "salt", "digest", wanted)
    (place / "partial").touch()
    (place / "partial").unlink()
    assert differs(wanted) == []


def test_a_pattern_is_what_matches_it(tmp_path: Path) -> None:
    pattern = str(tmp_path / "python3.*")
    wanted = looked_at(paths=[pattern])
    watch.write_record("redis", "salt", "digest", wanted)
    (tmp_path / "python3.13").touch()
    assert differs(wanted) == [f"{pattern} has changed"]


def test_another_thing_to_look_at_is_a_change(tmp_path: Path) -> None:
    watch.write_record("redis", "salt", "digest", looked_at(users=["root"]))
    assert differs(looked_at()) == ["user root has changed"]
    assert differs(looked_at(users=["root", "daemon"])) == ["user daemon has changed"]


def test_where_models_are(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "published").mkdir(parents=True)
    hub = "https://hub.example"

    def paths(**source: str) -> list[str]:
        return watch.model_paths(source, hub)

    assert paths(path="/srv/x-00001-of-00002.gguf") == [
        "/srv/x-00001-of-00002.gguf",
        "/srv/x-00002-of-00002.gguf",
    ]
    assert paths(path="/srv/x-00002-of-00002.gguf") == ["/srv/x-00002-of-00002.gguf"]
    assert paths(url="https://a/x.gguf", sha256="a" * 64) == [f"{models}/{'a' * 16}"]
    directory = f"{models}/hf/o--n/1"
    assert paths(repo="o/n", revision="1") == [directory, f"{directory}.verified"]
    (note,) = paths(repo="o/n", revision="1", file="x.gguf")
    Path(note).write_text("b" * 64, encoding="utf-8")
    assert paths(repo="o/n", revision="1", file="x.gguf") == [f"{models}/{'b' * 16}", note]


def test_a_service_that_is_not_live_is_a_trouble() -> None:
    assert watch.troubles(Service("no-such-service")) == ["it is not live"]


def test_a_server_that_does_not_answer_says_nothing_is_loaded() -> None:
    wanted = looked_at(loaded=[{"url": "http://127.0.0.1:9/api/ps", "models": ["a"]}])
    assert watch.seen(wanted) == {"what http://127.0.0.1:9/api/ps lists": "unknown"}
