#!/usr/bin/python
"""Ask the Prometheus of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_prometheus
short_description: Ask a Prometheus about the time until now
description:
  - Evaluates expressions with the API of a Prometheus that listens where this module runs, and
    returns what it answers.
  - The period ends now, by the clock of this host, which is Prometheus' own.
  - Only reads. Fails if one expression cannot be evaluated.
options:
  url:
    description: Where Prometheus listens.
    type: str
    default: http://127.0.0.1:9090
  points:
    description: How many steps the period has.
    type: int
    required: true
  step_s:
    description: Seconds of one step. The first point is one step after the period's begin, the last
      one its end.
    type: int
    required: true
  over_time:
    description: By name, expressions to evaluate at each point.
    type: dict
    default: {}
  at_the_end:
    description: By name, expressions to evaluate at the end of the period only.
    type: dict
    default: {}
  timeout_s:
    description: Seconds that Prometheus may take for one expression.
    type: int
    default: 120
  hint:
    description: What to try when it does not answer; part of the message.
    type: str
    default: journalctl -u modelyard-prometheus -n 50
extends_documentation_fragment: [modelyard_unchanging]
author: Modelyard
"""

EXAMPLES = r"""
- name: Requests of each minute of the last hour are known
  modelyard_prometheus:
    points: 60
    step_s: 60
    over_time:
      requests: sum(increase(litellm_proxy_total_requests_metric_total[60s]))
  register: told
"""

RETURN = r"""
end:
  description: End of the period, in seconds since 1970.
  type: int
  returned: success
over_time:
  description:
    - "By name, the series of each answer: C(metric), its labels, and C(values), pairs of a time and
      a number as text.
      A point without a value is not among them."
  type: dict
  returned: success
  sample: {requests: [{metric: {}, values: [[1767225600, "12"], [1767225660, "9"]]}]}
at_the_end:
  description: The same, with one C(value) instead of C(values).
  type: dict
  returned: success
  sample: {requests: [{metric: {}, value: [1767225660, "9"]}]}
"""

import http.client
import json
import time
import urllib.parse
from typing import Any

from ansible.module_utils.modelyard_checks import describe, request
from ansible.module_utils.modelyard_module import new_module

# What the connection takes beside the evaluation, which Prometheus itself ends in time.
MORE_S = 10


class AnswerError(Exception):
    """Prometheus does not answer, or refuses."""


def ask(url: str, path: str, timeout_s: int, **query: object) -> list[dict[str, Any]]:
    """Return the series of one answer. Raises AnswerError."""
    words = urllib.parse.urlencode({**query, "timeout": f"{timeout_s}s"})
    try:
        status, body = request(
            {"url": f"{url}/api/v1/{path}?{words}", "timeout_s": timeout_s + MORE_S}, None
        )
    except (OSError, http.client.HTTPException) as error:
        raise AnswerError(f"Prometheus on {url}: {describe(error)}") from error
    try:
        answer = json.loads(body)
        if answer["status"] == "success":
            return list(answer["data"]["result"])
        reason = answer["error"]
    except (ValueError, LookupError, TypeError):
        reason = " ".join(body.decode("utf-8", "replace").split())[:200] or "nothing"
    raise AnswerError(f"Prometheus on {url} answered {status}: {reason}")


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:9090"},
            "points": {"type": "int", "required": True},
            "step_s": {"type": "int", "required": True},
            "over_time": {"type": "dict", "default": {}},
            "at_the_end": {"type": "dict", "default": {}},
            "timeout_s": {"type": "int", "default": 120},
            "hint": {"type": "str", "default": "journalctl -u modelyard-prometheus -n 50"},
        },
        supports_check_mode=True,
    )
    params = module.params
    url, timeout_s, step = params["url"], params["timeout_s"], params["step_s"]
    end = int(time.time())
    first = end - (params["points"] - 1) * step
    told: dict[str, dict[str, Any]] = {"over_time": {}, "at_the_end": {}}
    name = ""
    try:
        for name, expression in params["over_time"].items():
            told["over_time"][name] = ask(
                url, "query_range", timeout_s, query=expression, start=first, end=end, step=step
            )
        for name, expression in params["at_the_end"].items():
            told["at_the_end"][name] = ask(url, "query", timeout_s, query=expression, time=end)
    except AnswerError as error:
        module.fail_json(msg=f"{error} (asked for: {name})\n  try: {params['hint']}")
    module.exit_json(changed=False, end=end, **told)


if __name__ == "__main__":
    main()
