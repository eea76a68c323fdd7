"""The network of a lab: a bridge, an address, one masquerade rule, and forwarding while any lab is
up.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.state import RUN, Lab, LabError
from lab.system import run

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
REMEMBERED_FORWARD = RUN / "ip_forward"

PREFIX = "10.213"
"""Labs take 10.213.N.0/24."""


def free_subnet(lab: Lab, taken: set[int]) -> int:
    """Return an N that no lab has and no route of this machine covers; the same N each time, if it
    is free.

    Raises:
        LabError: all 256 are taken.
    """
    routed = {str(route.get("dst")) for route in json.loads(run("ip", "-json", "route", "show"))}
    first = int(lab.id, 16) % 256
    order: list[int] = [*range(first, 256), *range(first)]
    for number in order:
        if number not in taken and f"{PREFIX}.{number}.0/24" not in routed:
            return number
    raise LabError(
        f"every network {PREFIX}.0.0/24 to {PREFIX}.255.0/24 is taken. Take a lab down: lab/lab"
        " status"
    )


def gateway(lab: Lab) -> str:
    """Return this machine's address in the lab."""
    return f"{PREFIX}.{lab.subnet}.1"


def _exists(interface: str) -> bool:
    return any(
        link["ifname"] == interface for link in json.loads(run("ip", "-json", "link", "show"))
    )


def ensure_network(lab: Lab) -> None:
    """Create what is missing of the lab's network.

    Raises:
        LabError: the kernel lacks bridges or nftables.
    """
    if not _exists(lab.bridge):
        try:
            run("ip", "link", "add", lab.bridge, "type", "bridge", "forward_delay", "0")
        except LabError as error:
            raise LabError(
                f"{error}\nThe kernel may lack bridges. Load the module: modprobe bridge"
            ) from None
    run("ip", "address", "replace", f"{gateway(lab)}/24", "dev", lab.bridge)
    run("ip", "link", "set", lab.bridge, "up")
    rules = f"""
        table ip {lab.table} {{}}
        delete table ip {lab.table}
        table ip {lab.table} {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {PREFIX}.{lab.subnet}.0/24 oifname != "{lab.bridge}" masquerade
            }}
        }}
    """
    try:
        run("nft", "-f", "-", stdin=rules)
    except LabError as error:
        raise LabError(
            f"{error}\nThe kernel may lack nftables' NAT. Load it: modprobe nft_chain_nat nft_masq"
        ) from None
    if FORWARD.read_text().strip() != "1":
        # Remembered first: killed in between, the last `down` restores what was already right.
        REMEMBERED_FORWARD.write_text(FORWARD.read_text())
        FORWARD.write_text("1\n")


def remove_network(lab: Lab, *, last: bool) -> None:
    """Remove the lab's network; after the last lab, put forwarding back if it was ours."""
    if lab.table in run("nft", "list", "tables", "ip").split():
        run("nft", "delete", "table", "ip", lab.table)
    if _exists(lab.bridge):
        run("ip", "link", "delete", lab.bridge)
    if last and REMEMBERED_FORWARD.exists():
        FORWARD.write_text(REMEMBERED_FORWARD.read_text())
        REMEMBERED_FORWARD.unlink()


def dropping_forward_chains() -> Iterator[str]:
    """Yield other firewalls' chains whose policy drops forwarded packets."""
    for entry in json.loads(run("nft", "-j", "list", "chains"))["nftables"]:
        chain = entry.get("chain", {})
        if (
            chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and chain["family"] in ("ip", "inet", "bridge")
        ):
            yield f"nft chain {chain['family']} {chain['table']} {chain['name']}"
    # nft does not show the old kernel interface, and listing that loads it: look only if it is in
    # use.
    tables = Path("/proc/net/ip_tables_names")
    if tables.exists() and "filter" in tables.read_text().split():
        try:
            listed = run("iptables-legacy", "-S", "FORWARD")
        except (LabError, FileNotFoundError):
            return
        if "-P FORWARD DROP" in listed:
            yield "iptables-legacy chain FORWARD"


def require_open_forwarding(lab: Lab, leader: int) -> None:
    """Refuse a lab whose hosts cannot reach the outside because of another firewall.

    Args:
        lab: the lab.
        leader: process id of a host's init, to ask a name server from inside its network.

    Raises:
        LabError: a foreign chain drops forwarded packets, and the host indeed gets no answer.
    """
    chains = list(dropping_forward_chains())
    if not chains or _name_server_answers(leader):
        return
    listed = "\n".join(f"  - {chain}" for chain in chains)
    raise LabError(
        f"hosts of lab '{lab.name}' cannot reach the network: another firewall drops forwarded"
        f" packets:\n{listed}\nAllow the lab's bridge {lab.bridge} there, in both directions, for"
        f" example:\n  Docker:   iptables -I DOCKER-USER -i {lab.bridge} -j ACCEPT  (and the same"
        f" with -o)\n  nftables: nft insert rule FAMILY TABLE CHAIN iifname {lab.bridge} accept "
        f" (and with oifname)\n  ufw:      ufw route allow in on {lab.bridge}  (and with out on)"
    )


def _name_server_answers(leader: int) -> bool:
    """Ask the host's first name server, from within the host's network; wait two seconds at
    most.
    """
    probe = (
        "import socket,sys\nserver=next(line.split()[1] for line in open('/etc/resolv.conf') if"
        " line.startswith('nameserver'))\nquery=socket.socket(socket.AF_INET6 if ':' in server else"
        " socket.AF_INET, socket.SOCK_DGRAM)\nquery.settimeout(1)\nfor attempt in range(2):\n   "
        " query.sendto(b'ml\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\1', (server, 53))\n    try:"
        " sys.exit(not query.recv(512))\n    except OSError: pass\nsys.exit(1)\n"
    )
    inside = ["nsenter", "-t", str(leader), "-n", "-m", "/usr/bin/python3", "-c", probe]
    return subprocess.run(inside, check=False, capture_output=True).returncode == 0
