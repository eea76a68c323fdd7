"""From a merged tree to a `Catalogue`: the schema's complaints in words, with their places.

What the schema refuses is cut out and the rest is validated again, so that a typo in one provider
does not hide what is wrong with the routing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Any

from pydantic import BaseModel, ValidationError

from modelyard.catalogue.elsewhere import elsewhere
from modelyard.catalogue.fields import field_at, keys_at, refusal, takes_null
from modelyard.catalogue.scalars import (
    as_number,
    in_quotes,
    in_unit,
    is_quoted,
    misread,
    read_as,
    written,
)
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.shapes import as_written, named_model, shape_hint
from modelyard.catalogue.sourcemap import Path, SourceMap, is_list
from modelyard.diagnostics import (
    Diagnostic,
    diagnose,
    did_you_mean,
    misspelt_choice,
    on_command_line,
    show_path,
    variable_path,
)
from modelyard.kinds import unit_of
from modelyard.showing import HIDDEN, NAMES_OF_SECRETS, VALUE, names_secret, plainly, shown

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "mapping_type": "a mapping",
}

SHIPPED = ("providers", "versions")
"""Sections of which the project ships a whole."""

SECRET_HINT = (
    "write the secret's name here, and define its value in the environment, llm_secrets or "
    ".credentials/ beside the inventory; replace a key that was in a shared file"
)


def validate(
    tree: dict[str, Any], source: SourceMap
) -> tuple[Catalogue | None, list[Diagnostic], frozenset[Path]]:
    """Validate `tree` (plain data, sections by name). It is changed: what is refused is cut out.

    Returns a catalogue of what is sound (None if not even that much is left), everything that is
    wrong, and the paths of the mappings something was cut out of: what else looks wrong in there
    may be a consequence.
    """
    diagnostics: list[Diagnostic] = []
    broken: frozenset[Path] = frozenset()
    first = True
    while True:
        try:
            return Catalogue.model_validate(tree), diagnostics, broken
        except ValidationError as error:
            problems = error.errors(include_url=False)
        if first:
            diagnostics = _describe(problems, tree, source, Catalogue)
            first = False
        places = {_cut(_locate(problem["loc"], tree), tree) for problem in problems}
        broken = broken or frozenset(
            place if _is_model(place) or _is_name(place) else place[:-1] for place in places
        )
        # The longest first, and the last element of a list first: cutting one must not move
        # another.
        for place in sorted(places, key=_depth_first, reverse=True):
            if not place:
                return None, diagnostics, broken
            _delete(tree, place)


def check(root: type[BaseModel], tree: dict[str, Any], source: SourceMap) -> list[Diagnostic]:
    """Everything that is wrong with `tree` as a `root`; nothing is cut out."""
    try:
        root.model_validate(tree)
    except ValidationError as error:
        return _describe(error.errors(include_url=False), tree, source, root)
    return []


def _is_model(path: Path) -> bool:
    return len(path) == 4 and path[0] == "providers" and path[2] == "models"


def _is_name(path: Path) -> bool:
    """Return whether an alias, a capability, a chain or a client is at a path."""
    return path[:1] in (("routing",), ("clients",)) and not keys_at(Catalogue, path[:-1])


def _is_name_as_key(problem: Any, tree: Any) -> bool:
    """Return whether a model misses its name because it has it for a key, which is told."""
    place = _locate(problem["loc"], tree)
    is_name = problem["type"] == "missing" and _is_model(place) and problem["loc"][-1] == "name"
    return is_name and named_model(_at(tree, place)) != ""


def _at(tree: Any, path: Path) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _depth_first(path: Path) -> tuple[int, list[str]]:
    return len(path), [f"{part:09}" if isinstance(part, int) else str(part) for part in path]


def _locate(loc: Path, tree: Any) -> Path:
    """Return the part of pydantic's `loc` that exists in the tree: without union branches and
    `[key]`.
    """
    node: Any = tree
    found: list[Any] = []
    for part in loc:
        key = _key(node, part)
        if not _has(node, key):
            break
        found.append(key)
        node = node[key]
    return tuple(found)


def _has(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, dict) and part in node


def _key(node: Any, part: str | int) -> Any:
    """Return the key of a mapping that pydantic calls `part`: 1 for true, text for null, dates."""
    if not isinstance(node, dict) or (isinstance(part, str) and part in node):
        return part
    return next((key for key in node if key == part or str(part) in (str(key), repr(key))), part)


def _cut(path: Path, tree: Any) -> Path:
    """Return what to cut out because of a problem at `path`: never one element of a list of values,
    but the list.
    """
    node: Any = tree
    for depth, part in enumerate(path):
        if isinstance(node, list) and not _is_model(path[: depth + 1]):
            return path[:depth]
        node = node[part]
    return path


def _delete(tree: Any, path: Path) -> None:
    node = tree
    for part in path[:-1]:
        if not _has(node, part):
            return
        node = node[part]
    if _has(node, path[-1]):
        del node[path[-1]]


def _describe(
    problems: list[Any], tree: Any, source: SourceMap, root: type[BaseModel]
) -> list[Diagnostic]:
    diagnostics: list[Diagnostic] = []
    branches: dict[Path, list[str]] = {}
    problems = [problem for problem in problems if not _is_name_as_key(problem, tree)]
    for problem in problems:
        kind, loc = problem["type"], problem["loc"]
        place = _locate(loc, tree)
        if kind in EXPECTED and loc[-1:] != ("[key]",):
            # Several branches of a union complain about one value: say it once.
            known = branches.setdefault(place, [])
            known.append(kind)
            if len(known) > 1:
                continue
    for problem in problems:
        kind, loc = problem["type"], problem["loc"]
        place = _locate(loc, tree)
        is_key = loc[-1:] == ("[key]",)
        if kind in EXPECTED and not is_key:
            kinds = branches.pop(place, None)
            if kinds is None:
                continue
            diagnostics.append(_wrong_type(kinds, problem["input"], place, source, root))
        elif kind == "extra_forbidden":
            diagnostics.append(_unknown_key(place, tree, source, root))
        elif kind == "missing":
            diagnostics.append(_missing(str(loc[-1]), place, tree, source))
        elif kind == "literal_error":
            diagnostics.append(_unknown_value(problem, place, source))
        elif kind == "string_type":
            diagnostics.append(_key_that_is_no_text(problem["input"], place, source))
        elif kind == "misfit":
            diagnostics.append(_misfit(problem, place, tree, source))
        else:
            diagnostics.append(_refused(problem, place, tree, source, root))
    return diagnostics


def _refused(
    problem: Any, place: Path, tree: Any, source: SourceMap, root: type[BaseModel]
) -> Diagnostic:
    """Describe a value that a rule refuses."""
    if problem["type"] == "too_short":
        return _empty(place, tree, source, root)
    if problem["type"] == "invalid_key":
        return _after_a_comma(problem["input"], place, source)
    is_key = problem["loc"][-1:] == ("[key]",)
    message = _reason(problem)
    is_value = not is_key and not isinstance(problem["input"], dict | list | BaseModel)
    found = f": {_seen(problem['input'], place, source)}" if is_value else ""
    return diagnose(
        source,
        "invalid-value",
        f"{_subject(place, tree, source)}{found}: {message}" if place else message,
        place,
        SECRET_HINT
        if place and place[-1] in NAMES_OF_SECRETS
        else problem.get("ctx", {}).get("hint")
        or "; ".join(filter(None, misread(source, place, problem["input"])))
        or _in_unit(problem, place, root),
        key=is_key,
    )


def _in_unit(problem: Any, place: Path, root: type[BaseModel]) -> str:
    """Return the hint for a number out of its range that is probably in another unit."""
    field = field_at(root, place)
    if field is None or problem["type"] not in ("less_than_equal", "greater_than_equal"):
        return ""
    return in_unit(
        problem["input"], unit_of(field), lambda number: refusal(root, place, number) is None
    )


def _empty(place: Path, tree: Any, source: SourceMap, root: type[BaseModel]) -> Diagnostic:
    """Describe a list without entries where one at least is needed."""
    hint = shape_hint(root, place, [], source)
    field = field_at(root, place)
    if field is not None and takes_null(field):
        hint += "; or remove this line"
    return diagnose(
        source,
        "invalid-value",
        f"{_subject(place, tree, source)} is empty: it needs at least one entry",
        place,
        hint,
        key=True,
    )


def _reason(problem: Any) -> str:
    """Return why a value is refused."""
    if problem["input"] == VALUE:
        return "this is the value of a secret in llm_secrets, not its name"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be")


def _misfit(problem: Any, place: Path, tree: Any, source: SourceMap) -> Diagnostic:
    """Describe a mapping whose keys do not fit together, at the key that was written last."""
    node = _at(tree, place)
    keys = [(*place, key) for key in problem["ctx"]["keys"]]
    # What the user wrote, or took out, comes before what is shipped.
    mine = [key for key in keys if source.overrides(key)]
    there = [key for key in keys if node.get(key[-1]) is not None]
    both = [key for key in mine if key in there]
    chosen: Path = next(iter((*both, *mine, *there, place)))
    return diagnose(
        source,
        "invalid-value",
        f"{_subject(place, tree, source)}: {problem['msg']}" if place else str(problem["msg"]),
        chosen,
        problem["ctx"]["hint"],
        key=True,
    )


def _seen(value: Any, place: Path, source: SourceMap, kinds: Iterable[str] = ()) -> str:
    """Return what may be shown of a value; nothing of one that was encrypted."""
    origin = source.origin(place)
    return HIDDEN if origin and origin.encrypted else shown(value, place, kinds)


def _subject(path: Path, tree: Any, source: SourceMap) -> str:
    """Return what the problem is about, e.g. `model "x"`, `port` or `llm_gpus[0]`."""
    if tree and _is_model(path):
        node = tree["providers"][path[1]]["models"][path[3]]
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            return f'model "{node["name"]}"'
    if len(path) == 2 and path[0] == "providers":
        return f'provider "{path[1]}"'
    last, around = path[-1], path[-2:-1]
    if isinstance(last, int) and around:
        return f"{_subject(path[:-1], {}, source)}[{last}]"
    return as_written(path, source)


def _instead(
    kinds: list[str], value: Any, place: Path, source: SourceMap, root: type[BaseModel]
) -> str:
    """Return the hint for a value of the wrong type."""
    if (
        {*kinds} & {"list_type", "dict_type", "model_type", "mapping_type"}
        or is_list(value)
        or isinstance(value, dict)
    ):
        return shape_hint(root, place, value, source)
    if place and place[-1] in NAMES_OF_SECRETS and value is not None:
        return SECRET_HINT
    if kinds == ["string_type"]:
        if names_secret(place):
            return "put it in quotes"
        text = written(source, place, value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # In quotes it may be refused next: 8200 stands for b8200, 12.9 for a directory.
        instead = refusal(root, place, text or str(value)) if is_number else None
        return f"{read_as(value, text)}{instead}" if instead else in_quotes(value, text)
    if kinds == ["bool_type"]:
        return "write true or false without quotes" if isinstance(value, str | int | float) else ""
    if not {*kinds} <= {"int_type", "float_type"}:
        return ""
    field = field_at(root, place)
    unit = unit_of(field)
    example = field.examples[0] if field and field.examples else 1
    if isinstance(value, str) and _is_template(place, source):
        return 'the template gives text: end it with the filter int, as in "{{ NAME | int }}"'
    if isinstance(value, str) and "{{" not in value:
        return as_number(value, unit, example, quoted=is_quoted(source, place))
    if isinstance(value, bool | date):
        reads = read_as(value, written(source, place, value))
        return f"{reads}write a number{f' of {unit}' if unit else ''}, such as {example}"
    if isinstance(value, float):
        return f"write {value:.0f}" if value.is_integer() else "write it without a fraction"
    return ""


def _is_template(place: Path, source: SourceMap) -> bool:
    """Return whether the line of a value has a template in it."""
    origin = source.origin(place)
    return origin is not None and origin.line is not None and "{{" in source.line(origin)


def _key_that_is_no_text(value: Any, place: Path, source: SourceMap) -> Diagnostic:
    """Describe a key that YAML reads as something else than text."""
    return diagnose(
        source,
        "invalid-value",
        f"a name in {show_path(variable_path(place[:-1]))} must be text, not {plainly(value)}",
        place,
        in_quotes(value, written(source, place, value)),
        key=True,
    )


def _after_a_comma(value: Any, place: Path, source: SourceMap) -> Diagnostic:
    """Describe a number as a key where all keys are known: `24,564` in braces is two entries."""
    return diagnose(
        source,
        "invalid-value",
        f"a key must be text, not {plainly(value)}",
        place,
        "a comma begins a new entry: write numbers without it, and fractions with a point",
        key=True,
    )


def _wrong_type(
    kinds: list[str], value: Any, place: Path, source: SourceMap, root: type[BaseModel]
) -> Diagnostic:
    expected = " or ".join(dict.fromkeys(EXPECTED[kind] for kind in kinds))
    name = _subject(place, {}, source) if place else "the catalogue"
    found = "nothing" if value is None else _seen(value, place, source, kinds)
    hint = _instead(kinds, value, place, source, root)
    origin = source.origin(place)
    if len(place) == 1 and isinstance(value, str) and not (origin and origin.file):
        hint = on_command_line(
            f"llm_{place[0]}", value.lower() if value.lower() in ("true", "false") else "{...}"
        )
    return Diagnostic(
        "invalid-value",
        "error",
        f"{name} must be {expected}, not {found}",
        variable_path(place),
        origin,
        hint,
    )


LISTS = ("chain", "models")
"""Keys of the routing below which names are listed: a list below another key is meant for it."""


def _unknown_key(place: Path, tree: Any, source: SourceMap, root: type[BaseModel]) -> Diagnostic:
    known = keys_at(root, place[:-1])
    hint = named_model(_at(tree, place[:-1])) if _is_model(place[:-1]) else ""
    if place[0] == "routing" and is_list(_at(tree, place)):
        listed = [key for key in LISTS if key in known and key not in _at(tree, place[:-1])]
        hint = f'did you mean "{listed[0]}"?' if listed else ""
    hint = hint or elsewhere(root, place, tree) or did_you_mean(str(place[-1]), known)
    return diagnose(
        source,
        "unknown-key",
        f'unknown key "{place[-1]}"',
        place,
        hint or f"the keys here are {', '.join(known)}",
        key=True,
    )


def _missing(key: str, place: Path, tree: Any, source: SourceMap) -> Diagnostic:
    hint = f"add {key}"
    if place and place[0] in SHIPPED and len(place) <= 2 and not source.overrides(place):
        entry = f"{place[1]}: ..." if len(place) == 2 else "..."
        hint = (
            f"add {key}; llm_{place[0]} replaces the shipped one, so to change a part of that write"
            f" llm_overrides: {{{place[0]}: {{{entry}}}}}"
        )
    elif len(place) == 2 and place[0] == "providers":
        # A typo in an override's provider name makes a new, incomplete provider.
        near = did_you_mean(
            str(place[1]), [str(name) for name in tree["providers"] if name != place[1]]
        )
        hint = f"add {key}; or {near}" if near else hint
    return Diagnostic(
        "missing-key",
        "error",
        f'"{key}" is missing'
        + (f" in {_subject(place, tree, source)}" if place else f": define llm_{key}"),
        variable_path((*place, key)),
        source.origin(place, key=True),
        hint,
    )


def _unknown_value(problem: Any, place: Path, source: SourceMap) -> Diagnostic:
    allowed = re.findall(r"'([^']*)'", problem["ctx"]["expected"]) or [
        problem["ctx"]["expected"].lower()
    ]
    value = problem["input"]
    hint = misspelt_choice(str(value), allowed) or f"one of {', '.join(allowed)}"
    if isinstance(value, bool):
        hint = f"{read_as(value, written(source, place, value))}one of {', '.join(allowed)}"
    if allowed == ["true"]:
        hint = f"remove it, or write {place[-1]}: true"
    return diagnose(
        source,
        "unknown-value",
        f"unknown value {_seen(problem['input'], place, source)} for {place[-1]}",
        place,
        hint,
    )
