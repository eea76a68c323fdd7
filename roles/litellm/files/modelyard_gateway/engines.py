"""When an engine is left alone for a while, and a Redis that is down or slow: LiteLLM's own ways
hurt others.

LiteLLM counts failures, and starts cool-downs, with a blocking Redis client in the event loop, and
it takes whatever fails for the engine's fault. Here the decision is made beside the request, and
failures that the request itself caused count nothing. Redis is asked without retries; after its
first failure it is not called until it answers again.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import re
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import httpx
import litellm._redis
from litellm.caching import redis_cache
from litellm.caching.dual_cache import DualCache
from litellm.exceptions import ContextWindowExceededError
from litellm.router import Router
from litellm.router_utils import cooldown_handlers
from litellm.router_utils.cooldown_callbacks import router_cooldown_event_callback
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from modelyard_gateway import trials
from modelyard_gateway.constraints import Unfit
from modelyard_gateway.journal import chain, kind, say

T = TypeVar("T")

REDIS_S = 0.2
"""Seconds that Redis has to answer. It does so within a millisecond; who waits for it is a
client."""

SHORT = {"socket_timeout": REDIS_S, "socket_connect_timeout": REDIS_S}
"""For each client of Redis, blocking or not. LiteLLM gives it 5 s."""

PROBE_S = 1.0
"""Seconds between two questions to a Redis that did not answer."""

HEALTH_S = 1.0
"""Seconds an engine has to say that it is well."""

ABOUT_THE_ENGINE = frozenset({401, 408, 429})
"""What a 4xx has to be to count: our key, its time, its limits. Any other says something about the
request."""

NOT_IMPLEMENTED = 501
"""llama.cpp, asked for what the model was not started for, such as embeddings of a chat model."""

ABOUT_THE_REQUEST = re.compile(
    r"""
    input\ is\ not\ supported | mmproj            # llama.cpp, server-common.cpp: a picture or a sound
    | \[json\.exception\.                         # llama.cpp, server.cpp: no JSON, or a field of another type
    | failed\ to\ parse\ (messages|tools|grammar)  # llama.cpp, chat.cpp
    | unsupported\ param | does\ not\ support       # llama.cpp, server-common.cpp
    | failed\ to\ (load|download)\ image           # llama.cpp, server-common.cpp
    | unknown\ reasoning\ format                  # llama.cpp, common/chat.cpp
    | cannot\ use\ (both|custom)\                   # llama.cpp, server-common.cpp: two grammars
    | missing\ data\ required\ for\ image          # Ollama, runner: a picture
    | context\ (length|size|window)               # too long, in everybody's words
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What engines say in an answer of 500 that is about the request."""


def install(health: Mapping[str, str]) -> None:
    """Put this module's decisions in the place of LiteLLM's; once in each process, before LiteLLM
    reads its config.

    `health`: where the engine of a deployment, by its id, says whether it is well. Raises TypeError
    if LiteLLM is not as expected.
    """
    breaker = Breaker()
    _replace(
        redis_cache,
        "RedisCircuitBreaker",
        "failure_threshold recovery_timeout enabled",
        lambda **_: breaker,
    )
    _replace(
        litellm._redis,
        "get_redis_client",
        "env_overrides",
        breaker.guarding(litellm._redis.get_redis_client),
    )
    hasty = functools.partialmethod(redis_cache.RedisCache.__init__, **SHORT)
    _replace(redis_cache.RedisCache, "__init__", "socket_timeout kwargs", hasty)
    _replace(redis_cache.RedisCache, "_admit_async_call", "self call", in_time)
    required = cooldown_handlers._should_run_cooldown_logic
    names = (
        "litellm_router_instance deployment exception_status original_exception time_to_cooldown"
    )
    _replace(cooldown_handlers, "_should_run_cooldown_logic", names, Judge(health, required).judge)


def _replace(module: Any, name: str, parameters: str, new: object) -> None:
    """Replace a function of LiteLLM. Raises TypeError unless it takes these parameters."""
    found = list(inspect.signature(getattr(module, name)).parameters)
    if not set(parameters.split()) <= set(found):
        raise TypeError(f"{module.__name__}.{name} takes {found}, not {parameters}")
    setattr(module, name, new)


# -- Redis -----------------------------------------------------------------------------------------


class Breaker(redis_cache.RedisCircuitBreaker):
    """One for all that this process asks Redis.

    LiteLLM's own opens after the fifth failure and not for its blocking calls, tries again with
    somebody's request, and stays open for ever if that client leaves meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(failure_threshold=1, recovery_timeout=0)
        self.lock = threading.Lock()
        self.ask: Callable[..., Any] | None = None

    def is_open(self) -> bool:
        """Whether Redis must not be called."""
        return bool(self._state != self.CLOSED)

    def record_failure(self, is_timeout: bool = False) -> None:
        """Open at the first failure, and ask in a thread until there is an answer."""
        with self.lock:
            if self.is_open() or self.ask is None:
                return
            self._set_state(self.OPEN)
        say("Redis does not answer: cool-downs and limits are this worker's own until it does")
        threading.Thread(target=self._wait, args=(self.ask,), name="redis", daemon=True).start()

    def _wait(self, ask: Callable[..., Any]) -> None:
        while self.is_open():
            time.sleep(PROBE_S)
            try:
                ask("PING")
            except (RedisError, OSError):
                continue
            self._set_state(self.CLOSED)
        say("Redis answers again")

    def guarding(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        """LiteLLM's way to a blocking client, without the retries of its library and behind this
        breaker.
        """

        def guarded(**settings: Any) -> Any:
            client = connect(**settings)
            client.set_retry(Retry(NoBackoff(), 0))
            self.ask = client.execute_command
            client.execute_command = functools.partial(self._run, client.execute_command)
            return client

        return guarded

    def _run(self, ask: Callable[..., Any], command: str, *words: Any, **options: Any) -> Any:
        call = functools.partial(ask, command, *words, **options)
        return redis_cache._run_under_circuit_breaker_sync(self, command, call)


async def in_time(_cache: redis_cache.RedisCache, call: Callable[[], Awaitable[T]]) -> T:
    """In the place of RedisCache's `_admit_async_call`: a new connection takes five answers, and
    all get one time.

    Raises TimeoutError, which opens the breaker.
    """
    return await asyncio.wait_for(call(), REDIS_S)


# -- cool-downs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """What LiteLLM knows about one attempt that failed."""

    router: Router
    deployment: str
    status: int
    exception: Exception
    cooldown_s: float

    @property
    def answer(self) -> httpx.Response | None:
        """What the engine said, if it did: LiteLLM chooses the status and the text of its error by
        words in there.
        """
        return next(
            (
                error.response
                for error in chain(self.exception)
                if isinstance(error, httpx.HTTPStatusError)
            ),
            None,
        )


class Judge:
    """Decides what a failure means for the engine."""

    def __init__(self, health: Mapping[str, str], required: Callable[..., bool]) -> None:
        self.health = health
        self.required = required
        self.tasks: set[asyncio.Task[None]] = set()
        self.asking: dict[str, asyncio.Task[bool]] = {}
        self.cooling = asyncio.Lock()
        """One after the other: of two that fail together, the second sees that the first is cooled
        down."""

    def judge(
        self,
        litellm_router_instance: Router,
        deployment: str | None,
        exception_status: str | int,
        original_exception: Exception,
        time_to_cooldown: float | None = None,
    ) -> bool:
        """In the place of LiteLLM's `_should_run_cooldown_logic`: no, and decide beside the
        request.
        """
        router = litellm_router_instance
        entry = None if deployment is None else router.get_model_info(id=deployment)
        if entry is None or deployment is None:
            return False
        say(f"{entry['model_name']} at {deployment} failed: {kind(original_exception)}")
        # Its own first: on paths like /v1/responses LiteLLM does not know it.
        own = entry["litellm_params"].get("cooldown_time")
        seconds = next(
            value for value in (own, time_to_cooldown, router.cooldown_time) if value is not None
        )
        if not self.required(router, deployment, exception_status, original_exception, seconds):
            return False
        status = cooldown_handlers.cast_exception_status_to_int(exception_status)
        failure = Failure(router, deployment, status, original_exception, seconds)
        task = asyncio.get_running_loop().create_task(self.decide(failure))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return False

    async def decide(self, failure: Failure) -> None:
        """Count a failure that is the engine's, and cool it down if that is one too many."""
        if await self.is_not_its_fault(failure):
            return
        router = failure.router
        key = f"deployment:{failure.deployment}:allowed_fails"
        if not await count(router.cache, key, router.cooldown_time, router.allowed_fails):
            return
        async with self.cooling:
            if not await is_last_left(failure):
                await cool(failure)

    async def is_not_its_fault(self, failure: Failure) -> bool:
        """Whether the engine is not what is wrong, by what it answered and how it is: the request
        is, or nobody was there to ask.
        """
        if isinstance(failure.exception, (ContextWindowExceededError, Unfit)):
            return True
        answer = failure.answer
        if answer is None:
            return False
        if 400 <= answer.status_code < 500:
            return answer.status_code not in ABOUT_THE_ENGINE
        if is_away(answer):
            return True
        if answer.status_code == NOT_IMPLEMENTED or ABOUT_THE_REQUEST.search(answer.text):
            return True
        return failure.deployment in self.health and await self.is_well(failure)

    async def is_well(self, failure: Failure) -> bool:
        """Whether an engine says so within HEALTH_S, and does not fail at a request of ours. Who
        asks meanwhile gets the same answer.
        """
        name = failure.deployment
        if name not in self.asking:
            self.asking[name] = asyncio.create_task(self.examine(failure))
            self.asking[name].add_done_callback(lambda _: self.asking.pop(name))
        return await self.asking[name]

    async def examine(self, failure: Failure) -> bool:
        """As `is_well`, for one who asks."""
        if not await ask_health(self.health[failure.deployment]):
            return False
        entry = failure.router.get_deployment(failure.deployment)
        return entry is None or not await trials.fails(entry.model_dump())


def is_away(answer: httpx.Response) -> bool:
    """Whether HAProxy says that no host of a pool is up or free."""
    try:
        return bool(answer.status_code == 503 and answer.json()["error"]["code"] == trials.AWAY)
    except (ValueError, TypeError, KeyError):
        return False


async def ask_health(url: str) -> bool:
    """Whether `url` answers within HEALTH_S: with 200, or asking for a key."""
    try:
        timeout = aiohttp.ClientTimeout(total=HEALTH_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            return answer.status in (200, 401)
    # asyncio's TimeoutError is a class of its own until Python 3.11.
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError):  # noqa: UP041
        return False


async def count(cache: DualCache, key: str, ttl_s: float, allowed: int) -> bool:
    """Count one failure here, then for all in Redis; return whether that is more than allowed."""
    if cache.increment_cache(key, 1, local_only=True, ttl=ttl_s) > allowed:
        return True
    if cache.redis_cache is None:
        return False
    try:
        return bool(await cache.redis_cache.async_increment(key, 1, ttl=math.ceil(ttl_s)) > allowed)
    # asyncio's TimeoutError is a class of its own until Python 3.11.
    except (  # noqa: UP041
        redis_cache.RedisCircuitBreakerOpenError,
        RedisError,
        OSError,
        asyncio.TimeoutError,
    ):
        return False


async def is_last_left(failure: Failure) -> bool:
    """Whether all who answer in this deployment's place are cooled down already, as far as this
    worker knows: Redis is not asked, because while that takes its time more requests fail.

    Of models that fall back to each other none is the last by what the document says: they would
    all be turned away for a while after two failures each. What ends a chain for good has a
    `cooldown_time` of 0 there.
    """
    router = failure.router
    name = router.get_model_info(id=failure.deployment)["model_name"]
    chain: list[str] = next((entry[name] for entry in router.fallbacks or () if name in entry), [])
    if not chain:
        return False
    ids = {one for step in (name, *chain) for one in router.get_model_ids(step)}
    others = sorted(ids - {failure.deployment})
    cooldowns = router.cooldown_cache
    keys = [cooldowns.get_cooldown_cache_key(one) for one in others]
    known = await cooldowns.cooldown_store.async_batch_get_cache(keys, local_only=True)
    return len(cooldowns.active_cooldowns_from_results(others, known)) == len(others)


async def cool(failure: Failure) -> None:
    """Send nothing to a deployment for a while: from here at once, from others when Redis has
    it.
    """
    cooldowns = failure.router.cooldown_cache
    key, value = cooldowns._common_add_cooldown_logic(
        failure.deployment, failure.exception, failure.status, failure.cooldown_s
    )
    await cooldowns.cooldown_store.async_set_cache(key, value, ttl=failure.cooldown_s)
    await router_cooldown_event_callback(
        failure.router, failure.deployment, failure.status, failure.cooldown_s
    )
