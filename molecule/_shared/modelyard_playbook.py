"""Run a playbook of the scenario from its tests, as a user does, or one module as a task of it
does."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import Any

SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])


def ansible_playbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `ansible-playbook` in the scenario's directory; ANSIBLE_INVENTORY names the scenario's
    inventories."""
    command = ["ansible-playbook", *arguments]
    return subprocess.run(command, cwd=SCENARIO, capture_output=True, text=True, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a run printed, as one line: Ansible breaks long messages."""
    return " ".join((done.stdout + done.stderr).split())


def new_file(done: subprocess.CompletedProcess[str], path: str) -> str:
    """What a run with --check --diff says that a file of a release would hold, which no release has
    yet."""
    _, *lines = done.stdout.partition(f"+++ after: {path} (new)\n")[
        2
    ].splitlines()  # without @@ -0,0 +1,60 @@
    return "\n".join(line[1:] for line in takewhile(lambda line: line.startswith("+"), lines))


def ansible_module(host: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run one module on a host, as root; returns its result, failed or not."""
    command = ["ansible", host, "--become", "-m", name, "-a", json.dumps(arguments)]
    environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(
        command, cwd=SCENARIO, capture_output=True, text=True, check=False, env=environment
    )
    # `HOST | CHANGED => {...}`, after the error of a failure and warnings.
    _, found, text = done.stdout.rpartition(" => {\n")
    assert found, done.stdout + done.stderr
    return {**json.loads("{" + text), "failed": done.returncode != 0}
