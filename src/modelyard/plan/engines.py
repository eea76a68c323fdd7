"""The engines' parts of a host's plan: one process per model or provider, as each engine has it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.catalogue.providers import MODEL_MARGIN_MIB, Provider
from modelyard.compiler.emit import is_never_cooled, last_steps
from modelyard.compiler.listeners import port_path
from modelyard.compiler.resolve import Deployment
from modelyard.diagnostics import show_path
from modelyard.engines import ENGINES, ROLES, by_role
from modelyard.engines.base import Engine, Process
from modelyard.names import journal, slugs, url_host
from modelyard.plan.listeners import listeners
from modelyard.plan.scope import CHAT_TIMEOUT_S, Scope

SHARED_AFTER_S = 1
"""How much later than one worker of a gateway the others know of a cool-down (measured)."""

LONGEST_WAIT_S = 120
"""No run waits longer than that for a cool-down to pass."""


class EngineParts:
    """Makes what each host's plan says of its engines."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        lasts = last_steps(scope.routes)
        members = scope.resolved.deployments
        self.cooled = {d.id for d in scope.resolved.all() if not is_never_cooled(members[d.model.name], lasts)}
        self.slugs = {role: slugs(self.named(role)) for role in ROLES}

    def parts(self, host: str) -> list[dict[str, Any]]:
        """The parts of the engines that a host has, in the registry's order."""
        parts = (self.part(host, engine) for engine in ENGINES)
        return [part for part in parts if part is not None]

    def demands(self, host: str) -> list[dict[str, Any]]:
        """What preflight has to know of each model of a host. An adapter has no memory of its own."""
        return [self.demand(one) for one in self.scope.by_host.get(host, []) if one.model.adapter_of is None]

    def listeners(self, host: str, parts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """What listens, given the parts of a host."""
        by_service: dict[str, list[Deployment]] = {}
        for deployment in self.scope.by_host.get(host, []):
            by_service.setdefault(self.service(deployment), []).append(deployment)
        for part in parts:
            for instance in part["instances"]:
                served = by_service[instance["service"]]
                own = listeners(
                    instance["service"],
                    part["role"],
                    instance["listen"],
                    instance["port"],
                    show_path(port_path(served[0])),
                    [deployment.model.name for deployment in served],
                    instance["gpus"],
                )
                yield from (entry | foreign(by_role(part["role"]), instance["model"]) for entry in own)

    def named(self, role: str) -> Iterator[str]:
        """What the instances of a role are named after, switched off or not."""
        for name, provider in self.scope.catalogue.providers.items():
            if provider.engine and provider.engine.role == role:
                yield from instance_names(name, provider)

    def part(self, host: str, engine: Engine) -> dict[str, Any] | None:
        """What an engine's role runs on a host: the version, how it is had, and one instance per process."""
        mine = [d for d in self.scope.by_host.get(host, []) if d.engine is engine]
        if not mine:
            return None
        processes: dict[str, list[Deployment]] = {}
        for deployment in mine:
            processes.setdefault(self.service(deployment), []).append(deployment)
        # Whoever is never cooled down is asked again as soon as it is back, so nobody has to wait for it (`after`).
        ordered = sorted(processes.items(), key=lambda process: any(d.id in self.cooled for d in process[1]))
        version = self.scope.versions.of(engine.role) if self.scope.versions else None
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
        rest = min(math.ceil(self.scope.gateway.cooldown_s), LONGEST_WAIT_S) + SHARED_AFTER_S
        found: dict[str, dict[str, int]] = {}
        for route in self.scope.routes:
            members = [member for name in route.attempts for member in self.scope.resolved.deployments[name]]
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
            "gpu": self.uses_gpus(engine),
            "gpus": list(self.scope.placement.gpus.get(deployment.id, ())),
            "vram_mib": model.vram_mib,
            "source": model.planned_source,
            "context_length": engine.context(model, settings),
            "options": dict(model.options),
            "max_loaded": engine.at_once(settings),
            "contexts": [list(entry) for entry in engine.contexts],
            "unestimated": engine.unestimated(model),
        }

    def uses_gpus(self, engine: Engine) -> bool:
        """Whether an engine may use GPUs, as its entry in `llm_versions` says."""
        return self.scope.versions is None or self.scope.versions.uses_gpus(engine)

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
        for name, provider in self.scope.catalogue.providers.items():
            if provider.group is None or host not in self.scope.groups.get(provider.group, ()):
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
        models = [member.model for member in members]
        if not self.uses_gpus(engine):
            models = [model.model_copy(update={"gpus": None}) for model in models]
        process = Process(
            service,
            main.provider_name if engine.per_provider else main.model.name,
            tuple(models),
            self.scope.topology.engine_address(main.host),
            main.port,
            main.provider.settings,
        )
        gpus = dict.fromkeys(gpu for member in members for gpu in self.scope.placement.gpus.get(member.id, ()))
        instance = {
            "service": service,
            "model": process.name,
            "listen": [process.address],
            "port": process.port,
            "gpus": list(gpus),
            "conflicts": self.conflicts(main.host, service, main),
            "secrets": {"API_KEY": main.secret} if main.secret else {},
            "ready_timeout_s": main.provider.ready_timeout_s or engine.ready_timeout_s,
            "model_margin_mib": main.provider.model_margin_mib or MODEL_MARGIN_MIB,
            **engine.instance(process),
        }
        return {**instance, "checks": engine_checks(engine, process, keyed=bool(main.secret))}


def instance_names(name: str, provider: Provider) -> list[str]:
    """What a provider's instances are named after: its models, each of which is a process, or the provider itself."""
    if provider.engine and provider.engine.per_provider:
        return [name]
    return [model.name for model in provider.models if not model.adapter_of]


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
                "hint": f"{journal(unit)}; 503 means the model is still loading",
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
            chat["skip"] = "loaded on the first request; checks load no model"
        checks.append(chat)
    return checks
