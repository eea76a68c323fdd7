"""A model's directory on the host: one that is there, or a whole repository of a hub at one commit.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import urllib.parse
from typing import Any

from ansible.module_utils.modelyard_download import (
    Means,
    ModelError,
    RetryableError,
    Transfer,
    check_repository,
    check_space,
    gib,
    may_read,
    read,
    retried,
    write_text,
)

DESCRIPTIONS = ("config.json", "params.json", "adapter_config.json")
WEIGHTS = ".safetensors"
WANTED = (WEIGHTS, ".json", ".jinja", ".model", ".tiktoken", ".txt")
PLAIN = re.compile(r"[\w][\w.+-]*(/[\w][\w.+-]*)*")


def wanted(names: list[str]) -> list[str]:
    """Return those files of a repository that a server needs.

    Raises ModelError if it has no weights that are safe.
    """
    found = [name for name in names if name.endswith(WANTED) and PLAIN.fullmatch(name)]
    # Weights in a directory of their own are the same ones in another format.
    found = [name for name in found if "/" not in name or not name.endswith(WEIGHTS)]
    weights = [name for name in found if name.endswith(WEIGHTS)]
    if not weights:
        raise ModelError(
            "the repository has no weights in the safetensors format. Other formats can run code "
            "when they are loaded, so they are not fetched. Choose a repository with "
            "safetensors, or convert the weights and set `path`"
        )
    if any(name.startswith("model") for name in weights):
        # Some publishers add all weights once more, as their own programs want them.
        found = [name for name in found if not re.match(r"consolidated.*\.safetensors", name)]
    return sorted(found)


class File:
    """One file of a repository, as the hub describes it."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.name = str(described["rfilename"])
        lfs = described.get("lfs") or {}
        self.size = int(lfs.get("size") or described.get("size") or 0)
        self.sha256 = str(lfs.get("sha256") or "")
        self.blob = str(described.get("blobId") or "")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256) and (
            lfs or not re.fullmatch(r"[0-9a-f]{40}", self.blob)
        ):
            raise ModelError(f"the hub publishes no checksum of {self.name}")

    def verify(self, path: str) -> None:
        """Raise ModelError unless `path` holds this file.

        Small files have the checksum that git gives them.
        """
        digest = (
            hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % os.path.getsize(path))
        )
        with open(path, "rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
        expected, found = self.sha256 or self.blob, digest.hexdigest()
        if found != expected:
            raise ModelError(f"has the wrong checksum: the hub publishes {expected}, found {found}")


class Snapshot:
    """A repository at one commit, in a directory of its own."""

    def __init__(
        self,
        endpoint: str,
        repo: str,
        revision: str,
        directory: str,
        means: Means,
    ) -> None:
        check_repository(repo, revision)
        self.endpoint, self.repo, self.revision = endpoint.rstrip("/"), repo, revision
        self.home = os.path.join(directory, repo.replace("/", "--"))
        self.path = os.path.join(self.home, revision)
        self.partial = f"{self.path}.partial"
        self.record = f"{self.path}.verified"
        self.means = means

    def is_there(self) -> bool:
        """Whether the verified files are in place, and have not changed since."""
        try:
            with open(self.record, encoding="utf-8") as handle:
                return bool(json.load(handle) == states(self.path))
        except (OSError, ValueError):
            return False

    def fetch(self) -> int:
        """Download, verify, rename.

        Returns the bytes an earlier run had left; raises ModelError.
        """
        os.makedirs(self.home, mode=0o755, exist_ok=True)
        # A run whose connection was lost may still be downloading: this one waits for it.
        with open(f"{self.path}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.is_there():
                return 0
            files = self._files()
            os.makedirs(self.partial, mode=0o755, exist_ok=True)
            left = sum(size for size, _ in states(self.partial).values())
            missing = sum(file.size for file in files) - left
            check_space(self.home, max(missing, 0), self.means)
            for file in files:
                self._fetch(file)
            shutil.rmtree(self.path, ignore_errors=True)  # it was changed
            os.replace(self.partial, self.path)
            write_text(self.record, json.dumps(states(self.path)))
            return left

    def _files(self) -> list[File]:
        """Ask the hub which files the commit has, and return those that are wanted."""
        url = f"{self.endpoint}/api/models/{self.repo}/revision/{self.revision}?blobs=true"

        try:
            answer = retried(
                lambda: read(url, self.means.token),
                lambda: 0,
                self.means.attempts,
                self.means.sleep,
                self.means.log,
            )
            described = {str(entry["rfilename"]): entry for entry in json.loads(answer)["siblings"]}
        except RetryableError as error:
            raise ModelError(f"cannot list the model's files at {url}: {error}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{url} does not answer like a model hub: {error!r}") from error
        try:
            return [File(described[name]) for name in wanted(list(described))]
        except ModelError as error:
            raise ModelError(f"{self.repo} at {self.revision}: {error}") from error

    def _fetch(self, file: File) -> None:
        """Have one verified file in the partial directory: what has its own name there is."""
        target = os.path.join(self.partial, file.name)
        if os.path.exists(target):
            return
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        name = urllib.parse.quote(file.name)
        transfer = Transfer(
            f"{self.endpoint}/{self.repo}/resolve/{self.revision}/{name}",
            f"{target}.partial",
            self.means,
        )
        transfer.run()
        try:
            file.verify(transfer.partial)
        except ModelError as error:
            os.unlink(transfer.partial)
            raise ModelError(
                f"the file from {transfer.url} {error}. It was deleted; other fetched files are "
                "kept. Run again; if the error persists, the mirror is damaged"
            ) from error
        os.chmod(transfer.partial, 0o644)
        os.replace(transfer.partial, target)
        self.means.log(f"{target}: {gib(file.size)} fetched and verified")


def states(directory: str) -> dict[str, list[int]]:
    """Return size and modification time of every file below a directory; of a link, those of its
    file.
    """
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            status = os.stat(path)
            found[os.path.relpath(path, directory)] = [status.st_size, status.st_mtime_ns]
    return found


def local_directory(path: str, reader: str | None) -> dict[str, Any]:
    """Accept a directory that is on the host. Returns the module's result; raises ModelError."""
    path = os.path.realpath(path)  # the service is shown this directory, and no link to it
    if not os.path.isdir(path):
        raise ModelError(
            f"model directory {path} is not on this host. Copy it there, correct `path`, or set "
            "`repo` and `revision` to fetch it"
        )
    if not any(os.path.isfile(os.path.join(path, name)) for name in DESCRIPTIONS):
        raise ModelError(
            f"{path} holds neither a model nor an adapter: none of {', '.join(DESCRIPTIONS)} is"
            " in it"
        )
    found = states(path)
    real = sorted({os.path.realpath(os.path.join(path, name)) for name in found})
    for shown in (path, *real):
        if reader and not may_read(shown, reader):
            raise ModelError(f"{shown} is not readable by {reader}. Run: chmod -R o+rX {path}")
    marks = json.dumps(found, sort_keys=True)
    return {
        "changed": False,
        "path": path,
        # A cache of the hub's own programs consists of links to files that lie elsewhere.
        "files": [path, *(file for file in real if not file.startswith(f"{path}/"))],
        "fingerprint": hashlib.sha256(marks.encode()).hexdigest()[:16],
    }
