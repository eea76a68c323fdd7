"""Clients of the gateway: added and revoked under traffic, limited over both workers, and keys that
no host has."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import Traffic, chat

STATE = "/var/lib/modelyard/litellm"
KEYS = {"app": "sk-planted-key-of-a-client", "limited": "planted-key-without-a-prefix"}
OTHER = "planted-other-key-of-the-second"
APP = {"secret": "APP_KEY"}
LIMITED = {"secret": "LIMITED_KEY", "models": ["stand-in"], "rpm": 5}


def converge(
    clients: dict[str, Any], *arguments: str, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Apply the roles again, with other clients."""
    values = json.dumps({"clients": clients, **more})
    return ansible_playbook("--diff", "converge.yml", "-e", values, *arguments)


def known(host: Any) -> dict[str, str]:
    """Return the hash of each client's key that the host has."""
    clients = json.loads(host.file(f"{STATE}/clients.json").content_string)["clients"]
    return {client["name"]: client["sha256"] for client in clients}


def running(host: Any) -> list[str]:
    """Return when each unit of the gateway and its door was started: another slot or process would
    show."""
    units = "modelyard-litellm@blue modelyard-litellm@green modelyard-haproxy"
    return str(
        host.check_output(f"systemctl show --property=Id,MainPID,ActiveEnterTimestamp {units}")
    ).splitlines()


def status(door: str, key: str) -> tuple[int, dict[str, str]]:
    """Return how a question with this key is answered, and the answer's headers."""
    try:
        chat(door, key, "stand-in")
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}
    return 200, {}


def patterns(words: Iterable[str]) -> str:
    """Return the words as arguments of grep."""
    return " ".join(f"-e {word}" for word in words)


@pytest.fixture
def door(host: Any) -> str:
    """Address of the front door, as this machine reaches it."""
    return f"http://{host.ansible.get_variables()['ansible_host']}:4000"


def test_the_file_is_private(host: Any) -> None:
    file = host.file(f"{STATE}/clients.json")
    assert (file.user, file.group, file.mode) == ("root", "modelyard-litellm", 0o640)
    assert (host.file(STATE).user, host.file(STATE).group) == (
        "modelyard-litellm",
        "modelyard-litellm",
    )
    assert list(known(host)) == ["app", "limited"]


def test_a_limit_is_one_for_both_workers(host: Any, door: str) -> None:
    """Counted in Redis, as the role's ACL lets the gateway: each worker for itself would let more
    through."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: status(door, KEYS["limited"]), range(40)))
    assert Counter(code for code, _ in answers) == {200: 5, 429: 35}
    assert all(0 < int(headers["retry-after"]) <= 60 for code, headers in answers if code == 429)
    assert "NOPERM" not in host.check_output("journalctl --no-pager -u 'modelyard-litellm@*'")


def test_clients_come_and_go_under_traffic(
    host: Any, door: str, measured: Callable[[str], None]
) -> None:
    """Nothing is restarted, who may ask all the while notices nothing, and what is printed holds no
    key and no hash."""
    before = running(host)
    hashes = known(host)
    with Traffic(door, KEYS["app"], "stand-in", rate=5) as traffic:
        added = converge(
            {"app": APP, "limited": LIMITED, "new": {"secret": "NEW_KEY", "models": ["stand-in"]}}
        )
        assert added.returncode == 0, added.stdout
        hashes |= known(host)
        new = (SCENARIO / "inventory/.credentials/NEW_KEY").read_text().strip()
        codes = [status(door, new)[0] for _ in range(10)]
        secrets = {
            "LITELLM_MASTER_KEY": "sk-planted-master-key",
            "APP_KEY": KEYS["app"],
            "LIMITED_KEY": OTHER,
        }
        revoked = converge({"app": APP, "limited": LIMITED}, "-vvv", llm_secrets=secrets)
        assert revoked.returncode == 0, revoked.stdout
        hashes |= known(host)
        codes += [status(door, key)[0] for key in (new, KEYS["limited"]) for _ in range(10)]
    assert codes == [200] * 10 + [401] * 20
    assert status(door, OTHER)[0] in (200, 429)
    assert running(host) == before
    assert traffic.failures == []
    assert traffic.answered > 20, traffic.answered
    measured(
        f"a client added and revoked: {traffic.answered} requests, {traffic.streams} streams, none"
        " failed"
    )
    assert "+new: stand-in" in added.stdout
    assert "-new: stand-in" in revoked.stdout
    assert "+limited: stand-in; 5 requests a minute; key changed" in revoked.stdout
    for done in (added, revoked):
        assert done.stdout.partition("PLAY RECAP")[2].count("changed=1 ") == 1, done.stdout
        printed = [
            secret
            for secret in [*KEYS.values(), OTHER, new, *hashes.values()]
            if secret in done.stdout
        ]
        assert printed == []
    assert len(new) > 40


def test_a_file_changed_by_hand_is_put_right(host: Any, door: str) -> None:
    host.check_output(f"chmod 644 {STATE}/clients.json; echo damaged > {STATE}/clients.json")
    assert status(door, KEYS["app"])[0] == 200
    assert "is damaged, the 2 clients of before are kept" in host.check_output(
        "journalctl --no-pager"
    )
    assert ansible_playbook("converge.yml").returncode == 0
    assert host.file(f"{STATE}/clients.json").mode == 0o640
    assert list(known(host)) == ["app", "limited"]
    assert status(door, OTHER)[0] == 401


def test_keys_of_clients_are_nowhere_on_the_host(host: Any) -> None:
    """Nor their hashes in a release: going back to an older one brings no client back."""
    keys = [*KEYS.values(), OTHER]
    places = "/etc /opt/modelyard/services /var/lib /var/log /run /root /tmp"
    assert host.run(f"grep -rIl {patterns(keys)} {places} 2>/dev/null").stdout == ""
    for command in (
        "ps axww -o args",
        "journalctl --no-pager",
        "systemctl show 'modelyard-*' --all",
        "cat /proc/[0-9]*/environ",
    ):
        said = host.run(f"{command} 2>/dev/null").stdout
        assert not [key for key in keys if key in said], command
    assert "modelyard: client app: POST /v1/chat/completions stand-in" in host.check_output(
        "journalctl --no-pager"
    )
    search = (
        f"grep -rIl {patterns(known(host).values())} /etc /opt/modelyard/services /var /run"
        " 2>/dev/null"
    )
    assert host.run(search).stdout.split() == [f"{STATE}/clients.json"]


def test_the_name_is_in_the_metrics(host: Any) -> None:
    metrics = "".join(
        host.run(f"curl -s http://127.0.0.1:{port}/metrics/").stdout for port in (4001, 4002)
    )
    counted = [
        line
        for line in metrics.splitlines()
        if line.startswith("litellm_proxy_total_requests_metric_total{")
    ]
    assert any('api_key_alias="app"' in line for line in counted), counted
