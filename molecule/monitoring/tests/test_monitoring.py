"""What watches the stack, with everything real: who is asked, what is seen, what is told when
something breaks."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_page
import testinfra
from modelyard_playbook import ansible_playbook
from modelyard_prometheus import api, evaluate
from modelyard_traffic import Traffic

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests/monitoring"))
from promql import groups, parts

KEY = "sk-planted-master-key"
PLANTED = [KEY, "planted-redis-password", "planted-monitor-password", "planted-engine-key"]
ENGINE_UNIT = "modelyard-llama-cpp@llama-cpp-native"
ENGINES = {"llama-cpp@llama-cpp-native", "llama-cpp@stand-by"}
OURS = (
    "prometheus",
    "alertmanager",
    "exporter@node",
    "exporter@host",
    "exporter@redis",
    "exporter@blackbox",
)
JOBS = {
    ("alertmanager", "watcher"),
    ("haproxy", "watcher"),
    ("host", "engine"),
    ("host", "watcher"),
    ("litellm", "watcher"),
    ("llama_cpp", "engine"),
    ("node", "engine"),
    ("node", "watcher"),
    ("prometheus", "watcher"),
    ("redis", "watcher"),
}


@pytest.fixture(scope="module")
def watcher() -> Any:
    return testinfra.get_host("ansible://watcher")


@pytest.fixture(scope="module")
def engine() -> Any:
    return testinfra.get_host("ansible://engine")


@pytest.fixture(scope="module")
def door(watcher: Any) -> str:
    """Address of the front door, as this machine reaches it."""
    return f"http://{watcher.ansible.get_variables()['ansible_host']}:4000"


@pytest.fixture(scope="module")
def ask(watcher: Any) -> Callable[[str], Any]:
    return lambda path: api(watcher, path)[0]


@pytest.fixture(scope="module")
def series(watcher: Any) -> Callable[[str], list[dict[str, Any]]]:
    return lambda expression: evaluate(watcher, [expression])[expression]


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(2)


def site(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml, as a user does."""
    return ansible_playbook("converge.yml", *arguments)


def test_everybody_is_asked_and_answers(series: Callable[[str], list[dict[str, Any]]]) -> None:
    def everybody() -> bool:
        answering = {(one["metric"]["job"], one["metric"]["instance"]) for one in series("up == 1")}
        # Two models of one host are two targets of one job, with the key of the engine.
        engines = {one["metric"]["service"] for one in series('up{job="llama_cpp"} == 1')}
        return answering == JOBS and engines == ENGINES and series("up == 0") == []

    wait_until(everybody, "not everybody answers Prometheus")


def test_all_rules_are_loaded_and_can_be_evaluated(ask: Callable[[str], Any]) -> None:
    loaded = {rule["name"]: rule for group in ask("rules")["groups"] for rule in group["rules"]}
    assert loaded.keys() == {
        rule.get("alert") or rule["record"] for group in groups() for rule in group["rules"]
    }
    wait_until(
        lambda: (
            {rule["health"] for group in ask("rules")["groups"] for rule in group["rules"]}
            == {"ok"}
        ),
        "a rule cannot be evaluated",
    )


def test_prometheus_and_what_it_sends_to_listen_on_loopback(watcher: Any, engine: Any) -> None:
    address = engine.ansible.get_variables()["ansible_host"]
    own = watcher.ansible.get_variables()["ansible_host"]
    lines = [line.split()[3] for line in watcher.check_output("ss -Hltn").splitlines()]
    monitoring = {"9090", "9093", "9100", "9117", "9115", "9121", "8405"}
    assert {line for line in lines if line.rsplit(":", 1)[1] in monitoring} == {
        f"127.0.0.1:{p}" for p in monitoring
    }
    for port in (9100, 9117, 8080):
        assert watcher.run(f"curl -s -o /dev/null -m 60 http://{address}:{port}/metrics").rc == 0
        # This machine is neither the gateway nor Prometheus.
        outside = ["curl", "-s", "-o", "/dev/null", "-m", "10", f"http://{address}:{port}/metrics"]
        assert subprocess.run(outside, check=False).returncode == 7, port
    for port in monitoring:
        outside = ["curl", "-s", "-o", "/dev/null", "-m", "10", f"http://{own}:{port}/metrics"]
        assert subprocess.run(outside, check=False).returncode == 7, port


def test_figures_of_real_traffic_are_there(
    door: str, series: Callable[[str], list[dict[str, Any]]], measured: Callable[[str], None]
) -> None:
    with Traffic(door, KEY, "llama-cpp-native", rate=2) as traffic:
        for expression in (
            (
                'sum(rate(litellm_proxy_total_requests_metric_total{requested_model="llama-cpp-native"}[1m])) > 0'
            ),
            'rate(haproxy_backend_http_responses_total{proxy="gateway",code="2xx"}[1m]) > 0',
            'rate(llamacpp:tokens_predicted_total{service="llama-cpp@llama-cpp-native"}[1m]) > 0',
            'modelyard_probe_success{service="llama-cpp@llama-cpp-native"} == 1',
            'modelyard_probe_time_to_first_token_seconds{instance="engine"} > 0',
            'modelyard_release_info{service="litellm",instance="watcher"} == 1',
            "redis_up == 1",
            'node_memory_MemTotal_bytes{instance="engine"} > 0',
        ):
            wait_until(functools.partial(series, expression), f"nothing for {expression}")
    assert traffic.failures == []
    # Labels that a client could fill with anything are not kept.
    labels = {
        name
        for one in series("litellm_proxy_total_requests_metric_total")
        for name in one["metric"]
    }
    assert labels.isdisjoint({"user_agent", "end_user", "client_ip", "user"}), labels
    measured(f"{traffic.answered} requests and {traffic.streams} streams were watched")


def firing(ask: Callable[[str], Any]) -> set[tuple[str, str]]:
    return {
        (alert["labels"]["alertname"], alert["labels"].get("service", ""))
        for alert in ask("alerts")["alerts"]
        if alert["state"] == "firing"
    }


def told(watcher: Any) -> set[str]:
    """What Alertmanager shows."""
    alerts = json.loads(watcher.check_output("curl -sS -m 20 http://127.0.0.1:9093/api/v2/alerts"))
    return {
        alert["labels"]["alertname"] for alert in alerts if alert["status"]["state"] == "active"
    }


@pytest.fixture
def mended(watcher: Any, engine: Any) -> Iterator[None]:
    """Leave with everything running, whatever the test did."""
    yield
    watcher.run("systemctl start modelyard-redis")
    engine.run(f"systemctl start {ENGINE_UNIT} modelyard-llama-cpp@stand-by")


@pytest.fixture
def short_windows(watcher: Any) -> Iterator[None]:
    """The live rules with seconds for minutes: here an alert's way is tested, and promtool tests
    its times."""
    rules = "/opt/modelyard/services/prometheus/current/config/rules"
    shorter = "s/for: [12]m$/for: 10s/; s/[[]5m[]]/[1m]/; s/offset 5m/offset 1m/"
    reload = "systemctl kill --signal=HUP --kill-whom=main modelyard-prometheus"
    watcher.check_output(
        f"cp -a {rules} /srv/rules && sed -i '{shorter}' {rules}/*.yml && {reload}"
    )
    yield
    watcher.check_output(f"cp -a /srv/rules/. {rules}/ && rm -r /srv/rules && {reload}")


@pytest.mark.usefixtures("mended", "short_windows")
def test_three_alerts_fire_and_clear(
    watcher: Any,
    engine: Any,
    door: str,
    ask: Callable[[str], Any],
    series: Callable[[str], list[dict[str, Any]]],
    measured: Callable[[str], None],
) -> None:
    """An engine is killed, and the other one steps in. Then that one and Redis stop, too: nobody is
    left to answer."""
    wanted = {
        ("RedisDown", "redis"),
        ("TargetDown", "llama-cpp@llama-cpp-native"),
        ("ChainExhausted", ""),
    }
    assert not firing(ask) & wanted

    def stepped_in() -> float:
        counted = series(
            'sum(litellm_deployment_successful_fallbacks_total{fallback_model="stand-by"})'
        )
        return sum(float(one["value"][1]) for one in counted)

    before, started = stepped_in(), time.monotonic()
    engine.check_output(f"systemctl kill --signal=KILL {ENGINE_UNIT}; systemctl stop {ENGINE_UNIT}")
    with Traffic(door, KEY, "llama-cpp-native", rate=5) as traffic:
        wait_until(lambda: stepped_in() >= before + 10, "nobody was seen to step in")
    assert traffic.answered + traffic.streams >= 10
    watcher.check_output("systemctl stop modelyard-redis")
    engine.check_output("systemctl stop modelyard-llama-cpp@stand-by")
    with Traffic(door, KEY, "llama-cpp-native", rate=2, max_s=420) as traffic:
        wait_until(lambda: firing(ask) >= wanted, f"{wanted} did not fire", 400)
    measured(
        f"three alerts fired {time.monotonic() - started:.0f} s after the first fault, with short"
        " windows"
    )
    assert traffic.answered == 0
    wait_until(lambda: {name for name, _ in wanted} <= told(watcher), "Alertmanager was not told")
    # Those of the dashboards that have a value only now; molecule/engines evaluates all others.
    for expression in (part for part in parts() if "ALERTS" in part):
        wait_until(functools.partial(series, expression), f"nothing for {expression}")
    started = time.monotonic()
    watcher.check_output("systemctl start modelyard-redis")
    engine.check_output(f"systemctl start {ENGINE_UNIT} modelyard-llama-cpp@stand-by")
    lasting = {("ChainExhausted", "")}
    wait_until(
        lambda: not firing(ask) & (wanted - lasting), f"{wanted - lasting} did not clear", 300
    )
    with Traffic(door, KEY, "llama-cpp-native", rate=2, max_s=90) as traffic:
        wait_until(lambda: not firing(ask) & lasting, f"{lasting} did not clear", 600)
    assert traffic.answered > 0
    measured(f"they cleared {time.monotonic() - started:.0f} s after it was started")


def test_the_report_shows_the_outage(tmp_path: Path, measured: Callable[[str], None]) -> None:
    """As a reader sees it: in a browser without a network."""
    page, picture = tmp_path / "report.html", os.environ.get("REPORT_SCREENSHOT")
    started = time.monotonic()
    # In a picture the outage is to be seen, not all that was before it.
    hours = 0.3 if picture else 0.7
    made = ansible_playbook(
        "../../playbooks/report.yml", "-e", f"hours={hours}", "-e", f"to={page}"
    )
    assert made.returncode == 0, made.stdout + made.stderr
    measured(
        f"the report was made in {time.monotonic() - started:.1f} s,"
        f" {page.stat().st_size / 1e6:.1f} MB"
    )
    assert page.as_uri() in made.stdout
    assert [secret for secret in PLANTED if secret in page.read_text(encoding="utf-8")] == []
    if not shutil.which("chromedriver"):
        pytest.skip("no browser: apt-get install chromium-driver fonts-dejavu-core")
    with report_page.opened(page) as browser:
        assert report_page.requests(browser) == [page.as_uri()]
        assert report_page.complaints(browser) == []
        drawn, tables = report_page.drawn(browser), report_page.tables(browser)
        if picture:
            report_page.save_picture(browser, Path(picture))
    assert drawn.keys() == {
        "availability",
        "providers",
        "fallbacks",
        "pools",
        "first-token",
        "tokens",
        "errors",
        "alerts",
    }
    assert 0 not in drawn.values(), drawn
    name, asked, answered, instead, nobody, availability = tables["availability"][0]
    measured(
        f"{name}: asked for {asked}, answered {answered} ({instead} by a fallback), nobody"
        f" {nobody}: {availability}"
    )
    assert name == "llama-cpp-native"
    figures = [int(cell.replace(",", "")) for cell in (asked, answered, nobody, instead)]
    assert figures[0] == figures[1] + figures[2]
    assert figures[2] > 0
    assert figures[3] >= 10
    assert 0 < float(availability.removesuffix(" %")) < 100
    assert [row[:3] for row in tables["fallbacks"]] == [[name, "stand-by", instead]]
    assert tables["providers"][0][0] == "llama_cpp_native"
    assert {"RedisDown", "TargetDown", "ChainExhausted"} <= {row[0] for row in tables["alerts"]}
    assert {row[1] for row in tables["silent"]} >= ENGINES
    assert {row[2] for row in tables["changes"]} >= {"prometheus", *ENGINES}


def test_secrets_are_nowhere_but_in_their_credentials(watcher: Any, engine: Any) -> None:
    places = (
        "/opt/modelyard /etc/systemd/system /var/lib/modelyard/prometheus"
        " /var/lib/modelyard/alertmanager"
    )
    for one in (watcher, engine):
        for secret in PLANTED:
            assert one.run(f"grep -rlF {secret} {places} 2>/dev/null").stdout == ""
            # The search does not find itself: its own argument is broken by the bracket.
            pattern = f"{secret[:-1]}[{secret[-1]}]"
            assert (
                one.run(
                    f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '{pattern}'"
                ).stdout.strip()
                == "0"
            )
            assert one.run(f"journalctl --no-pager | grep -c '{pattern}'").stdout.strip() == "0"


@pytest.mark.full
def test_plan_agrees_with_what_is_live() -> None:
    shown = ansible_playbook("../../playbooks/plan.yml")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "  watcher: nothing, 9 services as planned\n" in shown.stdout.replace("        ", "")
    assert "  engine: nothing, 5 services as planned\n" in shown.stdout.replace("        ", "")
    assert "monitoring grafana: llm_versions names no archive of it" in shown.stdout


def test_without_monitoring_it_goes_and_what_it_measured_stays(watcher: Any, engine: Any) -> None:
    done = site("-e", json.dumps({"llm_monitoring": False}))
    assert done.returncode == 0, done.stdout + done.stderr
    for one, services in ((watcher, OURS), (engine, ("exporter@node", "exporter@host"))):
        for service in services:
            assert not one.file(f"/etc/systemd/system/modelyard-{service}.service").exists
            assert not one.file(f"/opt/modelyard/services/{service}/current").exists
    assert watcher.file("/var/lib/modelyard/prometheus").is_directory
    assert watcher.run("curl -s -m 10 http://127.0.0.1:8405/metrics").rc == 7


@pytest.mark.full
def test_without_monitoring_a_second_run_changes_nothing() -> None:
    again = site("-e", json.dumps({"llm_monitoring": False}))
    changes = re.findall(
        r"^(\S+)\s*:.*changed=(\d+)", again.stdout.partition("PLAY RECAP")[2], re.MULTILINE
    )
    assert (again.returncode, sorted(changes)) == (
        0,
        [("engine", "0"), ("watcher", "0")],
    ), again.stdout
