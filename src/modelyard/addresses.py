"""IP addresses: which of them a host can have, and which are the same."""

from __future__ import annotations

import ipaddress
import re

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse(text: str) -> IP | None:
    """Return an IP address; None if text is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def flaw(text: str) -> str:
    """Return why other hosts cannot reach a host at this address, as "a multicast address"; empty
    if they can.

    Networks and their broadcast addresses are not known here: 10.0.0.255 may be a host.
    """
    ip = parse(text)
    if ip is None:
        return "not an IP address"
    if ip.is_loopback:
        return "a loopback address"
    return unbindable(text) or ("the unspecified address" if ip.is_unspecified else "")


def unbindable(text: str) -> str:
    """Return why no service can listen on an IP address; empty if one can."""
    ip = parse(text)
    if ip is None or ip.is_unspecified:
        return ""
    if ip.is_multicast:
        return "a multicast address"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return f"an IPv4 address in IPv6 notation: write {ip.ipv4_mapped}"
        # Measured: neither HAProxy 2.6 nor nftables 1.0.6 accepts a zone, and without it nothing
        # can listen there.
        if ip.is_link_local:
            return "a link-local address"
        return "an address with a zone" if ip.scope_id else ""
    if ip == ipaddress.IPv4Address("255.255.255.255"):
        return "the broadcast address"
    # RFC 1122 (3.2.1.3) and RFC 1112 (4): "this network", and reserved.
    return "a reserved address" if ip.is_reserved or int(ip) >> 24 == 0 else ""


def not_bare(text: str) -> str:
    """Return the hint for text that has more than an IP address in it, or a name; empty for an
    address, and for what is neither.
    """
    if parse(text) is not None:
        return ""
    text = text.strip()
    if (inside := re.fullmatch(r"\[([^\[\]]+)\](?::[0-9]+)?", text)) and parse(inside[1]):
        return f"write {inside[1]}, without brackets and port"
    bare, _, port = text.rpartition(":")
    if port.isdecimal() and parse(bare):
        return f"write {bare}: the port is set by a key of its own"
    bare, _, bits = text.partition("/")
    if bits.isdecimal() and parse(bare):
        return f"write the address of a host, without the network's /{bits}"
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*(\.[A-Za-z0-9-]+)*", text):
        return "write the address that the name stands for"
    return f"write {text}" if parse(text) else ""


def for_ssh(text: str) -> str:
    """Return the hint for an `ansible_host` that has a port or a user in it, as ssh and URLs have
    them; empty for any other one.
    """
    if "@" in text:
        return "write what is behind the @, and what is before it as ansible_user"
    bare, _, port = text.rpartition(":")
    bare = bare.removeprefix("[").removesuffix("]") if text.startswith("[") else bare
    if port.isdecimal() and bare and (":" not in bare or parse(bare)) and not parse(text):
        return f"write ansible_host: {bare}, and ansible_port: {port}"
    return ""


def same(text: str) -> str:
    """Return an IP address in the one way that it is compared in; other text in lower case."""
    ip = parse(text)
    return text.casefold() if ip is None else str(ip)


def family(text: str) -> int | None:
    """Return 4 or 6; None if text is no IP address."""
    ip = parse(text)
    return None if ip is None else ip.version
