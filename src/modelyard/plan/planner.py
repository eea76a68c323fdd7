"""One plan per host, in the shape of docs/architecture.md. Roles read it, and never the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.catalogue.versions import HuggingFace
from modelyard.names import LOOPBACK
from modelyard.plan.engines import EngineParts
from modelyard.plan.gateway import GatewayParts
from modelyard.plan.listeners import listeners
from modelyard.plan.monitoring import Watch
from modelyard.plan.scope import Scope


class Planner:
    """Makes the plans of all hosts."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.engines = EngineParts(scope)
        self.gateway = GatewayParts(scope)

    def plans(self) -> dict[str, dict[str, Any]]:
        plans = {host: self.plan(host) for host in self.scope.topology.hosts}
        if self.scope.watch:
            self.add_monitoring(plans, self.scope.watch)
        return plans

    def add_monitoring(self, plans: Mapping[str, dict[str, Any]], watch: Watch) -> None:
        """What the host of Prometheus gets once all other parts are known, because that is what it watches."""
        plan = plans[watch.host]
        parts: dict[str, dict[str, Any] | None] = {
            "prometheus": watch.prometheus(plans),
            "alertmanager": watch.alertmanager(),
            "grafana": watch.grafana(),
        }
        for role, part in parts.items():
            if part is None:
                continue
            plan[role] = part
            plan["services"] += listeners(role, role, part["listen"], part["port"], f"llm_monitoring.{role}.port")
            plan["checks"] += part["checks"]

    def plan(self, host: str) -> dict[str, Any]:
        """The plan of one host."""
        redis = self.gateway.redis(host)
        engines = self.engines.parts(host)
        litellm = self.gateway.litellm(host)
        haproxy = self.gateway.haproxy(host)
        instances = [instance for engine in engines for instance in engine["instances"]]
        exporters = self.scope.watch.exporters(host, {"redis": redis, "engines": engines}) if self.scope.watch else []
        services = self.services(host, redis, engines, exporters)
        checks: list[dict[str, Any]] = []
        if redis:
            checks += redis["checks"]
        for instance in instances:
            checks += instance["checks"]
        if haproxy:
            # Smoke asks the live gateway through its door; the slots' own checks belong to a switch.
            checks += [check for check in (litellm or {"checks": []})["checks"] if check["kind"] == "unit"]
            checks += haproxy["checks"] + self.gateway.through_the_door() + self.gateway.keys(host)
            checks += self.gateway.skipped()
        checks += [check for exporter in exporters for check in exporter["checks"]]
        return {
            "host": host,
            "gpus": [
                {
                    "index": load.index,
                    "name": load.gpu.name,
                    "uuid": load.gpu.uuid,
                    "memory_mib": load.gpu.memory_mib,
                    "models": [{"name": model, "vram_mib": share} for model, share in load.models],
                }
                for load in self.scope.placement.loads.get(host, [])
            ],
            "services": services,
            "hugging_face": self.hugging_face(),
            "demands": self.engines.demands(host),
            "after": self.engines.after(host),
            "firewall": {"rules": self.firewall(host, services)},
            "redis": redis,
            "engines": engines,
            "litellm": litellm,
            "haproxy": haproxy,
            "exporters": exporters,
            "prometheus": None,
            "alertmanager": None,
            "grafana": None,
            "checks": checks,
        }

    def firewall(self, host: str, services: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Who may call what listens beyond loopback here. The door is for everybody who reaches it."""
        gateways = [gateway for gateway in self.scope.topology.gateways if gateway != host]
        watching = [self.scope.topology.monitoring] if self.scope.topology.monitoring else []
        callers = {"redis": gateways, "exporter": watching}
        return [
            {
                "service": service["service"],
                "port": service["port"],
                "from": sorted(
                    self.scope.topology.addresses[caller]
                    for caller in callers.get(service["role"], self.scope.topology.callers(host))
                ),
            }
            for service in services
            if service["role"] != "haproxy" and service["address"] != LOOPBACK
        ]

    def hugging_face(self) -> dict[str, Any]:
        hub = self.scope.versions.hugging_face if self.scope.versions else HuggingFace()
        return {"endpoint": hub.endpoint, "token": hub.token_env}

    def services(
        self,
        host: str,
        redis: dict[str, Any] | None,
        engines: Sequence[Mapping[str, Any]],
        exporters: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        services: list[dict[str, Any]] = []
        if redis:
            services += listeners("redis", "redis", redis["listen"], redis["port"], "llm_gateway.redis.port")
        services += self.engines.listeners(host, engines)
        if host in self.scope.topology.gateways:
            for slot, port in self.scope.gateway.slots.model_dump().items():
                services += listeners(f"litellm@{slot}", "litellm", [LOOPBACK], port, f"llm_gateway.slots.{slot}")
            listen, port = list(self.scope.gateway.listen), self.scope.gateway.port
            services += listeners("haproxy", "haproxy", listen, port, "llm_gateway.port", self.scope.public_names)
            if self.scope.watch:
                port, variable = self.scope.watch.settings.exporters.gateway, "llm_monitoring.exporters.gateway"
                services += listeners("haproxy", "exporter", [self.scope.watch.address(host)], port, variable)
        for exporter in exporters:
            variable = f"llm_monitoring.exporters.{exporter['kind']}"
            services += listeners(exporter["service"], "exporter", exporter["listen"], exporter["port"], variable)
        return services
