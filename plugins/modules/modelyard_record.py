#!/usr/bin/python
"""Note on a host what the roles that have just ended were given and looked at."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_record
short_description: Note what roles left behind, so that the next run can leave them out
description:
  - Writes for every role of a stage of site.yml that was due what it was given (a digest, with a
    salt) and the state of what it looks at on the host. M(modelyard_preflight) compares both in
    the next run.
  - A record is no part of any service, so it counts as no change. Check mode writes nothing.
options:
  stage:
    description: The stage that has just ended.
    type: str
    required: true
  plan:
    description: The plan of the host.
    type: dict
    required: true
  code:
    description: Digest of the bundle's code, of M(modelyard_compile).
    type: str
    required: true
  preflight:
    description: What M(modelyard_preflight) returned in this run.
    type: dict
    required: true
author: Modelyard
"""

EXAMPLES = r"""
- name: What the roles left is noted
  modelyard_record:
    stage: gateway
    plan: "{{ plan }}"
    code: "{{ modelyard_compiled.code }}"
    preflight: "{{ preflight }}"
"""

RETURN = r"""
recorded:
  description: The roles.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_watch import write_record


def main() -> None:
    """Run the module. The action beside it makes `records` of the plan."""
    module = new_module(
        argument_spec={"records": {"type": "dict", "required": True}}, supports_check_mode=True
    )
    records = module.params["records"]
    try:
        for role, record in records.items() if not module.check_mode else ():
            write_record(role, record["salt"], record["digest"], record["watch"])
    except OSError as error:
        module.fail_json(msg=f"the record of a role cannot be written: {error}")
    module.exit_json(changed=False, recorded=list(records))


if __name__ == "__main__":
    main()
