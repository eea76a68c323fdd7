"""Prometheus on a real host: whom it asks (a stand-in), what it keeps, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from modelyard_playbook import SCENARIO, ansible_playbook

URL = "http://127.0.0.1:9090"
TOKEN_FILE = "/etc/modelyard/credentials/prometheus/current/STAND_IN"
ROOT = SCENARIO.parents[1]
RULES = sorted((ROOT / "roles/prometheus/files/rules").glob("*.yml"))
RULE_TESTS = sorted((ROOT / "tests/monitoring/rules").glob("*_test.yml"))
ONE = {"host": "engine-1", "instance": "engine-1", "service": "llama-cpp@one"}
TWO = {"host": "engine-1", "instance": "engine-1", "service": "llama-cpp@two"}


def ask(host: Any, path: str) -> Any:
    """Return the data of an answer of the API, waiting for a server that is only just starting."""
    return json.loads(
        host.check_output(
            f"curl -sSf -m 30 --retry 60 --retry-all-errors --retry-delay 1 '{URL}{path}'"
        )
    )["data"]


def query(host: Any, expression: str) -> list[dict[str, Any]]:
    return list(ask(host, f"/api/v1/query?query={quote(expression)}")["result"])


def eventually(seen: Callable[[], Any], wanted: Any) -> None:
    """Wait until what is seen is what is wanted: a scrape can be late, or fail once, on a busy
    machine."""
    deadline = time.monotonic() + 180
    while (found := seen()) != wanted and time.monotonic() < deadline:
        time.sleep(1)
    assert found == wanted


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


@pytest.fixture
def restored() -> Iterator[None]:
    """Afterwards the host is as the scenario describes it."""
    yield
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr


def targets(host: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every target by job and service."""
    found = ask(host, "/api/v1/targets")["activeTargets"]
    return {(target["labels"]["job"], target["labels"]["service"]): target for target in found}


def test_unit_runs_and_comes_back_at_boot(host: Any) -> None:
    service = host.service("modelyard-prometheus")
    assert service.is_running, host.run(
        "journalctl -u modelyard-prometheus -n 30 --no-pager"
    ).stdout
    assert service.is_enabled
    assert host.file(
        "/etc/systemd/system/modelyard.target.wants/modelyard-prometheus.service"
    ).exists


def test_sandbox_score(host: Any, measured: Any) -> None:
    line = host.run("systemd-analyze security --no-pager modelyard-prometheus | tail -1").stdout
    measured(line.strip())
    assert float(line.split(":")[1].split()[0]) <= 1.6, line


def test_packages_own_service_is_masked(host: Any) -> None:
    assert not host.service("prometheus").is_running
    assert host.service("prometheus").is_masked


def test_listens_on_loopback_alone(host: Any) -> None:
    pid = host.check_output("systemctl show --value -p MainPID modelyard-prometheus")
    sockets = [
        line.split()
        for line in host.check_output("ss -Hltunp").splitlines()
        if f"pid={pid}," in line
    ]
    assert [(socket[0], socket[4]) for socket in sockets] == [("tcp", "127.0.0.1:9090")]


def test_targets_are_asked_under_the_names_of_their_hosts(host: Any) -> None:
    eventually(
        lambda: {key: target["health"] for key, target in targets(host).items()},
        {
            ("prometheus", "prometheus"): "up",
            ("with-token", "llama-cpp@one"): "up",
            ("with-token", "llama-cpp@two"): "up",
            ("without-token", "llama-cpp@one"): "down",
            ("probe", "ollama@local"): "up",
        },
    )
    found = targets(host)
    assert found["with-token", "llama-cpp@one"]["labels"] == {"job": "with-token", **ONE}
    assert found["with-token", "llama-cpp@two"]["labels"] == {"job": "with-token", **TWO}
    assert found["with-token", "llama-cpp@one"]["scrapeTimeout"] == "5s"


def test_the_token_is_what_opens_the_stand_in(host: Any) -> None:
    reason = "server returned HTTP status 401 Unauthorized"
    eventually(lambda: targets(host)["without-token", "llama-cpp@one"]["lastError"], reason)


def test_two_services_of_one_host_are_two_series(host: Any) -> None:
    eventually(
        lambda: sorted((entry["metric"] for entry in query(host, "stand_in_answers")), key=str),
        [{"__name__": "stand_in_answers", "job": "with-token", **labels} for labels in (ONE, TWO)],
    )


def test_a_target_can_speak_of_another_service(host: Any) -> None:
    """Our own exporter does: of every service of its host."""
    eventually(
        lambda: {entry["metric"]["service"] for entry in query(host, "stand_in_says")}, {"redis"}
    )


def test_a_probe_asks_the_prober_about_the_url(host: Any) -> None:
    url = "http://engine-2:11434/"
    labels = {
        "job": "probe",
        "host": "engine-2",
        "instance": "engine-2",
        "service": "ollama@local",
        "target": url,
    }
    eventually(
        lambda: [entry["metric"] for entry in query(host, "stand_in_probe")],
        [{"__name__": "stand_in_probe", **labels, "asked": url, "by": "answers"}],
    )


def test_what_is_kept_is_bounded(host: Any) -> None:
    flags = ask(host, "/api/v1/status/flags")
    wanted = {
        "storage.tsdb.path": "/var/lib/modelyard/prometheus",
        "storage.tsdb.retention.time": "1w",
        "storage.tsdb.retention.size": "2GiB",
    }
    assert {name: flags[name] for name in wanted} == wanted
    # The one figure that Prometheus tells in bytes, so that GB and GiB cannot be mistaken for each
    # other.
    limit = "prometheus_tsdb_retention_limit_bytes"
    eventually(lambda: [entry["value"][1] for entry in query(host, limit)], [str(2 * 2**30)])


def test_nobody_rules_it_over_http(host: Any) -> None:
    def post(path: str) -> str:
        return str(host.check_output(f"curl -sS -m 30 -X POST {URL}{path}"))

    assert post("/-/reload") == "Lifecycle API is not enabled."
    assert post("/-/quit") == "Lifecycle API is not enabled."
    assert "admin APIs disabled" in post("/api/v1/admin/tsdb/snapshot")
    assert "remote write receiver needs to be enabled" in post("/api/v1/write")
    assert host.service("modelyard-prometheus").is_running


def test_no_page_of_a_browser_may_read_it(host: Any) -> None:
    headers = host.check_output(
        f"curl -sSi -m 30 -H 'Origin: http://somewhere.example' '{URL}/api/v1/query?query=up'"
    )
    assert " 200 OK" in headers
    assert "access-control-allow-origin" not in headers.lower()


def test_rules_of_the_role_are_loaded_and_evaluated(host: Any) -> None:
    assert RULES
    written = {
        path.name: yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for path in RULES
    }

    def loaded() -> dict[tuple[str, str], set[str]]:
        groups = ask(host, "/api/v1/rules")["groups"]
        return {
            (Path(group["file"]).name, group["name"]): {rule["health"] for rule in group["rules"]}
            for group in groups
        }

    eventually(
        loaded,
        {(file, group["name"]): {"ok"} for file, groups in written.items() for group in groups},
    )


def test_live_rules_pass_their_own_tests(host: Any) -> None:
    """With the program of the host, which is of the version that evaluates them."""
    assert RULE_TESTS
    # Arranged as in the tree, because a test names its rules by a relative path.
    live = "/opt/modelyard/services/prometheus/current/config/rules"
    host.check_output(
        "rm -rf /tmp/tree && mkdir -p /tmp/tree/tests/monitoring /tmp/tree/roles/prometheus/files"
    )
    host.check_output(f"ln -s {live} /tmp/tree/roles/prometheus/files/rules")
    arguments = {
        "src": str(RULE_TESTS[0].parent),
        "dest": "/tmp/tree/tests/monitoring/",
        "mode": "0644",
    }
    copied = host.ansible("ansible.builtin.copy", json.dumps(arguments), check=False)
    assert copied["changed"], copied
    names = " ".join(path.name for path in RULE_TESTS)
    done = host.run(f"cd /tmp/tree/tests/monitoring/rules && promtool test rules {names}")
    assert done.rc == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(RULE_TESTS), done.stdout


@pytest.mark.parametrize("verb", ["restart", "kill --signal=KILL"])
def test_samples_survive(host: Any, verb: str) -> None:
    """A restart, and a crash: every sample that was there is there again."""

    def samples() -> set[tuple[float, str]]:
        found = query(host, "up{job='prometheus'}[1h]")
        return {(float(at), str(value)) for entry in found for at, value in entry["values"]}

    def pid() -> str:
        return str(host.check_output("systemctl show --value -p MainPID modelyard-prometheus"))

    eventually(lambda: bool(samples()), True)
    before, former = samples(), pid()
    host.run("systemctl reset-failed modelyard-prometheus")
    host.check_output(f"systemctl {verb} modelyard-prometheus")
    eventually(lambda: pid() in ("0", former), False)
    assert before <= samples()


REFUSED = {
    "scrape": {
        "scrape": [{"job": "url", "targets": [{"address": "http://127.0.0.1:9090", "labels": {}}]}]
    },
    "rules": {"__prometheus_rules": [str(SCENARIO / "files/wrong_rules.yml")]},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_before_the_switch(host: Any, what: str) -> None:
    """Its program says no while the old release serves, and the old release goes on."""

    def state() -> str:
        return str(
            host.check_output(
                "find /opt/modelyard /etc/modelyard /etc/systemd/system -type f -exec sha256sum {}"
                " + | sort;find /opt/modelyard /etc/modelyard -type l -printf '%p %l\n' |"
                " sort;systemctl show -p MainPID,ActiveState,ActiveEnterTimestampMonotonic"
                " modelyard-prometheus"
            )
        )

    before = state()
    done = converge(**REFUSED[what])
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, output
    assert "the new release was rejected by /usr/bin/promtool" in output
    assert "nothing was changed" in output
    assert state() == before
    assert ask(host, "/api/v1/query?query=up")["result"]


def test_a_changed_list_of_targets_takes_effect(host: Any, restored: None) -> None:
    jobs = host.ansible.get_variables()["scrape"]
    changed = converge(scrape=[job for job in jobs if job["job"] == "prometheus"])
    assert changed.returncode == 0, changed.stdout + changed.stderr
    eventually(lambda: set(targets(host)), {("prometheus", "prometheus")})


def test_token_is_nowhere_but_in_its_credential(host: Any) -> None:
    # The search runs on the host, so that the token does not travel into a log of this test either.
    script = f"""
        secret=$(cat {TOKEN_FILE})
        systemctl reset-failed modelyard-prometheus
        ( systemctl restart modelyard-prometheus; touch /tmp/restarted ) &
        while [ ! -e /tmp/restarted ]; do cat /proc/[0-9]*/cmdline; done > /tmp/cmdlines 2>/dev/null
        pid=$(systemctl show --value -p MainPID modelyard-prometheus)
        [ -s /tmp/cmdlines ] || echo "no command line was seen"
        curl -sSf -o /dev/null --retry 60 --retry-all-errors --retry-delay 1 {URL}/-/ready
        for place in "systemctl cat modelyard-prometheus" "systemctl show modelyard-prometheus" "cat /tmp/cmdlines" \\
            "journalctl --no-pager -o cat" "grep -ra . /opt/modelyard" "grep -ra . /var/lib/modelyard" \\
            "cat /proc/$pid/environ" "curl -s {URL}/api/v1/status/config" "curl -s {URL}/api/v1/targets"; do
            $place 2>/dev/null | grep -qaF -- "$secret" && echo "$place"
        done
        rm /tmp/restarted /tmp/cmdlines
    """
    assert host.run(script).stdout == ""


def test_files_are_readable_by_those_who_need_them(host: Any) -> None:
    token = host.file(TOKEN_FILE)
    assert (token.user, token.group, token.mode) == ("root", "root", 0o600)
    config = host.file("/opt/modelyard/services/prometheus/current/config/prometheus.yml")
    assert (config.user, config.group, config.mode) == ("root", "modelyard-prometheus", 0o640)
    assert host.file("/var/lib/modelyard/prometheus").mode == 0o700
