"""In which order hosts change, and which of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from modelyard.plan.scope import Scope


class Together:
    """What must not change at the same time.

    `pools` are the hosts of each pool that has several: one of them has to stay. `alternatives` are
    for each public name the hosts that are the only ones of their pool: one of these changes at a
    time, as the others answer for it. `gateways` are asked by all clients.
    """

    def __init__(
        self,
        pools: Iterable[frozenset[str]],
        alternatives: Iterable[frozenset[str]],
        gateways: frozenset[str],
    ) -> None:
        self._pools = _by_host(pools)
        self._only = _by_host([*alternatives, gateways])

    def fits(self, wave: Iterable[str], host: str) -> bool:
        """Return whether a host may change together with those of a wave."""
        before, after = frozenset(wave), frozenset([*wave, host])
        return not any(pool <= after for pool in self._pools.get(host, ())) and not any(
            only & before for only in self._only.get(host, ())
        )


def _by_host(sets: Iterable[frozenset[str]]) -> dict[str, list[frozenset[str]]]:
    """Return by host the sets that it is in, each once."""
    found: dict[str, list[frozenset[str]]] = {}
    for one in dict.fromkeys(sets):
        for host in one:
            found.setdefault(host, []).append(one)
    return found


def together(scope: Scope) -> Together:
    """Return what of a catalogue must not change at the same time."""
    of_model: dict[str, list[frozenset[str]]] = {}
    for pool in scope.pools:
        for member in pool.members:
            of_model.setdefault(member.model.name, []).append(frozenset(pool.hosts))
    shared = [hosts for pools in of_model.values() for hosts in pools if len(hosts) > 1]
    alternatives = [
        frozenset(
            host
            for name in route.attempts
            for hosts in of_model.get(name, ())
            if len(hosts) == 1
            for host in hosts
        )
        for route in scope.routes
    ]
    return Together(shared, alternatives, frozenset(scope.topology.gateways))


def build_waves(
    hosts: Sequence[str], first: str | None, size: int, apart: Together
) -> list[list[str]]:
    """Return the waves: a first host alone, then up to `size` hosts that may change together, in
    the order of the inventory.
    """
    left = sorted(hosts, key=lambda host: host != first)
    waves = [[left.pop(0)]] if left else []
    while left:
        wave: list[str] = []
        for host in left:
            if len(wave) < size and apart.fits(wave, host):
                wave.append(host)
        # One host alone always may: what is on it changes one after the other.
        wave = wave or left[:1]
        left = [host for host in left if host not in wave]
        waves.append(wave)
    return waves


def silent(scope: Scope) -> dict[str, list[str]]:
    """Return by host the public names that nothing else answers while one of its engines
    restarts.
    """
    found: dict[str, list[str]] = {}
    for route in scope.routes:
        members = [m for name in route.attempts for m in scope.resolved.deployments[name]]
        places = {(m.host, scope.services.of(m) if m.host is not None else m.id) for m in members}
        if len(places) == 1 and (host := members[0].host) is not None:
            found.setdefault(host, []).append(route.name)
    return found


def plan_rollout(scope: Scope) -> dict[str, Any]:
    """Return what the playbooks have to know: the settings, `waves` and `silent`."""
    settings = scope.catalogue.rollout
    hosts = scope.topology.hosts
    size = settings.size(len(hosts))
    return {
        **settings.model_dump(exclude={"first", "batch"}),
        "waves": build_waves(hosts, settings.first, size, together(scope)),
        "silent": silent(scope),
    }
