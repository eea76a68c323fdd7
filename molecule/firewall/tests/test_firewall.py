"""Who reaches a port across three hosts, and what our table leaves alone. The engines are stand-ins
(prepare.yml)."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
from modelyard_playbook import ansible_playbook

UNIT = "modelyard-firewall"
OURS = "nft list table inet modelyard"
THEIRS = "nft --stateless list table inet filter; nft --stateless list table ip nat"
REFUSED, TIMED_OUT = 7, 28  # exit statuses of curl

# Requests to a port: half of them on one connection, half on one each. Prints what became of them.
CLIENT = """
import http.client, json, sys
counts = {"answered": 0, "refused": 0, "else": []}
kept = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=60)
for number in range(100):
    one = kept if number < 50 else http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=60)
    try:
        one.request("GET", "/")
        one.getresponse().read()
        counts["answered"] += 1
    except ConnectionRefusedError:
        counts["refused"] += 1
        one.close()
    except Exception as error:
        counts["else"].append(repr(error))
        one.close()
print(json.dumps(counts))
"""
# Asks on one connection until that breaks, and says how.
KEPT = """
import http.client, sys, time
kept = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=60)
while True:
    try:
        kept.request("GET", "/")
        kept.getresponse().read()
    except OSError as error:
        sys.exit(f"broken: {error!r}")
    print("answered", flush=True)
    kept.auto_open = False
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def engine() -> Any:
    """The host with something to protect."""
    return testinfra.get_host("ansible://engine")


@pytest.fixture(scope="module")
def gateway() -> Any:
    """The host that is admitted."""
    return testinfra.get_host("ansible://gateway")


@pytest.fixture(scope="module")
def crowded() -> Any:
    """The third host: a stranger to `engine`, with an engine and somebody's own nftables."""
    return testinfra.get_host("ansible://crowded")


@pytest.fixture
def restored() -> Iterator[None]:
    """Afterwards the hosts are as the scenario describes them."""
    yield
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr


def address(host: Any) -> str:
    return str(host.ansible.get_variables()["ansible_host"])


def converge(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", *arguments, "-e", json.dumps(variables))


def curl(host: Any, target: str, port: int, limit_s: int = 60) -> Any:
    """Ask a port once; the exit status is curl's."""
    return host.run(f"curl -sS -g -m {limit_s} -o /dev/null http://{target}:{port}/")


def requests(host: Any, target: str, port: int) -> dict[str, Any]:
    return dict(json.loads(host.check_output(f"python3 -c {shlex.quote(CLIENT)} {target} {port}")))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_the_admitted_host_gets_in_and_the_third_one_is_refused(
    engine: Any, gateway: Any, crowded: Any
) -> None:
    target = address(engine)
    assert curl(gateway, target, 8080).rc == 0
    refused = curl(crowded, target, 8080)
    assert (refused.rc, "refused" in refused.stderr or "connect" in refused.stderr) == (
        REFUSED,
        True,
    )
    # Nobody was admitted to this one, and the host itself is never kept out.
    assert curl(gateway, target, 8081).rc == REFUSED
    assert curl(engine, target, 8081).rc == 0
    assert curl(engine, "127.0.0.1", 8081).rc == 0
    # A port that no rule names is none of our business.
    assert curl(crowded, target, 9000).rc == 0


def test_ipv6(engine: Any, gateway: Any, crowded: Any) -> None:
    """The table that is loaded admits fd00::10, which is the gateway here."""
    if not engine.file("/proc/net/if_inet6").exists:
        pytest.skip(
            "this kernel has no IPv6; that the rule is well-formed is proven by its being loaded"
        )
    hosts = {engine: "fd00::1", gateway: "fd00::10", crowded: "fd00::11"}
    for host, own in hosts.items():
        host.check_output(f"ip -6 address replace {own}/64 dev host0 nodad")
    assert curl(gateway, "[fd00::1]", 8080).rc == 0
    assert curl(crowded, "[fd00::1]", 8080).rc == REFUSED
    assert curl(crowded, "[fd00::1]", 9000).rc == 0


def test_unit_is_sandboxed_and_comes_back_at_boot(
    engine: Any, measured: Callable[[str], None]
) -> None:
    assert engine.service(UNIT).is_enabled
    assert engine.service(UNIT).is_running
    line = engine.check_output(f"systemd-analyze security --no-pager {UNIT} | tail -1")
    assert float(line.split(":")[1].split()[0]) <= 1.6, line
    measured(line.strip())
    before = engine.check_output(f"systemctl show --value -p Before {UNIT}")
    assert "network-pre.target" in before.split()
    assert engine.run("systemd-analyze verify default.target 2>&1 | grep -i cycle").stdout == ""


def test_what_is_loaded_says_which_release_it_is_from(engine: Any) -> None:
    current = engine.file("/opt/modelyard/services/firewall/current").linked_to.rsplit("/", 1)[1]
    assert f'comment "/opt/modelyard/services/firewall/releases/{current}"' in engine.check_output(
        OURS
    )


def test_a_host_without_rules_has_nothing_of_it(gateway: Any) -> None:
    assert not gateway.exists("nft")
    assert not gateway.file(f"/etc/systemd/system/{UNIT}.service").exists
    assert not gateway.file("/opt/modelyard/services/firewall/current").exists


def test_stock_service_is_neither_started_nor_touched(engine: Any, crowded: Any) -> None:
    shown = "systemctl show --value -p ActiveState,UnitFileState nftables"
    assert engine.check_output(shown).split() == ["inactive", "disabled"]
    assert crowded.check_output(shown).split() == ["active", "enabled"]


def test_tables_of_others_stay_as_they_were(crowded: Any, restored: None) -> None:
    """Before us, beside us, after us; their handles say that they were not made anew either."""
    assert crowded.check_output(THEIRS) == crowded.file("/root/before.txt").content_string.strip()
    beside = crowded.check_output("nft -a -s list table inet filter; nft -a -s list table ip nat")
    done = converge("--limit", "crowded,gateway", rules=[])
    assert done.returncode == 0, done.stdout + done.stderr
    assert crowded.check_output("nft list tables").splitlines() == [
        "table inet filter",
        "table ip nat",
    ]
    assert (
        crowded.check_output("nft -a -s list table inet filter; nft -a -s list table ip nat")
        == beside
    )
    for gone in (f"/etc/systemd/system/{UNIT}.service", "/opt/modelyard/services/firewall/current"):
        assert not crowded.file(gone).exists, gone
    assert crowded.service("nftables").is_running


def test_what_another_table_drops_stays_dropped(gateway: Any, crowded: Any) -> None:
    assert curl(gateway, address(crowded), 8080).rc == 0
    crowded.check_output(
        "nft 'table inet strict { chain input { type filter hook input priority 10; tcp dport 8080"
        " drop; }; }'"
    )
    try:
        assert curl(gateway, address(crowded), 8080, limit_s=3).rc == TIMED_OUT
    finally:
        crowded.check_output("nft delete table inet strict")
    assert curl(gateway, address(crowded), 8080).rc == 0


@pytest.mark.parametrize("verb", ["restart", "reload"])
def test_the_stock_service_flushes_everything_and_ours_comes_back(crowded: Any, verb: str) -> None:
    crowded.check_output(f"systemctl {verb} nftables")
    wait_until(lambda: bool(crowded.run(OURS).rc == 0), "our table did not come back")
    assert crowded.check_output(THEIRS) == crowded.file("/root/before.txt").content_string.strip()


def test_restart_and_stop_of_the_unit(engine: Any, crowded: Any) -> None:
    loaded = engine.check_output(OURS)
    engine.check_output(f"systemctl restart {UNIT}")
    assert engine.check_output(OURS) == loaded
    engine.check_output(f"systemctl stop {UNIT}")
    try:
        assert engine.check_output("nft list tables") == ""
        assert curl(crowded, address(engine), 8080).rc == 0
    finally:
        engine.check_output(f"systemctl start {UNIT}")
    assert curl(crowded, address(engine), 8080).rc == REFUSED
    # Services are stopped together, the rules stay.
    engine.check_output("systemctl stop modelyard.target")
    assert engine.check_output(OURS) == loaded
    engine.check_output("systemctl start modelyard.target")


def test_reloads_cost_nobody_a_connection_and_let_nobody_in(
    engine: Any, gateway: Any, crowded: Any, measured: Callable[[str], None]
) -> None:
    """The table is replaced again and again (at most 2000 times) while both hosts ask."""
    loop = (
        "for i in $(seq 2000); do [ -e /run/enough ] && exit 0; "
        f"systemctl reload {UNIT} || exit 1; echo $i > /run/reloads; done"
    )
    engine.check_output("rm -f /run/enough /run/reloads")
    engine.check_output(f"systemd-run --unit reloads --service-type=exec sh -c {shlex.quote(loop)}")
    admitted = refused = 0

    def reloads() -> int:
        return int(engine.run("cat /run/reloads").stdout.strip() or 0)

    try:
        deadline = time.monotonic() + 300
        while reloads() < 20:
            assert time.monotonic() < deadline, "the reloads do not get on"
            assert requests(gateway, address(engine), 8080) == {
                "answered": 100,
                "refused": 0,
                "else": [],
            }
            assert requests(crowded, address(engine), 8080) == {
                "answered": 0,
                "refused": 100,
                "else": [],
            }
            admitted, refused = admitted + 100, refused + 100
        done = reloads()
    finally:
        engine.check_output("touch /run/enough")
    wait_until(
        lambda: engine.run("systemctl is-active reloads").stdout.strip() == "inactive",
        "the loop failed",
    )
    measured(
        f"{done} reloads: {admitted} of {admitted} requests answered, {refused} of {refused}"
        " refused"
    )


def test_a_host_that_is_no_longer_admitted_loses_its_connections(
    engine: Any, gateway: Any, crowded: Any, restored: None
) -> None:
    kept = f"python3 -c {shlex.quote(KEPT)} {address(engine)} 8080"
    gateway.check_output(f"systemd-run --unit kept {kept}")
    wait_until(
        lambda: "answered" in gateway.run("journalctl -u kept -o cat").stdout,
        "the connection was not made",
    )
    started = engine.check_output(f"systemctl show --value -p ActiveEnterTimestampMonotonic {UNIT}")
    done = converge(admitted=[address(crowded)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert curl(crowded, address(engine), 8080).rc == 0
    assert curl(gateway, address(engine), 8080).rc == REFUSED
    wait_until(
        lambda: "broken: " in gateway.run("journalctl -u kept -o cat").stdout,
        "the connection lived on",
    )
    assert "ConnectionResetError" in gateway.check_output("journalctl -u kept -o cat")
    gateway.check_output("systemctl reset-failed kept")
    # It was a reload: at no time was the table gone.
    assert (
        engine.check_output(f"systemctl show --value -p ActiveEnterTimestampMonotonic {UNIT}")
        == started
    )


def test_rules_that_nft_does_not_understand_are_refused_and_change_nothing(engine: Any) -> None:
    loaded = engine.check_output(OURS)
    links = engine.check_output(
        "find /opt/modelyard/services/firewall -type l -printf '%p %l\n' | sort"
    )
    done = converge("--limit", "engine,gateway", admitted=["not an address"])
    assert done.returncode != 0
    assert "nothing was changed" in " ".join(done.stdout.split())
    assert engine.check_output(OURS) == loaded
    assert (
        engine.check_output(
            "find /opt/modelyard/services/firewall -type l -printf '%p %l\n' | sort"
        )
        == links
    )


@pytest.mark.parametrize(
    "command",
    [
        "nft -f /etc/nftables.conf",
        "nft flush ruleset",
        "nft delete table inet modelyard",
        "nft flush table inet modelyard",
        "nft delete chain inet modelyard input",
        "nft insert rule inet modelyard input tcp dport 8080 accept",
        "nft 'table inet modelyard; delete table inet modelyard; table inet modelyard { chain x { }; }'",
    ],
)
def test_a_table_changed_by_hand_is_put_back(engine: Any, crowded: Any, command: str) -> None:
    """Within seconds, and systemd's count of restarts, which an alert watches, says so."""
    engine.check_output("printf 'flush ruleset\n' > /etc/nftables.conf")
    loaded = engine.check_output(OURS)
    restarts = f"systemctl show --value -p NRestarts {UNIT}"
    before = int(engine.check_output(restarts))
    engine.check_output(command)
    assert engine.run(OURS).stdout.strip() != loaded
    assert curl(crowded, address(engine), 8080).rc == 0
    wait_until(lambda: bool(engine.run(OURS).stdout.strip() == loaded), "it did not come back")
    wait_until(lambda: bool(engine.service(UNIT).is_running), "the unit did not come back")
    assert int(engine.check_output(restarts)) == before + 1
    assert "changed or removed" in engine.check_output(f"journalctl -u {UNIT} -n 20 -o cat")
    assert curl(crowded, address(engine), 8080).rc == REFUSED


def test_a_table_that_cannot_be_loaded_leaves_the_unit_down(engine: Any, crowded: Any) -> None:
    """Smoke and an alert see that; what is left of the table stays."""
    engine.check_output("chmod -x /usr/sbin/nft")
    try:
        time.sleep(12)  # systemd's default gives up after five starts in ten seconds
        assert engine.check_output(f"systemctl show --value -p SubState {UNIT}") == "auto-restart"
    finally:
        engine.check_output("chmod +x /usr/sbin/nft")
    wait_until(lambda: bool(engine.service(UNIT).is_running), "the unit did not come back")
    assert curl(crowded, address(engine), 8080).rc == REFUSED


def test_a_reload_is_no_change_by_hand(engine: Any) -> None:
    """The watch goes on with another release's table, in the same process."""
    process = f"systemctl show --value -p MainPID {UNIT}"
    before = engine.check_output(process)
    for admitted in (["192.0.2.1"], None):
        done = converge(**({"admitted": admitted} if admitted else {}))
        assert done.returncode == 0, done.stdout + done.stderr
        time.sleep(5)
        assert engine.check_output(process) == before
