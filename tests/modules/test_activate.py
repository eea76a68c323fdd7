"""What an activation puts out of the way, and what it brings back. systemd is a stand-in; molecule
has the real one."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import modelyard_activate as activate
import pytest
from ansible.module_utils import modelyard_activation as activation
from ansible.module_utils import modelyard_in_place as in_place
from ansible.module_utils import modelyard_running as running
from ansible.module_utils import modelyard_services as services
from ansible.module_utils import modelyard_slots as slots
from ansible.module_utils import modelyard_supervision as supervision
from ansible.module_utils import modelyard_units as units
from ansible.module_utils.modelyard_host import ServiceError
from ansible.module_utils.modelyard_services import Release, Service
from ansible.module_utils.modelyard_sockets import Holder, Listener


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Replace a name in all modules that take part in an activation and know it."""
    for module in (activation, in_place, running, services, slots, units):
        monkeypatch.setattr(module, name, value, raising=False)


class KilledError(BaseException):
    """The activation's process is gone: nothing of it runs any more."""


@dataclass
class Host:
    """A stand-in for systemd: units that hold a port each, one of a kind, or fail when told to."""

    root: Path
    active: dict[str, str] = field(
        default_factory=dict
    )  # unit: the release that its process was started from
    said: list[str] = field(default_factory=list)
    kill_before: str = ""

    def installed(self, unit: str) -> str:
        tried = self.root / "tried" / unit
        return (tried if tried.exists() else self.root / "units" / unit).read_text()

    def reboot(self) -> None:
        """Forget what a boot forgets, and start what it starts."""
        self.active.clear()
        for path in (self.root / "tried").glob("*"):
            path.unlink()
        for path in sorted((self.root / "units").glob("*.service")):
            self.systemctl("start", path.name)

    def port(self, unit: str) -> str:
        return str(re.findall(r"port=(\d+)", self.installed(unit))[0])

    def systemctl(self, *arguments: str, **_: Any) -> str:
        verb, *words = [word for word in arguments if not word.startswith("--")]
        for unit in words:
            if f"{verb} {unit}" == self.kill_before:
                raise KilledError
            self.said.append(f"{verb} {unit}")
            if verb in ("restart", "start", "reload"):
                for other in re.findall(
                    r"^Conflicts=modelyard-(\S+)\.service", self.installed(unit), re.M
                ):
                    self.active.pop(f"modelyard-{other}.service", None)
                self.active.pop(unit, None)
                if self.port(unit) not in [self.port(other) for other in self.active]:
                    self.active[unit] = re.findall(r"releases/(\w+)", self.installed(unit))[0]
            elif verb == "stop" or "--now" in arguments:
                self.active.pop(unit, None)
        return ""

    def state(self, unit: str) -> dict[str, str]:
        return {
            "ActiveState": "active" if unit in self.active else "failed",
            "UnitFileState": "enabled",
        }

    def running(self, unit: str, _release: Release) -> str | None:
        return self.active.get(unit)

    def checks(self, wanted: list[dict], _generations: dict) -> list[dict]:
        return [
            {**check, "detail": "", "seconds": 0.0, "final": False, "hint": ""} for check in wanted
        ]

    def answers(self, _name: str, port: int) -> bool:
        return str(port) in [self.port(unit) for unit in self.active]

    def stage(
        self,
        name: str,
        port: int,
        status: str = "ok",
        conflicts: str = "",
        store: Sequence[str] = (),
        reloaded: str | None = None,
    ) -> str:
        """Stage a release as modelyard_release does; returns its id. `reloaded`: unit of one that
        can be reloaded."""
        unit = f"Environment=MODELYARD_RELEASE=@RELEASE@ port={port} {status}\n"
        if reloaded is not None:
            unit = f"# @RELEASE@ port={port}\n{reloaded}"
        unit = (f"Conflicts=modelyard-{conflicts}.service\n" if conflicts else "") + unit
        check = {
            "name": "answers",
            "service": name,
            "kind": "http",
            "url": f"http://127.0.0.1:{port}/",
        }
        spec = {
            "user": "nobody",
            "files": {},
            "units": {f"modelyard-{name}.service": unit},
            "store": list(store),
            "generation": "",
            "activation": {
                "strategy": "restart" if reloaded is None else "reload",
                "ready_timeout_s": 0,
                "pool": {"name": f"pool.{name.partition('@')[2]}", "server": "gpu1"},
            },
            "checks": [{**check, "status": status}],
            "plan": {},
        }
        release = Release(name, spec)
        Path(release.path).mkdir(parents=True, exist_ok=True)
        (Path(release.path) / "manifest.json").write_text(json.dumps(spec))
        Service(name).point("staged", release)
        return release.id

    def activate(self, name: str, *displaces: str) -> dict[str, Any]:
        """Activate what is staged; returns the module's report."""
        begun = self.begin(name, *displaces)
        return dict(begun.told(begun.execute))

    def begin(self, name: str, *displaces: str) -> Any:
        """The activation of what is staged, as its supervisor makes it."""
        service = Service(name)
        release = service.load("staged")
        assert release
        begun = activate.activation(service, release, {"displaces": list(displaces), "by": None})
        begun.look()
        return begun

    def serving(self) -> dict[str, str]:
        return {
            self.port(unit): unit.removeprefix("modelyard-").removesuffix(".service")
            for unit in self.active
        }


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which llama-cpp@old serves on port 8080."""
    (tmp_path / "units").mkdir()
    host = Host(tmp_path)
    for name, value in (
        ("SERVICES", str(tmp_path / "services")),
        ("UNITS", str(tmp_path / "units")),
        ("TRIED_UNITS", str(tmp_path / "tried")),
        ("unit_state", host.state),
        ("running_release", host.running),
        ("systemctl", host.systemctl),
    ):
        replace_everywhere(monkeypatch, name, value)
    monkeypatch.setattr(activation, "run_checks", host.checks)
    monkeypatch.setattr(activation, "listeners", list)
    monkeypatch.setattr(in_place, "answers", host.answers)
    monkeypatch.setattr(activation, "run", lambda _: subprocess.CompletedProcess([], 0, "", ""))
    host.stage("llama-cpp@old", 8080)
    assert host.activate("llama-cpp@old")["changed"]
    host.said.clear()
    return host


def test_the_old_one_makes_room_before_the_new_one_starts(host: Host) -> None:
    host.stage("llama-cpp@new", 8080)
    assert host.activate("llama-cpp@new", "llama-cpp@old")["changed"]
    assert host.serving() == {"8080": "llama-cpp@new"}
    order = [line for line in host.said if line.split()[0] in ("stop", "restart", "start")]
    assert order == [
        "stop modelyard-llama-cpp@old.service",
        "restart modelyard-llama-cpp@new.service",
    ]


def test_without_being_told_nobody_makes_room(host: Host) -> None:
    host.stage("llama-cpp@new", 8080)
    report = host.activate("llama-cpp@new")
    assert report["failed"]
    assert host.serving() == {"8080": "llama-cpp@old"}


def test_nothing_to_do_displaces_nobody(host: Host) -> None:
    host.stage("llama-cpp@other", 8081)
    host.activate("llama-cpp@other")
    host.said.clear()
    assert not host.activate("llama-cpp@other", "llama-cpp@old")["changed"]
    assert host.said == []


def test_after_a_failure_the_old_one_serves_again(host: Host) -> None:
    host.stage("llama-cpp@new", 8080, status="failed")
    report = host.activate("llama-cpp@new", "llama-cpp@old")
    assert report["failed"]
    assert "llama-cpp@old was stopped to make room and serves again" in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@old"}
    assert not Service("llama-cpp@old").displaced
    assert Service("llama-cpp@new").linked("current") is None


def test_the_former_release_and_the_displaced_come_back(host: Host) -> None:
    former = host.stage("llama-cpp@new", 8081)
    host.activate("llama-cpp@new")
    host.stage("llama-cpp@new", 8080, status="failed")
    report = host.activate("llama-cpp@new", "llama-cpp@old")
    assert f"The former release {former} is live again" in report["msg"]
    assert "llama-cpp@old was stopped to make room and serves again" in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@old", "8081": "llama-cpp@new"}


def test_what_fails_too_is_told(host: Host) -> None:
    old = Path(host.root / "services/llama-cpp@old/current/manifest.json")
    old.write_text(old.read_text().replace('"status": "ok"', '"status": "failed"'))
    host.stage("llama-cpp@new", 8080, status="failed")
    report = host.activate("llama-cpp@new", "llama-cpp@old")
    assert (
        "llama-cpp@old was stopped to make room, was started again and failed, too."
        in report["msg"]
    )


def test_what_did_not_run_is_not_started(host: Host) -> None:
    host.systemctl("stop", "modelyard-llama-cpp@old.service")
    host.stage("llama-cpp@new", 8080, status="failed")
    report = host.activate("llama-cpp@new", "llama-cpp@old")
    assert "made room" not in report["msg"]
    assert host.serving() == {}


def test_a_member_of_a_group_is_displaced_by_its_conflict(host: Host) -> None:
    """systemd would stop it too, but nothing would start it again."""
    host.stage("vllm@big", 8001, status="failed", conflicts="llama-cpp@old")
    report = host.activate("vllm@big")
    assert "llama-cpp@old was stopped to make room and serves again" in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@old"}
    host.stage("vllm@big", 8001, conflicts="llama-cpp@old")
    assert host.activate("vllm@big")["changed"]
    assert host.serving() == {"8001": "vllm@big"}


def test_the_failure_of_a_second_one_brings_back_what_the_first_displaced(host: Host) -> None:
    """Every activation is told of all that goes: the first does not need its port, the second
    does."""
    host.stage("llama-cpp@first", 8090)
    host.stage("llama-cpp@second", 8080, status="failed")
    assert host.activate("llama-cpp@first", "llama-cpp@old")["changed"]
    assert host.serving() == {"8090": "llama-cpp@first"}
    report = host.activate("llama-cpp@second", "llama-cpp@old")
    assert "llama-cpp@old was stopped to make room and serves again" in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@old", "8090": "llama-cpp@first"}


def test_a_place_that_was_taken_is_not_fought_for(host: Host) -> None:
    host.stage("llama-cpp@first", 8080)
    host.stage("llama-cpp@second", 8090, status="failed")
    host.activate("llama-cpp@first", "llama-cpp@old")
    report = host.activate("llama-cpp@second", "llama-cpp@old")
    assert "stays stopped: 127.0.0.1:8080 now belongs to another service" in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@first"}


def test_two_swap_their_ports(host: Host) -> None:
    host.stage("llama-cpp@two", 8081)
    host.activate("llama-cpp@two")
    host.stage("llama-cpp@old", 8081)
    host.stage("llama-cpp@two", 8080)
    assert host.activate("llama-cpp@old")["changed"]
    assert host.activate("llama-cpp@two")["changed"]
    assert host.serving() == {"8080": "llama-cpp@two", "8081": "llama-cpp@old"}
    assert not Service("llama-cpp@two").displaced


@pytest.mark.parametrize("bad", ["llama-cpp@old", "llama-cpp@two"])
def test_a_swap_of_which_one_half_fails_costs_no_other(host: Host, bad: str) -> None:
    host.stage("llama-cpp@two", 8081)
    host.activate("llama-cpp@two")
    host.stage("llama-cpp@old", 8081, status="failed" if bad == "llama-cpp@old" else "ok")
    host.stage("llama-cpp@two", 8080, status="failed" if bad == "llama-cpp@two" else "ok")
    reports = [host.activate("llama-cpp@old"), host.activate("llama-cpp@two")]
    if bad == "llama-cpp@old":
        # The first was put back, so its port is not free for the second: all is as it was.
        assert [report.get("failed") for report in reports] == [True, True]
        assert host.serving() == {"8080": "llama-cpp@old", "8081": "llama-cpp@two"}
    else:
        # The first had moved already, so the second has no way back; the report says so.
        assert [report.get("failed") for report in reports] == [None, True]
        assert "was restored and failed, too" in reports[1]["msg"]
        assert host.serving() == {"8081": "llama-cpp@old"}


@pytest.mark.parametrize(
    "moment", ["stop modelyard-llama-cpp@old.service", "restart modelyard-llama-cpp@new.service"]
)
@pytest.mark.parametrize("status", ["ok", "failed"])
def test_killed_in_between(host: Host, moment: str, status: str) -> None:
    """The next run finishes it: the new one serves, or if that fails the old one that was stopped
    by the run before."""
    host.stage("llama-cpp@new", 8080, status=status)
    host.kill_before = moment
    with pytest.raises(KilledError):
        host.activate("llama-cpp@new", "llama-cpp@old")
    host.kill_before = ""
    report = host.activate("llama-cpp@new", "llama-cpp@old")
    assert report.get("failed", False) == (status == "failed")
    assert host.serving() == {"8080": "llama-cpp@new" if status == "ok" else "llama-cpp@old"}


def test_killed_in_between_and_the_old_catalogue_again(host: Host) -> None:
    host.stage("llama-cpp@new", 8080)
    host.kill_before = "restart modelyard-llama-cpp@new.service"
    with pytest.raises(KilledError):
        host.activate("llama-cpp@new", "llama-cpp@old")
    host.kill_before = ""
    assert Service("llama-cpp@old").displaced
    assert host.activate("llama-cpp@old", "llama-cpp@new")["changed"]
    assert host.serving() == {"8080": "llama-cpp@old"}
    assert not Service("llama-cpp@old").displaced


def test_killed_while_it_was_putting_back(host: Host) -> None:
    host.stage("llama-cpp@new", 8080, status="failed")
    host.kill_before = "start modelyard-llama-cpp@old.service"
    with pytest.raises(KilledError):
        host.activate("llama-cpp@new", "llama-cpp@old")
    host.kill_before = ""
    assert host.activate("llama-cpp@new", "llama-cpp@old")["failed"]
    assert host.serving() == {"8080": "llama-cpp@old"}


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_reboot_in_between_starts_what_was_good(
    host: Host, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the new release is looked at: it runs, and nobody knows yet whether it is
    good."""
    former = host.stage("llama-cpp@old", 8080)
    new = host.stage("llama-cpp@old", 8081, status=status)

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as during:
        during.setattr(activation, "run_checks", killed)
        with pytest.raises(KilledError):
            host.activate("llama-cpp@old")
    assert list(host.active.values()) == [new]
    host.reboot()
    assert list(host.active.values()) == [former]
    assert host.activate("llama-cpp@old").get("failed", False) == (status == "failed")
    assert list(host.active.values()) == [former if status == "failed" else new]
    assert list((host.root / "tried").iterdir()) == []


@pytest.mark.parametrize(
    "moment", ["stop modelyard-llama-cpp@old.service", "restart modelyard-llama-cpp@new.service"]
)
def test_what_is_killed_is_put_right_at_once(host: Host, moment: str) -> None:
    """Without a next run: by the process that supervises."""
    host.stage("llama-cpp@new", 8080)
    host.kill_before = moment
    begun = host.begin("llama-cpp@new", "llama-cpp@old")
    with pytest.raises(KilledError):
        begun.told(begun.execute)
    host.kill_before = ""
    report = begun.told(begun.recover)
    assert report["failed"]
    assert "The activation process was killed." in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@old"}
    assert Service("llama-cpp@new").linked("current") is None
    assert not Service("llama-cpp@old").displaced


def test_what_was_killed_before_it_began_costs_no_restart(host: Host) -> None:
    host.stage("llama-cpp@old", 8081)
    begun = host.begin("llama-cpp@old")
    report = begun.told(begun.recover)
    assert "never stopped serving" in report["msg"]
    assert host.said == []


def test_a_unit_that_an_interrupted_change_left_is_a_difference(host: Host) -> None:
    """systemd would use it as soon as the service is restarted for another reason."""
    (host.root / "tried").mkdir(exist_ok=True)
    (host.root / "tried/modelyard-llama-cpp@old.service").write_text("port=1")
    assert host.activate("llama-cpp@old")["changed"]
    assert list((host.root / "tried").iterdir()) == []


@pytest.mark.parametrize("crashes", [True, False])
def test_a_new_program_is_watched(
    host: Host, crashes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = host.stage("llama-cpp@old", 8080)
    new = host.stage("llama-cpp@old", 8081, store=["/opt/modelyard/store/new"])
    processes = itertools.chain(["10", "10"], itertools.repeat("11" if crashes else "10"))
    monkeypatch.setattr(
        activation, "unit_state", lambda unit: {**host.state(unit), "MainPID": next(processes)}
    )
    monkeypatch.setattr(activation, "WATCH_NEW_PROGRAM_S", 0.05)
    monkeypatch.setattr(activation, "POLL_S", 0.001)
    report = host.activate("llama-cpp@old")
    assert report.get("failed", False) == crashes
    assert ("s after it was ready" in report.get("msg", "")) == crashes
    assert list(host.active.values()) == [former if crashes else new]


@pytest.mark.parametrize(
    ("address", "unit", "good"),
    [
        ("127.0.0.1", "modelyard-llama-cpp@old.service", True),
        ("0.0.0.0", "modelyard-llama-cpp@old.service", True),
        ("127.0.0.1", "modelyard-exporter@blackbox.service", False),
        ("::", "", False),
        ("192.0.2.1", "modelyard-exporter@blackbox.service", True),
    ],
)
def test_an_answer_of_another_process_does_not_count(
    host: Host, monkeypatch: pytest.MonkeyPatch, address: str, unit: str, good: bool
) -> None:
    """A program that cannot bind its port is active until it exits; its checks may pass."""
    former = next(iter(host.active.values()))
    new = host.stage("llama-cpp@old", 8081)
    sockets = [Listener(address, 8081, "1"), Listener(address, 8080, "2")]
    monkeypatch.setattr(activation, "listeners", lambda: sockets)
    ours = "modelyard-llama-cpp@old.service"
    owners = {"1": Holder(unit, "other", 7), "2": Holder(ours, "llama-server", 8)}
    monkeypatch.setattr(activation, "holders", lambda inodes: {i: owners[i] for i in inodes})
    monkeypatch.setattr(activation, "POLL_S", 0.001)
    report = host.activate("llama-cpp@old")
    assert report.get("failed", False) is not good
    assert ("127.0.0.1, port 8081, is held by" in report.get("msg", "")) is not good
    assert list(host.active.values()) == [new if good else former]


def test_the_supervisor_outlives_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: the worker kills itself, what is told is the recovery."""

    class Doomed:
        steps: ClassVar[list[str]] = []

        def look(self) -> None: ...

        def execute(self) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

        def recover(self) -> dict[str, Any]:
            return {"failed": True, "msg": f"put right, not by {os.getppid()}"}

        def told(self, work: Any) -> dict[str, Any]:
            return dict(work())

    report = supervision.detached(Doomed(), str(tmp_path / "report"))
    assert report == {"failed": True, "msg": f"put right, not by {os.getpid()}"}
    assert json.loads((tmp_path / "report").read_text()) == report


def test_a_service_that_cannot_be_stopped_leaves_the_new_one_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.stage("llama-cpp@new", 8080)

    def stuck(*arguments: str, **extra: Any) -> str:
        if arguments[0] == "stop":
            raise ServiceError("systemctl stop: timed out")
        return host.systemctl(*arguments, **extra)

    monkeypatch.setattr(in_place, "systemctl", stuck)
    report = host.activate("llama-cpp@new", "llama-cpp@old")
    assert "systemctl stop: timed out" in report["msg"]
    assert host.serving() == {"8080": "llama-cpp@old"}
    assert Service("llama-cpp@new").linked("current") is None


def test_what_left_no_process_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A oneshot unit has no process whose environment could be read, so a command says which
    release is in effect."""
    spec = {"user": "root", "files": {}, "units": {}, "store": [], "generation": "", "checks": []}
    for loaded, expected in (("releases/0123456789ab", "0123456789ab"), ("nothing", None)):
        release = Release(
            "firewall",
            {
                **spec,
                "activation": {"strategy": "reload", "running": ["/bin/echo", f"/x/{loaded}"]},
            },
        )
        monkeypatch.setattr(
            running, "unit_state", lambda _: {"ActiveState": "active", "MainPID": "0"}
        )
        assert running.running_release("modelyard-firewall.service", release) == expected
        monkeypatch.setattr(
            running, "unit_state", lambda _: {"ActiveState": "inactive", "MainPID": "0"}
        )
        assert running.running_release("modelyard-firewall.service", release) is None


def meanwhile(host: Host, name: str, *displaces: str) -> tuple[list[str], list[str]]:
    """The pools that miss the host while what is staged starts, and those that have it then."""
    found = activate.meanwhile(host.begin(name, *displaces))
    assert found["pool_server"] == "gpu1"
    return found["leaves"], found["joins"]


def test_pools_miss_a_host_for_what_stops(host: Host) -> None:
    host.stage("llama-cpp@old", 8080, store=["/srv"])
    assert meanwhile(host, "llama-cpp@old") == (["pool.old"], ["pool.old"])
    host.stage("llama-cpp@new", 8081)
    assert meanwhile(host, "llama-cpp@new") == ([], ["pool.new"]), "it takes nobody's place"
    assert meanwhile(host, "llama-cpp@new", "llama-cpp@old") == (["pool.old"], ["pool.new"])
    host.stage("llama-cpp@rival", 8082, conflicts="llama-cpp@old")
    assert meanwhile(host, "llama-cpp@rival") == (["pool.old"], ["pool.rival"])


UNIT = """\
[Unit]
Description=Modelyard: the front end
[Service]
User=proxy
ExecStart=/usr/sbin/haproxy \\
  -f haproxy.cfg
ExecReload=/bin/check
ExecReload=/bin/kill -USR2 $MAINPID
"""


@pytest.mark.parametrize(
    ("old", "new", "verb"),
    [
        ("", "", "reload"),
        ("[Service]", "; comment\n\n[Service]", "reload"),
        ("the front end", "another text", "reload"),
        ("  -f", "# comment\n  -f", "reload"),
        ("User=proxy\nExecStart", "ExecStart", "restart"),
        ("User=proxy", "User=root", "restart"),
        ("User=proxy", "User=proxy\nPrivateTmp=true", "restart"),
        ("ExecReload=/bin/kill", "ExecReload=\nExecReload=/bin/kill", "restart"),
        ("-f haproxy.cfg", "-f other.cfg", "restart"),
        ("[Service]\nUser", "User", "restart"),
    ],
)
def test_only_a_changed_directive_restarts_a_service_that_can_be_reloaded(
    host: Host, old: str, new: str, verb: str
) -> None:
    """A restart cuts in-flight streams."""
    host.stage("haproxy", 4000, reloaded=UNIT)
    assert host.activate("haproxy")["changed"]
    host.said.clear()
    identifier = host.stage("haproxy", 4000, reloaded=UNIT.replace(old, new, 1) + "\n# changed\n")
    assert host.activate("haproxy")["release"] == identifier
    assert [
        said
        for said in host.said
        if said.endswith("load modelyard-haproxy.service") or "restart" in said
    ] == [f"{verb} modelyard-haproxy.service"]
    assert "# changed" in host.installed("modelyard-haproxy.service")


def test_the_order_of_different_directives_does_not_count() -> None:
    lines = UNIT.splitlines(keepends=True)
    assert units.directives("".join([*lines[:3], *lines[4:], lines[3]])) == units.directives(UNIT)
    assert units.directives("".join([*lines[:-2], lines[-1], lines[-2]])) != units.directives(UNIT)
