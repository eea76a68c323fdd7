"""Documentation of the action plugin modelyard_lock, which runs on the controller alone."""

DOCUMENTATION = r"""
module: modelyard_lock
short_description: Hold an inventory for the time of a run
version_added: "0.1.0"
author: Modelyard
description:
  - Two people who change the same hosts at the same time get in each other's way. The second one is told who is at
    work, and since when.
  - The lock is a file on the controller. It ends with the C(ansible-playbook) that took it, however that ends; nothing
    has to be released or cleaned up.
  - Runs on the controller and contacts no host.
options:
  path:
    description: The lock, beside the inventory.
    type: path
    required: true
  purpose:
    description: What runs, for the one who is told.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: The lock is taken, too.
"""

EXAMPLES = r"""
- name: Nobody else changes this inventory's hosts
  modelyard_lock:
    path: "{{ inventory_dir }}/.modelyard.lock"
    purpose: playbooks/switch_model.yml
  run_once: true
"""

RETURN = r"""
since:
  description: When the lock was taken.
  returned: success
  type: str
"""
