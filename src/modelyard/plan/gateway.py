"""The parts of a host's plan that are the gateway, its front end and Redis, and what is checked of them."""

from __future__ import annotations

from typing import Any

from modelyard.catalogue.monitoring import Monitoring
from modelyard.compiler.emit import api_base, emit_document
from modelyard.compiler.guard import emit_rules
from modelyard.compiler.resolve import LeftOut
from modelyard.names import (
    GATEWAY_USER,
    LOOPBACK,
    MASTER_KEY,
    REDIS_MONITOR_PASSWORD,
    REDIS_NAMESPACE,
    REDIS_PASSWORD,
    journal,
)
from modelyard.plan.clients import client_plans
from modelyard.plan.scope import CHAT_TIMEOUT_S, Scope

DOOR_UNIT = "modelyard-haproxy.service"


class GatewayParts:
    """Makes what the plans of the gateways' hosts, and of Redis's, say of them."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def redis(self, host: str) -> dict[str, Any] | None:
        if host != self.scope.topology.redis:
            return None
        settings = self.scope.gateway.redis
        unit = "modelyard-redis.service"
        listen = self.scope.topology.redis_listen(host)
        return {
            "listen": listen,
            "port": settings.port,
            "maxmemory_mib": settings.maxmemory_mib,
            "maxmemory_policy": settings.maxmemory_policy,
            "persistence": settings.persistence,
            "secrets": {
                "GATEWAY_PASSWORD": REDIS_PASSWORD,
                **self.scope.former_secret("GATEWAY_PASSWORD", REDIS_PASSWORD),
                **({"MONITOR_PASSWORD": REDIS_MONITOR_PASSWORD} if self.scope.watch else {}),
                **(self.scope.former_secret("MONITOR_PASSWORD", REDIS_MONITOR_PASSWORD) if self.scope.watch else {}),
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

    def litellm(self, host: str) -> dict[str, Any] | None:
        if host not in self.scope.topology.gateways:
            return None
        names = {MASTER_KEY} | {d.secret for d in self.scope.resolved.all() if d.secret}
        if self.scope.topology.redis is not None:
            names.add(REDIS_PASSWORD)
        scope = self.scope
        view = scope.topology.view(host, list(scope.by_host))
        seen = (scope.resolved.deployments, scope.routes, scope.gateway, view, scope.gateway.redis.port)
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
            "version": self.scope.versions.litellm.version if self.scope.versions else None,
            "document": emit_document(*seen),
            "rules": emit_rules(*seen),
            "slots": self.scope.gateway.slots.model_dump(),
            "workers": self.scope.gateway.workers,
            "secrets": {name: name for name in sorted(names)} | self.scope.former_secret(MASTER_KEY, MASTER_KEY),
            "clients": client_plans(self.scope.catalogue),
            "public_names": self.scope.public_names,
            "checks": [
                unit_check,
                *self.gateway_checks("litellm", f"http://{LOOPBACK}:@PORT@", "the gateway", hint),
            ],
        }

    def haproxy(self, host: str) -> dict[str, Any] | None:
        if host not in self.scope.topology.gateways:
            return None
        unit = DOOR_UNIT
        closed = [
            {
                "name": f"{path} is closed from outside",
                "service": "haproxy",
                "kind": "http",
                "url": self.scope.door + path,
                "method": method,
                "expect_status": [403, 404],
                "hint": "the front end's path filter: /opt/modelyard/services/haproxy/current/config/haproxy.cfg",
            }
            for method, path in (("POST", "/model/new"), ("GET", "/ui"))
        ]
        return {
            "listen": list(self.scope.gateway.listen),
            "port": self.scope.gateway.port,
            "slots": self.scope.gateway.slots.model_dump(),
            "stream_timeout_s": self.scope.gateway.timeouts.door_s,
            "body_timeout_s": self.scope.gateway.limits.body_s,
            "connections_per_address": self.scope.gateway.limits.connections_per_address,
            "metrics_listen": [self.scope.watch.address(host)] if self.scope.watch else [],
            "metrics_port": (self.scope.catalogue.monitoring or Monitoring()).exporters.gateway,
            "checks": [
                {
                    "name": "the front end is running",
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
        return self.gateway_checks("haproxy", self.scope.door, "the front end", hint)

    def keys(self, host: str) -> list[dict[str, Any]]:
        """Whether providers elsewhere take our keys. Smoke's part: what they refuse does not hold a release back."""
        view = self.scope.topology.view(host, list(self.scope.by_host))
        elsewhere = {(d.provider_name, d.secret): d for d in self.scope.resolved.all() if d.host is None and d.secret}
        checks: list[dict[str, Any]] = []
        for (provider, secret), deployment in elsewhere.items():
            anthropic = deployment.provider.type == "anthropic"
            path, header = ("/v1/models", "x_api_key") if anthropic else ("/models", "bearer")
            checks.append(
                {
                    "name": f"{provider} accepts the key {secret}",
                    "service": "litellm",
                    "kind": "key",
                    "url": f"{api_base(deployment, view).rstrip('/')}{path}",
                    header: f"litellm/{secret}",
                    "hint": f"correct {secret}, then run site.yml --tags gateway",
                }
            )
        return checks

    def gateway_checks(self, service: str, base: str, what: str, hint: str) -> list[dict[str, Any]]:
        """Ready, the public names, closed without a key, and an answer: at a slot or through the door."""
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
                "names": self.scope.public_names,
                "timeout_s": 10,
                "hint": f"the gateway dropped a missing name at start: {hint}",
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
                "model": resident or self.scope.public_names[0],
                "stream": stream,
                "timeout_s": CHAT_TIMEOUT_S,
                "hint": f"if the engine's own check fails, it is the engine; else {hint}",
            }
            if resident is None:
                check["skip"] = "no model is loaded; checks load no model"
            checks.append(check)
        return checks

    def skipped(self) -> list[dict[str, Any]]:
        """What is left out, as checks that are reported as skipped."""
        checks = [_skipped(entry) for entry in self.scope.resolved.left_out]
        if self.scope.topology.redis is None:
            checks.append(
                {
                    "name": "redis",
                    "service": "redis",
                    "kind": "unit",
                    "units": ["modelyard-redis.service"],
                    "hint": "put one host into llm_redis to share limits and cool-downs between gateways",
                    "skip": "no host in group llm_redis",
                }
            )
        return checks


def _skipped(entry: LeftOut) -> dict[str, Any]:
    return {
        "name": f"{entry.kind} {entry.name}",
        "service": entry.name,
        "kind": "unit",
        "units": [],
        "hint": "see left_out in the plan",
        "skip": entry.reason,
    }
