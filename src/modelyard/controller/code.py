"""The bundle's own code, as far as it decides what a run does to a host."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

PARTS = ("site.yml", "playbooks", "plugins", "roles", "src")
"""Below the root of the clone. Documentation, tests and the lab decide nothing; `group_vars` and
the inventory are compiled into plans."""


def digest(root: Path, *versions: str) -> str:
    """Return a digest of the code below `root`, and of the versions of what runs it.

    Raises OSError.
    """
    found = hashlib.sha256("\n".join([*versions, sys.version]).encode())
    for path in sorted(_files(root)):
        found.update(f"\n{path.relative_to(root)}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def _files(root: Path) -> list[Path]:
    found = [root / part for part in PARTS if (root / part).is_file()]
    for part in PARTS:
        # Links in playbooks/ lead to the same directories.
        for directory, below, names in os.walk(root / part):
            below[:] = [name for name in below if name != "__pycache__"]
            found += [Path(directory, name) for name in names if not name.endswith(".pyc")]
    return [path for path in found if path.is_file()]
