"""What role base lays down, and the preflight on hosts that are in use."""

from __future__ import annotations

import json
from typing import Any

import pytest

PLANNED = {
    "service": "redis",
    "unit": "modelyard-redis.service",
    "address": "127.0.0.1",
    "variable": "llm_gateway.redis.port",
}


def preflight(host: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the module on the host, in check mode."""
    return dict(host.ansible("modelyard_preflight", json.dumps(arguments), check=True))


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/opt/modelyard/store", 0o755),
        ("/opt/modelyard/services", 0o755),
        ("/etc/modelyard", 0o755),
        ("/etc/modelyard/credentials", 0o700),
        ("/var/lib/modelyard", 0o755),
    ],
)
def test_directories(host: Any, path: str, mode: int) -> None:
    found = host.file(path)
    assert (found.is_directory, found.user, found.group, found.mode) == (True, "root", "root", mode)


def test_target_build_user_and_zstd(host: Any) -> None:
    assert host.service("modelyard.target").is_enabled
    assert host.run("systemctl is-active modelyard.target").succeeded
    assert host.user("modelyard-build").shell == "/usr/sbin/nologin"
    assert not host.file(host.user("modelyard-build").home).exists
    assert host.exists("zstd")


def test_target_stops_and_starts_everything(host: Any) -> None:
    host.run("systemctl stop modelyard.target")
    assert not host.service("modelyard-redis").is_running
    host.run("systemctl start modelyard.target")
    assert host.service("modelyard-redis").is_running


def test_preflight_lets_our_own_service_keep_its_port(host: Any) -> None:
    port = host.ansible.get_variables()["listen_port"]
    looked = preflight(host, {"services": [{**PLANNED, "port": port}]})
    assert (looked.get("failed", False), looked["changed"], looked["problems"]) == (
        False,
        False,
        [],
    )


def test_preflight_names_who_is_in_the_way(host: Any) -> None:
    stock = bool(host.ansible.get_variables().get("stock_redis_was_there"))
    planned = [
        {**PLANNED, "port": 6379, "unit": "modelyard-other.service"},
        {**PLANNED, "port": 22},
    ]
    looked = preflight(host, {"services": planned, "free_mib": {"/opt": 2**40}})
    assert "nothing was changed" in looked["msg"]
    disk, redis, ssh = looked["problems"]
    assert disk.startswith("/opt: ")
    assert ("redis-server.service" if stock else "modelyard-redis.service") in redis
    assert ("did not install it" if stock else "another service of this plan") in redis
    assert "ssh.service" in ssh
    assert "llm_gateway.redis.port" in ssh
