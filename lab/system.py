"""Running programs, looking at processes and mounts, and saying what this machine lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.state import HELD, LabError, cache_dir

PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Program → the Debian package that has it."""

OVERLAYFS_MAGIC = "794c7630"
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
NEEDED_DISK_BYTES = 3 * 1024**3


def run(
    *command: str | Path, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program and return what it printed.

    Raises:
        LabError: the program failed; the message holds its command line and its last words.
    """
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        pass_fds=HELD,
        check=False,
    )
    if done.returncode:
        raise LabError(
            f"'{' '.join(map(str, command))}' failed ({done.returncode}):"
            f" {done.stderr.strip()[-2000:]}"
        )
    return done.stdout


def start_time(pid: int) -> str | None:
    """Return when a process started, in kernel ticks; None if it is gone or only waits to be
    reaped.

    A process id with its start time names one process for as long as the machine runs.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def mounts() -> Iterator[tuple[Path, str]]:
    """Yield mount points and their options, in the order they were mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        yield Path(fields[4].encode().decode("unicode_escape")), fields[-1]


def mounts_under(directory: Path) -> list[Path]:
    """Return the mount points at or below a directory, the last mounted first."""
    return [point for point, _ in mounts() if point == directory or directory in point.parents][
        ::-1
    ]


def lower_layers_in_use() -> set[str]:
    """Return every directory that some overlay on this machine lies on."""
    found: set[str] = set()
    for _, options in mounts():
        for option in options.split(","):
            if option.startswith("lowerdir="):
                found.update(option.removeprefix("lowerdir=").split(":"))
    return found


def cgroup_roots() -> list[Path]:
    """Return where cgroup v2 and, beside it, systemd's own v1 hierarchy are mounted."""
    roots = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            roots.append(Path(left.split()[4]))
    return roots


def has_systemd() -> bool:
    """Whether this machine itself was booted with systemd."""
    return Path("/run/systemd/system").is_dir()


def nameservers() -> list[str]:
    """Return the resolver file's lines a host can use; resolvers that listen only here are left
    out.
    """
    usable = []
    # systemd-resolved's stub listens on loopback, which is another machine's loopback inside a
    # host.
    for source in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if source.exists():
            lines = source.read_text().splitlines()
            usable = [line for line in lines if line.split()[:1] in (["search"], ["options"])]
            servers = [
                line
                for line in lines
                if line.startswith("nameserver") and " 127." not in line and " ::1" not in line
            ]
            if servers:
                return [*usable, *servers]
    return []


def _can_load(module: str) -> bool:
    """Whether the kernel has a module; the first mount loads it."""
    program = shutil.which("modprobe")
    return (
        program is not None
        and subprocess.run([program, "-qn", module], check=False).returncode == 0
    )


def problems() -> list[str]:
    """Return everything that keeps the lab from working here, each with its fix.

    Changes nothing.
    """
    found = []
    if os.geteuid() != 0:
        # Without it, the rest cannot even be looked at.
        return ["the lab needs root (namespaces, mounts, a bridge). Run it as root or with sudo."]
    granted = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    if not granted >> CAP_SYS_ADMIN & 1 or not granted >> CAP_NET_ADMIN & 1:
        found.append(
            "root has no CAP_SYS_ADMIN and CAP_NET_ADMIN here. A container needs --privileged."
        )
    missing = sorted(
        {package for program, package in PACKAGES.items() if not shutil.which(program)}
    )
    if missing:
        found.append(
            "programs are missing. Install them: apt-get install --no-install-recommends"
            f" {' '.join(missing)}"
        )
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _can_load("overlay"):
        found.append("the kernel has no overlayfs. Load it: modprobe overlay")
    if not any((root / "cgroup.controllers").exists() for root in cgroup_roots()):
        found.append(
            "cgroup v2 is not mounted. Mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
        )
    cache = cache_dir()
    existing = next(directory for directory in (cache, *cache.parents) if directory.exists())
    if shutil.which("stat") and run("stat", "-f", "-c", "%t", existing).strip() == OVERLAYFS_MAGIC:
        found.append(
            f"{existing} is itself an overlay, which cannot carry another. Set MODELYARD_CACHE to a"
            " disk."
        )
    free = shutil.disk_usage(existing).free
    if free < NEEDED_DISK_BYTES:
        found.append(
            f"{existing} has {free >> 20} MiB free of {NEEDED_DISK_BYTES >> 20} needed. Set"
            " MODELYARD_CACHE."
        )
    if not nameservers():
        found.append(
            "every nameserver in /etc/resolv.conf is on loopback, out of the hosts' reach."
        )
    return found


def require_working_machine() -> None:
    """Refuse to start on a machine where the lab cannot work.

    Raises:
        LabError: all problems at once.
    """
    # A login shell of a normal user, and cron, have no sbin in their path.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = problems()
    if found:
        raise LabError(
            "this machine cannot run the lab:\n" + "\n".join(f"  - {problem}" for problem in found)
        )
