"""What is live is read from a tree of releases like the one on a host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import modelyard_live
import modelyard_release
import pytest
from ansible.module_utils import modelyard_clients
from ansible.module_utils.modelyard_services import Release

PLAN = {"port": 6379, "listen": ["127.0.0.1"]}


def release(service: str = "redis", **parameters: object) -> Release:
    """A release as the module makes it."""
    return modelyard_release.build(
        {
            "service": service,
            "user": "nobody",
            "files": [],
            "units": [{"name": "x.service", "content": ""}],
            "store": [],
            "generation": "",
            "activation": {},
            "checks": [],
            "plan": PLAN,
            **parameters,
        }
    )


def put(root: Path, made: Release, manifest: str | None = None) -> Path:
    """Write a release below `root` and make it the live one; return the link."""
    directory = root / made.service / "releases" / made.id
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(
        made.manifest() if manifest is None else manifest, encoding="utf-8"
    )
    link = root / made.service / "current"
    link.symlink_to(f"releases/{made.id}")
    os.utime(link, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return link


def test_host_without_modelyard_is_empty(tmp_path: Path) -> None:
    assert modelyard_live.live(str(tmp_path / "absent")) == {}


def test_release_its_time_and_its_plan(tmp_path: Path) -> None:
    made = release()
    put(tmp_path, made)
    assert modelyard_live.live(str(tmp_path)) == {
        "redis": {"release": made.id, "since": "2023-11-14T22:13:20Z", "plan": PLAN}
    }


def test_clients_of_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are beside the releases; hashes of their keys stay where they are."""
    put(tmp_path, release("litellm", checks=[]))
    monkeypatch.setattr(modelyard_clients, "PATH", str(tmp_path / "clients.json"))
    assert modelyard_live.live(str(tmp_path))["litellm"]["plan"] == {**PLAN, "clients": {}}
    text = modelyard_clients.content({"app": {"models": None, "rpm": 5}}, {"app": "0" * 64})
    (tmp_path / "clients.json").write_text(text, encoding="utf-8")
    found = modelyard_live.live(str(tmp_path))["litellm"]["plan"]
    assert found == {**PLAN, "clients": {"app": {"models": None, "rpm": 5}}}


def test_public_names_of_the_gateway(tmp_path: Path) -> None:
    checks = [{"kind": "http"}, {"kind": "models", "names": ["a", "b"]}]
    put(tmp_path, release("litellm", checks=checks))
    put(tmp_path, release("llama-cpp@a", checks=checks))
    found = modelyard_live.live(str(tmp_path))
    assert found["litellm"]["public_names"] == ["a", "b"]
    assert "public_names" not in found["llama-cpp@a"]


def test_what_was_only_staged_is_not_live(tmp_path: Path) -> None:
    put(tmp_path, release()).rename(tmp_path / "redis/staged")
    assert modelyard_live.live(str(tmp_path)) == {}


@pytest.mark.parametrize("gone", ["plan", "manifest"])
def test_release_without_a_plan(tmp_path: Path, gone: str) -> None:
    """An older version wrote none; a deleted manifest has none either."""
    made = release()
    spec = json.loads(made.manifest())
    del spec["plan"]
    link = put(tmp_path, made, json.dumps(spec))
    if gone == "manifest":
        (link / "manifest.json").unlink()
    assert modelyard_live.live(str(tmp_path))["redis"]["plan"] is None


def test_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, release(), "{")
    with pytest.raises(ValueError, match="Expecting property name"):
        modelyard_live.live(str(tmp_path))


def test_plan_is_outside_of_the_identity() -> None:
    """A release whose plan alone differs is the same release, so nothing is restarted; its manifest
    is stale."""
    one, other = release(), release(plan={"port": 6380})
    assert one.id == other.id
    assert one.manifest() != other.manifest()
