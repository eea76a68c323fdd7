"""Whether the hosts of an inventory are the machines that it takes them for."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.addresses import flaw, parse, same
from modelyard.catalogue.sourcemap import Origin
from modelyard.compiler.inventory import Findings, Host, Inventory
from modelyard.diagnostics import Diagnostic, did_you_mean, listing

CONTROLLER = ("localhost", "127.0.0.1", "::1")
"""Names of the machine that Ansible runs on, whatever addresses it has."""

SSH = "ssh 22"
"""The way to a host that nothing is said of."""


def check_machines(inventory: Inventory, stack: Sequence[str], out: Findings) -> None:
    """Refuse hosts that are one machine, or another one than their address says."""
    away = _check_local(inventory, stack, out)
    _check_duplicates(inventory, [name for name in stack if name not in away], out)


def _check_local(inventory: Inventory, stack: Sequence[str], out: Findings) -> set[str]:
    """Report hosts under `ansible_connection: local` that are not the machine that Ansible runs
    on: the plan of another machine would be applied to the controller. Return all hosts under it.
    """
    foreign: dict[str, list[tuple[str, str]]] = {}
    local = [name for name in stack if inventory.hosts[name].local]
    for name in local:
        host = inventory.hosts[name]
        own = _llm_address(host)
        if _is_foreign(host.address, inventory):
            foreign.setdefault(str(host.local_origin), []).append((name, host.address))
        elif own and _is_foreign(own, inventory):
            if name not in CONTROLLER:
                foreign.setdefault(str(host.local_origin), []).append((name, own))
                continue
            out.diagnostics.append(
                Diagnostic(
                    "connection-local",
                    "warning",
                    f"llm_address of {name} is {own}, which this machine does not have now",
                    ("llm_address",),
                    inventory.probe(host.variables["llm_address"]),
                    "services there could not start; set it to an address of this machine",
                )
            )
    for members in foreign.values():
        names = [name for name, _ in members]
        addresses = listing(dict.fromkeys(address for _, address in members))
        first = inventory.hosts[names[0]]
        out.refuse(
            "connection-local",
            f"{listing(names)} would be this machine (ansible_connection: local), which does not"
            f" have the address {addresses}",
            ("ansible_connection",),
            first.local_origin or first.address_origin or first.origin,
            "keep ansible_connection: local for the machine that Ansible runs on alone; the others"
            " are reached by ssh",
        )
    away = {name for members in foreign.values() for name, _ in members}
    _check_one_controller(inventory, [name for name in local if name not in away], out)
    return {*local}


def _check_one_controller(inventory: Inventory, local: Sequence[str], out: Findings) -> None:
    """Report hosts that are the controller beside another that is it: those whose names may be
    misspelt each, the others together.
    """
    if len(local) < 2:
        return
    first = next((name for name in local if name in CONTROLLER), local[0])
    hints = {name: meant_host(name, inventory) for name in local if name != first}
    for name, near in hints.items():
        if near:
            hint = f"{near} If not, set ansible_connection: ssh for {name}"
            _tell_same(first, [name], hint, inventory, out)
    if rest := [name for name, near in hints.items() if not near]:
        hint = (
            f"set ansible_connection: ssh for {listing(rest)}, or put {first} into the groups"
            " instead"
        )
        _tell_same(first, rest, hint, inventory, out)


def _tell_same(
    first: str, others: Sequence[str], hint: str, inventory: Inventory, out: Findings
) -> None:
    host = inventory.hosts[others[0]]
    out.refuse(
        "connection-local",
        f"{first} and {listing(others)} would all be this machine (ansible_connection: local)",
        ("ansible_connection",),
        host.origin or host.local_origin,
        hint,
    )


def _is_foreign(address: str, inventory: Inventory) -> bool:
    return parse(address) is not None and address not in inventory.own_addresses


def _llm_address(host: Host) -> str:
    """Return the address that the inventory says others reach a host at, if it is one."""
    given = host.variables.get("llm_address")
    return str.__str__(given) if isinstance(given, str) and not flaw(given) else ""


def _check_duplicates(inventory: Inventory, stack: Sequence[str], out: Findings) -> None:
    """Report each address that several hosts have; what is the same of the same hosts once."""
    claimed: dict[tuple[str, str], list[str]] = {}
    for name in stack:
        for claim in _claims(inventory.hosts[name]):
            claimed.setdefault(claim, []).append(name)
    told: list[set[str]] = []
    for (address, _), names in claimed.items():
        if len(names) > 1 and not any({*names} <= one for one in told):
            told.append({*names})
            _tell_duplicate(address, names, inventory, out)


def _claims(host: Host) -> list[tuple[str, str]]:
    """Return what only one host can have: an address that others or Ansible reach it at, and what
    leads there. Behind one address, several ports may lead to several hosts.
    """
    claims = []
    if called := _llm_address(host):
        claims.append((same(called), ""))
    # RFC 2606: a name that ends so is no machine's. It stands for an address that is not known yet.
    if not host.address.endswith(".invalid"):
        direct = host.way == SSH and not host.local and not flaw(host.address)
        claims.append((same(host.address), "" if direct else host.way))
    return list(dict.fromkeys(claims))


def _tell_duplicate(
    address: str, names: Sequence[str], inventory: Inventory, out: Findings
) -> None:
    places = {name: _place_of(inventory.hosts[name], address, inventory) for name in names}
    stated = [name for name in names if same(_llm_address(inventory.hosts[name])) == address]
    variable = "llm_address" if stated else "ansible_host"
    known = [str(place) for place in places.values() if place]
    common = len(known) > len({*known})
    near = next((hint for name in names if (hint := meant_host(name, inventory))), "")
    if common:
        hint = f"set {variable} for each host, not for a group of them"
    else:
        hint = "each host needs its own address; a machine has one name, which may be in all groups"
    told = listing(f"{name} ({places[name]})" if places[name] else name for name in names)
    out.refuse(
        "duplicate-address",
        f"{listing(names) if common else told} have the same address, {address}",
        (variable,),
        # Who wrote llm_address, or wrote last, wrote the address a second time.
        next((place for name in [*stated[::-1], *names[::-1]] if (place := places[name])), None),
        f"{near} {hint[0].upper()}{hint[1:]}" if near else hint,
    )


def _place_of(host: Host, address: str, inventory: Inventory) -> Origin | None:
    """Return where an address of a host was written."""
    if same(_llm_address(host)) == address:
        return inventory.probe(host.variables["llm_address"])
    return host.address_origin or host.origin


def meant_host(name: str, inventory: Inventory) -> str:
    """Return the hint for a host of which nothing is said, and whose name may be misspelt: `did you
    mean "gpu1"?`, or an empty string.

    A host that is in one of its groups itself was not meant, nor one of which nothing is said
    either.
    """
    if _is_described(name, inventory):
        return ""
    stack = {*inventory.hosts}
    beside = {
        other
        for members in inventory.groups.values()
        if name in members and not stack <= {*members}
        for other in members
    }
    known = {other for members in inventory.groups.values() for other in members}
    meant = {other for other in known - beside if _is_described(other, inventory)}
    return did_you_mean(name, meant - {name})


def _is_described(name: str, inventory: Inventory) -> bool:
    """Return whether the inventory says where a host is, or need not."""
    host = inventory.hosts.get(name)
    if name in CONTROLLER or host is None:
        return True
    return host.address != name or host.variables.get("llm_address") is not None


def known_addresses(host: Host) -> set[str]:
    """Return the addresses that are known to be a host's own."""
    reached = "" if flaw(host.address) or host.way != SSH else same(host.address)
    return {address for address in (same(_llm_address(host)), reached) if address}
