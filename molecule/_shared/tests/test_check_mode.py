"""On a converged host, check mode finds nothing to do and diff mode nothing to show."""

from __future__ import annotations

import re

from modelyard_playbook import ansible_playbook


def test_check_mode_changes_nothing() -> None:
    """Molecule's own `check` step only wants an exit status of 0."""
    checked = ansible_playbook("--check", "--diff", "converge.yml")
    output = checked.stdout + checked.stderr
    assert checked.returncode == 0, output
    recap = output.partition("PLAY RECAP")[2]
    changes = re.findall(r"^(\S+)\s*:.*changed=(\d+)", recap, re.MULTILINE)
    assert changes, f"no host was checked:\n{output}"
    assert all(count == "0" for _, count in changes), output
