"""Which host is what, and how hosts reach each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.catalogue.sourcemap import plain
from modelyard.compiler.emit import View
from modelyard.compiler.inventory import Findings, Inventory
from modelyard.compiler.resolve import Resolved, is_own_address
from modelyard.diagnostics import did_you_mean, listing
from modelyard.names import GATEWAY, LOOPBACK, MONITORING, REDIS


@dataclass(frozen=True, slots=True)
class Topology:
    """Which host is what, and how hosts reach each other."""

    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    redis: str | None
    addresses: Mapping[str, str]
    monitoring: str | None = None

    def callers(self, host: str) -> list[str]:
        """Other hosts that call an engine of this one: gateways, and the Prometheus that watches
        it.
        """
        watching = () if self.monitoring is None else (self.monitoring,)
        return [caller for caller in dict.fromkeys((*self.gateways, *watching)) if caller != host]

    def engine_address(self, host: str) -> str:
        """Return the one address an engine listens on and is called at. llama-server listens on a
        single one.
        """
        return self.addresses[host] if self.callers(host) else LOOPBACK

    def metrics_address(self, host: str) -> str:
        """Return what exporters of a host listen on: only Prometheus asks them."""
        return LOOPBACK if host == self.monitoring else self.addresses[host]

    def redis_listen(self, host: str) -> list[str]:
        """Return the addresses that Redis on `host` listens on: loopback for a gateway there, the
        host's own for gateways elsewhere.
        """
        if self.gateways in ((), (host,)):
            return [LOOPBACK]
        return [LOOPBACK, self.addresses[host]] if host in self.gateways else [self.addresses[host]]

    def view(self, gateway: str, engines: Sequence[str]) -> View:
        """Return the network as the gateway on one host sees it."""
        redis = self.redis
        return View(
            gateway,
            {host: self.engine_address(host) for host in engines},
            None if redis is None else LOOPBACK if redis == gateway else self.addresses[redis],
        )


def build_topology(
    inventory: Inventory, stack: Sequence[str], out: Findings, *, watched: bool
) -> Topology:
    """Return which host is what, by groups and `llm_address`; mistakes in these go into `out`.

    `stack` are the hosts of the top group. With `watched` false no host monitors.
    """
    gateways = tuple(dict.fromkeys(inventory.groups.get(GATEWAY, ())))
    redis = list(dict.fromkeys(inventory.groups.get(REDIS, ())))
    monitoring = list(dict.fromkeys(inventory.groups.get(MONITORING, ()))) if watched else []
    if not gateways:
        near = did_you_mean(
            GATEWAY, [group for group in inventory.groups if group.startswith("llm_")]
        )
        known = GATEWAY in inventory.groups
        out.refuse(
            "no-gateway",
            f"no host is in group {GATEWAY}: clients could not send requests",
            hint="put at least one host into it"
            if known or not near
            else f"{near} Rename it to {GATEWAY}",
        )
    if len(redis) > 1:
        out.refuse(
            "too-many-redis",
            f"group {REDIS} has {listing(redis)}: the gateways share one Redis",
            hint="leave one host in it, or none",
        )
    if len(monitoring) > 1:
        out.refuse(
            "too-many-monitoring",
            f"group {MONITORING} has {listing(monitoring)}: one Prometheus monitors the whole"
            " inventory",
            hint="leave one host in it, or none",
        )
    addresses: dict[str, str] = {}
    for name in stack:
        host = inventory.hosts[name]
        own = host.variables.get("llm_address")
        if own is not None and not (isinstance(own, str) and is_own_address(str(own))):
            out.refuse(
                "address-unusable",
                f"llm_address of {name} is not an IP address that other hosts can reach:"
                f" {'(not shown)' if '@' in str(own) else repr(plain(own))}",
                ("llm_address",),
                inventory.probe(own),
                "set it to the host's IP address in the network that the hosts share, without a"
                " port",
            )
        addresses[name] = str.__str__(own) if isinstance(own, str) else str.__str__(host.address)
    return Topology(
        tuple(stack),
        gateways,
        redis[0] if redis else None,
        addresses,
        monitoring[0] if monitoring else None,
    )


def check_addresses(
    topology: Topology, resolved: Resolved, inventory: Inventory, out: Findings
) -> None:
    """Addresses that other hosts need: of what is called, and of the gateways that are let in."""
    needed: dict[str, str] = {}
    for deployment in resolved.all():
        if deployment.host is not None:
            needed.setdefault(deployment.host, f'"{deployment.model.name}"')
    if topology.redis is not None:
        needed.setdefault(topology.redis, "redis")
    problems: dict[str, str] = {}
    for host, what in needed.items():
        others = [gateway for gateway in topology.gateways if gateway != host]
        if host in topology.addresses and others:
            problems.setdefault(host, f"{what} on {host} is called by the gateway on {others[0]}")
            for caller in others:
                problems.setdefault(
                    caller,
                    f"the firewall admits the gateway on {caller} to {what} on {host} by its"
                    " address",
                )
    watching = topology.monitoring
    for host in topology.hosts if watching is not None else ():
        if host != watching:
            problems.setdefault(host, f"the Prometheus on {watching} scrapes {host}")
            problems.setdefault(
                str(watching),
                f"the firewall admits the Prometheus on {watching} to {host} by its address",
            )
    for host, problem in problems.items():
        address = topology.addresses[host]
        if (
            not is_own_address(address)
            and inventory.hosts[host].variables.get("llm_address") is None
        ):
            out.refuse(
                "address-unusable",
                f'{problem}, but "{address}" is not an IP address that other hosts can reach',
                ("llm_address",),
                None,
                f"set llm_address for {host} in the inventory",
            )
