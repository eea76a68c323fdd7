"""What has to run on a host: what a role is given, and what of it counts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from catalogues import ROOT

from modelyard.controller.code import PARTS as CODE
from modelyard.controller.code import digest
from modelyard.engines import ROLES
from modelyard.operations.asking import STAGES, Due, PlannedRole, due, planned
from modelyard.plan.parts import PARTS

SALT = "00ff"
ABOUT: dict[str, Any] = {"code": "c", "system": ["x86_64"], "gpus": [], "placed": {}}
GATEWAY = {
    "port": 4000,
    "secrets": {"MASTER": "LITELLM_MASTER_KEY"},
    "clients": {"app": {"secret": "APP_KEY", "models": None}},
}


def role(**given: Any) -> PlannedRole:
    return PlannedRole("litellm", {**GATEWAY, **given}, ("litellm",))


def answer(**more: Any) -> dict[str, Any]:
    told = {"salt": SALT, "digest": "same", "differs": []}
    return {"base": [], "roles": {"litellm": {**told, **more}}, "services": ["litellm"]}


def asked(said: dict[str, Any], digest_now: str = "same", *, full: bool = False) -> Due:
    return due({"litellm": role()}, said, {"litellm": digest_now}, full=full)


def test_secrets_of_clients_count() -> None:
    assert role().secrets == ("APP_KEY", "LITELLM_MASTER_KEY")


@pytest.mark.parametrize(
    ("other", "about", "values"),
    [
        (role(port=4001), ABOUT, {"APP_KEY": "a"}),
        (role(), {**ABOUT, "code": "d"}, {"APP_KEY": "a"}),
        (role(), {**ABOUT, "system": ["aarch64"]}, {"APP_KEY": "a"}),
        (role(), {**ABOUT, "placed": {"x": [0]}}, {"APP_KEY": "a"}),
        (role(), ABOUT, {"APP_KEY": "b"}),
    ],
)
def test_all_that_a_role_is_given_counts(
    other: PlannedRole, about: dict[str, Any], values: dict[str, str]
) -> None:
    first = role().digest(SALT, ABOUT, {"APP_KEY": "a"})
    assert first == role().digest(SALT, copy.deepcopy(ABOUT), {"APP_KEY": "a"})
    assert other.digest(SALT, about, values) != first


def test_digests_with_other_salts_have_nothing_in_common() -> None:
    assert role().digest("1", ABOUT, {}) != role().digest("2", ABOUT, {})


def test_a_host_that_is_as_planned_runs_nothing() -> None:
    assert asked(answer()) == Due({}, ())


@pytest.mark.parametrize(
    ("said", "digest_now", "reason"),
    [
        (answer(), "other", "changed"),
        (answer(digest="", differs=["it has no record"]), "same", "no record"),
        (answer(differs=["redis: it is not live"]), "same", "not live"),
    ],
)
def test_whatever_differs_runs_the_role(said: dict[str, Any], digest_now: str, reason: str) -> None:
    found = asked(said, digest_now)
    assert reason in found.why["litellm"][0]
    assert found.stages == ("gateway", "prepare")


def test_in_full_everything_runs() -> None:
    assert set(asked(answer(), full=True).why) == {"base", "litellm"}


def test_a_role_that_does_not_say_what_it_looks_at_always_runs() -> None:
    found = due({"litellm": role()}, answer(), {"litellm": "same"}, unknown=["litellm"], full=False)
    assert "watched.yml" in found.why["litellm"][0]


@pytest.mark.parametrize(
    ("service", "stage"),
    [
        ("redis", "leaving"),
        ("exporter@node", "monitoring"),
        ("prometheus", "monitoring"),
        ("vllm@gone", "engines"),
        ("firewall", "prepare"),
    ],
)
def test_what_leaves_the_host_has_a_stage(service: str, stage: str) -> None:
    said = answer()
    said["services"].append(service)
    assert set(asked(said).stages) == {"prepare", stage}


def test_what_is_not_ours_is_left_alone() -> None:
    said = answer()
    said["services"].append("something-else")
    assert asked(said) == Due({}, ())


def test_what_only_base_would_change_runs_no_other_role() -> None:
    found = asked({**answer(), "base": ["directory /opt/modelyard"]})
    assert (set(found.why), found.stages) == ({"base"}, ("prepare",))


def test_every_role_of_a_plan_has_a_stage() -> None:
    assert set(STAGES) == {*PARTS, *ROLES}


def test_every_role_says_what_it_looks_at() -> None:
    for name in STAGES:
        said = yaml.safe_load((ROOT / f"roles/{name}/meta/watched.yml").read_text(encoding="utf-8"))
        assert set(said) == {"users", "paths"}, name


def test_what_tasks_look_for_is_watched() -> None:
    """A program that a role looks for, or installs only where it is missing."""
    for name in STAGES:
        watched = yaml.safe_load(
            (ROOT / f"roles/{name}/meta/watched.yml").read_text(encoding="utf-8")
        )
        for path in (ROOT / f"roles/{name}/tasks").glob("*.yml"):
            for task in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
                variables = task.get("vars", {})
                looked = [
                    variables.get("service_program"),
                    task.get("ansible.builtin.stat", {}).get("path"),
                    task.get("ansible.builtin.template", {}).get("dest"),
                ]
                assert set(filter(None, looked)) <= set(watched["paths"]), (name, path.name)
                user = variables.get("service_name")
                if "user.yml" in str(task):
                    prefix = name.replace("_", "-") if "{{" in user else user
                    assert f"modelyard-{prefix}" in watched["users"], (name, path.name)


def clone(root: Path) -> Path:
    for part in CODE:
        path = root / part
        if part.endswith(".yml"):
            path.write_text("- one\n", encoding="utf-8")
        else:
            path.mkdir(parents=True)
            (path / "file.txt").write_text(part, encoding="utf-8")
    return root


def test_digest_of_the_code_covers_names_and_content(tmp_path: Path) -> None:
    root = clone(tmp_path)
    first = digest(root, "2.19")
    assert digest(root, "2.19") == first
    assert digest(root, "2.20") != first
    (root / "roles/__pycache__").mkdir()
    (root / "roles/__pycache__/x.pyc").write_bytes(b"1")
    (root / "docs").mkdir()
    assert digest(root, "2.19") == first
    (root / "roles/file.txt").rename(root / "roles/other.txt")
    second = digest(root, "2.19")
    assert second != first
    (root / "roles/other.txt").write_text("more", encoding="utf-8")
    assert digest(root, "2.19") not in (first, second)


def test_a_plan_without_anything_has_no_roles() -> None:
    nothing: dict[str, Any] = {"firewall": {"rules": []}, "exporters": [], "engines": []}
    assert planned({**nothing, "redis": None, "litellm": None, "haproxy": None}) == {}
