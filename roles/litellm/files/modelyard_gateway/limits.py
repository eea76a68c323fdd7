"""Requests per minute of each client, in any 60 seconds."""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Connections
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from modelyard_gateway.errors import Refusal
from modelyard_gateway.journal import say
from modelyard_gateway.rules import Redis

WINDOW_S = 60.0

PATIENCE_S = 0.2
"""Redis answers within a millisecond. A request does not wait longer than this for it."""

PAUSE_S = 5.0
"""After Redis did not answer no request waits for it for so long; then one tries."""

CONNECTIONS = 10
"""Of one worker. Each is busy for a fraction of a millisecond."""

TAKE = """\
local now, limit, window = redis.call('TIME'), tonumber(ARGV[1]), tonumber(ARGV[2])
now = now[1] * 1000000 + now[2]
local function at(index) return tonumber(redis.call('LINDEX', KEYS[1], index)) end
local oldest = at(0)
while oldest and (oldest <= now - window or oldest > now) do
  redis.call('LPOP', KEYS[1])
  oldest = at(0)
end
local count, wait = redis.call('LLEN', KEYS[1]), 0
if count < limit then
  redis.call('RPUSH', KEYS[1], now)
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
  count = count + 1
else
  wait = at(count - limit) + window - now
end
return {wait, limit - count, at(-1) + window - now}
"""
"""A list of when requests passed, in microseconds of Redis' clock, the oldest first. What lies in
the future was there before the clock was put back."""


class Standing(NamedTuple):
    """How one more request of a client fares."""

    wait_s: float
    """Until it passes. 0: it does."""
    left: int
    """How many more pass after it."""
    reset_s: float
    """Until all that the client has may pass again."""


class Limits:
    """Counts requests: in Redis for all workers and gateways, in this worker alone where there is
    none.

    What a worker let through itself it remembers in any case. So Redis may come, go and forget, and
    a client still gets no more than its limit from each worker.
    """

    def __init__(self, redis: Redis | None, window_s: float = WINDOW_S) -> None:
        self.window_s = window_s
        self.passed: defaultdict[str, list[float]] = defaultdict(list)
        self.shared = Shared(redis, window_s) if redis is not None else None

    async def admit(self, client: str, rpm: int | None) -> Mapping[str, str]:
        """Count one request and return the headers that tell what is left.

        Raises Refusal: too many (429).
        """
        if rpm is None:
            return {}
        found = self.standing(client, rpm)
        if not found.wait_s and self.shared is not None:
            shared = await self.shared.take(client, rpm)
            # Others of this worker may have passed while Redis did not answer.
            found = (
                self.standing(client, rpm)
                if shared is None
                else shared._replace(left=min(shared.left, found.left))
            )
        headers = {
            "x-ratelimit-limit-requests": str(rpm),
            "x-ratelimit-remaining-requests": str(max(0, found.left)),
            "x-ratelimit-reset-requests": f"{ceil(found.reset_s)}s",
        }
        if found.wait_s:
            wait_s = str(ceil(found.wait_s))
            message = (
                f"Too many requests of client {client}: it has {rpm} a minute. The next one passes"
                f" in {wait_s} s."
            )
            raise Refusal(429, message, headers={"retry-after": wait_s, **headers})
        # After Redis has: what is over for this worker is over for Redis, so the wait that either
        # tells is true.
        self.passed[client].append(time.monotonic())
        return headers

    def standing(self, client: str, rpm: int) -> Standing:
        """Judge one more request by what this worker let through."""
        passed, now = self.passed[client], time.monotonic()
        del passed[: bisect_right(passed, now - self.window_s)]
        if len(passed) < rpm:
            return Standing(0, rpm - len(passed) - 1, self.window_s)
        return Standing(
            passed[len(passed) - rpm] + self.window_s - now, 0, passed[-1] + self.window_s - now
        )


class Shared:
    """What Redis counts.

    It is never waited for long, and not at all for a while after it did not answer.
    """

    def __init__(self, redis: Redis, window_s: float) -> None:
        pool = BlockingConnectionPool(
            max_connections=CONNECTIONS,
            timeout=PATIENCE_S,
            host=redis.host,
            port=redis.port,
            username=redis.username,
            password=os.environ[redis.password_env],
            protocol=2,
            # All time-outs are ask's.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self.connections = Connections(connection_pool=pool)
        self.prefix = f"{redis.namespace}:modelyard:rpm:"
        self.window_us = round(window_s * 1e6)
        self.away = False
        self.asked_again = 0.0
        """When Redis is asked again."""

    async def take(self, client: str, rpm: int) -> Standing | None:
        """Count one request if it passes. None: Redis does not answer."""
        now = time.monotonic()
        if now < self.asked_again:
            return None
        if self.away:
            self.asked_again = now + PAUSE_S  # no other request tries
        try:
            wait_us, left, reset_us = await self.ask(f"{self.prefix}{client}", rpm)
        # asyncio's TimeoutError is a class of its own until Python 3.11.
        except (RedisError, OSError, asyncio.TimeoutError) as error:  # noqa: UP041
            self.asked_again = time.monotonic() + PAUSE_S
            if not self.away:
                self.away = True
                say(
                    "Redis does not answer, so each worker counts requests of clients for itself:"
                    f" {error!r}"
                )
            return None
        if self.away:
            self.away, self.asked_again = False, 0.0
            say("Redis answers and counts requests of clients again")
        return Standing(wait_us / 1e6, left, reset_us / 1e6)

    async def ask(self, name: str, rpm: int) -> tuple[int, int, int]:
        """Run the script. Raises RedisError, OSError, and asyncio.TimeoutError after PATIENCE_S."""
        asking = asyncio.ensure_future(self.connections.eval(TAKE, 1, name, rpm, self.window_us))
        # Many short waits: when this worker is busy for a second one of them is late, and that is
        # not Redis' fault.
        for _ in range(10):
            await asyncio.wait({asking}, timeout=PATIENCE_S / 10)
            if asking.done():
                wait_us, left, reset_us = asking.result()
                return wait_us, left, reset_us
        asking.cancel()
        raise asyncio.TimeoutError  # noqa: UP041  # two classes until Python 3.11
