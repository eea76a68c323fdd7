"""What is measured: the parts of a host's plan that are Prometheus, Alertmanager, Grafana and
exporters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelyard.catalogue.monitoring import Monitoring
from modelyard.compiler.listeners import Listener
from modelyard.engines import ENGINES
from modelyard.names import LOOPBACK, MONITOR_USER, REDIS_MONITOR_PASSWORD, url_host
from modelyard.plan.checks import ChatCheck
from modelyard.plan.parts import (
    AlertmanagerPart,
    EnginePart,
    ExporterPart,
    GrafanaPart,
    InstancePart,
    Job,
    NoSettings,
    Probe,
    Probing,
    PrometheusPart,
    RedisPart,
    RedisTarget,
    Secrets,
    Target,
)
from modelyard.plan.scope import Scope

Engines = Mapping[str, Sequence[EnginePart]]
"""By host, the parts of its engines."""


@dataclass(frozen=True, slots=True)
class MonitoringParts:
    """Makes what the plans say of monitoring."""

    scope: Scope
    settings: Monitoring

    # -- exporters ---------------------------------------------------------------------------------

    def exporters(
        self, listening: Sequence[Listener], redis: RedisPart | None, engines: Sequence[EnginePart]
    ) -> list[ExporterPart]:
        """Return the parts of role exporter on a host, given what listens there and the rest of its
        plan.
        """
        return [
            self.exporter(listener, redis, engines)
            for listener in listening
            if listener.service.startswith("exporter@")
        ]

    def exporter(
        self, listener: Listener, redis: RedisPart | None, engines: Sequence[EnginePart]
    ) -> ExporterPart:
        """Return one exporter."""
        kind = listener.service.removeprefix("exporter@")
        settings: RedisTarget | Probing | NoSettings = NoSettings()
        secrets: Secrets = {}
        if kind == "host":
            probes = list(_probes(engines)) if self.settings.probe_interval_s else []
            settings = Probing(
                probe_interval_s=self.settings.probe_interval_s or None, probes=probes
            )
            secrets = {probe.credential: probe.credential for probe in probes if probe.credential}
        elif kind == "redis":
            assert redis is not None, "this exporter is where Redis is"
            settings = RedisTarget(
                address=f"{url_host(redis.listen[0])}:{redis.port}", user=MONITOR_USER
            )
            secrets = {"PASSWORD": REDIS_MONITOR_PASSWORD}
        return ExporterPart.model_validate(
            {
                "kind": kind,
                "listen": list(listener.addresses),
                "port": listener.port,
                "settings": settings,
                "secrets": secrets,
            }
        )

    # -- Prometheus --------------------------------------------------------------------------------

    def prometheus(self, engines: Engines) -> PrometheusPart:
        """Return the part of role prometheus."""
        scrape = list(self.scrape(engines))
        credentials = dict.fromkeys(job.credential for job in scrape if job.credential)
        return PrometheusPart(
            **self.settings.prometheus.model_dump(),
            alertmanagers=[f"{LOOPBACK}:{self.settings.alertmanager.port}"],
            scrape=scrape,
            secrets={name: name for name in credentials},
        )

    def scrape(self, engines: Engines) -> Iterator[Job]:
        """Yield what is scraped, by job. Engines of one kind with keys of their own are several
        entries of one job.
        """
        ports, mine = self.settings.exporters, self.settings
        topology = self.scope.topology

        def at(port: int, hosts: Sequence[str | None], service: str) -> list[Target]:
            return [
                Target(
                    address=f"{url_host(topology.metrics_address(host))}:{port}",
                    labels={"host": host, "service": service},
                )
                for host in hosts
                if host is not None
            ]

        yield Job(
            job="prometheus", targets=at(mine.prometheus.port, [topology.monitoring], "prometheus")
        )
        yield Job(
            job="alertmanager",
            targets=at(mine.alertmanager.port, [topology.monitoring], "alertmanager"),
        )
        yield Job(
            job="litellm", targets=at(ports.gateway, topology.gateways, "litellm"), path="/litellm"
        )
        yield Job(job="haproxy", targets=at(ports.gateway, topology.gateways, "haproxy"))
        yield Job(job="node", targets=at(ports.node, topology.hosts, "exporter@node"))
        # What it reports about a service has the name of that one instead (`honor_labels`).
        yield Job(job="host", targets=at(ports.host, topology.hosts, "exporter@host"))
        if topology.redis is not None:
            yield Job(job="redis", targets=at(ports.redis, [topology.redis], "redis"))
        yield from self.scrape_engines(engines)

    def scrape_engines(self, engines: Engines) -> Iterator[Job]:
        """Yield the jobs of engines: those with metrics by key, then those that are probed, by
        module.
        """
        probed: dict[str, list[Target]] = {}
        for engine in ENGINES:
            by_key: dict[str | None, list[Target]] = {}
            for host, instance in _instances(engines, engine.role):
                address = f"{url_host(instance.listen[0])}:{instance.port}"
                if engine.metrics is not None:
                    key = instance.secrets.get("API_KEY") if engine.metrics.keyed else None
                    by_key.setdefault(key, []).append(_target(host, instance, address))
                if engine.probe is not None:
                    url = f"http://{address}{engine.probe.path}"
                    probed.setdefault(engine.probe.module, []).append(_target(host, instance, url))
            for key, targets in by_key.items():
                yield Job(job=engine.role, targets=targets, credential=key)
        prober = f"{LOOPBACK}:{self.settings.exporters.blackbox}"
        for module, targets in probed.items():
            yield Job(job="probe", targets=targets, prober=prober, module=module)

    # -- Alertmanager, Grafana ---------------------------------------------------------------------

    def alertmanager(self) -> AlertmanagerPart:
        """Return the part of role alertmanager."""
        return AlertmanagerPart(**dict(self.settings.alertmanager))

    def grafana(self) -> GrafanaPart | None:
        """Return the part of role grafana; None without an archive."""
        release = self.scope.versions.grafana
        if release is None:
            return None
        return GrafanaPart(
            **dict(self.settings.grafana),
            version=release.version,
            source=release.source.of(release.version),
            prometheus_url=f"http://{LOOPBACK}:{self.settings.prometheus.port}",
            scrape_interval_s=self.settings.prometheus.scrape_interval_s,
        )


def _instances(engines: Engines, role: str) -> Iterator[tuple[str, InstancePart]]:
    for host, parts in engines.items():
        for part in parts:
            if part.role == role:
                for instance in part.instances:
                    yield host, instance


def _target(host: str, instance: InstancePart, address: str) -> Target:
    return Target(address=address, labels={"host": host, "service": instance.service})


def _probes(engines: Sequence[EnginePart]) -> Iterator[Probe]:
    """Yield a streamed request for every model of a host that can be asked, as its checks tell."""
    for part in engines:
        for instance in part.instances:
            for check in instance.checks:
                if isinstance(check, ChatCheck) and not check.skip:
                    yield Probe(
                        service=instance.service,
                        model=check.model,
                        url=check.url,
                        credential=instance.secrets.get("API_KEY"),
                        # A probe loads no model, not even one that shall stay loaded.
                        loaded_url=check.loaded_url,
                    )
