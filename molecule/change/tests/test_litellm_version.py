"""The gateway in another release, locked as its role's README says, and back, while somebody asks
all the while."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from changing import ALL, KEY, MODEL, live, runs, unit_of
from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import Traffic

pytestmark = pytest.mark.full

OTHER = "1.106.1"
"""A release of LiteLLM that is not the catalogue's and has no lock in the role."""
LOCKS = SCENARIO.parents[1] / "roles/litellm/files/locks"
CHOICE = SCENARIO / "inventory/group_vars/llm_stack/upgraded.yml"


def version(one: Any) -> str:
    """The release that the gateway's process runs, as its own interpreter says."""
    pid = one.check_output(f"systemctl show --value --property=MainPID {unit_of(one, 'litellm')}")
    python = one.check_output(f"tr '\\0' '\\n' < /proc/{pid}/cmdline | head -n 1")
    asking = "from importlib.metadata import version; print(version('litellm'))"
    return str(one.check_output(f'{python} -c "{asking}"'))


def upgrade(to: str) -> subprocess.CompletedProcess[str]:
    return ansible_playbook(
        "../../playbooks/upgrade.yml", "-e", "component=litellm", "-e", f"version={to}"
    )


@pytest.fixture
def lock(one: Any) -> Iterator[None]:
    """A lock of the other release, made as roles/litellm/README.md says; it is there for one test
    only."""
    former = version(one)
    wanted, locked = (LOCKS / f"litellm-{OTHER}{suffix}" for suffix in (".in", ".txt"))
    assert not wanted.exists(), (
        f"{wanted} is in the role: choose another release for this test, or delete it"
    )
    try:
        text = (LOCKS / f"litellm-{former}.in").read_text(encoding="utf-8").replace(former, OTHER)
        wanted.write_text(text, encoding="utf-8")
        shutil.copy(LOCKS / f"litellm-{former}.txt", locked)
        (command,) = (
            line.lstrip("# ") for line in text.splitlines() if line.startswith("#   uv pip compile")
        )
        environment = {**os.environ, "UV_SYSTEM_CERTS": "1"}
        subprocess.run(shlex.split(command), cwd=LOCKS, env=environment, check=True)
        yield
    finally:
        wanted.unlink(missing_ok=True)
        locked.unlink(missing_ok=True)


@pytest.fixture
def choice() -> Iterator[None]:
    """The inventory is left without what the playbook writes into it."""
    yield
    CHOICE.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("to", "code"), [(OTHER, "version-without-lock"), ("1.83.6", "version-unsafe")]
)
def test_upgrade_that_is_refused(one: Any, choice: None, to: str, code: str) -> None:
    before, store = (
        {name: live(one, name) for name in ALL},
        one.check_output("ls /opt/modelyard/store"),
    )
    refused = upgrade(to)
    assert refused.returncode != 0
    assert f"error[{code}]: litellm {to} " in refused.stdout, refused.stdout
    assert {name: live(one, name) for name in ALL} == before
    assert one.check_output("ls /opt/modelyard/store") == store
    assert not CHOICE.exists()


def test_upgrade_and_back(
    one: Any, door: str, lock: None, choice: None, measured: Callable[[str], None]
) -> None:
    before, former = {name: live(one, name) for name in ALL}, version(one)
    assert former != OTHER
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=900) as traffic:
        done = upgrade(OTHER)
        there = time.monotonic() - started
        assert done.returncode == 0, done.stdout + done.stderr
        assert version(one) == OTHER
        assert live(one, "litellm") == runs(one, "litellm") != before["litellm"]
        chosen = yaml.safe_load(CHOICE.read_text(encoding="utf-8"))
        assert chosen == {"llm_overrides_upgraded": {"versions": {"litellm": {"version": OTHER}}}}
        started = time.monotonic()
        back = ansible_playbook("../../playbooks/rollback.yml")
        assert back.returncode == 0, back.stdout + back.stderr
    assert traffic.failures == []
    assert version(one) == former
    assert {name: live(one, name) for name in ALL} == before
    assert {name: runs(one, name) for name in ALL} == before
    asked = traffic.answered + traffic.streams
    measured(
        f"litellm {former} to {OTHER} in {there:.0f} s, back in {time.monotonic() - started:.0f} s;"
        f" {asked} requests, none failed"
    )
