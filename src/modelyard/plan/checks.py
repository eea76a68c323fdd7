"""Checks: what activation, smoke and `status` run on a host
(plugins/module_utils/modelyard_checks.py).

A key without a value is left out of the compiled plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from modelyard.kinds import Strict
from modelyard.names import GATEWAY_USER, REDIS_NAMESPACE, journal, reach, url_host

CHAT_TIMEOUT_S = 60
"""Seconds for one token of a model that may have to be read into memory first."""

ANSWER_TIMEOUT_S = 15
"""Seconds. Our own exporter waits 8 s for a driver that hangs before it reports the rest."""


def is_none(value: object) -> bool:
    """Return whether a key is left out of the plan (`exclude_if`)."""
    return value is None


def optional(**more: Any) -> Any:
    """Return the field of a key that is left out where it is None."""
    return Field(None, exclude_if=is_none, **more)


class BaseCheck(Strict):
    """What every check has."""

    name: str
    """What is checked, for people."""
    service: str
    """The service that is checked."""
    hint: str
    """What to do when it fails."""
    skip: str | None = optional()
    """Why it is not run. It is reported as skipped."""
    timeout_s: int | None = optional()
    """Seconds it may take; 5 by default."""


class UnitCheck(BaseCheck):
    """At least one of the units is active, and none failed."""

    kind: Literal["unit"] = "unit"
    units: list[str]
    """Units of systemd. A pattern stands for all that are loaded."""


class HttpCheck(BaseCheck):
    """An HTTP request is answered with an expected status."""

    kind: Literal["http"] = "http"
    url: str
    """The address. `@PORT@` stands for the port of a gateway's candidate slot."""
    method: str | None = optional()
    """`GET` by default."""
    body: str | None = optional()
    """The body of the request."""
    bearer: str | None = optional()
    """The credential that is sent, as `SERVICE/NAME`."""
    expect_status: list[int] | None = optional()
    """`[200]` by default."""


class ModelsCheck(BaseCheck):
    """`/v1/models` lists exactly these names."""

    kind: Literal["models"] = "models"
    url: str
    """The address."""
    bearer: str | None = optional()
    """The credential that is sent, as `SERVICE/NAME`."""
    names: list[str]
    """The `id` of each entry."""
    others: bool | None = optional()
    """Whether more names are allowed. Not by default."""


class GpuCheck(BaseCheck):
    """A process of the unit holds GPU memory, and its journal does not say that layers are not on a
    GPU.
    """

    kind: Literal["gpu"] = "gpu"
    unit: str
    """The unit."""
    layers: Literal["some", "all"] | None = optional()
    """How many layers have to be on a GPU. `some` by default."""


class ChatCheck(BaseCheck):
    """A chat request is answered with one token; a stream ends in `[DONE]`."""

    kind: Literal["chat"] = "chat"
    url: str
    """The address."""
    bearer: str | None = optional()
    """The credential that is sent, as `SERVICE/NAME`."""
    model: str
    """The model that is asked."""
    stream: bool | None = optional()
    """Whether the answer is a stream. Not by default."""
    loaded_url: str | None = optional()
    """Of an engine that loads on demand, the address that lists what is loaded."""


class EmbeddingCheck(BaseCheck):
    """A request for an embedding is answered with one vector."""

    kind: Literal["embedding"] = "embedding"
    url: str
    """The address."""
    bearer: str | None = optional()
    """The credential that is sent, as `SERVICE/NAME`."""
    model: str
    """The model that is asked."""


class KeyCheck(BaseCheck):
    """A provider elsewhere accepts our key. 401 and 403 fail, any other status but 200 is reported
    as skipped.
    """

    kind: Literal["key"] = "key"
    url: str
    """The address."""
    bearer: str | None = optional()
    """The credential that is sent as bearer token, as `SERVICE/NAME`."""
    x_api_key: str | None = optional()
    """The credential that is sent in the header `x-api-key`, as `SERVICE/NAME`."""


class RedisCheck(BaseCheck):
    """PING succeeds, and SET, GET and DEL of a key."""

    kind: Literal["redis"] = "redis"
    host: str
    """The address of Redis."""
    port: int
    """Its port."""
    username: str
    """The user of its ACL."""
    password: str
    """The credential with the password, as `SERVICE/NAME`."""
    prefix: str | None = optional()
    """What the key begins with."""


Check = Annotated[
    UnitCheck
    | HttpCheck
    | ModelsCheck
    | GpuCheck
    | ChatCheck
    | EmbeddingCheck
    | KeyCheck
    | RedisCheck,
    Field(discriminator="kind"),
]


def unit_check(service: str, name: str = "") -> UnitCheck:
    """Return the check that a service runs. `name` is its name in a sentence."""
    unit = f"modelyard-{service}.service"
    return UnitCheck(
        name=f"{name or service} is running", service=service, units=[unit], hint=journal(unit)
    )


def answering(service: str, address: str, port: int, path: str) -> list[Check]:
    """Return the checks of a service that runs and answers requests for `path`."""
    url = f"http://{url_host(reach(address))}:{port}{path}"
    running = unit_check(service)
    hint = running.hint
    return [
        running,
        HttpCheck(
            name=f"{service} answers",
            service=service,
            url=url,
            timeout_s=ANSWER_TIMEOUT_S,
            hint=hint,
        ),
    ]


def redis_checks(listen: Sequence[str], port: int) -> list[Check]:
    """Return the checks of Redis: it runs, and the gateway's user can read and write."""
    running = unit_check("redis")
    return [
        running,
        RedisCheck(
            name="redis answers the gateway's user",
            service="redis",
            host=listen[0],
            port=port,
            username=GATEWAY_USER,
            password="redis/GATEWAY_PASSWORD",
            prefix=f"{REDIS_NAMESPACE}:",
            hint=f"{running.hint}; ss -ltnp 'sport = :{port}'",
        ),
    ]


def door_checks(listen: Sequence[str], port: int) -> list[Check]:
    """Return the checks of the front end that hold before any slot of the gateway runs."""
    base = f"http://{url_host(reach(listen[0]))}:{port}"
    hint = "the front end's path filter: /opt/modelyard/services/haproxy/current/config/haproxy.cfg"
    closed = (("POST", "/model/new"), ("GET", "/ui"))
    return [
        unit_check("haproxy", "the front end"),
        *(
            HttpCheck(
                name=f"{path} is closed from outside",
                service="haproxy",
                url=base + path,
                method=method,
                expect_status=[403, 404],
                hint=hint,
            )
            for method, path in closed
        ),
    ]
