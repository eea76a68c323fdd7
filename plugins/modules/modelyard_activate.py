#!/usr/bin/python
"""Switch a service to its staged release, or back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_activate
short_description: Switch a service to its staged release, and back when that fails
description:
  - One call that runs on the target from start to end, in a process of its own that survives a lost
    connection. It starts the staged release, waits until it is ready, runs its checks, and only then makes it the one
    that a boot starts.
  - On any failure, the death of that process included, the former release is started again and checked, and the module
    fails with a report of both. A reboot in between starts the former release.
  - With the strategy C(slots) the new release starts in the free slot, out of rotation, and is checked there. Then
    the front door sends new requests to it, the old slot finishes its streams (bounded) and stops. A bad
    candidate never meets a client.
  - A program that did not run here before (another artifact) is watched for ten more seconds before it is kept.
  - With the strategy C(reload) a running service is reloaded instead of restarted, unless a directive
    of its unit changed.
  - What must not run beside the new release is stopped before that starts, so that ports and memory are free. If the
    new release fails, it is started again and checked, and the report says so. It remembers on the host that it made
    room, so this holds for a run that was killed in between as well. With the strategy C(slots) nothing is displaced.
  - When the staged release runs already, nothing is done.
options:
  service:
    description: Name of the service.
    type: str
    required: true
  release:
    description:
      - Id of the release to switch to, one of those on the host. The staged one by default.
      - Files of it that were changed by hand are put right; what it needs beside them has to be there.
    type: str
  displaces:
    description:
      - Services that have to go when the new release comes, because the plan no longer has them. Taking them away for
        good is left to C(modelyard_release).
      - Displaced without being named are the services in C(Conflicts=) of the release's units, and those that listen
        where it wants to listen and have a release staged that differs from the live one (two that swap their ports).
    type: list
    elements: str
    default: []
  after:
    description:
      - By service of the host, the seconds for which it must have been back before a running service is restarted. It
        steps in for this one, and gateways that found it gone send nobody there for so long.
    type: dict
    default: {}
  by:
    description: Who switches, and in which run. Set by the action plugin, for the history that the host keeps.
    type: dict
    default: {}
notes:
  - C(activation) of the release sets C(strategy), C(ready_timeout_s) (default 60), and for slots C(slots) (name and
    port of each) and C(drain_timeout_s) (default 120). C(running) is a command whose output holds the path of the
    release that is in effect, for a unit that leaves no process behind.
author: Modelyard
"""

EXAMPLES = r"""
- name: Activate redis
  modelyard_activate:
    service: redis

- name: Activate a model on the port of one that goes
  modelyard_activate:
    service: llama-cpp@new
    displaces: [llama-cpp@old]

- name: Activate a model once the one that steps in for it gets requests again
  modelyard_activate:
    service: llama-cpp@small
    after: {llama-cpp@big: 31}
"""

RETURN = r"""
release:
  description: Id of the release that is live after the call.
  type: str
  returned: always
former:
  description: Id of the release that was live before.
  type: str
  returned: when there was one
steps:
  description: What was done, with the seconds since the start.
  type: list
  elements: str
  returned: always
checks:
  description: Results of the checks of the new release.
  type: list
  elements: dict
  returned: when they were run
"""

import contextlib
import fcntl
import json
import os
import pwd
import signal
import socket
import time
import traceback
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.modelyard_checks import run_checks, table
from ansible.module_utils.modelyard_services import (
    CREDENTIALS,
    SERVICES,
    UNITS,
    Door,
    Release,
    Service,
    ServiceError,
    active_slots,
    differences,
    directives,
    keep_units,
    link_atomically,
    mend,
    missing,
    read_text,
    run,
    running_release,
    slot_unit,
    spoiled_files,
    systemctl,
    try_units,
    uninstall,
    unit_state,
    write_atomically,
)

STATE = "/var/lib/modelyard/activations"
POLL_S = 0.25
MAX_START_ATTEMPTS = 3
WATCH_NEW_PROGRAM_S = 10
"""How long a program that did not run here before is watched after its checks passed: some crash a little later."""


class Activation:
    """One switch of one service, from the first step to the last or all the way back."""

    def __init__(
        self,
        service: Service,
        release: Release,
        displaces: list[str],
        by: dict[str, Any] | None = None,
        after: dict[str, int] | None = None,
    ) -> None:
        self.service = service
        self.release = release
        self.displaces = displaces
        self.by = by or {}
        self.after = after or {}
        self.displaced: list[Service] = []
        self.former: Release | None = None
        self.started = time.monotonic()
        self.steps: list[str] = []
        self.checks: list[dict[str, Any]] = []

    def look(self) -> None:
        """Note what is live before anything changes."""
        self.former = self.service.load("current")

    def note(self, step: str) -> None:
        """Add a step to the report, with the seconds since the beginning."""
        self.steps.append(f"{time.monotonic() - self.started:6.1f} s  {step}")

    def execute(self) -> dict[str, Any]:
        """Switch, or do nothing when the release runs already. Raises ServiceError."""
        marker = os.path.join(self.release.path, ".restart")
        reasons = differences(self.release, self.service)
        if os.path.exists(marker):
            reasons.append("its files were edited by hand")
        if not reasons:
            return self._report(changed=False)
        if self.release.strategy == "slots":
            self._switch_slots()
        else:
            self._switch_in_place()
        self.service.point("staged", self.release)
        self.service.displaced = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(marker)
        self._record("live")
        for identifier in self.service.prune():
            self.note(f"old release {identifier} deleted")
        return self._report(changed=True)

    def recover(self) -> dict[str, Any]:
        """Put right what an `execute` left that was killed; raises ServiceError with the report of it."""
        killed = ServiceError("The activation process was killed.")
        if self.release.strategy == "slots":
            self.look()
            door = Door() if Door().exists() else None
            live = self._live_slot(door)
            if door:
                for slot in self.release.slots:
                    door.set_state(slot, "ready")
            raise ServiceError(f"{self.service.name}: {killed} Slot {live or 'none'} serves.")
        self.displaced = [other for other in map(Service, sorted(self._in_the_way())) if other.displaced]
        if self.former and not differences(self.former, self.service):
            report = f"{killed} Release {self.former.id} never stopped serving."
        else:
            report = self._put_back(killed)
        raise ServiceError("\n".join([report, *self._give_back()]))

    def told(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the report of `work`, which is `execute` or `recover`."""
        try:
            return work()
        except ServiceError as error:
            self._record("failed", why=str(error).partition("\n")[0])
            return {"failed": True, "msg": str(error), "steps": self.steps, "release": self.release.id}

    def _record(self, outcome: str, **more: object) -> None:
        checks = sum(result["status"] == "ok" for result in self.checks)
        seconds = round(time.monotonic() - self.started, 1)
        with contextlib.suppress(OSError):  # a full disk: what happened matters more than that it is remembered
            self.service.record(outcome, self.release.id, checks=checks, seconds=seconds, **self.by, **more)

    def _report(self, changed: bool) -> dict[str, Any]:
        return {
            "changed": changed,
            "release": self.release.id,
            "former": self.former.id if self.former else None,
            "steps": self.steps,
            "checks": self.checks,
        }

    # One copy at a time: engines, Redis, the front door ---------------------------------------------------------

    def _switch_in_place(self) -> None:
        self._wait_for_others()
        try:
            self._make_room()
            try:
                self._start(self.release)
                self._wait_until_ready(self.release)
                self._keep(self.release)
            except (ServiceError, OSError) as error:
                raise ServiceError(self._put_back(error)) from error
        except ServiceError as error:
            raise ServiceError("\n".join([str(error), *self._give_back()])) from error
        if self.former and self.former.id != self.release.id:
            self.service.point("previous", self.former)

    def _wait_for_others(self) -> None:
        """Wait until those that step in for this one get requests again, where a moment ago they were switched too."""
        now = time.time()
        waits = {}
        for name, seconds in self.after.items():
            latest = Service(name).history()[-1:]
            if latest and latest[0]["at"] + seconds > now:
                # A clock that was set back makes it no longer than that.
                waits[name] = min(latest[0]["at"] + seconds - now, seconds)
        unit = next(iter(self.release.unit_files()))
        if waits and unit_state(unit).get("ActiveState") == "active":  # else nobody is turned away by what follows
            self.note(f"wait {max(waits.values()):.0f} s until requests go to {', '.join(sorted(waits))} again")
            time.sleep(max(waits.values()))

    def _in_the_way(self) -> set[str]:
        """Return the services that must not run beside the new release."""
        names = {*self.displaces, *self.release.conflicts}
        for name in os.listdir(SERVICES):
            other = Service(name)
            live = other.load("current")
            # It is about to leave its port: what is staged for it is activated after us.
            leaving = live and live.strategy != "slots" and other.linked("staged") != live.id
            if live and leaving and live.endpoints & self.release.endpoints:
                names.add(name)
        return names - {self.service.name}

    def _make_room(self) -> None:
        """Stop what is in the way. That it made room is written down first, for the run after one that is killed."""
        for name in sorted(self._in_the_way()):
            other = Service(name)
            live = other.load("current")
            if live is None:
                continue
            units = live.unit_files()
            if unit_state(next(iter(units))).get("ActiveState") in ("active", "activating", "reloading"):
                other.displaced = True
                self.note(f"stop {name} to make room")
                systemctl("stop", *units)
            if other.displaced:
                self.displaced.append(other)

    def _give_back(self) -> list[str]:
        """Start again what made room for a release that failed; returns what the report says of it."""
        report = []
        for other in self.displaced:
            live = other.load("current")
            if live is None:
                continue
            units = live.unit_files()
            if unit_state(next(iter(units))).get("ActiveState") == "active":
                other.displaced = False  # killed before it was stopped
                continue
            taken = [f"{host}:{port}" for host, port in sorted(live.endpoints) if _answers(host, port)]
            if taken:
                report.append(
                    f"{other.name} was stopped to make room and stays stopped: {taken[0]} now "
                    "belongs to another service."
                )
                continue
            self.note(f"start {other.name} again")
            try:
                _reset_failures(*units)
                systemctl("start", *units)
                self._wait_until_ready(live)
                report.append(f"{other.name} was stopped to make room and serves again; its checks pass.")
            except ServiceError as error:
                report += [
                    f"{other.name} was stopped to make room, was started again and failed, too.",
                    str(error),
                    *_journal(next(iter(units))),
                ]
            other.displaced = False
        return report

    def _start(self, release: Release) -> None:
        """Have a release run. What a boot starts stays as it is until `_keep`."""
        units = release.unit_files()
        main = next(iter(units))
        verb = "restart"
        if release.strategy == "reload":
            # What is reloaded is found through the link; its configuration was validated when it was staged.
            unit_changed = any(
                directives(read_text(os.path.join(UNITS, name)) or "") != directives(content)
                for name, content in units.items()
            )
            if not unit_changed and unit_state(main).get("ActiveState") == "active":
                verb = "reload"
            self._keep(release)
        else:
            try_units(units)
        _reset_failures(*units)
        self.note(f"{verb} {main} with release {release.id}")
        systemctl(verb, *units)

    def _keep(self, release: Release) -> None:
        """Make a release the live one, which a boot starts."""
        self._point_current(release)
        keep_units(release.unit_files())

    def _point_current(self, release: Release) -> None:
        self.service.point("current", release)
        if release.spec["generation"]:
            link_atomically(os.path.join(CREDENTIALS, self.service.name, "current"), release.spec["generation"])

    def _put_back(self, error: Exception) -> str:
        """Restore the former release after a failure; returns the report of both."""
        main = next(iter(self.release.unit_files()))
        report = [f"{self.service.name}: release {self.release.id} failed.", str(error), *_journal(main)]
        former = self.former
        if former is None:
            uninstall(*self.release.unit_files())
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.service.root, "current"))
            report.append("There was no former release to restore, so the service is stopped.")
            return "\n".join(report)
        if former.id == self.release.id:
            self._keep(former)
            if self.displaced:
                systemctl("stop", *self.release.unit_files())
                report.append(
                    "There is no other release to restore. It is stopped in favour of the "
                    "services that were stopped to make room."
                )
            else:
                report.append(
                    "It was live before and there is no other release to restore; systemd keeps restarting it."
                )
            return "\n".join(report)
        self.note(f"restore release {former.id}")
        self.service.point("staged", former)
        try:
            gone = self.release.unit_files().keys() - former.unit_files().keys()
            if gone:
                uninstall(*gone)
            try:
                self._start(former)
                self._wait_until_ready(former)
            finally:
                self._keep(former)
        except (ServiceError, OSError) as second:
            report += [
                f"The former release {former.id} was restored and failed, too.",
                str(second),
                *_journal(main),
            ]
            return "\n".join(report)
        report.append(f"The former release {former.id} is live again and passes its checks.")
        return "\n".join(report)

    def _wait_until_ready(self, release: Release, slot: str | None = None, live: str | None = None) -> None:
        """Poll the release's checks until all pass; raises ServiceError when time is up or the unit gave up.

        A candidate must do no worse than the live slot: when only a request to an engine fails, and fails the same way
        through the live slot, then the engine is at fault and the change of the gateway is not held up by it.
        """
        unit = slot_unit(release, slot) if slot else next(iter(release.unit_files()))
        deadline = time.monotonic() + float(release.spec["activation"].get("ready_timeout_s", 60))
        checks = release.checks(slot)
        while True:
            state = unit_state(unit)
            gave_up = state.get("ActiveState") == "failed" or int(state.get("NRestarts") or 0) >= MAX_START_ATTEMPTS
            # After a reload the former configuration still answers for a moment: what runs must be this release.
            up = not gave_up and running_release(unit, release) == release.id
            results = run_checks(checks, release.generations) if up else []
            failed = [result for result in results if result["status"] == "failed"]
            if results and not failed:
                self.checks = results
                self.note(f"{unit} is ready, {len(results)} checks passed")
                self._watch(unit, release)
                return
            if live and failed and all(result["kind"] == "chat" for result in failed) and self._fails_too(live, failed):
                self.checks = results
                self.note(
                    f"{unit} is ready; an engine does not answer, nor does it through {live}: {failed[0]['detail']}"
                )
                return
            if up and not checks:
                self.note(f"{unit} is active, it has no checks")
                return
            # A model that answers from the processor does not move to a GPU by itself, nor does a gateway find a
            # name that it dropped at its start. While anything else fails, it may still be starting.
            final = bool(failed) and all(result["final"] for result in failed)
            if gave_up or final or time.monotonic() > deadline:
                self.checks = results
                seen = table(results) if results else [f"{unit} is {state.get('ActiveState')} ({state.get('Result')})"]
                reason = "it was not ready in time"
                if gave_up or final:
                    reason = "it keeps exiting" if gave_up else "it is running, but not as planned"
                raise ServiceError("\n".join([f"{unit}: {reason}.", *seen]))
            time.sleep(POLL_S)

    def _watch(self, unit: str, release: Release) -> None:
        """Look a while whether a new program stays up; raises ServiceError if not."""
        if self.former is None or set(release.spec["store"]) <= set(self.former.spec["store"]):
            return
        process = unit_state(unit).get("MainPID")
        started = time.monotonic()
        while time.monotonic() < started + WATCH_NEW_PROGRAM_S:
            time.sleep(POLL_S)
            if unit_state(unit).get("MainPID") != process:
                raise ServiceError(f"{unit}: it exited {time.monotonic() - started:.0f} s after it was ready.")
        self.note(f"{unit} is a new program and kept running")

    def _fails_too(self, live: str, failed: list[dict[str, Any]]) -> bool:
        """Say whether the live slot fails the same checks, by name, with its own secrets."""
        former = self.former
        if former is None:
            return False
        names = {result["name"] for result in failed}
        same = [check for check in former.checks(live) if check["name"] in names]
        results = run_checks(same, former.generations)
        return bool(results) and all(result["status"] == "failed" for result in results)

    # Two slots behind the front door: the gateway ---------------------------------------------------------------

    def _switch_slots(self) -> None:
        release = self.release
        door = Door() if Door().exists() else None
        live = self._live_slot(door)
        candidate = next(slot for slot in release.slots if slot != live)
        unit = slot_unit(release, candidate)
        try:
            if door:
                door.set_state(candidate, "maint")
            for name, content in release.unit_files(candidate).items():
                write_atomically(os.path.join(UNITS, name), content)
            systemctl("daemon-reload")
            _reset_failures(unit)
            self.note(f"start {unit} with release {release.id}, out of rotation (live: {live or 'none'})")
            systemctl("restart", unit)
            self._wait_until_ready(release, candidate, live)
            if door:
                door.set_state(candidate, "ready")
                _wait_for(
                    lambda: door.slot(candidate)["status"].startswith("UP"),
                    15,
                    f"the front end did not see {candidate} come up",
                )
        except ServiceError as error:
            raise ServiceError(self._drop_candidate(error, door, candidate, live)) from error
        # From here on the candidate serves; everything left is tidying up after the former slot.
        systemctl("enable", "--quiet", unit)
        self._point_current(release)
        if self.former and self.former.id != release.id:
            self.service.point("previous", self.former)
        self.note(f"{candidate} is in rotation")
        if live:
            self._retire(live, door)

    def _live_slot(self, door: Door | None) -> str | None:
        """Return the slot that serves; when an interrupted run left two, stop the one that is not in rotation."""
        active = active_slots(self.release)
        if len(active) < 2:
            return active[0] if active else None
        wanted = self.former.id if self.former else None
        serving = [slot for slot in active if running_release(slot_unit(self.release, slot), self.release) == wanted]
        if door:
            serving = [slot for slot in serving if door.slot(slot)["status"].startswith("UP")] or serving
        keep = (serving or active)[0]
        for slot in active:
            if slot != keep:
                self.note(f"{slot} was left over by an interrupted run")
                self._retire(slot, door)
        return keep

    def _retire(self, slot: str, door: Door | None) -> None:
        """Let a slot finish its requests, then stop it. No state is left in the door: its health check keeps it out."""
        unit = slot_unit(self.release, slot)
        if door:
            door.set_state(slot, "drain")
            limit = float(self.release.spec["activation"].get("drain_timeout_s", 120))
            try:
                _wait_for(lambda: int(door.slot(slot)["scur"] or 0) == 0, limit, "")
                self.note(f"{slot} finished its requests")
            except ServiceError:
                self.note(f"{slot} still had {door.slot(slot)['scur']} requests after {limit:.0f} s, they were cut")
        uninstall(unit)
        if door:
            # In rotation again only once the door's health check knows that it is down, or it would get requests.
            _wait_for(
                lambda: door.slot(slot)["check_status"] != "L7OK",
                10,
                f"the front end did not see {slot} go down",
            )
            door.set_state(slot, "ready")
        self.note(f"{slot} is stopped")

    def _drop_candidate(self, error: ServiceError, door: Door | None, candidate: str, live: str | None) -> str:
        """Stop a candidate that failed; returns the report."""
        unit = slot_unit(self.release, candidate)
        report = [
            f"{self.service.name}: candidate release {self.release.id} failed in slot {candidate}.",
            str(error),
            *_journal(unit),
        ]
        uninstall(unit)
        if door:
            door.set_state(candidate, "ready")
        if live:
            report.append(f"Slot {live} never stopped serving release {self.former.id if self.former else 'unknown'}.")
        else:
            report.append("No other slot was running, so the gateway is down.")
        return "\n".join(report)


def _reset_failures(*units: str) -> None:
    """Forget earlier failed starts, so that they neither count nor delay; units never started have none."""
    run(["systemctl", "reset-failed", *units])


def _wait_for(condition: Callable[[], object], limit: float, message: str) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceError(message)
        time.sleep(POLL_S)


def _journal(unit: str) -> list[str]:
    """Return the last lines of the unit's latest start, so that the reader need not log in to see them.

    A start that has just begun has none: then they are those of the starts before it.
    """
    invocation = run(["systemctl", "show", "--property=InvocationID", "--value", unit]).stdout.strip()
    shown = ""
    for match in ([f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else [], ["--unit", unit]):
        if match and not shown:
            shown = run(["journalctl", *match, "--lines", "15", "--no-pager", "--output", "cat"]).stdout.rstrip()
    return [
        f"Last lines of its journal (journalctl -u {unit}):",
        *(f"  {line}" for line in shown.splitlines()),
    ]


def _answers(host: str, port: int) -> bool:
    """Say whether anybody listens there."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


def in_a_child(work: Callable[[], dict[str, Any]]) -> tuple[int, int]:
    """Run `work`, which returns a report, in a process of its own. Returns its id and where the report can be read."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    try:
        report = work()
    except BaseException:  # whoever waits must get a report whatever happens
        report = {"failed": True, "msg": traceback.format_exc()}
    with contextlib.suppress(OSError), os.fdopen(writing, "wb") as pipe:  # nobody may be left to read it
        pipe.write(json.dumps(report).encode())
    os._exit(0)


def outcome(child: int, reading: int) -> dict[str, Any] | None:
    """Wait for the end of a child; returns its report, None if it was killed before it had one."""
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    try:
        return dict(json.loads(text))
    except ValueError:
        return None


def detached(activation: Activation, report_path: str) -> dict[str, Any]:
    """Switch in two processes that outlive this one: the second puts right what the first leaves if it is killed.

    An SSH connection that breaks ends this process, not the switch: the report stays on the host.
    """

    def supervise() -> dict[str, Any]:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        with open(f"{report_path}.lock", "w", encoding="utf-8") as lock:
            # The worker has it, too: as long as one of them lives nobody else switches this service.
            fcntl.flock(lock, fcntl.LOCK_EX)
            activation.look()
            report = outcome(*in_a_child(lambda: activation.told(activation.execute)))
            if report is None:
                report = activation.told(activation.recover)
            with contextlib.suppress(OSError):  # a full disk must not keep it from those who wait for it
                write_atomically(report_path, json.dumps(report), 0o600)
        return report

    return outcome(*in_a_child(supervise)) or {
        "failed": True,
        "msg": "the activation process was killed; the next run finishes or reverts the change",
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "service": {"type": "str", "required": True},
            "release": {"type": "str"},
            "displaces": {"type": "list", "elements": "str", "default": []},
            "after": {"type": "dict", "default": {}},
            "by": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    service = Service(module.params["service"])
    wanted = module.params["release"]
    try:
        release = Release.load(service.name, wanted) if wanted else service.load("staged")
        if release is None:
            if module.check_mode:
                module.exit_json(changed=True, steps=[], msg="nothing is staged yet, check mode stages nothing")
            raise ServiceError(f"{service.name} has no release {wanted or 'staged'} on this host")
        if module.check_mode:
            module.exit_json(changed=bool(differences(release, service)), release=release.id, steps=[])
        if wanted:
            gone = missing(release)
            if gone:
                module.fail_json(msg=f"{service.name} cannot activate release {wanted}: {', '.join(gone)} is missing")
            mend(release, spoiled_files(release), pwd.getpwnam(release.spec["user"]).pw_gid)
        os.makedirs(STATE, mode=0o700, exist_ok=True)
        report_path = os.path.join(STATE, f"{service.name}.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(report_path)
        params = module.params
        activation = Activation(service, release, params["displaces"], params["by"], params["after"])
        report = detached(activation, report_path)
    except (ServiceError, OSError) as error:
        module.fail_json(msg=str(error))
    if report.pop("failed", False):
        module.fail_json(**report)
    module.exit_json(**report)


if __name__ == "__main__":
    main()
