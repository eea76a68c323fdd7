"""Monitoring in the plan: who is watched, by whom, at which address, and who is let in for that."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import compiled, part
from test_engines import ADDRESSES, CATALOGUE, GROUPS, HOSTS

WATCHED = f"{CATALOGUE}llm_monitoring: {{}}\n"
GRAFANA = (
    '  grafana: {version: "12.3.0", source: {url: "https://x.example/g-{version}.tgz", sha256:'
    f" {'b' * 64}}}}}\n"
)


def result(text: str = WATCHED, host: str = "g", **keywords: Any) -> Any:
    keywords = {
        "groups": GROUPS | {"llm_monitoring": [host]},
        "addresses": ADDRESSES,
        "secrets": frozenset(),
    } | keywords
    return compiled(text, **keywords)


def plans(text: str = WATCHED, host: str = "g", **keywords: Any) -> dict[str, Any]:
    out = result(text, host, **keywords)
    assert out.errors == [], [error.render() for error in out.errors]
    return dict(out.plans)


def scraped(
    found: dict[str, Any], host: str = "g"
) -> list[tuple[str, str | None, str | None, list[str]]]:
    jobs = found[host]["prometheus"]["scrape"]
    return [
        (j["job"], j["credential"], j["module"], [target["address"] for target in j["targets"]])
        for j in jobs
    ]


def test_everything_is_watched_where_it_listens() -> None:
    assert scraped(plans()) == [
        ("prometheus", None, None, ["127.0.0.1:9090"]),
        ("alertmanager", None, None, ["127.0.0.1:9093"]),
        ("litellm", None, None, ["127.0.0.1:8405"]),
        ("haproxy", None, None, ["127.0.0.1:8405"]),
        ("node", None, None, ["10.0.0.1:9100", "10.0.0.2:9100", "127.0.0.1:9100"]),
        ("host", None, None, ["10.0.0.1:9117", "10.0.0.2:9117", "127.0.0.1:9117"]),
        ("redis", None, None, ["127.0.0.1:9121"]),
        ("llama_cpp", "NATIVE_API_KEY", None, ["10.0.0.1:8080"]),
        ("vllm", None, None, ["10.0.0.2:8001"]),
        ("probe", None, "http_2xx", ["http://10.0.0.1:11434/api/version"]),
        ("probe", None, "http_401_is_up", ["http://10.0.0.1:8000/v1/models"]),
    ]
    prometheus = plans()["g"]["prometheus"]
    assert prometheus["secrets"] == {"NATIVE_API_KEY": "NATIVE_API_KEY"}
    (target,) = next(job for job in prometheus["scrape"] if job["job"] == "vllm")["targets"]
    assert target["labels"] == {"host": "b", "service": "vllm@coder"}
    assert [plans()[host]["prometheus"] is None for host in HOSTS] == [True, True, False]


def test_only_who_asks_is_let_in() -> None:
    rules = {
        (rule["service"], rule["port"]): rule["from"]
        for rule in plans(host="b")["a"]["firewall"]["rules"]
    }
    assert rules == {
        ("ollama@ollama", 11434): ["10.0.0.2", "10.0.0.9"],
        ("llama-cpp@tiny-7b", 8080): ["10.0.0.2", "10.0.0.9"],
        ("llama-cpp-python@snake", 8000): ["10.0.0.2", "10.0.0.9"],
        ("exporter@node", 9100): ["10.0.0.2"],
        ("exporter@host", 9117): ["10.0.0.2"],
    }
    rules = {
        (rule["service"], rule["port"]): rule["from"]
        for rule in plans(host="b")["g"]["firewall"]["rules"]
    }
    assert rules == {
        ("haproxy", 8405): ["10.0.0.2"],
        ("exporter@node", 9100): ["10.0.0.2"],
        ("exporter@host", 9117): ["10.0.0.2"],
        ("exporter@redis", 9121): ["10.0.0.2"],
    }
    found = plans(host="b")
    assert found["g"]["haproxy"]["metrics_listen"] == ["10.0.0.9"]
    assert found["g"]["redis"]["listen"] == ["127.0.0.1"]
    # An engine beside its only gateway is reached from elsewhere, too: by Prometheus.
    alone = GROUPS | {"llm_ollama": ["g"], "llm_monitoring": ["b"]}
    assert part(plans(groups=alone)["g"], "ollama")["instances"][0]["listen"] == ["10.0.0.9"]


def test_one_machine_keeps_to_itself() -> None:
    alone = {group: ["g"] for group in GROUPS}
    found = plans(groups=alone | {"llm_monitoring": ["g"]})
    assert {service["address"] for service in found["g"]["services"]} == {"127.0.0.1"}
    assert found["g"]["firewall"]["rules"] == []


def test_every_engine_is_asked_for_a_token_unless_it_is_off() -> None:
    def probes(text: str) -> list[str]:
        hosts = next(
            exporter for exporter in plans(text)["a"]["exporters"] if exporter["kind"] == "host"
        )
        return [f"{probe['model']} {probe['credential']}" for probe in hosts["settings"]["probes"]]

    # Ollama's `chatty` would have to be loaded for that.
    assert probes(WATCHED) == ["ready None", "Tiny.7b NATIVE_API_KEY", "snake PYTHON_API_KEY"]
    assert probes(f"{CATALOGUE}llm_monitoring: {{probe_interval_s: 0}}\n") == []


@pytest.mark.parametrize(
    ("text", "groups", "left_out"),
    [
        (WATCHED, {}, ["no host in group llm_monitoring"]),
        (WATCHED, {"llm_monitoring": ["g"]}, ["llm_versions names no archive of it"]),
        (
            WATCHED.replace("llm_monitoring", f"{GRAFANA}llm_monitoring"),
            {"llm_monitoring": ["g"]},
            [],
        ),
        (CATALOGUE + "llm_monitoring: true\n", {}, ["no host in group llm_monitoring"]),
        (CATALOGUE + "llm_monitoring: false\n", {"llm_monitoring": ["g"]}, []),
        (
            CATALOGUE
            + "llm_monitoring: false\nllm_overrides: {monitoring: {grafana: {port: 1}}}\n",
            {"llm_monitoring": ["g"]},
            [],
        ),
        (CATALOGUE, {"llm_monitoring": ["g"]}, []),
        (
            CATALOGUE + "llm_monitoring: false\nllm_overrides: {monitoring: null}\n",
            {"llm_monitoring": ["g"]},
            [],
        ),
    ],
)
def test_what_is_left_out_is_said(
    text: str, groups: dict[str, list[str]], left_out: list[str]
) -> None:
    out = result(text, groups=GROUPS | groups)
    assert out.errors == [], [error.render() for error in out.errors]
    assert [entry["reason"] for entry in out.left_out if entry["kind"] == "monitoring"] == left_out
    on = bool(groups) and "llm_monitoring: {}" in text
    assert [bool(out.plans["g"][part]) for part in ("exporters", "prometheus", "alertmanager")] == [
        on
    ] * 3
    assert bool(out.plans["g"]["grafana"]) is (on and not left_out)


@pytest.mark.parametrize("server", ["mail.example:587", "192.0.2.25:25", "[2001:db8::25]:587"])
def test_mail_servers(server: str) -> None:
    mail = f"{{to: a@b.example, sender: c@d.example, smarthost: '{server}'}}"
    text = f"{CATALOGUE}llm_monitoring: {{alertmanager: {{email: {mail}}}}}\n"
    assert plans(text)["g"]["alertmanager"]["email"]["smarthost"] == server


def test_alerts_go_where_the_catalogue_says() -> None:
    assert (
        plans()["g"]["alertmanager"] | {"webhook": None, "email": None, "secrets": {}}
        == plans()["g"]["alertmanager"]
    )
    mail = (
        "{to: a@b.example, sender: c@d.example, smarthost: 'mail.example:587', username: u,"
        " password_env: KEY}"
    )
    settings = f"llm_monitoring: {{alertmanager: {{email: {mail}}}}}\n"
    found = plans(CATALOGUE + settings, secrets=frozenset({"KEY"}))["g"]["alertmanager"]
    assert found["secrets"] == {"EMAIL_PASSWORD": "KEY"}
    assert found["email"] == {
        "to": "a@b.example",
        "sender": "c@d.example",
        "smarthost": "mail.example:587",
        "username": "u",
        "password_env": "KEY",
    }


def test_grafana_is_had_from_where_the_catalogue_says() -> None:
    grafana = plans(WATCHED.replace("llm_monitoring", f"{GRAFANA}llm_monitoring"))["g"]["grafana"]
    assert grafana["source"] == {"url": "https://x.example/g-12.3.0.tgz", "sha256": "b" * 64}
    assert grafana["secrets"] == {
        "ADMIN_PASSWORD": "GRAFANA_ADMIN_PASSWORD",
        "SECRET_KEY": "GRAFANA_SECRET_KEY",
    }
    assert grafana["prometheus_url"] == "http://127.0.0.1:9090"


@pytest.mark.parametrize(
    ("monitoring", "code", "said"),
    [
        ("{prometheus: {port: 9100}}", "port-clash", "prometheus"),
        ("{exporters: {node: 11434}}", "port-clash", '"ollama"'),
        ("{exporters: {gateway: 4001}}", "port-clash", "gateway slot blue"),
        (
            "{alertmanager: {webhook: {url: 'http://x/', token_env: HOOK}}}",
            "secret-undefined",
            "HOOK",
        ),
        ("{alertmanager: {webhook: {url: 'http://me:key@x/'}}}", "invalid-value", "credentials"),
        (
            "{alertmanager: {email: {to: a@b, sender: a@b, smarthost: 'b:25', username: u}}}",
            "invalid-value",
            "or neither",
        ),
        ("{prometheus: {scrape_interval_s: 60}}", "invalid-value", "scrape_interval_s"),
        ("{probe_interval_s: 1}", "invalid-value", "probe_interval_s"),
        ("[]", "invalid-value", "llm_monitoring"),
    ],
)
def test_what_is_refused(monitoring: str, code: str, said: str) -> None:
    errors = result(f"{CATALOGUE}llm_monitoring: {monitoring}\n").errors
    assert code in [error.code for error in errors], [error.render() for error in errors]
    assert said in errors[0].render()


def test_prometheus_needs_an_address_to_come_from() -> None:
    errors = result(host="b", addresses=ADDRESSES | {"b": "b.example.org"}).errors
    assert [error.code for error in errors] == ["address-unusable"]
