"""What the lab remembers, and the names it derives.

Everything that lives on the machine (bridge, firewall table, cgroups, directories) is named after a
hash of the clone's path and the lab's name. So two clones never collide, and `down` can clean up
even when every record is gone. Records live in /run, because they must not outlive a reboot; disks
in the cache directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

RUN = Path("/run/modelyard-lab")
"""Machine-wide records: which labs exist, which subnet each has, what has to be restored at the
end."""

CLONE = Path(__file__).resolve().parent.parent
"""The clone this program belongs to."""


class LabError(Exception):
    """Something the user has to know: what, where, why and the likely fix, in one message."""


def cache_dir() -> Path:
    """Return where bases, packages and disks are kept: outside the clone, shared by all clones."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MODELYARD_CACHE") or Path(home) / "modelyard").absolute() / "lab"


def share_dir() -> Path:
    """Return the directory that every host sees, read-only, as /srv/lab."""
    return cache_dir() / "share"


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.chmod(mode)
    new.rename(path)


HELD: list[int] = []
"""The locks held. Helper programs inherit them: if we are killed while `mount` works, the next
`down` waits."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel releases it when we and our helpers (`HELD`) are
    gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        HELD.append(file.fileno())
        try:
            yield
        finally:
            HELD.remove(file.fileno())


@dataclass(frozen=True)
class Host:
    """One host as recorded before anything of it is created."""

    name: str
    address: str
    release: str
    base: str
    """The base root (a directory) its disk lies on; kept for as long as the host exists."""


@dataclass(frozen=True)
class Lab:
    """A lab of one clone: a set of hosts on one bridge."""

    clone: Path
    name: str
    disks: Path
    """Where the disks of its hosts are."""

    @classmethod
    def of(cls, name: str, clone: Path = CLONE) -> Lab:
        """Return the lab of that name, with its recorded disk directory if it has one."""
        lab = cls(clone, name, cache_dir() / "run" / cls._hash(clone, name))
        record = lab.read_record()
        return cls(clone, name, Path(str(record["disks"]))) if record else lab

    @staticmethod
    def _hash(clone: Path, name: str) -> str:
        return hashlib.sha256(f"{clone}\0{name}".encode()).hexdigest()[:8]

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that no other lab on this machine has."""
        return self._hash(self.clone, self.name)

    @property
    def bridge(self) -> str:
        """Name of the network bridge (interface names have at most 15 characters)."""
        return f"my-{self.id}"

    @property
    def table(self) -> str:
        """Name of the nftables table."""
        return f"modelyard_lab_{self.id}"

    @property
    def run(self) -> Path:
        """Directory of this lab's records."""
        return RUN / "labs" / self.id

    @property
    def lock(self) -> Path:
        """File that serializes `up` and `down`; never removed, as a process may wait for it."""
        return RUN / "locks" / self.id

    def machine(self, host: str) -> str:
        """Return the host's name on this machine: its cgroup, its scope, its nspawn machine."""
        return f"modelyard-lab-{self.id}-{host}"

    def read_record(self) -> dict[str, object] | None:
        """Return the lab's record, or None if it does not exist."""
        try:
            record: dict[str, object] = json.loads((self.run / "lab.json").read_text())
        except FileNotFoundError:
            return None
        return record

    @property
    def subnet(self) -> int:
        """The third number of the lab's network 10.213.N.0/24.

        Raises:
            LabError: the lab is not up.
        """
        record = self.read_record()
        if record is None:
            raise LabError(
                f"lab '{self.name}' is not up. Start it: lab/lab up --lab {self.name} HOST..."
            )
        return int(str(record["subnet"]))

    def hosts(self) -> list[Host]:
        """Return the recorded hosts, by name."""
        # A record of another version of this program may hold more.
        names = [field.name for field in fields(Host)]
        records = [
            json.loads(file.read_text()) for file in sorted((self.run / "hosts").glob("[!.]*.json"))
        ]
        return [Host(**{name: record[name] for name in names}) for record in records]

    def save(self, host: Host) -> None:
        """Record a host."""
        write_atomically(self.run / "hosts" / f"{host.name}.json", json.dumps(asdict(host)))


def all_labs() -> list[Lab]:
    """Return every lab on this machine, of any clone."""
    labs = []
    for record in sorted(RUN.glob("labs/*/lab.json")):
        with contextlib.suppress(FileNotFoundError):  # it went down just now
            found = json.loads(record.read_text())
            labs.append(Lab(Path(found["clone"]), found["name"], Path(found["disks"])))
    return labs
