"""One plan per host. Roles get their part of it, and never read the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.compiler.listeners import Listener as Listening
from modelyard.compiler.listeners import listeners
from modelyard.diagnostics import show_path, variable_path
from modelyard.engines import ROLES, by_role
from modelyard.engines.base import Engine
from modelyard.names import LOOPBACK, POOLS
from modelyard.plan.checks import Check
from modelyard.plan.engines import EngineParts
from modelyard.plan.gateway import GatewayParts
from modelyard.plan.model import DeclaredGpu, Foreign, HostPlan, Hub, Listener, PlacedModel
from modelyard.plan.monitoring import Engines, MonitoringParts
from modelyard.plan.parts import EnginePart, FirewallPart, HaproxyPart, LitellmPart, Rule
from modelyard.plan.scope import Scope


class Planner:
    """Makes the plans of all hosts."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.engines = EngineParts(scope)
        self.gateway = GatewayParts(scope)
        self.monitoring = MonitoringParts(scope, scope.monitoring) if scope.monitoring else None

    def plans(self) -> dict[str, HostPlan]:
        """Return the plans by host."""
        hosts = self.scope.topology.hosts
        engines = {host: self.engines.parts(host) for host in hosts}
        return {host: self.plan(host, engines) for host in hosts}

    def plan(self, host: str, engines: Engines) -> HostPlan:
        """Return the plan of one host, given the engines of all."""
        scope = self.scope
        served = [
            deployment
            for services in self.engines.processes(host).values()
            for members in services.values()
            for deployment in members
        ]
        listening = listeners(host, scope.catalogue, scope.topology, scope.services, served)
        main = {one.service: one for one in listening if one.role not in ("exporter", POOLS)}
        metrics = next(
            (one for one in listening if (one.service, one.role) == ("haproxy", "exporter")), None
        )
        redis = self.gateway.redis(host, main)
        litellm = self.gateway.litellm(host)
        haproxy = self.gateway.haproxy(host, main, metrics)
        exporters = (
            self.monitoring.exporters(listening, redis, engines[host]) if self.monitoring else []
        )
        watch = self.monitoring if host == scope.topology.monitoring else None
        prometheus = watch.prometheus(engines) if watch else None
        alertmanager = watch.alertmanager() if watch else None
        grafana = watch.grafana() if watch else None
        services = list(self.services(listening, engines[host]))
        return HostPlan(
            host=host,
            gpus=self.gpus(host),
            services=services,
            hugging_face=Hub(
                endpoint=scope.versions.hugging_face.endpoint,
                token=scope.versions.hugging_face.token_env,
            ),
            demands=self.engines.demands(host),
            firewall=FirewallPart(rules=self.rules(host, services)),
            redis=redis,
            engines=list(engines[host]),
            litellm=litellm,
            haproxy=haproxy,
            exporters=exporters,
            prometheus=prometheus,
            alertmanager=alertmanager,
            grafana=grafana,
            checks=[
                *(redis.checks if redis else ()),
                *(
                    check
                    for part in engines[host]
                    for instance in part.instances
                    for check in instance.checks
                ),
                *self.gateway_checks(host, litellm, haproxy),
                *(check for exporter in exporters for check in exporter.checks),
                *(prometheus.checks if prometheus else ()),
                *(alertmanager.checks if alertmanager else ()),
                *(grafana.checks if grafana else ()),
            ],
        )

    def gateway_checks(
        self, host: str, litellm: LitellmPart | None, haproxy: HaproxyPart | None
    ) -> list[Check]:
        """Return what smoke checks of a gateway: through its front end, because a slot's own checks
        need its port.
        """
        if litellm is None or haproxy is None:
            return []
        return [
            self.gateway.slots_check(),
            *haproxy.checks,
            *self.gateway.through_the_door(),
            *self.gateway.keys(host),
            *self.gateway.skipped(),
        ]

    def gpus(self, host: str) -> list[DeclaredGpu]:
        """Return the declared GPUs of a host, with what is placed on them."""
        return [
            DeclaredGpu(
                index=load.index,
                name=load.gpu.name,
                uuid=load.gpu.uuid,
                memory_mib=load.gpu.memory_mib,
                models=[PlacedModel(name=model, vram_mib=share) for model, share in load.models],
            )
            for load in self.scope.placement.loads.get(host, [])
        ]

    def services(
        self, listening: Sequence[Listening], engines: Sequence[EnginePart]
    ) -> list[Listener]:
        """Return what listens on a host, one entry for each address."""
        instances = {instance.service: instance for part in engines for instance in part.instances}
        found: list[Listener] = []
        for one in listening:
            names = {
                "haproxy": self.scope.public_names,
                POOLS: [pool.name for pool in self.scope.pools],
            }.get(one.role, [d.model.name for d in one.deployments])
            instance = instances.get(one.service)
            engine = by_role(one.role) if one.role in ROLES else None
            found += [
                Listener(
                    service=one.service,
                    role=one.role,
                    unit=f"modelyard-{one.service}.service",
                    address=address,
                    port=one.port,
                    models=names,
                    gpus=instance.gpus if instance else [],
                    variable=show_path(variable_path(one.path)),
                    foreign=foreign(engine, instance.model) if engine and instance else None,
                )
                for address in one.addresses
            ]
        return found

    def rules(self, host: str, services: Sequence[Listener]) -> list[Rule]:
        """Return who may connect to what listens beyond loopback here. The front end is open to
        all.
        """
        topology = self.scope.topology
        gateways = [gateway for gateway in topology.gateways if gateway != host]
        watching = [topology.monitoring] if topology.monitoring else []
        callers = {"redis": gateways, "exporter": watching}
        return [
            Rule.model_validate(
                {
                    "service": service.service,
                    "port": service.port,
                    "from": sorted(
                        topology.addresses[caller]
                        for caller in callers.get(service.role, topology.callers(host))
                    ),
                }
            )
            for service in services
            if service.role != "haproxy" and service.address != LOOPBACK
        ]


def foreign(engine: Engine, provider: str) -> Foreign | None:
    """Return what else may be in the place of an engine: its program as its own installer sets it
    up.
    """
    if engine.foreign is None:
        return None
    return Foreign(**engine.foreign._asdict(), adoption=engine.adoption(provider))
