#!/usr/bin/python
"""Read what is live on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_live
short_description: Read what is live on a host
description:
  - "Reads, for every service of Modelyard on the host, which release is live and what it was made
    from; C(plan)
    compares that with what is wanted."
  - Nothing is ever changed. On a host without Modelyard the answer is empty.
options:
  history:
    description: Whether to return the history of every service, retired ones too, and the releases
      it can go back to.
    type: bool
    default: false
extends_documentation_fragment: [modelyard_unchanging]
author: Modelyard
"""

EXAMPLES = r"""
- name: Live releases are read
  modelyard_live:
  register: live

- name: What can be gone back to is read
  modelyard_live:
    history: true
  register: releases
"""

RETURN = r"""
unknown:
  description: Why it is not known what is live, where the host could not be asked. The task does
    not fail then, and
    the host stays in the play.
  type: str
  returned: the host could not be asked
services:
  description:
    - By service, its live release. C(release) is its identity, C(since) when it was switched to
      (UTC), C(plan) what it
      was made from, null for one that an older version made. The gateway has C(public_names), too.
  type: dict
  returned: the host was asked
  sample:
    redis: {release: 0123456789ab, since: "2026-01-31T12:00:00Z", plan: {port: 6379}}
history:
  description:
    - By service, retired ones too, C(live), the release that is live (null if none), C(previous),
      the one before,
      C(there), all that are on the host, the latest first, and C(entries), what happened, the
      oldest first.
    - An entry has C(at) (seconds since 1970), C(outcome) (V(live), V(failed) or V(retired)),
      C(release), and where
      known C(run), C(who), C(what), C(checks) (how many passed), C(seconds) and C(why).
  type: dict
  returned: the host was asked, and O(history)
  sample:
    redis:
      live: 0123456789ab
      previous: null
      there: [0123456789ab]
      entries: [{at: 1769860800, outcome: live, release: 0123456789ab, run: 1a2b3c4d, who: me@ws, what: site.yml}]
"""

import json
import os
from typing import Any

from ansible.module_utils.modelyard_clients import there as clients_there
from ansible.module_utils.modelyard_host import changed_at, read_text
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_services import SERVICES, Service, public_names

ENTRIES = 50


def live(root: str = SERVICES) -> dict[str, dict[str, Any]]:
    """Return what is live, by service.

    Raises OSError or ValueError where a manifest cannot be read.
    """
    found = {}
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        link = os.path.join(root, name, "current")
        if not os.path.islink(link):
            continue  # staged, never activated
        manifest = json.loads(read_text(os.path.join(link, "manifest.json")) or "{}")
        found[name] = {
            "release": os.path.basename(os.readlink(link)),
            "since": changed_at(link),
            "plan": manifest.get("plan"),
        }
        if name == "litellm" and manifest:
            found[name]["public_names"] = public_names(manifest)
            if found[name]["plan"] is not None:
                found[name]["plan"]["clients"] = clients_there()[0]  # beside the release, not of it
    return found


def history() -> dict[str, dict[str, Any]]:
    """Return what happened to every service that is or was on the host."""
    found = {}
    for name in sorted(os.listdir(SERVICES)) if os.path.isdir(SERVICES) else []:
        service = Service(name)
        links = {"live": service.linked("current"), "previous": service.linked("previous")}
        found[name] = {
            **links,
            "there": service.releases(),
            "entries": service.history()[-ENTRIES:],
        }
    return found


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={"history": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    more = {}
    try:
        if module.params["history"]:
            more["history"] = history()
        module.exit_json(changed=False, services=live(), **more)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"what is live cannot be read: {error}")


if __name__ == "__main__":
    main()
