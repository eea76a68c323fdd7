#!/usr/bin/python
"""Say what is live on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_live
short_description: Say what is live on a host
description:
  - "Reads, for every service of Modelyard on the host, which release is live and what it was made from; C(plan)
    compares that with what is wanted."
  - Nothing is ever changed. On a host without Modelyard the answer is empty.
options: {}
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
author: Modelyard
"""

EXAMPLES = r"""
- name: Live releases are read
  modelyard_live:
  register: live
"""

RETURN = r"""
unknown:
  description: Why it is not known what is live, where the host could not be asked. The task does not fail then, and
    the host stays in the play.
  type: str
  returned: the host could not be asked
services:
  description:
    - By service, its live release. C(release) is its identity, C(since) when it was switched to (UTC), C(plan) what it
      was made from, null for one that an older version made. The gateway has C(public_names), too.
  type: dict
  returned: the host was asked
  sample:
    redis: {release: 0123456789ab, since: "2026-01-31T12:00:00Z", plan: {port: 6379}}
"""

import json
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.modelyard_services import SERVICES, public_names, read_text


def live(root: str = SERVICES) -> dict[str, dict]:
    """Return what is live, by service. Raises OSError or ValueError where a manifest cannot be read."""
    found = {}
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        link = os.path.join(root, name, "current")
        if not os.path.islink(link):
            continue  # staged, never activated
        manifest = json.loads(read_text(os.path.join(link, "manifest.json")) or "{}")
        found[name] = {
            "release": os.path.basename(os.readlink(link)),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.lstat(link).st_mtime)),
            "plan": manifest.get("plan"),
        }
        if name == "litellm" and manifest:
            found[name]["public_names"] = public_names(manifest)
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        module.exit_json(changed=False, services=live())
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"what is live cannot be read: {error}")


if __name__ == "__main__":
    main()
