"""What to write where a list stands for a mapping, or the other way round: often LiteLLM's own form
of fallbacks and aliases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from modelyard.catalogue.fields import field_at, refusal
from modelyard.catalogue.models import Model
from modelyard.catalogue.sourcemap import Path, SourceMap, is_list, plain
from modelyard.showing import as_name


def as_written(path: Path, source: SourceMap) -> str:
    """Return the last key of a path as it was written: a section of the catalogue, or a variable of
    a host, that no override set is a variable, `llm_gpus`.
    """
    return f"llm_{path[0]}" if len(path) == 1 and not source.overrides(path) else str(path[-1])


def shape_hint(root: type[BaseModel], place: Path, value: Any, source: SourceMap) -> str:
    """Return the hint for a value of the wrong shape; empty if there is nothing to say."""
    if place == ("monitoring",) and value is False:
        return "write llm_monitoring: false, outside of the overrides"
    if place[:1] == ("routing",):
        if hint := _routing(place, value):
            return hint
    elif place[:1] == ("providers",) and (hint := _models(place, value)):
        return hint
    if len(place) == 2 and place[0] == "clients":
        return f"for example: {place[1]}: {{secret: CHAT_KEY}}"
    if place and isinstance(place[-1], int):  # An entry: the example is of the whole list.
        place = place[:-1]
    field = field_at(root, place)
    if field is None or not field.examples:
        return ""
    key = as_written(place, source)
    if (entries := _entries(value)) and (fit := _fitting(root, place, entries)):
        return f"write {key}: {_flow(fit)}"
    return f"for example: {key}: {_flow(field.examples[0])}"


def _entries(value: Any) -> list[str]:
    """Return numbers and addresses that stand for a list of them: `0,1`."""
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[0-9a-fA-F.:, ]*[0-9][0-9a-fA-F.:, ]*", text):
        return []
    return re.split(r"[, ]+", text.strip(", "))


def _fitting(root: type[BaseModel], place: Path, entries: list[str]) -> list[Any]:
    """Return entries as numbers, else as text, if the schema accepts a list of them."""
    numbers = [int(one) for one in entries] if all(one.isdecimal() for one in entries) else []
    fits = (one for one in (numbers, entries) if one and refusal(root, place, one) is None)
    return next(fits, [])


def _routing(place: Path, value: Any) -> str:
    """Return the hint for chains, aliases and capabilities in another form."""
    section = str(place[1]) if len(place) > 1 else ""
    names = _names(value)
    if section == "default_fallbacks" and names:
        return f"write {section}: {_flow(names)}"
    key = {"capabilities": "models"}.get(section, "chain" if section.endswith("fallbacks") else "")
    if len(place) == 3 and section == "aliases" and names:
        name = json.dumps(str(place[2]))
        if len(names) == 1:
            return f"write {name}: {_flow(names[0])}"
        return f"write capabilities: {{{name}: {{models: {_flow(names)}}}}}"
    if len(place) == 3 and key == "chain" and (value in ("terminal", "none") or value == []):
        return f"write {json.dumps(str(place[2]))}: {{terminal: true}}"
    if len(place) == 3 and key:
        return f"write {json.dumps(str(place[2]))}: {{{key}: {_flow(names) if names else '[...]'}}}"
    if hint := _flat(place, section, value):
        return hint
    if len(place) == 2 and is_list(value):
        # LiteLLM: [{model: [fallback, ...]}, ...]
        entries = [entry for entry in value if isinstance(entry, Mapping) and len(entry) == 1]
        written = [
            f"{json.dumps(str(name))}: "
            + (
                f"{{{key}: {_flow(_names(steps) or ['...'])}}}"
                if key
                else _flow(_veiled(plain(steps)))
            )
            for entry in entries
            for name, steps in entry.items()
        ]
        if not written and key:
            written = _by_name_key(value, key)
        if written:
            return f"write {section}: {{{', '.join(written)}}}"
    return ""


def _flat(place: Path, section: str, value: Any) -> str:
    """Return the hint for steps that are text, nested or a mapping; for an alias that is one."""
    values = [*value.values()] if isinstance(value, Mapping) else value
    if place[-1] in ("chain", "models"):
        steps = _names(values) or _names([*value] if isinstance(value, Mapping) else _level(value))
    elif section == "default_fallbacks" and isinstance(value, Mapping):
        steps = _names(value.get("chain") or value.get("models"))
    elif section == "aliases" and len(place) == 3 and isinstance(value, Mapping):
        steps = _names(values)
        return f"write {json.dumps(str(place[2]))}: {_flow(steps[0])}" if len(steps) == 1 else ""
    else:
        return ""
    return f"write {place[-1]}: {_flow(steps)}" if steps else ""


def _by_name_key(value: Any, key: str) -> list[str]:
    """Return entries that have their name for a value, `{model: a, chain: [b]}`, by name."""
    found = []
    for entry in value:
        if not isinstance(entry, Mapping):
            return []
        name = entry.get("name") or entry.get("model")
        steps = _names(
            next((entry[one] for one in (key, "fallbacks", "models") if one in entry), None)
        )
        if not isinstance(name, str) or not steps:
            return []
        found.append(f"{json.dumps(as_name(name))}: {{{key}: {_flow(steps)}}}")
    return found


def _level(value: Any) -> list[Any]:
    """Return a list without the lists in it."""
    entries = value if is_list(value) else [value]
    return [one for entry in entries for one in (entry if is_list(entry) else [entry])]


def _models(place: Path, value: Any) -> str:
    """Return the hint for models in another form."""
    if place[2:] == ("models",) and isinstance(value, Mapping):
        names = ", ".join(f"{{name: {json.dumps(as_name(str(name)))}, ...}}" for name in value)
        return f"write models: [{names}]"
    if len(place) == 4 and place[2] == "models" and isinstance(value, str):
        if value.startswith("name:"):
            name = as_name(value.removeprefix("name:").strip())
            return f'write {{name: {json.dumps(name)}}}: after "name:" YAML needs a space'
        return f"write {{name: {json.dumps(as_name(value))}}}"
    return ""


def named_model(entry: Any) -> str:
    """Return the hint for an entry of a list of models that has its name for a key, as mappings
    have it; empty for any other entry.
    """
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return ""
    ((name, keys),) = entry.items()
    if not isinstance(keys, Mapping | None) or name in Model.model_fields:
        return ""
    shown = {
        key: _flow(value) if isinstance(value, bool | int | float) else "..."
        for key, value in (keys or {}).items()
    }
    rest = "".join(f", {key}: {value}" for key, value in shown.items())
    return f"write {{name: {json.dumps(as_name(str(name)))}{rest}}}"


def _names(value: Any) -> list[str]:
    """Return a name as a list of one, and a list of names as it is; empty for anything else."""
    names = [value] if isinstance(value, str) else list(value) if is_list(value) else []
    return [as_name(name) for name in names] if all(isinstance(name, str) for name in names) else []


def _veiled(value: Any) -> Any:
    """Return a value without the texts in it that may be secrets."""
    if isinstance(value, Mapping):
        return {key: _veiled(child) for key, child in value.items()}
    if is_list(value):
        return [_veiled(child) for child in value]
    return as_name(value) if isinstance(value, str) else value


def _flow(value: Any) -> str:
    """Return a value as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(child)}" for key, child in value.items()) + "}"
    if is_list(value):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value)
