"""What reaches what by the addresses that the catalogue says: clients the front end, and gateways
what runs elsewhere.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from modelyard.addresses import parse, same
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.base_urls import check_base_urls
from modelyard.compiler.hosts import known_addresses
from modelyard.compiler.inventory import Inventory
from modelyard.compiler.resolve import Resolved
from modelyard.compiler.topology import Topology
from modelyard.diagnostics import Report, listing
from modelyard.urls import is_loopback


def check_reach(
    model: Catalogue,
    resolved: Resolved,
    topology: Topology,
    inventory: Inventory,
    report: Report,
    broken: frozenset[Path],
) -> None:
    """Check where the front end listens, unless that was refused already, and what gateways call on
    loopback.
    """
    if not any(place[:2] in (("gateway",), ("gateway", "listen")) for place in broken):
        _check_listen(model, topology, inventory, report)
    _check_loopback(model, resolved, topology, inventory, report)
    report.found += check_base_urls(model, topology, inventory, report.source, broken)


def _check_listen(
    model: Catalogue, topology: Topology, inventory: Inventory, report: Report
) -> None:
    """Check the addresses of the front end, which are the same on every host of it."""
    gateways = [name for name in topology.gateways if name in inventory.hosts]
    of_host = {name: known_addresses(inventory.hosts[name]) for name in topology.hosts}
    path: Path = ("gateway", "listen")
    every = "0.0.0.0 is every IPv4 address of each gateway's host, :: every address"
    for position, address in enumerate(model.gateway.listen):
        owners = [name for name, known in of_host.items() if same(address) in known]
        others = [name for name in gateways if name not in owners]
        if owners and others:
            report.error(
                "listen-address",
                f"{address} is the address of {listing(owners)}: the front end of"
                f" {listing(others)} cannot listen on it",
                (*path, position),
                every,
            )
        elif not owners and len(gateways) > 1 and not _is_everywhere(address):
            report.warning(
                "listen-address",
                f"the front ends of {listing(gateways)} all listen on {address}, which can be an"
                " address of one of them at a time",
                (*path, position),
                every,
            )
    if len(gateways) > 1 and all(_is_loopback(address) for address in model.gateway.listen):
        report.warning(
            "listen-address",
            f"the front ends of {listing(gateways)} listen on loopback: no other host reaches them",
            path,
            f"set llm_overrides: {{gateway: {{listen: [0.0.0.0]}}}}; {every}",
        )


def _is_everywhere(address: str) -> bool:
    ip = parse(address)
    return ip is None or ip.is_unspecified or ip.is_loopback


def _is_loopback(address: str) -> bool:
    ip = parse(address)
    return ip is not None and ip.is_loopback


def _check_loopback(
    model: Catalogue, resolved: Resolved, topology: Topology, inventory: Inventory, report: Report
) -> None:
    """Warn of providers on loopback where that is another machine for each gateway, or not the one
    that the user sits at.
    """
    remote = [
        name
        for name in topology.gateways
        if name in inventory.hosts and not inventory.hosts[name].local
    ]
    if not remote or len(topology.hosts) == 1:
        return
    for name in dict.fromkeys(one.provider_name for one in resolved.all() if one.host is None):
        url = str(model.providers[name].base_url)
        where = urlsplit(url).hostname or ""
        if is_loopback(where):
            report.warning(
                "loopback-provider",
                f'provider "{name}" is at {url}: that is the host of each gateway itself'
                f" ({listing(remote)})",
                ("providers", name, "base_url"),
                "write an address that every gateway reaches, unless it runs beside each of them",
            )
