"""Pools: the hosts that share the requests for one process of an engine, as the front end of each
gateway host sees them.

The gateway has one deployment per provider and model, whose address is the pool's on loopback;
which host answers is HAProxy's to choose (roles/haproxy/templates/haproxy.cfg.j2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.models import Model
from modelyard.compiler.chains import SECTIONS
from modelyard.compiler.listeners import EngineServices
from modelyard.compiler.resolve import Deployment
from modelyard.compiler.routes import Route


@dataclass(frozen=True, slots=True)
class Pool:
    """The processes of one service on all of its hosts. `members` are their deployments, at least
    one.
    """

    name: str
    members: tuple[Deployment, ...]

    @property
    def hosts(self) -> list[str]:
        """The hosts, in the order of the inventory's group."""
        return list(dict.fromkeys(one.host for one in self.members if one.host is not None))

    @property
    def models(self) -> list[Model]:
        """What a process serves, that of the process first and its adapters after it."""
        found = {one.model.name: one.model for one in self.members}
        return sorted(found.values(), key=lambda model: model.adapter_of is not None)

    @property
    def max_parallel(self) -> int | None:
        """Requests that one process gets at once: the model's, else the provider's, else what its
        engine answers at once. None: as many as come.
        """
        first = self.members[0]
        own = None if first.engine.per_provider else self.models[0].max_parallel
        return (
            own
            or first.provider.max_parallel
            or first.engine.parallel(self.models, first.provider.settings)
        )

    def queue_s(self, gateway: Gateway) -> int:
        """Seconds that a request waits for its turn: the model's, else the provider's, else the
        gateway's.
        """
        first = self.members[0]
        own = None if first.engine.per_provider else self.models[0].queue_s
        return own or first.provider.queue_s or gateway.timeouts.queue_s


def followed(
    routes: Iterable[Route], deployments: Mapping[str, Sequence[Deployment]]
) -> frozenset[str]:
    """Return the models that somebody answers in place of when they are away, whichever name is
    asked for. A pool of others has nobody to make way for, so its requests are better held for a
    while than refused.
    """
    found = {name for name, members in deployments.items() if len({one.id for one in members}) > 1}
    for route in routes:
        for section in SECTIONS:
            # What comes first has its ordinary chain on the errors that a pool makes.
            found.update(route.tried(section)[0 if section == "fallbacks" else 1 : -1])
    return frozenset(found)


def build_pools(deployments: Iterable[Deployment], services: EngineServices) -> list[Pool]:
    """Return the pools of what runs on hosts of ours, in catalogue order."""
    members: dict[str, list[Deployment]] = {}
    for one in deployments:
        if one.host is not None:
            members.setdefault(services.pool(one), []).append(one)
    return [Pool(name, tuple(found)) for name, found in members.items()]


def pools_of(pools: Iterable[Pool]) -> Mapping[str, str]:
    """Return the name of the pool of each deployment, by its id in the gateway's document."""
    return {one.id: pool.name for pool in pools for one in pool.members}
