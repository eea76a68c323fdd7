"""Reads the roles' files of locked packages. Not part of the compiler: it reads the disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from modelyard.catalogue.versions import Lock

PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def locked(roles: Path, role: str, place: Callable[[str], str] = str) -> list[Lock]:
    """Return the locks of a role, e.g. NAME-0.32.0-cuda.txt for version 0.32.0.

    None where the role is missing: the plugins may be used without the roles. `place` shortens the
    path of a file.
    """
    name = role.replace("_", "-")
    return [
        Lock(
            role,
            path.stem.removeprefix(f"{name}-").split("-")[0],
            place(str(path)),
            dict(PINNED.findall(path.read_text(encoding="utf-8"))),
        )
        for path in sorted((roles / role / "files/locks").glob(f"{name}-*.txt"))
    ]
