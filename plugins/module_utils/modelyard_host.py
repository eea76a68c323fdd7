"""Programs and files of the host.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import time

_TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")
"""Variables that name a directory for temporary files."""


class ServiceError(Exception):
    """Something on the host is not as it must be; the text is for the user."""


def run(argv: list[str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a program and return its result, whatever its exit status.

    It runs in `/`, because a service user may not enter /root, and without the login's temporary
    directory (pam_tmpdir), which may be closed to that user, too. Its output is read as UTF-8,
    whatever the login's locale. Raises ServiceError.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _TEMPORARY}
    environment["LC_ALL"] = "C.UTF-8"
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout,
            env=environment,
            cwd="/",
        )
    except FileNotFoundError as error:
        raise ServiceError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{' '.join(argv)} did not finish within {timeout:.0f} s") from error


def write_atomically(path: str, content: str, mode: int = 0o644, gid: int = 0) -> None:
    """Write a file beside its place and rename it there: a reader sees the old or the new one,
    never half.
    """
    descriptor, temporary = tempfile.mkstemp(
        dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}."
    )
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
    return utc(os.lstat(path).st_mtime)


def utc(moment: float) -> str:
    """Return a time, in seconds since 1970, as text (ISO 8601, UTC)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


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
