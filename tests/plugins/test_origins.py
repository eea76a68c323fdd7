"""Where real ansible-core says a value comes from, for each kind of place; and the report that
holds it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
VALIDATE = ROOT / "playbooks/validate.yml"

Place = tuple[str, int | None, int | None]
"""File, line, column."""


@pytest.fixture
def places(ansible: Run, stack: Path, tmp_path: Path) -> Callable[..., dict[str, Place]]:
    """Validate, and return the place of every error by its path in the catalogue."""

    def run(*arguments: object, inventory: Path = stack) -> dict[str, Place]:
        file = tmp_path / "report.json"
        done = ansible(
            "ansible-playbook", "-i", inventory, VALIDATE, "-e", f"llm_report={file}", *arguments
        )
        assert file.exists(), done.stdout
        found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        assert all(d["origin"] in done.stdout for d in found)
        return {
            d["path"]: (
                (d["file"] or d["origin"]).removeprefix(f"{inventory}/"),
                d["line"],
                d["column"],
            )
            for d in found
        }

    return run


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


YAML = """\
---
llm_overrides{suffix}:
  gateway:
    workers: {value}
    redis: {{persistence: true}}
    {key}: null
"""


def test_yaml_files_of_groups_and_hosts(
    places: Callable[..., dict[str, Place]], stack: Path
) -> None:
    """A file, a directory of files, host_vars; values have their own place, booleans and null that
    of their key."""
    write(stack / "group_vars/llm_stack/a.yml", YAML.format(suffix="", value="two", key="prot"))
    write(stack / "group_vars/llm_gateway.yml", "llm_wrong: 1\n")
    write(
        stack / "group_vars/llm_stack/deep/b.yml",
        "---\nllm_overrides_x:\n  versions: {litelm: {version: '1'}}\n",
    )
    write(stack / "host_vars/gw.yml", "---\nllm_address: gw.example.org\n")
    write(stack / "host_vars/gpu/address.yml", "# a directory\nllm_address:   127.0.0.1\n")
    assert places() == {
        "llm_gateway.workers": ("group_vars/llm_stack/a.yml", 4, 14),
        "llm_gateway.redis.persistence": ("group_vars/llm_stack/a.yml", 5, 13),
        "llm_overrides.gateway.prot": ("group_vars/llm_stack/a.yml", 6, 5),
        "llm_versions.litelm": ("group_vars/llm_stack/deep/b.yml", 3, 14),
        "llm_wrong": ("group_vars/llm_gateway.yml", 1, 1),
        "llm_address": ("host_vars/gpu/address.yml", 2, 16),
    }


def test_shipped_catalogue(places: Callable[..., dict[str, Place]]) -> None:
    file = "group_vars/all/routing.yml"
    model = "llama-cpp-native"
    override = {
        "llm_overrides": {
            "providers": {"llama_cpp_native": {"models": {model: {"mode": "embedding"}}}}
        }
    }
    found = places("-e", json.dumps(override))
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    line, text = next(
        (n, text) for n, text in enumerate(lines, 1) if "llama-cpp-default: {chain: [llama" in text
    )
    assert found["llm_routing.fallbacks.llama-cpp-default.chain[0]"] == (
        file,
        line,
        text.index(f"{model}]") + 1,
    )


def test_json_files_have_no_lines(places: Callable[..., dict[str, Place]], stack: Path) -> None:
    override = {"gateway": {"workers": "two", "prot": 1, "cold": True}}
    write(
        stack / "group_vars/llm_stack/llm.json",
        json.dumps({"llm_overrides": override, "llm_wrong": "x"}, indent=2),
    )
    write(stack / "group_vars/llm_stak.json", json.dumps({"llm_allow_removal": True}))
    place = ("group_vars/llm_stack/llm.json", None, None)
    assert places() == {
        "llm_gateway.workers": place,
        "llm_gateway.prot": place,
        "llm_gateway.cold": place,
        "llm_wrong": place,
        "llm_allow_removal": ("group_vars/llm_stak.json", None, None),
    }


INI = """\
[llm_gateway]
gw ansible_host=192.0.2.1 llm_address=gw.example.org
[llm_llama_cpp_native]
gw
[llm_redis]
[llm_ollama]
[llm_llama_cpp_python]
[llm_vllm_qwen]
[llm_vllm_dolphin]
[llm_stack:children]
llm_gateway
llm_llama_cpp_native
llm_redis
[llm_stack:vars]
llm_overrides={"gateway": {"workers": "two", "prot": 1, "cold": True}}
llm_overrides_x=text
"""


def test_ini_inventories_have_lines_but_no_columns(
    places: Callable[..., dict[str, Place]], ansible: Run, tmp_path: Path
) -> None:
    inventory = write(tmp_path / "ini/hosts.ini", INI).parent
    assert places(inventory=inventory) == {
        "llm_address": ("hosts.ini", 2, None),
        "llm_gateway.workers": ("hosts.ini", 15, None),
        "llm_gateway.prot": ("hosts.ini", 15, None),
        "llm_gateway.cold": ("hosts.ini", 15, None),
        "llm_overrides_x": ("hosts.ini", 16, None),
    }


def test_command_line(places: Callable[..., dict[str, Place]], tmp_path: Path) -> None:
    """Inline values name the command line; files given there have lines like any other, JSON has
    none."""
    given = write(
        tmp_path / "given.yml",
        "---\nllm_overrides_a:\n  gateway:\n    prot_a: true\n    workers: two\n",
    )
    found = places(
        *("-e", json.dumps({"llm_overrides_b": {"gateway": {"prot_b": True}}})),
        *("-e", f"@{given}"),
        *(
            "-e",
            (
                f"@{write(tmp_path / 'given.json', json.dumps({'llm_overrides_c': {'gateway': {'prot_c': 1}}}))}"
            ),
        ),
        *("-e", "llm_wrong=1"),
    )
    assert found == {
        "llm_gateway.prot_a": (str(given), 4, 5),
        "llm_gateway.workers": (str(given), 5, 14),
        "llm_gateway.prot_b": ("<CLI option '-e'>", None, None),
        "llm_gateway.prot_c": (str(tmp_path / "given.json"), None, None),
        "llm_wrong": ("<CLI option '-e'>", None, None),
    }


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("llm_monitoring=False", '{"llm_monitoring": false}'),
        ("llm_overrides=x", '{"llm_overrides": {...}}'),
    ],
)
def test_text_of_the_command_line(ansible: Run, stack: Path, given: str, written: str) -> None:
    """`-e NAME=VALUE` is always text; whoever writes it is told what to write."""
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "-e", given)
    assert f"on the command line write it as JSON: -e '{written}'" in done.stdout


def test_encrypted_values_have_a_place_and_are_not_shown(
    ansible: Run, stack: Path, tmp_path: Path
) -> None:
    password = write(tmp_path / "password", "planted\n")

    done = ansible("ansible-vault", "encrypt_string", "--vault-password-file", password, "planted")
    encrypted = done.stdout[done.stdout.index("!vault") :].rstrip()
    path = write(
        stack / "group_vars/llm_stack/llm.yml",
        f"---\nllm_overrides:\n  gateway:\n    workers: {encrypted}\n    redis:\n      persistence:"
        f" {encrypted}\n  providers:\n    openai:\n      base_url: {encrypted}\n      api_key_env:"
        f" {encrypted}\n",
    )
    lines = path.read_text(encoding="utf-8").splitlines()
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "--vault-password-file", password)
    for key in ("workers", "persistence", "base_url", "api_key_env"):
        line, text = next((n, text) for n, text in enumerate(lines, 1) if f"{key}: !vault" in text)
        assert f"{path}:{line}:{text.index('!vault') + 1}: error" in done.stdout
    assert done.stdout.count("(not shown)") == 4
    assert "planted" not in done.stdout


def test_encrypted_names_are_not_shown_wherever_they_are_repeated(
    ansible: Run, stack: Path, tmp_path: Path
) -> None:
    password = write(tmp_path / "password", "planted\n")
    done = ansible("ansible-vault", "encrypt_string", "--vault-password-file", password, "planted")
    secret = done.stdout[done.stdout.index("!vault") :].rstrip().replace("\n", "\n" + 10 * " ")
    write(
        stack / "group_vars/llm_stack/llm.yml",
        f"""---
llm_overrides:
  providers:
    corp:
      type: openai_compatible
      base_url: https://llm.corp.example/v1
      models:
        - {secret}
  routing:
    aliases:
      chat: {secret}
    fallbacks:
      "llama3.1:latest": {secret}
      "qwen2.5-coder:7b":
        chain:
          - {secret}
    capabilities:
      code:
        - {secret}
  clients:
    bot:
      secret: BOT_KEY
      models:
        - {secret}
""",
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "--vault-password-file", password)
    assert done.stdout.count("error[") == 6, done.stdout
    assert "planted" not in done.stdout


def test_what_may_be_a_secret_is_not_shown(ansible: Run, stack: Path) -> None:
    """A key where its name belongs, a password in an address."""
    write(
        stack / "group_vars/llm_stack.yml",
        "llm_overrides:\n  providers:\n    openai: {api_key_env: sk-planted}\n"
        "    anthropic: {base_url: 'https://me:planted@example.org'}\n",
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.stdout.count("(not shown)") == 2
    assert "planted" not in done.stdout
    assert "write the secret's name here, and define its value in" in done.stdout


def test_each_diagnostic_is_printed_once(ansible: Run, stack: Path) -> None:
    """Ansible prints the message of a failed action twice, the first time as a fault of the
    playbook."""
    write(stack / "group_vars/llm_stack.yml", "llm_wrong: 1\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.returncode == 2
    assert done.stdout.count("error[unknown-variable]") == 1
    assert "[ERROR]" not in done.stdout


def test_report_of_a_valid_catalogue(ansible: Run, stack: Path, tmp_path: Path) -> None:
    """Empty, or warnings. It replaces an old one in one move; a relative path begins where the
    command was run."""
    old = write(tmp_path / "out/report.json", "old\n")
    os.link(old, tmp_path / "out/seen-by-a-reader")
    arguments = ("-i", stack, VALIDATE, "-e", "llm_report=out/report.json")
    ansible(
        "ansible-playbook", *arguments, directory=tmp_path, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")
    )
    assert json.loads(old.read_text(encoding="utf-8")) == []
    assert (tmp_path / "out/seen-by-a-reader").read_text(encoding="utf-8") == "old\n"
    assert sorted(path.name for path in old.parent.iterdir()) == ["report.json", "seen-by-a-reader"]
    write(
        stack / "group_vars/llm_stack.yml",
        "llm_overrides: {routing: {fallbacks: {llama-cpp-native: null}}}\n",
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE, "-e", f"llm_report={old}")
    assert done.returncode == 0, done.stdout
    report = json.loads(old.read_text(encoding="utf-8"))
    assert {"chain-undeclared"} <= {d["code"] for d in report}
    assert {d["severity"] for d in report} == {"warning"}
    assert {tuple(d) for d in report} == {
        ("code", "severity", "message", "hint", "path", "origin", "file", "line", "column")
    }


def test_report_that_cannot_be_written(ansible: Run, stack: Path, tmp_path: Path) -> None:
    done = ansible(
        "ansible-playbook", "-i", stack, VALIDATE, "-e", f"llm_report={tmp_path}/none/report.json"
    )
    assert done.returncode != 0
    assert "llm_report cannot be written" in done.stdout
    assert "Traceback" not in done.stdout
