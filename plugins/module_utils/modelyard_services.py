"""Releases of a service on the host: where they lie, which one is wanted, live and really running.

    /opt/modelyard/services/SERVICE/releases/ID/    manifest.json, config/, units/
    /opt/modelyard/services/SERVICE/{staged,current,previous}    links to a release
    /opt/modelyard/services/SERVICE/history.jsonl                what went live, what did not, when and by whom

A service that left the plan has neither `staged` nor `current`; its releases stay for a while, so it can come back.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
from typing import Any

SERVICES = "/opt/modelyard/services"
CREDENTIALS = "/etc/modelyard/credentials"
UNITS = "/etc/systemd/system"
TRIED_UNITS = "/run/systemd/system.control"
"""What lies here wins over UNITS, and a reboot forgets it: units of a release that is not known to be good yet."""
RELEASE_VARIABLE = "MODELYARD_RELEASE"
KEEP_RELEASES = 5
KEEP_DAYS = 7
KEEP_WEEKS = 4
KEEP_RETIRED_DAYS = 7
HISTORY_LINES = 1000
DAY_S = 86400
SLOT_MARK = "@.service"  # a unit `x@.service` in a release is installed once per slot


class ServiceError(Exception):
    """Something on the host is not as it must be; the text is for the user."""


def run(argv: list[str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a program and return its result, whatever its exit status.

    It runs in `/`, because a service user may not enter /root. Raises ServiceError.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=timeout, env=environment, cwd="/"
        )
    except FileNotFoundError as error:
        raise ServiceError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{' '.join(argv)} did not finish within {timeout:.0f} s") from error


def systemctl(*arguments: str, timeout: float = 180.0) -> str:
    """Run systemctl; raises ServiceError with its message when it fails."""
    done = run(["systemctl", *arguments], timeout=timeout)
    if done.returncode != 0:
        raise ServiceError(f"systemctl {' '.join(arguments)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def write_atomically(path: str, content: str, mode: int = 0o644, gid: int = 0) -> None:
    """Write a file beside its place and rename it there: a reader sees the old or the new one, never half."""
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.chown(temporary, 0, gid)
        os.chmod(temporary, mode)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def link_atomically(path: str, target: str) -> None:
    """Point the link `path` at `target` by rename, so that it always points somewhere."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)


def changed_at(path: str) -> str:
    """Return when a file or link was changed (ISO 8601, UTC)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.lstat(path).st_mtime))


def read_text(path: str) -> str | None:
    """Return a file's text, or None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file, as lower-case hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Release:
    """One immutable version of a service. Its identity is its content, before placeholders are filled in."""

    def __init__(self, service: str, spec: dict[str, Any]) -> None:
        self.service = service
        self.spec = spec
        identity = {key: spec[key] for key in ("user", "files", "units", "store", "generation")}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.id: str = digest[:12]

    @classmethod
    def load(cls, service: str, identifier: str) -> Release | None:
        """Read a release back from its manifest; None where there is none."""
        text = read_text(os.path.join(SERVICES, service, "releases", identifier, "manifest.json"))
        if text is None:
            return None
        release = cls(service, json.loads(text))
        release.id = identifier
        return release

    @property
    def path(self) -> str:
        """The release's directory."""
        return os.path.join(SERVICES, self.service, "releases", self.id)

    @property
    def credentials(self) -> str:
        """The directory of the generation of credentials that it is started with."""
        return os.path.join(CREDENTIALS, self.service, self.spec["generation"] or "none")

    @property
    def strategy(self) -> str:
        """How it goes live: `restart`, `reload` or `slots`."""
        return str(self.spec["activation"].get("strategy", "restart"))

    @property
    def slots(self) -> dict[str, int]:
        """The ports of its slots by their names; none unless that is its strategy."""
        return {str(name): int(port) for name, port in self.spec["activation"].get("slots", {}).items()}

    def fill(self, text: str, slot: str | None = None, path: str | None = None) -> str:
        """Replace the placeholders of a file, unit or argument."""
        text = text.replace("@RELEASE@", path or self.path).replace("@CREDENTIALS@", self.credentials)
        if slot is not None:
            text = text.replace("@SLOT@", slot).replace("@PORT@", str(self.slots[slot]))
        return text

    def unit_files(self, slot: str | None = None) -> dict[str, str]:
        """Return {unit name: content} as it has to be installed."""
        files = {}
        for name, content in self.spec["units"].items():
            installed = name.replace(SLOT_MARK, f"@{slot}.service") if slot and name.endswith(SLOT_MARK) else name
            files[installed] = self.fill(content, slot)
        return files

    def checks(self, slot: str | None = None) -> list[dict[str, Any]]:
        """Return the checks of this release, filled in for a slot."""
        return list(json.loads(self.fill(json.dumps(self.spec["checks"]), slot)))

    @property
    def endpoints(self) -> set[tuple[str, int]]:
        """The addresses and ports that the release's checks ask, so those that it listens on."""
        urls = [urllib.parse.urlsplit(check["url"]) for check in self.spec["checks"] if "url" in check]
        return {(url.hostname or "", url.port or 80) for url in urls}

    @property
    def conflicts(self) -> set[str]:
        """The services that systemd stops when this release's units start: their `Conflicts=`."""
        units = "\n".join(self.spec["units"].values())
        return set(re.findall(r"\bmodelyard-(\S+)\.service\b", " ".join(re.findall(r"^Conflicts=(.*)", units, re.M))))

    @property
    def generations(self) -> dict[str, str]:
        """The credentials that this release is checked with: its own, which need not be the live ones."""
        return {self.service: self.spec["generation"]} if self.spec["generation"] else {}

    def manifest(self) -> str:
        """Return the text of its manifest.json."""
        return json.dumps({**self.spec, "service": self.service, "id": self.id}, indent=2, sort_keys=True) + "\n"


def spoiled_files(release: Release) -> list[str]:
    """Return the files of a release on the host that no longer hold what they were written with."""
    return [
        path
        for path, content in release.spec["files"].items()
        if read_text(os.path.join(release.path, path)) != release.fill(content)
    ]


def mend(release: Release, spoiled: list[str], gid: int) -> None:
    """Write spoiled files anew. What runs may have read them, so activation restarts it, the same release or not."""
    for path in spoiled:
        write_atomically(os.path.join(release.path, path), release.fill(release.spec["files"][path]), 0o640, gid)
    if spoiled:
        write_atomically(os.path.join(release.path, ".restart"), "\n".join(spoiled), 0o600)


def missing(release: Release) -> list[str]:
    """Return what a release on the host needs and is no longer there: store entries, credentials."""
    needed = [*release.spec["store"], *([release.credentials] if release.generations else [])]
    return [path for path in needed if not os.path.exists(path)]


def public_names(manifest: dict[str, Any]) -> list[str]:
    """Return the model names that a release's checks want listed: of the gateway's, its public names."""
    return [name for check in manifest["checks"] if check["kind"] == "models" for name in check["names"]]


class Service:
    """What is wanted, live and running of one service on this host."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = os.path.join(SERVICES, name)

    def linked(self, link: str) -> str | None:
        """Return the id of the release that `staged`, `current` or `previous` points to."""
        try:
            return os.path.basename(os.readlink(os.path.join(self.root, link)))
        except OSError:
            return None

    def load(self, link: str) -> Release | None:
        """Return the release that a link points to; None if there is none."""
        identifier = self.linked(link)
        return Release.load(self.name, identifier) if identifier else None

    def point(self, link: str, release: Release) -> None:
        """Let a link point to a release."""
        if self.linked(link) != release.id:
            link_atomically(os.path.join(self.root, link), os.path.join("releases", release.id))

    @property
    def displaced(self) -> bool:
        """Whether it was stopped to make room for another service. That survives whoever stopped it."""
        return os.path.exists(os.path.join(self.root, "displaced"))

    @displaced.setter
    def displaced(self, value: bool) -> None:
        path = os.path.join(self.root, "displaced")
        if value:
            write_atomically(path, "", 0o600)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    @property
    def there(self) -> bool:
        """Whether it is live or about to be, and not retired."""
        return self.linked("current") is not None or self.linked("staged") is not None

    def releases(self) -> list[str]:
        """Return the ids of the releases that are on the host, the latest first."""
        path = os.path.join(self.root, "releases")
        entries = os.scandir(path) if os.path.isdir(path) else ()
        found = [entry for entry in entries if os.path.exists(os.path.join(entry.path, "manifest.json"))]
        found.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        return [entry.name for entry in found]

    def history(self) -> list[dict[str, Any]]:
        """Return what happened to it, the oldest first. A line that a full disk cut off is left out."""
        found = []
        for line in (read_text(os.path.join(self.root, "history.jsonl")) or "").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def record(self, outcome: str, release: str | None, **more: object) -> None:
        """Add what happened to the history: `live`, `failed` or `retired`."""
        path = os.path.join(self.root, "history.jsonl")
        entry = {"at": int(time.time()), "outcome": outcome, "release": release, **more}
        lines = (read_text(path) or "").splitlines()[1 - HISTORY_LINES :]
        write_atomically(path, "\n".join([*lines, json.dumps(entry, sort_keys=True)]) + "\n", 0o600)

    def worth_keeping(self, now: float) -> set[str]:
        """Return the releases that are linked, went live last, or were the last good one of a day or a week."""
        keep = {identifier for link in ("staged", "current", "previous") if (identifier := self.linked(link))}
        good = [entry for entry in self.history() if entry["outcome"] == "live"]
        if not good:  # an older version of Modelyard wrote no history
            return keep.union(self.releases()[:KEEP_RELEASES])
        keep.update(list(dict.fromkeys(entry["release"] for entry in reversed(good)))[:KEEP_RELEASES])
        last: dict[tuple[str, int], str] = {}
        for entry in good:
            age = now - entry["at"]
            for kind, length, count in (("day", DAY_S, KEEP_DAYS), ("week", 7 * DAY_S, KEEP_WEEKS)):
                if age < length * count:
                    last[(kind, entry["at"] // length)] = entry["release"]
        return keep.union(last.values())

    def prune(self) -> list[str]:
        """Delete the releases that are not worth keeping. Returns their ids."""
        keep = self.worth_keeping(time.time())
        doomed = [identifier for identifier in self.releases() if identifier not in keep]
        for identifier in doomed:
            shutil.rmtree(os.path.join(self.root, "releases", identifier))
        return doomed

    def retire(self) -> None:
        """Take the service out of use: nothing is live any more. What could bring it back stays for a while."""
        live = self.load("current")
        if live:
            self.point("previous", live)
        for name in ("current", "staged", "displaced"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.root, name))

    def remove(self) -> None:
        """Take everything of the service away: its releases and its credentials. State under /var/lib stays."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(os.path.join(CREDENTIALS, self.name), ignore_errors=True)


def services() -> list[str]:
    """Return the services that are on the host, retired ones not among them."""
    found = sorted(os.listdir(SERVICES)) if os.path.isdir(SERVICES) else []
    return [name for name in found if Service(name).there]


def retired_long_ago(now: float) -> list[str]:
    """Return the names of the services that can be forgotten."""
    found = []
    for name in sorted(os.listdir(SERVICES)) if os.path.isdir(SERVICES) else []:
        service = Service(name)
        history = service.history()
        if not service.there and history and history[-1]["at"] < now - KEEP_RETIRED_DAYS * DAY_S:
            found.append(name)
    return found


def unit_state(unit: str) -> dict[str, str]:
    """Return the properties of a unit that activation needs. Raises ServiceError."""
    shown = run(
        [
            "systemctl",
            "show",
            "--property=LoadState,ActiveState,SubState,MainPID,UnitFileState,NRestarts,Result",
            unit,
        ]
    ).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def directives(content: str) -> dict[tuple[str, str], list[str]]:
    """Return what a unit file tells systemd: by section and key, the values in their order.

    Comments, descriptions and the order of different keys change nothing (systemd.syntax(7)).
    """
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    # A line that ends in a backslash continues, past comments, on the next one.
    for line in re.sub(r"\\\n(?:[#;].*\n)*", " ", content).splitlines():
        key, _, value = line.partition("=")
        if line.startswith("["):
            section = line
        elif line and line[0] not in "#;" and key not in ("Description", "Documentation"):
            found.setdefault((section, key), []).append(value)
    return found


def try_units(units: dict[str, str]) -> None:
    """Have systemd use these units, {name: content}, until `keep_units` or the next boot.

    Raises ServiceError.
    """
    os.makedirs(TRIED_UNITS, exist_ok=True)
    for name, content in units.items():
        write_atomically(os.path.join(TRIED_UNITS, name), content)
    systemctl("daemon-reload")


def keep_units(units: dict[str, str]) -> None:
    """Install units, {name: content}, so that a boot starts them. What is there already is not written again.

    Raises ServiceError.
    """
    for name, content in units.items():
        path = os.path.join(UNITS, name)
        if read_text(path) != content:
            write_atomically(path, content)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(TRIED_UNITS, name))
    systemctl("daemon-reload")
    systemctl("enable", "--quiet", *units)


def uninstall(*units: str) -> None:
    """Stop and disable units and take their files away. Raises ServiceError."""
    systemctl("disable", "--now", "--quiet", *units)
    delete_unit_files(*units)
    systemctl("daemon-reload")


def delete_unit_files(*units: str) -> None:
    """Delete units, those that are tried and those that are kept."""
    for unit in units:
        for directory in (UNITS, TRIED_UNITS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, unit))


def process_release(pid: str) -> str | None:
    """Return the release id that a process was started from: read from its environment, so it is what runs."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:
            entries = handle.read().split(b"\0")
    except OSError:
        return None
    prefix = f"{RELEASE_VARIABLE}=".encode()
    for entry in entries:
        if entry.startswith(prefix):
            return os.path.basename(entry[len(prefix) :].decode())
    return None


class Door:
    """HAProxy's admin socket: the front door of the gateway."""

    SOCKET = "/run/modelyard-haproxy/admin.sock"
    BACKEND = "gateway"

    def exists(self) -> bool:
        """Return whether the socket is there, as it is while HAProxy runs."""
        return os.path.exists(self.SOCKET)

    def ask(self, command: str) -> str:
        """Send one command to the admin socket and return the answer. Raises ServiceError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            try:
                client.connect(self.SOCKET)
            except OSError as error:
                raise ServiceError(f"the front end's admin socket {self.SOCKET}: {error.strerror}") from error
            client.sendall(f"{command}\n".encode())
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
        return answer.decode().strip()

    def set_state(self, slot: str, state: str) -> None:
        """Set a slot to ready, drain or maint. Raises ServiceError."""
        answer = self.ask(f"set server {self.BACKEND}/{slot} state {state}")
        if answer:
            raise ServiceError(f"the front end refused `{slot} {state}`: {answer}")

    def slot(self, slot: str) -> dict[str, str]:
        """Return HAProxy's statistics row of a slot. Raises ServiceError."""
        lines = self.ask("show stat").lstrip("# ").splitlines()
        names = lines[0].split(",")
        for line in lines[1:]:
            row = dict(zip(names, line.split(","), strict=False))
            if row.get("pxname") == self.BACKEND and row.get("svname") == slot:
                return row
        raise ServiceError(f"the front end has no slot {self.BACKEND}/{slot}")

    def release(self) -> str | None:
        """Return the release id of the running configuration, from its `description`.

        Raises ServiceError.
        """
        for line in self.ask("show info").splitlines():
            if line.startswith("description:"):
                return os.path.basename(line.split(":", 1)[1].strip())
        return None


def running_release(unit: str, release: Release) -> str | None:
    """Return the id of the release that a unit really runs, None when it does not run.

    `release` is any release of the service: it says how what runs is read. Raises ServiceError.
    """
    state = unit_state(unit)
    if state.get("ActiveState") != "active":
        return None
    command = release.spec["activation"].get("running")
    if command:
        # No process stays behind, so what it left in the kernel says which release that is from.
        found = re.search(r"/releases/([0-9a-f]{12})\b", run(command).stdout)
        return found[1] if found else None
    if state.get("MainPID", "0") == "0":
        return None
    if release.strategy == "reload":
        # A reload keeps the environment of the first start; the configuration itself says which one is in use.
        with contextlib.suppress(ServiceError):  # no socket yet: it has only just been started
            return Door().release()
        return None
    return process_release(state["MainPID"])


def differences(release: Release, service: Service) -> list[str]:
    """Say in words how what runs differs from `release`; an empty list means that nothing has to be done.

    Raises ServiceError.
    """
    found = []
    if service.linked("current") != release.id:
        found.append(f"release {release.id} is not live (live: {service.linked('current') or 'none'})")
    if release.strategy == "slots":
        return found + _slot_differences(release)
    units = release.unit_files()
    for unit, content in units.items():
        found += _unit_differences(unit, content)
    main = next(iter(units))
    running = running_release(main, release)
    if running != release.id:
        found.append(f"{main} runs {running or 'nothing'}, expected {release.id}")
    return found


def _unit_differences(unit: str, content: str) -> list[str]:
    installed = read_text(os.path.join(UNITS, unit))
    if installed is None:
        return [f"{unit} is not installed"]
    found = []
    if read_text(os.path.join(TRIED_UNITS, unit)) not in (None, content):
        found.append(f"{unit} is overridden until the next boot: a change of it was interrupted")
    if installed != content:
        found.append(f"{unit} differs from its release")
    if unit_state(unit).get("UnitFileState") != "enabled":
        found.append(f"{unit} is not enabled")
    return found


def slot_unit(release: Release, slot: str) -> str:
    """Return the name of the unit of a slot."""
    return next(name for name in release.unit_files(slot) if name.endswith(f"@{slot}.service"))


def active_slots(release: Release) -> list[str]:
    """Return the slots whose unit is active (or on its way), in the order of the release.

    Raises ServiceError.
    """
    return [
        slot
        for slot in release.slots
        if unit_state(slot_unit(release, slot)).get("ActiveState") in ("active", "activating", "reloading")
    ]


def _slot_differences(release: Release) -> list[str]:
    active = active_slots(release)
    if len(active) != 1:
        return [f"{len(active)} slots are active, expected one"]
    slot = active[0]
    unit = slot_unit(release, slot)
    found = _unit_differences(unit, release.unit_files(slot)[unit])
    running = running_release(unit, release)
    if running != release.id:
        found.append(f"{unit} runs {running or 'nothing'}, expected {release.id}")
    door = Door()
    if door.exists() and not door.slot(slot)["status"].startswith("UP"):
        found.append(f"the front end has {slot} {door.slot(slot)['status']}")
    return found
