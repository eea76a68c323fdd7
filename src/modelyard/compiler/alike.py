"""Public names that a person would take for one: the gateway tells them apart, whoever reads or
types them does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.diagnostics import Report


def check_alike(catalogue: Catalogue, report: Report) -> None:
    """Warn of names that differ by case, by `-` and `_`, or by `:latest` only.

    An alias of a model may be like its name: both lead to the same.
    """
    aliases = catalogue.routing.aliases
    first: dict[str, tuple[str, Path]] = {}
    for name, path in _names(catalogue):
        other, where = first.setdefault(_read(name), (name, path))
        if name == other or name in (other, aliases.get(other)) or aliases.get(name) == other:
            continue
        ours = {aliases.get(name, name), aliases.get(other, other)}
        if len(ours) == 1:
            continue
        origin = report.source.origin(where, key=True)
        report.warning(
            "shadowed-name",
            f'"{name}" is easily taken for "{other}"' + (f" ({origin})" if origin else ""),
            path,
            "rename one of them, so that clients ask for what they mean",
            key=True,
        )


def _read(name: str) -> str:
    """Return a name as a person reads it."""
    return name.casefold().removesuffix(":latest").replace("_", "-")


def _names(catalogue: Catalogue) -> Iterator[tuple[str, Path]]:
    for provider, entry in catalogue.providers.items():
        for position, model in enumerate(entry.models):
            yield model.name, ("providers", provider, "models", position, "name")
    for alias in catalogue.routing.aliases:
        yield alias, ("routing", "aliases", alias)
    for capability in catalogue.routing.capabilities:
        yield capability, ("routing", "capabilities", capability)
