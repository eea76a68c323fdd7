"""Have an artifact in the host's store: query, copy or build (see the module's documentation)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display

from modelyard.controller import sources
from modelyard_ansible.action import Action

display = Display()
POLL_S = 3.0
SHOW_EVERY_S = 10.0
BUILDER_S = 30.0
"""How long a host leaves the lock to the one on which a build was started."""


class ActionModule(Action):
    """Drives the module's steps and moves archives between the controller and the host."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return where the artifact is and what was done for it. Raises AnsibleActionFail."""
        self._vars = variables
        arguments = self._task.args
        try:
            wanted = [
                self._with_checksum(dict(source)) for source in arguments.get("sources") or []
            ]
            identifier = identify(dict(arguments), wanted)
        except sources.SourceError as error:
            raise AnsibleActionFail(str(error)) from error
        result: dict[str, Any] = {
            "path": f"/opt/modelyard/store/{identifier}",
            "built": False,
            "changed": False,
        }
        state = self._step("query", identifier)
        if state["present"]:
            return result
        result["changed"] = True
        if not self._writes:
            result["msg"] = f"{identifier} would be built or copied"
            return result
        archive = sources.cache_directory() / "artifacts" / f"{identifier}.tar.zst"
        archive.parent.mkdir(parents=True, exist_ok=True)
        if not boolean(arguments.get("wait", True)):
            result["changed"] = self._begin(identifier, wanted, state, archive)
            return result
        started = time.monotonic()
        self._leave_to_the_builder(archive, state)
        with open(f"{archive}.lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if state["building"] or not archive.exists():
                try:
                    self._build(identifier, wanted, state, archive)
                finally:
                    lock.truncate(0)
                result["built"] = True
        if not result["built"]:
            self._copy(identifier, archive)
        result["seconds"] = round(time.monotonic() - started, 1)
        return result

    def _begin(
        self, identifier: str, wanted: list[dict[str, str]], state: dict[str, Any], archive: Path
    ) -> bool:
        """Start the build of what no host builds yet. Returns whether it was started here.

        The lock's file then names the host, so that further hosts wait for its archive.
        """
        with open(f"{archive}.lock", "a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if archive.exists() or state["building"] or self._builder(archive):
                return False
            self._start(identifier, wanted, state)
            lock.truncate(0)
            lock.write(self._vars["inventory_hostname"])
        return True

    def _builder(self, archive: Path) -> str:
        """Return the host of this play, other than this one, on which the build was started, or an
        empty text.
        """
        lock = Path(f"{archive}.lock")
        name = lock.read_text(encoding="utf-8") if lock.exists() else ""
        others = set(self._vars.get("ansible_play_hosts") or []) - {
            self._vars["inventory_hostname"]
        }
        return name if name in others else ""

    def _leave_to_the_builder(self, archive: Path, state: dict[str, Any]) -> None:
        """Let the host on which the build was started take the lock first, or this one would build
        as well.

        It does so within seconds, in the same task, if it is still there.
        """
        deadline = time.monotonic() + BUILDER_S
        while time.monotonic() < deadline:
            if (
                archive.exists()
                or state["building"]
                or not self._builder(archive)
                or _is_locked(archive)
            ):
                return
            time.sleep(0.1)

    def _with_checksum(self, source: dict[str, str]) -> dict[str, str]:
        """Resolve `checksums`; what it gave is in a file beside the inventory from then on."""
        lock = Path(self._vars.get("inventory_dir") or ".") / sources.LOCK_FILE
        source, note = sources.with_checksum(source, lock, write=self._writes)
        if note:
            display.display(note)
        return source

    def _step(self, step: str, identifier: str, **arguments: Any) -> dict[str, Any]:
        result = self._module(
            self._vars, {"step": step, "identifier": identifier, **arguments}, "modelyard_artifact"
        )
        if result.get("failed"):
            raise AnsibleActionFail(str(result.get("msg")), result=result)
        return result

    def _build(
        self, identifier: str, wanted: list[dict[str, str]], state: dict[str, Any], archive: Path
    ) -> None:
        host = self._vars["inventory_hostname"]
        if not state["building"]:
            self._start(identifier, wanted, state)
        shown = time.monotonic()
        while not (progress := self._step("poll", identifier))["ended"]:
            if time.monotonic() - shown >= SHOW_EVERY_S and progress["line"]:
                display.display(f"{host}: {identifier}: {progress['line'][:100]}")
                shown = time.monotonic()
            time.sleep(POLL_S)
        if progress["status"] != 0:
            log = "\n".join(progress["tail"])
            raise AnsibleActionFail(
                f"building {identifier} failed (exit status {progress['status']}); full log: "
                f"/var/cache/modelyard/build/{identifier}/build.log on {host}.\n{log}"
            )
        packed = self._step("finish", identifier)
        self._keep(packed, archive)
        self._step("discard", identifier, archive=packed["archive"])

    def _start(self, identifier: str, wanted: list[dict[str, str]], state: dict[str, Any]) -> None:
        self._install(list(self._task.args.get("packages") or []))
        remote = self._push_sources(wanted)
        host = self._vars["inventory_hostname"]
        display.display(f"{host}: building {identifier} on {state['cores']} cores")
        self._step(
            "start",
            identifier,
            sources=remote,
            script=self._task.args["script"],
            environment=dict(self._task.args.get("environment") or {}),
        )

    def _install(self, packages: list[str]) -> None:
        if not packages:
            return
        result: dict[str, Any] = {}
        for valid_s in (
            86400,
            0,
        ):  # lists can look fresh and be empty, as in a new image: then fetch them
            result = self._module(
                self._vars,
                {
                    "name": packages,
                    "install_recommends": False,
                    "update_cache": True,
                    "cache_valid_time": valid_s,
                    "lock_timeout": 300,
                },
                "ansible.builtin.apt",
            )
            if not result.get("failed"):
                return
        raise AnsibleActionFail(
            f"cannot install the packages of the build: {result.get('msg')}", result=result
        )

    def _push_sources(self, wanted: list[dict[str, str]]) -> dict[str, str]:
        remote = {}
        directory = self._connection._shell.tmpdir or self._make_tmp_path()
        for source in wanted:
            try:
                local = sources.fetch(source)
            except sources.SourceError as error:
                raise AnsibleActionFail(str(error)) from error
            remote[source["name"]] = self._transfer_file(
                str(local), self._connection._shell.join_path(directory, source["name"])
            )
        if remote:
            self._fixup_perms2((directory, *remote.values()))
        return remote

    def _keep(self, packed: dict[str, Any], archive: Path) -> None:
        """Fetch the packed artifact; the archive's name appears last, so what has the name is
        whole.
        """
        partial = archive.with_name(f".{archive.name}.{os.getpid()}")
        self._connection.fetch_file(packed["archive"], str(partial))
        if sources.sha256_of(partial) != packed["sha256"]:
            partial.unlink()
            raise AnsibleActionFail(
                f"{archive.name} was damaged in transfer to the controller; run again"
            )
        archive.with_suffix(".sha256").write_text(packed["sha256"] + "\n", encoding="utf-8")
        partial.rename(archive)

    def _copy(self, identifier: str, archive: Path) -> None:
        directory = self._connection._shell.tmpdir or self._make_tmp_path()
        remote = self._transfer_file(
            str(archive), self._connection._shell.join_path(directory, archive.name)
        )
        self._fixup_perms2((directory, remote))
        sha256 = archive.with_suffix(".sha256").read_text(encoding="utf-8").strip()
        self._step("unpack", identifier, archive=remote, sha256=sha256)


def _is_locked(archive: Path) -> bool:
    with open(f"{archive}.lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def identify(arguments: dict[str, Any], wanted: list[dict[str, str]]) -> str:
    """Return NAME-VERSION-HASH. The hash covers everything that decides the bytes, and nothing that
    does not.
    """
    decisive = {
        "name": arguments["name"],
        "version": str(arguments["version"]),
        "key": arguments.get("key") or {},
        "script": arguments["script"],
        "sources": {source["name"]: sources.identity(source) for source in wanted},
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()
    return f"{arguments['name']}-{arguments['version']}-{digest[:12]}"
