"""The lab makes hosts, and takes away all that it made and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import CLONE, Machine, kill, wait_until_dead


def test_down_leaves_nothing(machine: Machine) -> None:
    before = machine.state()
    machine.lab("up", "one", "two")
    machine.remember()
    assert machine.lab("ssh", "one", "systemctl", "is-system-running") == "running\n"
    assert machine.lab("ssh", "two", "getent", "hosts", "one").split()[0].startswith("10.213.")
    assert machine.forwarding() == "1"
    during = machine.state()
    assert [kind for kind in before if during[kind] == before[kind]] == [], (
        "a leftover would go unnoticed"
    )
    machine.lab("down")
    assert machine.state() == before


def test_up_and_down_are_idempotent(machine: Machine) -> None:
    machine.lab("up", "one")
    first = machine.nspawn("one")
    assert "was up" in machine.lab("up", "one")
    assert machine.nspawn("one") == first
    machine.lab("down")
    assert "was not up" in machine.lab("down")


def test_forwarding_that_was_on_stays_on(machine: Machine) -> None:
    machine.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    machine.lab("up", "one")
    machine.lab("down")
    assert machine.forwarding() == "1"


def test_labs_of_one_clone_do_not_collide(machine: Machine) -> None:
    before = machine.state()
    machine.lab("up", "--lab", "a", "one")
    machine.lab("up", "--lab", "b", "one")
    machine.remember()
    addresses = {
        json.loads(machine.lab("inventory", "--lab", name))["_meta"]["hostvars"]["one"][
            "ansible_host"
        ]
        for name in "ab"
    }
    assert len(addresses) == 2
    machine.lab("ssh", "--lab", "a", "one", "touch", "/etc/only-in-a")
    machine.lab("down", "--lab", "a")
    assert machine.forwarding() == "1", "the other lab still needs it"
    assert (
        machine.run(
            CLONE / "lab/lab", "ssh", "--lab", "b", "one", "test", "-e", "/etc/only-in-a"
        ).returncode
        == 1
    )
    machine.lab("down", "--lab", "b")
    assert machine.state() == before


def test_clones_do_not_collide(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "clone"
    shutil.copytree(CLONE / "lab", other / "lab")
    machine.clones.append(other)
    machine.lab("up", "one")
    machine.lab("up", "one", clone=other)
    mine = machine.nspawn_of(CLONE)
    machine.lab("down", "--all", clone=other)
    assert machine.nspawn("one") == mine, "only the other clone's lab is gone"
    assert machine.lab("ssh", "one", "true") == ""


def test_labs_of_a_deleted_clone_can_be_taken_away(machine: Machine, tmp_path: Path) -> None:
    before = machine.state()
    other = tmp_path / "clone"
    shutil.copytree(CLONE / "lab", other / "lab")
    machine.lab("up", "one", clone=other)
    machine.remember()
    shutil.rmtree(other)
    machine.lab("down", "--all")
    assert machine.state() == before


def test_a_host_that_died_starts_again_on_its_disk(machine: Machine) -> None:
    before = machine.state()
    machine.lab("up", "one")
    machine.remember()
    machine.lab("ssh", "one", "echo kept > /etc/kept")
    kill(machine.nspawn("one"))
    assert "dead" in machine.lab("status")
    assert "started" in machine.lab("up", "one")
    assert machine.lab("ssh", "one", "cat", "/etc/kept") == "kept\n"
    kill(machine.nspawn("one"))
    machine.lab("down")
    assert machine.state() == before


@pytest.mark.parametrize("seconds", [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.7, 1.0])
def test_down_cleans_up_after_a_starter_that_was_killed(machine: Machine, seconds: float) -> None:
    before = machine.state()
    starter = subprocess.Popen(
        machine.command(CLONE / "lab/lab", "up", "one", "two"), start_new_session=True
    )
    time.sleep(seconds)
    kill(starter.pid)
    starter.wait()
    machine.remember()
    machine.lab("down")
    assert machine.state() == before
    machine.lab("up", "one")


def test_down_spares_a_process_that_got_the_same_id(machine: Machine) -> None:
    machine.lab("up", "one")
    kill(machine.nspawn("one"))
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (record,) = machine.records()
        record.write_text(f"{bystander.pid} 1")
        machine.lab("down")
        assert bystander.poll() is None
        bystander.kill()


def test_down_works_without_any_record(machine: Machine) -> None:
    before = machine.state()
    machine.lab("up", "one")
    machine.remember()
    supervisor = machine.nspawn("one")
    for record in Path(f"/proc/{machine.holder.pid}/root/run/modelyard-lab/labs").glob("*/hosts/*"):
        record.unlink()
    machine.lab("down")
    assert machine.state() == before
    wait_until_dead(supervisor)


def test_a_foreign_firewall_is_named(machine: Machine) -> None:
    rules = (
        "table inet corporate { chain transit { type filter hook forward priority 0; policy drop;"
        " }; }"
    )
    assert machine.run("nft", rules).returncode == 0
    refused = machine.run(CLONE / "lab/lab", "up", "one")
    assert refused.returncode == 1
    assert "nft chain inet corporate transit" in refused.stderr
    assert "iifname my-" in refused.stderr
    machine.lab("down")
    assert "corporate" in machine.run("nft", "list", "ruleset").stdout


def test_a_user_without_root_is_told(machine: Machine) -> None:
    refused = machine.run(
        "setpriv", "--reuid=65534", "--clear-groups", CLONE / "lab/lab", "up", "one"
    )
    assert refused.returncode == 1
    assert "needs root" in refused.stderr


def test_missing_packages_are_named(machine: Machine, tmp_path: Path) -> None:
    shutil.copy("/usr/bin/env", tmp_path)
    python = shutil.which("python3")
    assert python
    (tmp_path / "python3").symlink_to(Path(python).resolve())
    refused = machine.run(CLONE / "lab/lab", "up", "one", environment={"PATH": str(tmp_path)})
    assert "apt-get install --no-install-recommends mmdebstrap" in refused.stderr


def test_names_and_releases_are_checked(machine: Machine) -> None:
    assert "no host name" in machine.run(CLONE / "lab/lab", "up", "../../etc").stderr
    assert "There: none" in machine.run(CLONE / "lab/lab", "ssh", "one").stderr


def test_inventory_trusts_only_the_key_it_made(machine: Machine) -> None:
    machine.lab("up", "one")
    variables = json.loads(machine.lab("inventory", "--list"))["_meta"]["hostvars"]["one"]
    assert "StrictHostKeyChecking=yes" in variables["ansible_ssh_common_args"]
    known = next(Path(machine.cache).glob("lab/run/*/known_hosts"))
    assert machine.lab("ssh", "one", "true") == ""
    other = subprocess.run(
        ["ssh-keygen", "-lf", known], capture_output=True, text=True, check=True
    ).stdout
    assert variables["ansible_host"] in other
    lines = known.read_text()
    known.write_text(lines.replace(lines.split()[2][-10:], "AAAAAAAAAA"))
    refused = machine.run(CLONE / "lab/lab", "ssh", "one", "true")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_a_package_is_downloaded_once() -> None:
    """On the real network: what one host downloaded, the next one only unpacks."""
    lab = [CLONE / "lab/lab"]
    where = ["--lab", "pytest-packages"]
    try:
        subprocess.run([*lab, "up", *where, "one"], check=True)
        subprocess.run(
            [*lab, "ssh", *where, "one", "apt-get install -qq -y hello"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        subprocess.run([*lab, "down", *where], check=True)
        subprocess.run([*lab, "up", *where, "one"], check=True)
        kept = subprocess.run(
            [*lab, "ssh", *where, "one", "apt-get install -y hello"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "Need to get 0 B" in kept.stdout
    finally:
        subprocess.run([*lab, "down", *where], check=True)
