"""The action plugin and the verbs validate and plan, through real ansible-core."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

ROOT = Path(__file__).parents[2]
VALIDATE = "playbooks/validate.yml"


def test_shipped_inventory_is_valid(ansible: Run) -> None:
    done = ansible("ansible-playbook", VALIDATE)
    assert done.returncode == 0, done.stdout
    assert "The catalogue is valid: 1 host, 2 public names, 0 warnings." in done.stdout
    assert "provider llama_cpp_native: no host in group llm_llama_cpp_native" in done.stdout


def test_unreachable_hosts_are_not_contacted(ansible: Run, stack: Path) -> None:
    done = ansible("ansible-playbook", "-i", stack, "playbooks/plan.yml")
    assert done.returncode == 0, done.stdout
    assert "192.0.2.2:8080  modelyard-llama-cpp@llama-cpp-native  llama-cpp-native" in done.stdout
    assert "1. llama-cpp-native  llama_cpp_native on gpu" in done.stdout


def test_typo_in_an_override_on_the_command_line(ansible: Run) -> None:
    override = {
        "llm_overrides": {
            "routing": {"fallbacks": {"llama3.1:latest": {"chain": ["lama-cpp-default"]}}}
        }
    }
    done = ansible("ansible-playbook", VALIDATE, "-e", json.dumps(override))
    assert done.returncode != 0
    assert "<CLI option '-e'>: error[unknown-model]" in done.stdout
    assert 'did you mean "llama-cpp-default"?' in done.stdout
    assert r"\n" not in done.stdout, "diagnostics are lines, not an escaped string"


def test_boolean_in_an_override_on_the_command_line(ansible: Run) -> None:
    """Neither `true` nor its key has an origin there; the shipped file must not be blamed."""
    override = {"llm_overrides": {"gateway": {"redis": {"persistense": True}}}}
    done = ansible("ansible-playbook", VALIDATE, "-e", json.dumps(override))
    assert "<CLI option '-e'>: error[unknown-key]" in done.stdout


def test_version_that_is_not_locked(ansible: Run) -> None:
    version = '{"llm_overrides": {"versions": {"litellm": {"version": "1.999.0"}}}}'
    refused = ansible("ansible-playbook", "playbooks/validate.yml", "-e", version)
    assert refused.returncode == 2
    assert "error[version-without-lock]: litellm 1.999.0 has no lock" in refused.stdout
    assert "hint: versions with a lock file: 1.106.2;" in refused.stdout


def test_typos_in_a_file_have_file_line_and_column(
    ansible: Run, stack: Path, variables: Write
) -> None:
    path = variables(
        "---\nllm_overrides:\n  gateway:\n    cooldwn_s: 10\n    workers: two\n"
        "  providers:\n    llama_cpp_native:\n      stauts: true\n"
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.returncode != 0
    assert f"{path}:4:5: error[unknown-key]" in done.stdout
    assert 'did you mean "cooldown_s"?' in done.stdout
    assert f"{path}:5:14: error[invalid-value]" in done.stdout
    assert f"{path}:8:7: error[unknown-key]" in done.stdout
    assert 'did you mean "status"?' in done.stdout
    assert "3 errors" in done.stdout


def test_shipped_file_is_named_relative_to_the_clone(ansible: Run) -> None:
    override = {
        "llm_overrides": {"providers": {"llama_cpp_native": {"models": {"llama-cpp-native": None}}}}
    }
    done = ansible("ansible-playbook", VALIDATE, "-e", json.dumps(override))
    line = next(
        n for n, text in enumerate((ROOT / "group_vars/all/routing.yml").read_text().splitlines(), 1)
        if text.startswith("    llama-cpp-native: ")
    )  # fmt: skip
    assert f"group_vars/all/routing.yml:{line}:5: error[unknown-model]" in done.stdout
    assert "playbooks/group_vars" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--limit", "gw"], ["--limit", "gpu"], ["--tags", "nothing"], ["--check"]]
)
def test_nothing_skips_validation(
    ansible: Run, stack: Path, variables: Write, arguments: list[str]
) -> None:
    variables("---\nllm_overrides:\n  gateway: {prt: 1}\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, *arguments)
    assert done.returncode != 0
    assert "error[unknown-key]" in done.stdout


def test_limit_still_compiles_everything(ansible: Run, stack: Path) -> None:
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "--limit", "gpu")
    assert done.returncode == 0, done.stdout
    assert "2 hosts" in done.stdout


def test_check_mode(ansible: Run, stack: Path) -> None:
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_empty_inventory_is_an_error(ansible: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yml"
    empty.write_text("---\nall: {}\n", encoding="utf-8")
    done = ansible("ansible-playbook", "-i", empty, VALIDATE)
    assert done.returncode != 0
    assert "error[no-hosts]" in done.stdout


def test_catalogue_for_some_hosts_only(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables("---\nllm_overrides:\n  gateway: {port: 5000}\n", "llm_llama_cpp_native")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert "error[differing-catalogues]" in done.stdout
    assert f"{path}:" in done.stdout


def test_fact_in_the_catalogue(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables(
        '---\nllm_overrides:\n  gateway:\n    workers: "{{ ansible_facts.processor_vcpus }}"\n'
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert (
        f"{path}:4:14: error[unreadable-variable]: llm_overrides cannot be read for gw, gpu"
        in done.stdout
    )
    assert "Traceback" not in done.stdout


def test_templates_work_and_results_are_no_templates(
    ansible: Run, stack: Path, variables: Write, tmp_path: Path
) -> None:
    variables(
        '---\nmy_port: 9090\nllm_overrides:\n  gateway: {port: "{{ my_port }}"}\n'
        "  providers:\n    llama_cpp_native:\n      models:\n"
        "        llama-cpp-native: {source: {path: !unsafe '/m/x{{1+1}}.gguf'}}\n"
    )
    done = ansible("ansible-playbook", "-i", stack, "playbooks/plan.yml", "-v")
    assert done.returncode == 0, done.stdout
    assert "127.0.0.1:9090" in done.stdout
    assert "/m/x{{1+1}}.gguf" in done.stdout


def test_unknown_variable(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables("---\nllm_overide: {}\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert f"{path}:2:1: error[unknown-variable]" in done.stdout
    assert 'did you mean "llm_overrides"?' in done.stdout


def test_variables_that_look_like_ours(ansible: Run, stack: Path, variables: Write) -> None:
    """Wherever they are set; what is the user's own is left alone."""
    path = variables("---\nvllm_bulid: cpu\nmine: 1\nllm-overrides: {}\n")
    own = variables("---\nengine_models: []\nengine_plan: {}\nvllm_host: x\n", "all")
    hosts = stack / "hosts.yml"
    provider = "{a: {type: vllm, group: llm_vllm_qwen, port: 1}}"
    hosts.write_text(
        f"{hosts.read_text(encoding='utf-8')}  vars: {{providers: {provider}}}\n",
        encoding="utf-8",
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "-e", "llama_cpp_backend=cpu")
    assert done.stdout.count("error[") == 5
    for place in (f"{path}:2:1", f"{path}:4:1", f"{own}:2:1", f"{hosts}:", "<CLI option '-e'>"):
        assert place in done.stdout
    assert 'did you mean "vllm_build"? It is in the catalogue' in done.stdout
    assert "a role takes it, with a value that follows from the plan" in done.stdout
    assert f"{own}:3:1: warning[unknown-variable]" in done.stdout


def test_variables_that_are_not_for_the_stack(ansible: Run, stack: Path, variables: Write) -> None:
    """Groups of others may set what they like, in files that only they can read."""
    hosts = stack / "hosts.yml"
    hosts.write_text(
        f"{hosts.read_text(encoding='utf-8')}    web: {{hosts: {{w1: {{redis_port: 1}}}}}}\n",
        encoding="utf-8",
    )
    variables("---\nredis_port: 6380\ngateway: {port: 1, workers: 2}\n", "web")
    # Of groups that this inventory does not have.
    variables("---\n", "other").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n", encoding="utf-8")
    variables("---\n", "templates").write_text("{% if x %}\n- [\n", encoding="utf-8")
    variables("---\n8080: a\ntrue: b\noverrides: [{host: a}]\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.returncode == 0, done.stdout
    assert "unknown-variable" not in done.stdout


def test_a_file_of_variables_that_is_not_read(ansible: Run, stack: Path, variables: Write) -> None:
    path = variables("---\nllm_overrides: {}\n")
    for name in ("llm.yml.txt", "more.ymal", "README.txt", "old.yml.bak"):
        (path.parent / name).write_text("llm_overrides: {gateway: {port: 1}}\n", encoding="utf-8")
    (path.parents[1] / "other.yml.txt").write_text("", encoding="utf-8")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Ansible does not read this file") == 2
    assert f"{path}.txt: warning[variable-without-effect]" in done.stdout
    assert "more.ymal: warning[variable-without-effect]" in done.stdout


def test_secrets_count_from_everywhere(ansible: Run, stack: Path, variables: Write) -> None:
    left_out = "secret OLLAMA_CLOUD_API_KEY is not defined"
    assert left_out in ansible("ansible-playbook", "-i", stack, VALIDATE).stdout
    done = ansible(
        "ansible-playbook", "-i", stack, VALIDATE, OLLAMA_CLOUD_API_KEY="planted-in-environment"
    )
    assert left_out not in done.stdout
    (stack / ".credentials").mkdir()
    (stack / ".credentials" / "OLLAMA_CLOUD_API_KEY").write_text(
        "planted-in-file\n", encoding="utf-8"
    )
    assert left_out not in ansible("ansible-playbook", "-i", stack, VALIDATE).stdout
    shutil.rmtree(stack / ".credentials")
    variables("---\nllm_secrets: {OLLAMA_CLOUD_API_KEY: planted-in-vars}\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "-vvv")
    assert left_out not in done.stdout
    assert "planted" not in done.stdout


def test_a_clients_key_that_is_too_short(ansible: Run, stack: Path, variables: Write) -> None:
    """Wherever it is defined; its value is not shown."""
    clients = "llm_overrides: {clients: {app: {secret: APP_KEY}}}\n"
    path = variables(f"---\n{clients}llm_secrets: {{APP_KEY: planted}}\n")
    refused = f"{path}:2:41: error[secret-too-short]: APP_KEY, the key of client"
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert refused in done.stdout
    assert "planted" not in done.stdout
    variables(f"---\n{clients}")
    assert refused in ansible("ansible-playbook", "-i", stack, VALIDATE, APP_KEY="planted").stdout
    assert ansible("ansible-playbook", "-i", stack, VALIDATE).returncode == 0


UNUSABLE = {
    "FILE_EMPTY": "is empty",
    "FILE_BLANK": "is empty",
    "FILE_LINES": "has several lines",
    "FILE_QUOTES": "is in quotes",
    "FILE_NAMED": "begins with its own name",
    "FILE_DIRECTORY": "is a directory",
    "FILE_BINARY": "is not UTF-8 text",
    "FILE_NOWHERE": "cannot be read",
    "FROM_LINES": "has several lines in the environment",
    "FROM_BLANK": "is blank in the environment",
    "FROM_NOTHING": "is empty in the environment",
    "FROM_BEARER": "has white space",
    "YAML_YES": "is a boolean",
    "YAML_NUMBER": "is a number",
    "YAML_DATE": "is a date",
    "YAML_MAPPING": "is a mapping",
    "YAML_LIST": "is a list",
    "YAML_LINES": "has several lines",
    "YAML_EMPTY": "is empty",
    "YAML_NULL": "is empty",
}
"""What is said of the key of each client."""

GIVEN = """\
llm_secrets:
  YAML_YES: yes
  YAML_NUMBER: 4711
  YAML_DATE: 2026-11-30
  YAML_MAPPING: {planted: planted}
  YAML_LIST: [planted]
  YAML_LINES: "planted\\nplanted"
  YAML_EMPTY: ""
  YAML_NULL:
"""


def test_secrets_that_no_service_could_use(ansible: Run, stack: Path, variables: Write) -> None:
    """All at once, wherever they are; no value is shown."""
    clients = "".join(
        f"    {name.lower().replace('_', '-')}: {{secret: {name}}}\n" for name in UNUSABLE
    )
    path = variables(f"---\n{GIVEN}llm_overrides:\n  clients:\n{clients}")
    store = stack / ".credentials"
    (store / "FILE_DIRECTORY").mkdir(parents=True)
    (store / "FILE_NOWHERE").symlink_to("nowhere")
    contents = {
        "EMPTY": b"",
        "BLANK": b" \n\t\n",
        "LINES": b"planted\nplanted\n",
        "QUOTES": b"'planted'",
        "NAMED": b"FILE_NAMED=planted",
        "BINARY": b"planted\xff",
    }
    for name, content in contents.items():
        (store / f"FILE_{name}").write_bytes(content)
    environment = {
        "FROM_LINES": "planted\nplanted",
        "FROM_BLANK": "  ",
        "FROM_NOTHING": "",
        "FROM_BEARER": "Bearer planted-and-long-enough",
    }
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, **environment)
    assert "planted" not in done.stdout
    assert "4711" not in done.stdout
    told = [line for line in done.stdout.splitlines() if "error[" in line]
    for name, fault in UNUSABLE.items():
        (line,) = [line for line in told if name in line.partition("error[")[2]]
        assert fault in line
        if name.startswith("YAML"):
            number = list(UNUSABLE).index(name) - 9
            assert line.strip().startswith(f"{path}:{number}:3: error[")
    assert len(told) == len(UNUSABLE)


@pytest.mark.parametrize(
    ("mine", "of_gpu", "told"),
    [
        ("[planted]", "", "llm.yml:2:14: error[invalid-value]: llm_secrets is not a mapping"),
        ("{}", "{OLLAMA_CLOUD_API_KEY: planted}", "but not for gw, where it is needed"),
        ("{REDIS_PASSWORD: planted}", "{REDIS_PASSWORD: no}", "gpu.yml:2:15: error[invalid-value]"),
        ("{REDIS_PASSWORD: planted}", "{REDIS_PASSWORD: n}", "gpu.yml:2:15: error[secret-differs]"),
        ("{OLLAMA_CLOUD_API_KEY: '{{ of_vault }}'}", "", "define of_vault in group_vars"),
        ("{OLLAMA_CLOUD_API_KEY: !vault x}", "", "--vault-password-file"),
    ],
)
def test_secrets_that_hosts_do_not_share(
    ansible: Run, stack: Path, variables: Write, mine: str, of_gpu: str, told: str
) -> None:
    variables(f"---\nllm_secrets: {mine}\n")
    if of_gpu:
        (stack / "host_vars").mkdir()
        (stack / "host_vars/gpu.yml").write_text(f"---\nllm_secrets: {of_gpu}\n")
    if mine == "{}":
        (stack / ".credentials").write_text("")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.returncode == 2, done.stdout
    assert told in done.stdout
    assert "planted" not in done.stdout
    assert ("it cannot be read (Not a directory)" in done.stdout) == (mine == "{}")


def test_right_secrets(ansible: Run, stack: Path, variables: Write) -> None:
    """Some for one group, an empty one of a provider that may be missing, a block of YAML."""
    variables(
        "---\nllm_secrets:\n  OLLAMA_CLOUD_API_KEY: \"{{ lookup('env', 'NOT_SET') }}\"\n"
        "  LITELLM_MASTER_KEY: |\n    sk-planted-by-hand\n"
    )
    (stack / ".credentials").mkdir()
    (stack / ".credentials/REDIS_PASSWORD").write_text("planted-by-hand-too\n", encoding="utf-8")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, REDIS_PASSWORD="")
    assert done.returncode == 0, done.stdout
    assert "secret OLLAMA_CLOUD_API_KEY is not defined" in done.stdout
    assert "secret-" not in done.stdout


def test_report(ansible: Run, stack: Path, variables: Write, tmp_path: Path) -> None:
    path = variables("---\nllm_overrides:\n  gateway:\n    prt: 1\n")
    ansible(
        "ansible-playbook", "-i", stack, VALIDATE, "-e", f"llm_report={tmp_path / 'report.json'}"
    )
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [(d["code"], d["file"], d["line"], d["column"]) for d in report] == [
        ("unknown-key", str(path), 4, 5)
    ]
    assert report[0]["path"] == "llm_gateway.prt"


def test_without_the_package_it_says_what_to_run(ansible: Run, tmp_path: Path) -> None:
    (tmp_path / "modelyard.py").write_text(
        "raise ImportError('No module named pydantic')\n", encoding="utf-8"
    )
    done = ansible("ansible-playbook", VALIDATE, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "make env" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "playbook", ["site.yml", "playbooks/validate.yml", "playbooks/upgrade.yml"]
)
def test_from_another_directory_it_says_where_to_run(
    ansible: Run, tmp_path: Path, playbook: str
) -> None:
    """Ansible has no settings there. Links beside the playbooks let it find this much."""
    command = ("ansible-playbook", ROOT / playbook, "-i", ROOT / "inventories/workstation")
    done = ansible(*command, "--check", directory=tmp_path)
    assert done.returncode != 0
    assert f"Run this from the root of the clone: cd {ROOT}" in done.stdout
    assert "couldn't resolve" not in done.stdout
    assert "was not found" not in done.stdout


def test_every_verb_sees_the_shipped_catalogue() -> None:
    """Ansible reads group_vars beside the playbook; without this link every verb would compile
    nothing."""
    link = ROOT / "playbooks/group_vars"
    assert link.is_symlink()
    assert str(link.readlink()) == "../group_vars"
    assert (link / "all/providers.yml").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "local_chat_models"),
        (
            "operation=switch provider=llama_cpp_native model=llama-cpp-native",
            "run at the same time",
        ),
        ("operation=upgrade component=llama_cpp version=999", "The checksum of llama_cpp"),
        ("operation=rotate secret=LITELLM_MASTER_KEY", "kind: gateway"),
        ("operation=rotate", "missing required arguments: secret"),
        ("operation=switch provider=a model=b secret=c", "Unsupported parameters"),
        ("secret=LITELLM_MASTER_KEY", "Unsupported parameters"),
        ("operation=turn", "value of operation must be one of: compile, switch, upgrade, rotate"),
    ],
)
def test_operations(ansible: Run, stack: Path, arguments: str, told: str) -> None:
    """Each has arguments of its own, and refuses those of another."""
    done = ansible("ansible", "gw", "-i", stack, "-m", "modelyard_compile", "-a", arguments)
    assert told in done.stdout


def test_documentation_of_the_action(ansible: Run) -> None:
    documented = json.loads(ansible("ansible-doc", "-j", "modelyard_compile").stdout)[
        "modelyard_compile"
    ]
    assert documented["doc"]["has_action"]
    assert {"plans", "public_names", "routes", "left_out", "warnings", "report"} <= set(
        documented["return"]
    )


PLAYBOOK = """\
---
- name: Filters
  hosts: gw
  gather_facts: false
  tasks:
    - modelyard_compile:
      register: compiled
    - name: Use them
      ansible.builtin.debug:
        msg:
          - "{{ compiled.plans.gw | litellm_model_list | map(attribute='model_info.id') }}"
          - "{{ compiled.plans.gw | litellm_fallbacks | length }}"
          - "{{ (compiled.plans.gw | litellm_config).router_settings.redis_host }}"
"""


def test_filters(ansible: Run, stack: Path, tmp_path: Path) -> None:
    """What site.yml hands the gateway, whole and in parts."""
    (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
    playbook = tmp_path / "filters.yml"
    playbook.write_text(PLAYBOOK, encoding="utf-8")
    done = ansible("ansible-playbook", "-i", stack, playbook, OLLAMA_CLOUD_API_KEY="k")
    assert done.returncode == 0, done.stdout
    assert "llama_cpp_native/-/llama-cpp-native" in done.stdout
    assert "- '6'" in done.stdout or "- 6" in done.stdout
    assert "127.0.0.1" in done.stdout
    playbook.write_text(PLAYBOOK.replace("plans.gw ", "plans.gpu "), encoding="utf-8")
    done = ansible("ansible-playbook", "-i", stack, playbook)
    assert done.returncode != 0
    assert "expected the plan of a host with a gateway" in done.stdout
