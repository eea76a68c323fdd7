"""A machine of the tests' own: a network, mount and record namespace in which a lab is alone.

So "leaves nothing behind" can be compared exactly, whatever else runs on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parent.parent.parent


@dataclass
class Machine:
    """Runs the lab's program where nothing else runs."""

    cache: Path
    holder: subprocess.Popen[bytes]
    clones: list[Path] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def command(self, *words: str | Path, environment: dict[str, str] | None = None) -> list[str]:
        """Return the command line that runs something inside."""
        known = {"MODELYARD_CACHE": self.cache, "MODELYARD_LAB": "pytest", **(environment or {})}
        variables = [f"{key}={value}" for key, value in known.items()]
        return [
            "nsenter",
            "-t",
            str(self.holder.pid),
            "-n",
            "-m",
            "env",
            *variables,
            *map(str, words),
        ]

    def run(
        self, *words: str | Path, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run something inside and return what it did."""
        command = self.command(*words, environment=environment)
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    def lab(self, *words: str, clone: Path = CLONE) -> str:
        """Run the lab's program, which must succeed; return what it printed."""
        done = self.run(clone / "lab/lab", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def records(self) -> list[Path]:
        """Return the process records of all hosts."""
        return sorted(
            Path(f"/proc/{self.holder.pid}/root/run/modelyard-lab").glob("labs/*/hosts/*.pid")
        )

    def nspawn(self, host: str) -> int:
        """Return the process id of a host's nspawn."""
        (record,) = [record for record in self.records() if record.stem == host]
        return int(record.read_text().split()[0])

    def nspawn_of(self, clone: Path) -> int:
        """Return the process id of the only host of a clone's lab."""
        for record in self.records():
            lab = json.loads((record.parent.parent / "lab.json").read_text())
            if lab["clone"] == str(clone):
                return int(record.read_text().split()[0])
        raise AssertionError(f"no lab of {clone}")

    def forwarding(self) -> str:
        """Return the kernel's forwarding switch, which every network namespace has for itself."""
        return self.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip()

    def state(self) -> dict[str, object]:
        """Return everything a lab could leave behind."""
        own = Path(f"/proc/{self.holder.pid}/ns/net").stat().st_ino
        processes = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended, or is none of ours
                if process.name == str(self.holder.pid):
                    continue
                if (process / "ns/net").stat().st_ino == own or self.owns(
                    (process / "cgroup").read_text()
                ):
                    processes.append((process / "cmdline").read_bytes())
        records = Path(f"/proc/{self.holder.pid}/root/run/modelyard-lab")
        mounts = Path(f"/proc/{self.holder.pid}/mounts").read_text().splitlines()
        return {
            # Those of other labs come and go beside this test.
            "mounts": [
                line for line in mounts if "/lab/run/" not in line or str(self.cache) in line
            ],
            "processes": sorted(processes),
            "links": sorted(
                line.split()[0] for line in self.run("ip", "-br", "link").stdout.splitlines()
            ),
            "firewall": self.run("nft", "list", "ruleset").stdout,
            "forwarding": self.forwarding(),
            "labs": sorted(path.name for path in records.glob("labs/*")),
            "disks": sorted(path.name for path in (self.cache / "lab/run").glob("*")),
            "cgroups": sorted(
                str(path)
                for path in Path("/sys/fs/cgroup").glob("*/modelyard-lab-*")
                if self.owns(path.name)
            ),
        }

    def owns(self, cgroup: str) -> bool:
        """Whether a cgroup's name is that of one of this machine's hosts."""
        return any(f"modelyard-lab-{lab}-" in cgroup for lab in self.seen)

    def remember(self) -> None:
        """Remember the labs that exist, so that their cgroups are looked for after they are
        gone."""
        self.seen |= {path.name for path in (self.cache / "lab/run").glob("*")}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of base roots, with today's in it."""
    code = "from lab import base; print(base.ensure_base('bookworm').parent)"
    made = subprocess.run(
        ["python3", "-c", code], cwd=CLONE, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.splitlines()[-1])


@pytest.fixture
def machine(tmp_path: Path, bases: Path) -> Iterator[Machine]:
    """Yield a machine; take its labs away afterwards, whatever the test did."""
    cache = tmp_path / "cache"
    (cache / "lab").mkdir(parents=True)
    (cache / "lab/bases").symlink_to(bases)
    script = """
        mkdir -p /run/modelyard-lab && mount -t tmpfs lab-test /run/modelyard-lab && ip link set lo up
        echo 0 > /proc/sys/net/ipv4/ip_forward # a new namespace begins with the machine's setting
        echo ready && exec sleep 3600
    """
    isolated = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script]
    holder = subprocess.Popen(isolated, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    one = Machine(cache, holder)
    yield one
    one.run(CLONE / "lab/lab", "down", "--all")
    for clone in one.clones:
        one.run(clone / "lab/lab", "down", "--all")
    holder.kill()
    holder.wait()


def wait_until_dead(pid: int) -> None:
    """Wait until a process is gone (or only waits to be reaped)."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def kill(pid: int) -> None:
    """Kill one process without asking, and wait until it is dead."""
    os.kill(pid, 9)
    wait_until_dead(pid)
