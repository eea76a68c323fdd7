#!/usr/bin/python
"""Run a host's checks and report them as a table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_smoke
short_description: Run a host's checks and report them as a table
description:
  - Runs every check of the compiled plan on the host it is about, also after failures, and fails when one of
    them failed. These are the
    same checks, run by the same code, as those after which a release goes live.
  - Parts that the plan leaves out are reported as skipped.
options:
  checks:
    description: The checks, as compiled.
    type: list
    elements: dict
    required: true
author: Modelyard
"""

EXAMPLES = r"""
- name: Host passes its checks
  modelyard_smoke:
    checks: "{{ plan.checks }}"
"""

RETURN = r"""
table:
  description: One line per check, and the hint under each failure.
  type: list
  elements: str
  returned: success
checks:
  description: The results.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.modelyard_checks import run_checks, table


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"checks": {"type": "list", "elements": "dict", "required": True}},
        supports_check_mode=True,
    )
    results = run_checks(module.params["checks"])
    lines = table(results)
    if any(result["status"] == "failed" for result in results):
        module.fail_json(msg="\n".join(lines))
    module.exit_json(changed=False, checks=results, table=lines)


if __name__ == "__main__":
    main()
