"""The gateway in its two slots, behind the real door; the engine is a stand-in
(files/stand_in.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import Traffic, chat

KEY = "sk-planted-master-key"
SERVICE = "/opt/modelyard/services/litellm"


def converge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Apply the roles again, with other values."""
    return ansible_playbook("converge.yml", *arguments)


def changed(output: str) -> int:
    return int(output.partition("PLAY RECAP")[2].partition("changed=")[2].split()[0])


def live(host: Any) -> tuple[str, str, str]:
    """Return the active slot, the release it really runs and when it started."""
    for slot in ("blue", "green"):
        shown = host.check_output(
            f"systemctl show modelyard-litellm@{slot}"
            " --property=ActiveState,MainPID,ActiveEnterTimestampMonotonic"
        )
        state = dict(line.split("=", 1) for line in shown.splitlines())
        if state["ActiveState"] == "active":
            environment = host.check_output(f"tr '\\0' '\\n' < /proc/{state['MainPID']}/environ")
            release = next(
                line for line in environment.splitlines() if line.startswith("MODELYARD_RELEASE=")
            )
            return slot, release.rsplit("/", 1)[1], state["ActiveEnterTimestampMonotonic"]
    raise AssertionError("no slot is active")


@pytest.fixture
def door(host: Any) -> str:
    """Address of the front door, as this machine reaches it."""
    address = host.ansible.get_variables()["ansible_host"]
    return f"http://{address}:4000"


def test_one_slot_runs_as_its_user_on_loopback(host: Any) -> None:
    slot, release, _ = live(host)
    assert host.file(f"{SERVICE}/current").linked_to.endswith(f"/releases/{release}")
    assert host.service(f"modelyard-litellm@{slot}").is_enabled
    other = "green" if slot == "blue" else "blue"
    assert not host.file(f"/etc/systemd/system/modelyard-litellm@{other}.service").exists
    user = host.check_output(f"systemctl show --value --property=User modelyard-litellm@{slot}")
    assert user == "modelyard-litellm"
    port = {"blue": 4001, "green": 4002}[slot]
    listening = host.check_output(f"ss -Hltn sport = :{port}").split()
    assert listening[3] == f"127.0.0.1:{port}"


def test_sandbox(host: Any) -> None:
    slot, _, _ = live(host)
    verdict = host.check_output(
        f"systemd-analyze security --no-pager modelyard-litellm@{slot}"
    ).splitlines()[-1]
    assert float(verdict.split("service: ")[1].split()[0]) <= 2.0, verdict


def test_chat_needs_the_key(host: Any, door: str) -> None:
    assert json.loads(chat(door, KEY, "stand-in"))["choices"][0]["message"]["content"] == "hello"
    code = host.check_output(f"curl -so /dev/null -w '%{{http_code}}' {door}/v1/models")
    assert code == "401"


def test_the_key_is_nowhere_but_in_its_credential(host: Any) -> None:
    found = host.run(
        f"grep -rIl -e {KEY} /etc /opt/modelyard/services /var/lib/modelyard /var/log /run/systemd"
        " 2>/dev/null"
    )
    assert found.stdout.split(), "the search itself must find the credential"
    assert all(
        path.startswith("/etc/modelyard/credentials/litellm/") for path in found.stdout.split()
    ), found.stdout
    assert KEY not in host.check_output("ps axww -o args")
    assert KEY not in host.check_output("journalctl --no-pager")
    assert KEY not in host.check_output("systemctl show 'modelyard-*' --all")
    for path in host.check_output("find /etc/modelyard/credentials -type f").split():
        assert (host.file(path).user, host.file(path).mode) == ("root", 0o600)


@pytest.mark.full
def test_a_change_costs_no_request(host: Any, door: str, measured: Callable[[str], None]) -> None:
    before = live(host)
    with Traffic(door, KEY, "stand-in") as traffic:
        applied = converge("-e", "cooldown_s=31")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    after = live(host)
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert traffic.failures == []
    assert traffic.answered > 30, traffic.answered
    assert traffic.streams >= 3, traffic.streams
    measured(
        f"{traffic.answered} requests and {traffic.streams} streams across the switch, none failed"
    )


def workers(host: Any) -> list[str]:
    """Processes that answer requests in the live slot."""
    slot, _, _ = live(host)
    main = host.check_output(f"systemctl show --value --property=MainPID modelyard-litellm@{slot}")
    return str(host.check_output(f"pgrep -P {main} || true")).split()


def test_a_worker_that_dies_leaves_another(
    host: Any, door: str, measured: Callable[[str], None]
) -> None:
    """Of two, one is killed under traffic: what it was answering is lost and nothing else, and it
    is replaced."""
    before = live(host)
    # The kernel's own choice of a victim, for memory, is no reason either to stop the others.
    assert (
        host.check_output(f"systemctl show --property=OOMPolicy modelyard-litellm@{before[0]}")
        == "OOMPolicy=continue"
    )
    first, second = workers(host)
    with Traffic(door, KEY, "stand-in") as traffic:
        host.check_output(f"kill -9 {first}")
        started = time.monotonic()
        while len(now := workers(host)) < 2 or first in now:
            assert time.monotonic() - started < 15, now
            time.sleep(0.5)
    assert second in now
    assert live(host) == before
    assert len(traffic.failures) <= 3, traffic.failures
    assert traffic.answered > 5, traffic.answered
    measured(
        f"a killed worker cost {len(traffic.failures)} of {traffic.answered} requests and was"
        " replaced"
    )


def test_a_worker_that_is_slow_is_not_killed(host: Any) -> None:
    """On a busy host one that is starting answers its parent late; with a patience of 5 s it is
    started for ever."""
    before = workers(host)
    host.check_output(f"kill -STOP {before[0]}; sleep 12; kill -CONT {before[0]}; sleep 1")
    assert workers(host) == before


def test_a_bad_candidate_never_serves(host: Any, door: str) -> None:
    before = live(host)
    with Traffic(door, KEY, "stand-in") as traffic:
        applied = converge(
            "-e",
            "cooldown_s=32",
            "-e",
            '{"expected_names": ["stand-in", "absent"]}',
        )
    assert applied.returncode != 0
    # At once: the two minutes that a candidate has to come up are not waited for.
    assert "it is running, but not as planned" in applied.stdout
    assert "missing: absent" in applied.stdout
    assert f"Slot {before[0]} never stopped serving" in applied.stdout
    assert live(host) == before
    assert traffic.failures == []


@pytest.mark.full
def test_a_run_that_dies_while_it_switches_is_finished(host: Any, door: str) -> None:
    """The controller is killed after staging; the switch goes on without it, and the next run
    agrees."""
    before = live(host)
    run = subprocess.Popen(
        ["ansible-playbook", "converge.yml", "-e", "cooldown_s=34"],
        cwd=SCENARIO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    candidate = "green" if before[0] == "blue" else "blue"
    deadline = time.monotonic() + 60
    while host.run(f"systemctl is-active modelyard-litellm@{candidate}").stdout.strip() != "active":
        assert time.monotonic() < deadline, "the candidate never started"
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    while live(host)[0] == before[0] or len(active_slots(host)) != 1:
        assert time.monotonic() < deadline, "the switch was not finished"
        time.sleep(0.2)
    assert json.loads(chat(door, KEY, "stand-in"))["choices"]
    again = converge("-e", "cooldown_s=34")
    assert (again.returncode, changed(again.stdout)) == (0, 0), again.stdout


def active_slots(host: Any) -> list[str]:
    return [
        slot
        for slot in ("blue", "green")
        if host.run(f"systemctl is-active --quiet modelyard-litellm@{slot}").rc == 0
    ]


def test_a_run_that_died_after_staging_is_finished_by_the_next(host: Any) -> None:
    """Staged and never activated: the next run says `changed` although it writes nothing new.

    That an engine is down meanwhile does not hold it up.
    """
    staged = converge("-e", "cooldown_s=35", "-e", '{"wrong": {"timeouts": {"ready_s": 0}}}')
    assert staged.returncode != 0
    before = live(host)
    host.check_output("systemctl stop stand-in")
    try:
        again = converge("-e", "cooldown_s=35")
    finally:
        host.check_output("systemctl start stand-in")
    assert again.returncode == 0, again.stdout
    assert changed(again.stdout) >= 2
    assert live(host)[1] != before[1]
    record = host.check_output("cat /var/lib/modelyard/activations/litellm.json")
    assert "an engine does not answer" in record


@pytest.mark.full
def test_a_file_changed_by_hand_is_put_right(host: Any) -> None:
    before = live(host)
    path = f"{SERVICE}/releases/{before[1]}/config/gateway.yaml"
    wanted = host.file(path).content_string
    host.check_output(f"sed -i 's/35/99/' {path}")
    assert host.file(path).content_string != wanted
    applied = converge("-e", "cooldown_s=35")
    assert applied.returncode == 0, applied.stdout
    assert host.file(path).content_string == wanted
    assert live(host)[2] != before[2], "what runs may have read the changed file"


@pytest.mark.full
def test_a_new_secret_is_a_new_release(host: Any, door: str) -> None:
    before = live(host)
    secret = '{"llm_secrets": {"LITELLM_MASTER_KEY": "sk-another-planted-key"}}'
    applied = converge("-e", "cooldown_s=35", "-e", secret)
    assert applied.returncode == 0, applied.stdout
    assert live(host)[1] != before[1]
    assert json.loads(chat(door, "sk-another-planted-key", "stand-in"))["choices"]
    assert "sk-another-planted-key" not in applied.stdout
