"""Variables and groups that look like Modelyard's and are not: nothing would read them, or a role
would, unchecked.

The catalogue is the only place for settings. A variable of a role, set in an inventory, would be
neither validated nor shown by `plan`; and a misspelt one would be ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from pydantic import BaseModel

from modelyard.catalogue.clients import Client
from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.overrides import SECTIONS
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.routing import Routing
from modelyard.catalogue.sourcemap import Origin, Path
from modelyard.catalogue.versions import COMPONENTS, Versions
from modelyard.diagnostics import Diagnostic, did_you_mean
from modelyard.engines import ENGINES
from modelyard.names import GATEWAY, MONITORING, REDIS, STACK

LIKE = 0.8
"""From this ratio on (`difflib`), one name is taken for a misspelling of another."""

SHAPES: Mapping[str, type[BaseModel]] = {
    "providers": Provider,
    "routing": Routing,
    "gateway": Gateway,
    "clients": Client,
    "monitoring": Monitoring,
    "versions": Versions,
}
"""What each section holds; providers and clients by name."""

BY_NAME = ("providers", "clients")

GATEWAY_ROLES = ("litellm", "haproxy")
"""Roles whose settings are in the section `gateway`."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that an inventory or the command line sets, and whose name does not begin with
    `llm_`.
    """

    name: str
    value: object
    origin: Origin | None = None


def settings(role: str) -> dict[str, Path]:
    """Return the keys of the catalogue that a role's settings are in, by what a variable is called
    behind `ROLE_`.

    A path is as an override has it; `NAME` stands for a provider. Of keys with one name the first
    counts.
    """
    found: dict[str, Path] = {}
    for suffix, path in _settings(role):
        found.setdefault(suffix, path)
    return found


def _settings(role: str) -> Iterator[tuple[str, Path]]:
    engine = next((engine for engine in ENGINES if engine.role == role), None)
    for former, key in engine.former.items() if engine else ():
        yield former, ("versions", role, key)
    for key in COMPONENTS[role].model_fields if role in COMPONENTS else ():
        yield key, ("versions", role, key)
    if engine:
        for key in engine.settings.model_fields if engine.settings else ():
            yield key, ("providers", "NAME", engine.provider_type, key)
        for key in Provider.model_fields:
            yield key, ("providers", "NAME", key)
    for section in ("gateway", "monitoring"):
        for path in _leaves(SHAPES[section], (section,)):
            if role in path or (section == "gateway" and role in GATEWAY_ROLES):
                key = str(path[-1])
                yield key, path
                if "timeouts" in path:  # such as `litellm_ready_timeout_s`, now `timeouts.ready_s`
                    yield f"{key.removesuffix('_s')}_timeout_s", path


def _leaves(shape: type[BaseModel], path: Path) -> Iterator[Path]:
    """Yield the keys of a section that hold values."""
    for key, field in shape.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(inner, (*path, key))
        else:
            yield (*path, key)


def roles_of(names: Iterable[str], roles: Iterable[str]) -> dict[str, str]:
    """Return the role whose prefix each name has, by name; of several roles the one with the
    longest name.
    """
    longest_first = sorted(roles, key=len, reverse=True)
    found = {
        name: [role for role in longest_first if _folded(name).startswith(f"{role}_")]
        for name in names
    }
    return {name: candidates[0] for name, candidates in found.items() if candidates}


def check_strays(
    variables: Iterable[Variable], declared: Mapping[str, frozenset[str]], known: Sequence[str]
) -> list[Diagnostic]:
    """One `unknown-variable` per name.

    `declared` are by role the variables that it takes, `known` the `llm_*` variables of Modelyard.
    """
    by_name: dict[str, Variable] = {}
    for variable in variables:
        by_name.setdefault(variable.name, variable)
    roles = roles_of(by_name, {*declared, *COMPONENTS})
    found = []
    for name, variable in by_name.items():
        hint = _misplaced(variable) or _misspelt(name, known)
        if not hint and name in roles:
            hint = _of_a_role(variable, roles[name], declared.get(roles[name], frozenset()))
        if hint:
            message = f"unknown variable {name}"
            found.append(
                Diagnostic("unknown-variable", "error", message, (name,), variable.origin, hint)
            )
    return found


def _misplaced(variable: Variable) -> str:
    """How to write a section of the catalogue that is a variable of its own; empty if this is
    none.
    """
    name, value = variable.name, variable.value
    if name == "overrides" and _mostly(value, SECTIONS):
        return "write it as llm_overrides: {...}"
    if name not in SECTIONS or not isinstance(value, Mapping):
        return ""
    entries: list[Any] = list(value.values()) if name in BY_NAME else [value]
    keys = [key for entry in entries if isinstance(entry, Mapping) for key in entry]
    if not _mostly(keys, SHAPES[name].model_fields):
        return ""
    return f"write it as llm_overrides: {{{name}: {{...}}}}"


def _mostly(keys: object, known: Iterable[str]) -> bool:
    """Return whether more than half of some keys are known."""
    if not isinstance(keys, Mapping | list):
        return False
    mine = set(known)
    return sum(key in mine for key in keys) * 2 > len(keys)


def _misspelt(name: str, known: Sequence[str]) -> str:
    """Return what a name like an `llm_*` variable probably means; empty for any other name."""
    folded = _folded(name)
    if folded.startswith("llm_"):
        hint = f'did you mean "{folded}"?' if folded in known else did_you_mean(folded, known)
        return hint or f"known variables: {', '.join(known)} and llm_overrides_*"
    squashed = {re.sub(r"[^a-z]", "", one): one for one in known}
    near = _nearest(re.sub(r"[^a-z]", "", folded), squashed, 0.9)
    # `lmm_overrides`, `llmoverrides`; `vlm_address` is something else.
    return f'did you mean "{squashed[near]}"?' if near and set(folded[:3]) == set("lm") else ""


def _of_a_role(variable: Variable, role: str, declared: frozenset[str]) -> str:
    """Where a setting of a role belongs; empty if the variable has nothing to do with the role but
    its prefix.
    """
    suffix = _folded(variable.name).removeprefix(f"{role}_")
    keys = settings(role)
    own = {one.removeprefix(f"{role}_") for one in declared if one.startswith(f"{role}_")}
    near = suffix if suffix in keys or suffix in own else _nearest(suffix, {*keys, *own}, LIKE)
    if not near:
        return ""
    if near in keys:
        hint = f"it is in the catalogue: {_override(keys[near], variable.value)}"
        if keys[near][-1] == "backend":
            hint += ", for all hosts; auto chooses for each host"
    else:
        hint = f"the plan sets what role {role} takes: remove it, or rename it if it is yours"
    return hint if near == suffix else f'did you mean "{role}_{near}"? {hint[0].upper()}{hint[1:]}'


def _override(path: Path, value: object) -> str:
    """Return the override that writes a value, if that is a number or a word: other text may hold a
    secret.
    """
    text = "..."
    if isinstance(value, int | float) or (
        isinstance(value, str) and re.fullmatch(r"[a-z]{1,16}", value)
    ):
        text = json.dumps(value).strip('"')
    for key in reversed(path):
        text = f"{{{key}: {text}}}"
    return f"llm_overrides: {text}"


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


def _nearest(name: str, candidates: Iterable[str], least: float) -> str:
    """Return the candidate most like a name, if it is like it enough; else an empty string."""
    ratio: Callable[[str], float] = lambda one: SequenceMatcher(None, one, name).ratio()  # noqa: E731
    best = max(sorted(candidates), key=ratio, default="")
    return best if best and ratio(best) >= least else ""


def check_groups(groups: Mapping[str, Sequence[str]], used: Iterable[str]) -> list[Diagnostic]:
    """One `unknown-group` per group that looks like one of ours and whose hosts that one does not
    have.

    `groups` are all groups of the inventory with their hosts, `used` those that providers name.
    """
    ours = (STACK, GATEWAY, REDIS, MONITORING)
    mine = {*ours, *used}
    found = []
    for name, hosts in groups.items():
        near = "" if name in mine else _nearest(_folded(name), ours, 0.85)
        # A group with a qualified name may be a part of ours, or have some purpose of its own.
        if (
            not near
            or name.startswith(f"{near}_")
            or (hosts and {*hosts} <= {*groups.get(near, ())})
        ):
            continue
        message = f"group {name} of the inventory is not a group of Modelyard"
        found.append(
            Diagnostic(
                "unknown-group", "error", message, hint=f'did you mean "{near}"? If not, rename it'
            )
        )
    return found
