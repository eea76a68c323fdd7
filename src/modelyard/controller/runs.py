"""Who changes hosts, and in which run: what every release remembers of how it went live."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path


def started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty if there is none. A number may be
    given to another.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def whoever_runs(playbooks: Sequence[str]) -> dict[str, str]:
    """`run` is the same for all tasks of one `ansible-playbook`, `who` is USER@MACHINE, `what` the
    playbook.

    To be called by a plugin: tasks run in children of the process that the user started.
    """
    pid = os.getppid()
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    digest = hashlib.sha256(f"{who} {pid} {started(pid)}".encode()).hexdigest()
    return {
        "run": digest[:8],
        "who": who,
        "what": ", ".join(os.path.basename(one) for one in playbooks),
    }
