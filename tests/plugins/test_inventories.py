"""What an inventory says of its hosts, read by real ansible-core."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

ROOT = Path(__file__).parents[2]
DOCUMENTATION = ipaddress.ip_network("192.0.2.0/24")
"""RFC 5737."""

VALIDATE = "playbooks/validate.yml"

EMPTY = ("llm_redis", "llm_ollama", "llm_llama_cpp_python", "llm_vllm_qwen", "llm_vllm_dolphin")


@pytest.fixture
def hosts(stack: Path) -> Callable[..., Path]:
    """Write hosts.yml: lines of groups inside llm_stack, and lines beside it."""

    def write(inside: str, beside: str = "", variables: str = "{}") -> Path:
        lines = [*inside.splitlines(), *(f"{name}: {{}}" for name in EMPTY)]
        given = {line.partition(":")[0] for line in inside.splitlines()}
        lines = [line for line in lines if line.partition(":")[0] not in given or line in inside]
        path = stack / "hosts.yml"
        path.write_text(
            "all:\n  children:\n"
            + "".join(f"    {line}\n" for line in beside.splitlines())
            + f"    llm_stack:\n      vars: {variables}\n      children:\n"
            + "".join(f"        {line}\n" for line in lines),
            encoding="utf-8",
        )
        return path

    return write


def test_the_fleet_has_every_group_and_shares_models(ansible: Run, tmp_path: Path) -> None:
    """The example for several hosts is valid as it is, and leads nowhere."""
    fleet = ROOT / "inventories/fleet"
    done = ansible("ansible-inventory", "-i", fleet, "--list")
    groups = json.loads(done.stdout)
    hosts = groups["_meta"]["hostvars"]
    addresses = [ipaddress.ip_address(host["ansible_host"]) for host in hosts.values()]
    assert len(set(addresses)) == len(hosts) == 6
    assert all(address in DOCUMENTATION for address in addresses)
    workstation = yaml.safe_load((ROOT / "inventories/workstation/hosts.yml").read_text())
    named = workstation["all"]["children"]["llm_stack"]["children"]
    assert [group for group in named if not groups.get(group, {}).get("hosts")] == []
    graph = tmp_path / "fleet.mmd"
    plan = "playbooks/plan.yml"
    done = ansible(
        "ansible-playbook", "-i", fleet, plan, "--skip-tags", "live", "-e", f"llm_graph={graph}"
    )
    assert done.returncode == 0, done.stdout
    assert "The catalogue is valid: 6 hosts, 8 public names, 0 warnings." in done.stdout
    assert re.search(r"pool\.ollama +gpu1, gpu2 +2 at once on each", done.stdout)
    assert '["ollama on gpu1, gpu2: 2 at once on each' in graph.read_text(encoding="utf-8")


@pytest.mark.parametrize("group", ["llm_gateway", "llm_monitoring", "llm_ollama"])
def test_group_outside_the_stack(ansible: Run, hosts: Callable[..., Path], group: str) -> None:
    inside = "llm_gateway: {hosts: {gw: {ansible_host: 203.0.113.1}}}\n" * (group != "llm_gateway")
    path = hosts(
        f"{inside}llm_llama_cpp_native: {{hosts: {{gpu: {{ansible_host: 203.0.113.2}}}}}}",
        f"{group}: {{hosts: {{stray: {{ansible_host: 203.0.113.9}}}}}}",
    )
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"        {group}: {{}}\n", ""), encoding="utf-8")
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert f"hosts.yml:3:5: error[host-outside-stack]: stray of group {group}" in done.stdout
    assert "Task failed" not in done.stdout


def test_anchor_that_contains_itself(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables("llm_overrides: &o\n  providers: *o\nmine: &m [*m]\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert f"{path}:2:3: error[unreadable-variable]: llm_overrides cannot be read" in done.stdout
    assert "recursion" not in done.stdout


def test_file_without_variables(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables("- llm_overrides\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert f"{path} has no variables" in done.stdout
    variables("")
    assert ansible("ansible-playbook", "-i", stack, VALIDATE).returncode == 0


def test_value_that_is_no_vault(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables("llm_overrides: !vault x\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert f"{path}:1:16: error[unreadable-variable]: llm_overrides cannot be read" in done.stdout


def test_connection_local(ansible: Run, hosts: Callable[..., Path]) -> None:
    """The controller has no address of 203.0.113.0/24, but 127.0.0.1 is its own."""
    groups = (
        "llm_gateway: {hosts: {gw: {ansible_host: 203.0.113.1}}}\n"
        "llm_llama_cpp_native: {hosts: {gpu: {ansible_host: 203.0.113.2}}}\n"
    )
    path = hosts(groups, variables="{ansible_connection: local}")
    refused = "error[connection-local]: gw, gpu would be this machine"
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert f"hosts.yml:4:34: {refused}" in done.stdout
    hosts(groups)
    assert ansible("ansible-playbook", "-i", path.parent, VALIDATE).returncode == 0
    assert refused in ansible("ansible-playbook", "-i", path.parent, VALIDATE, "-c", "local").stdout
    one = "llm_gateway: {hosts: {ws: }}\nllm_llama_cpp_native: {hosts: {ws: }}\n"
    hosts(one, variables="{ansible_connection: ansible.builtin.local, ansible_host: 127.0.0.1}")
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert done.returncode == 0, done.stdout


def test_host_that_is_misspelt(ansible: Run, hosts: Callable[..., Path]) -> None:
    path = hosts(
        "llm_gateway: {hosts: {gw1: {ansible_host: 203.0.113.1}}}\n"
        "llm_redis: {hosts: {gpu1: {ansible_host: 203.0.113.2}}}\n"
        "llm_llama_cpp_native: {hosts: {gpu11: }}\n"
    )
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert "hosts.yml:8:40: error[address-unusable]" in done.stdout
    assert 'did you mean "gpu1"? If not, set llm_address for gpu11' in done.stdout


def test_one_address_for_a_group(
    ansible: Run, hosts: Callable[..., Path], variables: Write
) -> None:
    path = hosts(
        "llm_gateway: {hosts: {gw: {ansible_host: 203.0.113.1}}}\n"
        "llm_llama_cpp_native: {hosts: {a: {ansible_host: 203.0.113.2}, b: {ansible_host: 203.0.113.3}}}\n"
    )
    address = variables("llm_address: 203.0.113.4\n", "llm_llama_cpp_native")
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert f"{address}:1:14: error[duplicate-address]: a, b have the same address" in done.stdout


def test_variables_in_the_inventory_itself(ansible: Run, stack: Path) -> None:
    """Ansible takes them for groups, and only warns."""
    (stack / "llm.yml").write_text(
        "llm_overrides: {gateway: {port: 4100}}\nllm_gateway: {port: 1}\nllm_allow_removal: true\n"
    )
    (stack / "more.yml").write_text("llm_redis: {host: {gw: }}\nother: {x: 1}\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.stdout.count("error[") == 4, done.stdout
    for line, name in enumerate(("llm_overrides", "llm_gateway", "llm_allow_removal"), 1):
        said = (
            f"llm.yml:{line}:1: error[variable-without-effect]: {name} has no effect: Ansible takes"
        )
        assert said in done.stdout
    assert 'more.yml:1:13: error[unknown-key]: Ansible does not read "host" of group' in done.stdout
    assert 'did you mean "hosts"?' in done.stdout


@pytest.mark.parametrize(
    ("group", "code", "hint"),
    [
        ("{gpu: }", "unknown-key", "write it below hosts: {hosts: {gpu: }}"),
        ("{gpu: {}}", "unknown-key", "write it below hosts: {hosts: {gpu: }}"),
        ("{llm_redis: }", "unknown-key", "write it below children: {children: {llm_redis: ...}}"),
        ("{ansible_user: me}", "unknown-key", "write it below vars: {vars: {ansible_user: ...}}"),
        ("{llm_gpus: []}", "unknown-key", "write it below vars: {vars: {llm_gpus: ...}}"),
        ("\nhosts: {gpu: }", "unknown-group", "indent hosts: below the group"),
        ("\nvars: {x: 1}", "unknown-group", "indent vars: below the group"),
        ("\nchildren:", "unknown-group", "indent children: below the group"),
    ],
)
def test_what_ansible_does_not_read_of_a_group(
    ansible: Run, hosts: Callable[..., Path], group: str, code: str, hint: str
) -> None:
    path = hosts(
        "llm_gateway: {hosts: {gw: {ansible_host: 203.0.113.1}}}\n"
        "llm_llama_cpp_native: {hosts: {gpu: {ansible_host: 203.0.113.2}}}\n"
        f"llm_llama_cpp_native_more: {group}"
    )
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    line, column = (8, 9 + len("llm_llama_cpp_native_more: {")) if code == "unknown-key" else (9, 9)
    assert f"{path}:{line}:{column}: error[{code}]: Ansible " in done.stdout, done.stdout
    assert hint in done.stdout
    assert done.stdout.count("error[") == 1


def test_a_host_directly_below_a_group_that_has_the_name_of_a_variable(
    ansible: Run, hosts: Callable[..., Path]
) -> None:
    path = hosts(
        "llm_gateway: {hosts: {gw: {ansible_host: 203.0.113.1}}}\nllm_monitoring: {gw: }\n"
        "llm_llama_cpp_native: {hosts: {gpu: {ansible_host: 203.0.113.2}}}"
    )
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert 'Ansible does not read "gw" of group llm_monitoring' in done.stdout, done.stdout


@pytest.mark.parametrize("name", ["group_var", "groupvars", "Group-Vars", "group_vars_old"])
def test_directory_of_variables_that_is_misspelt(ansible: Run, stack: Path, name: str) -> None:
    (stack / name / "llm_stack").mkdir(parents=True)
    (stack / name / "llm_stack/llm.yml").write_text("llm_overrides: {gateway: {port: 4100}}\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.stdout.count("error[") == 1, done.stdout
    assert f"/{name}: error[variable-without-effect]: Ansible reads this directory" in done.stdout
    assert "rename it to group_vars" in done.stdout
    done = ansible("ansible-playbook", "-i", stack / "hosts.yml", VALIDATE)
    assert ("Ansible does not read this directory" in done.stdout) == (name != "group_vars_old")


def test_copies_beside_the_inventory_and_groups_that_only_list_hosts(
    ansible: Run, hosts: Callable[..., Path], variables: Write
) -> None:
    path = hosts(
        "llm_gateway: {hosts: {gw: {ansible_host: 203.0.113.1}}}\n"
        "llm_llama_cpp_native: {hosts: {gpu: {ansible_host: 203.0.113.2}}}\n"
        "llm_tgi: {hosts: {gpu: }}\nllm_24g: {hosts: {gpu: }, vars: {x: 1}}\n"
        "llm_gpus: {children: {llm_llama_cpp_native: }}\nllm_big: {hosts: {gpu: }}\n"
    )
    variables("x: 1\n", "llm_big")
    (path.parent / "hosts.old.yml").write_text(path.read_text(encoding="utf-8"))
    (path.parent / "hosts.yml.bak").write_text("")
    done = ansible("ansible-playbook", "-i", path.parent, VALIDATE)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("warning[backup-read]") == 1
    assert "hosts.old.yml: warning[backup-read]" in done.stdout
    assert done.stdout.count("warning[unknown-group]") == 1
    assert "no provider names group llm_tgi" in done.stdout
