"""What the tree promises: roles are alike, their two descriptions agree, every verb sees the
shipped catalogue."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.engines import ROLES as ENGINES

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
# Import makes an inventory of its own, whatever is wrong with the one that is there.
VERBS = sorted(path for path in (ROOT / "playbooks").glob("*.yml") if path.name != "import.yml")
CHANGING = {
    "ansible.builtin.include_role",
    "ansible.builtin.command",
    "modelyard_activate",
    "modelyard_release",
    "modelyard_remove",
    "modelyard_rotate",
}
"""What playbooks change hosts and secrets with."""
UNITS = sorted((ROOT / "roles").glob("*/templates/*.service.j2"))
FILTERS = sorted(
    runpy.run_path(str(ROOT / "plugins/filter/modelyard.py"))["FilterModule"]().filters()
)
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("modelyard_*.py"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_argument_specs_agree(role: Path) -> None:
    """Every default is described with that very value, and nothing else has one."""
    options = read(role / "meta/argument_specs.yml")["argument_specs"]["main"].get("options", {})
    file = role / "defaults/main.yml"
    defaults = (read(file) or {}) if file.exists() else {}
    described = {name: option["default"] for name, option in options.items() if "default" in option}
    required = {name for name, option in options.items() if option.get("required")}
    optional = options.keys() - described.keys() - required
    assert required.isdisjoint(defaults)
    assert {name: value for name, value in defaults.items() if name in described} == described
    assert defaults.keys() - options.keys() == set(), "a default without a description"
    assert {name for name in optional if name not in defaults} == set(), (
        "neither required nor with a default"
    )
    assert all(name.startswith(f"{role.name}_") for name in options)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_roles_have_one_shape(role: Path) -> None:
    for part in ("README.md", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (role / part).is_file(), part


@pytest.mark.parametrize("template", UNITS, ids=lambda path: path.name)
def test_units_say_only_what_is_their_own(template: Path) -> None:
    """The rest, and how a unit leaves something out, is in roles/service/templates/service.j2."""
    shared = (ROOT / "roles/service/templates/service.j2").read_text(encoding="utf-8")
    assert "WantedBy=modelyard.target" in shared
    lines = template.read_text(encoding="utf-8").splitlines()
    assert lines[0] in ("{% extends 'service.j2' %}", "{% extends 'engine.j2' %}")
    common = set(re.findall(r"^  '(\w+)': ", shared, re.MULTILINE)) | set(
        re.findall(r"^(\w+)=", shared, re.MULTILINE)
    )
    own = {match[1] for line in lines if (match := re.match(r"(\w+)=", line))}
    assert own & common <= {"After", "Wants", "PartOf", "Environment"}


def test_what_engines_share_names_none() -> None:
    """A playbook or a shared role that names engines would have to be edited for a new one."""
    shared = [ROOT / "site.yml", *(ROOT / "playbooks").rglob("*.yml")]
    shared += [
        path
        for role in ("base", "service", "engine")
        for path in (ROOT / "roles" / role).rglob("*.*")
    ]
    names = re.compile(
        "|".join(rf"\b{name}\b" for role in ENGINES for name in (role, role.replace("_", "-")))
    )
    for path in shared:
        if path.suffix in (".yml", ".j2"):
            code = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if not line.lstrip().startswith("#")
            ]
            assert [line for line in code if names.search(line)] == [], path


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_no_role_reads_the_catalogue(role: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in role.rglob("*.yml"))
    text += "\n".join(path.read_text(encoding="utf-8") for path in role.rglob("*.j2"))
    assert re.findall(r"\bllm_(?:providers|routing|gateway|versions|overrides)\b(?!\.)", text) == []


def test_every_verb_sees_the_shipped_catalogue() -> None:
    """A playbook in playbooks/ does not see the root's group_vars but through this link."""
    assert os.readlink(ROOT / "playbooks/group_vars") == "../group_vars"
    assert os.readlink(ROOT / "molecule/site/group_vars") == "../../group_vars"
    for verb in VERBS:
        first = read(verb)[0]
        compiles = (
            verb.name == "validate.yml"
            or first.get("ansible.builtin.import_playbook") == "validate.yml"
        )
        # These are for the night on which the catalogue is what is wrong.
        needless = ("releases.yml", "rollback.yml", "remove.yml", "status.yml")
        assert compiles != (verb.name in needless), f"{verb.name} does not validate first"


def imported(playbook: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The plays of a playbook in their order, those of imported playbooks included, each with its
    file."""
    found = []
    for play in read(playbook):
        if file := play.get("ansible.builtin.import_playbook"):
            found += imported((playbook.parent / file).resolve())
        else:
            found.append((playbook, play))
    return found


def tasks_of(playbook: Path, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks with those that they import."""
    found = []
    for task in tasks:
        if file := task.get("ansible.builtin.import_tasks"):
            other = (playbook.parent / file).resolve()
            found += tasks_of(other, read(other))
        else:
            found.append(task)
    return found


def test_every_play_of_the_pipeline_is_guarded() -> None:
    plays = [
        (file, play)
        for file, play in imported(ROOT / "site.yml")
        if file.name not in ("validate.yml", "smoke.yml") and play.get("become")
    ]
    assert len(plays) == 9
    for number, (file, play) in enumerate(plays):
        tasks = tasks_of(file, play.get("pre_tasks", []) + play.get("tasks", []))
        if number:
            assert play["any_errors_fatal"] is True, play["name"]
        else:
            # A host that cannot be reached is no error there; any other is.
            whole = "ansible_play_hosts == ansible_play_hosts_all"
            conditions = [task.get("ansible.builtin.assert", {}).get("that") for task in tasks]
            assert whole in conditions, play["name"]
        first = tasks[0]
        assert first["ansible.builtin.assert"]["that"] == "modelyard_compiled is defined", play[
            "name"
        ]
        assert "always" in (play.get("tags"), play.get("pre_tasks", [{}])[0].get("tags")), play[
            "name"
        ]


def test_every_verb_that_changes_a_gateway_asks_before_a_name_goes() -> None:
    """Whatever was removed from the catalogue since the last run goes live with the next change of
    the gateway."""
    gateway = re.compile(r"(?:tasks|plays)/gateway\.yml|change_tasks: all\.yml")
    verbs = [
        path
        for path in [ROOT / "site.yml", *VERBS]
        if gateway.search(path.read_text(encoding="utf-8"))
    ]
    assert len(verbs) >= 4
    for verb in verbs:
        tasks = [
            task for file, play in imported(verb) for task in tasks_of(file, play.get("tasks", []))
        ]
        checks = [task["modelyard_preflight"] for task in tasks if "modelyard_preflight" in task]
        (fit,) = [arguments for arguments in checks if "services" in arguments]
        assert {"public_names", "allow_removal"} <= fit.keys(), verb.name


def test_every_verb_that_changes_hosts_takes_the_lock_first() -> None:
    for verb in [ROOT / "site.yml", *VERBS]:
        tasks = [
            task for file, play in imported(verb) for task in tasks_of(file, play.get("tasks", []))
        ]
        changing = [
            number
            for number, task in enumerate(tasks)
            if CHANGING & task.keys() and "check_mode" not in task
        ]
        locks = [number for number, task in enumerate(tasks) if "modelyard_lock" in task]
        if changing:
            assert locks, verb.name
            assert locks[0] < changing[0], verb.name


def test_the_pinned_gateway_has_a_lock() -> None:
    version = read(ROOT / "group_vars/all/versions.yml")["llm_versions"]["litellm"]["version"]
    assert (
        f"'version': '{version}'" in read(ROOT / "roles/litellm/defaults/main.yml")["litellm_plan"]
    )
    lock = (ROOT / f"roles/litellm/files/locks/litellm-{version}.txt").read_text(encoding="utf-8")
    assert f"litellm=={version} " in lock
    requirements = re.findall(r"^[a-z0-9][^ ]*==", lock, re.MULTILINE)
    assert len(requirements) > 100
    assert lock.count("--hash=sha256:") >= len(requirements)
    # The security floor of what serves its requests.
    starlette = re.findall(r"^starlette==(\d+)\.(\d+)\.(\d+)", lock, re.MULTILINE)
    assert min(tuple(map(int, numbers)) for numbers in starlette) >= (1, 0, 1)


@pytest.mark.parametrize(("kind", "names"), [("module", MODULES), ("filter", FILTERS)])
def test_every_plugin_is_documented(kind: str, names: list[str]) -> None:
    """As ansible-doc shows it, with an example and what it returns."""
    documented = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "--type", kind, "--json", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
    )
    assert documented.returncode == 0, documented.stderr
    found = json.loads(documented.stdout)
    assert found.keys() == set(names)
    for name, plugin in found.items():
        assert plugin["doc"]["description"], name
        assert name in plugin["examples"], name
        assert plugin["return"], name


@pytest.mark.parametrize("module", MODULES)
def test_every_module_sets_its_umask(module: str) -> None:
    """That of a login may be 077: what a module makes would be closed to the service's user."""
    code = (ROOT / f"plugins/modules/{module}.py").read_text(encoding="utf-8")
    assert "AnsibleModule(" not in code, "use new_module of module_utils/modelyard_module.py"


def test_no_documentation_of_a_filter_that_is_gone() -> None:
    assert sorted(path.stem for path in (ROOT / "plugins/filter").glob("*.yml")) == FILTERS
