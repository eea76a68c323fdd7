"""Which addresses the controller has."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable


def own(addresses: Iterable[str]) -> frozenset[str]:
    """Return those of `addresses` that this machine has. What is no IP address is left out.

    An address is ours if a socket can be bound to it: that needs no list of interfaces, which each
    system gives in another way, and sends nothing.
    """
    return frozenset(address for address in addresses if _is_own(address))


def _is_own(address: str) -> bool:
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
    except (ValueError, OSError):
        return False
    return True
