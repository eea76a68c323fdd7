"""Activation of a service of which one copy runs at a time: engines, Redis, the front end.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ansible.module_utils.modelyard_activation import Activation, answers, journal, reset_failures
from ansible.module_utils.modelyard_host import ServiceError, read_text
from ansible.module_utils.modelyard_running import differences
from ansible.module_utils.modelyard_services import SERVICES, Release, Service
from ansible.module_utils.modelyard_units import (
    UNITS,
    directives,
    keep_units,
    systemctl,
    try_units,
    uninstall,
    unit_state,
)


class InPlace(Activation):
    """Stop what is in the way, start the release, and put everything back if it is not good."""

    def __init__(
        self,
        service: Service,
        release: Release,
        displaces: list[str],
        by: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(service, release, by)
        self.displaces = displaces
        self.displaced: list[Service] = []

    def switch(self) -> None:
        """See Activation."""
        try:
            self._make_room()
            try:
                self._start(self.release)
                self.wait_until_ready(self.release)
                self._keep(self.release)
            except (ServiceError, OSError) as error:
                raise ServiceError(self._put_back(error)) from error
        except ServiceError as error:
            raise ServiceError("\n".join([str(error), *self._give_back()])) from error
        if self.former and self.former.id != self.release.id:
            self.service.point("previous", self.former)

    def recover(self) -> dict[str, Any]:
        """See Activation."""
        killed = ServiceError("The activation process was killed.")
        self.displaced = [
            other for other in map(Service, sorted(self._in_the_way())) if other.displaced
        ]
        if self.former and not differences(self.former, self.service):
            report = f"{killed} Release {self.former.id} never stopped serving."
        else:
            report = self._put_back(killed)
        raise ServiceError("\n".join([report, *self._give_back()]))

    def leaves(self) -> list[tuple[str, str]]:
        """Return the pools in which the host answers no requests while the release starts: its own,
        and those of what makes room; each with the host's name there.
        """
        own = [self.release] if self.service.linked("current") else []
        names = [self.service.name, *sorted(self._in_the_way())]
        live = [found for found in (Service(name).load("current") for name in names) if found]
        running = [
            one
            for one in live
            if unit_state(next(iter(one.unit_files()))).get("ActiveState") != "inactive"
        ]
        # Its release may have been made before releases knew their pools; the next one does.
        found = [one.pool for one in [*running, *own]]
        return list(dict.fromkeys(pool for pool in found if pool))

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
        """Stop what is in the way.

        That it made room is written down first, for the run after one that is killed.
        """
        for name in sorted(self._in_the_way()):
            other = Service(name)
            live = other.load("current")
            if live is None:
                continue
            units = live.unit_files()
            if unit_state(next(iter(units))).get("ActiveState") in (
                "active",
                "activating",
                "reloading",
            ):
                other.displaced = True
                self.note(f"stop {name} to make room")
                systemctl("stop", *units)
            if other.displaced:
                self.displaced.append(other)

    def _give_back(self) -> list[str]:
        """Start again what made room for a release that failed; returns what the report says of
        it.
        """
        report = []
        for other in self.displaced:
            live = other.load("current")
            if live is None:
                continue
            units = live.unit_files()
            if unit_state(next(iter(units))).get("ActiveState") == "active":
                other.displaced = False  # killed before it was stopped
                continue
            taken = [
                f"{host}:{port}" for host, port in sorted(live.endpoints) if answers(host, port)
            ]
            if taken:
                report.append(
                    f"{other.name} was stopped to make room and stays stopped: {taken[0]} now "
                    "belongs to another service."
                )
                continue
            self.note(f"start {other.name} again")
            try:
                reset_failures(*units)
                systemctl("start", *units)
                self.wait_until_ready(live)
                report.append(
                    f"{other.name} was stopped to make room and serves again; its checks pass."
                )
            except ServiceError as error:
                report += [
                    f"{other.name} was stopped to make room, was started again and failed, too.",
                    str(error),
                    *journal(next(iter(units))),
                ]
            other.displaced = False
        return report

    def _start(self, release: Release) -> None:
        """Have a release run. What a boot starts stays as it is until `_keep`."""
        units = release.unit_files()
        main = next(iter(units))
        verb = "restart"
        if release.strategy == "reload":
            # What is reloaded is found through the link; its configuration was validated when it
            # was staged.
            unit_changed = any(
                directives(read_text(os.path.join(UNITS, name)) or "") != directives(content)
                for name, content in units.items()
            )
            if not unit_changed and unit_state(main).get("ActiveState") == "active":
                verb = "reload"
            self._keep(release)
        else:
            try_units(units)
        reset_failures(*units)
        self.note(f"{verb} {main} with release {release.id}")
        systemctl(verb, *units)

    def _keep(self, release: Release) -> None:
        """Make a release the live one, which a boot starts."""
        self.point_current(release)
        keep_units(release.unit_files())

    def _put_back(self, error: Exception) -> str:
        """Restore the former release after a failure; returns the report of both."""
        main = next(iter(self.release.unit_files()))
        report = [
            f"{self.service.name}: release {self.release.id} failed.",
            str(error),
            *journal(main),
        ]
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
                    "It was live before and there is no other release to restore; systemd keeps"
                    " restarting it."
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
                self.wait_until_ready(former)
            finally:
                self._keep(former)
        except (ServiceError, OSError) as second:
            report += [
                f"The former release {former.id} was restored and failed, too.",
                str(second),
                *journal(main),
            ]
            return "\n".join(report)
        report.append(f"The former release {former.id} is live again and passes its checks.")
        return "\n".join(report)
