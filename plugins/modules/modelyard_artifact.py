#!/usr/bin/python
"""Put an immutable artifact into the host's store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_artifact
short_description: Put an immutable artifact into the host's store
description:
  - Makes sure that C(/opt/modelyard/store/NAME-VERSION-HASH) is there and whole. The hash covers
    everything
    that decides the bytes,
    so an artifact is never changed, only replaced by another one.
  - Where it is missing, it is copied from the controller's cache; where that has none, it is built
    on
    the host, in a transient systemd unit that survives a lost connection (a rerun picks the build
    up,
    also one that has succeeded), and kept on the controller. A lock per artifact on the controller
    makes further hosts wait for the first one's build and copy it.
  - An artifact that is there is marked as asked for now, which is no change. C(modelyard_base)
    deletes what no release
    names and no run requested within a day.
options:
  name:
    description: Name of the artifact.
    type: str
    required: true
  version:
    description: Its version.
    type: str
    required: true
  key:
    description: What else decides the bytes, such as the architecture, the release of the system,
      or build options.
    type: dict
    default: {}
  packages:
    description: Distribution packages that the build needs; installed only where it has to be
      built.
    type: list
    elements: str
    default: []
  sources:
    description: Files that the build needs, found in C($SOURCES). Each has a C(name) and a C(path)
      on the
      controller, a C(url), or an C(sdist)
      (a pinned requirement of the package index); downloads need their C(sha256).
    type: list
    elements: dict
    default: []
  script:
    description: Shell script that builds into C($DEST), with C($SOURCES), C($JOBS) and an empty
      working directory.
    type: str
    required: true
  wait:
    description:
      - Whether to return only when the artifact is there. With V(false) a build is started where it
        is
        needed, unless the controller's cache has the artifact or another host builds it, and a
        later
        call collects it.
      - A build that fails meanwhile is started again, and reported, by the later call.
    type: bool
    default: true
  environment:
    description: Environment of the build, such as a mirror's address. It does not decide the bytes;
      what does
      belongs into O(key).
    type: dict
    default: {}
author: Modelyard
"""

EXAMPLES = r"""
- name: Environment of the gateway is in the store
  modelyard_artifact:
    name: litellm
    version: "{{ litellm_version }}"
    key: {architecture: "{{ ansible_facts.architecture }}"}
    packages: [python3-venv]
    sources:
      - {name: lock.txt, path: "{{ role_path }}/files/lock.txt"}
    script: "{{ lookup('ansible.builtin.file', 'build.sh') }}"
  register: __litellm_artifact
"""

RETURN = r"""
path:
  description: Where the artifact is.
  type: str
  returned: always
built:
  description: Whether it was built on this host by this call.
  type: bool
  returned: always
seconds:
  description: How long building or copying took.
  type: float
  returned: changed
"""

import contextlib
import json
import os
import shutil
from typing import Any

from ansible.module_utils.modelyard_host import (
    ServiceError,
    read_text,
    run,
    sha256_of,
    write_atomically,
)
from ansible.module_utils.modelyard_host_lock import heard
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_store import CACHE, COMPLETE, STORE, WORK, building, unit_name

BUILD_USER = "modelyard-build"


def query(identifier: str, check_mode: bool) -> dict[str, Any]:
    """Say whether the artifact is there and whole, and whether a build of it is under way.

    Marks it as asked for.

    A build that succeeded and was not collected counts as under way; one that failed is started
    again. Raises ServiceError.
    """
    marker = os.path.join(STORE, identifier, COMPLETE)
    status = read_text(os.path.join(WORK, identifier, "status")) or ""
    present = os.path.exists(marker)
    if present and not check_mode:
        with contextlib.suppress(
            OSError
        ):  # on a file system that is read-only nothing is deleted either
            os.utime(marker)
    under_way = status.strip() == "0" or building(identifier)
    return {"present": present, "building": under_way, "cores": os.cpu_count() or 1}


def start(
    identifier: str, sources: dict[str, Any], script: str, environment: dict[str, Any]
) -> dict[str, Any]:
    """Start the build in a unit of its own: no network session, no terminal and no Ansible holds
    it.

    Raises ServiceError.
    """
    destination, work = os.path.join(STORE, identifier), os.path.join(WORK, identifier)
    for directory in (destination, work):
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
    sources_in, temporary = os.path.join(work, "sources"), os.path.join(work, "tmp")
    for directory in (sources_in, temporary):
        os.makedirs(directory)
    for name, path in sources.items():
        shutil.copyfile(path, os.path.join(sources_in, name))
    script_path = os.path.join(work, "build.sh")
    write_atomically(script_path, script, 0o755)
    for directory in (destination, work, temporary):
        shutil.chown(directory, BUILD_USER, BUILD_USER)
    variables = {
        **environment,
        "DEST": destination,
        "SOURCES": sources_in,
        "JOBS": str(os.cpu_count() or 1),
        "HOME": work,
        # A build runs what it puts there (pip's build environments), and /tmp may be noexec.
        "TMPDIR": temporary,
        "CCACHE_DIR": os.path.join(CACHE, "ccache"),
    }
    ccache = variables["CCACHE_DIR"]
    os.makedirs(ccache, exist_ok=True)
    shutil.chown(ccache, BUILD_USER, BUILD_USER)
    command = ["systemd-run", f"--unit={unit_name(identifier)}", "--collect", "--quiet"]
    command += [f"--setenv={name}={value}" for name, value in variables.items()]
    properties = {
        "User": BUILD_USER,
        "WorkingDirectory": work,
        "Nice": "5",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "ReadWritePaths": f"{destination} {work} {ccache}",
        "StandardOutput": f"append:{work}/build.log",
        "StandardError": f"append:{work}/build.log",
    }
    command += [f"--property={name}={value}" for name, value in properties.items()]
    # The script's own last word is a file: a transient unit that ended is forgotten, and so is its
    # exit status.
    command += ["/bin/sh", "-c", f"/bin/sh -eu {script_path}; echo $? > {work}/status"]
    done = run(command)
    if done.returncode != 0:
        raise ServiceError(f"the build could not be started: {done.stderr.strip()}")
    return {}


def poll(identifier: str) -> dict[str, Any]:
    """Return the last line of the build's log, and its exit status once it ended.

    Raises ServiceError.
    """
    work = os.path.join(WORK, identifier)
    log = (read_text(os.path.join(work, "build.log")) or "").rstrip().splitlines()
    status = read_text(os.path.join(work, "status"))
    ended = not building(identifier)
    return {
        "ended": ended,
        "status": int(status) if status and status.strip() else None,
        "line": log[-1] if log else "",
        "tail": log[-30:] if ended else [],
    }


def finish(identifier: str) -> dict[str, Any]:
    """Seal a finished build and pack it for the controller's cache. Raises ServiceError."""
    destination, work = os.path.join(STORE, identifier), os.path.join(WORK, identifier)
    log = os.path.join(work, "build.log")
    if os.path.exists(log):
        shutil.copyfile(log, os.path.join(destination, "build.log"))
    _checked(["chown", "-Rh", "root:root", destination])
    _checked(["chmod", "-R", "u+rwX,go+rX,go-w", destination])
    write_atomically(
        os.path.join(destination, COMPLETE), json.dumps({"artifact": identifier}) + "\n"
    )
    archive = os.path.join(WORK, f"{identifier}.tar.zst")
    _checked(
        ["tar", "--use-compress-program=zstd -3 -T0", "-cf", archive, "-C", STORE, identifier], 600
    )
    shutil.rmtree(work, ignore_errors=True)
    return {"archive": archive, "sha256": sha256_of(archive)}


def unpack(identifier: str, archive: str, sha256: str) -> dict[str, Any]:
    """Unpack the controller's copy beside its place, then rename it there. Raises ServiceError."""
    if sha256_of(archive) != sha256:
        raise ServiceError(f"the copy of {identifier} was damaged in transfer; run again")
    staging = os.path.join(STORE, f".{identifier}.new")
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(staging)
    try:
        _checked(["tar", "--use-compress-program=zstd -T0", "-xf", archive, "-C", staging], 600)
        os.utime(
            os.path.join(staging, identifier, COMPLETE)
        )  # asked for now; the archive says when it was built
        shutil.rmtree(os.path.join(STORE, identifier), ignore_errors=True)
        os.rename(os.path.join(staging, identifier), os.path.join(STORE, identifier))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {}


def _checked(argv: list[str], timeout: float = 120.0) -> None:
    done = run(argv, timeout=timeout)
    if done.returncode != 0:
        raise ServiceError(f"{' '.join(argv)}: {done.stderr.strip()}")


def main() -> None:
    """Run one step of the action."""
    module = new_module(
        argument_spec={
            "step": {
                "choices": ["query", "start", "poll", "finish", "unpack", "discard"],
                "required": True,
            },
            "identifier": {"type": "str", "required": True},
            "sources": {"type": "dict", "default": {}},
            "script": {"type": "str", "default": ""},
            "environment": {"type": "dict", "default": {}},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
        },
        supports_check_mode=True,
    )
    heard()
    params = module.params
    identifier = params["identifier"]
    try:
        if params["step"] == "query":
            result = query(identifier, module.check_mode)
        elif params["step"] == "start":
            result = start(identifier, params["sources"], params["script"], params["environment"])
        elif params["step"] == "poll":
            result = poll(identifier)
        elif params["step"] == "finish":
            result = finish(identifier)
        elif params["step"] == "unpack":
            result = unpack(identifier, params["archive"], params["sha256"])
        else:
            os.unlink(params["archive"])
            result = {}
    except (ServiceError, OSError, LookupError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=params["step"] in ("finish", "unpack"), **result)


if __name__ == "__main__":
    main()
