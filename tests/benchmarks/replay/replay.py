"""Connection of `bench_fleet.py`: a lab host over SSH, or a host that is none and repeats what a
lab host said.

    MODELYARD_FLEET/hosts.json           by address a host's `name`, and `ssh` (argv) or `like`:
                                         whose answers it repeats
    MODELYARD_FLEET/said/RUN/HOST/N.json the N-th answer of a lab host in the run that is repeated
    MODELYARD_FLEET/calls/HOST           how many calls the host had in this run
    MODELYARD_FLEET/noted/HOST.json      what `modelyard_record` was to write there

The run is named by MODELYARD_FLEET_RUN; lab hosts write its answers with MODELYARD_FLEET_KEEP.

A host that repeats has the records of its own roles, so that its digests are right; all else is the
lab host's word.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: replay
short_description: Repeat what a lab host said
description: [Of the benchmark of many hosts.]
author: Modelyard
version_added: "0.1.0"
options: {}
"""

CALL = re.compile(rb"^\s*_ansiballz_main\($.*?^\s*\)$", re.MULTILINE | re.DOTALL)


class Connection(ConnectionBase):  # type: ignore[misc]  # Ansible has no types
    """One host of the fleet."""

    transport = "replay"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def close(self) -> None:
        """Nothing is open."""
        self._connected = False

    def put_file(self, in_path: str, out_path: str) -> None:
        """Not needed where pipelining works and nothing is copied."""
        raise AnsibleError(f"a replayed run copies nothing, and not {in_path}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """As `put_file`."""
        self.put_file(out_path, in_path)

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Return what the host said: status, output, errors."""
        fleet, run = Path(os.environ["MODELYARD_FLEET"]), os.environ["MODELYARD_FLEET_RUN"]
        how = read(fleet / "hosts.json")[str(self._play_context.remote_addr)]
        host, said = how["name"], fleet / "said" / run
        module, arguments = called(in_data or b"")
        noted = fleet / "noted" / f"{host}.json"
        if module == "modelyard_record" and "like" in how:
            keep(noted, {**read(noted), **arguments["records"]})
            return 0, json.dumps({"changed": False, "recorded": []}).encode(), b""
        number = 0 if module == "modelyard_record" else count(fleet / "calls" / host)
        if "ssh" in how:
            done = subprocess.run(
                [*how["ssh"], cmd], input=in_data, capture_output=True, check=False
            )
            if "MODELYARD_FLEET_KEEP" in os.environ and number:
                answer = {"module": module, "status": done.returncode, "said": done.stdout.decode()}
                keep(said / host / f"{number}.json", answer)
            return done.returncode, done.stdout, done.stderr
        answer = read(said / how["like"] / f"{number}.json")
        if answer.get("module") != module:
            raise AnsibleError(f"call {number} of {host}: {module} is not {answer.get('module')}")
        if module == "modelyard_preflight":
            answer["said"] = with_records(answer["said"], read(noted))
        return answer["status"], answer["said"].encode(), b""


def called(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Return the module that Ansible sends, and its arguments; an empty name for a command."""
    found = CALL.findall(payload)
    if not found:
        return "", {}
    (call,) = ast.parse(found[-1].decode().strip()).body
    words = {
        word.arg: word.value.value
        for word in call.value.keywords  # type: ignore[attr-defined]  # CALL finds calls alone
        if isinstance(word.value, ast.Constant)
    }
    return words["ansible_module"], json.loads(words["params"])["ANSIBLE_MODULE_ARGS"]


def with_records(said: str, noted: dict[str, Any]) -> str:
    """Return an answer of preflight with the host's own records."""
    result = json.loads(said)
    for role, told in result.get("answer", {}).get("roles", {}).items():
        record = noted.get(role, {})
        told.update(salt=record.get("salt", ""), digest=record.get("digest", ""))
        if record:
            told["differs"] = []
    return json.dumps(result)


def count(path: Path) -> int:
    """Count a call of a host; a host has one at a time."""
    number = int(path.read_text(encoding="utf-8")) + 1 if path.exists() else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(number), encoding="utf-8")
    return number


def keep(path: Path, value: dict[str, Any]) -> None:
    """Write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Return what a file says; nothing if there is none."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found
