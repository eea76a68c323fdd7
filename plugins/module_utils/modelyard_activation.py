"""What the activations of all services have in common: readiness, checks, the report and the
history.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from abc import ABC, abstractmethod
from typing import Any, Callable
from urllib.parse import urlsplit

from ansible.module_utils.modelyard_checks import run_checks, table
from ansible.module_utils.modelyard_host import ServiceError, link_atomically, run
from ansible.module_utils.modelyard_running import differences, running_release, slot_unit
from ansible.module_utils.modelyard_services import CREDENTIALS, Release, Service
from ansible.module_utils.modelyard_sockets import clashes, holders, listeners, normalise
from ansible.module_utils.modelyard_units import unit_state

POLL_S = 0.25
MAX_START_ATTEMPTS = 3
WATCH_NEW_PROGRAM_S = 10
"""How long a program that did not run here before is watched after its checks passed: some crash a
little later."""


class Activation(ABC):
    """One switch of one service, from the first step to the last or all the way back."""

    def __init__(
        self, service: Service, release: Release, by: dict[str, Any] | None = None
    ) -> None:
        self.service = service
        self.release = release
        self.by = by or {}
        self.former: Release | None = None
        self.started = time.monotonic()
        self.steps: list[str] = []
        self.checks: list[dict[str, Any]] = []

    @abstractmethod
    def switch(self) -> None:
        """Let the release serve, or put back what served before. Raises ServiceError."""

    @abstractmethod
    def recover(self) -> dict[str, Any]:
        """Put right what an `execute` left that was killed.

        Always raises ServiceError, with the report of it.
        """

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
        self.switch()
        self.service.point("staged", self.release)
        self.service.displaced = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(marker)
        self._record("live")
        for identifier in self.service.prune():
            self.note(f"old release {identifier} deleted")
        return self._report(changed=True)

    def told(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the report of `work`, which is `execute` or `recover`."""
        try:
            return work()
        except ServiceError as error:
            self._record("failed", why=str(error).partition("\n")[0])
            return {
                "failed": True,
                "msg": str(error),
                "steps": self.steps,
                "release": self.release.id,
            }

    def _record(self, outcome: str, **more: object) -> None:
        checks = sum(result["status"] == "ok" for result in self.checks)
        seconds = round(time.monotonic() - self.started, 1)
        with contextlib.suppress(
            OSError
        ):  # a full disk: what happened matters more than that it is remembered
            self.service.record(
                outcome, self.release.id, checks=checks, seconds=seconds, **self.by, **more
            )

    def _report(self, changed: bool) -> dict[str, Any]:
        return {
            "changed": changed,
            "release": self.release.id,
            "former": self.former.id if self.former else None,
            "steps": self.steps,
            "checks": self.checks,
        }

    def point_current(self, release: Release) -> None:
        """Make a release and its credentials the live ones."""
        self.service.point("current", release)
        if release.spec["generation"]:
            link_atomically(
                os.path.join(CREDENTIALS, self.service.name, "current"), release.spec["generation"]
            )

    def wait_until_ready(
        self, release: Release, slot: str | None = None, live: str | None = None
    ) -> None:
        """Poll the release's checks until all pass; raises ServiceError when time is up or the unit
        gave up.

        A candidate must do no worse than the live slot: when only a request to an engine fails, and
        fails the same way through the live slot, then the engine is at fault and the change of the
        gateway is not held up by it.
        """
        unit = slot_unit(release, slot) if slot else next(iter(release.unit_files()))
        deadline = time.monotonic() + float(release.spec["activation"].get("ready_timeout_s", 60))
        checks = release.checks(slot)
        while True:
            state = unit_state(unit)
            gave_up = (
                state.get("ActiveState") == "failed"
                or int(state.get("NRestarts") or 0) >= MAX_START_ATTEMPTS
            )
            # After a reload the former configuration still answers for a moment: what runs must be
            # this release.
            up = not gave_up and running_release(unit, release) == release.id
            results = run_checks(checks, release.generations) if up else []
            failed = [result for result in results if result["status"] == "failed"]
            taken = held_by_others(unit, checks) if results and not failed else []
            if results and not failed and not taken:
                self.checks = results
                self.note(f"{unit} is ready, {len(results)} checks passed")
                self._watch(unit, release)
                return
            if (
                live
                and failed
                and all(result["kind"] == "chat" for result in failed)
                and self._fails_too(live, failed)
            ):
                self.checks = results
                self.note(
                    f"{unit} is ready; an engine does not answer, nor does it through {live}:"
                    f" {failed[0]['detail']}"
                )
                return
            if up and not checks:
                self.note(f"{unit} is active, it has no checks")
                return
            # A model that runs on the CPU does not move to a GPU by itself, nor does a gateway
            # find a name that it dropped at its start. While anything else fails, it may still be
            # starting.
            final = bool(failed) and all(result["final"] for result in failed)
            if gave_up or final or time.monotonic() > deadline:
                self.checks = results
                seen = (
                    table(results)
                    if results
                    else [f"{unit} is {state.get('ActiveState')} ({state.get('Result')})"]
                )
                reason = "it was not ready in time"
                if gave_up or final:
                    reason = "it keeps exiting" if gave_up else "it is running, but not as planned"
                raise ServiceError("\n".join([f"{unit}: {reason}.", *seen, *taken]))
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
                raise ServiceError(
                    f"{unit}: it exited {time.monotonic() - started:.0f} s after it was ready."
                )
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


def held_by_others(unit: str, checks: list[dict[str, Any]]) -> list[str]:
    """Say on which addresses of its checks something else than a unit answers.

    A program that cannot bind its port counts as running until it exits, and whatever holds the
    port may pass the checks meanwhile.
    """
    places = {place for check in checks if (place := _place(check)) is not None}
    sockets = [
        (place, one)
        for one in listeners()
        for place in places
        if place[1] == one.port and clashes(place[0], one)
    ]
    owners = holders({one.inode for _, one in sockets})
    found = []
    for place in sorted(places):
        units = [owners[one.inode] for at, one in sockets if at == place and one.inode in owners]
        if units and all(owner.unit != unit for owner in units):
            found.append(f"{place[0]}, port {place[1]}, is held by {units[0]}")
    return found


def _place(check: dict[str, Any]) -> tuple[str, int] | None:
    """Return the address and port that a check asks; None if it asks no numeric address."""
    url = urlsplit(check.get("url") or "")
    host, port = (url.hostname, url.port) if url.netloc else (check.get("host"), check.get("port"))
    try:
        return normalise(str(host)), int(port or 0)
    except ValueError:
        return None


def reset_failures(*units: str) -> None:
    """Forget earlier failed starts, so that they neither count nor delay; units never started have
    none.
    """
    run(["systemctl", "reset-failed", *units])


def wait_for(condition: Callable[[], object], limit: float, message: str) -> None:
    """Wait until `condition` holds. Raises ServiceError with `message` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceError(message)
        time.sleep(POLL_S)


def journal(unit: str) -> list[str]:
    """Return the last lines of the unit's latest start, so that the reader need not log in to see
    them.

    A start that has just begun has none: then they are those of the starts before it.
    """
    invocation = run(
        ["systemctl", "show", "--property=InvocationID", "--value", unit]
    ).stdout.strip()
    shown = ""
    for match in ([f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else [], ["--unit", unit]):
        if match and not shown:
            shown = run(
                ["journalctl", *match, "--lines", "15", "--no-pager", "--output", "cat"]
            ).stdout.rstrip()
    return [
        f"Last lines of its journal (journalctl -u {unit}):",
        *(f"  {line}" for line in shown.splitlines()),
    ]


def answers(host: str, port: int) -> bool:
    """Say whether anybody listens there."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False
