"""What a role is given of the plan of its host: one model per role.

A part has the section of the catalogue as it is, so a new key of a section reaches the template of
the role without another edit. Every default is that of the catalogue, so a role can be used alone
(`part`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError

from modelyard.catalogue import gateway, monitoring
from modelyard.catalogue.clients import Client
from modelyard.catalogue.versions import LitellmVersion
from modelyard.engines import ROLES
from modelyard.engines.base import DERIVED
from modelyard.kinds import IPAddress, Port, Positive, Strict, WholeSeconds
from modelyard.names import (
    GRAFANA_PASSWORD,
    GRAFANA_SECRET_KEY,
    LOOPBACK,
    MASTER_KEY,
    REDIS_PASSWORD,
)
from modelyard.plan.checks import Check, answering, door_checks, redis_checks, unit_check

Secrets = dict[str, str]
"""By name on the host, the name of a secret. Values are never in a plan."""

Unrecorded = Mapping[str, "Unrecorded | None"]
"""Keys that are left out, and below them; `*` stands for every key."""


class Part(Strict):
    """What a role is given."""

    UNRECORDED: ClassVar[Unrecorded] = {"checks": None}
    """What the host does not record: names of secrets that are not its own, and what follows from
    the rest."""
    BESIDE: ClassVar[frozenset[str]] = frozenset()
    """What the host has beside the release, which therefore does not record it."""


class RedisPart(gateway.Redis, Part):
    """Redis, which the gateways share."""

    listen: list[IPAddress] = Field([LOOPBACK])
    """Addresses to listen on."""
    secrets: Secrets = Field({"GATEWAY_PASSWORD": REDIS_PASSWORD})
    """By name on the host, the name of a secret. With `MONITOR_PASSWORD` there is a user `monitor`,
    who reads figures and no keys."""
    checks: list[Check] = Field(
        default_factory=lambda part: redis_checks(part["listen"], part["port"])
    )
    """What a new release has to pass."""


class LitellmPart(LitellmVersion, Part):
    """LiteLLM, the gateway, behind its front end."""

    UNRECORDED: ClassVar[Unrecorded] = {
        "checks": None,
        "public_names": None,
        # They follow from the document and from `limits`.
        "rules": None,
        "clients": {"*": {"secret": None}},
    }
    BESIDE: ClassVar[frozenset[str]] = frozenset({"clients"})

    slots: gateway.Slots = gateway.Slots()
    """Ports of the two slots."""
    workers: int = gateway.Gateway().workers
    """Processes per slot."""
    timeouts: gateway.SwitchTimeouts = gateway.SwitchTimeouts()
    """How long a change of the gateway may take."""
    limits: gateway.GuardLimits = gateway.GuardLimits()
    """What one request and one worker may take."""
    document: dict[str, Any] = Field({})
    """LiteLLM's configuration."""
    rules: dict[str, Any] = Field(
        default_factory=lambda part: {
            "public_names": [],
            "text_only": [],
            "paths": {},
            "windows": {},
            "constraints": {},
            "cached": False,
            "limits": part["limits"].model_dump(),
            "pools": None,
            "health": {},
            "hidden": [],
            "redis": None,
        }
    )
    """The rules of the guard in front of LiteLLM: `public_names` are what clients can ask for,
    `text_only` those of them that read nothing but text, `cached` whether answers are kept,
    `limits` as above, `pools` how the URLs of engines of ours begin, `health` by the id of a
    deployment the URL of its engine's health, `hidden` what no answer may name, `redis` where
    requests of clients are counted."""
    secrets: Secrets = Field({MASTER_KEY: MASTER_KEY})
    """By environment variable, the name of a secret."""
    clients: dict[str, Client] = Field({})
    """Applications with keys of their own. A change of these restarts nothing."""
    public_names: list[str] = Field([])
    """Names that clients can ask for."""
    checks: list[Check] = Field([])
    """What a candidate has to pass, at the port `@PORT@`."""


class PoolServer(Strict):
    """One host of a pool."""

    address: IPAddress
    """Where its engine listens."""
    port: Port
    """The engine's port."""


class PoolPart(Strict):
    """The hosts that share the requests for one process of an engine."""

    health: str | None = None
    """A path of the engine that answers 200 while it is well. Without one a host is up while
    connections to it succeed."""
    max_parallel: Positive | None = None
    """Requests that one host gets at once; what is over it waits. None: as many as come."""
    queue_s: WholeSeconds = gateway.Timeouts().queue_s
    """A request waits this long for its turn."""
    holds: bool = False
    """Requests wait as long for a host that is up, if one was within that time. Otherwise they are
    refused at once, for the next step of the chain."""
    servers: dict[str, PoolServer]
    """By its name, the inventory's, each host."""


class HaproxyPart(Part):
    """HAProxy, the front end of the gateway."""

    listen: list[IPAddress] = gateway.Gateway().listen
    """Addresses to listen on."""
    port: Port = gateway.Gateway().port
    """Port of clients."""
    slots: gateway.Slots = gateway.Slots()
    """Ports of the gateway's slots, on loopback."""
    pool_port: Port = gateway.Gateway().pool_port
    """Port on loopback at which the gateway reaches engines."""
    pools: dict[str, PoolPart] = Field({})
    """The engines that it reaches there. The name of a pool is that of HAProxy's backend, and the
    first component of the paths that lead there."""
    timeouts: gateway.FrontEndTimeouts = gateway.FrontEndTimeouts()
    """How long it waits."""
    limits: gateway.FrontEndLimits = gateway.FrontEndLimits()
    """What one request and one address may take."""
    metrics_listen: list[IPAddress] = Field([])
    """Addresses that serve metrics to Prometheus: `/metrics` its own, `/litellm` those of the live
    slot."""
    metrics_port: Port = monitoring.ExporterPorts().gateway
    """Their port."""
    checks: list[Check] = Field(
        default_factory=lambda part: door_checks(part["listen"], part["port"])
    )
    """What a new release has to pass. The front end goes live before any slot does."""


class Rule(Strict):
    """Who may connect to one port."""

    service: str
    """The service that listens there."""
    port: Port
    """The port. Rules with the same port are one, with the addresses of all."""
    from_: list[IPAddress] = Field(alias="from", serialization_alias="from")
    """Addresses that may connect. The host itself always may."""

    model_config = ConfigDict(serialize_by_alias=True)


class FirewallPart(Part):
    """The firewall's table, which guards what listens beyond loopback."""

    rules: list[Rule] = Field([])
    """One rule per service. Without any the table is removed."""
    checks: list[Check] = Field([unit_check("firewall")])
    """What a new release has to pass."""


class Target(Strict):
    """One target of a scrape job."""

    address: str
    """`HOST:PORT`, or with a prober a URL."""
    labels: dict[str, str]
    """Labels of all its metrics. `host` becomes `instance`, too."""


class Job(Strict):
    """Targets that are scraped alike."""

    job: str
    """Name of the job, the kind of its targets. Several entries may have one name."""
    path: str = "/metrics"
    """Path of the metrics."""
    credential: str | None = None
    """The credential that is sent as bearer token: a name in `secrets`."""
    prober: str | None = None
    """`HOST:PORT` of a blackbox exporter that probes the targets."""
    module: str | None = None
    """Module of the prober."""
    targets: list[Target]
    """The targets."""


def _itself(port: int) -> Job:
    """Return the job of a Prometheus that scrapes nothing else."""
    target = Target(
        address=f"{LOOPBACK}:{port}", labels={"host": "localhost", "service": "prometheus"}
    )
    return Job(job="prometheus", targets=[target])


class PrometheusPart(monitoring.PrometheusSettings, Part):
    """Prometheus, which scrapes, stores and evaluates the rules."""

    listen: list[IPAddress] = Field([LOOPBACK])
    """The address to listen on, one."""
    alertmanagers: list[str] = Field([f"{LOOPBACK}:{monitoring.AlertmanagerSettings().port}"])
    """Where alerts are sent, each as `HOST:PORT`."""
    scrape: list[Job] = Field(default_factory=lambda part: [_itself(part["port"])])
    """What is scraped. By default Prometheus itself."""
    secrets: Secrets = Field({})
    """By name on the host, the name of a secret: the tokens that targets want."""
    checks: list[Check] = Field(
        default_factory=lambda part: answering(
            "prometheus", part["listen"][0], part["port"], "/-/ready"
        )
    )
    """What a new release has to pass."""


def _alert_secrets(part: Mapping[str, Any]) -> Secrets:
    """Return the secrets of the receivers."""
    webhook, email = part["webhook"], part["email"]
    found = {
        "WEBHOOK_TOKEN": webhook.token_env if webhook else None,
        "EMAIL_PASSWORD": email.password_env if email else None,
    }
    return {name: secret for name, secret in found.items() if secret}


class AlertmanagerPart(monitoring.AlertmanagerSettings, Part):
    """Alertmanager, which sends alerts to the receivers."""

    listen: list[IPAddress] = Field([LOOPBACK])
    """Addresses to listen on."""
    secrets: Secrets = Field(default_factory=_alert_secrets)
    """By name on the host, the name of a secret: those of the receivers."""
    checks: list[Check] = Field(
        default_factory=lambda part: answering(
            "alertmanager", part["listen"][0], part["port"], "/-/ready"
        )
    )
    """What a new release has to pass."""


class GrafanaPart(monitoring.GrafanaSettings, Part):
    """Grafana, which shows dashboards."""

    version: str
    """Version of its archive."""
    source: dict[str, str]
    """Its archive: `url` or `path`, and `sha256` or `checksums`."""
    listen: list[IPAddress] = Field([LOOPBACK])
    """The address to listen on, one."""
    prometheus_url: str = f"http://{LOOPBACK}:{monitoring.PrometheusSettings().port}"
    """Address of Prometheus."""
    scrape_interval_s: int = monitoring.PrometheusSettings().scrape_interval_s
    """Seconds between two scrapes of Prometheus. Rates are taken over four of them at least."""
    secrets: Secrets = Field({"ADMIN_PASSWORD": GRAFANA_PASSWORD, "SECRET_KEY": GRAFANA_SECRET_KEY})
    """By name on the host, the name of a secret."""
    checks: list[Check] = Field(
        default_factory=lambda part: answering(
            "grafana", part["listen"][0], part["port"], "/api/health"
        )
    )
    """What a new release has to pass."""


class Probe(Strict):
    """A model that is asked for a few tokens, to measure the time to the first."""

    service: str
    """The service that serves the model."""
    model: str
    """The name to ask for."""
    url: str
    """Address of chat completions."""
    credential: str | None
    """The credential that is sent: a name in the exporter's `secrets`."""
    loaded_url: str | None
    """Address that lists what is loaded. A model that it does not list is not probed."""


class NoSettings(Strict):
    """Settings of an exporter that has none: `node`, `blackbox`."""


class RedisTarget(Strict):
    """Settings of the exporter `redis`."""

    address: str
    """`HOST:PORT` of Redis."""
    user: str
    """The user of its ACL."""


class Probing(Strict):
    """Settings of the exporter `host`."""

    probe_interval_s: int | None
    """Seconds between two rounds of probes; without it none are made."""
    probes: list[Probe]
    """The models to probe, one after the other."""


class ExporterPart(Part):
    """One exporter: of the system (`node`), of our own services (`host`), of Redis, and the prober
    (`blackbox`).
    """

    kind: Literal["node", "host", "redis", "blackbox"]
    """What it measures."""
    service: str = Field(default_factory=lambda part: f"exporter@{part['kind']}")
    """Name of the service."""
    listen: list[IPAddress] = Field([LOOPBACK])
    """The address to listen on, one."""
    port: Port = Field(
        default_factory=lambda part: getattr(monitoring.ExporterPorts(), part["kind"])
    )
    """Its port."""
    settings: RedisTarget | Probing | NoSettings = NoSettings()
    """What it needs beside an address."""
    secrets: Secrets = Field({})
    """By name on the host, the name of a secret."""
    checks: list[Check] = Field(
        default_factory=lambda part: answering(
            part["service"],
            part["listen"][0],
            part["port"],
            "/-/healthy" if part["kind"] == "blackbox" else "/metrics",
        )
    )
    """What a new release has to pass."""


class PoolMember(Strict):
    """A process in its pool: what drains it and puts it back."""

    name: str
    """Name of the pool."""
    server: str
    """Name of its host there."""


class InstancePart(Part):
    """One process of an engine. An engine adds keys of its own (src/modelyard/engines)."""

    model_config = ConfigDict(extra="allow")

    service: str
    """Name of the service."""
    model: str
    """Public name of the model, or the name of the provider whose models it serves."""
    listen: list[IPAddress]
    """The address to listen on, one."""
    port: Port
    """Its port."""
    pool: PoolMember
    """Whose requests it answers."""
    gpus: list[int | str]
    """GPUs it is given, by index or UUID. Empty: preflight places it."""
    conflicts: list[str]
    """Units that must not run beside it."""
    secrets: Secrets
    """By name on the host, the name of a secret: the key that clients of the engine send."""
    ready_timeout_s: int
    """Seconds it may take until it is ready, before the former release is restored."""
    model_margin_mib: int
    """MiB that stay free on the disk beside a model that is fetched."""
    checks: list[Check]
    """What a new release has to pass."""


class EnginePart(Part):
    """The processes of one engine, and what its program is: keys of its entry in `llm_versions`."""

    model_config = ConfigDict(extra="allow")

    role: str
    """The role."""
    version: str | None
    """Version of the program."""
    instances: list[InstancePart]
    """The processes."""


ENGINE_UNRECORDED: Unrecorded = {
    "build": {"role": None, "instances": None},
    "instance": {"checks": None, **dict.fromkeys(DERIVED)},
}
"""The same for the release of one process of an engine, which records `{build: EnginePart,
instance: InstancePart}`."""

PARTS: dict[str, type[Part]] = {
    "redis": RedisPart,
    "litellm": LitellmPart,
    "haproxy": HaproxyPart,
    "firewall": FirewallPart,
    "prometheus": PrometheusPart,
    "alertmanager": AlertmanagerPart,
    "grafana": GrafanaPart,
    "exporter": ExporterPart,
}
"""By role, what it is given."""


def recorded(service: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the release of a service records of its part. One that is none of ours records
    everything.
    """
    role = service.partition("@")[0]
    beside = PARTS[role].BESIDE if role in PARTS else ()
    return {key: value for key, value in known(service, part).items() if key not in beside}


def known(service: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a host knows of a service's part, in its release or beside it: what `plan`
    compares.
    """
    role = service.partition("@")[0].replace("-", "_")
    if role in ROLES:
        return _without(part, ENGINE_UNRECORDED)
    if role == "exporter":
        part = part.get("instance", part)  # as earlier versions recorded it
    return _without(part, PARTS[role].UNRECORDED if role in PARTS else {})


def _without(part: Mapping[str, Any], unrecorded: Unrecorded) -> dict[str, Any]:
    found = {}
    for key, value in part.items():
        below = unrecorded.get(key, unrecorded.get("*", {}))
        if below is not None:
            found[key] = _without(value, below) if below and isinstance(value, Mapping) else value
    return found


class PartError(ValueError):
    """A part that no role can use; the text says which keys are wrong."""


def part(role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a role is given where it is used alone: `given`, with the defaults of all other
    keys.

    Raises PartError for a role without a part, an unknown key, a wrong value or a missing key.
    """
    if role not in PARTS:
        raise PartError(f"no role {role!r} has a part in the plan; these do: {', '.join(PARTS)}")
    try:
        return PARTS[role].model_validate(given).model_dump()
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
        raise PartError(f"the part of role {role} is not valid: {'; '.join(lines)}") from error
