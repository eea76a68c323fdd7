"""Changes that go wrong on one host, with a client that asks all the while: what it saw, and what
ran afterwards.

Every test adds a row to the table that is printed at the end; the last one sees to it that no row
is missing. Faults are real: processes are killed, disks are full, units are broken. Times are
measured and printed, not judged. `make test` has one row of each mechanism; rows marked `full` are
variants of it that take minutes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from changing import (
    ALL,
    CARD,
    KEY,
    MODEL,
    SERVICES,
    STAND_BY,
    answers,
    lab,
    live,
    runs,
    site,
    unit_of,
    wait_until,
)
from modelyard_playbook import SCENARIO, ansible_module, ansible_playbook
from modelyard_traffic import Traffic

LOCK = "/var/lib/modelyard/activations/redis.json.lock"
NOBODY_SWITCHES = (
    "for lock in /var/lib/modelyard/activations/*.lock; do flock --nonblock $lock true || exit 1;"
    " done"
)


@dataclass(frozen=True)
class Row:
    """One fault, how it was met, and what the client saw."""

    fault: str
    what: str
    seconds: float
    traffic: Traffic | None = None

    def __str__(self) -> str:
        seen = "not asked"
        if self.traffic:
            asked = self.traffic.answered + self.traffic.streams + len(self.traffic.failures)
            seen = f"{len(self.traffic.failures)} of {asked} requests failed"
        return f"{self.fault:<46}  {self.what:<58}  {self.seconds:6.1f} s  {seen}"


ROWS: dict[str, Row] = {}
FAULTS = (
    "run killed at every task that changes something",
    "activation killed at every moment",
    "activation and its supervisor killed",
    "host without power in the middle of an activation",
    "connection cut in the middle of a deploy",
    "disk full while staging",
    "no inode left while staging",
    "target read-only while staging",
    "starts and fails its check",
    "unit that does not parse",
    "program that crashes after five seconds",
    "gateway that cannot be imported",
    "Redis lost and back",
    "live slot of the gateway killed",
    "front door reloaded under streams",
    "engine killed in the middle of a stream",
    "latest run rolled back while the gateway is down",
    "download of a model arrives damaged",
    "fetch of a model killed half-way",
    "build killed half-way",
    "clock set a year ahead and back",
    "host rebooted",
)
"""Every row of the table."""


@pytest.fixture
def row(measured: Callable[[str], None]) -> Callable[..., None]:
    def add(fault: str, what: str, seconds: float, traffic: Traffic | None = None) -> None:
        assert fault in FAULTS
        ROWS[fault] = Row(fault, what, seconds, traffic)
        measured(str(ROWS[fault]))

    return add


@pytest.fixture(autouse=True)
def everything_serves(one: Any, door: str) -> Iterator[None]:
    """Every test begins and ends with a host on which everything answers."""
    yield
    wait_until(lambda: all(runs(one, name) for name in ALL), "not everything runs", 120)
    wait_until(lambda: answers(door), "nobody answers", 120)


def changed(number: int) -> tuple[str, str]:
    """A change of every service, on the command line; `number` makes it another one."""
    first, second = (
        [{"name": name, "context_length": 512 + 64 * number}] for name in (MODEL, STAND_BY)
    )
    gateway = {
        "cooldown_s": 30 + number,
        "timeouts": {"door_s": 3600 + number},
        "redis": {"maxmemory_mib": 128 + number},
    }
    providers = {"llama_cpp_native": {"models": first}, "spare": {"models": second}}
    catalogue = {"providers": providers, "gateway": gateway}
    return "-e", json.dumps({"llm_overrides_test": catalogue})


def module(name: str, /, **arguments: Any) -> dict[str, Any]:
    """Run one module on the host, as a task of a playbook does; returns its result, failed or
    not."""
    return ansible_module("one", name, arguments)


def manifest(one: Any, name: str) -> dict[str, Any]:
    """What the live release of a service was made from."""
    return dict(json.loads(one.check_output(f"cat {SERVICES}/{name}/current/manifest.json")))


def staged(one: Any, name: str, **changes: Any) -> dict[str, Any]:
    """Stage a release like the live one but for `changes`, without a role; returns the module's
    result."""
    spec = {**manifest(one, name), **changes}
    return module(
        "modelyard_release",
        service=name,
        user=spec["user"],
        files=[{"path": path, "content": content} for path, content in spec["files"].items()],
        units=[{"name": unit, "content": content} for unit, content in spec["units"].items()],
        store=spec["store"],
        generation=spec["generation"],
        activation=spec["activation"],
        checks=spec["checks"],
        plan=spec["plan"],
    )


def two_releases(one: Any, name: str = "redis") -> tuple[str, str]:
    """The live release of a service, and another good one that is on the host, too."""
    spec = manifest(one, name)
    units = {unit: f"{content}\n# {time.time_ns()}\n" for unit, content in spec["units"].items()}
    first = live(one, name)
    second = staged(one, name, units=units)["id"]
    assert second != first
    return first, second


# -- the clock -------------------------------------------------------------------------------------

YEAR_S = 365 * 86400
PRELOADED = "/usr/lib/clock-of-the-tests.so"


@pytest.fixture
def clock(one: Any, door: str, tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Sets the clock of our services, and of whatever a run does on the host (see files/clock.c: a
    stand-in)."""
    library = tmp_path / "clock.so"
    build = ["cc", "-shared", "-fPIC", "-O2", "-o", library, SCENARIO / "files/clock.c"]
    subprocess.run(build, check=True, capture_output=True)
    one.check_output(
        f"echo {base64.b64encode(library.read_bytes()).decode()} | base64 -d > {PRELOADED}; "
        "head -c 8 /dev/zero > /etc/clock-ahead; cp /etc/environment /srv/environment; "
        "drop=/run/systemd/system/modelyard-.service.d; mkdir -p $drop; "
        f"printf '[Service]\nEnvironment=LD_PRELOAD={PRELOADED}\n' > $drop/clock.conf; "
        f"echo LD_PRELOAD={PRELOADED} >> /etc/environment"
    )

    def anew() -> None:
        cut(one, "pkill -9 -f '^sshd: root'")
        one.check_output("systemctl daemon-reload; systemctl restart 'modelyard-*'")
        wait_until(lambda: answers(door), "nobody answers", 120)

    def move(ahead_s: int) -> None:
        """In place: a file cut short would kill whoever has it mapped."""
        one.check_output(
            f"""python3 -c 'import struct; open("/etc/clock-ahead", "r+b").write(struct.pack("q", {ahead_s}))'"""
        )

    anew()
    yield move
    # Redis keeps what was cooled down with the time of then.
    one.check_output(
        "mv /srv/environment /etc/environment; rm -r /run/systemd/system/modelyard-.service.d"
    )
    anew()
    one.check_output(f"rm {PRELOADED} /etc/clock-ahead")


@pytest.mark.full
def test_clock_jumps(
    one: Any, door: str, row: Callable[..., None], clock: Callable[[int], None]
) -> None:
    before = {name: live(one, name) for name in ALL}
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        clock(YEAR_S)
        assert int(one.check_output("date +%s")) > time.time() + YEAR_S / 2
        ahead = site(
            "-e",
            json.dumps(
                {"llm_overrides_test": {"gateway": {"redis": {"maxmemory_mib": 200}, "workers": 1}}}
            ),
        )
        assert ahead.returncode == 0, ahead.stdout
        then = {name: live(one, name) for name in ALL}
        clock(0)
        assert abs(int(one.check_output("date +%s")) - time.time()) < 60
        back = ansible_playbook("../../playbooks/rollback.yml")
        assert back.returncode == 0, back.stdout
    assert {name: runs(one, name) for name in ALL} == before
    # No engine, as a cool-down that began in the year to come would end there, too
    # (docs/operations.md).
    assert {name for name in ALL if then[name] != before[name]} == {"redis", "litellm"}
    assert traffic.failures == []
    row(FAULTS[20], "deployed then, rolled back now", time.monotonic() - started, traffic)


# -- the run, the activation, the host -------------------------------------------------------------


def only_streams_were_cut(traffic: Traffic, at_most: int) -> None:
    """Not a request failed, but for streams that an engine was telling when it was restarted: one
    for each engine."""
    assert all(failure.startswith("stream") for failure in traffic.failures), traffic.failures
    assert len(traffic.failures) <= at_most, traffic.failures


def killed_at(number: int, task: int) -> bool:
    """Apply a change and kill the run when its `task`-th staging or activation begins. False if it
    ended before."""
    run = subprocess.Popen(
        ["ansible-playbook", "converge.yml", *changed(number)],
        cwd=SCENARIO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen = 0
    assert run.stdout
    for line in run.stdout:
        if line.startswith(("TASK", "RUNNING HANDLER")) and (
            "Stage the release" in line or "Activate" in line
        ):
            seen += 1
        if seen == task:
            # Not at its first instant: it is to have begun.
            time.sleep(0.4)
            os.killpg(run.pid, signal.SIGKILL)
            break
    run.stdout.close()
    run.wait()
    return seen == task


@pytest.mark.full
def test_run_killed_at_every_task(one: Any, door: str, row: Callable[..., None]) -> None:
    started = time.monotonic()
    task = kills = 0
    with Traffic(door, KEY, MODEL, rate=4, max_s=1200) as traffic:
        while True:
            task += 1
            if not killed_at(number=1 + task, task=task):
                break
            kills += 1
            # What was begun on the host goes on without the run: an activation that had not yet
            # taken its lock, too.
            whole = (
                f"not every service runs after a kill at task {task}, or an activation does not end"
            )
            wait_until(
                lambda: one.run(NOBODY_SWITCHES).rc == 0 and all(runs(one, name) for name in ALL),
                whole,
                120,
            )
            assert answers(door), f"nobody answers after a kill at task {task}"
    assert kills >= 8
    again = site(*changed(1 + task))
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout, "the last run was not killed, so nothing was left to do"
    only_streams_were_cut(traffic, 2 * kills)
    row(
        FAULTS[0],
        f"{kills} kills, each service whole after each",
        time.monotonic() - started,
        traffic,
    )


def activation(release: str) -> subprocess.Popen[str]:
    """Begin to switch Redis to a release, in the background."""
    arguments = json.dumps({"service": "redis", "release": release})
    command = ["ansible", "one", "--become", "-m", "modelyard_activate", "-a", arguments]
    return subprocess.Popen(
        command,
        cwd=SCENARIO.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# Waits on the host until an activation of Redis has begun, then for some milliseconds more; prints
# who has the lock.
WAIT = (
    "for i in $(seq 3000); do "
    f"pids=$(find /proc/[0-9]*/fd -lname {LOCK} 2>/dev/null | cut -d/ -f3 | uniq); "
    "[ $(echo $pids | wc -w) -ge 2 ] && break; sleep 0.02; done; sleep %.2f; echo $pids"
)


@pytest.mark.parametrize(
    ("fault", "whom", "delays"),
    [
        (FAULTS[1], "worker", (0.0, 0.2, 0.45)),
        pytest.param(FAULTS[1], "worker", (0.0, 0.1, 0.2, 0.3, 0.45, 0.6), marks=pytest.mark.full),
        (FAULTS[2], "both", (0.1, 0.4)),
    ],
)
def test_activation_killed(
    one: Any,
    door: str,
    row: Callable[..., None],
    fault: str,
    whom: str,
    delays: tuple[float, ...],
) -> None:
    first, second = two_releases(one)
    started = time.monotonic()
    kills = 0
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        for delay in delays:
            wanted = second if runs(one, "redis") == first else first
            begun = activation(wanted)
            pids = one.run(WAIT % delay).stdout.split()
            victims = pids[-1:] if whom == "worker" else pids
            kills += one.run(f"kill -9 {' '.join(victims)}").rc == 0 if victims else 0
            begun.communicate(timeout=120)
            if whom == "worker":
                # Nobody runs anything again: what supervises has put it right.
                assert runs(one, "redis") in (first, second)
                assert one.run("systemctl is-active modelyard-redis").stdout.strip() == "active"
            after = module("modelyard_activate", service="redis", release=wanted)
            assert not after["failed"], after
            assert runs(one, "redis") == live(one, "redis") == wanted
    assert kills >= 1
    assert traffic.failures == []
    row(
        fault,
        f"{kills} kills, wholly one or the other, a rerun converged",
        time.monotonic() - started,
        traffic,
    )


def cut(one: Any, command: str) -> None:
    """Run what ends the connection that it is run through."""
    with contextlib.suppress(RuntimeError):
        one.run(command)


@pytest.mark.full
def test_host_loses_power(one: Any, door: str, row: Callable[..., None]) -> None:
    first, second = two_releases(one)
    begun = activation(second)
    cut(one, f"{WAIT % 0.3}; poweroff --force --force")
    begun.communicate(timeout=120)
    started = time.monotonic()
    lab("up", "one")
    wait_until(lambda: runs(one, "redis"), "Redis did not come back", 120)
    assert runs(one, "redis") in (first, second)
    wait_until(lambda: answers(door), "nobody answers after the boot", 180)
    which = "former" if runs(one, "redis") == first else "new"
    row(FAULTS[3], f"the {which} release runs, all came back by itself", time.monotonic() - started)


@pytest.mark.full
def test_connection_cut(one: Any, door: str, row: Callable[..., None]) -> None:
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        run = subprocess.Popen(
            ["ansible-playbook", "converge.yml", *changed(51)],
            cwd=SCENARIO,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert run.stdout
        for line in run.stdout:
            if line.startswith("RUNNING HANDLER") and "litellm" in line:
                break
        time.sleep(3)
        cut(one, "pkill -9 -f '^sshd: root'")
        # Ansible asks again over a new connection, which waits for the switch and finds nothing
        # left to do.
        output = run.communicate(timeout=600)[0]
        went_on = run.returncode == 0
        again = site(*changed(51))
        assert again.returncode == 0, output + again.stdout
        assert re.search(r"changed=0\b", again.stdout) or not went_on, again.stdout
    only_streams_were_cut(traffic, 2)
    how = "the run went on" if went_on else "the next run finished it"
    row(FAULTS[4], f"the switch went on, and {how}", time.monotonic() - started, traffic)


# -- no room ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        (FAULTS[5], "size=1m", "No space left on device"),
        pytest.param(FAULTS[6], "nr_inodes=60", "No space left on device", marks=pytest.mark.full),
        pytest.param(FAULTS[7], "ro", "Read-only file system", marks=pytest.mark.full),
    ],
)
def test_no_room(
    one: Any, door: str, row: Callable[..., None], fault: str, options: str, message: str
) -> None:
    """A small, full or closed file system where the releases of Redis are."""
    path = f"{SERVICES}/redis/releases"
    before = runs(one, "redis")
    spec = manifest(one, "redis")
    one.check_output(
        f"cp -a {path} /srv/kept && mount -t tmpfs -o {'size=4m' if options == 'ro' else options}"
        f" small {path} && cp -a /srv/kept/. {path}/"
    )
    fill = {"size=1m": f"cat /dev/zero > {path}/.filler", "ro": f"mount -o remount,ro {path}"}
    one.run(fill.get(options, f"while touch {path}/.filler$((i=i+1)); do :; done"))
    try:
        started = time.monotonic()
        with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
            units = {unit: f"{content}\n# {fault}\n" for unit, content in spec["units"].items()}
            refused = staged(one, "redis", units=units)
        took = time.monotonic() - started
        assert refused["failed"], refused
        assert message in refused["msg"]
        assert runs(one, "redis") == before
    finally:
        one.check_output(f"umount {path} && rm -rf /srv/kept")
    assert not staged(one, "redis", units=units)["failed"], "with room again it is staged"
    assert not module("modelyard_activate", service="redis")["failed"]
    assert traffic.failures == []
    row(fault, "refused with the reason, a rerun repaired it", took, traffic)


# -- releases that are no good ---------------------------------------------------------------------


def bad(one: Any, name: str, kind: str) -> dict[str, Any]:
    """How the release of a service is changed so that it is no good."""
    spec = manifest(one, name)
    unit, content = next(iter(spec["units"].items()))
    if kind == "check":
        checks = [
            {**check, "port": 1} if check["kind"] == "redis" else check for check in spec["checks"]
        ]
        return {
            "checks": checks,
            "units": {unit: f"{content}\n# check\n"},
            "activation": {"ready_timeout_s": 5},
        }
    if kind == "unit":
        return {"units": {unit: content.replace("ExecStart=", "ExecStart=!?not a path ")}}
    if kind == "crash":
        crash = "\nExecStartPost=/bin/sh -c '(sleep 5; kill -9 $MAINPID) &'\n[Install]"
        # Another artifact is what makes it a new program.
        return {
            "units": {unit: content.replace("\n[Install]", crash, 1)},
            "store": [*spec["store"], "/srv"],
        }
    return {
        "units": {
            unit: content.replace(
                "Environment=", "Environment=PYTHONHOME=/nowhere\nEnvironment=", 1
            )
        }
    }


@pytest.mark.parametrize(
    ("fault", "name", "kind", "said"),
    [
        (FAULTS[8], "redis", "check", "it was not ready in time"),
        (FAULTS[9], f"llama-cpp@{MODEL}", "unit", "release"),
        (FAULTS[10], "redis", "crash", "s after it was ready"),
        pytest.param(FAULTS[11], "litellm", "import", "it keeps exiting", marks=pytest.mark.full),
    ],
)
def test_a_release_that_is_no_good(
    one: Any, door: str, row: Callable[..., None], fault: str, name: str, kind: str, said: str
) -> None:
    before = runs(one, name)
    new = staged(one, name, **bad(one, name, kind))
    assert not new["failed"], new
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
        report = module("modelyard_activate", service=name)
    took = time.monotonic() - started
    assert report["failed"], report
    assert said in report["msg"]
    assert runs(one, name) == live(one, name) == before
    # The chain carries an engine's, but for a stream at each of its two restarts; the gateway does
    # without its Redis.
    only_streams_were_cut(traffic, 2 if name.startswith("llama-cpp") else 0)
    entry = json.loads(one.check_output(f"tail -n 1 {SERVICES}/{name}/history.jsonl"))
    assert (entry["outcome"], entry["release"]) == ("failed", new["id"])
    row(fault, f"{name}: the former release serves", took, traffic)


# -- parts that go away ----------------------------------------------------------------------------


def test_redis_lost_and_back(one: Any, door: str, row: Callable[..., None]) -> None:
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
        one.check_output(
            "systemctl kill --signal=KILL modelyard-redis; systemctl stop modelyard-redis"
        )
        time.sleep(5)
        one.check_output("systemctl reset-failed modelyard-redis; systemctl start modelyard-redis")
        time.sleep(3)
    assert traffic.failures == []
    row(
        FAULTS[12],
        "away for 5 s, the gateway answers without it",
        time.monotonic() - started,
        traffic,
    )


def test_live_slot_killed(one: Any, door: str, row: Callable[..., None]) -> None:
    """All of it at once: whoever asks in the seconds until systemd has started it again gets no
    answer."""
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=2, max_s=300) as traffic:
        one.check_output(f"systemctl kill --signal=KILL {unit_of(one, 'litellm')}")
        wait_until(lambda: not answers(door), "the kill was not seen", 20)
        wait_until(lambda: answers(door), "the slot did not come back", 120)
    row(FAULTS[13], "systemd started it again", time.monotonic() - started, traffic)


def test_front_door_reloaded_under_streams(one: Any, door: str, row: Callable[..., None]) -> None:
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=10, max_s=300) as traffic:
        reloads = 0
        # On a busy machine a stream may last longer than a reload.
        while reloads < 5 or (traffic.streams <= 5 and reloads < 60):
            one.check_output("systemctl reload modelyard-haproxy")
            time.sleep(1)
            reloads += 1
    assert traffic.streams > 5
    assert traffic.failures == []
    row(FAULTS[14], f"{reloads} reloads", time.monotonic() - started, traffic)


def test_engine_killed_in_the_middle_of_a_stream(
    one: Any, door: str, row: Callable[..., None]
) -> None:
    """What was being told is lost, as a stream cannot be begun anew; whoever asks next is answered
    by the stand-by."""
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
        for _ in range(3):
            one.check_output(f"systemctl kill --signal=KILL modelyard-llama-cpp@{MODEL}")
            time.sleep(3)
    asked = traffic.answered + traffic.streams + len(traffic.failures)
    assert len(traffic.failures) <= 6, traffic.failures
    assert asked > 20
    row(FAULTS[15], "3 kills, the stand-by answered", time.monotonic() - started, traffic)


# -- what is fetched and built ---------------------------------------------------------------------


class Shelf:
    """A web server of the tests' own with one model, as the host reaches it. It can damage it, and
    stop half-way."""

    def __init__(self, content: bytes, address: str) -> None:
        self.content, self.damaged, self.stalls = content, False, False
        self.asked: list[str] = []
        """The ranges that were asked for, one for every request."""
        self.half_sent = threading.Event()
        self.server = http.server.ThreadingHTTPServer((address, 0), self.handler())
        self.url = f"http://{address}:{self.server.server_port}/model.gguf"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        shelf = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                shelf.asked.append(wanted)
                begin = int(wanted.removeprefix("bytes=").partition("-")[0] or 0)
                content = bytes(len(shelf.content)) if shelf.damaged else shelf.content
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header(
                        "Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}"
                    )
                self.send_header("Content-Length", str(len(content) - begin))
                self.send_header("ETag", '"one"')
                self.end_headers()
                half = len(content) // 2
                with contextlib.suppress(OSError):
                    if shelf.stalls:
                        self.wfile.write(content[begin:half])
                        self.wfile.flush()
                        shelf.half_sent.set()
                        time.sleep(60)
                    else:
                        self.wfile.write(content[begin:])

        return Handler


@pytest.fixture
def shelf(one: Any) -> Iterator[Shelf]:
    # A file that no run fetched before: what follows the last tensor is nobody's business.
    content = one.file("/srv/lab/models/tiny.gguf").content + os.urandom(16)
    server = Shelf(content, one.check_output("ip -4 route show default").split()[2])
    yield server
    server.server.shutdown()


def fetched(shelf: Shelf) -> tuple[str, str]:
    """The change that has the first model fetched instead of read from a file."""
    source = {"path": None, "url": shelf.url, "sha256": hashlib.sha256(shelf.content).hexdigest()}
    models = [{"name": MODEL, "source": source}]
    return "-e", json.dumps(
        {"llm_overrides_test": {"providers": {"llama_cpp_native": {"models": models}}}}
    )


@pytest.mark.full
def test_damaged_download(one: Any, door: str, row: Callable[..., None], shelf: Shelf) -> None:
    service, started = f"llama-cpp@{MODEL}", time.monotonic()
    before = live(one, service)
    shelf.damaged = True
    with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
        refused = site(*fetched(shelf))
    assert refused.returncode != 0
    assert "sha256" in refused.stdout.lower()
    assert live(one, service) == runs(one, service) == before
    assert traffic.failures == []
    row(
        FAULTS[17],
        "refused by its checksum, the former one serves",
        time.monotonic() - started,
        traffic,
    )


@pytest.mark.full
def test_fetch_killed(one: Any, door: str, row: Callable[..., None], shelf: Shelf) -> None:
    service, started = f"llama-cpp@{MODEL}", time.monotonic()
    before = live(one, service)
    shelf.stalls = True
    with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
        run = subprocess.Popen(
            ["ansible-playbook", "converge.yml", *fetched(shelf)],
            cwd=SCENARIO,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert shelf.half_sent.wait(120), "nothing was fetched"
        time.sleep(1)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        one.run("pkill --signal KILL --full modelyard_model")
        assert live(one, service) == runs(one, service) == before
        shelf.stalls = False
        again = site(*fetched(shelf))
        assert again.returncode == 0, again.stdout
    assert shelf.asked[-1].startswith("bytes="), shelf.asked
    assert shelf.asked[-1] != "bytes=0-"
    assert live(one, service) == runs(one, service) != before
    only_streams_were_cut(traffic, 2)
    row(FAULTS[18], f"a rerun went on at {shelf.asked[-1]}", time.monotonic() - started, traffic)


def test_build_killed(one: Any, door: str, row: Callable[..., None]) -> None:
    """A build of the tests' own, by the module that builds llama.cpp and the gateway's
    environment."""
    arguments = {
        "name": "drill",
        "version": "1",
        "key": {"run": str(time.time_ns())},
        "sources": [],
        "script": (
            "if [ -e /srv/slow ]; then touch $DEST/half; sleep 120; fi; echo whole > $DEST/program"
        ),
    }
    started = time.monotonic()
    one.check_output("touch /srv/slow")
    command = [
        "ansible",
        "one",
        "--become",
        "-m",
        "modelyard_artifact",
        "-a",
        json.dumps(arguments),
    ]
    with Traffic(door, KEY, MODEL, rate=4, max_s=300) as traffic:
        run = subprocess.Popen(
            command,
            cwd=SCENARIO.parents[1],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(
            lambda: one.run("ls /opt/modelyard/store/drill-*/half").rc == 0, "nothing was built"
        )
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        one.check_output("rm /srv/slow; systemctl kill --signal=KILL 'modelyard-build-drill*'")
        wait_until(
            lambda: one.run("systemctl --quiet is-active 'modelyard-build-drill*'").rc != 0,
            "it still builds",
        )
        again = module("modelyard_artifact", **arguments)
    assert not again["failed"], again
    assert one.check_output(f"cat {again['path']}/program") == "whole"
    assert not one.file(f"{again['path']}/half").exists
    one.check_output(f"rm -r {again['path']}")
    assert traffic.failures == []
    row(FAULTS[19], "begun anew, nothing of the half is left", time.monotonic() - started, traffic)


# -- back ------------------------------------------------------------------------------------------


def test_latest_run_rolled_back(
    one: Any, door: str, row: Callable[..., None], tmp_path: Path
) -> None:
    before = {name: live(one, name) for name in ALL}
    done = site(*changed(77))
    assert done.returncode == 0, done.stdout
    assert [name for name, release in before.items() if live(one, name) == release] == []
    one.check_output(f"systemctl stop {unit_of(one, 'litellm')}")
    started = time.monotonic()
    back = ansible_playbook("../../playbooks/rollback.yml")
    took = time.monotonic() - started
    assert back.returncode == 0, back.stdout + back.stderr
    assert {name: live(one, name) for name in ALL} == before
    assert {name: runs(one, name) for name in ALL} == before
    assert answers(door)
    row(FAULTS[16], f"{len(before)} services as they were before", took)
    shown = ansible_playbook("../../playbooks/releases.yml")
    assert shown.returncode == 0, shown.stdout
    assert "(rollback.yml)" in shown.stdout
    report = tmp_path / "status.json"
    told = ansible_playbook(
        "../../playbooks/status.yml", "-e", f"llm_report={report}", *changed(77)
    )
    assert told.returncode == 0, told.stdout
    found = json.loads(report.read_text())["hosts"]["one"]
    assert {found["services"][name]["plan"] for name in ALL} == {"differs"}
    assert {engine["model"] for engine in found["engines"]} == {MODEL, STAND_BY, CARD}
    assert all(engine["first_token_s"] > 0 for engine in found["engines"])


def test_host_rebooted(one: Any, door: str, row: Callable[..., None]) -> None:
    before = {name: runs(one, name) for name in ALL}
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=2, max_s=300) as traffic:
        cut(one, "systemctl poweroff")
        address = door.rpartition(":")[0].rpartition("/")[2]
        wait_until(
            lambda: not re.search(rf"{address} .*running", lab("status")), "it did not go down"
        )
        lab("up", "one")
        wait_until(lambda: answers(door), "nobody answers after the boot", 180)
        took = time.monotonic() - started
    assert {name: runs(one, name) for name in ALL} == before
    assert one.check_output("systemctl --failed --plain --no-legend") == ""

    def began(unit: str) -> int:
        return int(
            one.check_output(
                f"systemctl show --value --property=ActiveEnterTimestampMonotonic {unit}"
            )
        )

    assert began("modelyard-redis") < began(unit_of(one, "litellm")), (
        "what the gateway uses comes first"
    )
    row(FAULTS[21], "all came back by itself, Redis before the gateway", took, traffic)


@pytest.mark.full
def test_no_row_is_lost() -> None:
    assert set(ROWS) == set(FAULTS)
