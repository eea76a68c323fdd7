"""Run a playbook of the scenario from its tests, as a user does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])


def ansible_playbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ansible-playbook` in the scenario's directory; ANSIBLE_INVENTORY names the scenario's inventories."""
    command = ["ansible-playbook", *arguments]
    return subprocess.run(command, cwd=SCENARIO, capture_output=True, text=True, check=False)
