"""Listening TCP sockets of the host, and who holds them.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
from dataclasses import dataclass

TCP_LISTEN = "0A"
TCP_ESTABLISHED = "01"


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket."""

    address: str  # "0.0.0.0" and "::" mean every address
    port: int
    inode: str


@dataclass(frozen=True)
class Connection:
    """One open TCP connection."""

    remote: str  # ADDRESS:PORT, an IPv6 address in brackets, as HAProxy writes it
    inode: str


@dataclass(frozen=True)
class Holder:
    """Who holds a socket. `unit` is empty for a process that no systemd unit started."""

    unit: str
    program: str
    pid: int

    def __str__(self) -> str:
        if not self.pid:
            return "an unknown process"
        process = f"program {self.program}, pid {self.pid}"
        return f"{self.unit} ({process})" if self.unit else process


def decode_address(text: str) -> str:
    """Turn an address of /proc/net/tcp{,6} (hexadecimal, in the machine's byte order) into the
    usual form.
    """
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    raw = b"".join(struct.pack("=I", word) for word in words)
    address = socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
    return normalise(address)


def normalise(address: str) -> str:
    """Give equal addresses equal spelling; an IPv4 address inside IPv6 becomes the IPv4 address it
    is.
    """
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _rows(proc: str) -> list[list[str]]:
    """Return the rows of the host's tables of TCP sockets."""
    found: list[list[str]] = []
    for table in ("net/tcp", "net/tcp6"):
        try:
            with open(os.path.join(proc, table), encoding="ascii") as handle:
                found += [line.split() for line in handle][1:]
        except FileNotFoundError:
            continue  # no IPv6 here
    return found


def listeners(proc: str = "/proc") -> list[Listener]:
    """Return all listening TCP sockets of the host."""
    found = []
    for row in _rows(proc):
        if row[3] == TCP_LISTEN:
            address, _, port = row[1].partition(":")
            found.append(Listener(decode_address(address), int(port, 16), row[9]))
    return found


def connections(proc: str = "/proc") -> list[Connection]:
    """Return all open TCP connections of the host."""
    found = []
    for row in _rows(proc):
        if row[3] == TCP_ESTABLISHED:
            address, _, port = row[2].partition(":")
            host = decode_address(address)
            where = f"[{host}]" if ":" in host else host
            found.append(Connection(f"{where}:{int(port, 16)}", row[9]))
    return found


def holders(inodes: set[str], proc: str = "/proc") -> dict[str, Holder]:
    """Find the processes that hold these sockets; one that several share goes to the oldest."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, Holder] = {}
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        directory = os.path.join(proc, pid, "fd")
        try:
            descriptors = os.listdir(directory)
        except OSError:
            continue  # it ended, or it is not ours to read
        for descriptor in descriptors:
            try:
                inode = wanted.get(os.readlink(os.path.join(directory, descriptor)))
            except OSError:
                continue
            if inode is not None and inode not in found:
                found[inode] = describe_process(pid, proc)
    return found


def describe_process(pid: str, proc: str) -> Holder:
    """Return the unit and the program name of a process."""
    text = {"cgroup": "", "comm": ""}
    for name in text:
        try:
            with open(os.path.join(proc, pid, name), encoding="utf-8", errors="replace") as handle:
                text[name] = handle.read()
        except OSError:
            continue
    return Holder(unit_of_cgroup(text["cgroup"]), text["comm"].strip(), int(pid))


def unit_of_cgroup(text: str) -> str:
    """Return the service that a /proc/PID/cgroup names, empty for a process outside of any
    service.
    """
    for line in text.splitlines():
        # 0::/… is the unified hierarchy, name=systemd the place of the same information beside
        # cgroup v1.
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" or controllers == "name=systemd":
            services = re.findall(r"[^/]+\.service(?=/|$)", path)
            if services:
                return str(services[-1])
    return ""


def clashes(address: str, listener: Listener) -> bool:
    """Say whether a listener keeps us from binding an address (the ports being equal)."""
    everywhere = {"0.0.0.0", "::"}
    return address in everywhere or listener.address in everywhere or address == listener.address
