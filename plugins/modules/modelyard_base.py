#!/usr/bin/python
"""Lay the ground that every service stands on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_base
short_description: Make the directories, the target and the build user that all roles rely on
description:
  - "Creates C(/opt/modelyard/store), C(/opt/modelyard/services), C(/etc/modelyard/credentials)
    (root only), C(/var/lib/modelyard), the user that builds artifacts, and
    C(modelyard.target), enabled and active."
  - Deletes what was retired a week ago, remains of builds, and artifacts that no release on the
    host names, retired ones included, and that no run requested within a day. It is the first to
    touch a host in a run, so it deletes nothing that the run itself requests.
  - One call, because every run on every host pays for it.
options:
  target:
    description: Content of C(modelyard.target).
    type: str
    required: true
  build_user:
    description: Name of the system user that builds artifacts.
    type: str
    default: modelyard-build
  programs:
    description: Programs that have to be there. Those that are not are returned, nothing is
      installed.
    type: list
    elements: str
    default: []
author: Modelyard
"""

EXAMPLES = r"""
- name: Prepare the host
  modelyard_base:
    target: "{{ lookup('ansible.builtin.file', 'modelyard.target') }}"
    programs: [zstd]
  register: __base
"""

RETURN = r"""
changes:
  description: What was made, corrected or deleted.
  type: list
  elements: str
  returned: always
missing_programs:
  description: Those of C(programs) that the host does not have.
  type: list
  elements: str
  returned: always
services:
  description: Services of ours that are on the host, running or not.
  type: list
  elements: str
  returned: always
"""

import os
import pwd
import shutil
import stat
import time
from typing import Any

from ansible.module_utils.modelyard_host import ServiceError, read_text, run, write_atomically
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_services import (
    CREDENTIALS,
    SERVICES,
    Service,
    retired_long_ago,
    services,
)
from ansible.module_utils.modelyard_store import STORE, delete_unneeded, unneeded
from ansible.module_utils.modelyard_units import UNITS, systemctl, unit_state

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


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "target": {"type": "str", "required": True},
            "build_user": {"type": "str", "default": "modelyard-build"},
            "programs": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        changes = [
            *directories(module.check_mode),
            *build_user(module.params["build_user"], module.check_mode),
            *target(module.params["target"], module.check_mode),
            *cleaned(module.check_mode),
        ]
    except (ServiceError, OSError) as error:
        module.fail_json(msg=str(error))
    missing = [program for program in module.params["programs"] if shutil.which(program) is None]
    result: dict[str, Any] = {
        "changes": changes,
        "missing_programs": missing,
        "services": services(),
    }
    if changes:
        result["diff"] = {"prepared": "\n".join(changes)}
    module.exit_json(changed=bool(changes), **result)


if __name__ == "__main__":
    main()
