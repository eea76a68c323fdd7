"""Documentation of the action plugin modelyard_lock, which runs on the controller alone."""

DOCUMENTATION = r"""
module: modelyard_lock
short_description: Lock an inventory during a run
version_added: "0.1.0"
author: Modelyard
description:
  - Two people who change the same hosts at the same time get in each other's way. The second one is
    told who is at work with which playbook, and since when.
  - The lock is the file C(.modelyard.lock) beside the inventory. It ends with the
    C(ansible-playbook) that took it, however that ends; nothing has to be released or cleaned up.
  - Runs on the controller and contacts no host.
attributes:
  check_mode:
    support: full
    description: The lock is taken, too.
"""

EXAMPLES = r"""
- name: Take the lock of the inventory
  modelyard_lock:
  run_once: true
"""

RETURN = r"""
since:
  description: When the lock was taken.
  returned: success
  type: str
"""
