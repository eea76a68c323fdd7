"""What a role looks at on a host, and whether any of it has changed since the role ended.

    /opt/modelyard/roles/ROLE.json   what the role was given, as a digest, and what it looked at

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import glob
import grp
import hashlib
import json
import os
import platform
import pwd
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.modelyard_host import (
    ServiceError,
    read_text,
    sha256_of,
    write_atomically,
)
from ansible.module_utils.modelyard_model_file import (
    MODELS,
    hub_url,
    parts_of,
    place_of,
    published_record,
)
from ansible.module_utils.modelyard_running import differences
from ansible.module_utils.modelyard_services import CREDENTIALS, Service, missing, spoiled_files
from ansible.module_utils.modelyard_store import COMPLETE

RECORDS = "/opt/modelyard/roles"
LOADED_TIMEOUT_S = 5.0


def record_path(role: str) -> str:
    """Return where the record of a role is."""
    return os.path.join(RECORDS, f"{role}.json")


def read_record(role: str) -> dict[str, Any]:
    """Return the record of a role: `salt`, `digest` and `seen`; empty if it has none, or a damaged
    one.
    """
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(read_text(record_path(role)) or "{}")
        if isinstance(found, dict) and found.keys() >= {"salt", "digest", "seen"}:
            return found
    return {}


def write_record(role: str, salt: str, digest: str, watch: dict[str, Any]) -> None:
    """Note what a role that has just ended was given and has looked at. Raises OSError."""
    os.makedirs(RECORDS, mode=0o700, exist_ok=True)
    record = {"salt": salt, "digest": digest, "seen": seen(watch)}
    write_atomically(record_path(role), json.dumps(record, indent=1, sort_keys=True) + "\n", 0o600)


def changed_since(record: dict[str, Any], watch: dict[str, Any]) -> list[str]:
    """Say what is not as a role left it, and what does not run as it should."""
    if not record:
        return ["it has no record of a run that succeeded"]
    now, then = seen(watch), record["seen"]
    found = [
        f"{what} has changed"
        for what in [*now, *(then.keys() - now.keys())]
        if now.get(what) != then.get(what)
    ]
    for name in watch["services"]:
        try:
            found += [f"{name}: {trouble}" for trouble in troubles(Service(name))]
        except (ServiceError, OSError, ValueError, LookupError) as error:
            found.append(f"{name}: {error}")
    return found


def system() -> list[str]:
    """Return the facts that decide what a role builds or installs."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    names = ("ID", "VERSION_ID", "VERSION_CODENAME")
    python = ".".join(map(str, sys.version_info[:2]))
    return [platform.machine(), python, *(release.get(name, "") for name in names)]


# -- what a role looks at --------------------------------------------------------------------------


def seen(watch: dict[str, Any]) -> dict[str, str]:
    """Return by name the state of all that `watch` names: `users`, `paths`, `models`, `services`,
    and what is `loaded`.
    """
    found = {f"user {name}": _account(name) for name in watch["users"]}
    paths = [*watch["paths"]]
    for source in watch["models"]:
        paths += model_paths(source, watch["endpoint"])
    for name in watch["services"]:
        service = Service(name)
        staged = os.path.join(CREDENTIALS, name, "staged")
        paths += [staged, os.path.realpath(staged), os.path.join(service.root, "history.jsonl")]
        links = (service.linked("current"), service.linked("staged"))
        found[f"release of {name}"] = json.dumps([*links, _manifest(service)])
    found.update((f"what {one['url']} lists", _loaded(**one)) for one in watch["loaded"])
    found.update((path, _state(path)) for path in paths)
    return found


def model_paths(source: dict[str, Any], endpoint: str) -> list[str]:
    """Return where a model is, from its source in a plan, and the notes of how it was verified."""
    if source.get("path"):
        try:
            return parts_of(source["path"])
        except Exception:  # it is named wrongly, which the role says
            return [str(source["path"])]
    if source.get("repo") and not source.get("file"):
        home = os.path.join(MODELS, "hf", str(source["repo"]).replace("/", "--"))
        place = os.path.join(home, str(source["revision"]))
        return [place, f"{place}.verified"]
    url, sha256 = str(source.get("url")), str(source.get("sha256") or "")
    notes = []
    if source.get("repo"):
        url = hub_url(endpoint, source["repo"], source["revision"], source["file"])
        notes = [published_record(url, MODELS)]
        sha256 = sha256 or (read_text(notes[0]) or "").strip()
    return [os.path.dirname(place_of(url, sha256, MODELS)), *notes] if sha256 else notes


def _account(name: str) -> str:
    try:
        user = pwd.getpwnam(name)
        group = grp.getgrgid(user.pw_gid)
    except KeyError:
        return "none"
    entry = (user.pw_uid, user.pw_dir, user.pw_shell, group.gr_name, group.gr_gid)
    return ":".join(map(str, entry))


def _manifest(service: Service) -> str:
    path = os.path.join(service.root, "current", "manifest.json")
    return sha256_of(path) if os.path.exists(path) else ""


def _state(pattern: str) -> str:
    """Return a digest of what is at a path, or at all that match it: kind, owner, mode, size and
    times of every file; the time of a change (ctime) cannot be set by hand.
    """
    matches = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern))
    entries = [entry for path in matches for entry in _entries(os.path.realpath(path))]
    entries += [f"{path} -> {os.readlink(path)}" for path in matches if os.path.islink(path)]
    if not entries:
        return "none"
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16]


def _entries(path: str) -> Iterator[str]:
    try:
        status = os.stat(path)
    except OSError as error:
        yield f"{path}: {error.strerror}"
        return
    owner = f"{status.st_mode:o} {status.st_uid} {status.st_gid}"
    link = os.readlink(path) if os.path.islink(path) else ""
    if link or not os.path.isdir(path):
        owner += f" {link}"
        yield f"{path} {owner} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        return
    # What is in a directory counts, not when something was there for a moment.
    yield f"{path}/ {owner}"
    for name in sorted(os.listdir(path)):
        yield from _entries(os.path.join(path, name))


# -- what runs -------------------------------------------------------------------------------------


def troubles(service: Service) -> list[str]:
    """Say why a service does not run as its live release says, or what that release lacks.

    Raises ServiceError.
    """
    live = service.load("current")
    if live is None:
        return ["it is not live"]
    found = differences(live, service)
    if service.linked("staged") != live.id:
        found.append(f"release {service.linked('staged')} waits to be activated")
    if os.path.exists(os.path.join(live.path, ".restart")):
        found.append("its files were edited by hand, and it was not restarted since")
    if service.displaced:
        found.append("it was stopped to make room for another service")
    found += [f"{path} was edited by hand" for path in spoiled_files(live)]
    whole = [os.path.join(path, COMPLETE) for path in live.spec["store"]]
    absent = [*missing(live), *(path for path in whole if not os.path.exists(path))]
    return found + [f"{path} is missing" for path in absent]


def _loaded(url: str, models: list[str]) -> str:
    """Return which of the models a server has in memory. It may hold fewer than all at once."""
    try:
        with urllib.request.urlopen(url, timeout=LOADED_TIMEOUT_S) as answer:
            there = {str(entry["name"]) for entry in json.load(answer)["models"]}
    except (OSError, ValueError, LookupError, TypeError):
        return "unknown"
    return " ".join(sorted(there & set(models)))
