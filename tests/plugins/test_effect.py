"""Variables without effect: what real ansible-core takes, and what the compiler says of the
rest."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
CODE = "variable-without-effect"


@pytest.fixture
def put(stack: Path) -> Callable[..., None]:
    """Write files of the inventory: path below it, text."""

    def write(**files: str) -> None:
        for name, text in files.items():
            path = stack / name.replace("__", "/").replace("_yml", ".yml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"---\n{text}\n", encoding="utf-8")

    return write


@pytest.fixture
def report(ansible: Run, stack: Path, tmp_path: Path) -> Callable[..., list[tuple[str, str, str]]]:
    """Validate, and return place, message and hint of every variable without effect."""

    def run(
        *arguments: object, playbook: Path = ROOT / "playbooks/validate.yml"
    ) -> list[tuple[str, str, str]]:
        file = tmp_path / "report.json"
        inventory = () if "-i" in arguments else ("-i", stack)
        done = ansible(
            "ansible-playbook",
            *inventory,
            playbook,
            *arguments,
            "-e",
            json.dumps({"llm_report": str(file)}),
        )
        assert file.exists(), done.stdout
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return [
            (
                d["origin"].removeprefix(f"{stack}/"),
                d["message"].replace(f"{stack}/", ""),
                d["hint"],
            )
            for d in found
            if d["code"] == CODE
        ]

    return run


def line_of(variable: str, file: str) -> str:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    (number,) = [number for number, line in enumerate(lines, 1) if line.startswith(f"{variable}:")]
    return f"{file}:{number}:1"


def test_every_place_that_loses(
    put: Callable[..., None], report: Callable[..., Any], stack: Path
) -> None:
    hosts = stack / "hosts.yml"
    text = hosts.read_text(encoding="utf-8")
    hosts.write_text(
        f"{text}    web: {{hosts: {{web1: }}, vars: {{llm_overrides_web: {{}}}}}}\n"
        "  vars:\n    llm_routing: {fallbacks: {}}\n",
        encoding="utf-8",
    )
    put(
        group_vars__all__llm_yml="llm_gateway: {port: 5000}",
        group_vars__llm_stack__a_yml="llm_overrides: {gateway: {port: 1}}",
        group_vars__llm_stack__b_yml="llm_overrides: {gateway: {port: 2}}",
        group_vars__llm_redis_yml="llm_address: 192.0.2.7",
        host_vars__gw_yml="llm_address: 192.0.2.1",
        host_vars__gp_yml="llm_address: 192.0.2.2",
        host_vars__web1_yml="llm_address: 192.0.2.3",
        group_vars__llm_stak__llm_yml="llm_overrides_mine: {}",
        group_vars__llm_gateway_yml="llm_overrides_gateway: {}",
        group_vars__llm_gateway__other_yml="other: 1",
        group_vars__llm_ollama__llm_yml="llm_gpus: []\nllm_overrides_ollama: {}",
    )
    shipped = {
        name: line_of(f"llm_{name}", f"group_vars/all/{name}.yml")
        for name in ("gateway", "routing")
    }
    assert sorted(report()) == [
        (
            "group_vars/all/llm.yml:2:1",
            f"llm_gateway of group all has no effect: {shipped['gateway']} wins for gw",
            "put your values into group_vars/llm_stack/ of the inventory, as llm_overrides: "
            "{gateway: ...}",
        ),
        (
            "group_vars/llm_gateway.yml:2:1",
            "llm_overrides_gateway of group llm_gateway has no effect: Ansible does not read this file",
            "there is also a directory llm_gateway/: move the file into it",
        ),
        (
            "group_vars/llm_ollama/llm.yml:3:1",
            "llm_overrides_ollama of group llm_ollama applies to no host of llm_stack",
            "move it to group_vars/llm_stack/ of the inventory",
        ),
        (
            "group_vars/llm_redis.yml:2:1",
            "llm_address of group llm_redis has no effect: host_vars/gw.yml:2:1 wins for gw",
            "keep one of the two",
        ),
        (
            "group_vars/llm_stack/a.yml:2:1",
            "llm_overrides of group llm_stack has no effect: group_vars/llm_stack/b.yml:2:1 wins for gw",
            "give each its own name, such as llm_overrides_site; all llm_overrides_* are merged",
        ),
        (
            "group_vars/llm_stak/llm.yml:2:1",
            "llm_overrides_mine of group llm_stak has no effect: the inventory has no group of this name",
            'did you mean "llm_stack"?',
        ),
        (
            "host_vars/gp.yml:2:1",
            "llm_address of host gp has no effect: the inventory has no host of this name",
            'did you mean "gpu"?',
        ),
        (
            "host_vars/web1.yml:2:1",
            "llm_address of host web1 applies to no host of llm_stack",
            "set it for a host of llm_stack, or remove it",
        ),
        (
            "hosts.yml:13:35",
            "llm_overrides_web of group web applies to no host of llm_stack",
            "move it to group_vars/llm_stack/ of the inventory",
        ),
        (
            "hosts.yml:15:5",
            f"llm_routing of group all has no effect: {shipped['routing']} wins for gw",
            "put your values into group_vars/llm_stack/ of the inventory, as llm_overrides: "
            "{routing: ...}",
        ),
    ]  # fmt: skip


def test_what_has_an_effect_is_not_told(
    put: Callable[..., None], report: Callable[..., Any]
) -> None:
    """For one host is enough; so is losing to `-e`; and the shipped catalogue is there to be
    overridden."""
    put(
        group_vars__all__llm_yml=(
            "llm_allow_removal: true\nllm_overrides: {gateway: {port: 1}}\nllm_secrets: {}"
        ),
        group_vars__llm_stack_yml=(
            "llm_routing: {fallbacks: {}}\nllm_overrides_x: {gateway: {port: 2}}"
        ),
        host_vars__gw_yml="llm_overrides_x: {gateway: {port: 3}}",
    )
    assert report() == []
    assert report("-e", '{"llm_overrides": {}, "llm_overrides_x": {}, "llm_routing": {}}') == []


def test_files_beside_an_inventory_file_may_be_for_another(
    put: Callable[..., None], report: Callable[..., Any], stack: Path
) -> None:
    put(group_vars__llm_stak_yml="llm_overrides: {}", host_vars__gp_yml="llm_address: 192.0.2.2")
    assert len(report()) == 2
    assert report("-i", stack / "hosts.yml") == []


@pytest.mark.parametrize("name", ["more.sh", "more.yml"])
def test_programs_and_plugins_may_know_other_hosts_tomorrow(
    put: Callable[..., None], report: Callable[..., Any], stack: Path, name: str
) -> None:
    put(host_vars__gp_yml="llm_address: 192.0.2.2")
    assert len(report()) == 1
    more = stack / name
    more.write_text(
        "#!/bin/sh\necho '{}'\n" if name == "more.sh" else "plugin: constructed\n", encoding="utf-8"
    )
    more.chmod(0o755 if name == "more.sh" else 0o644)
    assert report() == []


def test_an_override_beside_the_playbooks_loses_to_the_inventory(
    put: Callable[..., None], report: Callable[..., Any], tmp_path: Path
) -> None:
    shipped = tmp_path / "play/group_vars/all"
    shipped.mkdir(parents=True)
    for file in (ROOT / "group_vars/all").iterdir():
        (shipped / file.name).symlink_to(file)
    (shipped / "ours.yml").write_text("llm_overrides: {gateway: {workers: 2}}\n", encoding="utf-8")
    playbook = tmp_path / "play/play.yml"
    playbook.write_text(
        "- hosts: gw\n  gather_facts: false\n  tasks: [modelyard_compile: ]\n", encoding="utf-8"
    )
    assert report(playbook=playbook) == []
    put(
        group_vars__llm_stack__llm_yml=(
            "llm_overrides: {gateway: {port: 5000}}\nllm_gateway: {port: 1}"
        )
    )
    assert report(playbook=playbook) == [
        (
            f"{shipped}/ours.yml:1:1",
            (
                "llm_overrides of group all has no effect: group_vars/llm_stack/llm.yml:2:1 wins"
                " for gw"
            ),
            "give each its own name, such as llm_overrides_site; all llm_overrides_* are merged",
        )
    ]


def test_one_file_by_two_paths_is_one_place(
    put: Callable[..., None], report: Callable[..., Any], stack: Path, tmp_path: Path
) -> None:
    """An inventory in the clone's root has the playbooks' group_vars beside it."""
    (tmp_path / "play").mkdir()
    put(group_vars__llm_stack_yml="llm_overrides: {gateway: {port: 5000}}")
    (tmp_path / "play/group_vars").symlink_to(stack / "group_vars")
    playbook = tmp_path / "play/play.yml"
    playbook.write_text(
        "- hosts: gw\n  gather_facts: false\n  tasks: [modelyard_compile: ]\n", encoding="utf-8"
    )
    assert report(playbook=playbook) == []


def test_a_section_that_replaces_the_shipped_one(
    ansible: Run, put: Callable[..., None], stack: Path
) -> None:
    put(group_vars__llm_stack__llm_yml="llm_routing:\n  aliases: {chat: 'llama3.1:latest'}")
    done = ansible("ansible-playbook", "-i", stack, ROOT / "playbooks/validate.yml")
    assert f"{stack}/group_vars/llm_stack/llm.yml:2:1: " in done.stdout
    assert "[section-replaced]: llm_routing replaces the shipped one whole" in done.stdout
    assert "write llm_overrides: {routing: {...}}" in done.stdout
    put(group_vars__llm_stack__llm_yml="llm_gateway: {port: 4100}\nllm_monitoring: false")
    done = ansible("ansible-playbook", "-i", stack, ROOT / "playbooks/validate.yml")
    assert done.returncode == 0
    assert "section-replaced" not in done.stdout
