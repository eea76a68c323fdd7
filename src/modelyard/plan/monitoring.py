"""What is measured: the part of each host's plan that is Prometheus, Alertmanager, Grafana and exporters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.versions import Versions
from modelyard.engines import ENGINES
from modelyard.names import (
    GRAFANA_PASSWORD,
    GRAFANA_SECRET_KEY,
    LOOPBACK,
    MONITOR_USER,
    REDIS_MONITOR_PASSWORD,
    journal,
    url_host,
)

Plans = Mapping[str, Mapping[str, Any]]

WATCHERS = ("prometheus", "alertmanager", "grafana")
"""Roles that only the host of Prometheus has, each a service of the same name."""

ANSWER_TIMEOUT_S = 15
"""Our own exporter waits 8 s for a driver that hangs before it tells the rest."""


def checks_of(service: str, url: str) -> list[dict[str, Any]]:
    """A part of the monitoring runs, and answers."""
    unit = f"modelyard-{service}.service"
    common = {"service": service, "hint": journal(unit)}
    return [
        {"name": f"{service} is running", "kind": "unit", "units": [unit], **common},
        {"name": f"{service} answers", "kind": "http", "url": url, "timeout_s": ANSWER_TIMEOUT_S, **common},
    ]


@dataclass(frozen=True, slots=True)
class Watch:
    """Who watches whom. `host` has Prometheus and what belongs to it."""

    host: str
    settings: Monitoring
    versions: Versions | None
    addresses: Mapping[str, str]
    gateways: Sequence[str]
    redis: str | None

    def address(self, host: str) -> str:
        """What an exporter of a host listens on: nobody but Prometheus asks it."""
        return LOOPBACK if host == self.host else self.addresses[host]

    def at(self, host: str, port: int) -> str:
        return f"{url_host(self.address(host))}:{port}"

    # -- exporters ---------------------------------------------------------------------------------------

    def exporters(self, host: str, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The instances of role exporter on a host, given the rest of its plan."""
        ports = self.settings.exporters
        instances = [self.exporter(host, "node", ports.node, {}, {})]
        probes = list(_probes(plan)) if self.settings.probe_interval_s else []
        secrets = {probe["credential"]: probe["credential"] for probe in probes if probe["credential"]}
        settings = {"probe_interval_s": self.settings.probe_interval_s or None, "probes": probes}
        instances.append(self.exporter(host, "host", ports.host, settings, secrets))
        if host == self.redis:
            address = f"{url_host(plan['redis']['listen'][0])}:{plan['redis']['port']}"
            redis = {"address": address, "user": MONITOR_USER}
            instances.append(self.exporter(host, "redis", ports.redis, redis, {"PASSWORD": REDIS_MONITOR_PASSWORD}))
        if host == self.host:
            instances.append(self.exporter(host, "blackbox", ports.blackbox, {}, {}))
        return instances

    def exporter(
        self, host: str, kind: str, port: int, settings: dict[str, Any], secrets: dict[str, str]
    ) -> dict[str, Any]:
        service = f"exporter@{kind}"
        path = "/-/healthy" if kind == "blackbox" else "/metrics"
        return {
            "service": service,
            "kind": kind,
            "listen": [self.address(host)],
            "port": port,
            "settings": settings,
            "secrets": secrets,
            "checks": checks_of(service, f"http://{self.at(host, port)}{path}"),
        }

    # -- Prometheus --------------------------------------------------------------------------------------

    def prometheus(self, plans: Plans) -> dict[str, Any]:
        settings = self.settings.prometheus
        scrape = list(self.scrape(plans))
        credentials = dict.fromkeys(job["credential"] for job in scrape if job["credential"])
        return {
            "listen": [LOOPBACK],
            "port": settings.port,
            "scrape_interval_s": settings.scrape_interval_s,
            "retention_days": settings.retention_days,
            "retention_gib": settings.retention_gib,
            "alertmanagers": [f"{LOOPBACK}:{self.settings.alertmanager.port}"],
            "scrape": scrape,
            "secrets": {name: name for name in credentials},
            "checks": checks_of("prometheus", f"http://{LOOPBACK}:{settings.port}/-/ready"),
        }

    def scrape(self, plans: Plans) -> Iterator[dict[str, Any]]:
        """What is asked, by job. Engines of one kind with keys of their own are several entries of one job."""
        ports, mine = self.settings.exporters, self.settings

        def job(name: str, targets: list[dict[str, Any]], path: str = "/metrics", **more: Any) -> dict[str, Any]:
            return {
                "job": name,
                "path": path,
                "credential": None,
                "prober": None,
                "module": None,
                "targets": targets,
                **more,
            }

        def at(port: int, hosts: Sequence[str], **labels: str) -> list[dict[str, Any]]:
            return [{"address": self.at(host, port), "labels": {"host": host, **labels}} for host in hosts]

        yield job("prometheus", at(mine.prometheus.port, [self.host], service="prometheus"))
        yield job("alertmanager", at(mine.alertmanager.port, [self.host], service="alertmanager"))
        yield job("litellm", at(ports.gateway, self.gateways, service="litellm"), "/litellm")
        yield job("haproxy", at(ports.gateway, self.gateways, service="haproxy"))
        yield job("node", at(ports.node, list(plans), service="exporter@node"))
        # What it tells of a service has the name of that one instead (`honor_labels`).
        yield job("host", at(ports.host, list(plans), service="exporter@host"))
        if self.redis is not None:
            yield job("redis", at(ports.redis, [self.redis], service="redis"))
        probed: dict[str, list[dict[str, Any]]] = {}
        for engine in ENGINES:
            by_key: dict[str | None, list[dict[str, Any]]] = {}
            for host, instance in _instances(plans, engine.role):
                if engine.metrics is not None:
                    key = instance["secrets"].get("API_KEY") if engine.metrics.keyed else None
                    by_key.setdefault(key, []).append(_target(host, instance, _address(instance)))
                if engine.probe is not None:
                    url = f"http://{_address(instance)}{engine.probe.path}"
                    probed.setdefault(engine.probe.module, []).append(_target(host, instance, url))
            for key, targets in by_key.items():
                yield job(engine.role, targets, credential=key)
        for module, targets in probed.items():
            yield job("probe", targets, prober=f"{LOOPBACK}:{ports.blackbox}", module=module)

    # -- Alertmanager, Grafana ---------------------------------------------------------------------------

    def alertmanager(self) -> dict[str, Any]:
        settings = self.settings.alertmanager
        receiver: dict[str, Any] = {}
        if settings.webhook:
            receiver["webhook"] = {"url": settings.webhook.url, "secret": settings.webhook.token_env}
        if (mail := settings.email) is not None:
            receiver["email"] = {
                "to": mail.to,
                "from": mail.sender,
                "smarthost": mail.smarthost,
                "username": mail.username,
                "secret": mail.password_env,
            }
        return {
            "listen": [LOOPBACK],
            "port": settings.port,
            "receiver": {name: _without_none(part) for name, part in receiver.items()} or None,
            "checks": checks_of("alertmanager", f"http://{LOOPBACK}:{settings.port}/-/ready"),
        }

    def grafana(self) -> dict[str, Any] | None:
        version = self.versions.grafana if self.versions else None
        if version is None:
            return None
        port = self.settings.grafana.port
        return {
            "version": version.version,
            "source": version.source.of(version.version),
            "listen": [LOOPBACK],
            "port": port,
            "prometheus_url": f"http://{LOOPBACK}:{self.settings.prometheus.port}",
            "scrape_interval_s": self.settings.prometheus.scrape_interval_s,
            "secrets": {"ADMIN_PASSWORD": GRAFANA_PASSWORD, "SECRET_KEY": GRAFANA_SECRET_KEY},
            "checks": checks_of("grafana", f"http://{LOOPBACK}:{port}/api/health"),
        }


def _without_none(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}


def _instances(plans: Plans, role: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for host, plan in plans.items():
        for engine in plan["engines"]:
            if engine["role"] == role:
                for instance in engine["instances"]:
                    yield host, instance


def _address(instance: Mapping[str, Any]) -> str:
    return f"{url_host(instance['listen'][0])}:{instance['port']}"


def _target(host: str, instance: Mapping[str, Any], address: str) -> dict[str, Any]:
    return {"address": address, "labels": {"host": host, "service": instance["service"]}}


def _probes(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A streamed request to every engine of a host, by its checks: they know whom to ask, and who cannot be."""
    for engine in plan["engines"]:
        for instance in engine["instances"]:
            for check in instance["checks"]:
                if check["kind"] == "chat" and not check.get("skip"):
                    yield {
                        "service": instance["service"],
                        "model": check["model"],
                        "url": check["url"],
                        "credential": instance["secrets"].get("API_KEY"),
                        # Not even a model that shall stay loaded is loaded by a probe.
                        "loaded_url": check.get("loaded_url"),
                    }
