"""Redis on a real host: who may do what, what survives a restart, and where the password is not."""

from __future__ import annotations

import hashlib
import shlex
import time
from typing import Any

import pytest

PASSWORD_FILE = "/etc/modelyard/credentials/redis/current/GATEWAY_PASSWORD"
# How Redis says no: to a command, to one switched off, and to a script that goes too far.
REFUSALS = (
    "NOPERM",
    "ACL failure in script",
    "command not allowed",
    "not allowed from script",
    "can't access at least one of the keys",
    "can't run this command",
)

# As LiteLLM 1.106.2 sends them (roles/redis/README.md says how this was found).
GATEWAY_NEEDS = [
    ("PING", "PONG"),
    ("SET litellm:t:a 1 EX 60", "OK"),
    ("GET litellm:t:a", "1"),
    ("MGET litellm:t:a litellm:t:b", "1"),
    ("INCRBYFLOAT litellm:t:f 1.5", "1.5"),
    ("INCRBY litellm:t:n 2", "2"),
    ("EXPIRE litellm:t:f 60", "1"),
    ("TTL litellm:t:f", "60"),
    ("DEL litellm:t:a litellm:t:f litellm:t:n", "3"),
]
FORBIDDEN = [
    "CONFIG GET maxmemory",
    "CONFIG SET dir /tmp",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "SHUTDOWN",
    "SAVE",
    "BGREWRITEAOF",
    "DEBUG SLEEP 0",
    "ACL LIST",
    "ACL SETUSER gateway +@all",
    "CLIENT LIST",
    "MONITOR",
    "MODULE LIST",
    "REPLICAOF 127.0.0.1 1",
    "MIGRATE 127.0.0.1 1 litellm:x 0 10",
    "SCRIPT FLUSH",
    "FUNCTION LIST",
    "PUBLISH litellm:x y",
    "GET other:key",
    "SET other:key 1",
    "MGET litellm:a other:key",
    "EVAL \"return redis.call('GET', KEYS[1])\" 1 other:key",
    "EVAL \"return redis.call('GET', 'other:key')\" 0",
    "EVAL \"return redis.call('CONFIG', 'GET', 'dir')\" 0",
]
# The shape of LiteLLM's rate limiter: count within a window, give the key its life on the first
# call.
LIMITER = (
    "local n = redis.call('INCRBYFLOAT', KEYS[1], ARGV[1]) "
    "if redis.call('TTL', KEYS[1]) == -1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end return n"
)
# And of its limit of parallel requests: a sorted set of leases.
LEASES = (
    "local now = redis.call('TIME')[1] redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 60) if"
    " redis.call('ZCARD', KEYS[1]) < 1 then redis.call('ZADD', KEYS[1], now, ARGV[1]) return 1 end"
    " return 0"
)


@pytest.fixture(scope="module")
def port(host: Any) -> int:
    return int(host.ansible.get_variables()["listen_port"])


@pytest.fixture(scope="module")
def gateway(host: Any, port: int) -> Any:
    """Return a function that sends commands as the gateway; the password stays on the host."""

    def send(*commands: str) -> str:
        lines = shlex.quote("\n".join(commands))
        client = f"REDISCLI_AUTH=$(cat {PASSWORD_FILE}) redis-cli -p {port} --user gateway"
        script = f"printf '%s\\n' {lines} | {client}"
        done = host.run(script)
        assert done.rc == 0, done.stderr
        return str(done.stdout).strip()

    return send


def test_unit_runs_and_comes_back_at_boot(host: Any) -> None:
    service = host.service("modelyard-redis")
    assert service.is_running, host.run("journalctl -u modelyard-redis -n 30 --no-pager").stdout
    assert service.is_enabled
    assert host.file("/etc/systemd/system/modelyard.target.wants/modelyard-redis.service").exists


def test_sandbox_score(host: Any) -> None:
    line = host.run("systemd-analyze security --no-pager modelyard-redis | tail -1").stdout
    assert float(line.split(":")[1].split()[0]) <= 1.6, line


def test_listens_on_loopback_alone(host: Any, port: int) -> None:
    sockets = host.run(f"ss -Hltn 'sport = :{port}'").stdout.split("\n")
    assert [line.split()[3] for line in sockets if line] == [f"127.0.0.1:{port}"]


def test_nobody_gets_in_without_the_password(host: Any, port: int) -> None:
    assert "NOAUTH" in host.run(f"redis-cli -p {port} PING").stdout
    assert (
        "WRONGPASS"
        in host.run(f"REDISCLI_AUTH=x redis-cli -p {port} --user gateway PING 2>&1").stdout
    )
    assert (
        "WRONGPASS"
        in host.run(f"REDISCLI_AUTH= redis-cli -p {port} --user default --pass '' PING 2>&1").stdout
    )


def test_gateway_can_do_what_it_needs(gateway: Any) -> None:
    answers = gateway(*(command for command, _ in GATEWAY_NEEDS)).splitlines()
    answers = [answer for answer in answers if answer]
    assert answers == [answer for _, answer in GATEWAY_NEEDS]


def test_gateways_scripts_run(gateway: Any) -> None:
    assert (
        gateway(f'EVAL "{LIMITER}" 1 litellm:t:window 1.5 60', "TTL litellm:t:window") == "1.5\n60"
    )
    assert gateway(*[f'EVAL "{LEASES}" 1 litellm:t:leases x'] * 2) == "1\n0"
    digest = hashlib.sha1(LIMITER.encode()).hexdigest()
    loaded = gateway(f'SCRIPT LOAD "{LIMITER}"', f"EVALSHA {digest} 1 litellm:t:window 1 60")
    assert loaded == f"{digest}\n2.5"
    gateway("DEL litellm:t:window litellm:t:leases")


def test_gateway_can_do_nothing_else(gateway: Any) -> None:
    answers = {command: gateway(command) for command in FORBIDDEN}
    not_refused = {
        command: answer
        for command, answer in answers.items()
        if not any(words in answer for words in REFUSALS)
    }
    assert not_refused == {}


def test_who_measures_reads_figures_and_no_keys(host: Any, gateway: Any, port: int) -> None:
    """The user exists where it has a password."""
    credential = PASSWORD_FILE.replace("GATEWAY", "MONITOR")
    if not host.file(credential).exists:
        answer = host.run(
            f"REDISCLI_AUTH=$(cat {PASSWORD_FILE}) redis-cli -p {port} --user monitor PING 2>&1"
        ).stdout
        assert "WRONGPASS" in answer
        return
    gateway("SET litellm:t:seen 1")
    client = f"REDISCLI_AUTH=$(cat {credential}) redis-cli -p {port} --user monitor"
    assert "used_memory:" in host.check_output(f"{client} INFO")
    assert host.check_output(f"{client} SLOWLOG LEN").isdigit()
    for command in [
        *FORBIDDEN,
        "GET litellm:t:seen",
        "SET litellm:t:seen 2",
        "SLOWLOG GET",
        "SLOWLOG RESET",
    ]:
        answer = host.run(f"{client} {command}").stdout
        assert any(words in answer for words in REFUSALS), (command, answer)
    assert gateway("GET litellm:t:seen", "DEL litellm:t:seen") == "1\n1"


def test_memory_is_bounded(host: Any, gateway: Any) -> None:
    wanted = host.ansible.get_variables()["maxmemory_mib"]
    memory = gateway("INFO memory")
    assert f"maxmemory:{wanted * 2**20}" in memory
    assert "maxmemory_policy:allkeys-lru" in memory


def test_what_survives_a_restart_is_what_was_asked_for(host: Any, gateway: Any) -> None:
    persistence = host.ansible.get_variables()["persistence"]
    gateway("SET litellm:t:kept yes EX 600")
    if persistence == "aof":
        # Not even a chance to save: the log has to be enough, but for its last second.
        host.run("sleep 1.5; systemctl kill --signal=KILL modelyard-redis")
    else:
        host.run("systemctl restart modelyard-redis")
    host.run(
        "for i in $(seq 50); do systemctl is-active -q modelyard-redis && break; sleep 0.1; done"
    )
    assert gateway("GET litellm:t:kept") == ("" if persistence == "none" else "yes")
    gateway("DEL litellm:t:kept")
    assert f"aof_enabled:{int(persistence == 'aof')}" in gateway("INFO persistence")


def test_packages_own_service(host: Any) -> None:
    stock = host.service("redis-server")
    if host.ansible.get_variables().get("stock_redis_was_there"):
        assert stock.is_running
        assert stock.is_enabled
        assert host.socket("tcp://127.0.0.1:6379").is_listening
    else:
        assert not stock.is_running
        assert stock.is_masked


def test_password_is_nowhere_but_in_its_credential(host: Any) -> None:
    # The search runs on the host, so that the password does not travel into a log of this test
    # either.
    script = f"""
        secret=$(cat {PASSWORD_FILE})
        ( systemctl restart modelyard-redis; touch /tmp/restarted ) &
        while [ ! -e /tmp/restarted ]; do cat /proc/[0-9]*/cmdline; done > /tmp/cmdlines 2>/dev/null
        pid=$(systemctl show --value -p MainPID modelyard-redis)
        [ -s /tmp/cmdlines ] || echo "no command line was seen"
        for place in "systemctl cat modelyard-redis" "systemctl show modelyard-redis" "cat /tmp/cmdlines" \\
            "journalctl --no-pager -o cat" "cat /run/modelyard-redis/users.acl" "grep -r . /opt/modelyard" \\
            "grep -r . /var/lib/modelyard/activations" "cat /proc/$pid/environ"; do
            $place 2>/dev/null | grep -qaF -- "$secret" && echo "$place"
        done
        rm /tmp/restarted /tmp/cmdlines
    """
    assert host.run(script).stdout == ""


def test_credentials_are_roots(host: Any) -> None:
    for path, mode in (("/etc/modelyard/credentials", 0o700), (PASSWORD_FILE, 0o600)):
        found = host.file(path)
        assert (found.user, found.group, found.mode) == ("root", "root", mode)
    assert host.file("/run/modelyard-redis/users.acl").mode == 0o600
    assert host.file("/var/lib/modelyard/redis").mode == 0o700


def test_a_port_that_comes_late_is_waited_for(host: Any) -> None:
    """As an address that comes after boot: systemd's default gives up after five starts in ten
    seconds."""
    variables = host.ansible.get_variables()
    if variables["inventory_hostname"] != "none":
        pytest.skip("one host is enough")
    unit, port = "modelyard-redis", variables["listen_port"]
    taken = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(14)"
    host.check_output(f"systemctl stop {unit}")
    host.check_output(f'systemd-run --unit taken --service-type=exec python3 -c "{taken}"')
    time.sleep(1)
    host.check_output(f"systemctl start --no-block {unit}")
    deadline = time.monotonic() + 60
    while not host.service(unit).is_running:
        assert time.monotonic() < deadline, "it was given up"
        time.sleep(0.5)
    assert int(host.check_output(f"systemctl show --value -p NRestarts {unit}")) > 5
