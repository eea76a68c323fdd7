"""Keeps the payloads of modules from one run to the next.

Ansible parses a module and all that it imports to pack what it sends to a host. It keeps the result
for one run, in its own temporary directory: a quarter of a second per module and run, a third of
what a run that changes nothing costs the controller (docs/architecture.md). The sources hardly ever
change, so later runs find the packed modules there.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ansible
from ansible import constants
from ansible.plugins.vars import BaseVarsPlugin

DOCUMENTATION = r"""
name: modelyard_payloads
short_description: Keep packed modules between runs
version_added: "0.1.0"
description:
  - Links the packed modules of earlier runs into the temporary directory of this one, and keeps
    what this run packs in C(.cache/payloads) of the clone.
  - Covers the modules of this project and of C(ansible.builtin). A change of any of their sources,
    or another ansible-core, begins anew.
  - Does nothing where the clone cannot be written, or belongs to another user.
  - Sets no variable.
"""

KEPT = Path(__file__).parents[2] / ".cache/payloads"
"""One directory per state of the sources."""

OURS = ("ansible.modules.", "ansible.legacy.modelyard_")
"""How the names of packed modules begin whose sources the key covers."""

PLAIN = "-none"
"""How they end where no debugger and no coverage is packed with them."""

UNUSED_S = 86_400
"""Seconds after which the payloads of other sources are deleted."""


def key() -> str:
    """Return what the payloads depend on: names, sizes and times of all sources, hashed."""
    package = Path(ansible.__file__).parent
    places = [package / "modules", package / "module_utils"]
    places += map(Path, [*constants.DEFAULT_MODULE_PATH, *constants.DEFAULT_MODULE_UTILS_PATH])
    sources = hashlib.sha256()
    for place in places:
        for directory, inner, files in os.walk(place):
            inner[:] = sorted(set(inner) - {"__pycache__"})
            for name in sorted(files):
                path = os.path.join(directory, name)
                status = os.stat(path)
                sources.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return sources.hexdigest()[:16]


def packed(directory: Path) -> Iterator[Path]:
    """Yield the packed modules in a directory that are files, not links."""
    for path in directory.iterdir():
        if path.name.startswith(OURS) and path.name.endswith(PLAIN) and not path.is_symlink():
            yield path


def keep(run: Path, kept: Path) -> None:
    """Copy what this run packed; an incomplete copy is never seen under its name."""
    with suppress(OSError):
        for path in packed(run):
            handle, part = tempfile.mkstemp(dir=kept)
            os.close(handle)
            shutil.copyfile(path, part)
            os.replace(part, kept / path.name)


def link() -> None:
    """Link the payloads of earlier runs into this run's directory; keep new ones at its end."""
    kept = KEPT / key()
    run = Path(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache")
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Ansible unpickles them: only the user's own files are trusted.
    if kept.stat().st_uid != os.geteuid():
        return
    os.utime(kept)
    run.mkdir(exist_ok=True)
    for path in packed(kept):
        (run / path.name).symlink_to(path)
    for other in KEPT.iterdir():
        if other.stat().st_mtime < time.time() - UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)
    atexit.register(keep, run, kept)


class VarsModule(BaseVarsPlugin):
    """Sets no variable."""

    is_stateless = True
    linked = False

    def get_vars(self, loader: Any, path: str, entities: Sequence[Any]) -> dict[str, Any]:
        """Return nothing; the first call of a run links the payloads."""
        if not VarsModule.linked:
            VarsModule.linked = True
            with suppress(OSError):
                link()
        return {}
