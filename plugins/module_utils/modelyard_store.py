"""The store on the host: artifacts, remains of their builds, and what is no longer needed.

    /opt/modelyard/store/NAME-VERSION-HASH/        an artifact; `.modelyard-complete` in it says
                                                   that it is whole, and when it was last requested
    /var/cache/modelyard/build/NAME-VERSION-HASH/  a build under way, or one that failed, with its
                                                   log

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Collection, Iterator

from ansible.module_utils.modelyard_host import run
from ansible.module_utils.modelyard_services import DAY_S, SERVICES
from ansible.module_utils.modelyard_units import TRIED_UNITS, UNITS

STORE = "/opt/modelyard/store"
CACHE = "/var/cache/modelyard"
WORK = f"{CACHE}/build"
COMPLETE = ".modelyard-complete"
COMMANDS = ("/usr/local/bin/ollama",)
"""Programs for the admin that roles write outside of a release, and that start one of an
artifact."""
OURS = re.compile(r"\.?(?P<identifier>.+-[0-9a-f]{12})(\.new|\.tar\.zst)?")
"""An artifact, a copy that is being unpacked, a build, or its archive. Anything else there is not
Modelyard's."""


def unit_name(identifier: str) -> str:
    """Return the name of the transient unit that builds an artifact."""
    return f"modelyard-build-{identifier.replace('.', '-')}.service"


def building(identifier: str) -> bool:
    """Say whether a build of the artifact is under way. Raises ServiceError."""
    shown = run(["systemctl", "show", "--property=ActiveState", unit_name(identifier)]).stdout
    return shown.strip() in ("ActiveState=active", "ActiveState=activating")


def unneeded(now: float, forgotten: Collection[str] = ()) -> list[str]:
    """Return the paths that nothing names, no run requested within a day and no build uses.

    The day is for what a run asks for now and stages later, for a run that was interrupted and for
    whoever reads the log of a build. `now` is in seconds since 1970; releases of the services in
    `forgotten` no longer count. Raises ServiceError.
    """
    found = {}
    for directory in (STORE, WORK):
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            ours, path = OURS.fullmatch(name), os.path.join(directory, name)
            if ours and not os.path.islink(path) and not _asked_for_lately(path, now):
                found[path] = ours["identifier"]
    for text in _whatever_names_artifacts(forgotten) if found else ():
        found = {
            path: identifier for path, identifier in found.items() if path.encode() not in text
        }
    return [path for path, identifier in found.items() if not building(identifier)]


def delete_unneeded(now: float, forgotten: Collection[str] = ()) -> list[str]:
    """Delete what `unneeded` returns. Returns what was deleted; failures do not stop the run.

    Raises ServiceError.
    """
    deleted = []
    for path in unneeded(now, forgotten):
        if _asked_for_lately(path, now):
            continue  # by a run of another controller, while something larger was deleted
        with contextlib.suppress(OSError):
            if os.path.isdir(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(
                        os.path.join(path, COMPLETE)
                    )  # first of all: half of an artifact is none
                shutil.rmtree(path)
            else:
                os.unlink(path)
            deleted.append(path)
    return deleted


def size_of(path: str) -> int:
    """Return how many bytes a file, or the files in a directory, have."""
    if not os.path.isdir(path):
        return os.stat(path).st_size
    return sum(
        os.lstat(os.path.join(root, name)).st_size
        for root, _, files in os.walk(path)
        for name in files
    )


def _asked_for_lately(path: str, now: float) -> bool:
    """Say whether it was made, or found by who needs it, within a day of now: a clock may have been
    a year ahead.
    """
    marker = os.path.join(path, COMPLETE)
    return abs(now - os.stat(marker if os.path.exists(marker) else path).st_mtime) < DAY_S


def _whatever_names_artifacts(forgotten: Collection[str]) -> Iterator[bytes]:
    """Yield the manifests of all releases, retired ones too, the units that are installed, and the
    commands.
    """
    releases = glob.glob(f"{SERVICES}/*/releases/*/manifest.json")
    gone = tuple(f"{SERVICES}/{name}/" for name in forgotten)
    units = [path for place in (UNITS, TRIED_UNITS) for path in glob.glob(f"{place}/modelyard*")]
    # Below `modelyard-x.service.d/` are a user's additions to a unit.
    units += [path for unit in units for path in glob.glob(f"{unit}/*")]
    for path in [*(path for path in releases if not path.startswith(gone)), *units, *COMMANDS]:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError), open(path, "rb") as handle:
            yield handle.read()
