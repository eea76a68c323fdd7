"""What role base prepares on a host before any service.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import time
from typing import Any

from ansible.module_utils.modelyard_host import ServiceError, read_text, run, write_atomically
from ansible.module_utils.modelyard_services import (
    CREDENTIALS,
    SERVICES,
    Service,
    retired_long_ago,
)
from ansible.module_utils.modelyard_store import STORE, delete_unneeded, unneeded
from ansible.module_utils.modelyard_units import UNITS, systemctl, unit_state

BUILD_USER = "modelyard-build"
TARGET = "modelyard.target"
DIRECTORIES = {
    "/opt/modelyard": 0o755,
    STORE: 0o755,
    SERVICES: 0o755,
    "/etc/modelyard": 0o755,
    CREDENTIALS: 0o700,
    "/var/lib/modelyard": 0o755,
}


def directories(check_mode: bool) -> list[str]:
    """Make or correct the directories of the name contract."""
    changes = []
    for path, mode in DIRECTORIES.items():
        found = os.stat(path) if os.path.isdir(path) else None
        if found and stat.S_IMODE(found.st_mode) == mode and found.st_uid == found.st_gid == 0:
            continue
        changes.append(f"directory {path}")
        if not check_mode:
            os.makedirs(path, exist_ok=True)
            os.chown(path, 0, 0)
            os.chmod(path, mode)
    return changes


def build_user(name: str, check_mode: bool) -> list[str]:
    """Make the system user that builds artifacts: no home, no shell, no password.

    Raises ServiceError.
    """
    try:
        pwd.getpwnam(name)
    except KeyError:
        if not check_mode:
            nothing = [
                "--no-create-home",
                "--home-dir",
                "/nonexistent",
                "--shell",
                "/usr/sbin/nologin",
            ]
            done = run(["useradd", "--system", "--user-group", *nothing, name])
            if done.returncode != 0:
                raise ServiceError(f"useradd {name}: {done.stderr.strip()}") from None
        return [f"user {name}"]
    return []


def target(content: str, check_mode: bool) -> list[str]:
    """Install, enable and start the target that wants every service. Raises ServiceError."""
    path = os.path.join(UNITS, TARGET)
    changes = []
    if read_text(path) != content:
        changes.append(f"unit {TARGET}")
        if not check_mode:
            write_atomically(path, content)
            systemctl("daemon-reload")
    state = unit_state(TARGET)
    if state.get("UnitFileState") != "enabled":
        changes.append(f"{TARGET} enabled")
        if not check_mode:
            systemctl("enable", "--quiet", TARGET)
    if state.get("ActiveState") != "active":
        changes.append(f"{TARGET} started")
        if not check_mode:
            # The services it wants may take their time: each role waits for its own.
            systemctl("start", "--no-block", TARGET)
    return changes


def cleaned(check_mode: bool) -> list[str]:
    """Forget what left the plan long ago, and delete what nothing needs any more.

    Raises ServiceError.
    """
    now = time.time()
    retired = retired_long_ago(now)
    for name in [] if check_mode else retired:
        Service(name).remove()
    deleted = unneeded(now, retired) if check_mode else delete_unneeded(now, retired)
    return [
        *(f"retired service {name} deleted" for name in retired),
        *(f"unused {path} deleted" for path in deleted),
    ]


def prepared(wanted: dict[str, Any], check_mode: bool) -> list[str]:
    """Prepare the host: `wanted` has the text of the `target`. Returns what was, or would be,
    changed.

    Raises ServiceError.
    """
    return [
        *directories(check_mode),
        *build_user(wanted.get("build_user", BUILD_USER), check_mode),
        *target(wanted["target"], check_mode),
        *cleaned(check_mode),
    ]


def absent_programs(names: list[str]) -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in names if shutil.which(name) is None]
