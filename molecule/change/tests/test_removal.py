"""What the inventory no longer has leaves its host, and comes back: Redis moves to another host, an
engine goes.

Both are one change, so that it is applied once and undone once. The scenario's inventory stays as
it is.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
import yaml
from changing import ALL, KEY, MODEL, SERVICES, STAND_BY, lab, live, runs, site
from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import Traffic, chat

pytestmark = pytest.mark.full

RUNNING = SCENARIO.parent / "_shared/running.sh"
LEAVING = {"redis": 6379, f"llama-cpp@{STAND_BY}": 8081}
"""What leaves the host `one`, and the port that it had."""


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    """A second host. It is off afterwards; its disk goes with the scenario's lab."""
    lab("up", "two")
    yield testinfra.get_host(f"ansible://two?ansible_inventory={RUNNING}")
    with contextlib.suppress(subprocess.CalledProcessError):  # it ends the connection
        lab("ssh", "two", "systemctl", "poweroff")


@pytest.fixture(scope="module")
def before(one: Any) -> dict[str, str]:
    """The live releases of `one`, as the catalogue wants them: they are to be that again."""
    done = site()
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: live(one, name) for name in ALL}


@pytest.fixture(scope="module")
def inventory(two: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The scenario's inventory, with its values and secrets, but Redis is on the other host."""
    scenario, directory = SCENARIO / "inventory", tmp_path_factory.mktemp("inventory")
    for name in ("group_vars", ".credentials"):
        (directory / name).symlink_to(scenario / name)
    hosts = yaml.safe_load((scenario / "hosts.yml").read_text(encoding="utf-8"))
    hosts["all"]["children"]["llm_stack"]["children"]["llm_redis"]["hosts"] = {"two": None}
    (directory / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    return f"--inventory={directory}", f"--inventory={RUNNING}"


@pytest.fixture(scope="module")
def change(inventory: tuple[str, ...]) -> tuple[str, ...]:
    """Redis on the other host, and no stand-by any more."""
    fallbacks = {MODEL: {"chain": None, "terminal": True}, STAND_BY: None}
    catalogue = {
        "providers": {"spare": {"status": "disabled"}},
        "routing": {"fallbacks": fallbacks},
    }
    return (*inventory, "-e", json.dumps({"llm_overrides_test": catalogue}))


def planned(*arguments: str) -> str:
    """What `plan` says would change."""
    done = ansible_playbook("../../playbooks/plan.yml", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"^ {8}", "", done.stdout.partition("Pending changes\n")[2], flags=re.MULTILINE)


def listens(host: Any, port: int) -> bool:
    return bool(host.check_output(f"ss -Hltn 'sport = :{port}'"))


def units(host: Any) -> str:
    """The units of our services that are installed on a host."""
    return str(host.run("ls /etc/systemd/system | grep '^modelyard-'").stdout)


def test_plan_names_what_leaves(before: dict[str, str], change: tuple[str, ...]) -> None:
    text = planned(*change)
    one, _, two = text.partition("\n  two\n")
    for name in LEAVING:
        assert f"    remove   {name} (live since " in one, text
    assert f"    public names to be removed: {STAND_BY}\n" in one, text
    assert f"    keep     llama-cpp@{MODEL}" in one, text
    assert re.findall(r"^    (\w+) +(\S+)", two, re.MULTILINE) == [
        ("add", "firewall"),
        ("add", "redis"),
    ], text


def test_a_live_name_does_not_go_unasked(
    one: Any, two: Any, before: dict[str, str], change: tuple[str, ...]
) -> None:
    refused = site(*change)
    assert refused.returncode != 0
    assert f"live and missing from the plan: {STAND_BY}." in refused.stdout, refused.stdout
    assert "llm_allow_removal=true" in refused.stdout
    assert {name: runs(one, name) for name in ALL} == before
    assert units(two) == "", "a host was changed"


def test_what_leaves_is_stopped_and_cleaned_away(
    one: Any,
    two: Any,
    door: str,
    before: dict[str, str],
    change: tuple[str, ...],
    measured: Callable[[str], None],
) -> None:
    arguments = (*change, "-e", "llm_allow_removal=true")
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        done = site(*arguments)
    took = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    assert traffic.failures == []
    for name, port in LEAVING.items():
        unit = f"modelyard-{name}.service"
        assert one.run(
            f"systemctl show --value --property=LoadState,ActiveState {unit}"
        ).stdout.split() == [
            "not-found",
            "inactive",
        ]
        assert not listens(one, port)
        # Its releases stay for a week.
        assert sorted(one.file(f"{SERVICES}/{name}").listdir()) == [
            "history.jsonl",
            "previous",
            "releases",
        ]
    assert one.file("/var/lib/modelyard/redis").is_directory, "data stays until somebody deletes it"
    assert runs(one, f"llama-cpp@{MODEL}") == before[f"llama-cpp@{MODEL}"], (
        "it was none of its business"
    )
    assert runs(two, "redis") == live(two, "redis")
    gateway = one.ansible.get_variables()["ansible_host"]
    assert gateway in two.check_output("ss -Htn state established 'sport = :6379'"), (
        "the gateway uses another Redis"
    )
    with pytest.raises(urllib.error.HTTPError):
        chat(door, KEY, STAND_BY)
    asked = traffic.answered + traffic.streams
    measured(
        f"Redis moved to another host, an engine went: {took:.0f} s; {asked} requests, none failed"
    )
    again = site(*arguments)
    assert again.returncode == 0, again.stdout
    assert re.findall(r"changed=(\d+)", again.stdout) == ["0", "0"], again.stdout


def test_what_left_comes_back(
    one: Any,
    two: Any,
    door: str,
    before: dict[str, str],
    inventory: tuple[str, ...],
    measured: Callable[[str], None],
) -> None:
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        back = ansible_playbook("../../playbooks/rollback.yml", *inventory)
    took = time.monotonic() - started
    assert back.returncode == 0, back.stdout + back.stderr
    assert traffic.failures == []
    assert {name: live(one, name) for name in ALL} == before
    assert {name: runs(one, name) for name in ALL} == before
    assert json.loads(chat(door, KEY, STAND_BY))["choices"]
    assert not listens(two, 6379)
    assert units(two) == ""
    assert planned().startswith(f"  one: nothing, {len(ALL) + 1} services as planned\n")
    asked = traffic.answered + traffic.streams
    measured(f"both came back with rollback.yml: {took:.0f} s; {asked} requests, none failed")
