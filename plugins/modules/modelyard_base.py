#!/usr/bin/python
"""Lay the ground that every service stands on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_base
short_description: Make the directories, the target and the build user that all roles rely on
description:
  - "Creates C(/opt/modelyard/store), C(/opt/modelyard/services), C(/etc/modelyard/credentials)
    (root only), C(/var/lib/modelyard), the user that builds artifacts, and
    C(modelyard.target), enabled and active."
  - Deletes what was retired a week ago, remains of builds, and artifacts that no release on the
    host names, retired ones included, and that no run requested within a day. It is the first to
    touch a host in a run, so it deletes nothing that the run itself requests.
  - One call, because every run on every host pays for it.
options:
  target:
    description: Content of C(modelyard.target).
    type: str
    required: true
  build_user:
    description: Name of the system user that builds artifacts.
    type: str
    default: modelyard-build
  programs:
    description: Programs that have to be there. Those that are not are returned, nothing is
      installed.
    type: list
    elements: str
    default: []
author: Modelyard
"""

EXAMPLES = r"""
- name: Prepare the host
  modelyard_base:
    target: "{{ lookup('ansible.builtin.file', 'modelyard.target') }}"
    programs: [zstd]
  register: __base
"""

RETURN = r"""
changes:
  description: What was made, corrected or deleted.
  type: list
  elements: str
  returned: always
missing_programs:
  description: Those of C(programs) that the host does not have.
  type: list
  elements: str
  returned: always
services:
  description: Services of ours that are on the host, running or not.
  type: list
  elements: str
  returned: always
"""

from typing import Any

from ansible.module_utils.modelyard_host import ServiceError
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_prepared import BUILD_USER, absent_programs, prepared
from ansible.module_utils.modelyard_services import services


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "target": {"type": "str", "required": True},
            "build_user": {"type": "str", "default": BUILD_USER},
            "programs": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        changes = prepared(module.params, module.check_mode)
    except (ServiceError, OSError) as error:
        module.fail_json(msg=str(error))
    result: dict[str, Any] = {
        "changes": changes,
        "missing_programs": absent_programs(module.params["programs"]),
        "services": services(),
    }
    if changes:
        result["diff"] = {"prepared": "\n".join(changes)}
    module.exit_json(changed=bool(changes), **result)


if __name__ == "__main__":
    main()
