"""What is wrong with `llm_versions`: releases that must not run, sources of other releases, locks
that cannot be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.catalogue.versions import COMPONENTS, Lock, Versions, unsafe
from modelyard.catalogue.withdrawn import withdrawn_among
from modelyard.compiler.inventory import Inventory
from modelyard.compiler.resolve import Resolved
from modelyard.diagnostics import Report, misspelt_choice
from modelyard.engines import ROLES
from modelyard.engines.base import Accelerated
from modelyard.kinds import Archive, Release, release_order

SEE = (
    "write llm_overrides: {{versions: {{{entry}}}}} in group_vars/llm_stack/ of your inventory, with"
    " what group_vars/all/versions.yml has for it"
)

_NUMBERS = r"(\d+\.\d+\.\d+(?:\.\d+)*(?:(?:\.post|rc|a|b)\d+)?)(?![0-9A-Za-z])"
_BUILD = re.compile(r"(?:^|[/_-])(b\d{3,})(?=[/._-]|$)")
_OTHER_SYSTEM = re.compile(r"(?:^|[/._-])(darwin|macos|windows)(?=[/._-]|$)", re.IGNORECASE)
_NO_ARCHIVE = re.compile(r"\.(whl|zip|exe|dmg|deb|rpm)$", re.IGNORECASE)


def check_versions(
    model: Catalogue, resolved: Resolved, inventory: Inventory, report: Report, *, sound: bool
) -> None:
    """Versions that are unsafe, cannot be checked, or are missing for an engine that runs."""
    if model.versions is None:
        if sound:
            message = "llm_versions is not defined, so no version is pinned"
            report.error(
                "missing-key", message, ("versions",), _missing_hint(("versions",), report)
            )
        return
    _check_builds(model, model.versions, report)
    deployed = {member.engine.role for member in resolved.all() if member.host}
    for component in COMPONENTS:
        entry = model.versions.of(component)
        path: Path = ("versions", component)
        if entry is not None:
            _check_release(component, entry, inventory, report)
            _check_source(component, entry, report)
        elif component in deployed and sound:
            message = f"{component} is deployed, but llm_versions has no version of it"
            report.error("missing-key", message, path, _missing_hint(path, report))
    _check_checksums(model, model.versions, report)


def _missing_hint(path: Path, report: Report) -> str:
    """Return what to do about a version that is missing: taken out by an override, or never
    there.
    """
    if report.source.overrides(path):
        return "remove this null: the shipped version is then deployed"
    entry = f"{path[1]}: {{version: ...}}" if len(path) == 2 else "..."
    return SEE.format(entry=entry)


def _check_release(component: str, entry: Release, inventory: Inventory, report: Report) -> None:
    version, path = entry.version, ("versions", component, "version")
    if problem := unsafe(component, version):
        hint = _safe_hint(component, entry, inventory)
        report.error("version-unsafe", f"{component} {version} {problem}", path, hint)
        return
    known = inventory.locks.get(component)
    if known is not None and version not in known:
        message = f"{component} {version} has no lock file, so its packages cannot be verified"
        listed = ", ".join(sorted(known)) or "none"
        hint = (
            f"versions with a lock file: {listed}; roles/{component}/README.md explains how to"
            " add one"
        )
        report.error("version-without-lock", message, path, hint)
    for lock in inventory.pins:
        if (lock.role, lock.version) == (component, version):
            _check_lock(lock, path, report)


def _safe_hint(component: str, entry: Release, inventory: Inventory) -> str:
    """Return what to deploy in place of an unsafe version: what would not be refused next."""
    locked = inventory.locks.get(component)
    if safe := [version for version in sorted(locked or ()) if not unsafe(component, version)]:
        return f"use a version with a lock file: {', '.join(safe)}"
    least = type(entry).least(entry.version)
    return f"use {least} or newer" if least else "use another version"


def _check_lock(lock: Lock, path: Path, report: Report) -> None:
    """Check what a lock file really pins."""
    readme = f"make the lock file anew (roles/{lock.role}/README.md)"
    for package, version, why in withdrawn_among(lock.packages.items()):
        message = f"{lock.file} pins {package} {version}: {why}"
        report.error("version-unsafe", message, path, readme)
    own = lock.role.replace("_", "-")
    for package in (own, *(name for name in lock.packages if name.startswith(f"{own}-cpu"))):
        pinned = lock.packages.get(package)
        if pinned is not None and release_order(pinned) != release_order(lock.version):
            message = f"{lock.file} is named after {lock.version}, but pins {package} {pinned}"
            report.error("version-mismatch", message, path, readme)


def _check_source(component: str, entry: Release, report: Report) -> None:
    """Check that what a release comes from is that release."""
    source = getattr(entry, "source", None)
    at: Path = ("versions", component, "source")
    for key, text in _places(source):
        if key == "sdist":
            other = text.partition("==")[2]
            other = "" if release_order(other) == release_order(entry.version) else other
        else:
            other = named_version(component, text, entry.version)
        wrong = (*at, key)
        if other:
            # The user's line, and not the shipped one that no longer fits.
            version: Path = ("versions", component, "version")
            where = wrong if report.source.overrides(wrong) else version
            report.error(
                "version-mismatch",
                f"{component} is {entry.version} by version, but {other} by its source ({key}):"
                " the one would run under the name of the other",
                where,
                f"change version, source.{key} and its checksum together"
                if release_order(entry.version) and not entry.version.startswith("b")
                else "a tag has an archive of its own: source: {sdist: null, url: ..., sha256: ...}",
            )
        elif key != "sdist" and (problem := _unfit(source, text)):
            report.error("invalid-value", f"{key}: {problem}", wrong, _other_file(source, problem))


def _places(source: Any) -> Iterator[tuple[str, str]]:
    for key in ("sdist", "url", "path", "checksums"):
        if text := getattr(source, key, None):
            yield key, str(text)


def _unfit(source: Any, text: str) -> str:
    """Return why a file cannot be what it is taken for."""
    filled = text.replace("{version}", "") if isinstance(source, Archive) else text
    if unfilled := re.search(r"\{[^}]*\}", filled):
        return f"{unfilled[0]} is not filled in here"
    name = urlsplit(text).path.rpartition("/")[2]
    if system := _OTHER_SYSTEM.search(name):
        return f"this is a program for {system[1]}, and the hosts run Linux"
    if kind := _NO_ARCHIVE.search(name):
        return f"a file that ends in {kind[0]} is no archive of this kind"
    return ""


def _other_file(source: Any, problem: str) -> str:
    """Return what to do about a file that cannot be what it is taken for."""
    misspelt = re.match(r"\{([^}]*)\}", problem) if isinstance(source, Archive) else None
    near = misspelt_choice(misspelt[1], ["version"]) if misspelt else ""
    return near.replace('"version"', '"{version}"') or "name another file"


def named_version(component: str, text: str, version: str) -> str:
    """Return the version of a component that a path or an address names, if it names another one
    and not `version`; else an empty string.

    Only what follows the component's name, or a `v`, counts: other numbers may be dates, or those
    of a toolkit.
    """
    path = text.replace("{version}", version)
    path = urlsplit(path).path if "://" in path else path
    name = "[-_.]?".join(component.split("_"))
    if version.startswith("b"):
        found = _BUILD.findall(path)
    else:
        pattern = rf"(?:{name}(?:[-_.]?python)?[-_/]v?|/v){_NUMBERS}"
        found = re.findall(pattern, path, re.IGNORECASE)
    wanted = release_order(version)
    others = [one for one in found if release_order(one) != wanted]
    return others[0] if others and len(others) == len(found) else ""


def _check_checksums(model: Catalogue, versions: Versions, report: Report) -> None:
    """Refuse one checksum for two files: one of the two is another's."""
    seen: dict[str, tuple[str, Any]] = {}
    for component in COMPONENTS:
        source = getattr(versions.of(component), "source", None)
        sha256 = getattr(source, "sha256", None)
        if sha256 is None:
            continue
        owner, other = seen.setdefault(sha256, (component, source))
        if owner != component and list(_places(source)) != list(_places(other)):
            _same(report, ("versions", component, "source", "sha256"), component, owner)
    for name, provider in model.providers.items():
        for position, one in enumerate(provider.models):
            sha256 = one.source.sha256 if one.source else None
            if sha256 in seen:
                path: Path = ("providers", name, "models", position, "source", "sha256")
                _same(report, path, f'"{one.name}"', seen[sha256][0])


def _same(report: Report, path: Path, one: str, other: str) -> None:
    message = f"{one} has the checksum of {other}, which is another file"
    report.error("invalid-value", message, path, "take the checksum of this file")


def _check_builds(model: Catalogue, versions: Versions, report: Report) -> None:
    """Warn of keys that the build of an engine does not read, for GPUs or for CPUs."""
    for role in ROLES:
        entry = versions.of(role)
        if isinstance(entry, Accelerated) and entry.backend == "cpu":
            for key in entry.gpu_keys:
                if getattr(entry, key) != type(entry).model_fields[key].default:
                    report.warning(
                        "no-effect",
                        f"{key} has no effect: llm_versions.{role}.backend is cpu",
                        ("versions", role, key),
                        f"remove it, or set llm_versions.{role}.backend to auto or cuda",
                        key=True,
                    )
    for name, provider in model.providers.items():
        engine = provider.engine
        if provider.group is None or engine is None or versions.backend(engine) != "cuda":
            continue
        for key in engine.cpu_keys:
            if key in provider.settings.model_fields_set:
                report.warning(
                    "no-effect",
                    f'{key} of "{name}" has no effect: {engine.title} is built for GPUs',
                    ("providers", name, provider.type, key),
                    "remove it; on GPUs vram_mib of a model, with llm_gpus of the host, says how"
                    " much memory it takes",
                    key=True,
                )
