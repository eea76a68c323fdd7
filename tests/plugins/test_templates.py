"""What docs/catalogue.md says that a template of the catalogue may use, with real ansible-core."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

ROOT = Path(__file__).parents[2]
VALIDATE = "playbooks/validate.yml"

AVAILABLE = {
    "port_base": "4000",
    "inventory_hostname": "inventory_hostname",
    "group_names": "group_names",
    "groups": "groups['llm_gateway']",
    "lookup('env', 'NAME')": "lookup('env', 'HOME')",
    "lookup('file', '/path')": "lookup('file', '/etc/hostname')",
}
"""Expressions that have a length, by the words of the page; the first is a variable."""


def test_what_a_template_may_use(ansible: Run, stack: Path, variables: Write) -> None:
    lengths = " + ".join(f"({one} | string | length)" for one in AVAILABLE.values())
    variables(
        'llm_overrides:\n  gateway:\n    port: "{{ port_base | int + 100 }}"\n'
        f'    limits: {{body_mib: "{{{{ 0 * ({lengths}) + 100 }}}}"}}\n'
        "port_base: '4000'\n"
    )
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert done.returncode == 0, done.stdout
    page = (ROOT / "docs/catalogue.md").read_text(encoding="utf-8").partition("## Templates")[2]
    for name in [*AVAILABLE][1:]:
        assert f"`{name}`" in page, name


def test_what_a_template_cannot_use(ansible: Run, stack: Path, variables: Write) -> None:
    for expression, hint in {
        "hostvars.gw.port_base": "set the value in group_vars/llm_stack, and use that variable",
        "ansible_facts.processor_count": "it cannot use facts or registered variables",
        "ansible_processor_vcpus": "it cannot use facts or registered variables",
        "registered.stdout": "define registered in group_vars/llm_stack, or with -e",
    }.items():
        variables(f'llm_overrides:\n  gateway:\n    workers: "{{{{ {expression} | int }}}}"\n')
        done = ansible("ansible-playbook", "-i", stack, VALIDATE)
        assert "error[unreadable-variable]" in done.stdout, expression
        assert hint in done.stdout, done.stdout


def test_braces_in_a_secret_are_not_quoted(ansible: Run, stack: Path, variables: Write) -> None:
    """A password that was generated may have any characters."""
    for value in (
        "aaaa{%MARKED",
        "aa{%vaultMARKED",
        "aaaa{{MARKED}}b",
        "aaaa{{ a MARKED}}b",
        "{{MARKED",
    ):
        variables(f'llm_secrets:\n  WEB_KEY: "{value}"\n')
        done = ansible("ansible-playbook", "-i", stack, VALIDATE)
        assert "braces in a value of it are read as a template" in done.stdout
        assert "!unsafe" in done.stdout
        assert "MARKED" not in done.stdout, value
    variables('llm_secrets:\n  WEB_KEY: "{{ vaulted }}"\nvaulted: "aaaa{{MARKED}}b"\n')
    done = ansible("ansible-playbook", "-i", stack, VALIDATE)
    assert "error[unreadable-variable]" in done.stdout
    assert "MARKED" not in done.stdout
    variables('llm_secrets:\n  WEB_KEY: "{{ vaulted }}"\n')
    assert "define vaulted in" in ansible("ansible-playbook", "-i", stack, VALIDATE).stdout


def test_a_template_that_is_none_is_told(ansible: Run, stack: Path, variables: Write) -> None:
    variables('llm_overrides:\n  gateway: {port: "{{ 4000 + | }}"}\n')
    assert "correct the template" in ansible("ansible-playbook", "-i", stack, VALIDATE).stdout
    variables("llm_overrides: \"{{ lookup('file', '/nowhere') }}\"\n")
    done = ansible("ansible-playbook", "-i", stack, VALIDATE).stdout
    assert "lookups run on the controller" in done
    assert "vvvv" not in done
