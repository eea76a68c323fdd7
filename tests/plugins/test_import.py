"""playbooks/import.yml through the real ansible-core, and what it writes through validate."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail

Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests/data/import"
FILES = [
    "IMPORT-REPORT.md",
    "group_vars/llm_stack/providers.yml",
    "group_vars/llm_stack/routing.yml",
    "hosts.yml",
]


def files(directory: Path) -> list[str]:
    return sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
    )


def run_import(
    ansible: Run, source: Path, target: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    return ansible(
        "ansible-playbook",
        "playbooks/import.yml",
        "-e",
        f"from={source}",
        "-e",
        f"to={target}",
        *more,
    )


def test_from_the_old_files_to_a_valid_inventory(ansible: Run, tmp_path: Path) -> None:
    target = tmp_path / "inventories" / "new"
    done = run_import(ansible, OLD / "workstation", target)
    assert done.returncode == 0, done.stdout
    assert files(target) == FILES
    assert [path.name for path in target.parent.iterdir()] == ["new"], "nothing else is left behind"
    assert "## Not supported" in done.stdout
    assert "patterns → never had an effect" in done.stdout
    for verb in ("playbooks/validate.yml", "playbooks/plan.yml", "site.yml"):
        assert f"ansible-playbook {verb} -i " in done.stdout
    missing = ansible("ansible-playbook", "playbooks/validate.yml", "-i", target)
    assert f"{target}/group_vars/llm_stack/providers.yml:" in missing.stdout
    assert missing.stdout.count("error[") == missing.stdout.count("error[secret-undefined]") == 1
    valid = ansible(
        "ansible-playbook", "playbooks/validate.yml", "-i", target, OLLAMA_API_KEY="planted"
    )
    assert valid.returncode == 0, valid.stdout
    assert "1 host, 16 public names" in valid.stdout
    assert "IMPORT-REPORT" not in valid.stdout, "Ansible takes the report for an inventory"


def test_modeline_finds_the_schema(ansible: Run, tmp_path: Path) -> None:
    run_import(ansible, OLD / "workstation", tmp_path / "new")
    for name in ("providers.yml", "routing.yml"):
        file = tmp_path / "new/group_vars/llm_stack" / name
        modeline = file.read_text(encoding="utf-8").splitlines()[1]
        schema = file.parent / modeline.removeprefix("# yaml-language-server: $schema=")
        assert schema.resolve() == ROOT / "docs/catalogue.schema.json"
        assert schema.is_file()


def test_default_target_is_in_the_clone(ansible: Run) -> None:
    """Looked at in check mode only: the clone is not written to."""
    done = ansible(
        "ansible-playbook", "playbooks/import.yml", "-e", f"from={OLD / 'workstation'}", "--check"
    )
    assert done.returncode == 0, done.stdout
    assert "It would be in inventories/imported" in done.stdout
    assert not (ROOT / "inventories/imported").exists()


def test_check_mode_writes_nothing(ansible: Run, tmp_path: Path) -> None:
    done = run_import(ansible, OLD / "faulty", tmp_path / "new", "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "new").exists()
    assert "## Not supported" in done.stdout
    assert "+llm_providers:" in done.stdout


def test_what_exists_is_not_overwritten(ansible: Run, tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.mkdir()
    assert run_import(ansible, OLD / "workstation", target).returncode == 0, (
        "an empty directory is free"
    )
    (target / "hosts.yml").write_text("mine", encoding="utf-8")
    done = run_import(ansible, OLD / "workstation", target)
    assert done.returncode != 0
    assert "is not overwritten; choose a new directory with -e to=DIR" in done.stdout
    assert (target / "hosts.yml").read_text(encoding="utf-8") == "mine"
    assert files(target) == FILES


def test_all_input_errors_at_once(ansible: Run, tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text("providers:\n  a: [\n", encoding="utf-8")
    target = tmp_path / "taken"
    target.write_text("", encoding="utf-8")
    done = run_import(ansible, tmp_path, target)
    assert done.returncode != 0
    assert f"{tmp_path}/providers.yaml:3:1: not YAML" in done.stdout
    assert f"{tmp_path}/model-mappings.yaml: there is no such file" in done.stdout
    assert "is not overwritten" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "set -e from=DIR"),
        (["-e", "from=/nowhere"], "from=/nowhere: no such directory"),
        (["-e", f"from={OLD}"], f"found {OLD}/faulty/providers.yaml: use -e from={OLD}/faulty"),
    ],
)
def test_where_the_old_stack_is(
    ansible: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = ansible(
        "ansible-playbook", "playbooks/import.yml", "-e", f"to={tmp_path / 'new'}", *arguments
    )
    assert done.returncode != 0
    assert message in done.stdout
    assert not (tmp_path / "new").exists()


def test_stack_without_anything_to_take_over(ansible: Run, tmp_path: Path) -> None:
    tools = "providers: {tools: {type: tool_server, base_url: 'http://h:1', status: active}}\n"
    (tmp_path / "providers.yaml").write_text(tools, encoding="utf-8")
    (tmp_path / "model-mappings.yaml").touch()
    done = run_import(ansible, tmp_path, tmp_path / "new")
    assert done.returncode != 0
    assert "No active provider can be imported" in done.stdout
    assert "a tool_server has no models" in done.stdout
    assert not (tmp_path / "new").exists()


def test_all_files_or_none(ansible: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = run_import(ansible, OLD / "workstation", tmp_path / "file" / "new")
    assert done.returncode != 0
    assert "cannot be written" in done.stdout
    assert files(tmp_path) == ["file"]


def test_a_file_that_fails_takes_the_others_with_it(tmp_path: Path) -> None:
    """The second cannot be written, as the first has the name of its directory."""
    spec = importlib.util.spec_from_file_location(
        "modelyard_import_action", ROOT / "plugins/action/modelyard_import.py"
    )
    assert spec
    assert spec.loader
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    with pytest.raises(AnsibleActionFail, match="cannot be written"):
        plugin.write({"group_vars": "", "group_vars/routing.yml": ""}, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_text_of_old_files_is_never_run(ansible: Run, tmp_path: Path) -> None:
    """Not by import, and not by what reads its result."""
    shutil.copytree(OLD / "workstation", tmp_path / "old")
    mark = tmp_path / "mark"
    evil = f"\"{{{{ lookup('pipe', 'touch {mark}') }}}}\""
    old = tmp_path / "old/providers.yaml"
    text = old.read_text(encoding="utf-8")
    text = text.replace(
        "models: [llama-cpp-native]", f"models: [llama-cpp-native, {evil}]\n    zzz: {evil}"
    )
    text = text.replace("description: The everyday model", f"description: {evil}").replace(
        "specialty: general", f"{evil}: 1"
    )
    assert text.count("pipe") == 4
    old.write_text(text, encoding="utf-8")
    done = run_import(ansible, tmp_path / "old", tmp_path / "new")
    assert done.returncode == 0, done.stdout
    valid = ansible(
        "ansible-playbook",
        "playbooks/validate.yml",
        "-i",
        tmp_path / "new",
        OLLAMA_API_KEY="planted",
    )
    assert valid.returncode == 0, valid.stdout
    assert not mark.exists()
