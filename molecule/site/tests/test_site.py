"""The whole pipeline on two hosts, with real servers: a gateway with a stand-by engine, and the
engine it prefers."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
from modelyard_playbook import ansible_playbook
from modelyard_traffic import Traffic, chat

KEY = "sk-planted-master-key"
PLANTED = [KEY, "planted-redis-password", "planted-engine-key"]
PREFERRED, STAND_BY = "llama-cpp-native", "stand-by"
ENGINE_UNIT = "modelyard-llama-cpp@llama-cpp-native"


def site(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml, as a user does."""
    return ansible_playbook("converge.yml", *arguments)


def override(**changes: Any) -> tuple[str, str]:
    """A change of the catalogue, on the command line."""
    return "-e", json.dumps({"llm_overrides_test": changes})


@pytest.fixture(scope="module")
def gateway() -> Any:
    """The host with the gateway and Redis."""
    return testinfra.get_host("ansible://gateway")


@pytest.fixture(scope="module")
def engine() -> Any:
    """The host with the preferred engine."""
    return testinfra.get_host("ansible://engine")


@pytest.fixture(scope="module")
def door(gateway: Any) -> str:
    """Address of the front door, as this machine reaches it."""
    return f"http://{gateway.ansible.get_variables()['ansible_host']}:4000"


@contextlib.contextmanager
def stopped(host: Any, unit: str) -> Iterator[None]:
    """Kill a unit's processes and keep it down for a while."""
    host.check_output(f"systemctl kill --signal=KILL {unit}; systemctl stop {unit}")
    try:
        yield
    finally:
        host.check_output(f"systemctl reset-failed {unit}; systemctl start {unit}")


def wait_until(condition: Any, what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def answered_by(door: str, model: str) -> str:
    return str(json.loads(chat(door, KEY, model))["model"])


def test_chat_and_stream(door: str) -> None:
    assert answered_by(door, PREFERRED) == PREFERRED
    assert chat(door, KEY, PREFERRED, stream=True).rstrip().endswith("data: [DONE]")


def test_what_listens_where(gateway: Any, engine: Any) -> None:
    """The engine is reached from the other host, so it has its own address and no other; the rest
    stays on loopback."""
    address = engine.ansible.get_variables()["ansible_host"]
    assert listening(engine) == {f"{address}:8080"}
    assert listening(gateway) - {"127.0.0.1:4001", "127.0.0.1:4002"} == {
        "127.0.0.1:4003",
        "127.0.0.1:6379",
        "127.0.0.1:8081",
        "0.0.0.0:4000",
    }


def listening(host: Any) -> set[str]:
    lines = host.check_output("ss -Hltn").splitlines()
    return {
        line.split()[3] for line in lines if not line.split()[3].endswith((":22", ":53", ":5355"))
    }


def test_engine_killed_then_the_next_step_answers(
    door: str, engine: Any, measured: Callable[[str], None]
) -> None:
    with stopped(engine, ENGINE_UNIT):
        started = time.monotonic()
        assert answered_by(door, PREFERRED) == STAND_BY
        first = time.monotonic() - started
        started = time.monotonic()
        assert answered_by(door, PREFERRED) == STAND_BY
        later = time.monotonic() - started
    measured(f"refused engine: first request {first * 1000:.0f} ms, the next {later * 1000:.0f} ms")
    # Its pool has it back after its next check.
    wait_until(
        lambda: all(answered_by(door, PREFERRED) == PREFERRED for _ in range(8)),
        "the engine did not come back into the route",
    )


def test_redis_killed_then_the_gateway_still_answers(door: str, gateway: Any) -> None:
    with stopped(gateway, "modelyard-redis"):
        for _ in range(3):
            assert answered_by(door, PREFERRED) == PREFERRED
    assert gateway.service("modelyard-redis").is_running


@pytest.mark.full
def test_repeated_questions_are_answered_from_redis_if_wanted(
    door: str, measured: Callable[[str], None]
) -> None:
    """Off by default. Streams are kept too; the gateway's own checks never take such an answer for
    a live engine."""

    def answers(**extra: Any) -> list[str]:
        return [chat(door, KEY, PREFERRED, **extra) for _ in range(2)]

    first, second = answers()
    assert json.loads(first)["id"] != json.loads(second)["id"]
    applied = site(*override(gateway={"cache": {"enabled": True}}))
    assert applied.returncode == 0, applied.stdout
    first, second = answers()
    assert json.loads(first)["id"] == json.loads(second)["id"]
    asked, kept = answers(stream=True)
    assert kept.rstrip().endswith("data: [DONE]")
    assert spoken(asked) == spoken(kept) != ""
    with_it = time.monotonic()
    answers()
    measured(f"an answer from Redis takes {(time.monotonic() - with_it) / 2 * 1000:.0f} ms")


def spoken(stream: str) -> str:
    """What a stream of events says."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in event["choices"]
    )


@pytest.fixture(scope="module")
def applied(door: str) -> tuple[subprocess.CompletedProcess[str], Traffic]:
    """A change of the gateway under traffic, by a run that prints all it can."""
    with Traffic(door, KEY, PREFERRED) as traffic:
        done = site("-vvv", "--diff", *override(gateway={"cooldown_s": 31}))
    return done, traffic


def test_a_change_of_the_gateway_costs_no_request(
    applied: tuple[subprocess.CompletedProcess[str], Traffic], measured: Callable[[str], None]
) -> None:
    done, traffic = applied
    assert done.returncode == 0, done.stdout[-6000:]
    assert traffic.failures == []
    assert traffic.answered > 30, traffic.answered
    assert traffic.streams > 3, traffic.streams
    measured(
        f"{traffic.answered} requests and {traffic.streams} streams while site.yml changed the"
        " gateway, none failed"
    )


@pytest.mark.full
def test_a_candidate_that_fails_its_check_never_serves(door: str, gateway: Any) -> None:
    """It passes validation, but its workers are never ready within a second, the limit here."""
    before = state(gateway)
    with Traffic(door, KEY, PREFERRED) as traffic:
        applied = site(*override(gateway={"cooldown_s": 32, "timeouts": {"ready_s": 1}}))
    assert applied.returncode != 0
    assert "never stopped serving" in applied.stdout
    assert traffic.failures == []
    after = state(gateway)
    assert started_units(before) == started_units(after)
    # What was refused is not left staged: the same catalogue again, without the fault, goes live.
    assert site(*override(gateway={"cooldown_s": 31})).returncode == 0


def started_units(snapshot: str) -> list[str]:
    return [line for line in snapshot.splitlines() if line.startswith("unit ")]


def state(host: Any) -> str:
    """Everything of ours on a host that a refused run must leave alone: files by content and time,
    units by start."""
    return str(
        host.check_output(
            "find /etc/modelyard /etc/systemd/system /opt/modelyard/services -type f -printf '%T@"
            " %p\\n' -exec sha256sum {} + | sort;find /opt/modelyard /etc/modelyard -type l -printf"
            " '%p %l\\n' | sort;for u in $(systemctl list-units --plain --no-legend 'modelyard-*' |"
            " cut -d' ' -f1); do  echo unit $u $(systemctl show --value -p"
            " ActiveEnterTimestampMonotonic -p MainPID $u); done"
        )
    )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"routing": {"fallbacks": {PREFERRED: {"chain": ["stand-bye"]}}}}, 'did you mean "stand-by"?'),
    ({"gateway": {"prot": 4000}}, 'did you mean "port"?'),
    ({"providers": {"llama_cpp_native": {"port": 8081}}}, "8081"),
]
WAYS = [(), ("--limit", "engine"), ("--tags", "gateway")]


@pytest.mark.parametrize(
    ("changes", "message", "arguments"),
    [
        pytest.param(*bad, way, marks=[] if number == other else pytest.mark.full)
        for number, bad in enumerate(BAD)
        for other, way in enumerate(WAYS)
    ],
)
def test_a_bad_catalogue_changes_nothing(
    gateway: Any, engine: Any, changes: dict[str, Any], message: str, arguments: tuple[str, ...]
) -> None:
    # A port clash needs both engines on one host.
    models = [{"name": PREFERRED, "hosts": ["gateway"]}] if "providers" in changes else []
    if models:
        changes = {
            "providers": {
                "llama_cpp_native": {**changes["providers"]["llama_cpp_native"], "models": models}
            }
        }
    before = state(gateway), state(engine)
    refused = site(*override(**changes), *arguments)
    assert refused.returncode != 0
    assert message in refused.stdout, refused.stdout
    assert (state(gateway), state(engine)) == before


def test_planted_secrets_are_nowhere_but_in_their_credentials(
    gateway: Any, engine: Any, applied: tuple[subprocess.CompletedProcess[str], Traffic]
) -> None:
    said, _ = applied
    assert "changed=" in said.stdout
    for secret in PLANTED:
        assert secret not in said.stdout + said.stderr, "a secret was printed"
    for host in (gateway, engine):
        places = (
            "/etc /opt/modelyard/services /var/lib/modelyard /var/log /run/systemd/transient /tmp"
            " /var/tmp /root"
        )
        for secret in PLANTED:
            found = host.run(f"grep -rIl -e {secret} {places} 2>/dev/null").stdout.split()
            assert [
                path for path in found if not path.startswith("/etc/modelyard/credentials/")
            ] == []
            for text in (
                "ps axww -o args",
                "journalctl --no-pager",
                "systemctl show 'modelyard-*' --all",
            ):
                assert secret not in host.check_output(text), f"{secret} in {text}"
    planted = gateway.check_output("grep -rIl -e planted /etc/modelyard/credentials").split()
    assert len(planted) >= 4, "the search must be able to find what it looks for"


def test_smoke_shows_what_is_broken_and_finishes(gateway: Any) -> None:
    """With everything stopped, every check of a running part fails, none hangs, and the exit status
    says so."""
    # The target alone would not wait for its parts.
    gateway.check_output("systemctl stop modelyard.target 'modelyard-*.service'")
    try:
        started = time.monotonic()
        smoke = ansible_playbook("smoke.yml")
        seconds = time.monotonic() - started
    finally:
        gateway.check_output("systemctl start modelyard.target")
    assert smoke.returncode != 0
    (counts,) = re.findall(
        r"^\s*(\d+) ok, (\d+) failed, (\d+) skipped$",
        smoke.stdout.split("fatal: [gateway]")[1],
        re.MULTILINE,
    )[:1]
    assert int(counts[0]) == 0
    assert int(counts[1]) >= 10
    assert "try: journalctl -u modelyard-redis.service" in smoke.stdout
    assert seconds < 60, seconds


def test_smoke_passes_again(door: str, measured: Callable[[str], None]) -> None:
    wait_until(
        lambda: (
            subprocess.run(
                ["curl", "-sf", f"{door}/health/readiness"], capture_output=True, check=False
            ).returncode
            == 0
        ),
        "not ready",
    )
    started = time.monotonic()
    smoke = ansible_playbook("smoke.yml")
    assert smoke.returncode == 0, smoke.stdout
    measured(f"smoke of two hosts took {time.monotonic() - started:.1f} s")
