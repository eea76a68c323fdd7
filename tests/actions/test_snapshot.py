"""Whatever an inventory says, compiling it ends in a plan or in diagnostics: through Ansible's own
inventory and variables, in this process.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.context
import pytest
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecretsContext
from ansible.utils.context_objects import CLIArgs
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from hypothesis import given
from hypothesis import strategies as st

from modelyard.compile import Compiled, compile_inventory

ROOT = Path(__file__).parents[2]


def _plugin() -> ModuleType:
    path = ROOT / "plugins/action/modelyard_compile.py"
    spec = importlib.util.spec_from_file_location("modelyard_compile_action", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLUGIN = _plugin()

# Ansible's programs do it, also without a password: what is encrypted then cannot be read.
VaultSecretsContext.initialize(VaultSecretsContext([]))


def compiled(directory: Path) -> Compiled | str:
    """Compile an inventory as the action does; return the message if Ansible cannot read it."""
    ansible.context.CLIARGS = CLIArgs({"connection": "ssh"})
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    try:
        inventory = InventoryManager(loader=loader, sources=[str(directory)])
        manager = VariableManager(loader=loader, inventory=inventory)
        hostvars = HostVars(inventory, manager, loader)
        for host in inventory.hosts:
            hostvars.raw_get(host)
    except AnsibleError as error:
        return str(error)
    groups = inventory.get_groups_dict()
    return compile_inventory(PLUGIN.snapshot({"groups": groups, "hostvars": hostvars}))


def judge(directory: Path) -> Compiled | str:
    """Compile, and check what holds for every result."""
    result = compiled(directory)
    if isinstance(result, str):
        assert result
    elif result.errors:
        assert result.plans == {}
        assert all(one.message and one.render() for one in result.errors)
        json.dumps([one.as_dict() for one in result.diagnostics])
    else:
        json.dumps(result.as_dict())
    return result


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory


HOSTS = ("gw1", "gw2", "gpu1", "gpu11", "localhost")
GROUPS = ("llm_gateway", "llm_redis", "llm_monitoring", "llm_ollama", "llm_llama_cpp_native",
          "llm_llama_cpp_python", "llm_vllm_qwen", "llm_vllm_dolphin", "llm_vllm_llama", "web")  # fmt: skip

addresses = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "2001:db8::1", "fe80::1%eth0", "127.0.0.1", "0.0.0.0", "224.0.0.1", "gpu.example.org",
     "{{ nobody }}", "{{ inventory_hostname }}", "x.invalid", "", None, True, 5, 1.5, [], ["a"], {}, {"a": 1}]
)  # fmt: skip
variables = st.fixed_dictionaries(
    {},
    optional={
        "ansible_host": addresses,
        "llm_address": addresses,
        "ansible_connection": st.sampled_from(
            ["local", "ansible.builtin.local", "ssh", "{{ nobody }}", None, 1, ["local"]]
        ),
        "ansible_port": st.sampled_from([22, 2222, "22", "{{ nobody }}", None, [1]]),
        "llm_gpus": st.sampled_from([[], [{"memory_mib": 1}], {}, None, "x", [None], 7]),
        "llm_secrets": st.sampled_from([{}, [], None, "x", {"A": None}, {"A": ["x"]}, {1: "x"}]),
        "llm_overides": st.none(),
        "Llm_Gateway": st.just({"port": 1}),
    },
)
members = st.lists(st.sampled_from(HOSTS), max_size=3, unique=True)


@st.composite
def inventories(draw: st.DrawFn) -> dict[str, Any]:
    """Groups of ours inside and outside of llm_stack, with odd variables."""
    inside: dict[str, Any] = {}
    outside: dict[str, Any] = {}
    for group in GROUPS:
        where = draw(st.sampled_from([inside, inside, inside, outside, None]))
        if where is not None:
            where[group] = {"hosts": dict.fromkeys(draw(members))}
            if draw(st.integers(0, 5)) == 0:
                where[group]["vars"] = draw(variables)
    stack = {"hosts": {host: draw(variables) for host in draw(members)}, "children": inside}
    return {"all": {"children": {"llm_stack": stack, **outside}}}


@given(tree=inventories())
def test_any_inventory(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        judge(write(Path(name), {"hosts.yml": json.dumps(tree)}))


STACK = """\
all:
  children:
    llm_stack:
      hosts: {one: {ansible_connection: local}}
      children:
        llm_gateway: {hosts: {one: }}
        llm_ollama: {hosts: {one: }}
        llm_redis: {}
        llm_monitoring: {}
        llm_llama_cpp_native: {hosts: {one: }}
        llm_llama_cpp_python: {}
        llm_vllm_qwen: {}
        llm_vllm_dolphin: {}
"""
NAMES = st.sampled_from(
    ["llm_overrides", "llm_overrides_x", "llm_providers", "llm_routing", "llm_gateway", "llm_clients",
     "llm_monitoring", "llm_versions", "llm_gpus", "llm_address", "llm_secrets", "llm_environment",
     "llm_report", "mine", "providers", "gateway", "redis_port"]
)  # fmt: skip
TEXTS = st.sampled_from(
    [
        "",
        "&a {x: *a}",
        "&a [*a, *a]",
        "{providers: &a {ollama: *a}}",
        "{gateway: {listen: &l [127.0.0.1, *l]}}",
        "{gateway: {<<: {port: 4100}, workers: 3}}",
        "{gateway: {<<: [{port: 4100}, {port: 4200}]}}",
        "{<<: 5}",
        "{gateway: &g {port: 4100}, monitoring: *g}",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!binary aGk=",
        "{gateway: {port: !!float 4100}}",
        "{gateway: {port: !vault x}}",
        "!vault x",
        "!unsafe '{{ x }}'",
        "!mine {a: 1}",
        "{gateway: {port: '{{ nobody }}'}}",
        "'{{ llm_overrides }}'",
        '\'{{ lookup("file", "/nonexistent") }}\'',
        "'{{ {} | nofilter }}'",
        "'{% if %}'",
        "{1: 2, null: 3, 1.5: x}",
        "{? [a, b] : c}",
        "{true: {}}",
        "2020-01-01",
        "{versions: {litellm: {version: 2020-01-01}}}",
        "{providers: {ollama: {models: {1: null, 2020-01-01: {}}}}}",
        "{providers: [[[[]]]]}",
        f"{'[' * 300}{']' * 300}",
        ".inf",
        "{gateway: {workers: .nan}}",
        "{gateway: {port: 1_0}}",
        '"\\uD83D\\uDE00 \\u200b"',
        "{routing: {fallbacks: {a: {chain: &c [a, *c]}}}}",
    ]
)


@given(values=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=3))
def test_any_file_of_variables(values: dict[str, str]) -> None:
    text = "".join(f"{name}: {value}\n" for name, value in values.items())
    with tempfile.TemporaryDirectory() as name:
        files = {"hosts.yml": STACK, "group_vars/llm_stack/llm.yml": text}
        judge(write(Path(name), files))


@pytest.mark.parametrize(
    "files",
    [
        {"hosts.yml": ""},
        {"hosts.yml": "---\n"},
        {"hosts.yml": "[]\n"},
        {"hosts.yml": "all: {children: {llm_stack: }}\n"},
        {"hosts.yml": "all: {children: {llm_stack: {hosts: [a, b]}}}\n"},
        {"hosts.yml": "all: &a {children: {llm_stack: *a}}\n"},
        {"hosts.yml": "all: {children: {llm_stack: {hosts: {one: }, vars: []}}}\n"},
        {"hosts.yml": "all: {children: {llm_stack: {hosts: {1: , 2.5: , true: }}}}\n"},
        {"hosts.yml": "all: {children: {llm_stack: {hosts: {'gpu[1:3]': }}}}\n"},
        {"hosts.yml": "all: {children: {llm_stack: {hosts: {'': }}}}\n"},
        {"hosts.ini": "[llm_stack]\none ansible_host=10.0.0.1\n[llm_gateway]\ntwo\n"},
        {"hosts.yml": STACK, "group_vars/llm_stack": ""},
        {"hosts.yml": STACK, "group_vars/llm_stack/x.yml": "providers: !vault x\n"},
        {
            "hosts.yml": STACK,
            "group_vars/llm_stack/x.yml": "gateway: {port: !vault x, listen: [!vault y]}\n"
            "providers: {a: !vault x, b: {type: !vault x, models: [!vault z]}}\n"
            "ansible_host: !vault x\nansible_port: !vault x\nansible_connection: !vault x\n",
        },
        {"hosts.yml": STACK, "group_vars/llm_stack/llm.yml": "- a\n"},
        {"hosts.yml": STACK, "group_vars/llm_stack/llm.yml": "text\n"},
        {"hosts.yml": STACK, "group_vars/llm_stack/llm.json": "{}"},
        {"hosts.yml": STACK, "group_vars/llm_stack/llm.yml": "\x00"},
        {"hosts.yml": STACK, "host_vars/one.yml": "llm_gpus: &g [*g]\n"},
        {"hosts.yml": STACK, "host_vars/nobody.yml": "- \n"},
        {"hosts.yml": STACK, ".credentials/A": ""},
        {"hosts.yml": STACK, ".credentials/A/B": "x"},
    ],
)  # fmt: skip
def test_odd_files(tmp_path: Path, files: dict[str, str]) -> None:
    judge(write(tmp_path, files))


def test_the_inventory_of_these_tests_is_right(tmp_path: Path) -> None:
    result = judge(write(tmp_path, {"hosts.yml": STACK}))
    assert isinstance(result, Compiled)
    assert result.errors == []
