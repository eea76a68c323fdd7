"""The `llm_*` variables of all hosts: known, readable, and the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.catalogue.overrides import SECTIONS, is_override
from modelyard.catalogue.secrets import VARIABLE as SECRETS
from modelyard.catalogue.sourcemap import Origin, Path, SourceMap, is_list, plain
from modelyard.catalogue.strays import meant
from modelyard.compiler.inventory import (
    CATALOGUE_VARIABLES,
    OTHER_VARIABLES,
    Findings,
    Inventory,
)
from modelyard.diagnostics import Diagnostic, did_you_mean, listing
from modelyard.names import STACK


def check_variables(inventory: Inventory, stack: Sequence[str], out: Findings) -> None:
    """Unknown and unreadable variables, catalogues that differ: each told once, not per host."""
    known = (*CATALOGUE_VARIABLES, *OTHER_VARIABLES)
    unknown: dict[str, Origin | None] = {}
    unreadable: dict[tuple[str, str], tuple[Origin | None, list[str]]] = {}
    endless: dict[tuple[str, str], tuple[Path, Origin | None, list[str]]] = {}
    for name in stack:
        host = inventory.hosts[name]
        for variable in host.variables:
            if variable not in known and not is_override(variable):
                value = host.variables[variable]
                unknown.setdefault(variable, inventory.probe(variable) or inventory.probe(value))
        for variable, (reason, origin) in host.unreadable.items():
            unreadable.setdefault((variable, reason), (origin, []))[1].append(name)
        for variable, (reason, path, origin) in host.endless.items():
            endless.setdefault((variable, reason), (path, origin, []))[2].append(name)
    for (variable, reason), (path, origin, hosts) in endless.items():
        out.refuse(
            "unreadable-variable",
            f"{variable} cannot be read for {listing(hosts)}: {reason}",
            (variable, *path),
            origin,
            "write the value out, without the anchor (&) and the alias (*)",
        )
    for variable, origin in unknown.items():
        hint = meant(variable, known)
        out.refuse("unknown-variable", f"unknown variable {variable}", (variable,), origin, hint)
    for (variable, reason), (origin, hosts) in unreadable.items():
        out.refuse(
            "unreadable-variable",
            f"{variable} cannot be read for {listing(hosts)}: {reason}",
            (variable,),
            origin,
            _unreadable_hint(reason, inventory),
        )
    _check_nothing(inventory, stack, out)
    _check_mapping(inventory, stack, out)
    _check_same(inventory, stack, out)


_ENCRYPTED = r"vault|decrypt"
"""In what Ansible says of a value that it cannot decrypt."""
BRACES = "braces in a value of it are read as a template"
"""Said instead of what Ansible says where that may quote a secret."""


def reason_told(variable: str, text: Any, reason: str) -> str:
    """Return what may be said of the reason for which Ansible cannot template a variable.

    `text` is the template, None if that is unknown. Ansible's words quote names and words of it. In
    llm_secrets it may be a password that has braces by chance; what is a template as a whole, as in
    `"{{ vault_key }}"`, is meant as one.
    """
    whole = isinstance(text, str) and re.fullmatch(r"\s*\{\{[^{}]*\}\}\s*", text)
    braced = isinstance(text, str) and re.search(r"\{[{%#]", text)
    encrypted = not braced and re.search(_ENCRYPTED, reason, re.IGNORECASE)
    if variable == SECRETS and not whole and not encrypted:
        return BRACES
    return reason.removesuffix(" Use -vvvvv to see paths searched.")


def _unreadable_hint(reason: str, inventory: Inventory) -> str:
    """Return what to do about a variable that cannot be templated, by what Ansible says of it."""
    if reason == BRACES:
        return (
            "write !unsafe before a value with {{ or {% that is no template, as in KEY: !unsafe"
            ' "a{%b"; in a template use single variables: KEY: "{{ vaulted_key }}"'
        )
    undefined = re.search(r"'(\w+)' is undefined", reason)
    if undefined and not undefined[1].startswith("ansible_"):
        name = undefined[1]
        if name == "hostvars":
            return (
                "hostvars is not available in llm_* variables: set the value in group_vars/"
                f"{STACK}, and use that variable in both places"
            )
        near = did_you_mean(name, (variable.name for variable in inventory.others))
        define = f"define {name} in group_vars/{STACK}, or with -e"
        return f"{near} Else {define}" if near else define
    if re.search(_ENCRYPTED, reason, re.IGNORECASE):
        return (
            "it is encrypted: give the password it was encrypted with (--vault-password-file FILE,"
            " --ask-vault-pass, or ANSIBLE_VAULT_PASSWORD_FILE in the environment)"
        )
    if "Syntax error in template" in reason:
        return "correct the template, or write !unsafe before text that is none"
    if "lookup plugin" in reason:
        return "lookups run on the controller: what they read must be there"
    return (
        "the catalogue is compiled before any host is contacted: it cannot use facts or"
        " registered variables"
    )


_WRITE: Mapping[str, str] = {
    "llm_gpus": "write llm_gpus: [{memory_mib: 24576}], or [] for a host without GPUs",
    "llm_address": "write the address at which other hosts reach it",
    "llm_monitoring": "write false for no monitoring",
    **{
        f"llm_{name}": f"to change parts of it, write llm_overrides: {{{name}: {{...}}}}"
        for name in SECTIONS
        if name != "monitoring"
    },
}
"""What is probably meant by a variable with nothing below it. Those that are not here may be
empty: they are warned of."""

_MAY_BE_NULL = ("llm_allow_removal", "llm_report", "llm_graph", "llm_environment")
"""Settings of a run: null is their default."""


def _check_nothing(inventory: Inventory, stack: Sequence[str], out: Findings) -> None:
    """Tell of variables of ours with nothing below them: edits that were not finished.

    A template may well give null.
    """
    told: set[tuple[str, str]] = set()
    for name in stack:
        host = inventory.hosts[name]
        for variable, value in (host.raw or host.variables).items():
            ours = variable in (*CATALOGUE_VARIABLES, *OTHER_VARIABLES) or is_override(variable)
            origin = inventory.probe(variable)
            if value is not None or not ours or variable in _MAY_BE_NULL:
                continue
            if (variable, str(origin)) in told:
                continue
            told.add((variable, str(origin)))
            write = _WRITE.get(variable)
            out.diagnostics.append(
                Diagnostic(
                    "invalid-value",
                    "error" if write else "warning",
                    f"{variable} has nothing below it",
                    (variable,),
                    origin,
                    f"{write}; or remove this line"
                    if write
                    else "indent what belongs below it, or remove this line",
                )
            )


def _check_mapping(inventory: Inventory, stack: Sequence[str], out: Findings) -> None:
    """Refuse a llm_secrets that is no mapping, once for each place."""
    told: set[object] = set()
    for name in stack:
        given = inventory.hosts[name].variables.get("llm_secrets")
        # What was templated is another object for each host.
        place = inventory.probe(given) or id(given)
        if given is None or isinstance(given, Mapping) or place in told:
            continue
        told.add(place)
        out.refuse(
            "invalid-value",
            "llm_secrets is not a mapping of names to values",
            ("llm_secrets",),
            inventory.probe(given),
            "write NAME: value, with the value encrypted by ansible-vault",
        )


def _check_same(inventory: Inventory, stack: Sequence[str], out: Findings) -> None:
    first_name = stack[0]
    first = inventory.hosts[first_name]
    compared = [*CATALOGUE_VARIABLES]
    for name in stack:
        compared += sorted(
            v for v in inventory.hosts[name].variables if is_override(v) and v not in compared
        )
    for variable in compared:
        mine = first.variables.get(variable)
        mine_plain: Any = plain(mine)
        differing: dict[str, tuple[Origin | None, Origin | None, Path, list[str]]] = {}
        templates: dict[tuple[str, Path], tuple[Origin, list[str]]] = {}
        for name in stack[1:]:
            host = inventory.hosts[name]
            if variable in host.unreadable or variable in first.unreadable:
                continue
            theirs = host.variables.get(variable)
            if theirs is mine:
                continue
            theirs_plain = plain(theirs)
            if theirs_plain == mine_plain:
                continue
            path = (variable, *_first_difference(mine_plain, theirs_plain))
            template = SourceMap(first.raw, inventory.probe).origin(path)
            if template and template == SourceMap(host.raw, inventory.probe).origin(path):
                templates.setdefault((str(template), path), (template, []))[1].append(name)
                continue
            here = SourceMap(first.variables, inventory.probe).origin(path)
            there = SourceMap(host.variables, inventory.probe).origin(path)
            differing.setdefault(repr((path, str(there))), (here, there, path, []))[3].append(name)
        for (_, path), (template, names) in templates.items():
            out.refuse(
                "differing-catalogues",
                f"a template in {variable} has another value for {listing(names)} than for"
                f" {first_name}",
                path,
                template,
                "the catalogue is one for all hosts: write a value, or a template that has the same"
                " one for each (0.0.0.0 is every address of a host)",
            )
        for here, there, path, names in differing.values():
            out.refuse(
                "differing-catalogues",
                f"{listing(names)} and {first_name} have different values of {variable}: "
                f"{_where(there, variable in inventory.hosts[names[0]].variables)} and "
                f"{_where(here, variable in first.variables)}",
                path,
                there or here,
                f"the inventory has one catalogue: set it for all of {STACK}",
            )


def _where(origin: Origin | None, defined: bool) -> str:
    return str(origin) if origin else "(unknown origin)" if defined else "(not defined)"


def _first_difference(left: Any, right: Any) -> Path:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            if key not in left or key not in right:
                return (key,)
            if left[key] != right[key]:
                return (key, *_first_difference(left[key], right[key]))
    if is_list(left) and is_list(right):
        for position, (one, two) in enumerate(zip(left, right, strict=False)):
            if one != two:
                return (position, *_first_difference(one, two))
    return ()
