"""Sources of builds: fetched once on the controller, checked by SHA-256, kept by content.

Not part of the compiler: this module reaches the network and the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

CHUNK = 1 << 20  # bytes
LOCK_FILE = "checksums.txt"
"""Beside the inventory: what was found in a release's file of checksums, a line `SHA256  URL` each.
The suffix keeps Ansible from reading it as an inventory."""


class SourceError(Exception):
    """A source cannot be had, or is not what its checksum says; the text names the source and the
    likely fix.
    """


def cache_directory() -> Path:
    """Return where downloads and builds are kept, outside the clone.

    `$MODELYARD_CACHE`, else `modelyard` below `$XDG_CACHE_HOME`, else `~/.cache/modelyard`.
    """
    configured = os.environ.get("MODELYARD_CACHE")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "modelyard"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as lower-case hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def identity(source: Mapping[str, str]) -> str:
    """Return what decides a source's bytes: its checksum, or the content of a local file without
    one.

    Raises SourceError when a download has no checksum.
    """
    if source.get("sha256"):
        return str(source["sha256"])
    if "path" in source:
        return sha256_of(_local(source["path"]))
    raise SourceError(
        f"{_describe(source)}: a download needs sha256, or checksums (the URL of the checksum "
        "file that its release publishes)"
    )


def with_checksum(
    source: Mapping[str, str], lock: Path, *, write: bool = True
) -> tuple[dict[str, str], str]:
    """Return the source with its `sha256`, and a line for people when it was looked up now (else
    "").

    A source of a `url` may name `checksums`, the address of its release's file of checksums (as
    sha256sum writes it). That is asked once: what it says is recorded in the file `lock` (`write`),
    which later runs and other people use. Raises SourceError.
    """
    pinned = {key: value for key, value in source.items() if key != "checksums"}
    if "checksums" not in source or "sha256" in source:
        return pinned, ""
    if "url" not in source:
        raise SourceError(
            f"{_describe(source)}: checksums is only valid with url; a local file can have sha256"
        )
    url = source["url"]
    if known := _recorded(lock).get(url):
        return {**pinned, "sha256": known}, ""
    found = _published(source["checksums"], url)
    if not write:
        return {
            **pinned,
            "sha256": found,
        }, f"checksum of {url} would be recorded in {lock}: {found}"
    try:
        recorded = _record(lock, url, found)
    except OSError as error:
        raise SourceError(
            f"{lock}: {error.strerror}; make it writable, or pin the sha256 of {url}"
        ) from error
    return {
        **pinned,
        "sha256": recorded,
    }, f"checksum of {url} recorded in {lock}: {recorded}; keep this file"


def fetch(source: Mapping[str, str]) -> Path:
    """Return the path of a source on the controller, downloading it first where necessary.

    `source` has a `path` (local file), `url`, or `sdist` (a pinned requirement, looked up in the
    package index that uv is configured for), and for downloads a `sha256`. Raises SourceError.
    """
    wanted = identity(source)
    if "path" in source:
        path = _local(source["path"])
        _verify(path, wanted, source)
        return path
    kept = cache_directory() / "downloads" / wanted
    if kept.exists():
        return kept
    url = source["url"] if "url" in source else _sdist_url(source["sdist"])
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f"{wanted}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(url, timeout=60) as response, partial.open("wb") as handle:
            shutil.copyfileobj(response, handle, CHUNK)
        _verify(partial, wanted, source)
        partial.rename(kept)
    except OSError as error:
        raise SourceError(
            f"{_describe(source)}: {error}; set another source (url, path or sdist)"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return kept


def _recorded(lock: Path) -> dict[str, str]:
    if not lock.is_file():
        return {}
    lines = (
        line.split()
        for line in lock.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
    return {words[1]: words[0] for words in lines if len(words) == 2}


def _published(checksums: str, url: str) -> str:
    """Ask a release's file of checksums for the file at `url`."""
    try:
        with urllib.request.urlopen(checksums, timeout=60) as response:
            text: str = response.read(CHUNK).decode("utf-8", "replace")
    except OSError as error:
        raise SourceError(
            f"{checksums}: {error}; correct `checksums`, or pin the sha256 of {url}"
        ) from error
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]
    # A line is `SHA256  NAME`; a star marks binary mode, and some publishers write ./NAME.
    found = {
        words[0].lower()
        for words in (line.split(maxsplit=1) for line in text.splitlines())
        if len(words) == 2 and words[1].strip().removeprefix("*").removeprefix("./") == name
    }
    if len(found) != 1 or not re.fullmatch(r"[0-9a-f]{64}", next(iter(found))):
        seen = f"{len(found)} different checksums" if len(found) > 1 else "no checksum (SHA-256)"
        raise SourceError(
            f"{checksums}: {seen} of {name}; correct `checksums`, or pin the sha256 of {url}"
        )
    return found.pop()


def _record(lock: Path, url: str, sha256: str) -> str:
    """Add a line to the lock file; returns what another run has recorded meanwhile, if one has."""
    guard_path = cache_directory() / "checksums.lock"
    guard_path.parent.mkdir(parents=True, exist_ok=True)
    with guard_path.open("w", encoding="utf-8") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        recorded: dict[str, str] = {url: sha256, **_recorded(lock)}
        lines = [f"{value}  {key}" for key, value in sorted(recorded.items())]
        head = (
            "# Checksums as their publishers gave them at the first fetch. Keep this file with the"
            " inventory."
        )
        new = lock.with_name(f".{lock.name}.new")
        new.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        new.rename(lock)
    return recorded[url]


def _local(path: str) -> Path:
    local = Path(path).expanduser()
    if not local.is_file():
        raise SourceError(f"{path}: no such file on the controller")
    return local


def _describe(source: Mapping[str, str]) -> str:
    return str(source.get("url") or source.get("sdist") or source.get("path"))


def _verify(path: Path, wanted: str, source: Mapping[str, str]) -> None:
    found = sha256_of(path)
    if found != wanted:
        raise SourceError(
            f"{_describe(source)}: checksum mismatch: found {found}, pinned {wanted}; the file "
            "changed, or the version changed and its checksum did not"
        )


def _sdist_url(requirement: str) -> str:
    """Ask the package index for the address of a pinned source distribution, with uv's own
    settings.
    """
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise SourceError(
            f"{requirement}: uv is not in the controller's environment; run `make env`"
        )
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        "--no-deps",
        "--no-header",
        "--format",
        "pylock.toml",
        "-",
    ]
    done = subprocess.run(command, input=requirement, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SourceError(
            f"{requirement}: the package index does not have it.\n{done.stderr.strip()}"
        )
    for package in tomllib.loads(done.stdout).get("packages", []):
        if "sdist" in package:
            return str(package["sdist"]["url"])
    raise SourceError(f"{requirement}: the package index has no source distribution of it")
