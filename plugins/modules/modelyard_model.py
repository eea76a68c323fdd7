#!/usr/bin/python
"""Put a model file in place on the host: a file that is there, or a download that survives interruptions."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_model
short_description: Put a model file in place on the host
description:
  - Either accepts a file that the host already has (O(path)), or lets the host itself fetch one, from an address
    (O(url)) or from a repository at Hugging Face (O(repo)).
  - A download keeps its partial file, so a second run continues where the first was cut off. Space on the
    disk is checked before the first byte is written, and the checksum before the file gets its final name.
  - A verified file is not hashed again. Its checksum, size and modification time are recorded beside it.
  - While it downloads it writes a line to the host's journal every ten seconds.
  - Where O(repo) comes without O(sha256), the checksum is the one that the hub publishes for this file of this commit
    (C(X-Linked-ETag)). It is asked once and kept.
options:
  path:
    description: A GGUF file on the host. Of a split model, the first part; the others must lie beside it.
    type: path
  url:
    description: Where the host fetches the file. O(sha256) is then required.
    type: str
  sha256:
    description: Checksum of the file, 64 hexadecimal digits. Together with O(path) the file must match it.
    type: str
  repo:
    description: A repository of models, C(OWNER/NAME). O(revision) and O(file) are then required.
    type: str
  revision:
    description: The commit, 40 hexadecimal digits. A branch or a tag may name something else tomorrow.
    type: str
  file:
    description: The file in the repository, with its directory if it is in one.
    type: str
  endpoint:
    description: The hub that has the repository, or a mirror of it.
    type: str
    default: https://huggingface.co
  token_secret:
    description: Name of the secret with the hub's access token, for a repository that wants one. It is looked up on the
      controller and reaches the module as O(token).
    type: str
  token:
    description: The access token itself. It is sent to O(endpoint) only, not to where that redirects.
    type: str
  directory:
    description: Downloads lie in directories of their own below this one, named after their checksum.
    type: path
    default: /var/lib/modelyard/models
  reader:
    description: The user that must be able to read the file. Not checked while that user does not exist.
    type: str
  margin_mib:
    description: MiB that must stay free on the disk beside the model.
    type: int
    default: 1024
  attempts:
    description: How many attempts in a row may bring no data before the run fails.
    type: int
    default: 5
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: Modelyard
"""

EXAMPLES = r"""
- name: 1. A model that the host already has
  modelyard_model:
    path: /srv/models/qwen2.5-coder-7b-q5_k_m.gguf
    reader: modelyard-llama-cpp

- name: 2. A model that the host fetches
  modelyard_model:
    url: https://models.example/tiny.gguf
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: 3. A model at Hugging Face, whose owner wants to know who fetches it
  modelyard_model:
    repo: example/tiny-GGUF
    revision: 0123456789abcdef0123456789abcdef01234567
    file: tiny-q4_k_m.gguf
    token_secret: HF_TOKEN
"""

RETURN = r"""
path:
  description: Where the model is. In check mode, where it would be.
  returned: success
  type: str
files:
  description: Every file of the model, more than one if it is split.
  returned: success
  type: list
  elements: str
fingerprint:
  description: Changes when the file does. The checksum if there is one, else size and time.
  returned: success
  type: str
resumed_from:
  description: How many bytes an earlier run had left.
  returned: when something was downloaded
  type: int
"""

import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.modelyard_download import (
    TIMEOUT_S,
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
)
from ansible.module_utils.modelyard_services import sha256_of

PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def parts_of(path: str) -> list[str]:
    """Return all files of the model whose (first) file is `path`. Raises ModelError if it is another part."""
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
    """Where the record of a verified file lies: beside a download, below `directory` for a user's file."""
    if downloaded:
        return f"{path}.verified"
    return os.path.join(directory, "verified", hashlib.sha256(path.encode()).hexdigest()[:16])


def write_record(record: str, path: str, sha256: str) -> None:
    """Note that `path`, as it is now, has this checksum."""
    status = os.stat(path)
    os.makedirs(os.path.dirname(record), mode=0o755, exist_ok=True)
    with open(f"{record}.new", "w", encoding="utf-8") as handle:
        json.dump({"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}, handle)
    os.replace(f"{record}.new", record)


def is_recorded(record: str, path: str, sha256: str) -> bool:
    """Whether `path` was verified before and has not changed since."""
    try:
        status = os.stat(path)
        with open(record, encoding="utf-8") as handle:
            noted = json.load(handle)
    except (OSError, ValueError):
        return False
    return noted == {"sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def local_model(path: str, sha256: str | None, reader: str | None, directory: str, check_mode: bool) -> dict[str, Any]:
    """Accept a file that is on the host. Returns the module's result; raises ModelError."""
    if not PART.search(path):
        path = os.path.realpath(path)  # the service is shown this one file, and no link to it
    files = parts_of(path)
    for file in files:
        if not os.path.exists(file):
            part = f" (part of the split model {path})" if len(files) > 1 else ""
            raise ModelError(
                f"model file {file} is not on this host{part}. Copy it there, correct `path`, or give "
                "`url` and `sha256` to have it fetched"
            )
        if not os.path.isfile(file):
            raise ModelError(f"model file {file} is not a regular file")
        if not is_gguf(file):
            raise ModelError(f"model file {file} is not a GGUF file. Was it downloaded completely?")
        if reader and not may_read(file, reader):
            raise ModelError(f"model file {file} is not readable by {reader}. Run: chmod o+r {file}")
    if sha256:
        if len(files) > 1:
            raise ModelError(f"sha256 of a split model is not supported, remove it ({path})")
        record = record_path(path, directory, downloaded=False)
        if not is_recorded(record, path, sha256):
            found = sha256_of(path)
            if found != sha256:
                raise ModelError(
                    f"model file {path} has the wrong checksum: expected {sha256}, found {found}. Is it "
                    "another version of the model, or a damaged copy?"
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

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not same_host(req.full_url, newurl):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Hub:
    """A hub of models that answers as Hugging Face does."""

    def __init__(self, endpoint: str, repo: str, revision: str, file: str, token: str | None = None) -> None:
        check_repository(repo, revision)
        path = urllib.parse.quote(f"{repo}/resolve/{revision}/{file}")
        self.url = f"{endpoint.rstrip('/')}/{path}"
        self.token = token

    def published_sha256(self, directory: str, attempts: int, check_mode: bool, sleep: Callable[[float], None]) -> str:
        """Return the checksum that the hub publishes, asked once per host: a commit's file does not change."""
        record = os.path.join(directory, "published", hashlib.sha256(self.url.encode()).hexdigest()[:16])
        try:
            with open(record, encoding="utf-8") as handle:
                return handle.read().strip()
        except FileNotFoundError:
            pass
        try:
            sha256 = str(retried(self._ask, lambda: 0, attempts, sleep, lambda line: None))
        except RetryableError as error:
            raise ModelError(f"{self.url} could not be asked for its checksum: {error}") from error
        if not check_mode:
            os.makedirs(os.path.dirname(record), mode=0o755, exist_ok=True)
            with open(f"{record}.new", "w", encoding="utf-8") as handle:
                handle.write(f"{sha256}\n")
            os.replace(f"{record}.new", record)
        return sha256

    def _ask(self) -> str:
        """Ask for the file's headers: the hub's own say the checksum, those behind a redirect do not."""
        head = request(self.url, self.token, method="HEAD")
        try:
            with urllib.request.build_opener(RedirectsAtHome).open(head, timeout=TIMEOUT_S) as response:
                headers = response.headers
        except urllib.error.HTTPError as error:
            if not 300 <= error.code < 400:
                raise refused(self.url, error) from error
            headers = error.headers
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise broken(error) from error
        found = (headers.get("X-Linked-ETag") or "").removeprefix("W/").strip('"')
        if not re.fullmatch(r"[0-9a-f]{64}", found):
            raise ModelError(f"{self.url}: the hub publishes no checksum of this file. Give `sha256`")
        return found


class Download:
    """One model that the host fetches, in a directory named after its checksum."""

    def __init__(
        self,
        url: str,
        sha256: str,
        directory: str,
        margin_mib: int = 1024,
        attempts: int = 5,
        token: str | None = None,
        log: Callable[[str], None] = lambda line: None,
        free_bytes: Callable[[str], int] = lambda path: shutil.disk_usage(path).free,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(f"url {url} is no http(s) address. For a file on the host give `path`")
        name = os.path.basename(urllib.parse.unquote(parts.path))
        if not re.fullmatch(r"[\w][\w.+-]*", name):
            raise ModelError(f"url {url} does not end in a plain file name")
        if PART.search(name):
            raise ModelError(
                f"url {url} is one part of a split model. Put all parts on the host and give `path`, or merge them"
            )
        self.url, self.sha256 = url, sha256
        self.home = os.path.join(directory, sha256[:16])
        self.path = os.path.join(self.home, name)
        self.partial = f"{self.path}.partial"
        self.record = record_path(self.path, directory, downloaded=True)
        self.log = log
        self.transfer = Transfer(url, self.partial, token, margin_mib << 20, attempts, log, free_bytes, sleep)

    def is_there(self) -> bool:
        """Whether the verified model is in place."""
        return is_recorded(self.record, self.path, self.sha256)

    def fetch(self) -> int:
        """Download, verify, rename. Returns the bytes an earlier run had left; raises ModelError."""
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
                    f"what {self.url} delivers has the wrong checksum: expected {self.sha256}, "
                    f"found {found}. The file was deleted. Compare `sha256` with the publisher's; do not "
                    "just copy the one found"
                )
            if not is_gguf(self.partial):
                os.unlink(self.partial)
                raise ModelError(f"what {self.url} delivers is not a GGUF file, although its checksum is right")
            os.chmod(self.partial, 0o644)
            write_record(self.record, self.partial, self.sha256)
            os.replace(self.partial, self.path)
            return resumed_from


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "url": {"type": "str"},
            "sha256": {"type": "str"},
            "repo": {"type": "str"},
            "revision": {"type": "str"},
            "file": {"type": "str"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token_secret": {"type": "str", "no_log": False},
            "token": {"type": "str", "no_log": True},
            "directory": {"type": "path", "default": "/var/lib/modelyard/models"},
            "reader": {"type": "str"},
            "margin_mib": {"type": "int", "default": 1024},
            "attempts": {"type": "int", "default": 5},
        },
        required_one_of=[("path", "url", "repo")],
        mutually_exclusive=[("path", "url", "repo")],
        required_by={"url": "sha256", "repo": ("revision", "file")},
        supports_check_mode=True,
    )
    options = module.params
    sha256 = options["sha256"].lower() if options["sha256"] else None
    try:
        if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ModelError(f"sha256 must be 64 hexadecimal digits, not {options['sha256']!r}")
        if options["path"]:
            found = local_model(options["path"], sha256, options["reader"], options["directory"], module.check_mode)
            module.exit_json(**found)
        url = options["url"]
        if options["repo"]:
            hub = Hub(options["endpoint"], options["repo"], options["revision"], options["file"], options["token"])
            url = hub.url
            sha256 = sha256 or hub.published_sha256(
                options["directory"], options["attempts"], module.check_mode, time.sleep
            )
        download = Download(
            url,
            sha256 or "",
            options["directory"],
            margin_mib=options["margin_mib"],
            attempts=options["attempts"],
            token=options["token"],
            log=module.log,
        )
        result: dict[str, Any] = {"path": download.path, "files": [download.path], "fingerprint": sha256}
        if download.is_there():
            module.exit_json(changed=False, **result)
        if not module.check_mode:
            result["resumed_from"] = download.fetch()
        module.exit_json(changed=True, **result)
    except ModelError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the model could not be put in place: {error}")


if __name__ == "__main__":
    main()
