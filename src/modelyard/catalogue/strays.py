"""Variables and groups that look like Modelyard's and are not: nothing would read them, or a role
would, unchecked.

The catalogue is the only place for settings. A variable of a role, set in an inventory, would be
neither validated nor shown by `plan`; and a misspelt one would be ignored. What may well be the
user's own is left alone, or gets a warning.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from modelyard.catalogue.clients import Client
from modelyard.catalogue.fields import ENTRY, keys_at, meant_path, nested
from modelyard.catalogue.former import FORMER, SETTINGS
from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.overrides import SECTIONS, is_override
from modelyard.catalogue.providers import PROVIDER_TYPES, Provider
from modelyard.catalogue.rollout import Rollout
from modelyard.catalogue.routing import Routing
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Origin, Path, is_list, plain
from modelyard.catalogue.versions import COMPONENTS, Versions
from modelyard.diagnostics import Diagnostic, Severity, listing
from modelyard.engines import ROLES, engine_of
from modelyard.names import GATEWAY, MONITORING, REDIS, STACK

LIKE = 0.9
"""From this ratio on (`difflib`), one name is taken for a misspelling of another."""

SHAPES: Mapping[str, type[BaseModel]] = {
    "providers": Provider,
    "routing": Routing,
    "gateway": Gateway,
    "clients": Client,
    "monitoring": Monitoring,
    "versions": Versions,
    "rollout": Rollout,
}
"""What each section holds; providers and clients by name."""

BY_NAME = ("providers", "clients")

OVERRIDES = "overrides"

Judgement = tuple[Severity, str]
"""Whether a variable is refused, with the hint."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that an inventory or the command line sets, and whose name does not begin with
    `llm_`.

    One from the command line (`-e`) replaces even what a playbook gives a role.
    """

    name: str
    value: object
    origin: Origin | None = None
    command_line: bool = False


class Names:
    """Names, to find the one that another is a misspelling of, among thousands of others.

    Only names with the same first or last three characters are compared.
    """

    def __init__(self, names: Iterable[str], least: float = LIKE) -> None:
        self._least = least
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            for end in {name[:3], f"*{name[-3:]}"}:
                self._by_end[end].append(name)

    def near(self, name: str) -> str:
        """Return the name most like `name`; an empty string if none is like it."""
        letters = {*name}
        candidates = {
            one
            for end in (name[:3], f"*{name[-3:]}")
            for one in self._by_end.get(end, ())
            if self._could_be(name, letters, one)
        }
        return _nearest(name, candidates, self._least) if candidates else ""

    def _could_be(self, name: str, letters: set[str], candidate: str) -> bool:
        """Return whether the ratio may be reached: no more characters differ than it allows."""
        common = self._least * (len(name) + len(candidate)) / 2
        return (
            len(letters.difference(candidate)) <= len(name) - common
            and len({*candidate}.difference(letters)) <= len(candidate) - common
        )


SECTION_NAMES = Names((*SECTIONS, OVERRIDES), 0.85)
SETTING_NAMES = Names(SETTINGS)
OVERRIDES_NAME = Names([OVERRIDES])


def check_strays(
    variables: Iterable[Variable],
    arguments: Mapping[str, bool],
    known: Sequence[str],
    tree: Mapping[str, Any],
    mentioned: Container[str] = (),
    beside: Callable[[Variable], Judgement | None] = lambda _: None,
) -> list[Diagnostic]:
    """One `unknown-variable` per name.

    `arguments` are the variables that roles take, and whether a value of the inventory would
    replace the role's default; `known` the `llm_*` variables of Modelyard; `tree` the catalogue.
    Those in `mentioned` are used in templates: their names and what they hold are the user's own.
    `beside` judges a variable by what is beside it in its file.
    """
    by_name: dict[str, list[Variable]] = {}
    for variable in variables:
        by_name.setdefault(variable.name, []).append(variable)
    certain = [
        variable
        for places in by_name.values()
        for variable in places
        if (judgement := _misplaced(variable, tree)) and judgement[0] == "error"
    ]
    found = []
    for name, places in by_name.items():
        judged = [
            (judgement, variable)
            for variable in places
            if (judgement := _judge(variable, arguments, known, tree, mentioned))
            or (judgement := _beside(variable, certain))
            or (judgement := (name not in mentioned and beside(variable)) or None)
        ]
        if not judged:
            continue
        (severity, hint), chosen = min(judged, key=lambda one: one[0][0] != "error")
        origins = dict.fromkeys(str(place.origin) for place in places if place.origin)
        origins.pop(str(chosen.origin), None)
        elsewhere = f", also set at {listing(origins)}" if origins else ""
        message = "unknown variable" if severity == "error" else "not a variable of Modelyard:"
        found.append(
            Diagnostic(
                "unknown-variable",
                severity,
                f"{message} {name}{elsewhere}",
                (name,),
                chosen.origin,
                hint,
            )
        )
    return found


def _judge(
    variable: Variable,
    arguments: Mapping[str, bool],
    known: Sequence[str],
    tree: Mapping[str, Any],
    mentioned: Container[str],
) -> Judgement | None:
    name = variable.name
    if hint := _misspelt(name, known):
        return "error", hint
    if name not in mentioned and (hint := _decorated(variable, known)):
        return "error", hint
    if misplaced := _misplaced(variable, tree):
        return misplaced
    if hint := _former(variable, tree):
        return "error", hint
    if name not in mentioned and (hint := _of_litellm(variable)):
        return "warning", hint
    return _argument(variable, arguments)


def meant(name: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown `llm_*` variable: those that it may stand for."""
    by_rest = {one.removeprefix("llm_"): one for one in known}
    rest = name.removeprefix("llm_")
    near, path = _nearest(rest, by_rest, 0.7), _path_in(rest)
    if path and not (near and ENTRY in path):
        return f"write llm_overrides: {nested(path)}"
    if near:
        return f'did you mean "{by_rest[near]}"?'
    return f"known variables: {', '.join(by_rest.values())} and llm_overrides_*"


def _path_in(name: str) -> Path:
    """Return the path of the catalogue that the name of a variable is made of, without its `llm_`:
    `overrides.gateway.port`, `gateway_port`, `override_gateway`, `aliases`. Else it is empty.
    """
    parts = name.split(".")
    if is_override(f"llm_{parts[0]}") or parts[0] == "override":
        parts = parts[1:]
    if parts and parts[0] in SECTIONS and "." in name:
        return tuple(parts)
    section, _, key = name.removeprefix("override_").partition("_")
    if section in SECTIONS and (not key or key in keys_at(Catalogue, (section,))):
        return (section, key) if key else (section,)
    return meant_path(Catalogue, (name,)) or ()


def _misspelt(name: str, known: Sequence[str]) -> str:
    """Return what a name like an `llm_*` variable probably means; empty for any other name."""
    folded = _folded(name)
    if folded.startswith("llm_"):
        return meant(folded, known)
    if not {*folded[:2]} <= {"l", "m"}:
        return ""
    for part in _parts(folded):
        # `lm_overrides`, `ml_overrides`, `llmoverrides_site`; `vlm_address` is something else.
        prefixed = re.fullmatch(r"(?=l+m|m+l)[lm]{2,4}(.+)", part)
        if prefixed and OVERRIDES_NAME.near(prefixed[1]):
            return 'did you mean "llm_overrides"?'
    if set(folded[:3]) != set("lm"):
        return ""
    squashed, names = _squashed(tuple(known))
    near = names.near(re.sub(r"[^a-z]", "", folded))
    return f'did you mean "{squashed[near]}"?' if near else ""


def _decorated(variable: Variable, known: Sequence[str]) -> str:
    """Return what a name with something before or around one of ours means: `_llm_gateway`, and
    `my_llm_overrides` if it holds sections. Empty for any other name.
    """
    folded = _folded(variable.name)
    bare = folded.lstrip("_")
    if bare != folded and (bare in known or is_override(bare)):
        return f'did you mean "{bare}"?'
    words = {*re.split(r"[^a-z]+", folded)}
    ours = words & {"llm", "modelyard"} and words & {"override", "overrides"}
    if ours and isinstance(variable.value, Mapping) and not {*SECTIONS}.isdisjoint(variable.value):
        return 'did you mean "llm_overrides"? It may have a name behind it: llm_overrides_site'
    return ""


@lru_cache(maxsize=1)
def _squashed(known: tuple[str, ...]) -> tuple[dict[str, str], Names]:
    """Return names by their letters alone, and those letters to search."""
    squashed = {re.sub(r"[^a-z]", "", one): one for one in known}
    return squashed, Names(squashed)


def _parts(name: str) -> Iterator[str]:
    """Yield the letters of a name, and those of its beginnings before each `_`."""
    words = name.split("_")
    for count in range(len(words), 0, -1):
        yield re.sub(r"[^a-z]", "", "".join(words[:count]))


def _misplaced(variable: Variable, tree: Mapping[str, Any]) -> Judgement | None:
    """Judge a section of the catalogue, or overrides, that may be a variable of their own."""
    if not isinstance(variable.value, Mapping):
        return None
    folded = _folded(variable.name)
    section = OVERRIDES if folded == "llm" else SECTION_NAMES.near(folded)
    if not section:
        return None
    value = plain(variable.value)
    severity = _fit_overrides(value, tree) if section == OVERRIDES else fit(section, value, tree)
    if severity is None:
        return None
    hint = (
        f"write it as llm_overrides: {{{'...' if section == OVERRIDES else f'{section}: {{...}}'}}}"
    )
    return severity, hint if severity == "error" else f"if it is meant for Modelyard, {hint}"


def _beside(variable: Variable, certain: Sequence[Variable]) -> Judgement | None:
    """Judge a section that could be another tool's (`gateway: {port: 1}`), if one beside it in the
    same file is ours without doubt.
    """
    files = {one.origin.file for one in certain if one.origin and one.name in SECTIONS}
    if (
        variable.name in SECTIONS
        # In this order: to ask text of a vault whether it is empty decrypts it.
        and isinstance(variable.value, Mapping)
        and variable.value
        and variable.origin is not None
        and variable.origin.file in files
        and is_valid({variable.name: plain(variable.value)})
    ):
        return "error", f"write it as llm_overrides: {{{variable.name}: {{...}}}}"
    return None


def _fit_overrides(value: dict[Any, Any], tree: Mapping[str, Any]) -> Severity | None:
    """Return whether overrides without `llm_` are ours (an error), or could be (a warning)."""
    sections = [key for key in value if key in SECTIONS]
    if len(sections) * 2 <= len(value):
        return None
    fits = [fit(section, value[section], tree) for section in sections]
    whole = len(sections) == len(value) and is_valid(value)
    if whole and (len(sections) > 1 or "error" in fits):
        return "error"
    known = any(_ours(section, value[section], tree) for section in sections)
    return "warning" if known or len(sections) > 1 else None


def fit(section: str, value: Any, tree: Mapping[str, Any]) -> Severity | None:
    """Return whether a value is a section of ours without doubt (an error), or could be one (a
    warning).
    """
    if not isinstance(value, Mapping):
        return None
    mine = _ours(section, value, tree)
    distinctive = _is_distinctive(section, value, mine) or _is_change(section, value, tree)
    if distinctive and is_valid({section: value}):
        return "error"
    entries = [one for one in value.values() if isinstance(one, Mapping)]
    total = sum(map(len, entries)) if section in BY_NAME else len(value)
    if section in BY_NAME:
        there = [name for name in value if name in _entries(section, tree)]
        if any(value[name] is None for name in there):  # It would be removed.
            return "warning"
        total += len(there)
    return "warning" if len({*mine}) > 1 and len(mine) * 2 > total else None


def _ours(section: str, value: Any, tree: Mapping[str, Any]) -> list[Any]:
    """Return the keys of a value that such a section has; of providers and clients also the names
    that the catalogue has.
    """
    if not isinstance(value, Mapping):
        return []
    known = SHAPES[section].model_fields
    if section not in BY_NAME:
        return [key for key in value if key in known]
    entries = [one for one in value.values() if isinstance(one, Mapping)]
    names = [name for name in value if name in _entries(section, tree)]
    return [*(key for entry in entries for key in entry if key in known), *names]


def _entries(section: str, tree: Mapping[str, Any]) -> Mapping[Any, Any]:
    """Return a section of the catalogue; empty if it is wrong itself."""
    entries = tree.get(section)
    return entries if isinstance(entries, Mapping) else {}


def _is_distinctive(section: str, value: Mapping[Any, Any], mine: Sequence[Any]) -> bool:
    """Return whether a value could hardly be the section of another tool."""
    if section == "versions":
        return any(key in COMPONENTS for key in mine)
    if section == "providers":
        return any(
            isinstance(entry, Mapping)
            and entry.get("type") in PROVIDER_TYPES
            and ("models" in entry or "group" in entry)
            for entry in value.values()
        )
    return len({*mine}) > 1


def _is_change(section: str, value: Mapping[Any, Any], tree: Mapping[str, Any]) -> bool:
    """Return whether a value changes keys of a provider or client that the catalogue has."""
    known = SHAPES[section].model_fields
    return section in BY_NAME and any(
        isinstance(entry, Mapping) and any(key in known for key in entry)
        for name, entry in value.items()
        if name in _entries(section, tree)
    )


def is_valid(sections: Mapping[str, Any], at: Path = ()) -> bool:
    """Return whether the catalogue accepts all there is in some sections, or the value of one path.

    What is missing does not count: an override is never whole.
    """
    try:
        Catalogue.model_validate(sections)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return not any(
            problem["type"] != "missing" and problem["loc"][: len(at)] == at for problem in problems
        )
    return True


LITELLM: Mapping[str, tuple[frozenset[str], str]] = {
    "model_list": (frozenset({"model_name", "litellm_params"}), "providers"),
    "router_settings": (
        frozenset(
            {"allowed_fails", "context_window_fallbacks", "cooldown_time", "fallbacks"}
            | {"model_group_alias", "num_retries", "redis_host", "routing_strategy", "timeout"}
        ),
        "routing",
    ),
    "litellm_settings": (frozenset(), "gateway and routing"),
    "general_settings": (
        frozenset({"master_key", "database_url", "store_model_in_db", "proxy_batch_write_at"}),
        "gateway and clients",
    ),
}
"""Sections of LiteLLM's own configuration: keys of which one is there (none: any), and the sections
of the catalogue that are for the same."""


def _of_litellm(variable: Variable) -> str:
    """Return the hint for a section of LiteLLM's configuration; empty for any other variable."""
    keys, sections = LITELLM.get(variable.name, (None, ""))
    value: Any = variable.value
    entries = value if is_list(value) else [value]
    found = {key for entry in entries if isinstance(entry, Mapping) for key in entry}
    if keys is None or not found or (keys and keys.isdisjoint(found)):
        return ""
    return (
        "nothing reads it: LiteLLM's configuration is made from the catalogue. Write what it says"
        f" below llm_overrides, into {sections}, and remove it here"
    )


def _former(variable: Variable, tree: Mapping[str, Any]) -> str:
    """Return the key that replaces a former variable of a role; empty for any other variable."""
    name = _folded(variable.name)
    meant_name = name if name in FORMER else SETTING_NAMES.near(name)
    if not meant_name or name.startswith(f"{meant_name}_"):
        return ""
    hint = f"it is in the catalogue: {_instead(FORMER[meant_name], variable.value, tree)}"
    if FORMER[meant_name][-1] == "backend":
        hint += ", for all hosts; auto chooses for each host"
    if meant_name == name:
        return hint
    return f'did you mean "{meant_name}"? {hint[0].upper()}{hint[1:]}'


def _instead(path: Path, value: object, tree: Mapping[str, Any]) -> str:
    """Return what to write into the catalogue instead of a former variable."""
    if path[0] != "providers":
        return f"llm_overrides: {_nested(path, value, path)}"
    names = _providers_of(str(path[1]), tree)
    if len(names) == 1:
        path = ("providers", names[0], *path[2:])
        return f"llm_overrides: {_nested(path, value, path)}"
    whose = f"the provider's ({listing(names)})" if names else "the provider's"
    return f"{whose} {_nested(path[2:], value, ('providers', 'any', *path[2:]))}"


def _providers_of(role: str, tree: Mapping[str, Any]) -> list[str]:
    """Return the names of the providers whose engine a role deploys."""
    found = []
    for name, entry in _entries("providers", tree).items():
        if isinstance(entry, Mapping) and isinstance(kind := entry.get("type"), str):
            flavour = entry.get("flavour")
            engine = engine_of(kind, flavour if isinstance(flavour, str) else None)
            if engine and engine.role == role and "group" in entry:
                found.append(str(name))
    return found


def _nested(keys: Path, value: object, path: Path) -> str:
    """Return a value below `keys`, as YAML. It is shown if the catalogue accepts it at `path` and
    it is a number or a word: other text may hold a secret.
    """
    text, given = "...", plain(value)
    if isinstance(given, int | float) or (
        isinstance(given, str) and re.fullmatch(r"[a-z]{1,16}", given)
    ):
        tree: Any = given
        for key in reversed(path):
            tree = {key: tree}
        text = json.dumps(given).strip('"') if is_valid(tree, path) else text
    for key in reversed(keys):
        text = f"{{{key}: {text}}}"
    return text


def _argument(variable: Variable, arguments: Mapping[str, bool]) -> Judgement | None:
    """Judge a variable that a role takes: an error where it would replace what the plan says."""
    name = variable.name
    if name not in arguments:
        return None
    if variable.command_line or arguments[name]:
        return "error", "a role takes it, with a value that follows from the plan: rename yours"
    if name.endswith("_plan"):
        return "warning", "it has no effect: the plan is made from the catalogue"
    return None


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _nearest(name: str, candidates: Iterable[str], least: float) -> str:
    """Return the candidate most like a name, if it is like it enough; else an empty string."""
    best = max(sorted(candidates), key=lambda one: _ratio(one, name), default="")
    return best if best and _ratio(best, name) >= least else ""


def misspelt_group(group: str, groups: Iterable[str]) -> str:
    """Return the group of an inventory whose name is a misspelling of `group`; else an empty
    string.
    """
    return next((name for name in groups if _is_like(name, group)), "")


def like_the_stack(groups: Iterable[str]) -> str:
    """Return the hint for an inventory without hosts in `llm_stack` that has a group almost of this
    name; else an empty string.
    """
    near = misspelt_group(STACK, groups)
    return f"rename group {near} to {STACK}" if near else ""


def check_groups(
    groups: Mapping[str, Sequence[str]],
    used: Sequence[str],
    origins: Mapping[str, Origin],
    told: Container[str] = (),
    idle: Container[str] = (),
) -> list[Diagnostic]:
    """One `unknown-group` per group that looks like one of ours and whose hosts that one does not
    have.

    `groups` are all groups of the inventory with their hosts, `used` those that providers name,
    `origins` where the inventory names them first. Of those in `told` something else is said.
    Those in `idle` have no other purpose than to list hosts.
    """
    ours = (STACK, GATEWAY, REDIS, MONITORING)
    mine = {*ours, *used}
    waiting = [name for name in used if name in groups and not groups[name]]
    found = []
    for name, hosts in groups.items():
        if name in mine or name in told:
            continue
        message = f"group {name} of the inventory is not a group of Modelyard"
        severity: Severity = "error"
        if is_override(name) or (name in VARIABLES and not hosts):
            hint = (
                "it has the name of a variable, which Ansible reads from a file in"
                f" group_vars/{STACK}/ beside the inventory"
            )
        elif near := next((one for one in (*ours, *waiting) if _is_meant(name, one, groups)), None):
            hint = f'did you mean "{near}"? If not, rename it'
        elif _is_without_provider(name, groups, mine) or (
            name in idle and not {*hosts}.isdisjoint(groups.get(STACK, ()))
        ):
            severity, message = "warning", f"no provider names group {name}"
            hint = "set it as the group of a provider, or rename it"
        else:
            continue
        found.append(
            Diagnostic("unknown-group", severity, message, origin=origins.get(name), hint=hint)
        )
    return found


VARIABLES = ("llm_providers", "llm_routing", "llm_versions")
"""Variables whose names no group has for a reason of its own."""


def _is_like(name: str, group: str) -> bool:
    """Return whether a name is a misspelling of a group's, with two letters swapped at most."""
    folded = _folded(name)
    return name != group and (
        folded == group or sorted(folded) == sorted(group) or _ratio(group, folded) >= LIKE
    )


def _is_meant(name: str, group: str, groups: Mapping[str, Sequence[str]]) -> bool:
    """Return whether hosts in group `name` were probably meant for `group`."""
    hosts, there = {*groups[name]}, {*groups.get(group, ())}
    # A group with a qualified name may be a part of ours, or have some purpose of its own.
    if not hosts or hosts <= there or re.fullmatch(rf"{re.escape(group)}(_.*|\d+)", name):
        return False
    if _folded(name) == group:
        return True
    contains = bool(there) and there <= hosts
    return not contains and not hosts.isdisjoint(groups.get(STACK, ())) and _is_like(name, group)


def _is_without_provider(
    name: str, groups: Mapping[str, Sequence[str]], mine: Iterable[str]
) -> bool:
    """Return whether a group has the name of an engine's and hosts of the stack, and is neither a
    part of a group that a provider names nor made of such groups.
    """
    hosts = {*groups[name]}
    if hosts.isdisjoint(groups.get(STACK, ())) or not any(
        name == f"llm_{role}" or name.startswith(f"llm_{role}_") for role in ROLES
    ):
        return False
    parts = {host for one in mine if one.startswith(f"{name}_") for host in groups.get(one, ())}
    wholes = {host for one in mine if name.startswith(f"{one}_") for host in groups.get(one, ())}
    return not hosts <= parts and not hosts <= wholes
