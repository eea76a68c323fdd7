"""Sources of builds: fetched once on the controller, checked by SHA-256, kept by content.

Not part of the compiler: this module reaches the network and the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Mapping
from pathlib import Path

CHUNK = 1 << 20  # bytes


class SourceError(Exception):
    """A source cannot be had, or is not what its checksum says; the text names the source and the likely fix."""


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
    """Return what decides a source's bytes: its checksum, or the content of a local file without one.

    Raises SourceError when a download has no checksum.
    """
    if source.get("sha256"):
        return str(source["sha256"])
    if "path" in source:
        return sha256_of(_local(source["path"]))
    raise SourceError(f"{_describe(source)}: a download needs a sha256")


def fetch(source: Mapping[str, str]) -> Path:
    """Return the path of a source on the controller, downloading it first where necessary.

    `source` has a `path` (local file), `url`, or `sdist` (a pinned requirement, looked up in the package index
    that uv is configured for), and for downloads a `sha256`. Raises SourceError.
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
        raise SourceError(f"{_describe(source)}: {error}; set another source (url, path or sdist)") from error
    finally:
        partial.unlink(missing_ok=True)
    return kept


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
            f"{_describe(source)}: the checksum is {found}, pinned is {wanted}; "
            "either the file was changed or the version was, without its checksum"
        )


def _sdist_url(requirement: str) -> str:
    """Ask the package index for the address of a pinned source distribution, with uv's own settings."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise SourceError(f"{requirement}: uv is not in the controller's environment; run `make env`")
    command = [uv, "pip", "compile", "--quiet", "--no-deps", "--no-header", "--format", "pylock.toml", "-"]
    done = subprocess.run(command, input=requirement, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SourceError(f"{requirement}: the package index does not have it.\n{done.stderr.strip()}")
    for package in tomllib.loads(done.stdout).get("packages", []):
        if "sdist" in package:
            return str(package["sdist"]["url"])
    raise SourceError(f"{requirement}: the package index has no source distribution of it")
