#!/usr/bin/python
"""Remove Modelyard from a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_remove
short_description: Remove Modelyard from a host
description:
  - Stops and removes every unit C(modelyard-*), retired and half-installed services, releases,
    credentials, artifacts,
    the cache of builds and the firewall's rules. Packages whose own service Modelyard masked, which
    are those that it
    installed, are purged, unless their program still runs.
  - What is below C(/var/lib/modelyard) stays, models among it, and so do the users that it belongs
    to, unless O(data).
  - Other packages that were installed for a build (a compiler, C(python3-venv)) stay, as others may
    need them by now.
  - In check mode it says what would go.
options:
  data:
    description: Whether models, Prometheus' data, Redis' data and the users go, too. This cannot be
      undone.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
author: Modelyard
"""

EXAMPLES = r"""
- name: What would go
  modelyard_remove:
  check_mode: true
  register: removal

- name: Everything goes but models and other data
  modelyard_remove:
"""

RETURN = r"""
gone:
  description: What went, or would go.
  type: list
  elements: str
  returned: always
stays:
  description: What stays, and why.
  type: list
  elements: str
  returned: always
"""

import contextlib
import glob
import os
import pwd
import shutil

from ansible.module_utils.modelyard_host import ServiceError, run
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_store import CACHE
from ansible.module_utils.modelyard_units import TRIED_UNITS, UNITS, delete_unit_files, systemctl

PROGRAMS = "/opt/modelyard"
SECRETS = "/etc/modelyard"
DATA = "/var/lib/modelyard"
PACKAGES = (
    "redis-server",
    "haproxy",
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-node-exporter",
    "prometheus-redis-exporter",
    "prometheus-blackbox-exporter",
)
"""Packages that roles install, each with a program of its name. A role masks the package's own
service only where the package was absent, so a mask says that it was Modelyard that brought it."""


def units() -> list[str]:
    """Return the units of Modelyard that are installed; the firewall's, which guards the others, is
    the last.
    """
    found = {
        os.path.basename(path)
        for directory in (UNITS, TRIED_UNITS)
        for path in glob.glob(os.path.join(glob.escape(directory), "modelyard*"))
        if path.endswith((".service", ".target"))
    }
    return sorted(found, key=lambda unit: ("firewall" in unit, unit))


def masked() -> list[str]:
    """Return the packages whose own service is masked."""
    paths = {package: os.path.join(UNITS, f"{package}.service") for package in PACKAGES}
    return [
        name
        for name, path in paths.items()
        if os.path.islink(path) and os.readlink(path) == "/dev/null"
    ]


def runs(program: str) -> bool:
    """Say whether a program runs outside Modelyard, now that Modelyard's units are gone."""
    path = os.path.realpath(shutil.which(program) or program)
    for link in glob.glob("/proc/[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if os.readlink(link) == path:
                return True
    return False


def users() -> list[str]:
    """Return the users of Modelyard."""
    return sorted(
        entry.pw_name for entry in pwd.getpwall() if entry.pw_name.startswith("modelyard-")
    )


def inventory(data: bool) -> tuple[list[str], list[str]]:
    """Return what would go and what would stay, in words."""
    packages = masked()
    gone = [f"unit {unit}" for unit in units()]
    gone += [path for path in (PROGRAMS, SECRETS, CACHE) if os.path.isdir(path)]
    gone += [f"package {package}" for package in packages]
    state = [DATA] if os.path.isdir(DATA) else []
    accounts = [f"user {name}" for name in users()]
    return (
        (gone + state + accounts, [])
        if data
        else (gone, [f"{one} (data=true removes it)" for one in state + accounts])
    )


def take_away(data: bool) -> list[str]:
    """Take everything away; return what has to stay after all. Raises ServiceError and OSError."""
    installed = units()
    for unit in installed:
        systemctl("disable", "--now", "--quiet", unit)
        delete_unit_files(unit)
    systemctl("daemon-reload")
    run(["systemctl", "reset-failed", "modelyard*"])
    stays = []
    for package in masked():
        if runs(package):
            stays.append(f"package {package}: its program runs outside Modelyard")
            continue
        done = run(["apt-get", "purge", "-qq", "-y", package], timeout=600)
        if done.returncode:
            raise ServiceError(f"apt-get purge {package}: {done.stderr.strip()[-500:]}")
        os.unlink(os.path.join(UNITS, f"{package}.service"))
    systemctl("daemon-reload")
    for path in (PROGRAMS, SECRETS, CACHE, *([DATA] if data else [])):
        if os.path.isdir(path):
            shutil.rmtree(path)
    for name in users() if data else []:
        done = run(["userdel", name])
        if done.returncode:
            raise ServiceError(f"userdel {name}: {done.stderr.strip()}")
    return stays


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={"data": {"type": "bool", "default": False}}, supports_check_mode=True
    )
    data = module.params["data"]
    try:
        gone, stays = inventory(data)
        if gone and not module.check_mode:
            stays += take_away(data)
    except (ServiceError, OSError) as error:
        module.fail_json(msg=f"removal is incomplete; fix this and run it again: {error}")
    module.exit_json(changed=bool(gone), gone=gone, stays=stays)


if __name__ == "__main__":
    main()
