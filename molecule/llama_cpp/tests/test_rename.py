"""A model gets another name on its port, or two swap theirs: what served goes on serving when what
comes next fails."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from modelyard_playbook import ansible_playbook

ONE, UNO, TWO = "modelyard-llama-cpp@one", "modelyard-llama-cpp@uno", "modelyard-llama-cpp@two"


def converge(
    instances: list[dict[str, Any]] | None = None, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook, with other instances than those of its inventory."""
    if instances is not None:
        variables["wanted_instances"] = instances
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


def output(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def replaced(instance: dict[str, Any], *changes: tuple[str, str]) -> dict[str, Any]:
    """Return an instance with words replaced wherever they stand."""
    text = json.dumps(instance)
    for old, new in changes:
        text = text.replace(old, new)
    return dict(json.loads(text))


def state(host: Any, unit: str) -> str:
    return str(host.run(f"systemctl is-active {unit}").stdout).strip()


def started(host: Any, unit: str) -> str:
    return str(host.check_output(f"systemctl show -p MainPID,ActiveEnterTimestampMonotonic {unit}"))


def serves(host: Any, name: str, place: str) -> bool:
    """Say whether an instance answers at an address and port, to its own key."""
    key = f"$(cat /etc/modelyard/credentials/llama-cpp@{name}/current/API_KEY)"
    body = json.dumps({"messages": [{"role": "user", "content": "say something"}], "max_tokens": 1})
    header = f'-H "Authorization: Bearer {key}"'
    return bool(
        host.run(f"curl -gsf -m 60 {header} -d '{body}' http://{place}/v1/chat/completions").rc == 0
    )


def place(name: str, address: str, in_url: str, port: int) -> tuple[str, ...]:
    """What says in an instance where it listens: to its checks, to preflight and on its command
    line."""
    return f"{in_url}:{port}", f'"listen": ["{address}"]', f'"port": {port}', f"{name}_place"


@pytest.fixture(scope="module")
def instances(host: Any) -> dict[str, dict[str, Any]]:
    """The scenario's instances by name, and `uno`: the first one, renamed on its port."""
    found = {instance["model"]: instance for instance in host.ansible.get_variables()["instances"]}
    uno = replaced(
        found["one"], ("llama-cpp@one", "llama-cpp@uno"), ('"model": "one"', '"model": "uno"')
    )
    return {**found, "uno": uno}


def test_a_rename_that_fails_leaves_the_old_one_serving(
    host: Any, instances: dict[str, dict[str, Any]]
) -> None:
    """The new one offers another name than the plan says, so its checks never pass, however quickly
    it starts."""
    two = started(host, TWO)
    bad = replaced(instances["uno"], ('"names": ["vendor/one"]', '"names": ["vendor/uno"]'))
    done = converge([bad, instances["two"]], ready_timeout_s=30)
    assert done.returncode != 0
    assert "llama-cpp@one was stopped to make room and serves again; its checks pass." in output(
        done
    )
    assert (state(host, ONE), state(host, UNO)) == ("active", "inactive")
    assert serves(host, "one", "127.0.0.1:8080")
    assert started(host, TWO) == two


def test_one_that_fails_does_not_hold_up_another(
    host: Any, instances: dict[str, dict[str, Any]]
) -> None:
    """They are activated in one task, so that nothing of a failed change is left for the end of the
    play."""
    one, two = started(host, ONE), started(host, TWO)
    bad = replaced(instances["one"], ("one_place", "two_place"))
    good = replaced(instances["two"], ("two_model", "two_model + ['--threads', '1']"))
    done = converge([bad, good], ready_timeout_s=20)
    assert done.returncode != 0
    assert "llama-cpp@one" in output(done)
    assert serves(host, "one", "127.0.0.1:8080")
    assert serves(host, "two", "[::1]:8081")
    assert started(host, ONE) != one
    assert started(host, TWO) != two
    restored = converge()
    assert restored.returncode == 0, restored.stdout + restored.stderr


def test_a_rename_keeps_the_port(host: Any, instances: dict[str, dict[str, Any]]) -> None:
    two = started(host, TWO)
    done = converge([instances["uno"], instances["two"]])
    assert done.returncode == 0, done.stdout + done.stderr
    assert serves(host, "uno", "127.0.0.1:8080")
    assert started(host, TWO) == two
    assert not host.file(f"/etc/systemd/system/{ONE}.service").exists
    assert not host.file("/opt/modelyard/services/llama-cpp@one/current").exists


@pytest.mark.full
def test_two_swap_their_places(host: Any, instances: dict[str, dict[str, Any]]) -> None:
    """Either can only start where the other still listens."""
    first, second = place("one", "127.0.0.1", "127.0.0.1", 8080), place("two", "::1", "[::1]", 8081)
    uno = replaced(instances["uno"], *zip(first, second, strict=True))
    two = replaced(instances["two"], *zip(second, first, strict=True))
    done = converge([uno, two])
    assert done.returncode == 0, done.stdout + done.stderr
    assert serves(host, "uno", "[::1]:8081")
    assert serves(host, "two", "127.0.0.1:8080")


def test_the_last_instance_can_go_too(host: Any) -> None:
    """Comes last: it is not brought back."""
    done = converge([])
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.run("systemctl is-active 'modelyard-llama-cpp@*'").stdout == ""
