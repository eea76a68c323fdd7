"""Grafana on a real host: files, unit, sandbox, activation, and what its API says.

The program is a STAND-IN (files/stand_in.py), which answers from the files that the role puts
there, unless `make grafana-check ARCHIVE=...` ran this with a real one. No real Grafana was part of
the development.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from modelyard_playbook import SCENARIO, ansible_playbook

URL = "http://127.0.0.1:3000"
UNIT = "modelyard-grafana"
PASSWORD_FILE = "/etc/modelyard/credentials/grafana/current/ADMIN_PASSWORD"
ARCHIVE = os.environ.get("GRAFANA_ARCHIVE", "")
WHICH = f"Grafana of {ARCHIVE}" if ARCHIVE else "a STAND-IN for Grafana; no real one was seen"
FILES = {
    path.stem: json.loads(path.read_text())
    for path in (SCENARIO / "../../roles/grafana/files/dashboards").glob("*")
}


def ask(host: Any, path: str, body: Any = None, login: str = "") -> tuple[int, Any]:
    """Return status and content of an answer. `login`: NAME:PASSWORD, by default the admin's own,
    which stays there."""
    user = shlex.quote(login) if login else f'"admin:$(cat {PASSWORD_FILE})"'
    data = ""
    if body is not None:
        host.check_output(f"printf %s {shlex.quote(json.dumps(body))} > /tmp/body.json")
        data = "-H 'Content-Type: application/json' --data-binary @/tmp/body.json"
    curl = f"curl -sS -m 120 -K - -w '\\n%{{http_code}}' {data} '{URL}{path}'"
    text, _, status = host.check_output(f"""printf 'user = "%s"\\n' {user} | {curl}""").rpartition(
        "\n"
    )
    try:
        return int(status), json.loads(text)
    except ValueError:
        return int(status), text


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


def last_minutes() -> dict[str, str]:
    """The time that a query asks about."""
    now = int(time.time() * 1000)
    return {"from": str(now - 300_000), "to": str(now)}


def live(host: Any) -> str:
    return str(host.check_output("readlink /opt/modelyard/services/grafana/current"))


def pid(host: Any) -> str:
    return str(host.check_output(f"systemctl show --value -p MainPID {UNIT}"))


def test_unit_runs_as_its_user_and_comes_back_at_boot(
    host: Any, measured: Callable[[str], None]
) -> None:
    measured(f"grafana: {WHICH}")
    service = host.service(UNIT)
    assert service.is_running, host.run(f"journalctl -u {UNIT} -n 30 --no-pager").stdout
    assert service.is_enabled
    assert host.check_output(f"ps -o user:32= -p {pid(host)}") == "modelyard-grafana"


def test_sandbox_score(host: Any, measured: Callable[[str], None]) -> None:
    line = host.check_output(f"systemd-analyze security --no-pager {UNIT} | tail -1")
    score = float(line.split(":")[1].split()[0])
    measured(f"sandbox score of grafana: {score}")
    assert score <= 2.0


def test_listens_on_loopback_alone(host: Any) -> None:
    sockets = [
        line.split()
        for line in host.check_output("ss -Hltunp").splitlines()
        if f"pid={pid(host)}," in line
    ]
    assert [(socket[0], socket[4]) for socket in sockets] == [("tcp", "127.0.0.1:3000")]


def test_health(host: Any) -> None:
    status, content = ask(host, "/api/health")
    assert (status, content["database"]) == (200, "ok")


def test_nobody_gets_in_without_the_password(host: Any) -> None:
    for login in ("admin:admin", ":", "nobody:x"):
        assert ask(host, "/api/search", login=login)[0] == 401, login
    assert (
        host.check_output(f"curl -sS -m 30 -o /dev/null -w '%{{http_code}}' {URL}/api/search")
        == "401"
    )
    assert ask(host, "/login", {"user": "admin", "password": "admin"}, login=":")[0] == 401
    assert ask(host, "/api/user/signup", {"email": "a@example.org"}, login=":")[0] != 200


def test_the_generated_password_opens_it(host: Any) -> None:
    status, content = ask(host, "/api/user")
    assert (status, content["login"]) == (200, "admin")


def test_settings_that_keep_it_closed(host: Any) -> None:
    settings = ask(host, "/api/admin/settings")[1]
    assert settings["auth.anonymous"]["enabled"] == "false"
    assert settings["users"]["allow_sign_up"] == "false"
    assert settings["analytics"]["reporting_enabled"] == "false"


def test_datasource(host: Any) -> None:
    status, content = ask(host, "/api/datasources/uid/modelyard-prometheus")
    assert (status, content["type"], content["url"]) == (200, "prometheus", "http://127.0.0.1:9090")
    assert content["jsonData"]["timeInterval"] == "15s"


def test_every_dashboard_is_there(host: Any) -> None:
    found = {one["uid"]: one for one in ask(host, "/api/search?type=dash-db&limit=1000")[1]}
    assert {uid: one["title"] for uid, one in found.items()} == {
        one["uid"]: one["title"] for one in FILES.values()
    }
    assert {one["folderTitle"] for one in found.values()} == {"Modelyard"}


@pytest.mark.parametrize("name", FILES)
def test_every_query_of_a_dashboard_is_answered(host: Any, name: str) -> None:
    """By a real Prometheus that scrapes only itself, so most answers are empty; none may be an
    error."""
    status, content = ask(host, f"/api/dashboards/uid/{FILES[name]['uid']}")
    assert (status, content["meta"]["provisioned"]) == (200, True)
    panels = [panel for panel in content["dashboard"]["panels"] if panel["type"] != "row"]
    assert len(panels) == len([panel for panel in FILES[name]["panels"] if panel["type"] != "row"])
    targets = [target for panel in panels for target in panel["targets"]]
    more = {"intervalMs": 15000, "maxDataPoints": 300, "range": True, "instant": False}
    queries = [{**target, **more, "refId": f"Q{place}"} for place, target in enumerate(targets)]
    status, content = ask(host, "/api/ds/query", {"queries": queries, **last_minutes()})
    errors = {
        name: one.get("error") for name, one in content["results"].items() if one.get("error")
    }
    assert (status, errors) == (200, {})
    assert content["results"].keys() == {query["refId"] for query in queries}


def test_the_control_a_query_that_is_wrong_is_refused(host: Any) -> None:
    wrong = {
        "refId": "A",
        "datasource": {"uid": "modelyard-prometheus"},
        "expr": "sum(",
        "range": True,
    }
    status, content = ask(host, "/api/ds/query", {"queries": [wrong], **last_minutes()})
    assert status != 200
    assert content["results"]["A"]["error"]


def test_what_is_not_the_pinned_archive_is_refused(host: Any) -> None:
    before = (live(host), pid(host))
    source = {"path": "{{ real or stand_in }}", "sha256": "0" * 64}
    done = converge(source=source)
    assert done.returncode != 0
    assert "sha256" in done.stdout.lower() or "checksum" in done.stdout.lower(), done.stdout
    assert (live(host), pid(host)) == before


def test_what_is_not_the_version_that_was_said_is_refused(host: Any) -> None:
    before = (live(host), pid(host))
    done = converge(version="98.7.6")
    assert done.returncode != 0
    assert "does not hold Grafana 98.7.6" in done.stdout, done.stdout
    assert (live(host), pid(host)) == before


def test_a_release_that_cannot_start_is_taken_back(host: Any) -> None:
    before = live(host)
    # Prometheus listens there.
    done = converge(listen_port=9090)
    assert done.returncode != 0
    assert live(host) == before
    assert host.service(UNIT).is_running
    assert ask(host, "/api/health")[0] == 200
    assert converge().returncode == 0


def test_password_is_nowhere_but_in_its_credential(host: Any) -> None:
    # The search runs on the host, and takes the password from its file, so that it does not find
    # itself. The last place is the control.
    script = f"""
        for place in "systemctl cat {UNIT}" "systemctl show {UNIT}" "cat /proc/[0-9]*/cmdline" \\
            "cat /proc/{pid(host)}/environ" "journalctl --no-pager -o cat" \\
            "grep -r . /opt/modelyard/services" "grep -r . /var/lib/modelyard/activations" "cat {PASSWORD_FILE}"; do
            sh -c "$place" 2>/dev/null | grep -qaF -f {PASSWORD_FILE} && echo "$place"
        done
    """
    assert host.run(script).stdout == f"cat {PASSWORD_FILE}\n"


def test_its_files_belong_to_it_alone(host: Any) -> None:
    assert host.file("/var/lib/modelyard/grafana").mode == 0o700
    assert host.file(PASSWORD_FILE).mode == 0o600
    assert host.file(PASSWORD_FILE).user == "root"
