"""Who holds a lock, for the lock of the inventory and those of its hosts."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard.controller.runs import started, whoever_runs

HOST_LOCK = "/run/modelyard.lock"
"""As in plugins/module_utils/modelyard_host_lock.py."""


def me(playbooks: Sequence[str]) -> dict[str, Any]:
    """Return what this run says of itself. To be called by a plugin."""
    # Tasks run in children of the process that the user started.
    pid = os.getppid()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": started(pid),
        "run": whoever_runs(playbooks)["run"],
        "user": getpass.getuser(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "purpose": ", ".join(playbooks),
    }


def told(owner: Mapping[str, Any]) -> str:
    """Say who has a lock."""
    return (
        f"{owner['purpose']} has been changing the hosts of this inventory since "
        f"{owner['since']}: {owner['user']}@{owner['host']}, process {owner['pid']}."
    )


def has_ended(owner: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    """Return whether a run is known to have ended: only one on this machine can be judged."""
    same = bool(owner.get("machine") == mine["machine"])
    return same and started(int(owner["pid"])) != str(owner["started"])


def take_on_host(mine: Mapping[str, Any], take: Callable[[str], Mapping[str, Any] | None]) -> str:
    """Take the lock of a host; returns who has it, an empty text if it is ours.

    `take` asks the host, and is given the run that is known to have ended, if any.
    """
    owner = take("")
    if owner and has_ended(owner, mine):
        owner = take(str(owner["run"]))
    if not owner:
        return ""
    heard = datetime.fromtimestamp(float(owner["heard"]), UTC).strftime("%H:%M UTC")
    return (
        f"{told(owner)} It was last heard of at {heard}. If it has ended, remove {HOST_LOCK} on"
        " the hosts."
    )


def _machine() -> str:
    """Return what tells this machine, its boot and its process numbers from others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
