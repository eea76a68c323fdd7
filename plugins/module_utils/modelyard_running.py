"""What really runs of a service, and how that differs from a release.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import os
import re

from ansible.module_utils.modelyard_host import ServiceError, read_text, run
from ansible.module_utils.modelyard_proxy import Door
from ansible.module_utils.modelyard_services import Release, Service
from ansible.module_utils.modelyard_units import TRIED_UNITS, UNITS, unit_state

RELEASE_VARIABLE = "MODELYARD_RELEASE"


def process_release(pid: str) -> str | None:
    """Return the release id that a process was started from: read from its environment, so it is
    what runs.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:
            entries = handle.read().split(b"\0")
    except OSError:
        return None
    prefix = f"{RELEASE_VARIABLE}=".encode()
    for entry in entries:
        if entry.startswith(prefix):
            return os.path.basename(entry[len(prefix) :].decode())
    return None


def running_release(unit: str, release: Release) -> str | None:
    """Return the id of the release that a unit really runs, None when it does not run.

    `release` is any release of the service: it says how what runs is read. Raises ServiceError.
    """
    state = unit_state(unit)
    if state.get("ActiveState") != "active":
        return None
    command = release.spec["activation"].get("running")
    if command:
        # No process stays behind, so what it left in the kernel says which release that is from.
        found = re.search(r"/releases/([0-9a-f]{12})\b", run(command).stdout)
        return found[1] if found else None
    if state.get("MainPID", "0") == "0":
        return None
    if release.strategy == "reload":
        # A reload keeps the environment of the first start; the configuration itself says which one
        # is in use.
        with contextlib.suppress(ServiceError):  # no socket yet: it has only just been started
            return Door().release()
        return None
    return process_release(state["MainPID"])


def differences(release: Release, service: Service) -> list[str]:
    """Say in words how what runs differs from `release`; an empty list means that nothing has to be
    done.

    Raises ServiceError.
    """
    found = []
    if service.linked("current") != release.id:
        found.append(
            f"release {release.id} is not live (live: {service.linked('current') or 'none'})"
        )
    if release.strategy == "slots":
        return found + _slot_differences(release)
    units = release.unit_files()
    for unit, content in units.items():
        found += _unit_differences(unit, content)
    main = next(iter(units))
    running = running_release(main, release)
    if running != release.id:
        found.append(f"{main} runs {running or 'nothing'}, expected {release.id}")
    return found


def _unit_differences(unit: str, content: str) -> list[str]:
    installed = read_text(os.path.join(UNITS, unit))
    if installed is None:
        return [f"{unit} is not installed"]
    found = []
    if read_text(os.path.join(TRIED_UNITS, unit)) not in (None, content):
        found.append(f"{unit} is overridden until the next boot: a change of it was interrupted")
    if installed != content:
        found.append(f"{unit} differs from its release")
    if unit_state(unit).get("UnitFileState") != "enabled":
        found.append(f"{unit} is not enabled")
    return found


def slot_unit(release: Release, slot: str) -> str:
    """Return the name of the unit of a slot."""
    return next(name for name in release.unit_files(slot) if name.endswith(f"@{slot}.service"))


def active_slots(release: Release) -> list[str]:
    """Return the slots whose unit is active (or on its way), in the order of the release.

    Raises ServiceError.
    """
    return [
        slot
        for slot in release.slots
        if unit_state(slot_unit(release, slot)).get("ActiveState")
        in ("active", "activating", "reloading")
    ]


def _slot_differences(release: Release) -> list[str]:
    active = active_slots(release)
    if len(active) != 1:
        return [f"{len(active)} slots are active, expected one"]
    slot = active[0]
    unit = slot_unit(release, slot)
    found = _unit_differences(unit, release.unit_files(slot)[unit])
    running = running_release(unit, release)
    if running != release.id:
        found.append(f"{unit} runs {running or 'nothing'}, expected {release.id}")
    door = Door()
    if door.exists() and not door.slot(slot)["status"].startswith("UP"):
        found.append(f"the front end has {slot} {door.slot(slot)['status']}")
    return found
