"""How often a run imports the package."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path


def test_the_package_is_imported_before_ansible_forks(
    ansible: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A task's process cannot write to the terminal, so what is seen is the parent's import."""
    playbook = tmp_path / "filters.yml"
    playbook.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug: {msg: \"{{ 'x' | upper }}\"}\n"
    )
    run = ansible("ansible-playbook", playbook, PYTHONPROFILEIMPORTTIME="1")
    assert run.returncode == 0, run.stdout
    assert len(re.findall(r"\| *modelyard\.compile$", run.stdout, re.MULTILINE)) == 1
