"""What goes wrong on the way from host to host: downloads, hosts, connections and controllers.

Rows as in test_rolling.py. All take minutes, as much of each is waiting for a time-out.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelyard_playbook import SCENARIO, ansible_playbook, said
from rolling import (
    CHANGE_BEGINS,
    DRAIN_BEGINS,
    ENGINES,
    GATEWAYS,
    UNIT,
    Row,
    Run,
    began,
    change,
    clients,
    drained,
    host,
    live,
    pool,
    pools,
    process,
    runs_what_is_live,
    silent,
    site,
    table,
    wait_until,
    without_ssh,
)

pytestmark = pytest.mark.full

RUNNING = SCENARIO.parent / "_shared/running.sh"
SHORT = 5
"""Seconds that a drain lasts in tests of what ends one."""
HEALS_S = SHORT + 2 * 20 + 60
"""Seconds after which a drain ends by itself (tasks/activate.yml), with the inventory's
`ready_timeout_s`."""


def everything() -> dict[str, str]:
    """What tells the processes of the engines from the next ones."""
    return {name: process(name, UNIT) for name in ENGINES}


# -- downloads -------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[str]:
    """The address of a web server of this machine that has a model file, as the hosts reach it."""
    content = host("e1").file("/srv/lab/models/tiny.gguf").content
    (tmp_path / "model.gguf").write_bytes(content)
    address = host("e1").check_output("ip -4 route show default").split()[2]
    server = ThreadingHTTPServer((address, 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{address}:{server.server_port}/model.gguf"
    server.shutdown()


def test_corrupt_download(doors: dict[str, str], row: Row, shelf: str) -> None:
    before, releases = everything(), [live(name) for name in ENGINES]
    started = time.monotonic()
    with clients(doors) as seen:
        failed = site(*change({"source": {"path": None, "url": shelf, "sha256": "0" * 64}}))
    took = time.monotonic() - started
    assert failed.returncode == 2, failed.stdout
    assert "sha256" in failed.stdout.lower(), failed.stdout
    assert table(failed) == {"e1": "failed", "e2": "not begun"}
    assert everything() == before, "an engine restarted"
    assert [live(name) for name in ENGINES] == releases
    assert drained() == []
    assert seen.failures == []
    row("a corrupt download: nothing went live", took, seen)


# -- hosts and connections -------------------------------------------------------------------------


def test_host_that_is_down(doors: dict[str, str], row: Row) -> None:
    first, release = began("e1"), live("e1")
    with silent("e2"):
        wait_until(lambda: all(pool(door)["e2"] == "DOWN" for door in doors), "e2 is not missed")
        with clients(doors) as seen, Run(*change()) as run:
            run.read_until("PLAY [Ask the hosts")
            started = time.monotonic()
            run.read_until("UNREACHABLE!")
            took = time.monotonic() - started
            done = run.end()
    assert "e2 cannot be reached, and no host was changed" in said(done), done.stdout
    assert took < 30, done.stdout
    assert done.returncode != 0
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout
    assert (began("e1"), live("e1")) == (first, release)
    assert seen.failures == []
    row("the second host is down: named after this time, nothing changed", took, seen)


def test_host_that_is_left_out(doors: dict[str, str], row: Row) -> None:
    """The other one changes, and nobody serves meanwhile: what clients saw is told, not judged."""
    before = {name: live(name) for name in ENGINES}
    wanted = change(on_unreachable="skip")
    with silent("e2"):
        wait_until(lambda: all(pool(door)["e2"] == "DOWN" for door in doors), "e2 is not missed")
        started = time.monotonic()
        with clients(doors) as seen:
            done = site(*wanted)
            took = time.monotonic() - started
    assert done.returncode == 2, done.stdout
    assert "e2 could not be reached and is left out" in said(done), done.stdout
    assert live("e1") != before["e1"]
    row("on_unreachable: skip with the second host down: the first changed", took, seen)
    process_of_first, started = began("e1"), time.monotonic()
    with clients(doors) as seen:
        again = site(*wanted)
    assert again.returncode == 0, again.stdout
    assert live("e2") != before["e2"]
    assert began("e1") == process_of_first
    assert seen.failures == []
    row("then it was up, and the next run caught up on it", time.monotonic() - started, seen)


def test_connection_cut_in_the_second_wave(doors: dict[str, str], row: Row) -> None:
    wanted = change(drain_s=SHORT)
    with clients(doors) as seen:
        started = time.monotonic()
        with Run(*wanted) as run:
            run.read_until(CHANGE_BEGINS, times=2)
            with without_ssh("e2"):
                done = run.end()
        took = time.monotonic() - started
        assert done.returncode != 0, done.stdout
        assert "[e2]: UNREACHABLE!" in done.stdout, done.stdout
        row("SSH of the second host cut in its wave: the run ended", took, seen)
        healed = wait_until(lambda: not drained(), f"{pools()}", HEALS_S + 60)
        row("then no host was left drained", healed, seen)
        again = site(*wanted)
        assert again.returncode == 0, again.stdout
    assert seen.failures == []
    assert all(runs_what_is_live(name) for name in ENGINES)
    row("the next run converged", time.monotonic() - started, seen)


# -- controllers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wave", [1, 2])
def test_controller_killed(doors: dict[str, str], row: Row, wave: int) -> None:
    before = {name: live(name) for name in ENGINES}
    wanted = change(drain_s=SHORT)
    name = ENGINES[wave - 1]
    with clients(doors) as seen:
        with Run(*wanted) as run:
            run.read_until(CHANGE_BEGINS, times=wave)
            # Not at its first instant: it is to have begun.
            time.sleep(0.4)
            run.kill()
        started = time.monotonic()
        assert drained() == [f"{name} in {gateway}" for gateway in GATEWAYS]
        wait_until(lambda: not drained(), "the drain has no end", HEALS_S + 60)
        healed = time.monotonic() - started
        started = time.monotonic()
        again = site(*wanted)
        assert again.returncode == 0, again.stdout
    assert [name for name, release in before.items() if live(name) == release] == []
    assert seen.failures == []
    what = f"controller killed in wave {wave}: healed in {healed:.0f} s, the next run converged"
    row(what, time.monotonic() - started, seen)


def elsewhere(directory: Path, groups: dict[str, Any] | None = None) -> tuple[str, ...]:
    """The scenario's inventory in another place, with other members of some groups."""
    for name in ("group_vars", ".credentials"):
        (directory / name).symlink_to(SCENARIO / "inventory" / name)
    hosts = yaml.safe_load((SCENARIO / "inventory/hosts.yml").read_text(encoding="utf-8"))
    stack = hosts["all"]["children"]["llm_stack"]
    for group, members in (groups or {}).items():
        place = stack if group == "llm_stack" else stack["children"][group]
        place["hosts"] = dict.fromkeys(members)
    (directory / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    return f"--inventory={directory}", f"--inventory={RUNNING}"


def test_two_controllers(doors: dict[str, str], row: Row, tmp_path: Path) -> None:
    """From another clone, whose lock of the inventory is another file."""
    with clients(doors) as seen, Run(*change()) as run:
        run.read_until("PLAY [Prepare the hosts]")
        started = time.monotonic()
        refused = ansible_playbook("converge.yml", *elsewhere(tmp_path), *change())
        took = time.monotonic() - started
        done = run.end()
    assert done.returncode == 0, done.stdout
    assert refused.returncode != 0, refused.stdout
    told = (
        r"converge\.yml has been changing the hosts of this inventory since"
        rf" \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC: \S+@\S+, process {run.process.pid}\."
    )
    assert re.search(told, said(refused)), refused.stdout
    assert set(re.findall(r"changed=(\d+)", refused.stdout)) == {"0"}, refused.stdout
    assert seen.failures == []
    row("a second controller: refused, told who, where and since when", took, seen)


# -- hosts that come and go ------------------------------------------------------------------------


def bystanders() -> dict[str, str]:
    """The processes that no change of the pool's hosts is to restart."""
    found = {"e1": process("e1", UNIT), "redis": process("g1", "modelyard-redis")}
    for name in GATEWAYS:
        found[f"front end of {name}"] = process(name, "modelyard-haproxy")
        slots = "systemctl list-units --plain --no-legend --state=active 'modelyard-litellm@*'"
        found[f"gateway of {name}"] = process(name, host(name).check_output(slots).split()[0])
    return found


def test_hosts_that_come_and_go(doors: dict[str, str], row: Row, tmp_path: Path) -> None:
    """One host leaves the model's group and another joins it; then the same back."""
    planned = site()
    assert planned.returncode == 0, planned.stdout
    other = elsewhere(tmp_path, {"llm_llama_cpp_native": ["e1", "g2"], "llm_stack": ["e2"]})
    before = bystanders()
    for arguments, members, gone in (
        (other, {"e1", "g2"}, "e2"),
        ((), {"e1", "e2"}, "g2"),
    ):
        started = time.monotonic()
        with clients(doors) as seen:
            done = site(*arguments)
        took = time.monotonic() - started
        assert done.returncode == 0, done.stdout
        assert DRAIN_BEGINS in done.stdout
        assert {name: set(found) for name, found in pools().items()} == dict.fromkeys(
            doors, members
        )
        assert host(gone).run(f"systemctl is-active {UNIT}").rc != 0
        assert bystanders() == before
        assert seen.failures == []
        row(f"{', '.join(members - {'e1'})} joined the model, {gone} left it", took, seen)
