"""Finds what lies in the directory of an inventory, and is not what Ansible takes it for: variables
that it reads as groups, and directories that are not `group_vars`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from modelyard.catalogue.ineffective import GROUP_KEYS, UnreadDirectory, UnreadKey
from modelyard.catalogue.sourcemap import Origin
from modelyard.controller.origins import ansible_origin, shorten
from modelyard.controller.places import EXTENSIONS, Place, sources_of

DIRECTORIES = ("group_vars", "host_vars")

BACKUP = re.compile(r"(^|[^a-z])(old|bak|backup|copy|orig|save|saved)([^a-z]|$)", re.IGNORECASE)

LIKE, NEARLY = 0.8, 0.9
"""From these ratios on (`difflib`) a directory may be one of these two: where Ansible reads it as
an inventory, and where it does not read it at all. `group_vars_old` is between them."""


def unread_directories(hostvars: Any) -> list[UnreadDirectory]:
    """Return the directories of variables that Ansible does not take for such. `hostvars` is
    Ansible's variable of that name.
    """
    found = []
    for source in sources_of(getattr(hostvars, "_inventory", None)):
        whole = os.path.isdir(source)
        for entry in sorted(_base(source).iterdir()):
            if entry.name in DIRECTORIES or entry.name.startswith(".") or not entry.is_dir():
                continue
            folded = entry.name.casefold().replace("-", "_")
            near = max(DIRECTORIES, key=lambda name: _ratio(name, folded))
            if _ratio(near, folded) >= (LIKE if whole else NEARLY) and _has_variables(entry):
                found.append(UnreadDirectory(Origin(shorten(str(entry))), near, whole))
    return found


def unread_keys(hostvars: Any) -> list[UnreadKey]:
    """Return the keys of groups of ours that Ansible does not read, what is no group at all, and
    groups with the name of such a key. `hostvars` is Ansible's variable of that name.
    """
    loader = getattr(hostvars, "_loader", None)
    found: list[UnreadKey] = []
    for source in sources_of(getattr(hostvars, "_inventory", None)):
        files = sorted(Path(source).iterdir()) if os.path.isdir(source) else [Path(source)]
        for file in files:
            if file.suffix in EXTENSIONS and file.is_file() and not os.access(file, os.X_OK):
                found += _keys(loader, file)
    return found


def backups(hostvars: Any) -> list[Origin]:
    """Return the files of an inventory that Ansible reads, and that look like copies of others."""
    return [
        Origin(shorten(str(file)))
        for source in sources_of(getattr(hostvars, "_inventory", None))
        if os.path.isdir(source)
        for file in sorted(Path(source).iterdir())
        if file.suffix in (*EXTENSIONS, ".ini", "") and BACKUP.search(file.stem) and file.is_file()
    ]


def idle_groups(hostvars: Any, places: Iterable[Place]) -> frozenset[str]:
    """Return the groups with a name like ours that only list hosts: they hold no groups, and
    nothing sets a variable for them.
    """
    groups = getattr(getattr(hostvars, "_inventory", None), "groups", {})
    used = {place.name for place in places if place.kind == "group"}
    return frozenset(
        str(name)
        for name, group in groups.items()
        if str(name).startswith("llm_") and group.hosts and not group.child_groups
        if name not in used
    )


def _base(source: str) -> Path:
    return Path(source if os.path.isdir(source) else os.path.dirname(source) or ".")


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _has_variables(directory: Path) -> bool:
    return any(file.suffix in EXTENSIONS for file in directory.rglob("*"))


def _keys(loader: Any, file: Path) -> Iterator[UnreadKey]:
    """Yield the keys of groups of ours that Ansible does not read."""
    try:
        content = loader.load_from_file(str(file), unsafe=True, trusted_as_template=True)
    except Exception:
        # Ansible has read it already, and told what is wrong; or another plugin of its reads it.
        return
    if isinstance(content, Mapping) and "plugin" not in content:
        yield from _of_groups(content, set())


def _of_groups(groups: Mapping[Any, Any], seen: set[int]) -> Iterator[UnreadKey]:
    for name, group in groups.items():
        if (not isinstance(group, Mapping) and group is not None) or (
            name in GROUP_KEYS and {*(group or ())}.isdisjoint(GROUP_KEYS)
        ):
            yield UnreadKey(str(name), "", ansible_origin(name))
        if not isinstance(group, Mapping) or id(group) in seen:
            continue
        seen.add(id(group))
        if str(name).startswith("llm_") or name == "all":
            for key in group:
                if key not in GROUP_KEYS:
                    yield UnreadKey(str(name), str(key), ansible_origin(name), ansible_origin(key))
        children = group.get("children")
        if isinstance(children, Mapping):
            yield from _of_groups(children, seen)
