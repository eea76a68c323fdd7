#!/usr/bin/python
"""Take a host out of the pools of the front end, or put it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_pool
short_description: Take a host out of the pools of the front end, or put it back
description:
  - Runs on a host of the gateway. A host that is drained gets no new requests there, and those in
    flight go on.
  - A drain ends by itself after O(end_s), also if nobody is left who would end it.
options:
  host:
    description:
      - The host, by its name in the pools, which is the inventory's.
      - Without it O(state=ready) is for all hosts that a run drained, and not a person by hand. A run
        that begins has the locks of the hosts, so whoever drained them is gone.
    type: str
  pools:
    description: The pools concerned, as far as this front end has them. By default all that the
      host is in.
    type: list
    elements: str
  state:
    description: Whether it gets requests.
    type: str
    choices: [drain, ready]
    required: true
  wait_s:
    description:
      - Seconds to wait until nothing is in flight (V(drain)), or until its checks say that it is up
        (V(ready)).
      - Those that a host was drained already count, so that several front ends that are drained with
        V(0) and then waited for one after the other have that time together.
    type: int
    default: 120
  end_s:
    description: Seconds after which a drain ends by itself. Longer than what is done meanwhile.
    type: int
    default: 1800
author: Modelyard
"""

EXAMPLES = r"""
- name: Send no new requests to the host
  modelyard_pool:
    host: gpu1
    state: drain

- name: Put back what a run that died left drained
  modelyard_pool:
    state: ready
"""

RETURN = r"""
pools:
  description: The pools concerned that have the host here.
  type: list
  elements: str
  returned: success
in_flight:
  description: Requests that did not end in time, by pool.
  type: dict
  returned: O(state=drain)
down:
  description: Pools in which the host is not up.
  type: list
  elements: str
  returned: O(state=ready)
"""

from typing import Any

from ansible.module_utils.modelyard_host import ServiceError
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_pools import Pools, left_drained
from ansible.module_utils.modelyard_proxy import Door


def heal(door: Door, wait_s: int, *, dry: bool) -> dict[str, Any]:
    """Put back whatever a run left drained; `dry` only looks. Returns the result of the module.
    Raises ServiceError.
    """
    left = left_drained(door)
    down: list[str] = []
    for host, names in left.items():
        pools = Pools(door, host, names)
        down += pools.down() if dry else pools.ready(wait_s)
    concerned = sorted({name for names in left.values() for name in names})
    return {"changed": bool(left), "pools": concerned, "down": down}


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "host": {"type": "str"},
            "pools": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["drain", "ready"], "required": True},
            "wait_s": {"type": "int", "default": 120},
            "end_s": {"type": "int", "default": 1800},
        },
        required_if=[("state", "drain", ["host"])],
        supports_check_mode=True,
    )
    params = module.params
    drains = params["state"] == "drain"
    try:
        if params["host"] is None:
            module.exit_json(**heal(Door(), params["wait_s"], dry=module.check_mode))
        pools = Pools(Door(), params["host"], params["pools"])
        drained = pools.drained()
        result = {
            "changed": len(drained) < len(pools.names) if drains else bool(drained),
            "pools": pools.names,
        }
        if module.check_mode:
            result |= {"in_flight": pools.in_flight()} if drains else {"down": pools.down()}
        elif drains:
            result["in_flight"] = pools.drain(params["wait_s"], params["end_s"])
        else:
            result["down"] = pools.ready(params["wait_s"])
    except ServiceError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
