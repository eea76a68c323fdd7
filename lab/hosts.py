"""A host's life: its disk, its boot, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lab.base import NETWORKD, newest_packages, packages_lock
from lab.network import gateway
from lab.state import Host, Lab, LabError, locked, share_dir, write_atomically
from lab.system import cgroup_roots, has_systemd, mounts_under, nameservers, run, start_time

BOOT_SECONDS = 60.0
STOP_SECONDS = 10.0


def disk(lab: Lab, name: str) -> Path:
    """Return a host's directory: its changes (`upper`), its mounted disk (`root`), its console."""
    return lab.disks / "hosts" / name


def make_keys(lab: Lab) -> None:
    """Make the lab's key to its hosts, and the hosts' own: known here, so no first use is trusted
    blindly.
    """
    for directory in (lab.disks, lab.run / "ssh"):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
    for name in ("id_ed25519", "host_ed25519"):
        key = lab.disks / name
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {lab.name}", "-f", key)


def ssh_options(lab: Lab) -> list[str]:
    """Return the options of every SSH connection: the lab's known hosts, not the user's
    configuration.

    The control path is short, because a socket's has at most 107 characters, and known to `down`,
    because a connection kept open outlives its host.
    """
    return [
        "-F", "/dev/null",
        "-o", f"UserKnownHostsFile={lab.disks}/known_hosts",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes",
        "-o", "IdentitiesOnly=yes",
        "-o", f"ControlPath={lab.run}/ssh/%C",
    ]  # fmt: skip


def ssh_command(lab: Lab, host: Host, command: Sequence[str] = ()) -> list[str]:
    """Return the command line that runs a command on a host, or opens a shell there."""
    key = f"{lab.disks}/id_ed25519"
    return [
        "ssh",
        *ssh_options(lab),
        "-o",
        "LogLevel=ERROR",
        "-i",
        key,
        f"root@{host.address}",
        *command,
    ]


def write_names(lab: Lab) -> None:
    """Tell every host, and SSH on this side, all hosts' names and keys."""
    hosts = lab.hosts()
    lines = ["127.0.0.1 localhost", *(f"{host.address} {host.name}" for host in hosts), ""]
    for host in hosts:
        file = disk(lab, host.name) / "root/etc/hosts"
        if not file.exists() or file.read_text() != "\n".join(lines):
            file.write_text("\n".join(lines))
    key = " ".join((lab.disks / "host_ed25519.pub").read_text().split()[:2])
    write_atomically(
        lab.disks / "known_hosts", "".join(f"{host.address} {key}\n" for host in hosts)
    )


def is_running(lab: Lab, host: Host) -> bool:
    """Whether the host's own nspawn process is alive."""
    return supervisor(lab, host) is not None


def supervisor(lab: Lab, host: Host) -> int | None:
    """Return the process id of the host's nspawn if it lives; an id reused by another process is
    not it.
    """
    try:
        pid, started = (lab.run / "hosts" / f"{host.name}.pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def leader(lab: Lab, host: Host) -> int | None:
    """Return the process id of the host's init."""
    pid = supervisor(lab, host)
    if pid is None:
        return None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def boot(lab: Lab, host: Host) -> None:
    """Mount the host's disk and start it; a host that crashed continues on its old disk."""
    directory = disk(lab, host.name)
    stop(lab, host.name)  # what a crash left of it
    for part in ("upper", "work", "root"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    # `volatile` skips every sync, and marks the disk as untrusted after a kernel crash; that is
    # acceptable here.
    shutil.rmtree(directory / "work/work/incompat", ignore_errors=True)
    if not Path(host.base).is_dir():
        raise LabError(
            f"the disk of {host.name} lies on {host.base}, which is gone. Take the lab down first."
        )
    with locked(packages_lock()):
        packages = newest_packages(host.release)
        layers = f"{packages}:{host.base}" if packages else host.base
        options = f"lowerdir={layers},upperdir={directory}/upper,workdir={directory}/work,volatile"
        run(
            "mount", "-t", "overlay", f"lab-{lab.id}-{host.name}", "-o", options, directory / "root"
        )
    _configure(lab, host, directory / "root")
    _start(lab, host, directory)


def _configure(lab: Lab, host: Host, root: Path) -> None:
    write_atomically(root / "etc/hostname", f"{host.name}\n")
    write_atomically(root / "etc/resolv.conf", "\n".join([*nameservers(), ""]))
    network = NETWORKD.format(address=host.address, gateway=gateway(lab))
    write_atomically(root / "etc/systemd/network/10-host0.network", network)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    write_atomically(
        root / "root/.ssh/authorized_keys", (lab.disks / "id_ed25519.pub").read_text(), 0o600
    )
    write_atomically(
        root / "etc/ssh/ssh_host_ed25519_key", (lab.disks / "host_ed25519").read_text(), 0o600
    )
    # Ansible's apt module fetches lists that are older than an hour; those of the base are at most
    # a day old.
    os.utime(root / "var/lib/apt/lists")


def _start(lab: Lab, host: Host, directory: Path) -> None:
    share_dir().mkdir(parents=True, exist_ok=True)
    machine = lab.machine(host.name)
    command = [
        "systemd-nspawn", "--quiet", "--settings=no", f"--directory={directory}/root",
        f"--machine={machine}", f"--hostname={host.name}", "--register=no", "--keep-unit",
        f"--network-bridge={lab.bridge}", "--private-users=no", "--boot", "--console=pipe",
        "--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--bind-ro={share_dir()}:/srv/lab",
    ]  # fmt: skip
    if has_systemd():
        # The scope is the cgroup that systemd hands over to the host.
        command = [
            "systemd-run",
            "--scope",
            "--quiet",
            "--collect",
            f"--unit={machine}",
            "--property=Delegate=yes",
            *command,
        ]
    cgroups = [] if has_systemd() else _cgroups(machine)
    for cgroup in cgroups:
        cgroup.mkdir(exist_ok=True)
    record = lab.run / "hosts" / f"{host.name}.pid"

    def become_recorded() -> None:
        """Run in the child, before the program: once something runs, it is on record and in its own
        cgroup.

        Without systemd here, nspawn would put all hosts in one cgroup, each init managing the
        others' units.
        """
        write_atomically(record, f"{os.getpid()} {start_time(os.getpid())}")
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    with (directory / "console.log").open("wb") as console:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            cwd="/",
            start_new_session=True,
            preexec_fn=become_recorded,
        )


def wait_until_ready(lab: Lab, host: Host) -> None:
    """Wait until the host answers by SSH and has finished booting.

    Raises:
        LabError: it died or took too long (its console is quoted), or a unit failed.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    console = disk(lab, host.name) / "console.log"
    while not _answers(host.address):
        alive = is_running(lab, host)
        if not alive or time.monotonic() > deadline:
            why = (
                f"did not answer by SSH within {BOOT_SECONDS:.0f} s"
                if alive
                else "died while booting"
            )
            last = "\n".join(console.read_text(errors="replace").splitlines()[-20:])
            raise LabError(f"host {host.name} {why}. The end of its console, {console}:\n{last}")
        time.sleep(0.05)
    booted = subprocess.run(
        ssh_command(
            lab,
            host,
            ["systemctl is-system-running --wait || systemctl --failed --plain --no-legend"],
        ),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if booted.stdout.strip() != "running":
        raise LabError(
            f"host {host.name} is not healthy: {booted.stdout.strip()} {booted.stderr.strip()}"
        )


def _answers(address: str) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection((address, 22), timeout=1) as connection,
    ):
        return connection.recv(4).startswith(b"SSH")
    return False


def stop(lab: Lab, name: str) -> None:
    """Stop a host, however far it came, and unmount its disk. The disk's content stays."""
    pid_file = lab.run / "hosts" / f"{name}.pid"
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid, started = pid_file.read_text().split()
        _terminate(int(pid), started)
    machine = lab.machine(name)
    # A host outlives an nspawn that was killed; its cgroup still knows all its processes.
    if has_systemd():
        for action in (["kill", "--signal=SIGKILL"], ["stop"]):
            subprocess.run(
                ["systemctl", *action, f"{machine}.scope"], check=False, capture_output=True
            )
    else:
        for cgroup in _cgroups(machine):
            _remove_cgroup(cgroup)
    # nspawn removes these itself unless it was killed.
    for kind in ("propagate", "unix-export"):
        shutil.rmtree(Path("/run/systemd/nspawn") / kind / machine, ignore_errors=True)
    for point in mounts_under(disk(lab, name)):
        if subprocess.run(["umount", point], check=False, capture_output=True).returncode:
            run("umount", "--lazy", point)  # a shell's working directory is in it
    pid_file.unlink(missing_ok=True)


def _terminate(pid: int, started: str) -> None:
    """End an nspawn at once: its second SIGTERM means "do not wait for the host's shutdown"."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time(pid) != started:
            return  # the id belongs to somebody else by now
        deadline = time.monotonic() + STOP_SECONDS
        while start_time(pid) == started:
            late = time.monotonic() > deadline
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(0.05)
    finally:
        os.close(handle)


def _cgroups(machine: str) -> list[Path]:
    return [root / machine for root in cgroup_roots()]


def _remove_cgroup(cgroup: Path) -> None:
    """Kill what is left in a cgroup of ours, and remove it with everything below.

    Raises:
        LabError: its processes do not die.
    """
    deadline = time.monotonic() + STOP_SECONDS
    while cgroup.exists():
        try:
            for directory, _, _ in os.walk(cgroup, topdown=False):
                os.rmdir(directory)
        except FileNotFoundError:
            continue  # the host's own systemd was quicker
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(
                    f"cannot remove {cgroup}: {error}. Its processes do not die."
                ) from None
            with contextlib.suppress(
                FileNotFoundError, ProcessLookupError
            ):  # the next round sees the rest
                for processes in cgroup.rglob("cgroup.procs"):
                    for pid in processes.read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.02)
