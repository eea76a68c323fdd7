"""Activation of a service with two slots behind the front end: the gateway.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.modelyard_activation import Activation, journal, reset_failures, wait_for
from ansible.module_utils.modelyard_host import ServiceError, write_atomically
from ansible.module_utils.modelyard_proxy import Door
from ansible.module_utils.modelyard_running import active_slots, running_release, slot_unit
from ansible.module_utils.modelyard_units import UNITS, systemctl, uninstall


class Slots(Activation):
    """Start the release in the free slot, out of rotation; move requests there once its checks
    pass.
    """

    def switch(self) -> None:
        """See Activation."""
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
            reset_failures(unit)
            self.note(
                f"start {unit} with release {release.id}, out of rotation (live: {live or 'none'})"
            )
            systemctl("restart", unit)
            self.wait_until_ready(release, candidate, live)
            if door:
                door.set_state(candidate, "ready")
                wait_for(
                    lambda: door.slot(candidate)["status"].startswith("UP"),
                    15,
                    f"the front end did not see {candidate} come up",
                )
        except ServiceError as error:
            raise ServiceError(self._drop_candidate(error, door, candidate, live)) from error
        # From here on the candidate serves; everything left is tidying up after the former slot.
        systemctl("enable", "--quiet", unit)
        self.point_current(release)
        if self.former and self.former.id != release.id:
            self.service.point("previous", self.former)
        self.note(f"{candidate} is in rotation")
        if live:
            self._retire(live, door)

    def recover(self) -> dict[str, Any]:
        """See Activation."""
        killed = ServiceError("The activation process was killed.")
        self.look()
        door = Door() if Door().exists() else None
        live = self._live_slot(door)
        if door:
            for slot in self.release.slots:
                door.set_state(slot, "ready")
        raise ServiceError(f"{self.service.name}: {killed} Slot {live or 'none'} serves.")

    def _live_slot(self, door: Door | None) -> str | None:
        """Return the slot that serves; when an interrupted run left two, stop the one that is not
        in rotation.
        """
        active = active_slots(self.release)
        if len(active) < 2:
            return active[0] if active else None
        wanted = self.former.id if self.former else None
        serving = [
            slot
            for slot in active
            if running_release(slot_unit(self.release, slot), self.release) == wanted
        ]
        if door:
            serving = [
                slot for slot in serving if door.slot(slot)["status"].startswith("UP")
            ] or serving
        keep = (serving or active)[0]
        for slot in active:
            if slot != keep:
                self.note(f"{slot} was left over by an interrupted run")
                self._retire(slot, door)
        return keep

    def _retire(self, slot: str, door: Door | None) -> None:
        """Let a slot finish its requests, then stop it.

        No state is left in the front end: its health check keeps the slot out.
        """
        unit = slot_unit(self.release, slot)
        if door:
            door.set_state(slot, "drain")
            limit = float(self.release.spec["activation"].get("drain_timeout_s", 120))
            try:
                wait_for(lambda: int(door.slot(slot)["scur"] or 0) == 0, limit, "")
                self.note(f"{slot} finished its requests")
            except ServiceError:
                self.note(
                    f"{slot} still had {door.slot(slot)['scur']} requests after {limit:.0f} s, they"
                    " were cut"
                )
        uninstall(unit)
        if door:
            # In rotation again only once the front end's health check knows that it is down, or it
            # would get requests.
            wait_for(
                lambda: door.slot(slot)["check_status"] != "L7OK",
                10,
                f"the front end did not see {slot} go down",
            )
            door.set_state(slot, "ready")
        self.note(f"{slot} is stopped")

    def _drop_candidate(
        self, error: ServiceError, door: Door | None, candidate: str, live: str | None
    ) -> str:
        """Stop a candidate that failed; returns the report."""
        unit = slot_unit(self.release, candidate)
        report = [
            f"{self.service.name}: candidate release {self.release.id} failed in slot {candidate}.",
            str(error),
            *journal(unit),
        ]
        uninstall(unit)
        if door:
            door.set_state(candidate, "ready")
        if live:
            report.append(
                f"Slot {live} never stopped serving release"
                f" {self.former.id if self.former else 'unknown'}."
            )
        else:
            report.append("No other slot was running, so the gateway is down.")
        return "\n".join(report)
