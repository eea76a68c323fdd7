"""Downloads that survive interruptions, and what talking to a hub of models takes.

Standard library only.
"""

from __future__ import annotations

import grp
import http.client
import os
import pwd
import re
import shutil
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable

CHUNK_BYTES = 1 << 20
PROGRESS_EVERY_S = 10.0
NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
)
"""What a request raises that got no answer, or one that broke off. An answer with an error is an
HTTPError, which is to be caught before."""

TIMEOUT_S = 60.0


class ModelError(Exception):
    """The model cannot be put in place; the text says what, where, why and the likely fix."""


class RetryableError(Exception):
    """The connection broke or the server was not able to answer; worth another attempt."""


@dataclass(frozen=True)
class Means:
    """How files are fetched."""

    token: str | None = None
    """The hub's access token."""
    margin_mib: int = 1024
    """MiB that must stay free on the disk."""
    attempts: int = 5
    """How many of them in a row may bring no data."""
    log: Callable[[str], None] = lambda line: None
    free_bytes: Callable[[str], int] = lambda path: shutil.disk_usage(path).free
    sleep: Callable[[float], None] = time.sleep


def gib(size: int) -> str:
    """Return bytes as a text in MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def may_read(path: str, user: str) -> bool:
    """Whether the mode bits of a file or directory let `user` read it.

    True while the user does not exist.

    Only the path itself counts: the service gets it by a bind mount, so the directories above it
    may be closed.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return True
    status = os.stat(path)
    groups = {account.pw_gid} | {group.gr_gid for group in grp.getgrall() if user in group.gr_mem}
    wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else stat.S_IROTH
    if status.st_uid == account.pw_uid:
        wanted <<= 6
    elif status.st_gid in groups:
        wanted <<= 3
    return status.st_mode & wanted == wanted


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; a token stays with the host that it was meant for."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request that follows, None if none does. Called by urllib."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and not same_host(req.full_url, newurl):
            following.headers.pop("Authorization", None)
        return following


def same_host(one: str, other: str) -> bool:
    """Whether two addresses have the same scheme, host and port."""
    return urllib.parse.urlsplit(one)[:2] == urllib.parse.urlsplit(other)[:2]


def check_repository(repo: str, revision: str) -> None:
    """Raise ModelError unless `repo` and `revision` name one commit of a repository."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ModelError(f"repo must be OWNER/NAME, not {repo!r}")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ModelError(
            f"revision must be a commit (40 hexadecimal digits), not {revision!r}: branches and "
            "tags can move. The repository's history lists its commits"
        )


def request(
    url: str, token: str | None = None, have: int = 0, method: str = "GET"
) -> urllib.request.Request:
    """Return a request for `url`, from byte `have` on."""
    headers = {"User-Agent": "modelyard", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if have:
        headers["Range"] = f"bytes={have}-"
    return urllib.request.Request(url, headers=headers, method=method)


def opened(url: str, token: str | None = None, have: int = 0) -> Any:
    """Return the response to a request for `url`, from byte `have` on.

    Raises RetryableError, ModelError or 416.
    """
    try:
        return urllib.request.build_opener(Redirects).open(
            request(url, token, have), timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            raise
        raise refused(url, error) from error
    except NETWORK_ERRORS as error:
        raise broken(error) from error


def read(url: str, token: str | None = None) -> bytes:
    """Return what a request for `url` answers. Raises RetryableError or ModelError."""
    try:
        with opened(url, token) as response:
            return bytes(response.read())
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise broken(error) from error


def refused(url: str, error: urllib.error.HTTPError) -> Exception:
    """Return what an answer that is no success means: worth another attempt, or not."""
    if error.code >= 500 or error.code == 429:
        return RetryableError(f"the server answered {error.code}")
    said = str(error.headers.get("X-Error-Message") or error.reason).rstrip(".")
    token = (
        ". Does it need a token, or does this token lack access?"
        if error.code in (401, 403)
        else ""
    )
    return ModelError(f"{url} could not be fetched: it answered {error.code} {said}{token}")


def broken(error: Exception) -> RetryableError:
    """Return a failure of the connection as one that is worth another attempt."""
    return RetryableError(f"the connection failed ({getattr(error, 'reason', None) or error})")


def retried(
    work: Callable[[], Any],
    progress: Callable[[], int],
    attempts: int,
    sleep: Callable[[float], None],
    log: Any,
) -> Any:
    """Return what `work` returns.

    It is called again where that may help, until `attempts` in a row brought nothing.
    """
    failures = 0
    while True:
        before = progress()
        try:
            return work()
        except RetryableError as error:
            failures = 0 if progress() > before else failures + 1
            if failures >= attempts:
                raise
            log(f"{error}, retrying")
            sleep(min(2.0**failures, 30.0))


def write_text(path: str, text: str) -> None:
    """Write a file that appears whole under its name, with the directory that it is in."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as handle:
        handle.write(text)
    os.replace(f"{path}.new", path)


def check_space(directory: str, missing: int, means: Means) -> None:
    """Raise ModelError unless `missing` bytes fit below `directory` and the margin stays free."""
    free, margin = means.free_bytes(directory), means.margin_mib << 20
    if free < missing + margin:
        raise ModelError(
            f"not enough space for the model in {directory}: {gib(missing)} are still to be "
            f"fetched and {gib(margin)} must stay free, but only {gib(free)} are free. Free some "
            "space, or put it elsewhere and give `path`"
        )


class Transfer:
    """One file that is fetched into `partial`, continued where an earlier attempt or run ended."""

    def __init__(self, url: str, partial: str, means: Means) -> None:
        self.url, self.partial, self.means = url, partial, means

    def size(self) -> int:
        """Return how many bytes are in the partial file."""
        return os.path.getsize(self.partial) if os.path.exists(self.partial) else 0

    def run(self) -> None:
        """Bring the partial file to its full length, over as many connections as it takes.

        Raises ModelError.
        """
        try:
            retried(
                self._one_connection,
                self.size,
                self.means.attempts,
                self.means.sleep,
                lambda line: self.means.log(f"{self.partial}: {line}"),
            )
        except RetryableError as error:
            raise ModelError(
                f"{self.url} could not be fetched: {error}. {gib(self.size())} are kept in"
                f" {self.partial}; run again to continue"
            ) from error

    def _one_connection(self) -> None:
        """Ask for what is missing and append it.

        Raises RetryableError if another attempt may help.
        """
        have = self.size()
        try:
            with opened(self.url, self.means.token, have) as response:
                if response.status != 206:
                    have = 0  # The server knows no ranges and sends the file from its start.
                length = response.headers.get("Content-Length")
                total = have + int(length) if length else None
                check_space(os.path.dirname(self.partial), (total or 0) - have, self.means)
                with open(self.partial, "ab" if have else "wb") as output:
                    self._copy(response, output, total)
        except urllib.error.HTTPError as error:
            # Nothing is missing, or what we have is longer than the file: the checksum tells which.
            if error.headers.get("Content-Range") != f"bytes */{have}":
                os.unlink(self.partial)
                raise RetryableError(
                    "the partial file does not match the file at the URL"
                ) from error
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise broken(error) from error

    def _copy(self, response: Any, output: Any, total: int | None) -> None:
        reported = time.monotonic()
        while chunk := response.read(CHUNK_BYTES):
            output.write(chunk)
            if time.monotonic() - reported >= PROGRESS_EVERY_S:
                reported = time.monotonic()
                share = f" of {gib(total)} ({100 * output.tell() // total} %)" if total else ""
                self.means.log(f"{self.partial}: {gib(output.tell())}{share}")
        if total is not None and output.tell() < total:
            raise RetryableError(f"the connection ended after {gib(output.tell())} of {gib(total)}")
