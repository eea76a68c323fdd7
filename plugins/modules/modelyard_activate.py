#!/usr/bin/python
"""Switch a service to its staged release, or back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_activate
short_description: Activate a service's staged release, and restore the former one on failure
description:
  - One call that runs on the target from start to end, in a process of its own that survives a lost
    connection. It starts the staged release, waits until it is ready, runs its checks, and only
    then makes it the one
    that a boot starts.
  - On any failure, the death of that process included, the former release is started again and
    checked, and the module
    fails with a report of both. A reboot in between starts the former release.
  - With the strategy C(slots) the new release starts in the free slot, out of rotation, and is
    checked there. Then
    the front end sends new requests to it, the old slot finishes its streams (bounded) and stops.
    A bad candidate never serves a client.
  - A program that did not run here before (another artifact) is watched for ten more seconds before
    it is kept.
  - With the strategy C(reload) a running service is reloaded instead of restarted, unless a
    directive
    of its unit changed.
  - What must not run beside the new release is stopped before that starts, so that ports and memory
    are free. If the
    new release fails, it is started again and checked, and the report says so. It records this on
    the host, so this holds for a run that was killed in between as well. With the strategy
    C(slots) nothing is displaced.
  - When the staged release runs already, nothing is done.
options:
  service:
    description: Name of the service.
    type: str
    required: true
  release:
    description:
      - Id of the release to switch to, one of those on the host. The staged one by default.
      - Files of it that were edited by hand are restored; what else it needs has to exist.
    type: str
  displaces:
    description:
      - Services to stop when the new release starts, because the plan no longer has them.
        C(modelyard_release) removes them for good.
      - Displaced without being named are the services in C(Conflicts=) of the release's units, and
        those that listen
        where it wants to listen and have a release staged that differs from the live one (two that
        swap their ports).
    type: list
    elements: str
    default: []
  by:
    description: The user and the run. Set by the action plugin, for the history that the host
      keeps.
    type: dict
    default: {}
notes:
  - C(activation) of the release sets C(strategy), C(ready_timeout_s) (default 60), and for slots
    C(slots) (name and
    port of each) and C(drain_timeout_s) (default 120). C(running) is a command whose output holds
    the path of the
    release that is in effect, for a unit that leaves no process behind.
author: Modelyard
"""

EXAMPLES = r"""
- name: Activate redis
  modelyard_activate:
    service: redis

- name: Activate a model on the port of one that is removed
  modelyard_activate:
    service: llama-cpp@new
    displaces: [llama-cpp@old]

- name: Ask which pools miss the host meanwhile
  modelyard_activate:
    service: llama-cpp@small
  check_mode: true
  register: asked
"""

RETURN = r"""
release:
  description: Id of the release that is live after the call.
  type: str
  returned: always
former:
  description: Id of the release that was live before.
  type: str
  returned: when there was one
steps:
  description: What was done, with the seconds since the start.
  type: list
  elements: str
  returned: always
checks:
  description: Results of the checks of the new release.
  type: list
  elements: dict
  returned: when they were run
differs:
  description: Whether something else would run afterwards.
  type: bool
  returned: check mode
leaves:
  description: Pools in which the host answers no requests while the release starts, those of what
    makes room included.
  type: list
  elements: str
  returned: check mode
joins:
  description: The pools in which it answers requests afterwards, one at most.
  type: list
  elements: str
  returned: check mode
takes_s:
  description: Seconds that the activation takes at most, with the former release restored.
  type: int
  returned: check mode
pool_server:
  description: What the host is called in these pools; empty if there are none.
  type: str
  returned: check mode
"""

import contextlib
import os
import pwd
from typing import Any

from ansible.module_utils.modelyard_activation import Activation
from ansible.module_utils.modelyard_host import ServiceError
from ansible.module_utils.modelyard_host_lock import heard
from ansible.module_utils.modelyard_in_place import InPlace
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_running import differences
from ansible.module_utils.modelyard_services import Release, Service, mend, missing, spoiled_files
from ansible.module_utils.modelyard_slots import Slots
from ansible.module_utils.modelyard_supervision import detached

STATE = "/var/lib/modelyard/activations"


def activation(service: Service, release: Release, params: dict[str, Any]) -> Activation:
    """Return the activation that fits the release's strategy."""
    if release.strategy == "slots":
        return Slots(service, release, params["by"])
    return InPlace(service, release, params["displaces"], params["by"])


def meanwhile(chosen: InPlace | None) -> dict[str, Any]:
    """Return what of the result says which pools miss the host."""
    leaves = chosen.leaves() if chosen else []
    ready_s = int(chosen.release.spec["activation"].get("ready_timeout_s", 60)) if chosen else 0
    joins = [chosen.release.pool] if chosen and chosen.release.pool else []
    return {
        "leaves": [name for name, _ in leaves],
        "joins": [name for name, _ in joins],
        # The release, the former one again where it fails, and what is around that.
        "takes_s": 2 * ready_s + 60,
        "pool_server": next((server for _, server in [*leaves, *joins]), ""),
    }


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "service": {"type": "str", "required": True},
            "release": {"type": "str"},
            "displaces": {"type": "list", "elements": "str", "default": []},
            "by": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    heard()
    service = Service(module.params["service"])
    wanted = module.params["release"]
    try:
        release = Release.load(service.name, wanted) if wanted else service.load("staged")
        if release is None:
            if module.check_mode:
                module.exit_json(
                    changed=True,
                    differs=True,
                    steps=[],
                    msg="nothing is staged yet, check mode stages nothing",
                    **meanwhile(None),
                )
            raise ServiceError(f"{service.name} has no release {wanted or 'staged'} on this host")
        if module.check_mode:
            chosen = activation(service, release, module.params)
            differs = bool(differences(release, service))
            module.exit_json(
                changed=differs,
                differs=differs,
                release=release.id,
                steps=[],
                **meanwhile(chosen if isinstance(chosen, InPlace) else None),
            )
        if wanted:
            gone = missing(release)
            if gone:
                module.fail_json(
                    msg=(
                        f"{service.name} cannot activate release {wanted}: {', '.join(gone)} is"
                        " missing"
                    )
                )
            mend(release, spoiled_files(release), pwd.getpwnam(release.spec["user"]).pw_gid)
        os.makedirs(STATE, mode=0o700, exist_ok=True)
        report_path = os.path.join(STATE, f"{service.name}.json")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(report_path)
        report = detached(activation(service, release, module.params), report_path)
    except (ServiceError, OSError) as error:
        module.fail_json(msg=str(error))
    if report.pop("failed", False):
        module.fail_json(**report)
    module.exit_json(**report)


if __name__ == "__main__":
    main()
