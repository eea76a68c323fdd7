"""Releases of a service on the host: where they are, which one is wanted and which is live.

    /opt/modelyard/services/SERVICE/
        releases/ID/               manifest.json, config/, units/
        staged, current, previous  links to a release
        history.jsonl              what went live, what did not, when and by whom

A service that left the plan has neither `staged` nor `current`; its releases stay for a while, so
it can come back.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import urllib.parse
from typing import Any

from ansible.module_utils.modelyard_host import link_atomically, read_text, write_atomically

SERVICES = "/opt/modelyard/services"
CREDENTIALS = "/etc/modelyard/credentials"
KEEP_RELEASES = 5
KEEP_DAYS = 7
KEEP_WEEKS = 4
KEEP_RETIRED_DAYS = 7
HISTORY_LINES = 1000
DAY_S = 86400
SLOT_MARK = "@.service"  # a unit `x@.service` in a release is installed once per slot


class Release:
    """One immutable version of a service.

    Its identity is its content, before placeholders are filled in.
    """

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
    def pool(self) -> tuple[str, str] | None:
        """The pool whose requests it answers, and the name of its host there; None where no gateway
        asks it.
        """
        given = self.spec["activation"].get("pool")
        return (str(given["name"]), str(given["server"])) if given else None

    @property
    def slots(self) -> dict[str, int]:
        """The ports of its slots by their names; none unless that is its strategy."""
        return {
            str(name): int(port) for name, port in self.spec["activation"].get("slots", {}).items()
        }

    def fill(self, text: str, slot: str | None = None, path: str | None = None) -> str:
        """Replace the placeholders of a file, unit or argument."""
        text = text.replace("@RELEASE@", path or self.path).replace(
            "@CREDENTIALS@", self.credentials
        )
        if slot is not None:
            text = text.replace("@SLOT@", slot).replace("@PORT@", str(self.slots[slot]))
        return text

    def unit_files(self, slot: str | None = None) -> dict[str, str]:
        """Return {unit name: content} as it has to be installed."""
        files = {}
        for name, content in self.spec["units"].items():
            installed = (
                name.replace(SLOT_MARK, f"@{slot}.service")
                if slot and name.endswith(SLOT_MARK)
                else name
            )
            files[installed] = self.fill(content, slot)
        return files

    def checks(self, slot: str | None = None) -> list[dict[str, Any]]:
        """Return the checks of this release, filled in for a slot."""
        return list(json.loads(self.fill(json.dumps(self.spec["checks"]), slot)))

    @property
    def endpoints(self) -> set[tuple[str, int]]:
        """The addresses and ports that the release's checks ask, so those that it listens on."""
        urls = [
            urllib.parse.urlsplit(check["url"]) for check in self.spec["checks"] if "url" in check
        ]
        return {(url.hostname or "", url.port or 80) for url in urls}

    @property
    def conflicts(self) -> set[str]:
        """The services that systemd stops when this release's units start: their `Conflicts=`."""
        units = "\n".join(self.spec["units"].values())
        return set(
            re.findall(
                r"\bmodelyard-(\S+)\.service\b",
                " ".join(re.findall(r"^Conflicts=(.*)", units, re.M)),
            )
        )

    @property
    def generations(self) -> dict[str, str]:
        """The credentials that this release is checked with: its own, which need not be the live
        ones.
        """
        return {self.service: self.spec["generation"]} if self.spec["generation"] else {}

    def manifest(self) -> str:
        """Return the text of its manifest.json."""
        return (
            json.dumps(
                {**self.spec, "service": self.service, "id": self.id}, indent=2, sort_keys=True
            )
            + "\n"
        )


def spoiled_files(release: Release) -> list[str]:
    """Return the files of a release on the host that no longer hold what they were written with."""
    return [
        path
        for path, content in release.spec["files"].items()
        if read_text(os.path.join(release.path, path)) != release.fill(content)
    ]


def mend(release: Release, spoiled: list[str], gid: int) -> None:
    """Write spoiled files anew.

    What runs may have read them, so activation restarts it, the same release or not.
    """
    for path in spoiled:
        write_atomically(
            os.path.join(release.path, path), release.fill(release.spec["files"][path]), 0o640, gid
        )
    if spoiled:
        write_atomically(os.path.join(release.path, ".restart"), "\n".join(spoiled), 0o600)


def missing(release: Release) -> list[str]:
    """Return what a release on the host needs and is no longer there: store entries,
    credentials.
    """
    needed = [*release.spec["store"], *([release.credentials] if release.generations else [])]
    return [path for path in needed if not os.path.exists(path)]


def public_names(manifest: dict[str, Any]) -> list[str]:
    """Return the model names that a release's checks want listed: of the gateway's, its public
    names.
    """
    return [
        name for check in manifest["checks"] if check["kind"] == "models" for name in check["names"]
    ]


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
        """Whether it was stopped to make room for another service. Survives that run."""
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
        found = [
            entry for entry in entries if os.path.exists(os.path.join(entry.path, "manifest.json"))
        ]
        found.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        return [entry.name for entry in found]

    def history(self) -> list[dict[str, Any]]:
        """Return what happened to it, the oldest first.

        A line that a full disk cut off is left out.
        """
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
        """Return the releases that are linked, went live last, or were the last good one of a day
        or a week.
        """
        keep = {
            identifier
            for link in ("staged", "current", "previous")
            if (identifier := self.linked(link))
        }
        good = [entry for entry in self.history() if entry["outcome"] == "live"]
        if not good:  # an older version of Modelyard wrote no history
            return keep.union(self.releases()[:KEEP_RELEASES])
        keep.update(
            list(dict.fromkeys(entry["release"] for entry in reversed(good)))[:KEEP_RELEASES]
        )
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
        """Take the service out of use: nothing is live any more.

        What could bring it back stays for a while.
        """
        live = self.load("current")
        if live:
            self.point("previous", live)
        for name in ("current", "staged", "displaced"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.root, name))

    def remove(self) -> None:
        """Take everything of the service away: its releases and its credentials.

        State under /var/lib stays.
        """
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
