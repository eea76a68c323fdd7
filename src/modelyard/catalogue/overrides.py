"""Overrides: change three lines of the shipped catalogue without copying it.

Every `llm_overrides_*` variable in name order, then `llm_overrides`, then what was switched, each
in the catalogue's shape (`providers`, `routing`, ...), is merged over the catalogue key by key.
Models are found by their name. `null` removes, unless null is a value of the key's own. A value
that is one of several shapes is replaced whole: half of the old shape beside half of the new one
would never be valid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from modelyard.catalogue.fields import (
    field_at,
    keys_at,
    meant_path,
    nested,
    takes_null,
    wants_mapping,
)
from modelyard.catalogue.models import Model
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Merged, Origin, Path, Probe, is_list
from modelyard.diagnostics import Diagnostic, did_you_mean, on_command_line

SWITCHED = "llm_overrides_switched"
"""What `playbooks/switch_model.yml` writes into the inventory. It comes last: who switches a model
means it, whatever the files say."""

SECTIONS = ("providers", "routing", "gateway", "clients", "monitoring", "versions", "rollout")


def is_override(variable: str) -> bool:
    """Return whether a variable holds overrides, by its name."""
    return re.fullmatch(r"llm_overrides(_+[^\W_].*)?", variable) is not None


def as_override(path: Path, value: str) -> str:
    """Return the override that writes `value` (YAML) at `path`, as one line of YAML."""
    for depth, key in reversed(list(enumerate(path))):
        value = f"{{{json.dumps(key) if depth == 2 else key}: {value}}}"
    return f"llm_overrides: {value}"


def is_atomic(path: Path) -> bool:
    """Return whether an override replaces the value whole: one entry of any kind of fallbacks, one
    source.
    """
    return path[-1] == "source" or (
        len(path) == 3 and path[0] == "routing" and str(path[1]).endswith("fallbacks")
    )


class _Merge:
    def __init__(self, variable: str, probe: Probe, removed: dict[str, Origin | None]) -> None:
        self.variable = variable
        self.probe = probe
        self.diagnostics: list[Diagnostic] = []
        self.removed = removed

    def mapping(
        self, base: Mapping[Any, Any], over: Mapping[Any, Any], path: Path, around: Origin | None
    ) -> Merged:
        out = Merged(base, self.probe(base) or around)
        for key, value in over.items():
            here = self.probe(key) or self.probe(value) or around
            at = (*path, key)
            if value is None:
                self.null(out, key, at, here)
                continue
            old = out.get(key)
            by_name = at[0] == "providers" and at[2:] == ("models",)
            if by_name and (is_list(value) or isinstance(value, Mapping)):
                if not is_list(old):
                    old = []
                    out.origins[key] = (here, self.probe(value) or here)
                # The list keeps the place where it was begun; its elements know their own.
                out[key] = self.models(old, value, at, here)
                if not out[key]:
                    out.origins[key] = (here, self.probe(value) or here)
                continue
            if isinstance(old, Mapping) and isinstance(value, Mapping) and not is_atomic(at):
                out[key] = self.mapping(old, value, at, here)
                continue
            if (
                isinstance(value, Mapping)
                and not isinstance(old, Mapping | None)
                and wants_mapping(Catalogue, at)
            ):
                continue  # What it would change is wrong itself, which must be told.
            if _has_models_by_name(value, at):
                out[key] = self.mapping({}, value, at, here)
                out.origins[key] = (here, self.probe(value) or here)
                continue
            out[key] = value
            out.origins[key] = (here, self.probe(value) or here)
        return out

    def null(self, out: Merged, key: Any, at: Path, here: Origin | None) -> None:
        """Take a key out of `out`, or give it the value null where that is one of its own."""
        field = field_at(Catalogue, at)
        if field is not None and takes_null(field) and field.default is not None:
            out[key] = None
            out.origins[key] = (here, here)
        elif len(at) == 1 and field is not None and not takes_null(field):
            self._add(
                "invalid-value",
                f"{key} has nothing below it: null would remove the whole section",
                at,
                here,
                "indent what belongs below it, or remove this line",
            )
        elif field is not None and _would_empty(field, out.get(key)):
            self._add(
                "invalid-value",
                f"{key} has nothing below it: null would remove all that is there",
                at,
                here,
                f"remove this line, or write {key}: [] for none"
                if is_list(out[key]) and key != "models"
                else "indent what belongs below it, or remove this line; to take out one thing below"
                " it, write null for that",
            )
        elif key in out:
            self.removed.update(dict.fromkeys(_public_names(out[key], at), here))
            del out[key]
            out.origins.pop(key, None)
            out.out[key] = here
        elif field is None or not takes_null(field):
            self._removes_nothing(key, out, at, here, out.out.get(key))

    def entries(
        self, over: Any, path: Path, around: Origin | None
    ) -> Iterator[tuple[Any, Any, Origin | None]]:
        """Yield name, value and place of each model of an override, a mapping by name or a list;
        refuse what is no model.
        """
        if isinstance(over, Mapping):
            for key, value in over.items():
                yield key, value, self.probe(key) or self.probe(value) or around
            return
        seen: set[Any] = set()
        for position, item in enumerate(over):
            here = self.probe(item) or around
            name = item.get("name") if isinstance(item, Mapping) else None
            if isinstance(name, str) and name in seen:
                self._add(
                    "duplicate-model",
                    f'{self.variable} has model "{name}" twice in one list',
                    (*path, position),
                    self.probe(name) or here,
                    "keep one of them",
                )
                continue
            seen.add(name if isinstance(name, str) else None)
            yield name, item, here

    def models(self, base: Any, over: Any, path: Path, around: Origin | None) -> list[Any]:
        """Merge models by name. `over` is a list of models, or a mapping NAME: model (null removes
        it).
        """
        out: list[Any] = list(base)
        for name, entry, here in self.entries(over, path, around):
            names = [item.get("name") if isinstance(item, Mapping) else None for item in out]
            index = names.index(name) if name is not None and name in names else None
            if index is None and isinstance(over, Mapping) and name in Model.model_fields:
                self._add(
                    "unknown-key",
                    f'"{name}" is a key of a model, but stands where the names of models are',
                    (*path, name),
                    here,
                    "indent it below the model that it belongs to",
                )
            elif entry is None and isinstance(over, Mapping):
                if index is None:
                    known = [n for n in names if isinstance(n, str)]
                    before = self.removed.get(str(name))
                    self._removes_nothing(name, known, (*path, name), here, before)
                else:
                    self.removed[str(name)] = here
                    del out[index]
            elif not isinstance(entry, Mapping):
                out.append(entry)
            elif index is None:
                new = self.mapping({}, entry, (*path, len(out)), here)
                if name is not None and "name" not in new:
                    new["name"] = name
                    new.origins["name"] = (here, here)
                out.append(new)
            else:
                out[index] = self.mapping(out[index], entry, (*path, index), here)
        return out

    def _add(
        self, code: str, message: str, path: Path, origin: Origin | None, hint: str = ""
    ) -> None:
        self.diagnostics.append(
            Diagnostic(code, "error", message, (self.variable, *path), origin, hint)
        )

    def _removes_nothing(
        self, key: Any, known: Any, path: Path, origin: Origin | None, before: Origin | None
    ) -> None:
        """Refuse to remove what is not there, or was removed at `before`."""
        if before is not None:
            message = f'{self.variable} removes "{key}", which was removed at {before} already'
            self._add("unknown-override", message, path, origin, "remove this line")
            return
        near = did_you_mean(str(key), [str(name) for name in known])
        self._add(
            "unknown-override",
            f'{self.variable} removes "{key}", which does not exist (nothing below a name is null,'
            " which removes)",
            path,
            origin,
            " ".join(filter(None, (near, _instead_of_nothing(key, path)))),
        )


def _would_empty(field: FieldInfo, old: Any) -> bool:
    """Return whether null would remove what others have written into a part that is always there.

    That is a key whose lines were all commented out. A list that may be empty has `[]` for it.
    """
    if takes_null(field) or not old:
        return False
    return isinstance(old, Mapping) or (is_list(old) and field.default == [])


def _has_models_by_name(value: Any, path: Path) -> bool:
    """Return whether a value is a new provider whose models are a mapping."""
    is_provider = len(path) == 2 and path[0] == "providers" and isinstance(value, Mapping)
    return is_provider and isinstance(value.get("models"), Mapping)


def _instead_of_nothing(key: Any, path: Path) -> str:
    """Return what to write where a name has nothing below it."""
    if path[0] == "providers" and path[2:3] == ("models",) and len(path) == 4:
        empty = f"{json.dumps(str(key))}: {{}}"
        return f"to add a model that needs no keys, write {empty}, else remove this line"
    if len(path) == 2 and path[0] in ("providers", "clients"):
        return "to add it, write its keys below it, else remove this line"
    return "give it a value, or remove this line"


def _public_names(value: Any, path: Path) -> list[str]:
    """Return the names that clients lose when `value` at `path` is removed."""
    if len(path) == 3 and path[:2] in (("routing", "aliases"), ("routing", "capabilities")):
        return [str(path[2])]
    if path[0] == "providers" and len(path) in (2, 3):
        models: Any = value.get("models") if isinstance(value, Mapping) else value
        return (
            [str(model.get("name")) for model in models if isinstance(model, Mapping)]
            if is_list(models)
            else []
        )
    return []


def _instead_of_key(variable: str, key: str, value: Any, catalogue: Mapping[str, Any]) -> str:
    """Return the hint for a key of an override that is no section."""
    if is_override(key):
        return f"remove this line, and move what is below it into {variable} itself"
    section = variable.removeprefix("llm_overrides_")
    if section in SECTIONS and key in keys_at(Catalogue, (section,)):
        return f"write {variable}: {nested((section, key))}"
    parts = key.split(".")
    if len(parts) > 1 and parts[0] in SECTIONS:
        return f"write {variable}: {nested(tuple(parts))}"
    if near := did_you_mean(key.removeprefix("llm_"), SECTIONS):
        return near
    if key.removeprefix("llm_") in SECTIONS:
        return f'did you mean "{key.removeprefix("llm_")}"?'
    providers = catalogue.get("providers")
    if isinstance(providers, Mapping) and key in providers and isinstance(value, Mapping):
        section = "versions" if "version" in value else "providers"
        return f"write {variable}: {nested((section, key))}"
    if there := meant_path(Catalogue, (key,)):
        return f"write {variable}: {nested(there)}"
    return f"the keys of an override are {', '.join(SECTIONS)}"


def apply_overrides(
    catalogue: Mapping[str, Any], overrides: Mapping[str, Any], probe: Probe
) -> tuple[Mapping[str, Any], dict[str, Origin | None], list[Diagnostic]]:
    """Merge `overrides` (variable name: value) over `catalogue` (section: value).

    Returns the merged catalogue, the public names that were removed with the places that did it,
    and what is wrong with the overrides themselves. Inputs are not changed.
    """
    diagnostics: list[Diagnostic] = []
    removed: dict[str, Origin | None] = {}
    for name in sorted(
        overrides, key=lambda name: (name == SWITCHED, name == "llm_overrides", name)
    ):
        over = overrides[name]
        if over is None:
            continue
        if not isinstance(over, Mapping):
            hint = f"write a mapping with {', '.join(SECTIONS[:-1])} or {SECTIONS[-1]}"
            if isinstance(over, str) and not getattr(probe(over), "file", None):
                hint = on_command_line(name)
            diagnostics.append(
                Diagnostic(
                    "invalid-value", "error", f"{name} is not a mapping", (name,), probe(over), hint
                )
            )
            continue
        merge = _Merge(name, probe, removed)
        known = {key: value for key, value in over.items() if key in SECTIONS}
        for key, value in over.items():
            if key not in SECTIONS:
                diagnostics.append(
                    Diagnostic(
                        "unknown-key",
                        "error",
                        f'unknown key "{key}" in {name}',
                        (name, str(key)),
                        probe(key) or probe(value) or probe(over),
                        _instead_of_key(name, str(key), value, catalogue),
                    )
                )
        catalogue = merge.mapping(catalogue, known, (), probe(over))
        diagnostics.extend(merge.diagnostics)
    return catalogue, removed, diagnostics
