"""Lock an inventory during a run (see the module's documentation)."""

from __future__ import annotations

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible.context

from modelyard.controller.runs import started
from modelyard_ansible.action import ControllerAction, Refusal


class ActionModule(ControllerAction):
    """Writes who runs what since when. The lock ends with the process that took it."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Take the lock, and return what it says of us. Raises Refusal with who has it."""
        self._options({})
        # Tasks run in children of the process that the user started.
        pid = os.getppid()
        mine = {
            "host": socket.gethostname(),
            "pid": pid,
            "started": started(pid),
            "user": getpass.getuser(),
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "purpose": ", ".join(ansible.context.CLIARGS.get("args", ())),
        }
        path = Path(str(variables["inventory_dir"]), ".modelyard.lock")
        try:
            take(path, mine)
        except OSError as error:
            raise Refusal(f"the lock {path} cannot be written: {error.strerror}") from error
        return {"changed": False, **mine}


def take(path: Path, mine: dict[str, Any]) -> None:
    """Make `path` ours; raises Refusal while its owner is alive, OSError if it cannot be
    written.
    """
    own = path.with_name(f"{path.name}.{mine['pid']}")
    own.write_text(json.dumps(mine) + "\n", encoding="utf-8")
    try:
        while True:
            try:
                os.link(own, path)  # a link appears whole or not at all
                return
            except FileExistsError:
                owner = read(path)
            if owner and (owner["host"], owner["pid"]) == (mine["host"], mine["pid"]):
                return
            if owner and owner["host"] != mine["host"]:
                raise Refusal(
                    f"{told(owner)} This machine cannot check whether it still runs; if it does"
                    f" not, remove {path}."
                )
            if owner and started(owner["pid"]) == owner["started"]:
                raise Refusal(f"{told(owner)} Wait until it ends (ps {owner['pid']}).")
            # Its owner has ended without a word: an interrupted run, or simply the last one.
            path.unlink(missing_ok=True)
    finally:
        own.unlink()


def read(path: Path) -> dict[str, Any] | None:
    """Return what a lock says; None if it is gone, or damaged, which only a full disk does."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def told(owner: dict[str, Any]) -> str:
    """Say who has the lock."""
    return (
        f"{owner['purpose']} has been changing the hosts of this inventory since "
        f"{owner['since']}: {owner['user']}@{owner['host']}, process {owner['pid']}."
    )
