"""A model's file on the host: one that is there, or one that the host fetches.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ansible.module_utils.modelyard_download import (
    NETWORK_ERRORS,
    TIMEOUT_S,
    Means,
    ModelError,
    Redirects,
    RetryableError,
    Transfer,
    broken,
    check_repository,
    may_read,
    refused,
    request,
    retried,
    same_host,
    write_text,
)
from ansible.module_utils.modelyard_host import sha256_of

MODELS = "/var/lib/modelyard/models"
"""Below this lies what is fetched."""
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def hub_url(endpoint: str, repo: str, revision: str, file: str) -> str:
    """Return the address of a repository's file at one commit."""
    return f"{endpoint.rstrip('/')}/{urllib.parse.quote(f'{repo}/resolve/{revision}/{file}')}"


def published_record(url: str, directory: str) -> str:
    """Return where the checksum is kept that a hub publishes for a file."""
    return os.path.join(directory, "published", hashlib.sha256(url.encode()).hexdigest()[:16])


def place_of(url: str, sha256: str, directory: str) -> str:
    """Return where a file is put that is fetched from `url`."""
    name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    return os.path.join(directory, sha256[:16], name)


def parts_of(path: str) -> list[str]:
    """Return all files of the model whose (first) file is `path`.

    Raises ModelError if it is another part.
    """
    match = PART.search(path)
    if not match:
        return [path]
    if int(match[1]) != 1:
        raise ModelError(f"{path} is part {int(match[1])} of a split model: name its first part")
    stem = path[: match.start()]
    return [f"{stem}-{number:05d}-of-{match[2]}.gguf" for number in range(1, int(match[2]) + 1)]


def is_gguf(path: str) -> bool:
    """Whether the file starts as every GGUF file does."""
    with open(path, "rb") as handle:
        return handle.read(4) == b"GGUF"


def record_path(path: str, directory: str, downloaded: bool) -> str:
    """Where the record of a verified file lies: beside a download, below `directory` for a user's
    file.
    """
    if downloaded:
        return f"{path}.verified"
    return os.path.join(directory, "verified", hashlib.sha256(path.encode()).hexdigest()[:16])


def write_record(record: str, path: str, sha256: str) -> None:
    """Note that `path`, as it is now, has this checksum."""
    status = os.stat(path)
    noted = {"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    write_text(record, json.dumps(noted))


def is_recorded(record: str, path: str, sha256: str) -> bool:
    """Whether `path` was verified before and has not changed since."""
    try:
        status = os.stat(path)
        with open(record, encoding="utf-8") as handle:
            noted = json.load(handle)
    except (OSError, ValueError):
        return False
    found = {"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    return bool(noted == found)


def local_file(
    path: str, sha256: str | None, reader: str | None, directory: str, check_mode: bool
) -> dict[str, Any]:
    """Accept a file that is on the host. Returns the module's result; raises ModelError."""
    if not PART.search(path):
        path = os.path.realpath(path)  # the service is shown this one file, and no link to it
    files = parts_of(path)
    for file in files:
        if not os.path.exists(file):
            part = f" (part of the split model {path})" if len(files) > 1 else ""
            raise ModelError(
                f"model file {file} is not on this host{part}. Copy it there, correct `path`, or "
                "set `url` and `sha256` to fetch it"
            )
        if not os.path.isfile(file):
            raise ModelError(f"model file {file} is not a regular file")
        if not is_gguf(file):
            raise ModelError(f"model file {file} is not a GGUF file. Was it downloaded completely?")
        if reader and not may_read(file, reader):
            raise ModelError(
                f"model file {file} is not readable by {reader}. Run: chmod o+r {file}"
            )
    if sha256:
        if len(files) > 1:
            raise ModelError(f"sha256 of a split model is not supported, remove it ({path})")
        record = record_path(path, directory, downloaded=False)
        if not is_recorded(record, path, sha256):
            found = sha256_of(path)
            if found != sha256:
                raise ModelError(
                    f"model file {path} has the wrong checksum: expected {sha256}, found {found}."
                    " Is it another version of the model, or a damaged copy?"
                )
            if not check_mode:
                write_record(record, path, sha256)
        return {"changed": False, "path": path, "files": files, "fingerprint": sha256}
    states = [os.stat(file) for file in files]
    marks = " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states)
    return {
        "changed": False,
        "path": path,
        "files": files,
        "fingerprint": hashlib.sha256(marks.encode()).hexdigest()[:16] if len(files) > 1 else marks,
    }


class RedirectsAtHome(Redirects):
    """Follows redirects to the same host only, as a renamed repository has them."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request that follows, None if none does. Called by urllib."""
        if not same_host(req.full_url, newurl):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Hub:
    """A hub of models that answers as Hugging Face does."""

    def __init__(self, endpoint: str, repo: str, revision: str, file: str, means: Means) -> None:
        check_repository(repo, revision)
        self.url = hub_url(endpoint, repo, revision, file)
        self.means = means

    def published_sha256(self, directory: str, check_mode: bool) -> str:
        """Return the checksum that the hub publishes, asked once per host: a commit's file does not
        change.

        Raises ModelError.
        """
        record = published_record(self.url, directory)
        try:
            with open(record, encoding="utf-8") as handle:
                return handle.read().strip()
        except FileNotFoundError:
            pass
        try:
            attempts, sleep = self.means.attempts, self.means.sleep
            sha256 = str(retried(self._ask, lambda: 0, attempts, sleep, lambda line: None))
        except RetryableError as error:
            raise ModelError(f"cannot get the checksum of {self.url}: {error}") from error
        if not check_mode:
            write_text(record, f"{sha256}\n")
        return sha256

    def _ask(self) -> str:
        """Ask for the file's headers: the hub's own say the checksum, those behind a redirect do
        not.
        """
        head = request(self.url, self.means.token, method="HEAD")
        try:
            with urllib.request.build_opener(RedirectsAtHome).open(
                head, timeout=TIMEOUT_S
            ) as response:
                headers = response.headers
        except urllib.error.HTTPError as error:
            if not 300 <= error.code < 400:
                raise refused(self.url, error) from error
            headers = error.headers
        except NETWORK_ERRORS as error:
            raise broken(error) from error
        found = (headers.get("X-Linked-ETag") or "").removeprefix("W/").strip('"')
        if not re.fullmatch(r"[0-9a-f]{64}", found):
            raise ModelError(
                f"{self.url}: the hub publishes no checksum of this file. Set `sha256`"
            )
        return found


class Download:
    """One model that the host fetches, in a directory named after its checksum."""

    def __init__(
        self,
        url: str,
        sha256: str,
        directory: str,
        means: Means,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(
                f"url {url} is not an http(s) address. For a file on the host set `path`"
            )
        self.path = place_of(url, sha256, directory)
        self.home, name = os.path.split(self.path)
        if not re.fullmatch(r"[\w][\w.+-]*", name):
            raise ModelError(f"url {url} does not end in a plain file name")
        if PART.search(name):
            raise ModelError(
                f"url {url} is one part of a split model. Put all parts on the host and set `path`,"
                " or merge them"
            )
        self.url, self.sha256 = url, sha256
        self.partial = f"{self.path}.partial"
        self.record = record_path(self.path, directory, downloaded=True)
        self.log = means.log
        self.transfer = Transfer(url, self.partial, means)

    def is_there(self) -> bool:
        """Whether the verified model is in place."""
        return is_recorded(self.record, self.path, self.sha256)

    def fetch(self) -> int:
        """Download, verify, rename.

        Returns the bytes an earlier run had left; raises ModelError.
        """
        os.makedirs(self.home, mode=0o755, exist_ok=True)
        # A run whose connection was lost may still be downloading: this one waits for it.
        with open(os.path.join(self.home, ".lock"), "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.is_there():
                return 0
            resumed_from = self.transfer.size()
            self.transfer.run()
            if resumed_from and sha256_of(self.partial) != self.sha256:
                # The file at the URL may have changed since the first half was fetched.
                self.log(f"{self.path}: the resumed file has the wrong checksum, starting over")
                os.unlink(self.partial)
                self.transfer.run()
            found = sha256_of(self.partial)
            if found != self.sha256:
                os.unlink(self.partial)
                raise ModelError(
                    f"the file from {self.url} has the wrong checksum: expected {self.sha256}, "
                    f"found {found}. The file was deleted. Compare `sha256` with the "
                    "publisher's; do not just copy the one found"
                )
            if not is_gguf(self.partial):
                os.unlink(self.partial)
                raise ModelError(
                    f"the file from {self.url} is not a GGUF file, although its checksum matches"
                )
            os.chmod(self.partial, 0o644)
            write_record(self.record, self.partial, self.sha256)
            os.replace(self.partial, self.path)
            return resumed_from
