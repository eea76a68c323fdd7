"""What `plan` says would change, from the compiled plans and what is live."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from catalogues import CATALOGUE, ROOT, change, compiled

from modelyard.compile import Compiled
from modelyard.operations.diff import HostChanges, ServiceChange, compare, differences, observed
from modelyard.output.render import MOST_DETAILS, render_changes
from modelyard.plan.parts import PARTS, known, recorded

SINCE = "2026-01-31T12:00:00Z"
TWO = {"llm_stack": ["one", "two"], "llm_local": ["one", "two"]}
ADDRESSES = {"one": "192.0.2.1", "two": "192.0.2.2"}


def live(result: Compiled, host: str = "one") -> dict[str, dict[str, Any]]:
    """What `modelyard_live` returns after `result` was applied."""
    found = {
        service: {"release": "0123456789ab", "since": SINCE, "plan": part}
        for service, part in dict(result.hosts[host].parts()).items()
    }
    if "litellm" in found:
        found["litellm"]["public_names"] = result.public_names
    return found


def changes(before: str, after: str) -> HostChanges:
    """The changes on the one host, from one catalogue to the other."""
    (found,) = compare(compiled(after).hosts, {"one": live(compiled(before))})
    return found


def details(found: HostChanges, service: str) -> tuple[str, ...]:
    (one,) = [change for change in found.services if change.service == service]
    assert (one.kind, one.since) == ("change", SINCE)
    return one.details


SERVICES = ("redis", "llama-cpp@small", "llama-cpp@large-7b", "litellm", "haproxy")


def test_the_same_plan_changes_nothing() -> None:
    assert changes(CATALOGUE, CATALOGUE) == HostChanges("one", unchanged=SERVICES)


def test_fresh_host_gets_everything() -> None:
    (found,) = compare(compiled().hosts, {"one": {}})
    assert [(change.service, change.kind) for change in found.services] == [
        (name, "add") for name in SERVICES
    ]
    assert found.names_added == ("small", "large:7b", "big-cloud")


def test_a_setting_of_the_gateway() -> None:
    found = changes(CATALOGUE, change("port: 4000", "port: 4000\n  cooldown_s: 20"))
    assert details(found, "litellm") == ("document.router_settings.cooldown_time: 30 → 20",)
    assert found.unchanged == ("redis", "llama-cpp@small", "llama-cpp@large-7b", "haproxy")


def test_a_port_of_the_door() -> None:
    found = changes(CATALOGUE, change("port: 4000", "port: 4100"))
    assert [change.service for change in found.services] == ["haproxy"]
    assert details(found, "haproxy") == ("port: 4000 → 4100",)


def test_a_setting_of_one_model() -> None:
    text = change(
        "/models/small.gguf}", "/models/small.gguf}\n        context_length: 4096\n        rpm: 60"
    )
    found = changes(CATALOGUE, text)
    assert details(found, "llama-cpp@small") == ("instance.context_length: not set → 4096",)
    assert "model small: litellm_params.rpm added: 60" in details(found, "litellm")
    assert details(changes(text, CATALOGUE), "llama-cpp@small") == (
        "instance.context_length: 4096 → not set",
    )
    assert "model small: litellm_params.rpm removed (was 60)" in details(
        changes(text, CATALOGUE), "litellm"
    )


MORE = change(
    "      - name: big-cloud\n", "      - name: big-cloud\n      - name: other-cloud\n",
    change("big-cloud: {terminal: true}", "big-cloud: {chain: [other-cloud]}\n    other-cloud: {terminal: true}"),
)  # fmt: skip


def test_names_that_appear() -> None:
    found = changes(CATALOGUE, MORE)
    assert found.names_added == ("other-cloud",)
    assert found.names_removed == ()
    assert "model other-cloud added" in details(found, "litellm")
    assert (
        'document.router_settings.fallbacks["large:7b"]: small, big-cloud → small, big-cloud,'
        " other-cloud" in details(found, "litellm")
    )


def test_names_that_go_away_need_a_word() -> None:
    found = changes(MORE, CATALOGUE)
    assert found.names_removed == ("other-cloud",)
    assert "model other-cloud removed" in details(found, "litellm")
    text = render_changes([found])
    assert "public names to be removed: other-cloud\n" in text
    assert "-e llm_allow_removal=true" in text
    assert "llm_allow_removal" not in render_changes([changes(CATALOGUE, MORE)])


def test_an_engine_that_is_no_longer_planned_is_removed() -> None:
    less = change(
        "      - name: large:7b\n        source: {path: /models/large.gguf}\n        port: 8081\n",
        "",
    )
    less = change("    large:7b: {chain: [small, big-cloud]}\n", "", less)
    found = changes(CATALOGUE, less)
    assert ServiceChange("llama-cpp@large-7b", "remove", since=SINCE) in found.services


def test_a_provider_that_is_disabled_takes_its_engines_and_names() -> None:
    before = change("    group: llm_local\n", "    group: llm_local\n    status: disabled\n")
    less = change(
        "    large:7b: {chain: [small, big-cloud]}\n    small: {chain: [big-cloud]}\n", "", before
    )
    found = changes(CATALOGUE, less)
    removed = [change.service for change in found.services if change.kind == "remove"]
    assert removed == ["llama-cpp@large-7b", "llama-cpp@small"]
    assert found.names_removed == ("small", "large:7b")


def test_a_host_that_left_redis_loses_it() -> None:
    (found,) = compare(compiled(groups={"llm_redis": []}).hosts, {"one": live(compiled())})
    assert ServiceChange("redis", "remove", since=SINCE) in found.services


def test_a_host_that_left_all_groups_is_emptied() -> None:
    before = live(compiled(groups=TWO, addresses=ADDRESSES))
    groups = {"llm_stack": ["one", "two"]} | {
        name: ["two"] for name in ("llm_local", "llm_gateway", "llm_redis")
    }
    found, _ = compare(
        compiled(groups=groups, addresses=ADDRESSES).hosts, {"one": before, "two": {}}
    )
    assert {change.service for change in found.services if change.kind == "remove"} == before.keys()
    assert found.names_removed == ()
    assert not found.unchanged


def test_other_services_are_left_running_and_named() -> None:
    """One of a newer version, say: site.yml has nothing that takes it away, so `plan` must not
    promise it."""
    before = live(compiled())
    before["newer"] = before["redis"]
    (found,) = compare(compiled().hosts, {"one": before})
    assert found.services == (ServiceChange("newer", "left", since=SINCE),)
    line = (
        f"left     newer (live since {SINCE}): unknown to this version; site.yml leaves it running"
    )
    assert line in render_changes([found])


def test_a_gateway_that_moved_away_takes_only_names_that_no_other_serves() -> None:
    before = live(compiled(MORE, groups=TWO, addresses=ADDRESSES))
    for text, removed in ((MORE, ()), (CATALOGUE, ("other-cloud",))):
        after = compiled(text, groups={**TWO, "llm_gateway": ["two"]}, addresses=ADDRESSES)
        found, other = compare(after.hosts, {"one": before, "two": {}})
        assert found.names_removed == removed
        assert [change.service for change in found.services if change.kind == "remove"] == [
            "haproxy",
            "litellm",
        ]
        assert other.names_added == tuple(after.public_names)


def test_hosts_of_a_model_are_told_at_the_front_end() -> None:
    one, two = (
        compiled(groups={**TWO, "llm_local": ["one"]}),
        compiled(groups=TWO, addresses=ADDRESSES),
    )
    found, _ = compare(two.hosts, {"one": live(one)})
    added = 'pools["pool.local.small"].servers.two added: {"address": "192.0.2.2", "port": 8080}'
    assert added in details(found, "haproxy")
    assert "litellm" in found.unchanged
    found, _ = compare(one.hosts, {"one": live(two)})
    assert added.replace("added: ", "removed (was ") + ")" in details(found, "haproxy")


def test_order_alone() -> None:
    first = "      - name: small\n        source: {path: /models/small.gguf}\n"
    text = change(first, "").replace("        port: 8081\n", f"        port: 8081\n{first}")
    assert details(changes(CATALOGUE, text), "litellm") == (
        "only the order of its entries differs",
    )


def test_first_chain_of_all() -> None:
    """Without any chain the document has an empty list, which must not be shown as one value turned
    into another."""
    without = change(
        "{chain: [small, big-cloud]}",
        "{terminal: true}",
        change("{chain: [big-cloud]}", "{terminal: true}"),
    )
    assert "document.router_settings.fallbacks.small added: big-cloud" in details(
        changes(without, CATALOGUE), "litellm"
    )
    assert "document.router_settings.fallbacks.small removed (was big-cloud)" in details(
        changes(CATALOGUE, without), "litellm"
    )


def test_older_release_cannot_be_compared() -> None:
    before = live(compiled())
    before["redis"]["plan"] = None
    (found,) = compare(compiled().hosts, {"one": before})
    reason = "cannot be compared: the live release was made by an older version of Modelyard"
    assert found.services == (ServiceChange("redis", "unclear", (reason,), SINCE),)


def test_hosts_that_are_not_known_hide_nothing() -> None:
    result = compiled(groups={"llm_stack": ["one", "two", "three"]}, addresses=ADDRESSES)
    down = observed({"changed": False, "unknown": "not reachable: No route"})
    hanging = observed({"failed": True, "msg": "Timed out after 30 second(s)."})
    text = render_changes(compare(result.hosts, {"one": live(result), "two": down}))
    assert "  one: nothing, 5 services as planned\n" in text
    assert "  two: live releases are not known (not reachable: No route)" in text
    assert "  three: live releases are not known (not asked (--limit))" in text
    assert (
        render_changes(compare(result.hosts, {"one": hanging})).splitlines()[1]
        == "  one: live releases are not known (Timed out after 30 second(s).)"
    )


def test_long_lists_are_cut() -> None:
    many = "".join(f"      - name: m{number}\n" for number in range(MOST_DETAILS + 5))
    found = changes(
        CATALOGUE, change("      - name: big-cloud\n", f"      - name: big-cloud\n{many}")
    )
    assert len(details(found, "litellm")) == MOST_DETAILS + 5
    text = render_changes([found])
    assert text.count("model m") == MOST_DETAILS
    assert "           and 5 more differences\n" in text


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (True, False, "a: true → false"),
        ("", "x", 'a: "" → x'),
        (None, [], "a: not set → []"),
        (["x", "y"], ["x"], "a: x, y → x"),
        ({"b.c": 1}, {"b.c": 1.5}, 'a["b.c"]: 1 → 1.5'),
        ("x", "y" * 99, f"a: x → {'y' * 59}…"),
    ],
)
def test_values_are_readable(old: Any, new: Any, line: str) -> None:
    assert differences({"a": old}, {"a": new}) == [line]


@pytest.mark.parametrize("role", sorted(PARTS))
def test_roles_record_their_part_whole(role: str) -> None:
    """What is not recorded is decided in one place, so roles hand all of it over."""
    file = ROOT / "roles" / role / f"tasks/{'instance' if role == 'exporter' else 'configure'}.yml"
    (kept,) = [
        task["vars"]["service_plan"]
        for task in yaml.safe_load(file.read_text(encoding="utf-8"))
        if "service_plan" in task.get("vars", {})
    ]
    assert kept == ("{{ __exporter_instance }}" if role == "exporter" else f"{{{{ {role}_plan }}}}")


def test_hosts_record_no_checks_and_no_secret_of_a_client() -> None:
    clients = "llm_clients:\n  app: {secret: APP_KEY, rpm: 5}\n"
    found = dict(compiled(CATALOGUE + clients).hosts["one"].parts())
    assert found["litellm"]["clients"] == {"app": {"models": None, "rpm": 5}}
    assert "APP_KEY" not in str(found)
    assert not {"checks", "rules", "public_names"} & found["litellm"].keys()
    assert found["litellm"]["limits"] == {"body_s": 60, "body_mib": 32, "worker_mib": 1200}
    assert {"argv", "checks"}.isdisjoint(found["llama-cpp@small"]["instance"])
    assert found["llama-cpp@small"]["build"].keys().isdisjoint({"role", "instances"})
    for service, part in found.items():
        assert "checks" not in part
        assert known(service, part) == part, "what a host knows is compared with itself"
        # A client that comes or goes changes no release.
        assert recorded(service, part) == {k: v for k, v in part.items() if k != "clients"}
    assert recorded("something-else", {"checks": []}) == {"checks": []}


def test_what_an_earlier_version_recorded() -> None:
    """Its keys are told apart once; what is the same under other keys is not called a change."""
    now = compiled(f"{CATALOGUE}llm_monitoring: {{}}\n", groups={"llm_monitoring": ["one"]})
    before = live(now)
    slots, limits = {"blue": 4001, "green": 4002}, before["litellm"]["plan"]["limits"]
    before["exporter@node"]["plan"] = {"instance": before["exporter@node"]["plan"]}
    before["haproxy"]["plan"] = {
        "listen": ["127.0.0.1"],
        "port": 4000,
        "slots": slots,
        "stream_timeout_s": 3600,
        "body_timeout_s": 60,
        "connections_per_address": 400,
        "metrics_listen": ["127.0.0.1"],
        "metrics_port": 8405,
    }
    old = before["litellm"]["plan"]
    before["litellm"]["plan"] = {
        key: old[key] for key in ("version", "document", "slots", "workers", "secrets", "clients")
    }
    before["litellm"]["plan"]["limits"] = dict(reversed(limits.items()))
    before["alertmanager"]["plan"] = {"listen": ["127.0.0.1"], "port": 9093, "receiver": None}
    (found,) = compare(now.hosts, {"one": before})
    assert {change.service: change.details for change in found.services} == {
        "litellm": ("index_url added: not set", 'timeouts added: {"drain_s": 120, "ready_s": 300}'),
        "haproxy": (
            "pool_port added: 4003",
            'pools added: {"pool.local.large-7b": {"health": "/health", "holds": fals…',
            'timeouts added: {"door_s": 3600, "header_s": 10, "idle_s": 60}',
            'limits added: {"body_s": 60, "connections_per_address": 400}',
            "body_timeout_s removed (was 60)",
            "connections_per_address removed (was 400)",
            "stream_timeout_s removed (was 3600)",
        ),
        "alertmanager": (
            "webhook added: not set",
            "email added: not set",
            "secrets added: {}",
            "receiver removed (was not set)",
        ),
    }


@pytest.mark.parametrize("more", [{}, {"argv": ["--model", "@MODEL@"], "gpu_argv": ["-1"]}])
def test_what_follows_from_the_rest_is_not_compared(more: dict[str, Any]) -> None:
    """An older version recorded no command line, or another one: a run may restart the engine, the
    plan is the same."""
    before = live(compiled())
    part = before["llama-cpp@small"]["plan"]
    before["llama-cpp@small"]["plan"] = {**part, "instance": {**part["instance"], **more}}
    (found,) = compare(compiled().hosts, {"one": before})
    assert "llama-cpp@small" in found.unchanged
