"""Runs in the gateway's environment, which the tests do not share: counts requests of one client.

Arguments: `redis` of rules.json (or null), and a plan: `window_s`, `rpm`, how many `workers`, and
`asks`, of which each is how many seconds to wait and which worker then counts a request, while
something else keeps it busy for `busy_s`. Prints for each when it was counted, how long that took,
whether it passed, and the headers of its answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from modelyard_gateway.errors import Refusal
from modelyard_gateway.limits import Limits
from modelyard_gateway.rules import Redis


async def count(
    redis: Redis | None, plan: dict[str, Any]
) -> list[tuple[float, float, bool, dict[str, str]]]:
    """Follow the plan."""
    workers = [Limits(redis, plan["window_s"]) for _ in range(plan["workers"])]
    found = []
    for wait_s, worker in plan["asks"]:
        await asyncio.sleep(wait_s)
        asyncio.get_running_loop().call_soon(time.sleep, plan["busy_s"])
        asked = time.monotonic()
        try:
            headers, passed = dict(await workers[worker].admit("somebody", plan["rpm"])), True
        except Refusal as refusal:
            headers, passed = refusal.headers, False
        found.append((asked, time.monotonic() - asked, passed, headers))
    return found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(
        json.dumps(asyncio.run(count(Redis(**given) if given else None, json.loads(sys.argv[2]))))
    )
