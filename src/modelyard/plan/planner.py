"""One plan per host, in the shape of docs/architecture.md. Roles read it, and never the catalogue."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path, SourceMap
from modelyard.catalogue.versions import HuggingFace, Versions
from modelyard.compiler.emit import View, api_base, emit_document, is_never_cooled, last_steps
from modelyard.compiler.guard import emit_rules
from modelyard.compiler.placement import Placement
from modelyard.compiler.resolve import Deployment, LeftOut, Resolved
from modelyard.compiler.routing import Route
from modelyard.diagnostics import Diagnostic, diagnose, show_path, variable_path
from modelyard.engines import ENGINES, ROLES, by_role, types_of
from modelyard.engines.base import Engine, Process
from modelyard.names import (
    GATEWAY_USER,
    LOOPBACK,
    MASTER_KEY,
    REDIS_MONITOR_PASSWORD,
    REDIS_NAMESPACE,
    REDIS_PASSWORD,
    former,
    journal,
    reach,
    slugs,
    url_host,
)
from modelyard.plan.clients import client_plans
from modelyard.plan.monitoring import WATCHERS, Watch

DOOR_UNIT = "modelyard-haproxy.service"

SHARED_AFTER_S = 1
"""How much later than one worker of a gateway the others know of a cool-down (measured)."""

LONGEST_WAIT_S = 120
"""No run waits longer than that for a cool-down to pass."""

CHAT_TIMEOUT_S = 60
"""One token from a model that may have to be read into memory first."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Which host is what, and how hosts reach each other."""

    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    redis: str | None
    addresses: Mapping[str, str]
    monitoring: str | None = None

    def callers(self, host: str) -> list[str]:
        """Other hosts that call an engine of this one: gateways, and the Prometheus that watches it."""
        watching = () if self.monitoring is None else (self.monitoring,)
        return [caller for caller in dict.fromkeys((*self.gateways, *watching)) if caller != host]

    def engine_address(self, host: str) -> str:
        """The one address an engine listens on and is called at. llama-server listens on a single one."""
        return self.addresses[host] if self.callers(host) else LOOPBACK

    def redis_listen(self, host: str) -> list[str]:
        if self.gateways in ((), (host,)):
            return [LOOPBACK]
        return [LOOPBACK, self.addresses[host]] if host in self.gateways else [self.addresses[host]]

    def view(self, gateway: str, engines: Sequence[str]) -> View:
        """The network as the gateway on one host sees it."""
        redis = self.redis
        return View(
            gateway,
            {host: self.engine_address(host) for host in engines},
            None if redis is None else LOOPBACK if redis == gateway else self.addresses[redis],
        )


class Planner:
    """Makes the plans of all hosts from a catalogue that has no errors."""

    def __init__(
        self,
        catalogue: Catalogue,
        versions: Versions | None,
        resolved: Resolved,
        routes: Sequence[Route],
        topology: Topology,
        placement: Placement,
        groups: Mapping[str, Sequence[str]],
        secrets: frozenset[str],
    ) -> None:
        self.secrets = secrets
        self.placement = placement
        self.groups = groups
        self.catalogue = catalogue
        self.versions = versions
        self.resolved = resolved
        self.routes = routes
        self.topology = topology
        self.gateway = catalogue.gateway
        self.door = f"http://{url_host(reach(self.gateway.listen[0]))}:{self.gateway.port}"
        self.public_names = [route.name for route in routes]
        self.watch = None
        if catalogue.monitoring is not None and topology.monitoring is not None:
            self.watch = Watch(
                topology.monitoring,
                catalogue.monitoring,
                versions,
                topology.addresses,
                topology.gateways,
                topology.redis,
            )
        lasts = last_steps(routes)
        self.cooled = {d.id for d in resolved.all() if not is_never_cooled(resolved.deployments[d.model.name], lasts)}
        self.slugs = {role: slugs(self.named(role)) for role in ROLES}
        self.by_host: dict[str, list[Deployment]] = {}
        for deployment in resolved.all():
            if deployment.host is not None:
                self.by_host.setdefault(deployment.host, []).append(deployment)

    def named(self, role: str) -> Iterator[str]:
        """What the instances of a role are named after, switched off or not."""
        for name, provider in self.catalogue.providers.items():
            if provider.engine and provider.engine.role == role:
                yield from instance_names(name, provider)

    def plans(self) -> dict[str, dict[str, Any]]:
        plans = {host: self.plan(host) for host in self.topology.hosts}
        if self.watch:
            self.add_monitoring(plans, self.watch)
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
        redis = self.redis(host)
        parts = (self.engine(host, engine) for engine in ENGINES)
        engines = [part for part in parts if part is not None]
        litellm = self.litellm(host)
        haproxy = self.haproxy(host)
        instances = [instance for engine in engines for instance in engine["instances"]]
        exporters = self.watch.exporters(host, {"redis": redis, "engines": engines}) if self.watch else []
        services = self.services(host, redis, engines, exporters)
        checks: list[dict[str, Any]] = []
        if redis:
            checks += redis["checks"]
        for instance in instances:
            checks += instance["checks"]
        if haproxy:
            # Smoke asks the live gateway through its door; the slots' own checks belong to a switch.
            checks += [check for check in (litellm or {"checks": []})["checks"] if check["kind"] == "unit"]
            checks += haproxy["checks"] + self.through_the_door() + self.keys(host)
            checks += self.skipped()
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
                for load in self.placement.loads.get(host, [])
            ],
            "services": services,
            "hugging_face": self.hugging_face(),
            "demands": [
                self.demand(deployment)
                for deployment in self.by_host.get(host, [])
                if deployment.model.adapter_of is None
            ],
            "after": self.after(host),
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
        gateways = [gateway for gateway in self.topology.gateways if gateway != host]
        watching = [self.topology.monitoring] if self.topology.monitoring else []
        callers = {"redis": gateways, "exporter": watching}
        return [
            {
                "service": service["service"],
                "port": service["port"],
                "from": sorted(
                    self.topology.addresses[caller]
                    for caller in callers.get(service["role"], self.topology.callers(host))
                ),
            }
            for service in services
            if service["role"] != "haproxy" and service["address"] != LOOPBACK
        ]

    # -- services ----------------------------------------------------------------------------------------

    def redis(self, host: str) -> dict[str, Any] | None:
        if host != self.topology.redis:
            return None
        settings = self.gateway.redis
        unit = "modelyard-redis.service"
        listen = self.topology.redis_listen(host)
        return {
            "listen": listen,
            "port": settings.port,
            "maxmemory_mib": settings.maxmemory_mib,
            "maxmemory_policy": settings.maxmemory_policy,
            "persistence": settings.persistence,
            "secrets": {
                "GATEWAY_PASSWORD": REDIS_PASSWORD,
                **self.former_secret("GATEWAY_PASSWORD", REDIS_PASSWORD),
                **({"MONITOR_PASSWORD": REDIS_MONITOR_PASSWORD} if self.watch else {}),
                **(self.former_secret("MONITOR_PASSWORD", REDIS_MONITOR_PASSWORD) if self.watch else {}),
            },
            "checks": [
                {
                    "name": "redis is running",
                    "service": "redis",
                    "kind": "unit",
                    "units": [unit],
                    "hint": journal(unit),
                },
                {
                    "name": "redis answers the gateway's user",
                    "service": "redis",
                    "kind": "redis",
                    "host": listen[0],
                    "port": settings.port,
                    "username": GATEWAY_USER,
                    "password": "redis/GATEWAY_PASSWORD",
                    "prefix": f"{REDIS_NAMESPACE}:",
                    "hint": f"{journal(unit)}; ss -ltnp 'sport = :{settings.port}'",
                },
            ],
        }

    def engine(self, host: str, engine: Engine) -> dict[str, Any] | None:
        """What an engine's role runs on a host: the version, how it is had, and one instance per process."""
        mine = [d for d in self.by_host.get(host, []) if d.engine is engine]
        if not mine:
            return None
        processes: dict[str, list[Deployment]] = {}
        for deployment in mine:
            processes.setdefault(self.service(deployment), []).append(deployment)
        # Whoever is never cooled down is asked again as soon as it is back, so nobody has to wait for it (`after`).
        ordered = sorted(processes.items(), key=lambda process: any(d.id in self.cooled for d in process[1]))
        version = self.versions.of(engine.role) if self.versions else None
        return {
            "role": engine.role,
            **(version.build() if version else {"version": None}),
            "instances": [self.instance(engine, service, members) for service, members in ordered],
        }

    def after(self, host: str) -> dict[str, dict[str, int]]:
        """By engine, which others of this host must have been back for so many seconds before it may be restarted.

        These step in for it, the gateways send nobody to them before their cool-down has passed, and there is nobody
        else: restarted sooner, its clients would be turned away.
        """
        rest = min(math.ceil(self.gateway.cooldown_s), LONGEST_WAIT_S) + SHARED_AFTER_S
        found: dict[str, dict[str, int]] = {}
        for route in self.routes:
            members = [member for name in route.attempts for member in self.resolved.deployments[name]]
            if any(member.host != host for member in members):
                continue
            services = {member.id: self.service(member) for member in members}
            for service in dict.fromkeys(services.values()):
                others = [other for other in members if services[other.id] != service]
                if others and all(other.id in self.cooled for other in others):
                    found.setdefault(service, {}).update({services[other.id]: rest for other in others})
        return found

    def demand(self, deployment: Deployment) -> dict[str, Any]:
        """What preflight has to know of a model to find room for it on the GPUs that the host really has."""
        engine, model, settings = deployment.engine, deployment.model, deployment.provider.settings
        return {
            "service": self.service(deployment),
            "model": model.name,
            "role": engine.role,
            "gpus": list(self.placement.gpus.get(deployment.id, ())),
            "vram_mib": model.vram_mib,
            "source": model.source.model_dump(exclude_none=True) if model.source else None,
            "context_length": engine.context(model, settings),
            "options": dict(model.options),
            "max_loaded": engine.at_once(settings),
            "contexts": [list(entry) for entry in engine.contexts],
            "unestimated": engine.unestimated(model),
        }

    def hugging_face(self) -> dict[str, Any]:
        hub = self.versions.hugging_face if self.versions else HuggingFace()
        return {"endpoint": hub.endpoint, "token": hub.token_env}

    def service(self, deployment: Deployment) -> str:
        """The name of the service whose process serves a deployment."""
        engine = deployment.engine
        return self.service_named(engine, deployment.provider_name if engine.per_provider else deployment.base.name)

    def service_named(self, engine: Engine, name: str) -> str:
        return engine.prefix + self.slugs[engine.role][name]

    def conflicts(self, host: str, service: str, deployment: Deployment) -> list[str]:
        """Units that must not run beside this one: other members of its exclusive group, models that it replaces."""
        group = deployment.provider.exclusive_group
        rivals: dict[str, None] = {}
        for name, provider in self.catalogue.providers.items():
            if provider.group is None or host not in self.groups.get(provider.group, ()):
                continue
            own = name == deployment.provider_name and provider.active is not None
            if own or (name != deployment.provider_name and group and provider.exclusive_group == group):
                assert provider.engine is not None, "a provider with a group has an engine"
                names = [self.service_named(provider.engine, one) for one in instance_names(name, provider)]
                rivals.update(dict.fromkeys(names))
        return [f"modelyard-{rival}.service" for rival in rivals if rival != service]

    def instance(self, engine: Engine, service: str, members: list[Deployment]) -> dict[str, Any]:
        """One process: the deployments it serves, the first of which it is named after."""
        main = next((member for member in members if member.model.adapter_of is None), members[0])
        assert main.host is not None, "an instance is on a host"
        process = Process(
            service,
            main.provider_name if engine.per_provider else main.model.name,
            tuple(member.model for member in members),
            self.topology.engine_address(main.host),
            main.port,
            main.provider.settings,
        )
        gpus = dict.fromkeys(gpu for member in members for gpu in self.placement.gpus.get(member.id, ()))
        instance = {
            "service": service,
            "model": process.name,
            "listen": [process.address],
            "port": process.port,
            "gpus": list(gpus),
            "conflicts": self.conflicts(main.host, service, main),
            "secrets": {"API_KEY": main.secret} if main.secret else {},
            **engine.instance(process),
        }
        return {**instance, "checks": engine_checks(engine, process, keyed=bool(main.secret))}

    def former_secret(self, file: str, secret: str) -> dict[str, str]:
        """The file and the name of what `secret` was, while that is accepted, too (playbooks/rotate_secrets.yml)."""
        return {former(file): former(secret)} if former(secret) in self.secrets else {}

    def litellm(self, host: str) -> dict[str, Any] | None:
        if host not in self.topology.gateways:
            return None
        names = {MASTER_KEY} | {d.secret for d in self.resolved.all() if d.secret}
        if self.topology.redis is not None:
            names.add(REDIS_PASSWORD)
        view = self.topology.view(host, list(self.by_host))
        seen = (self.resolved.deployments, self.routes, self.gateway, view, self.gateway.redis.port)
        units = [f"modelyard-litellm@{slot}.service" for slot in ("blue", "green")]
        hint = "journalctl -u 'modelyard-litellm@*' -n 50"
        unit_check = {
            "name": "the gateway is running",
            "service": "litellm",
            "kind": "unit",
            "units": units,
            "hint": hint,
        }
        return {
            "version": self.versions.litellm.version if self.versions else None,
            "document": emit_document(*seen),
            "rules": emit_rules(*seen),
            "slots": self.gateway.slots.model_dump(),
            "workers": self.gateway.workers,
            "secrets": {name: name for name in sorted(names)} | self.former_secret(MASTER_KEY, MASTER_KEY),
            "clients": client_plans(self.catalogue),
            "public_names": self.public_names,
            "checks": [
                unit_check,
                *self.gateway_checks("litellm", f"http://{LOOPBACK}:@PORT@", "the gateway", hint),
            ],
        }

    def haproxy(self, host: str) -> dict[str, Any] | None:
        if host not in self.topology.gateways:
            return None
        unit = DOOR_UNIT
        closed = [
            {
                "name": f"{path} is closed from outside",
                "service": "haproxy",
                "kind": "http",
                "url": self.door + path,
                "method": method,
                "expect_status": [403, 404],
                "hint": "the door's path filter: /opt/modelyard/services/haproxy/current/config/haproxy.cfg",
            }
            for method, path in (("POST", "/model/new"), ("GET", "/ui"))
        ]
        return {
            "listen": list(self.gateway.listen),
            "port": self.gateway.port,
            "slots": self.gateway.slots.model_dump(),
            "stream_timeout_s": self.gateway.timeouts.door_s,
            "body_timeout_s": self.gateway.limits.body_s,
            "connections_per_address": self.gateway.limits.connections_per_address,
            "metrics_listen": [self.watch.address(host)] if self.watch else [],
            "metrics_port": (self.catalogue.monitoring or Monitoring()).exporters.gateway,
            "checks": [
                {
                    "name": "the door is running",
                    "service": "haproxy",
                    "kind": "unit",
                    "units": [unit],
                    "hint": journal(unit),
                },
                *closed,
            ],
        }

    def through_the_door(self) -> list[dict[str, Any]]:
        """What is behind the door. It goes live before any slot does, so this is smoke's part and not its own."""
        hint = f"{journal(DOOR_UNIT)}; then journalctl -u 'modelyard-litellm@*' -n 50"
        return self.gateway_checks("haproxy", self.door, "the door", hint)

    def keys(self, host: str) -> list[dict[str, Any]]:
        """Whether providers elsewhere take our keys. Smoke's part: what they refuse does not hold a release back."""
        view = self.topology.view(host, list(self.by_host))
        elsewhere = {(d.provider_name, d.secret): d for d in self.resolved.all() if d.host is None and d.secret}
        checks: list[dict[str, Any]] = []
        for (provider, secret), deployment in elsewhere.items():
            anthropic = deployment.provider.type == "anthropic"
            path, header = ("/v1/models", "x_api_key") if anthropic else ("/models", "bearer")
            checks.append(
                {
                    "name": f"{provider} takes the key {secret}",
                    "service": "litellm",
                    "kind": "key",
                    "url": f"{api_base(deployment, view).rstrip('/')}{path}",
                    header: f"litellm/{secret}",
                    "hint": f"give {secret} its right value, then site.yml --tags gateway",
                }
            )
        return checks

    def gateway_checks(self, service: str, base: str, what: str, hint: str) -> list[dict[str, Any]]:
        """Ready, the public names, closed without a key, and an answer: at a slot or through the door."""
        bearer = f"litellm/{MASTER_KEY}"
        resident = next(
            (
                name
                for name, members in self.resolved.deployments.items()
                if any(m.host and (m.model.preload or not m.engine.on_demand) for m in members)
                and members[0].model.mode == "chat"
            ),
            None,
        )
        common: dict[str, Any] = {"service": service}
        checks: list[dict[str, Any]] = [
            {
                "name": f"{what} is ready",
                **common,
                "kind": "http",
                "url": f"{base}/health/readiness",
                "expect_status": [200],
                "hint": hint,
            },
            {
                "name": f"{what} lists exactly the public names",
                **common,
                "kind": "models",
                "url": f"{base}/v1/models",
                "bearer": bearer,
                "names": self.public_names,
                "timeout_s": 10,
                "hint": f"a missing name was dropped by the gateway at start: {hint}",
            },
            {
                "name": f"{what} refuses a request without a key",
                **common,
                "kind": "http",
                "url": f"{base}/v1/models",
                "expect_status": [401],
                "hint": hint,
            },
        ]
        for stream in (False, True):
            check = {
                "name": f"{what} {'streams' if stream else 'answers'}" + (f" ({resident})" if resident else ""),
                **common,
                "kind": "chat",
                "url": f"{base}/v1/chat/completions",
                "bearer": bearer,
                "model": resident or self.public_names[0],
                "stream": stream,
                "timeout_s": CHAT_TIMEOUT_S,
                "hint": f"the engine's own check says whether it is the engine; else {hint}",
            }
            if resident is None:
                check["skip"] = "no model is resident, and a check loads none"
            checks.append(check)
        return checks

    def skipped(self) -> list[dict[str, Any]]:
        """What is left out, as checks that are reported as skipped."""
        checks = [_skipped(entry) for entry in self.resolved.left_out]
        if self.topology.redis is None:
            checks.append(
                {
                    "name": "redis",
                    "service": "redis",
                    "kind": "unit",
                    "units": ["modelyard-redis.service"],
                    "hint": "put one host in llm_redis to share limits and cool-downs between gateways",
                    "skip": "no host in group llm_redis",
                }
            )
        return checks

    # -- listeners ---------------------------------------------------------------------------------------

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
        for engine in engines:
            for instance in engine["instances"]:
                served = [d for d in self.by_host[host] if self.service(d) == instance["service"]]
                own = listeners(
                    instance["service"],
                    engine["role"],
                    instance["listen"],
                    instance["port"],
                    show_path(port_path(served[0])),
                    [deployment.model.name for deployment in served],
                    instance["gpus"],
                )
                services += [entry | foreign(by_role(engine["role"]), instance["model"]) for entry in own]
        if host in self.topology.gateways:
            for slot, port in self.gateway.slots.model_dump().items():
                services += listeners(f"litellm@{slot}", "litellm", [LOOPBACK], port, f"llm_gateway.slots.{slot}")
            listen, port = list(self.gateway.listen), self.gateway.port
            services += listeners("haproxy", "haproxy", listen, port, "llm_gateway.port", self.public_names)
            if self.watch:
                port, variable = self.watch.settings.exporters.gateway, "llm_monitoring.exporters.gateway"
                services += listeners("haproxy", "exporter", [self.watch.address(host)], port, variable)
        for exporter in exporters:
            variable = f"llm_monitoring.exporters.{exporter['kind']}"
            services += listeners(exporter["service"], "exporter", exporter["listen"], exporter["port"], variable)
        return services


def listeners(
    service: str,
    role: str,
    listen: Sequence[str],
    port: int,
    variable: str,
    models: Sequence[str] = (),
    gpus: Sequence[int | str] = (),
) -> list[dict[str, Any]]:
    """What listens on a host, one entry for each address. `variable` is where the port is written."""
    return [
        {
            "service": service,
            "role": role,
            "unit": f"modelyard-{service}.service",
            "address": address,
            "port": port,
            "models": list(models),
            "gpus": list(gpus),
            "variable": variable,
        }
        for address in listen
    ]


def foreign(engine: Engine, provider: str) -> dict[str, Any]:
    """What else may be in the place of an engine: its program as its own installer sets it up."""
    if engine.foreign is None:
        return {}
    return {"foreign": {**engine.foreign._asdict(), "adoption": engine.adoption(provider)}}


def engine_checks(engine: Engine, process: Process, *, keyed: bool) -> list[dict[str, Any]]:
    """Running, healthy, the names, and an answer. Who loads on demand is only asked for what is loaded already."""
    service, names = process.service, [model.served for model in process.models]
    unit = f"modelyard-{service}.service"
    base = f"http://{url_host(process.address)}:{process.port}"
    asked: dict[str, Any] = {"bearer": f"{service}/API_KEY"} if keyed else {}
    checks: list[dict[str, Any]] = [
        {
            "name": f"{service} is running",
            "service": service,
            "kind": "unit",
            "units": [unit],
            "hint": journal(unit),
        }
    ]
    if engine.health is not None:
        checks.append(
            {
                "name": f"{service} is healthy",
                "service": service,
                "kind": "http",
                "url": base + engine.health,
                "expect_status": [200],
                "hint": f"{journal(unit)}; 503 means that the model is still loading",
            }
        )
    checks.append(
        {
            "name": f"{service} serves {', '.join(names)}",
            "service": service,
            "kind": "models",
            "url": f"{base}/v1/models",
            **asked,
            "names": [engine.listed(name) for name in names],
            **({"others": True} if engine.lists_others else {}),
            **({"timeout_s": engine.models_timeout_s} if engine.models_timeout_s else {}),
            "hint": f"systemctl cat {unit} shows the model and alias it was started with",
        }
    )
    for model in process.models:
        chat: dict[str, Any] = {
            "name": f"{model.name} answers",
            "service": service,
            "kind": "chat",
            "url": f"{base}/v1/chat/completions",
            **asked,
            "model": model.served,
            "timeout_s": CHAT_TIMEOUT_S,
            "hint": f"{journal(unit)}; a model without a chat template cannot chat",
        }
        if engine.loaded_path is not None:
            chat["loaded_url"] = base + engine.loaded_path
        if model.mode != "chat":
            chat["skip"] = f"mode is {model.mode}"
        elif engine.on_demand and not model.preload:
            chat["skip"] = "loaded when somebody asks for it, and a check loads none"
        checks.append(chat)
    return checks


def instance_names(name: str, provider: Provider) -> list[str]:
    """What a provider's instances are named after: its models, each of which is a process, or the provider itself."""
    if provider.engine and provider.engine.per_provider:
        return [name]
    return [model.name for model in provider.models if not model.adapter_of]


def _skipped(entry: LeftOut) -> dict[str, Any]:
    return {
        "name": f"{entry.kind} {entry.name}",
        "service": entry.name,
        "kind": "unit",
        "units": [],
        "hint": "see left_out in the plan",
        "skip": entry.reason,
    }


def port_path(deployment: Deployment) -> Path:
    """Where the port of a deployment is written: at its model, or at its provider."""
    if deployment.model.port:
        return variable_path((*deployment.path, "port"))
    return ("llm_providers", deployment.provider_name, "port")


def _monitoring_ports(settings: Monitoring | None, host: str, topology: Topology) -> Iterator[tuple[int, str, Path]]:
    """The ports that are watched from, and asked, on a host."""
    if settings is None or topology.monitoring is None:
        return
    where = {"gateway": topology.gateways, "redis": (topology.redis,), "blackbox": (topology.monitoring,)}
    for kind, port in settings.exporters.model_dump().items():
        if host in where.get(kind, topology.hosts):
            yield port, f"the metrics of {kind}", ("monitoring", "exporters", kind)
    if host == topology.monitoring:
        for role in WATCHERS:
            yield getattr(settings, role).port, role, ("monitoring", role, "port")


def check_ports(
    catalogue: Catalogue, resolved: Resolved, topology: Topology, source: SourceMap, broken: frozenset[Path]
) -> list[Diagnostic]:
    """Two listeners on one host and port, whatever their addresses: in a log nobody can tell them apart."""
    gateway = catalogue.gateway
    diagnostics: list[Diagnostic] = []
    by_host: dict[str, list[Deployment]] = {}
    for deployment in resolved.all():
        if deployment.host is not None and deployment.path not in broken:
            by_host.setdefault(deployment.host, []).append(deployment)
    reported: dict[tuple[str, str, int], list[str]] = {}
    places: dict[tuple[str, str, int], Path] = {}
    hints: dict[tuple[str, str, int], str] = {}
    for host in topology.hosts:
        listeners: list[tuple[int, str, Path]] = []
        models: dict[str, Path] = {}
        if host == topology.redis:
            listeners.append((gateway.redis.port, "redis", ("gateway", "redis", "port")))
        if host in topology.gateways:
            listeners.append((gateway.port, "the gateway's door", ("gateway", "port")))
            for slot, port in gateway.slots.model_dump().items():
                listeners.append((port, f"gateway slot {slot}", ("gateway", "slots", slot)))
        listeners += _monitoring_ports(catalogue.monitoring, host, topology)
        shared: set[str] = set()
        for deployment in by_host.get(host, []):
            where = ("providers", *port_path(deployment)[1:])
            if deployment.model.adapter_of is not None:
                continue  # Its base model's process serves it.
            if deployment.engine.per_provider:
                if deployment.provider_name in shared:
                    continue
                shared.add(deployment.provider_name)
                listeners.append((deployment.port, f'"{deployment.provider_name}"', where))
            else:
                models[f'"{deployment.model.name}"'] = deployment.path
                listeners.append((deployment.port, f'"{deployment.model.name}"', where))
        owner: dict[int, tuple[str, Path]] = {}
        for port, what, path in listeners:
            other, place = owner.setdefault(port, (what, path))
            if other != what:
                key = (other, what, port)
                reported.setdefault(key, []).append(host)
                places[key] = path
                if path == place:  # Both take their provider's port: the second needs one of its own.
                    free = next(number for number in range(port + 1, 65536) if number not in {p for p, *_ in listeners})
                    places[key] = models[what]
                    hints[key] = f"give {what} a port of its own, such as port: {free}"
    own_ports = types_of(lambda engine: not engine.per_provider, "or").replace("`", "")
    for (other, what, port), hosts in reported.items():
        path = places[(other, what, port)]
        diagnostics.append(
            diagnose(
                source,
                "port-clash",
                f"{other} and {what} both want port {port} on {hosts[0]}"
                + (f" and {len(hosts) - 1} more" if len(hosts) > 1 else ""),
                path,
                hints.get(
                    (other, what, port),
                    f"give one of them another port; a model of {own_ports} can have a port of its own",
                ),
            )
        )
    return diagnostics
