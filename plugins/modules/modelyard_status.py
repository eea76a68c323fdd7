#!/usr/bin/python
"""Say how everything of Modelyard on a host is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_status
short_description: Read the status of everything on a host
description:
  - "Reads for every service what is live and how what runs, and what its units and files hold,
    differs from that; asks HAProxy, where it runs, how it sees the hosts of its pools, and every
    engine for one short streamed answer, one after the other."
  - What is down is reported as down and does not keep the rest from being reported. Nothing is
    ever changed, and no model is loaded that was not.
options:
  checks:
    description: The checks of the host's plan. Of those of kind C(chat) that are not skipped the
      engines' are asked.
    type: list
    elements: dict
    default: []
  tokens:
    description: How many tokens an answer may have.
    type: int
    default: 32
extends_documentation_fragment: [modelyard_unchanging]
author: Modelyard
"""

EXAMPLES = r"""
- name: Everything on the host is looked at
  modelyard_status:
    checks: "{{ plan.checks }}"
  register: status
"""

RETURN = r"""
services:
  description:
    - "By service: C(release), C(since) (UTC), C(unit), C(state) (systemd's), C(restarts) by systemd
      since its start,
      C(differences), in words how what runs differs from the live release, and C(edited), files
      changed by hand."
  type: dict
  returned: always
failed_units:
  description: Units of Modelyard that systemd calls failed.
  type: list
  elements: str
  returned: always
pools:
  description:
    - "By pool, how HAProxy of this host sees it: C(waiting), requests in its queue, and C(hosts). A
      host has C(state) (V(up), V(down), V(drained), or V(stopped) by hand), C(since) (UTC),
      C(why), what its check said, C(in_flight), and of a drain C(until) (UTC; null: it has no
      end)."
  type: dict
  returned: always
engines:
  description:
    - "By model: C(service), C(model), C(first_token_s), C(tokens_per_s) and C(problem), null where
      not known;
      C(skipped) says why it was not asked."
  type: list
  elements: dict
  returned: always
"""

import json
import os
from typing import Any

from ansible.module_utils.modelyard_checks import CheckError, describe, request, speed
from ansible.module_utils.modelyard_host import ServiceError, changed_at, run
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_pools import survey
from ansible.module_utils.modelyard_proxy import Door
from ansible.module_utils.modelyard_running import active_slots, differences, slot_unit
from ansible.module_utils.modelyard_services import Release, Service, services, spoiled_files
from ansible.module_utils.modelyard_units import unit_state


def main_unit(release: Release) -> str:
    """Return the unit of a release, of slots the one that is active. Raises ServiceError."""
    if release.strategy != "slots":
        return next(iter(release.unit_files()))
    active = active_slots(release)
    return slot_unit(release, (active or list(release.slots))[0])


def service_status(name: str) -> dict[str, Any]:
    """Return how a service is; never raises."""
    service = Service(name)
    try:
        release = service.load("current")
        if release is None:
            return {"state": "never went live", "differences": [], "edited": []}
        unit = main_unit(release)
        state = unit_state(unit)
        return {
            "release": release.id,
            "since": changed_at(os.path.join(service.root, "current")),
            "unit": unit,
            "state": state.get("ActiveState", "unknown"),
            "restarts": int(state.get("NRestarts") or 0),
            "differences": differences(release, service),
            "edited": spoiled_files(release),
        }
    except (ServiceError, OSError, ValueError, KeyError) as error:
        return {"state": "unknown", "differences": [str(error)], "edited": []}


def pools_status(door: Door) -> dict[str, Any]:
    """Return how the front end sees its pools; nothing where none runs, which its service tells."""
    try:
        return survey(door)
    except (ServiceError, OSError):
        return {}


def engine_status(check: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Ask one engine; never raises."""
    found = {
        "service": check["service"],
        "model": check["model"],
        "skipped": check.get("skip") or None,
    }
    if not found["skipped"] and check.get("loaded_url"):
        found["skipped"] = unloaded(check)
    return {**found, **({} if found["skipped"] else speed(check, tokens))}


def unloaded(check: dict[str, Any]) -> str | None:
    """Say why an engine is not asked that would load the model for it, which is for its users to
    decide.
    """
    try:
        status, body = request({"url": check["loaded_url"]}, None)
        models = json.loads(body)["models"] if status == 200 else []
    except (CheckError, OSError, ValueError, KeyError) as error:
        return describe(error)
    wanted = (
        check["model"] if ":" in check["model"].rpartition("/")[2] else f"{check['model']}:latest"
    )
    return (
        None
        if any(wanted in (model.get("name"), model.get("model")) for model in models)
        else "not loaded"
    )


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "default": []},
            "tokens": {"type": "int", "default": 32},
        },
        supports_check_mode=True,
    )
    listed = run(
        ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "modelyard-*"]
    ).stdout
    chats = [
        check
        for check in module.params["checks"]
        if check["kind"] == "chat" and "@" in check["service"]
    ]
    module.exit_json(
        changed=False,
        services={name: service_status(name) for name in services()},
        failed_units=[line.split()[0] for line in listed.splitlines() if line.strip()],
        pools=pools_status(Door()),
        engines=[engine_status(check, module.params["tokens"]) for check in chats],
    )


if __name__ == "__main__":
    main()
