"""Two runs on one inventory: the second is told who is at work; what ended holds nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LOCK = ".modelyard.lock"

PLAYBOOK = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - modelyard_lock:
    - modelyard_lock:
"""


def run(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "lock.yml").write_text(PLAYBOOK, encoding="utf-8")
    (tmp_path / "hosts.yml").write_text("all: {hosts: {localhost: {}}}\n", encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        str(tmp_path / "hosts.yml"),
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(Path(__file__).parents[2] / "ansible.cfg")}
    return subprocess.run(
        [*command, str(tmp_path / "lock.yml")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def owner(tmp_path: Path, **changes: object) -> None:
    """A lock of a process that lives: this one."""
    started = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    lock = {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "started": started,
        "user": "ann",
        "since": "noon",
    }
    (tmp_path / LOCK).write_text(
        json.dumps({**lock, "purpose": "a switch", **changes}), encoding="utf-8"
    )


def test_lock_of_a_run_that_ended_is_taken_over(tmp_path: Path) -> None:
    for _ in range(2):
        done = run(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (
        json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["purpose"]
        == f"{tmp_path}/lock.yml"
    )
    assert sorted(path.name for path in tmp_path.glob(".modelyard*")) == [LOCK]


def test_lock_of_a_run_that_goes_on_is_respected(tmp_path: Path) -> None:
    owner(tmp_path)
    refused = run(tmp_path)
    assert refused.returncode != 0
    assert (
        "a switch has been changing the hosts of this inventory since noon: "
        f"ann@{os.uname().nodename}" in refused.stdout + refused.stderr
    )


def test_number_of_a_process_that_was_given_to_another_holds_nothing(tmp_path: Path) -> None:
    owner(tmp_path, started="1")
    assert run(tmp_path).returncode == 0


def test_owner_on_another_machine_cannot_be_judged(tmp_path: Path) -> None:
    owner(tmp_path, host="elsewhere")
    refused = run(tmp_path)
    assert refused.returncode != 0
    assert f"remove {tmp_path / LOCK}" in (refused.stdout + refused.stderr).replace("\n", " ")


def test_damaged_lock_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("{", encoding="utf-8")
    assert run(tmp_path).returncode == 0
