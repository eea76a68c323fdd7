"""Alertmanager on real hosts: whom it tells, with what secret, and that it tells nobody unless it
is asked to.

The chat and the mail server that it tells are stand-ins.
"""

from __future__ import annotations

import email
import email.policy
import json
import time
import uuid
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
import yaml
from modelyard_playbook import ansible_playbook

CREDENTIALS = "/etc/modelyard/credentials/alertmanager/current"
Amtool = Callable[[str], str]


@pytest.fixture(scope="module")
def variables(host: Any) -> dict[str, Any]:
    return dict(host.ansible.get_variables())


@pytest.fixture(scope="module")
def told(variables: dict[str, Any]) -> bool:
    """Whether this is the host that tells somebody."""
    return "webhook" in variables["given"]


@pytest.fixture(scope="module")
def port(variables: dict[str, Any]) -> int:
    return int(variables["given"].get("port", 9093))


@pytest.fixture(scope="module")
def amtool(host: Any, port: int) -> Amtool:
    """Return a function that runs amtool on the host, waiting for a server that is only just
    starting."""

    def run(arguments: str) -> str:
        url = f"http://127.0.0.1:{port}"
        host.check_output(
            "curl -sSf -m 30 -o /dev/null --retry 60 --retry-all-errors --retry-delay 1"
            f" {url}/-/ready"
        )
        return str(host.check_output(f"amtool --alertmanager.url={url} {arguments}"))

    return run


def received(host: Any, kind: str, word: str) -> str:
    """Wait for the one message with this word that a stand-in accepted, and return it."""
    deadline = time.monotonic() + 300
    while not (files := str(host.run(f"grep -l {word} /var/lib/stand-in/{kind}-*").stdout).split()):
        assert time.monotonic() < deadline, (
            f"no {kind} with {word}: the journal of modelyard-alertmanager says why"
        )
        time.sleep(1)
    (file,) = files
    return str(host.file(file).content_string)


def test_unit_runs_and_comes_back_at_boot(host: Any) -> None:
    service = host.service("modelyard-alertmanager")
    assert service.is_running, host.run(
        "journalctl -u modelyard-alertmanager -n 30 --no-pager"
    ).stdout
    assert service.is_enabled
    assert host.file(
        "/etc/systemd/system/modelyard.target.wants/modelyard-alertmanager.service"
    ).exists


def test_sandbox_score(host: Any, measured: Any) -> None:
    line = host.run("systemd-analyze security --no-pager modelyard-alertmanager | tail -1").stdout
    measured(line.strip())
    assert float(line.split(":")[1].split()[0]) <= 1.6, line


def test_packages_own_service_is_masked(host: Any) -> None:
    assert not host.service("prometheus-alertmanager").is_running
    assert host.service("prometheus-alertmanager").is_masked


def test_listens_where_it_should_and_has_no_cluster_port(host: Any, told: bool) -> None:
    pid = host.check_output("systemctl show --value -p MainPID modelyard-alertmanager")
    sockets = [
        line.split()
        for line in host.check_output("ss -Hltunp").splitlines()
        if f"pid={pid}," in line
    ]
    wanted = (
        [("tcp", "127.0.0.1:9193"), ("tcp", "[::1]:9193")] if told else [("tcp", "127.0.0.1:9093")]
    )
    assert sorted((socket[0], socket[4]) for socket in sockets) == wanted


def test_an_alert_reaches_those_who_are_to_be_told(host: Any, told: bool, amtool: Amtool) -> None:
    name = f"Broken{uuid.uuid4().hex}"
    amtool(f"alert add alertname={name} instance=engine-1 --annotation=summary='It is broken.'")
    alert = json.loads(amtool(f"alert query -o json alertname={name}"))[0]
    assert alert["status"]["state"] == "active"
    assert [receiver["name"] for receiver in alert["receivers"]] == ["people"]
    if not told:
        # It knows the alert and has no way to tell anybody.
        config = yaml.safe_load(json.loads(amtool("config show -o json"))["config"]["original"])
        assert config["receivers"] == [{"name": "people"}]
        return
    message = json.loads(received(host, "chat", name))
    assert (message["status"], message["groupLabels"]) == ("firing", {"alertname": name})
    assert [(one["labels"], one["annotations"]) for one in message["alerts"]] == [
        ({"alertname": name, "instance": "engine-1"}, {"summary": "It is broken."})
    ]
    mail = email.message_from_string(received(host, "mail", name), policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    assert (mail["To"], mail["From"]) == ("people@example.org", "modelyard@example.org")
    assert name in mail["Subject"]
    body = mail.get_body()
    assert body
    assert "It is broken." in body.get_content()


def test_silences_survive_a_restart(host: Any, amtool: Amtool) -> None:
    silence = amtool(
        "silence add alertname=Planned --author=tests --comment=maintenance --duration=1h"
    ).strip()
    host.run("systemctl reset-failed modelyard-alertmanager")
    host.check_output("systemctl restart modelyard-alertmanager")
    found = json.loads(amtool("silence query -o json"))
    assert silence in [entry["id"] for entry in found]
    amtool(f"silence expire {silence}")


def test_what_is_wrong_is_refused_before_the_switch(
    host: Any, variables: dict[str, Any], port: int
) -> None:
    """Its program says no while the old release serves, and the old release goes on."""

    def state() -> str:
        return str(
            host.check_output(
                "find /opt/modelyard /etc/modelyard /etc/systemd/system -type f -exec sha256sum {}"
                " + | sort;find /opt/modelyard /etc/modelyard -type l -printf '%p %l\n' |"
                " sort;systemctl show -p MainPID,ActiveState,ActiveEnterTimestampMonotonic"
                " modelyard-alertmanager"
            )
        )

    before = state()
    wrong = {"webhook": {"url": "no address", "token_env": None}}
    done = ansible_playbook(
        "converge.yml", "-e", json.dumps({"wrong": wrong}), "--limit", host.backend.get_hostname()
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, output
    assert "the new release was rejected by /usr/bin/amtool" in output
    assert "nothing was changed" in output
    assert state() == before
    assert host.run(f"curl -sSf -m 30 http://127.0.0.1:{port}/-/healthy").rc == 0


def test_secrets_are_nowhere_but_in_their_credentials(host: Any, told: bool, port: int) -> None:
    files = host.check_output(f"cd {CREDENTIALS}/ && ls").split()
    assert files == (
        ["EMAIL_PASSWORD", "WEBHOOK_TOKEN", "environment"] if told else ["environment"]
    )
    # The search runs on the host, so that no secret travels into a log of this test either.
    script = f"""
        systemctl reset-failed modelyard-alertmanager
        ( systemctl restart modelyard-alertmanager; touch /tmp/restarted ) &
        while [ ! -e /tmp/restarted ]; do cat /proc/[0-9]*/cmdline; done > /tmp/cmdlines 2>/dev/null
        pid=$(systemctl show --value -p MainPID modelyard-alertmanager)
        [ -s /tmp/cmdlines ] || echo "no command line was seen"
        curl -sSf -o /dev/null --retry 60 --retry-all-errors --retry-delay 1 http://127.0.0.1:{port}/-/ready
        for name in WEBHOOK_TOKEN EMAIL_PASSWORD; do
            secret=$(cat {CREDENTIALS}/$name) || continue
            for place in "systemctl cat modelyard-alertmanager" "systemctl show modelyard-alertmanager" \\
                "cat /tmp/cmdlines" "journalctl --no-pager -o cat" "grep -ra . /opt/modelyard" \\
                "grep -ra . /var/lib/modelyard" "cat /proc/$pid/environ" "grep -ra . /var/lib/stand-in" \\
                "curl -s http://127.0.0.1:{port}/api/v2/status"; do
                $place 2>/dev/null | grep -qaF -- "$secret" && echo "$name: $place"
            done
        done
        rm /tmp/restarted /tmp/cmdlines
    """
    assert host.run(script).stdout == ""


def test_files_are_readable_by_those_who_need_them(host: Any, told: bool) -> None:
    config = host.file("/opt/modelyard/services/alertmanager/current/config/alertmanager.yml")
    assert (config.user, config.group, config.mode) == ("root", "modelyard-alertmanager", 0o640)
    assert host.file("/var/lib/modelyard/alertmanager").mode == 0o700
    if told:
        password = host.file(f"{CREDENTIALS}/EMAIL_PASSWORD")
        assert (password.user, password.group, password.mode) == ("root", "root", 0o600)
