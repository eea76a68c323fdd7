"""URLs of what runs elsewhere: whether they can be called, and what the gateway calls for them."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from modelyard.addresses import IP, parse
from modelyard.showing import code_point

VERSIONED = ("openai", "ollama_cloud")
"""Provider types whose API is below `/v1`: without a path every call would be a 404 or a page."""

UNVERSIONED = ("anthropic",)
"""Provider types for which the gateway adds `/v1` itself."""

PRIVATE = frozenset(
    {"local", "localhost", "localdomain", "lan", "home", "internal", "intranet", "corp", "private"}
    | {"arpa", "test", "invalid", "example"}
)
"""Last labels of names that no public name server answers for (RFC 2606, 6761, 6762 and 8375, and
what routers and companies use)."""

LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
"""Names that /etc/hosts of Debian and its like have for loopback addresses."""

Fault = tuple[str, str]
"""What is wrong with an address, and the hint."""

_ENDPOINT = re.compile(
    r"(/chat/completions|(?<=/v1)/(completions|embeddings|responses|messages|models|rerank|v1))$"
)
_PLACEHOLDER = re.compile(r"[${}<>\"\\^`|]")
_VARIABLE = (
    "a URL has no variables or placeholders",
    'write it out, or as a template of Ansible: "https://{{ host_of_the_api }}/v1"',
)


def lowered(url: str) -> str:
    """Return a URL with its scheme and host in lower case, which are the same there (RFC 3986)."""
    begin = re.match(r"[A-Za-z]+://[^/?#@]*(?=[/?#]|$)", url)
    return url.replace(begin[0], begin[0].lower(), 1) if begin else url


def fault(url: str) -> Fault | None:
    """Return what is wrong with a base URL, None if nothing is. It never repeats a password."""
    if re.search(r"\s", url):
        return "a base URL must not have white space", "remove it"
    if found := server_fault(url):
        return found
    if re.search(r"[{}<>\"\\^`|]", url):
        return _VARIABLE
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        return "a base URL must not have a query or a fragment", "end it before the ? or #"
    if "//" in parts.path:
        return "a base URL has no empty part in its path", "write one / instead of two"
    if found_path := _ENDPOINT.search(parts.path.rstrip("/")):
        base = url.rstrip("/").removesuffix(found_path[0])
        return (
            f"a base URL ends before {found_path[0]}: the gateway adds the path of each request",
            f'write "{base}"',
        )
    return None


def unseen_fault(url: str) -> Fault | None:
    """Return what is wrong with the characters of a URL: it has those of ASCII only (RFC 3986)."""
    found = next((one for one in url if not ("!" <= one <= "~")), None)
    if found is None:
        return None
    escaped = quote(found)
    hint = f'remove it, or write "{escaped}" if it is meant' if found.isprintable() else "remove it"
    return f"a URL has no {code_point(found)}", hint


def server_fault(url: str) -> Fault | None:
    """Return what is wrong with scheme, host and port of a URL, None if nothing is."""
    begin = "a URL must begin with http:// or https:// and name a host"
    scheme, _, rest = url.partition("://")
    server = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme not in ("http", "https") or not server:
        return begin, "like https://api.example.org/v1"
    if server in ("http:", "https:") and re.match(r"https?:/*(?=[^/])", rest):
        last = re.sub(r"^(https?:/*)+", "", url)
        scheme = re.findall(r"https?(?=:/)", url)[-1]
        hint = "write the scheme once" if "@" in url else f'write "{scheme}://{last}"'
        return "a URL has its scheme once", hint
    if "@" in server:
        hint = "name the secret in api_key_env"
        return "a URL must not contain credentials", hint
    if _PLACEHOLDER.search(server):
        return _VARIABLE
    ipv6 = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", server)
    host, port = (ipv6[1], ipv6[2]) if ipv6 else _split(server)
    if not ipv6 and ":" in host:
        return "an IPv6 address in a URL has brackets", "like http://[2001:db8::10]:8080/v1"
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        return "the port in a URL is a number from 1 to 65535", "write the port it listens on"
    return _host_fault(host, is_ip=ipv6 is not None)


def _split(server: str) -> tuple[str, str | None]:
    host, colon, port = server.rpartition(":")
    return (host, port) if colon else (server, None)


def _host_fault(host: str, *, is_ip: bool) -> Fault | None:
    like = "an IP address looks like 192.0.2.10 or 2001:db8::10"
    # Whatever ends in a number is read as an IPv4 address (RFC 3986, and how sockets do it).
    if is_ip or re.fullmatch(r"(.*\.)?(\d+|0[xX][0-9a-fA-F]*)", host):
        ip = parse(host)
        if ip is None:
            return f"{host} is no IP address", like
        kind = _unreachable(ip)
        return (f"{host} is {kind}", "write the address of the host itself") if kind else None
    if not host.isascii():
        hint = "write the ASCII form of the name, which begins with xn--"
        return "the host in a URL has letters of ASCII only", hint
    label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if len(host) > 253 or not re.fullmatch(rf"{label}(\.{label})*\.?", host):
        return f"{host!r} is no name of a host", "letters, digits, - and dots, like api.example.org"
    return None


def _unreachable(ip: IP) -> str:
    """Return why nothing can be called at an address; empty if something can."""
    if ip.is_unspecified:
        return "no address of a host: it stands for all addresses of a listener"
    if ip.is_multicast:
        return "a multicast address"
    if ip.version == 4 and (ip.is_reserved or str(ip).startswith("0.")):
        return "a reserved address"
    if ip.version == 6 and ip.is_link_local and "%" not in str(ip):
        return "a link-local address without its interface"
    return ""


def corrected(kind: str, url: str) -> tuple[str, str]:
    """Return the address that a provider of type `kind` has, and why it is not the given one (empty
    if it is).
    """
    path = urlsplit(url).path
    if kind in VERSIONED and not path:
        return f"{url}/v1", "with /v1: the gateway calls BASE_URL/chat/completions"
    if kind in UNVERSIONED and path == "/v1":
        return url.removesuffix("/v1"), "without /v1: the gateway adds it"
    return url, ""


def server_of(url: str) -> tuple[str, int]:
    """Return host and port of a valid URL. A name is in lower case, without a dot at its end."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """Return whether a host of a URL is the one that calls it."""
    ip = parse(host)
    if ip is None:
        return host in LOOPBACK_NAMES or host.endswith(".localhost")
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def is_public(host: str) -> bool:
    """Return whether a host of a URL is out in the internet, as far as that can be seen."""
    ip = parse(host)
    return ip.is_global if ip else "." in host and host.rpartition(".")[2] not in PRIVATE
