"""The parts of a host's plan that are the gateway, its front end and Redis, and what is checked of
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

from modelyard.catalogue.gateway import (
    FrontEndLimits,
    FrontEndTimeouts,
    GuardLimits,
    SwitchTimeouts,
)
from modelyard.catalogue.monitoring import Monitoring
from modelyard.compiler.emit import api_base, emit_document
from modelyard.compiler.guard import emit_rules
from modelyard.compiler.listeners import Listener
from modelyard.compiler.pools import Pool
from modelyard.compiler.resolve import LeftOut
from modelyard.names import (
    LOOPBACK,
    MASTER_KEY,
    REDIS_MONITOR_PASSWORD,
    REDIS_PASSWORD,
    journal,
    pool_server,
)
from modelyard.plan.checks import (
    CHAT_TIMEOUT_S,
    ChatCheck,
    Check,
    HttpCheck,
    KeyCheck,
    ModelsCheck,
    UnitCheck,
)
from modelyard.plan.parts import HaproxyPart, LitellmPart, PoolPart, PoolServer, RedisPart
from modelyard.plan.scope import Scope

SLOTS_HINT = "journalctl -u 'modelyard-litellm@*' -n 50"

Section = TypeVar("Section", bound=BaseModel)


def share(kind: type[Section], section: BaseModel) -> Section:
    """Return those keys of a section of the catalogue that one role uses."""
    return kind.model_validate(section.model_dump(include=set(kind.model_fields)))


class GatewayParts:
    """Makes what the plans of the gateways' hosts, and of Redis's, say of them."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def redis(self, host: str, listening: Mapping[str, Listener]) -> RedisPart | None:
        """Return the part of role redis; None on a host without Redis."""
        if host != self.scope.topology.redis:
            return None
        secrets = {"GATEWAY_PASSWORD": REDIS_PASSWORD}
        if self.scope.monitoring:
            secrets["MONITOR_PASSWORD"] = REDIS_MONITOR_PASSWORD
        former = [self.scope.former_secret(name, secret) for name, secret in secrets.items()]
        return RedisPart(
            **self.scope.gateway.redis.model_dump(),
            listen=list(listening["redis"].addresses),
            secrets=secrets | {name: secret for one in former for name, secret in one.items()},
        )

    def litellm(self, host: str) -> LitellmPart | None:
        """Return the part of role litellm; None on a host without a gateway."""
        scope = self.scope
        if host not in scope.topology.gateways:
            return None
        names = {MASTER_KEY} | {d.secret for d in scope.resolved.all() if d.secret}
        if scope.topology.redis is not None:
            names.add(REDIS_PASSWORD)
        view = scope.view(host)
        seen = (
            scope.resolved.deployments,
            scope.routes,
            scope.gateway,
            view,
            scope.gateway.redis.port,
        )
        return LitellmPart(
            **scope.versions.litellm.build(),
            slots=scope.gateway.slots,
            workers=scope.gateway.workers,
            timeouts=share(SwitchTimeouts, scope.gateway.timeouts),
            limits=share(GuardLimits, scope.gateway.limits),
            document=emit_document(*seen),
            rules=emit_rules(*seen),
            secrets={name: name for name in sorted(names)}
            | scope.former_secret(MASTER_KEY, MASTER_KEY),
            clients=scope.catalogue.clients,
            public_names=scope.public_names,
            checks=[
                self.slots_check(),
                *self.gateway_checks(
                    "litellm", f"http://{LOOPBACK}:@PORT@", "the gateway", SLOTS_HINT
                ),
            ],
        )

    def slots_check(self) -> Check:
        """Return the check that a slot of the gateway runs."""
        units = [
            f"modelyard-litellm@{slot}.service" for slot in self.scope.gateway.slots.model_dump()
        ]
        return UnitCheck(
            name="the gateway is running", service="litellm", units=units, hint=SLOTS_HINT
        )

    def haproxy(
        self, host: str, listening: Mapping[str, Listener], metrics: Listener | None
    ) -> HaproxyPart | None:
        """Return the part of role haproxy; None on a host without a gateway. `metrics` is what
        Prometheus scrapes.
        """
        gateway = self.scope.gateway
        if host not in self.scope.topology.gateways:
            return None
        return HaproxyPart(
            listen=list(listening["haproxy"].addresses),
            port=gateway.port,
            slots=gateway.slots,
            pool_port=gateway.pool_port,
            pools={pool.name: self.pool(pool) for pool in self.scope.pools},
            timeouts=share(FrontEndTimeouts, gateway.timeouts),
            limits=share(FrontEndLimits, gateway.limits),
            metrics_listen=list(metrics.addresses) if metrics else [],
            metrics_port=(self.scope.catalogue.monitoring or Monitoring()).exporters.gateway,
        )

    def pool(self, pool: Pool) -> PoolPart:
        """Return what HAProxy has to know of one pool."""
        first = pool.members[0]
        return PoolPart(
            health=first.engine.health,
            max_parallel=pool.max_parallel,
            queue_s=pool.queue_s(self.scope.gateway),
            holds=self.scope.holds(pool),
            servers={
                pool_server(host): PoolServer(
                    address=self.scope.topology.engine_address(host), port=first.port
                )
                for host in pool.hosts
            },
        )

    def through_the_door(self) -> list[Check]:
        """Return what is checked through the front end. It goes live before any slot does, so smoke
        runs this alone.
        """
        hint = f"{journal('modelyard-haproxy.service')}; then {SLOTS_HINT}"
        return self.gateway_checks("haproxy", self.scope.door, "the front end", hint)

    def keys(self, host: str) -> list[Check]:
        """Return whether providers elsewhere take our keys. What they refuse does not hold a
        release back.
        """
        view = self.scope.view(host)
        elsewhere = {
            (d.provider_name, d.secret): d
            for d in self.scope.resolved.all()
            if d.host is None and d.secret
        }
        checks: list[Check] = []
        for (provider, secret), deployment in elsewhere.items():
            anthropic = deployment.provider.type == "anthropic"
            path = "/v1/models" if anthropic else "/models"
            checks.append(
                KeyCheck(
                    name=f"{provider} accepts the key {secret}",
                    service="litellm",
                    url=f"{api_base(deployment, view).rstrip('/')}{path}",
                    hint=f"correct {secret}, then run site.yml --tags gateway",
                    bearer=None if anthropic else f"litellm/{secret}",
                    x_api_key=f"litellm/{secret}" if anthropic else None,
                )
            )
        return checks

    def gateway_checks(self, service: str, base: str, what: str, hint: str) -> list[Check]:
        """Return the checks of a slot, or of the gateway through its front end.

        Ready, the public names, closed without a key, and an answer.
        """
        bearer = f"litellm/{MASTER_KEY}"
        resident = next(
            (
                name
                for name, members in self.scope.resolved.deployments.items()
                if any(m.host and (m.model.preload or not m.engine.on_demand) for m in members)
                and members[0].model.mode == "chat"
            ),
            None,
        )
        checks: list[Check] = [
            HttpCheck(
                name=f"{what} is ready",
                service=service,
                url=f"{base}/health/readiness",
                expect_status=[200],
                hint=hint,
            ),
            ModelsCheck(
                name=f"{what} lists exactly the public names",
                service=service,
                url=f"{base}/v1/models",
                bearer=bearer,
                names=self.scope.public_names,
                timeout_s=10,
                hint=f"the gateway dropped a missing name at start: {hint}",
            ),
            HttpCheck(
                name=f"{what} refuses a request without a key",
                service=service,
                url=f"{base}/v1/models",
                expect_status=[401],
                hint=hint,
            ),
        ]
        checks += [
            ChatCheck(
                name=f"{what} {'streams' if stream else 'answers'}"
                + (f" ({resident})" if resident else ""),
                service=service,
                url=f"{base}/v1/chat/completions",
                bearer=bearer,
                model=resident or self.scope.public_names[0],
                stream=stream,
                timeout_s=CHAT_TIMEOUT_S,
                hint=f"if the engine's own check fails, it is the engine; else {hint}",
                skip=None if resident else "no model is loaded; checks load no model",
            )
            for stream in (False, True)
        ]
        return checks

    def skipped(self) -> list[Check]:
        """Return what is left out, as checks that are reported as skipped."""
        checks: list[Check] = [_skipped(entry) for entry in self.scope.resolved.left_out]
        if self.scope.topology.redis is None:
            checks.append(
                UnitCheck(
                    name="redis",
                    service="redis",
                    units=["modelyard-redis.service"],
                    hint=(
                        "put one host into llm_redis to share limits and cool-downs between"
                        " gateways"
                    ),
                    skip="no host in group llm_redis",
                )
            )
        return checks


def _skipped(entry: LeftOut) -> UnitCheck:
    return UnitCheck(
        name=f"{entry.kind} {entry.name}",
        service=entry.name,
        units=[],
        hint="see left_out in the plan",
        skip=entry.reason,
    )
