"""`llm_gateway`: the gateway, its front end and its Redis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from modelyard.kinds import (
    IPAddress,
    Port,
    Seconds,
    Strict,
    Unique,
    WholeSeconds,
    listen_addresses,
    unit,
)


class Slots(Strict):
    """Ports of the two gateway slots behind the front end, on loopback. One of them runs."""

    blue: Port = Field(4001, examples=[4001])
    """The first slot."""
    green: Port = Field(4002, examples=[4002])
    """The second slot."""


class FrontEndTimeouts(Strict):
    """How long the front end waits."""

    door_s: WholeSeconds = Field(3600, examples=[3600], json_schema_extra=unit("seconds"))
    """A connection may be silent this long before the front end closes it. Longer than any attempt
    of the gateway. A reload waits this long for in-flight streams."""
    header_s: WholeSeconds = Field(10, examples=[10], json_schema_extra=unit("seconds"))
    """The headers of a request must be complete within this time."""
    idle_s: WholeSeconds = Field(60, examples=[60], json_schema_extra=unit("seconds"))
    """A client may be idle this long while it sends a large body, while it reads an answer, and
    between two requests of a connection."""


class SwitchTimeouts(Strict):
    """How long a change of the gateway may take."""

    ready_s: WholeSeconds = Field(300, examples=[300], json_schema_extra=unit("seconds"))
    """The new slot must pass its checks within this time. Otherwise the old one stays live."""
    drain_s: WholeSeconds = Field(120, examples=[120], json_schema_extra=unit("seconds"))
    """The old slot may take this long to finish its requests."""


class Timeouts(SwitchTimeouts, FrontEndTimeouts):
    """Time-outs of the gateway and its front end."""

    request_s: Seconds = Field(600, examples=[600], json_schema_extra=unit("seconds"))
    """One attempt may take this long. Long, because a long answer of a slow local model is not a
    failure."""
    queue_s: WholeSeconds = Field(60, examples=[20], json_schema_extra=unit("seconds"))
    """A request waits this long for an engine of ours that is busy with as many as `max_parallel`
    says. Then the next step of the chain answers. Less than `stream_s`, or a stream that waits
    counts as an engine that hangs."""
    stream_s: Seconds = Field(120, examples=[120], json_schema_extra=unit("seconds"))
    """A stream may be silent this long, the wait for its first token included. Then the next step
    of the chain answers."""


class BodyLimits(Strict):
    """What the front end and the gateway allow a request's body."""

    body_s: WholeSeconds = Field(60, examples=[300], json_schema_extra=unit("seconds"))
    """A body must be complete within this time. Slow clients with large bodies need more."""


class FrontEndLimits(BodyLimits):
    """What one request and one address may take of the front end."""

    connections_per_address: Annotated[int, Field(ge=1, le=4000)] = Field(400, examples=[1000])
    """Connections that the front end holds for one address at once. It holds 4000 in all."""


class GuardLimits(BodyLimits):
    """What one request and one worker may take."""

    body_mib: Annotated[int, Field(ge=1, le=1024)] = Field(
        32, examples=[64], json_schema_extra=unit("MiB")
    )
    """The largest body of a request. Images and audio are included, a third larger than their
    files."""
    worker_mib: Annotated[int, Field(ge=600, le=65536)] = Field(
        1200, examples=[2000], json_schema_extra=unit("MiB")
    )
    """A worker that has more memory finishes its requests and is replaced. The unit of a slot may
    have twice as much for each of its workers."""


class Limits(GuardLimits, FrontEndLimits):
    """Limits of one request, one address and one worker."""


class Cache(Strict):
    """Whether repeated requests may be answered from Redis."""

    enabled: bool = Field(False, examples=[True])
    """`true`: the same request of the same client within `ttl_s` gets the same answer, from memory.
    Off, because someone who asks again in a chat wants another answer. Needs a host in
    `llm_redis`."""
    ttl_s: Annotated[int, Field(gt=0, le=31 * 86400)] = Field(
        600, examples=[600], json_schema_extra=unit("seconds")
    )
    """An answer is kept this long."""


class Redis(Strict):
    """The Redis the gateways share, if `llm_redis` has a host."""

    port: Port = Field(6379, examples=[6379])
    """Its port. Choose another one if the host already has a Redis."""
    maxmemory_mib: Annotated[int, Field(ge=16, le=2**20)] = Field(
        256, examples=[256], json_schema_extra=unit("MiB")
    )
    """It holds counters, some kilobytes each, and cached answers if `cache` is on."""
    maxmemory_policy: Literal[
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] = Field("allkeys-lru", examples=["allkeys-lru"])
    """What happens when it is full. By default the least recently used keys are evicted; the
    gateway never stops because of it."""
    persistence: Literal["none", "rdb", "aof"] = Field("none", examples=["none"])
    """By default none: counters of the last minute need no disk; a restart begins at zero."""


class Gateway(Strict):
    """The gateway (LiteLLM) and its front end (HAProxy)."""

    listen: Annotated[
        list[IPAddress], Field(min_length=1), AfterValidator(listen_addresses), Unique
    ] = Field(["127.0.0.1"], examples=[["192.0.2.10"]])
    """IP addresses the front end listens on, on every host of `llm_gateway`: 0.0.0.0 where there
    are several. By default only its own host reaches it. It has no TLS yet: clients on a network,
    with an address of the host there, have to trust that network."""
    port: Port = Field(4000, examples=[4000])
    """The front end's port: LiteLLM's own default."""
    slots: Slots = Field(Slots(), examples=[{"blue": 4001, "green": 4002}])
    """Ports behind the front end."""
    pool_port: Port = Field(4003, examples=[4003])
    """Port on loopback at which the gateway reaches engines of ours: the front end's program
    chooses the host that answers."""
    workers: Annotated[int, Field(ge=1, le=64)] = Field(2, examples=[4])
    """Processes per gateway. One answers about 100 requests a second on one core and takes 400 MiB.
    Two, so that one that is busy or dies leaves another."""
    timeouts: Timeouts = Field(Timeouts(), examples=[{"request_s": 300}])
    """Time-outs of the gateway and its front end."""
    limits: Limits = Field(Limits(), examples=[{"body_mib": 64}])
    """Limits of one request, one address and one worker."""
    cooldown_s: Seconds = Field(30, examples=[30], json_schema_extra=unit("seconds"))
    """A deployment is cooled down for this long after two consecutive failures. The last step of a
    chain never is, nor the last that is left of models that fall back to each other."""
    cache: Cache = Field(Cache(), examples=[{"enabled": True}])
    """Whether repeated requests may be answered from Redis."""
    redis: Redis = Field(Redis(), examples=[{"port": 6380}])
    """The Redis the gateways share."""
