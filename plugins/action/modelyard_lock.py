"""Lock an inventory during a run (see the module's documentation)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ansible.context

from modelyard.controller.runs import started
from modelyard_ansible.action import Action, Refusal
from modelyard_ansible.locking import me, take_on_host, told


class ActionModule(Action):
    """Writes who runs what since when. The inventory's lock ends with the process that took it."""

    TRANSFERS_FILES = False

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Take the lock, and return what it says of us, or who has that of the host in `refused`.

        Raises Refusal with who has that of the inventory.
        """
        options = self._options(
            {
                "where": {"choices": ["controller", "host"], "default": "controller"},
                "state": {"choices": ["present", "absent"], "default": "present"},
            }
        )
        mine = me(ansible.context.CLIARGS.get("args", ()))
        if options["where"] == "controller":
            path = Path(str(variables["inventory_dir"]), ".modelyard.lock")
            try:
                take(path, mine)
            except OSError as error:
                raise Refusal(f"the lock {path} cannot be written: {error.strerror}") from error
            return {"changed": False, **mine}
        if options["state"] == "absent":
            return self._module(variables, {"state": "absent", "mine": mine})
        failed: dict[str, Any] = {}

        def ask(over: str) -> Any:
            result = self._module(variables, {"mine": mine, "over": over})
            if result.get("failed"):
                failed.update(result)
            return result.get("owner")

        refused = take_on_host(mine, ask)
        if failed:
            return failed
        return {"changed": False, **mine, **({"refused": refused} if refused else {})}


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
