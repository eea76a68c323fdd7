#!/usr/bin/python
"""Run a host's checks and report them as a table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_smoke
short_description: Run a host's checks and report them as a table
description:
  - Runs every check of the compiled plan on the host it is about, also after failures, and fails
    when one of
    them failed. These are the same checks, run by the same code, as those after which a release
    goes live.
  - Adds the check of GPUs from live releases that have one. The plan cannot have it where GPUs are
    found on the host
    and not declared.
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

import contextlib
from itertools import groupby
from typing import Any

from ansible.module_utils.modelyard_checks import run_checks, table
from ansible.module_utils.modelyard_host_lock import release
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_services import Service


def with_gpu_checks(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checks with those of GPUs that live releases have, each after the checks of its
    service.
    """
    everything: list[dict[str, Any]] = []
    for service, own in groupby(checks, key=lambda check: check["service"]):
        everything += own
        live = Service(service).load("current")
        # The plan's names of services that are left out are no services of this host.
        everything += [check for check in live.checks() if check["kind"] == "gpu"] if live else []
    return everything


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "required": True},
            "run": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    # What follows changes nothing, so another run may begin.
    with contextlib.suppress(OSError):
        release(module.params["run"])
    results = run_checks(with_gpu_checks(module.params["checks"]))
    lines = table(results)
    if any(result["status"] == "failed" for result in results):
        module.fail_json(msg="\n".join(lines))
    module.exit_json(changed=False, checks=results, table=lines)


if __name__ == "__main__":
    main()
