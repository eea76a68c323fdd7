#!/usr/bin/python
"""Take the lock of a host for a run, or give it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_lock
short_description: Lock an inventory during a run
version_added: "0.1.0"
author: Modelyard
description:
  - Two people who change the same hosts at the same time get in each other's way. The second one is
    told who is at work with which playbook, from which machine, and since when.
  - With O(where=controller) the lock is the file C(.modelyard.lock) beside the inventory. It ends
    with the C(ansible-playbook) that took it, however that ends; nothing has to be released or
    cleaned up. No host is contacted.
  - With O(where=host) it is the file C(/run/modelyard.lock) on the host, so that runs from other
    machines and other clones see it, too. The lock of a run that has ended is taken over at once by
    a run on the same machine, after a boot of the host, and otherwise when it was not heard of for
    two hours. RV(refused) says who has it; the task does not fail, because the hosts that gave
    their lock have to get it back first.
options:
  where:
    description: Where the lock is.
    type: str
    choices: [controller, host]
    default: controller
  state:
    description: V(absent) gives the lock of a host back, if this run has it.
    type: str
    choices: [present, absent]
    default: present
  mine:
    description: Set by the action plugin, who runs.
    type: dict
    default: {}
  over:
    description: Set by the action plugin, a run that has ended.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: On the controller the lock is taken, too; on a host it is only looked at.
"""

EXAMPLES = r"""
- name: Take the lock of the inventory
  modelyard_lock:
  run_once: true

- name: Take the lock of the host
  modelyard_lock:
    where: host
  register: host_lock
"""

RETURN = r"""
since:
  description: When the lock was taken.
  returned: success
  type: str
run:
  description: What tells this run from others.
  returned: success
  type: str
refused:
  description: Who has the lock of the host; missing if it is ours.
  returned: another run has it
  type: str
"""

from ansible.module_utils.modelyard_host_lock import release, take
from ansible.module_utils.modelyard_module import new_module


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "mine": {"type": "dict", "required": True},
            "over": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    mine = module.params["mine"]
    try:
        if module.params["state"] == "absent":
            if not module.check_mode:
                release(mine["run"])
            module.exit_json(changed=False)
        owner = take(mine, module.params["over"], look=module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"the lock of the host cannot be written: {error}")
    module.exit_json(changed=False, owner=owner)


if __name__ == "__main__":
    main()
