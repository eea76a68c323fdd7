"""The plan of one host, as the compiler returns it (docs/plan.md is made from it)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from modelyard.kinds import IPAddress, Port, Strict
from modelyard.plan.checks import Check, optional
from modelyard.plan.parts import (
    AlertmanagerPart,
    EnginePart,
    ExporterPart,
    FirewallPart,
    GrafanaPart,
    HaproxyPart,
    LitellmPart,
    PrometheusPart,
    RedisPart,
    known,
)


class PlacedModel(Strict):
    """A model, or its share, on one GPU."""

    name: str
    """Public name."""
    vram_mib: float | None
    """MiB it takes there; `null` if that is not declared."""


class DeclaredGpu(Strict):
    """A GPU that `llm_gpus` declares, with what is placed on it."""

    index: int
    """Index on the host."""
    name: str | None
    """Its model."""
    uuid: str | None
    """UUID."""
    memory_mib: int
    """MiB of memory."""
    models: list[PlacedModel]
    """What is placed on it."""


class Foreign(Strict):
    """A program of the same kind that its own installer may have set up in the place of an
    engine.
    """

    unit: str
    """Its unit."""
    port: Port
    """Its port."""
    program: str
    """Name of its process."""
    adoption: str
    """How it can be taken over."""


class Listener(Strict):
    """An address and port that a service listens on."""

    service: str
    """Name of the service."""
    role: str
    """The role whose callers may connect."""
    unit: str
    """The unit that holds the port."""
    address: IPAddress
    """The address."""
    port: Port
    """The port."""
    models: list[str]
    """Public names that are served there, or pools."""
    gpus: list[int | str]
    """GPUs of the service."""
    variable: str
    """The variable that sets the port."""
    foreign: Foreign | None = optional()
    """What else may be in its place."""


class Hub(Strict):
    """Where repositories of models are fetched from."""

    endpoint: str
    """Base URL."""
    token: str | None
    """Name of the secret that holds the token."""


class Demand(Strict):
    """What preflight has to know of a model to place it on the GPUs that a host really has."""

    service: str
    """The service that serves it."""
    model: str
    """Public name."""
    role: str
    """Role of the engine."""
    gpu: bool
    """Whether the engine may use GPUs."""
    gpus: list[int | str]
    """GPUs it is placed on already."""
    vram_mib: float | None
    """MiB that the catalogue declares."""
    source: dict[str, Any] | None
    """Where its file comes from; `null` if the engine pulls it."""
    context_length: int | None
    """Tokens of context that the process keeps for it, of all requests at once."""
    slots: int
    """Requests that it answers at once, each with its share of these."""
    options: dict[str, Any]
    """Options of the engine, and what decides memory beside them."""
    max_loaded: int | None
    """How many models the process holds at once; `null` for all."""
    share: float | None
    """The part of each GPU's memory that its process reserves; `null` if it takes what its models
    need."""
    width: int | None
    """How many GPUs its process uses; `null` without GPUs."""
    contexts: list[list[int]]
    """The engine's own default context: `[MiB of all GPUs, tokens]`, the largest memory first."""
    unestimated: str | None
    """Why its memory cannot be estimated from its file."""


class HostPlan(Strict):
    """What runs on one host."""

    host: str
    """Name in the inventory."""
    gpus: list[DeclaredGpu]
    """Declared GPUs."""
    services: list[Listener]
    """Everything that listens on this host, for preflight and `plan`."""
    hugging_face: Hub
    """Where repositories of models are fetched from."""
    demands: list[Demand]
    """Models that preflight places."""
    firewall: FirewallPart
    """For role firewall."""
    redis: RedisPart | None
    """For role redis."""
    engines: list[EnginePart]
    """For the roles of engines: one part each."""
    litellm: LitellmPart | None
    """For role litellm."""
    haproxy: HaproxyPart | None
    """For role haproxy."""
    exporters: list[ExporterPart]
    """For role exporter: one part per exporter."""
    prometheus: PrometheusPart | None = None
    """For role prometheus."""
    alertmanager: AlertmanagerPart | None = None
    """For role alertmanager."""
    grafana: GrafanaPart | None = None
    """For role grafana."""
    checks: list[Check]
    """What smoke runs: the checks of all services of this host, those through the front end, and
    what is left out."""

    def parts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every service with what its host knows of it."""
        for service, part in self._services():
            yield service, known(service, part)

    def _services(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every service with the part of the plan that its role records for it."""
        if self.firewall.rules:
            yield "firewall", self.firewall.model_dump()
        for exporter in self.exporters:
            yield exporter.service, exporter.model_dump()
        if self.redis:
            yield "redis", self.redis.model_dump()
        for engine in self.engines:
            build = engine.model_dump(exclude={"instances"})
            for instance in engine.instances:
                yield instance.service, {"build": build, "instance": instance.model_dump()}
        sections: dict[str, BaseModel | None] = {
            "litellm": self.litellm,
            "haproxy": self.haproxy,
            "prometheus": self.prometheus,
            "alertmanager": self.alertmanager,
            "grafana": self.grafana,
        }
        for service, section in sections.items():
            if section:
                yield service, section.model_dump()
