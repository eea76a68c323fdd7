"""Which host is what, and how hosts reach each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.addresses import family, flaw, for_ssh, parse
from modelyard.catalogue.sourcemap import Origin, plain
from modelyard.catalogue.strays import misspelt_group
from modelyard.compiler.emit import View
from modelyard.compiler.hosts import meant_host
from modelyard.compiler.inventory import Findings, Host, Inventory
from modelyard.compiler.resolve import Resolved
from modelyard.diagnostics import listing
from modelyard.names import GATEWAY, LOOPBACK, MONITORING, REDIS
from modelyard.showing import shown


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

    def view(self, gateway: str, pools: Mapping[str, str], pool_port: int) -> View:
        """Return the network as the gateway on one host sees it."""
        redis = self.redis
        return View(
            gateway,
            None if redis is None else LOOPBACK if redis == gateway else self.addresses[redis],
            pools,
            pool_port,
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
        near = misspelt_group(GATEWAY, inventory.groups)
        known = GATEWAY in inventory.groups
        out.refuse(
            "no-gateway",
            f"no host is in group {GATEWAY}: clients could not send requests",
            hint="put at least one host into it"
            if known or not near
            else f"rename group {near} to {GATEWAY}",
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
        if own is not None and (why := flaw(own) if isinstance(own, str) else "not text"):
            out.refuse(
                "address-unusable",
                f"llm_address of {name} is not an IP address that other hosts can reach:"
                f" {shown(plain(own), ('llm_address',))} is {why}",
                ("llm_address",),
                inventory.probe(own),
                "set it to the host's IP address in the network that the hosts share, without a"
                " port",
            )
        if not host.local and (hint := for_ssh(host.address)):
            out.refuse(
                "address-unusable",
                f"ansible_host of {name} has more in it than a name or an address",
                ("ansible_host",),
                host.address_origin or host.origin,
                hint,
            )
        addresses[name] = str.__str__(own) if isinstance(own, str) else str.__str__(host.address)
    return Topology(
        tuple(stack),
        gateways,
        redis[0] if redis else None,
        addresses,
        monitoring[0] if monitoring else None,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """A connection from one host to another. `reaches` and `admits` say what it needs the address
    of the one that is called for, and that of the caller.
    """

    caller: str
    called: str
    reaches: str
    admits: str


def _calls(topology: Topology, resolved: Resolved) -> list[_Call]:
    """Return the calls between hosts: of gateways, and of the Prometheus that watches all."""
    needed: dict[str, str] = {}
    for deployment in resolved.all():
        if deployment.host is not None:
            needed.setdefault(deployment.host, f'"{deployment.model.name}"')
    if topology.redis is not None:
        needed.setdefault(topology.redis, "redis")
    calls = [
        _Call(
            gateway,
            host,
            f"{what} on {host} is called by the gateway on {gateway}",
            f"the firewall admits the gateway on {gateway} to {what} on {host} by its address",
        )
        for host, what in needed.items()
        for gateway in topology.gateways
    ]
    watching = topology.monitoring
    calls += [
        _Call(
            watching,
            host,
            f"the Prometheus on {watching} scrapes {host}",
            f"the firewall admits the Prometheus on {watching} to {host} by its address",
        )
        for host in (topology.hosts if watching is not None else ())
        if watching is not None
    ]
    # A host outside the stack has no address here, and has been told of.
    known = topology.addresses
    return [
        call
        for call in calls
        if call.caller != call.called and call.caller in known and call.called in known
    ]


def check_addresses(
    topology: Topology, resolved: Resolved, inventory: Inventory, out: Findings
) -> None:
    """Addresses that other hosts need: of what is called, and of the callers that are let in."""
    calls = _calls(topology, resolved)
    problems: dict[str, str] = {}
    for call in calls:
        problems.setdefault(call.called, call.reaches)
        problems.setdefault(call.caller, call.admits)
    for name, problem in problems.items():
        address, host = topology.addresses[name], inventory.hosts[name]
        why = flaw(address)
        if why and host.variables.get("llm_address") is None and not for_ssh(address):
            near = meant_host(name, inventory)
            hint = f"set llm_address for {name} in the inventory"
            out.refuse(
                "address-unusable",
                f'{problem}, but "{address}" is not an IP address that other hosts can reach'
                if parse(address) is None
                else f'{problem}, but "{address}" is {why}',
                ("llm_address",),
                host.address_origin or host.origin,
                f"{near} If not, {hint}" if near else hint,
            )
    _check_families(topology, calls, inventory, out)


def _check_families(
    topology: Topology, calls: Sequence[_Call], inventory: Inventory, out: Findings
) -> None:
    """Report hosts whose address is of another family than that of a host they call, or that calls
    them: the firewall admits callers by their address alone.
    """
    families = {
        name: family(address) for name, address in topology.addresses.items() if not flaw(address)
    }
    counts = Counter(families.values())
    told: set[str] = set()
    for call in calls:
        caller, called = families.get(call.caller), families.get(call.called)
        if caller is None or called is None or caller == called:
            continue
        # The fewer are wrong; of two that are equally many, the one that is called.
        odd = call.caller if counts[caller] < counts[called] else call.called
        if odd in told:
            continue
        told.add(odd)
        host, other = inventory.hosts[odd], 10 - (families[odd] or 0)
        out.refuse(
            "address-unusable",
            f"{call.reaches}, but {call.called} has an IPv{called} address and {call.caller} an"
            f" IPv{caller} address",
            ("llm_address",),
            _place(host, inventory),
            f"set llm_address of {odd} to its IPv{other} address: hosts that call each other need"
            " addresses of one family",
        )


def _place(host: Host, inventory: Inventory) -> Origin | None:
    """Return where the address of a host was written."""
    given = host.variables.get("llm_address")
    return host.address_origin or host.origin if given is None else inventory.probe(given)
