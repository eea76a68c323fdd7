"""Taken off: what would go, then all but the data, then that. It runs last, because nothing is left
after it."""

from __future__ import annotations

from typing import Any

import testinfra
from modelyard_playbook import ansible_playbook


def test_removed_without_a_trace() -> None:
    one: Any = testinfra.get_host("ansible://one")
    asked = ansible_playbook("../../playbooks/remove.yml")
    assert asked.returncode != 0
    assert "Nothing was touched" in asked.stdout
    assert one.run("systemctl is-active modelyard-redis").stdout.strip() == "active"
    one.check_output("mkdir -p /var/cache/modelyard/ccache")  # a build on this host made it
    done = ansible_playbook("../../playbooks/remove.yml", "-e", "confirm=one")
    assert done.returncode == 0, done.stdout
    assert one.run("ls /etc/systemd/system | grep modelyard").stdout == ""
    assert not one.file("/opt/modelyard").exists
    assert not one.file("/etc/modelyard").exists
    assert not one.file("/var/cache/modelyard").exists
    assert not one.package("redis-server").is_installed
    assert not one.file("/etc/systemd/system/redis-server.service").exists
    assert one.file("/var/lib/modelyard").is_directory
    gone = ansible_playbook("../../playbooks/remove.yml", "-e", "confirm=one", "-e", "data=true")
    assert gone.returncode == 0, gone.stdout
    assert not one.file("/var/lib/modelyard").exists
    assert one.run("getent passwd | grep modelyard").stdout == ""
    assert one.run("ss -Hltn | grep -E ':(4000|4001|4002|6379|8080|8081|8085) '").stdout == ""
