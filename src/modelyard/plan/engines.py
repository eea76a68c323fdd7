"""The engines' parts of a host's plan: one process per model or provider, as each engine has it."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.catalogue.models import Model
from modelyard.catalogue.providers import MODEL_MARGIN_MIB
from modelyard.compiler.listeners import instance_names
from modelyard.compiler.resolve import Deployment
from modelyard.engines import ROLES, by_role
from modelyard.engines.base import Engine, Process
from modelyard.names import journal, pool_server, url_host
from modelyard.plan.checks import (
    CHAT_TIMEOUT_S,
    ChatCheck,
    Check,
    EmbeddingCheck,
    HttpCheck,
    ModelsCheck,
    unit_check,
)
from modelyard.plan.model import Demand
from modelyard.plan.parts import EnginePart, InstancePart, PoolMember
from modelyard.plan.scope import Scope


class EngineParts:
    """Makes what each host's plan says of its engines."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def processes(self, host: str) -> dict[str, dict[str, list[Deployment]]]:
        """Return by role, in the registry's order, and by service what its process serves on a
        host.
        """
        found: dict[str, dict[str, list[Deployment]]] = {}
        for deployment in self.scope.by_host.get(host, []):
            services = found.setdefault(deployment.engine.role, {})
            services.setdefault(self.scope.services.of(deployment), []).append(deployment)
        return {role: found[role] for role in ROLES if role in found}

    def parts(self, host: str) -> list[EnginePart]:
        """Return the parts of the engines that a host has."""
        return [
            self.part(by_role(role), services) for role, services in self.processes(host).items()
        ]

    def part(self, engine: Engine, processes: Mapping[str, list[Deployment]]) -> EnginePart:
        """Return what an engine's role runs on a host: the version, its source, and one instance
        per process.
        """
        version = self.scope.versions.of(engine.role)
        instances = [
            self.instance(engine, service, members) for service, members in processes.items()
        ]
        build = version.build() if version else {"version": None}
        return EnginePart(role=engine.role, instances=instances, **build)

    def demands(self, host: str) -> list[Demand]:
        """Return what preflight has to know of each model of a host. An adapter has no memory of
        its own.
        """
        members = self.scope.by_host.get(host, [])
        models: dict[str, list[Model]] = {}
        for one in members:
            models.setdefault(one.provider_name, []).append(one.model)
        most = {
            one.provider_name: one.engine.at_once(one.provider.settings, models[one.provider_name])
            for one in {one.provider_name: one for one in members}.values()
        }
        return [
            self.demand(one, most[one.provider_name])
            for one in members
            if one.model.adapter_of is None
        ]

    def demand(self, deployment: Deployment, at_once: int | None) -> Demand:
        """Return what preflight has to know of a model to place it on the GPUs that the host really
        has. Its process holds `at_once` models, all of them if that is None.
        """
        engine, model, settings = deployment.engine, deployment.model, deployment.provider.settings
        on_cpu = deployment.key in self.scope.placement.on_cpu
        gpus = list(self.scope.placement.gpus.get(deployment.key, ()))
        return Demand(
            service=self.scope.services.of(deployment),
            model=model.name,
            role=engine.role,
            gpu=not on_cpu,
            gpus=gpus,
            vram_mib=model.vram_mib,
            source=model.planned_source,
            context_length=engine.context(model, settings),
            slots=engine.slots(model, settings),
            options=engine.options(model),
            max_loaded=at_once,
            share=self.share(deployment),
            width=None if on_cpu else engine.width(model, len(gpus) or 1),
            contexts=[list(entry) for entry in engine.contexts],
            unestimated=engine.unestimated(model),
        )

    def share(self, deployment: Deployment) -> float | None:
        """Return the part of each GPU's memory that a process reserves: what its options say, what
        follows from `vram_mib`, or its engine's default.
        """
        engine, placement = deployment.engine, self.scope.placement
        if engine.share is None or deployment.key in placement.on_cpu:
            return None
        derived = placement.shares.get(deployment.key)
        given = engine.share_of(deployment.model)
        return given or (engine.share if derived is None else float(derived))

    def conflicts(self, host: str, service: str, deployment: Deployment) -> list[str]:
        """Units that must not run beside this one: other members of its exclusive group, models
        that it replaces.
        """
        group = deployment.provider.exclusive_group
        rivals: dict[str, None] = {}
        for name, provider in self.scope.catalogue.providers.items():
            if provider.group is None or host not in self.scope.groups.get(provider.group, ()):
                continue
            own = name == deployment.provider_name and provider.active is not None
            if own or (
                name != deployment.provider_name and group and provider.exclusive_group == group
            ):
                assert provider.engine is not None, "a provider with a group has an engine"
                names = [
                    self.scope.services.named(provider.engine, one)
                    for one in instance_names(name, provider)
                ]
                rivals.update(dict.fromkeys(names))
        return [f"modelyard-{rival}.service" for rival in rivals if rival != service]

    def instance(self, engine: Engine, service: str, members: list[Deployment]) -> InstancePart:
        """Return one process: the deployments it serves, the first of which it is named after."""
        main = next((member for member in members if member.model.adapter_of is None), members[0])
        assert main.host is not None, "an instance is on a host"
        models = [member.model for member in members]
        if main.key in self.scope.placement.on_cpu:
            models = [model.model_copy(update={"gpus": None}) for model in models]
        process = Process(
            service,
            main.provider_name if engine.per_provider else main.model.name,
            tuple(models),
            self.scope.topology.engine_address(main.host),
            main.port,
            main.provider.settings,
            self.scope.placement.shares.get(main.key),
        )
        gpus = dict.fromkeys(
            gpu for member in members for gpu in self.scope.placement.gpus.get(member.key, ())
        )
        return InstancePart(
            service=service,
            model=process.name,
            listen=[process.address],
            port=process.port,
            pool=PoolMember(name=self.scope.services.pool(main), server=pool_server(main.host)),
            gpus=list(gpus),
            conflicts=self.conflicts(main.host, service, main),
            secrets={"API_KEY": main.secret} if main.secret else {},
            ready_timeout_s=main.provider.ready_timeout_s or engine.ready_timeout_s,
            model_margin_mib=main.provider.model_margin_mib or MODEL_MARGIN_MIB,
            checks=engine_checks(engine, process, keyed=bool(main.secret)),
            **engine.instance(process),
        )


def engine_checks(engine: Engine, process: Process, *, keyed: bool) -> list[Check]:
    """Return the checks of a process: running, healthy, the names, and an answer of what is
    loaded.
    """
    service, names = process.service, [model.served for model in process.models]
    unit = f"modelyard-{service}.service"
    base = f"http://{url_host(process.address)}:{process.port}"
    bearer = f"{service}/API_KEY" if keyed else None
    checks: list[Check] = [unit_check(service)]
    if engine.health is not None:
        checks.append(
            HttpCheck(
                name=f"{service} is healthy",
                service=service,
                url=base + engine.health,
                expect_status=[200],
                hint=f"{journal(unit)}; 503 means the model is still loading",
            )
        )
    checks.append(
        ModelsCheck(
            name=f"{service} serves {', '.join(names)}",
            service=service,
            url=f"{base}/v1/models",
            bearer=bearer,
            names=[engine.listed(name) for name in names],
            others=engine.lists_others or None,
            timeout_s=engine.models_timeout_s,
            hint=f"systemctl cat {unit} shows the model and alias it was started with",
        )
    )
    checks += [_answer_check(engine, service, model, base, bearer) for model in process.models]
    return checks


def _answer_check(
    engine: Engine, service: str, model: Model, base: str, bearer: str | None
) -> ChatCheck | EmbeddingCheck:
    """Return the check that a model answers what it is for."""
    hint = journal(f"modelyard-{service}.service")
    loads = engine.on_demand and not model.preload
    skip = "loaded on the first request; checks load no model" if loads else None
    if model.mode == "embedding":
        return EmbeddingCheck(
            name=f"{model.name} embeds",
            service=service,
            url=f"{base}/v1/embeddings",
            bearer=bearer,
            model=model.served,
            timeout_s=CHAT_TIMEOUT_S,
            skip=skip,
            hint=f"{hint}; {engine.embedding_hint}",
        )
    return ChatCheck(
        name=f"{model.name} answers",
        service=service,
        url=f"{base}/v1/chat/completions",
        bearer=bearer,
        model=model.served,
        timeout_s=CHAT_TIMEOUT_S,
        loaded_url=None if engine.loaded_path is None else base + engine.loaded_path,
        skip=skip,
        hint=f"{hint}; a model without a chat template cannot chat",
    )
