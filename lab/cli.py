"""The lab's command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab import hosts as life
from lab.base import RELEASES, ensure_base, harvest_packages
from lab.network import PREFIX, ensure_network, free_subnet, remove_network, require_open_forwarding
from lab.state import CLONE, RUN, Host, Lab, LabError, all_labs, locked, write_atomically
from lab.system import mounts_under, problems, require_working_machine

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def up(lab: Lab, names: Sequence[str], release: str) -> None:
    """Make the named hosts run; those that do already stay as they are."""
    started = time.monotonic()
    for name in names:
        if not NAME.fullmatch(name):
            raise LabError(
                f"'{name}' is no host name: lower-case letters, digits and dashes, beginning with a"
                " letter."
            )
    require_working_machine()
    base = ensure_base(release)
    with locked(lab.lock):
        _register(lab)
        life.make_keys(lab)
        ensure_network(lab)
        known = {host.name: host for host in lab.hosts()}
        wanted = []
        for name in names:
            host = known.get(name) or _new_host(lab, name, release, base, known)
            if host.release != release:
                raise LabError(
                    f"{name} already runs {host.release}, not {release}. First: lab/lab down --lab"
                    f" {lab.name}"
                )
            known[name] = host
            wanted.append(host)
        booting = [host for host in wanted if not life.is_running(lab, host)]
        for host in booting:
            life.boot(lab, host)
        life.write_names(lab)
        for host in booting:
            life.wait_until_ready(lab, host)
        leader = life.leader(lab, wanted[0]) if booting else None
        if leader is not None:
            require_open_forwarding(lab, leader)
    for host in wanted:
        state = f"started in {time.monotonic() - started:.1f} s" if host in booting else "was up"
        print(f"lab: {lab.name}/{host.name} {host.address} ({host.release}) {state}")


def _register(lab: Lab) -> None:
    """Give the lab a network and a record, before anything of it exists."""
    with locked(RUN / "lock"):
        if lab.read_record() is None:
            taken = {other.subnet for other in all_labs()}
            record = {
                "clone": str(lab.clone),
                "name": lab.name,
                "disks": str(lab.disks),
                "subnet": free_subnet(lab, taken),
            }
            write_atomically(lab.run / "lab.json", json.dumps(record))


def _new_host(lab: Lab, name: str, release: str, base: Path, known: dict[str, Host]) -> Host:
    taken = {host.address for host in known.values()}
    free = (f"{PREFIX}.{lab.subnet}.{number}" for number in range(11, 255))
    address = next((address for address in free if address not in taken), None)
    if address is None:
        raise LabError(f"lab '{lab.name}' is full: {len(taken)} hosts.")
    # Disks of a lab whose records did not survive a reboot.
    shutil.rmtree(life.disk(lab, name), ignore_errors=True)
    host = Host(name, address, release, str(base))
    lab.save(host)
    return host


def down(lab: Lab) -> None:
    """Take a lab away with all it made, also what a crash left of it."""
    with locked(lab.lock):
        existed = lab.run.exists() or lab.disks.exists()
        recorded = {host.name: host for host in lab.hosts()}
        for socket in (lab.run / "ssh").glob("*"):  # connections that Ansible keeps open
            subprocess.run(
                ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "lab"],
                check=False,
                capture_output=True,
            )
        on_disk = {path.name for path in (lab.disks / "hosts").glob("*")}
        for name in sorted(recorded.keys() | on_disk):
            life.stop(lab, name)
            if name in recorded:
                try:
                    harvest_packages(recorded[name].release, life.disk(lab, name))
                except OSError as error:  # a nicety must not keep the lab from going away
                    print(
                        f"lab: downloaded packages of {name} are not kept: {error}", file=sys.stderr
                    )
        left = mounts_under(lab.disks)
        if left:
            raise LabError(
                f"not removing {lab.disks}, something is mounted in it: {', '.join(map(str, left))}"
            )
        if lab.disks.exists():
            shutil.rmtree(lab.disks)
        with locked(RUN / "lock"):
            remove_network(lab, last=all(other.id == lab.id for other in all_labs()))
            shutil.rmtree(lab.run, ignore_errors=True)
    print(f"lab: {lab.name} is down" if existed else f"lab: {lab.name} was not up")


def inventory(lab: Lab) -> str:
    """Return the lab's hosts and how to reach them, as Ansible's dynamic inventory."""
    common = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": f"{lab.disks}/id_ed25519",
        "ansible_ssh_common_args": " ".join(life.ssh_options(lab)),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    variables = {host.name: {"ansible_host": host.address, **common} for host in lab.hosts()}
    return json.dumps(
        {"_meta": {"hostvars": variables}, "lab": {"hosts": sorted(variables)}}, indent=2
    )


def status() -> None:
    """Print every lab on this machine."""
    for lab in all_labs():
        print(f"{lab.name}  {lab.clone}  {PREFIX}.{lab.subnet}.0/24 on {lab.bridge}")
        for host in lab.hosts():
            state = (
                "running" if life.is_running(lab, host) else "dead (up starts it again on its disk)"
            )
            print(f"  {host.name}  {host.address}  {host.release}  {state}")


def ssh(lab: Lab, name: str, command: Sequence[str]) -> None:
    """Replace this program by an SSH session on a host."""
    host = next((host for host in lab.hosts() if host.name == name), None)
    if host is None:
        there = ", ".join(host.name for host in lab.hosts()) or "none"
        raise LabError(f"no host '{name}' in lab '{lab.name}'. There: {there}")
    words = life.ssh_command(lab, host, command)
    os.execvp(words[0], words)


def doctor() -> int:
    """Print what keeps the lab from working on this machine; return the exit status."""
    with contextlib.suppress(LabError):
        require_working_machine()
    found = problems()
    for problem in found:
        print(f"problem: {problem}")
    if not found:
        print("lab: this machine can run the lab")
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab", description="Throw-away systemd hosts on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    lab = argparse.ArgumentParser(add_help=False)
    default = os.environ.get("MODELYARD_LAB", "default")
    lab.add_argument(
        "--lab", default=default, help="name of the lab (default: $MODELYARD_LAB, else 'default')"
    )
    add = commands.add_parser(
        "up", parents=[lab], help="start hosts; those that run stay as they are"
    )
    add.add_argument("hosts", nargs="+", metavar="HOST")
    add.add_argument(
        "--release", choices=RELEASES, default=os.environ.get("MODELYARD_LAB_RELEASE", "bookworm")
    )
    remove = commands.add_parser(
        "down", parents=[lab], help="take a lab away with everything it made"
    )
    remove.add_argument(
        "--all", action="store_true", help="every lab of this clone, and of clones that are gone"
    )
    commands.add_parser("status", help="all labs on this machine")
    show = commands.add_parser(
        "inventory", parents=[lab], help="the hosts as Ansible's dynamic inventory (JSON)"
    )
    show.add_argument("--list", action="store_true", help="as Ansible calls it; the same")
    enter = commands.add_parser(
        "ssh", parents=[lab], help="run a command on a host, or open a shell"
    )
    enter.add_argument("host")
    enter.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("doctor", help="what keeps the lab from working on this machine")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        match options.command:
            case "up":
                up(Lab.of(options.lab), options.hosts, options.release)
            case "down":
                if options.all:
                    chosen = [
                        lab for lab in all_labs() if lab.clone == CLONE or not lab.clone.exists()
                    ]
                else:
                    chosen = [Lab.of(options.lab)]
                require_working_machine()
                for lab in chosen:
                    down(lab)
            case "status":
                status()
            case "inventory":
                print(inventory(Lab.of(options.lab)))
            case "ssh":
                ssh(Lab.of(options.lab), options.host, options.words)
            case "doctor":
                return doctor()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0
