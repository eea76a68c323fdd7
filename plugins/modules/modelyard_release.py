#!/usr/bin/python
"""Stage and validate a release of a service beside the running one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_release
short_description: Stage a release of a service beside the running one
description:
  - Renders the release's files and units on the controller, writes them to a directory of their own
    on the
    host and validates
    them there as the service user. Nothing of the running service changes; C(modelyard_activate)
    switches.
  - Reports C(changed) when what I(runs) differs from what is wanted, read from the host. If an
    earlier run died
    between staging and activation, this one says C(changed) again and its handler finishes the
    work.
  - The release's id comes from its content, so equal content is the same release.
options:
  service:
    description: Name of the service, C(redis) or C(llama-cpp@SLUG).
    type: str
    required: true
  state:
    description: V(absent) stops the service and takes its units away. Its state under
      C(/var/lib/modelyard) stays, and
      its releases and credentials stay for a week, so that C(playbooks/rollback.yml) can bring it
      back.
    type: str
    choices: [present, absent]
    default: present
  user:
    description: The service's user. Validation runs as this user, and its group may read the
      release.
    type: str
  files:
    description: Files of the release. Each has a C(path) below the release and either a C(template)
      of the
      role or its C(content).
    type: list
    elements: dict
    default: []
  units:
    description: Unit files, the main one first. Each has a C(name) and either a C(template) or its
      C(content).
    type: list
    elements: dict
    default: []
  store:
    description: Store entries that the release needs.
    type: list
    elements: str
    default: []
  generation:
    description: Generation of the service's credentials, as returned by C(modelyard_credentials).
    type: str
    default: ""
  validate:
    description: Commands (lists of words) that have to succeed as the service user before the
      release may be activated.
    type: list
    elements: list
    default: []
  activation:
    description: How to switch. C(strategy) is C(restart), C(reload) or C(slots); see
      C(modelyard_activate).
    type: dict
    default: {}
  checks:
    description: Checks that have to pass after the switch.
    type: list
    elements: dict
    default: []
  plan:
    description: The part of the host's plan that the release is made from. It is kept in the
      manifest, outside of the
      release's identity and without what C(docs/plan.md) says is not recorded, so that
      C(modelyard_live) can say later
      what runs.
    type: dict
  by:
    description: The user and the run that remove a service. Set by the action plugin, for the
      history.
    type: dict
    default: {}
notes:
  - C(@RELEASE@) in files, units and commands becomes the release's path, C(@CREDENTIALS@) the
    directory of its
    credentials. In units
    of a service with slots C(@SLOT@) and C(@PORT@) are replaced too.
author: Modelyard
"""

EXAMPLES = r"""
- name: Release is staged
  modelyard_release:
    service: redis
    user: modelyard-redis
    files:
      - {path: config/redis.conf, template: redis.conf.j2}
    units:
      - {name: modelyard-redis.service, template: modelyard-redis.service.j2}
    generation: "{{ __redis_credentials.generation }}"
    checks: "{{ redis_plan.checks }}"
    plan: "{{ redis_plan }}"
  notify: Activate redis
"""

RETURN = r"""
id:
  description: Identity of the release, from its content.
  type: str
  returned: state is present
path:
  description: Directory of the release on the host.
  type: str
  returned: state is present
reasons:
  description: How what runs differs from what is wanted; empty when nothing has to be done.
  type: list
  elements: str
  returned: always
pool:
  description: The pool whose requests it answered, and the name of the host there; null if none.
  type: dict
  returned: state is absent
unchecked:
  description: What check mode could not check because it does not exist yet.
  type: list
  elements: str
  returned: check mode
"""

import json
import os
import pwd
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.modelyard_host import ServiceError, run, write_atomically
from ansible.module_utils.modelyard_host_lock import heard
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_running import differences
from ansible.module_utils.modelyard_services import Release, Service, mend, spoiled_files
from ansible.module_utils.modelyard_units import UNITS, uninstall

ARGUMENTS = {
    "service": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "user": {"type": "str"},
    "files": {"type": "list", "elements": "dict", "default": []},
    "units": {"type": "list", "elements": "dict", "default": []},
    "store": {"type": "list", "elements": "str", "default": []},
    "generation": {"type": "str", "default": ""},
    "validate": {"type": "list", "elements": "list", "default": []},
    "activation": {"type": "dict", "default": {}},
    "checks": {"type": "list", "elements": "dict", "default": []},
    "plan": {"type": "dict"},
    "by": {"type": "dict", "default": {}},
}


def build(params: dict[str, Any]) -> Release:
    """Make the release that the parameters describe."""
    return Release(
        params["service"],
        {
            "user": params["user"],
            "files": {entry["path"]: entry["content"] for entry in params["files"]},
            "units": {entry["name"]: entry["content"] for entry in params["units"]},
            "store": sorted(params["store"]),
            "generation": params["generation"],
            "activation": params["activation"],
            "checks": params["checks"],
            "plan": params["plan"],
        },
    )


def write(release: Release, directory: str, gid: int) -> None:
    """Write a release's files below `directory`, readable by the service's group only."""
    os.makedirs(directory, mode=0o750)
    os.chown(directory, 0, gid)
    for path, content in release.spec["files"].items():
        target = os.path.join(directory, path)
        parent = os.path.dirname(target)
        if not os.path.isdir(parent):
            os.makedirs(parent, mode=0o750)
            os.chown(parent, 0, gid)
        write_atomically(target, release.fill(content, path=directory), 0o640, gid)
    write_atomically(os.path.join(directory, "manifest.json"), release.manifest(), 0o640, gid)


def validate(release: Release, directory: str, commands: list[list[str]]) -> None:
    """Run the validating commands as the service user; raises ServiceError with what they
    printed.
    """
    for command in commands:
        argv = [release.fill(word, path=directory) for word in command]
        done = run(
            [
                "setpriv",
                f"--reuid={release.spec['user']}",
                f"--regid={release.spec['user']}",
                "--clear-groups",
                *argv,
            ],
            timeout=600.0,  # vLLM reads its arguments only after it imported two gigabytes of Python
        )
        if done.returncode != 0:
            raise ServiceError(
                f"{release.service}: the new release was rejected by {argv[0]} (exit status "
                f"{done.returncode}); nothing was changed.\n{(done.stdout + done.stderr).strip()}"
            )


def difference(old: Release | None, new: Release) -> list[dict[str, Any]]:
    """Return the diffs between two releases, placeholders not filled in, so that only real changes
    show.
    """
    before = {**old.spec["files"], **old.spec["units"]} if old else {}
    after = {**new.spec["files"], **new.spec["units"]}
    return [
        {
            "before_header": f"{new.service}: {path} (live)",
            "after_header": f"{new.service}: {path} (new)",
            "before": before.get(path, ""),
            "after": after.get(path, ""),
        }
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def dry_run(release: Release, commands: list[list[str]]) -> list[str]:
    """Validate in a throw-away directory what can be validated already; return what could not be
    checked.

    Raises ServiceError.
    """
    try:
        gid = pwd.getpwnam(release.spec["user"]).pw_gid
    except KeyError:
        return [
            f"{release.service}: the new release was not validated, user {release.spec['user']}"
            " does not exist yet"
        ]
    # A command may begin with env(1), so its first word does not tell whether its program is there.
    needed = [*release.spec["store"], *(release.fill(command[0]) for command in commands)]
    absent = [path for path in needed if not os.path.exists(path)]
    if absent:
        return [
            f"{release.service}: the new release was not validated, {absent[0]} does not exist yet"
        ]
    # The login's temporary directory may be closed to the service's user (pam_tmpdir).
    directory = f"/run/modelyard-check-{os.getpid()}"
    try:
        write(release, directory, gid)
        validate(release, directory, commands)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return []


def present(module: AnsibleModule) -> dict[str, Any]:
    """Stage the release; see DOCUMENTATION. Raises ServiceError."""
    release = build(module.params)
    service = Service(release.service)
    live = service.load("current")
    result: dict[str, Any] = {"id": release.id, "path": release.path, "unchecked": []}
    known = Release.load(release.service, release.id)
    spoiled = spoiled_files(known) if known else []
    reasons = differences(release, service)
    reasons += [f"{path} was edited by hand" for path in spoiled]
    if known is not None and not spoiled and os.path.exists(os.path.join(known.path, ".restart")):
        reasons.append("its files were edited by hand, and it was not restarted since")
    stale = known is not None and known.manifest() != release.manifest()
    if stale:
        reasons.append("its plan, checks or activation changed")
    if known is None and not reasons:
        reasons.append(f"release {release.id} is missing")
    result.update(changed=bool(reasons), reasons=reasons)
    if live is None or live.id != release.id:
        result["diff"] = difference(live, release)
    if module.check_mode:
        if known is None:
            result["unchecked"] = dry_run(release, module.params["validate"])
        return result
    gid = pwd.getpwnam(release.spec["user"]).pw_gid
    mend(release, spoiled, gid)
    if stale:
        write_atomically(
            os.path.join(release.path, "manifest.json"), release.manifest(), 0o640, gid
        )
    if known is None:
        for directory in (service.root, os.path.dirname(release.path)):
            os.makedirs(directory, exist_ok=True)
            # A run that did not set its umask yet may have closed it to the service's user.
            os.chmod(directory, 0o755)
        shutil.rmtree(
            release.path, ignore_errors=True
        )  # what an interrupted run left has no manifest
        try:
            write(release, release.path, gid)
            validate(release, release.path, module.params["validate"])
        except BaseException:
            shutil.rmtree(release.path, ignore_errors=True)
            raise
    if service.linked("staged") != release.id:
        service.point("staged", release)
    return result


def absent(module: AnsibleModule) -> dict[str, Any]:
    """Take the service away; see DOCUMENTATION. Raises ServiceError."""
    service = Service(module.params["service"])
    # A slot's unit is named after its slot, so look for what is installed and not only for the
    # release's names.
    units = [f"modelyard-{service.name}.service"]
    units += [name for name in os.listdir(UNITS) if name.startswith(f"modelyard-{service.name}@")]
    installed = [unit for unit in units if os.path.exists(os.path.join(UNITS, unit))]
    found = installed + ([service.root] if service.there else [])
    live = service.linked("current")
    release = service.load("current")
    pool = release.pool if release else None
    if found and not module.check_mode:
        if installed:
            uninstall(*installed)
        service.retire()
        if live:
            service.record("retired", live, **module.params["by"])
    return {
        "changed": bool(found),
        "reasons": [f"{entry} exists" for entry in found],
        "pool": {"name": pool[0], "server": pool[1]} if pool else None,
    }


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ["user", "units"])],
        supports_check_mode=True,
    )
    heard()
    try:
        result = present(module) if module.params["state"] == "present" else absent(module)
    except (ServiceError, json.JSONDecodeError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        service = module.params["service"]
        module.fail_json(
            msg=(
                f"{service}: staging failed, the running release is unchanged:"
                f" {error.strerror}{where}"
            )
        )
    for note in result.get("unchecked", []):
        module.warn(f"not checked yet: {note}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
