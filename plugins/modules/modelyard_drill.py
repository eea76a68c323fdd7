#!/usr/bin/python
"""Ask the gateway all the while something is broken on purpose, and tell what a client saw."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_drill
short_description: Send requests to the gateway for a while and count what a client sees
description:
  - Sends chat requests through the front end of the host, O(rate) a second for O(seconds) seconds,
    whether earlier ones were answered or not, and counts. C(playbooks/drill.yml) breaks something
    meanwhile.
  - It never fails because requests fail; it says so.
options:
  rate:
    description: Requests a second, 10 at most.
    type: float
    default: 4
  seconds:
    description: For how long, 300 at most.
    type: int
    default: 40
  timeout_s:
    description: How long a client waits for an answer.
    type: float
    default: 60
  pools:
    description: The pools of HAProxy on this host that the model is asked in; it is counted which
      of their hosts answered.
    type: list
    elements: str
    default: []
extends_documentation_fragment: [modelyard_gateway]
author: Modelyard
"""

EXAMPLES = r"""
- name: Send requests
  modelyard_drill:
    url: http://127.0.0.1:4000
    model: llama-cpp-native
    seconds: 30
"""

RETURN = r"""
asked:
  description: Requests that were sent.
  type: int
  returned: success
failed:
  description: Requests without an answer, and why, by reason.
  type: dict
  returned: success
answered_by:
  description: Answers by the name of the model that gave them.
  type: dict
  returned: success
answered_at:
  description: Answers of the hosts of O(pools) meanwhile, those to other clients included.
  type: dict
  returned: success
silence_s:
  description: The longest time between two answers.
  type: float
  returned: success
slowest_s:
  description: The longest that a client waited for an answer.
  type: float
  returned: success
lines:
  description: The same as text.
  type: list
  elements: str
  returned: success
"""

import collections
import http.client
import json
import threading
import time
from typing import Any

from ansible.module_utils.modelyard_checks import (
    GATEWAY_OPTIONS,
    CheckError,
    describe,
    read_credential,
    sent,
)
from ansible.module_utils.modelyard_host import ServiceError
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_proxy import Door


class Client:
    """Asks, and remembers what it got."""

    def __init__(self, url: str, bearer: str, model: str, timeout_s: float) -> None:
        self.check = {"url": f"{url}/v1/chat/completions", "bearer": bearer, "timeout_s": timeout_s}
        self.model = model
        self.answers: list[Any] = []
        """(when it was there, in seconds; how long it took; who gave it)"""
        self.failed: collections.Counter[str] = collections.Counter()

    def body(self, number: int) -> dict[str, Any]:
        """Return a request. Each begins another conversation, or one host of a pool would get all
        of them.
        """
        message = {"role": "user", "content": f"Say hello to number {number}."}
        return {"model": self.model, "messages": [message], "max_tokens": 4}

    def ask(self, number: int) -> None:
        """Ask once. Nothing is raised."""
        started = time.monotonic()
        try:
            with sent(self.check, None, self.body(number)) as response:
                status, answer = response.status, response.read()
            if status != 200:
                raise CheckError(f"status {status}")
            content = json.loads(answer)
            content["choices"][0]
        except CheckError as error:
            self.failed[str(error)] += 1
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self.failed[describe(error)] += 1
        else:
            now = time.monotonic()
            self.answers.append((now, now - started, str(content.get("model"))))

    def ask_for(self, seconds: float, rate: float) -> float:
        """Ask `rate` times a second. Returns when it ended, once all have their answer or none."""
        started = time.monotonic()
        threads = []
        for number in range(int(seconds * rate)):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            threads.append(threading.Thread(target=self.ask, args=(number,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return time.monotonic()


def answered(door: Door, pools: list[str]) -> collections.Counter[str]:
    """Return how many answers each host of some pools has given since HAProxy started. Raises
    ServiceError.
    """
    found: collections.Counter[str] = collections.Counter()
    for row in door.rows() if pools else []:
        if row["pxname"] in pools and row["svname"] != "BACKEND":
            found[row["svname"]] += int(row["hrsp_2xx"] or 0)
    return found


def summary(
    asked: int, client: Client, started: float, ended: float, at: dict[str, int]
) -> dict[str, Any]:
    """Return what a client saw between `started` and `ended`, in seconds of the monotonic clock.
    `at` is how many answers each host gave meanwhile.
    """
    moments = [started, *sorted(moment for moment, _took, _by in client.answers), ended]
    by = collections.Counter(by for _moment, _took, by in client.answers)
    found = {
        "asked": asked,
        "failed": dict(client.failed),
        "answered_by": dict(by),
        "answered_at": at,
        "silence_s": round(max(moments[i + 1] - moments[i] for i in range(len(moments) - 1)), 2),
        "slowest_s": round(max((took for _moment, took, _by in client.answers), default=0.0), 2),
    }
    there = len(client.answers)
    lines = [f"{asked} requests, {there} answered, {asked - there} failed"]
    lines += [f"  {number} answered by {name}" for name, number in sorted(by.items())]
    lines += [f"  {host} gave {number} answers" for host, number in sorted(at.items())]
    lines += [f"  {number} failed: {why}" for why, number in sorted(client.failed.items())]
    lines.append(
        f"longest wait for an answer {found['slowest_s']} s, longest time without any"
        f" {found['silence_s']} s"
    )
    return {**found, "lines": lines}


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            **GATEWAY_OPTIONS,
            "rate": {"type": "float", "default": 4},
            "seconds": {"type": "int", "default": 40},
            "timeout_s": {"type": "float", "default": 60},
            "pools": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=False,
    )
    params = module.params
    if not 0 < params["rate"] <= 10 or not 0 < params["seconds"] <= 300:
        module.fail_json(
            msg="rate must be above 0 and at most 10 requests a second, seconds from 1 to 300"
        )
    try:
        read_credential(params["bearer"])
    except CheckError as error:
        module.fail_json(msg=str(error))
    client = Client(params["url"], params["bearer"], params["model"], params["timeout_s"])
    door, pools = Door(), params["pools"]
    try:
        before = answered(door, pools)
        started = time.monotonic()
        ended = client.ask_for(params["seconds"], params["rate"])
        at = dict(answered(door, pools) - before)
    except ServiceError as error:
        module.fail_json(msg=str(error))
    asked = int(params["seconds"] * params["rate"])
    module.exit_json(changed=False, **summary(asked, client, started, ended, at))


if __name__ == "__main__":
    main()
