"""The typed plan: parts for roles that are used alone, one list of listeners, and the way through
JSON and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from catalogues import CATALOGUE, ROOT, compiled
from test_monitoring import WATCHED, result

from modelyard.catalogue.gateway import Gateway
from modelyard.plan.model import HostPlan
from modelyard.plan.parts import PARTS, PartError, part

NEEDED: dict[str, dict[str, Any]] = {
    "litellm": {"version": "1.106.2"},
    "grafana": {"version": "12.3.0", "source": {"path": "/g.tgz", "sha256": "b" * 64}},
    "exporter": {"kind": "node"},
}
"""What has no default, by role."""


def test_the_guard_of_a_role_alone_has_every_rule() -> None:
    """It reads all of them, whoever wrote them: the compiler, the defaults, or a scenario."""
    planned = compiled(CATALOGUE).plans["one"]["litellm"]["rules"]
    assert part("litellm", NEEDED["litellm"])["rules"].keys() == planned.keys()
    hosts = yaml.safe_load((ROOT / "molecule/litellm/inventory/hosts.yml").read_text("utf-8"))
    (written,) = (found["rules"] for found in nested(hosts) if "public_names" in found["rules"])
    assert written.keys() == planned.keys()


def nested(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in `node` with a key `rules`."""
    if isinstance(node, dict):
        if isinstance(node.get("rules"), dict):
            yield node
        for child in node.values():
            yield from nested(child)


@pytest.mark.parametrize("role", sorted(PARTS))
def test_a_role_alone_has_the_defaults_of_the_catalogue(role: str) -> None:
    """It gets what a plan with the shipped settings says, but for what only a compiler knows."""
    text = f"{CATALOGUE}{'  grafana: ' + json.dumps(NEEDED['grafana'])}\nllm_monitoring: {{}}\n"
    plan = compiled(text, groups={"llm_monitoring": ["one"]}).plans["one"]
    planned = plan["exporters"][0] if role == "exporter" else plan[role]
    alone = part(role, NEEDED.get(role, {}))
    assert alone.keys() == planned.keys()
    differs = {key for key in alone if alone[key] != planned[key]}
    assert differs <= {
        "secrets",
        "scrape",
        "document",
        "rules",
        "public_names",
        "metrics_listen",
        "pools",
    } | ({"checks"} if role == "litellm" else set())


def test_what_is_given_decides_what_is_checked() -> None:
    redis = part("redis", {"port": 6380, "listen": ["192.0.2.7"], "persistence": "aof"})
    assert (redis["port"], redis["persistence"], redis["maxmemory_mib"]) == (6380, "aof", 256)
    assert (redis["checks"][1]["host"], redis["checks"][1]["port"]) == ("192.0.2.7", 6380)
    door = part("haproxy", {"port": 80, "listen": ["::"], "timeouts": {"idle_s": 5}})
    assert door["timeouts"] == {"door_s": 3600, "header_s": 10, "idle_s": 5}
    assert door["checks"][1]["url"] == "http://[::1]:80/model/new"
    assert part("exporter", {"kind": "blackbox"})["service"] == "exporter@blackbox"
    mail = {
        "to": "a@b.example",
        "sender": "c@d.example",
        "smarthost": "m.example:25",
        "username": "u",
        "password_env": "K",
    }
    assert part("alertmanager", {"email": mail})["secrets"] == {"EMAIL_PASSWORD": "K"}


@pytest.mark.parametrize(
    ("role", "given", "message"),
    [
        (
            "redis",
            {"prot": 6380},
            "the part of role redis is not valid: prot: Extra inputs are not permitted",
        ),
        ("redis", {"port": "6380"}, "port: Input should be a valid integer"),
        ("redis", {"listen": ["localhost"]}, "listen.0: an IP address looks like"),
        ("haproxy", {"timeouts": {"request_s": 5}}, "timeouts.request_s: Extra inputs"),
        ("litellm", {}, "version: Field required"),
        (
            "exporter",
            {"kind": "disk"},
            "kind: Input should be 'node', 'host', 'redis' or 'blackbox'",
        ),
        ("base", {}, "no role 'base' has a part in the plan; these do: redis, litellm"),
    ],
)
def test_a_part_that_is_wrong(role: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(PartError) as refused:
        part(role, given)
    assert message in str(refused.value)


def test_a_plan_survives_the_way_through_ansible() -> None:
    """Filters get the plans as data and give them their types again."""
    found = result(WATCHED)
    for host, plan in found.plans.items():
        again = HostPlan.model_validate(json.loads(json.dumps(plan)))
        assert again == found.hosts[host]
        assert again.model_dump() == plan


def test_parts_preflight_and_firewall_say_the_same_of_listeners() -> None:
    for host, plan in result(WATCHED, host="b").plans.items():
        listening = {(one["service"], one["address"], one["port"]) for one in plan["services"]}
        parts = [
            plan[role] | {"service": role}
            for role in ("redis", "haproxy", "prometheus", "alertmanager")
            if plan[role]
        ]
        parts += plan["exporters"] + [
            one for engine in plan["engines"] for one in engine["instances"]
        ]
        said = {
            (one["service"], address, one["port"]) for one in parts for address in one["listen"]
        }
        if plan["haproxy"]:
            said |= {
                (f"litellm@{slot}", "127.0.0.1", port)
                for slot, port in plan["haproxy"]["slots"].items()
            }
            said.add(("haproxy", "127.0.0.1", plan["haproxy"]["pool_port"]))
            said |= {
                ("haproxy", one, plan["haproxy"]["metrics_port"])
                for one in plan["haproxy"]["metrics_listen"]
            }
        assert listening == said, host
        guarded = {(rule["service"], rule["port"]) for rule in plan["firewall"]["rules"]}
        open_ports = {
            (service, port) for service, address, port in listening if address != "127.0.0.1"
        }
        assert guarded <= open_ports
        # The front end is for everybody.
        assert {service for service, _ in open_ports - guarded} <= {"haproxy"}


def test_each_role_gets_its_share_of_the_gateways_section() -> None:
    """A key that no share has would be read by nobody but the emitter."""
    shares = {role: part(role, NEEDED.get(role, {})) for role in ("litellm", "haproxy")}
    for section, own in (("timeouts", {"request_s", "stream_s", "queue_s"}), ("limits", set())):
        whole = Gateway().model_dump()[section]
        carried = shares["litellm"][section] | shares["haproxy"][section]
        assert whole.keys() == carried.keys() | own
        assert all(whole[key] == value for key, value in carried.items())
