"""Sections of the shipped catalogue that a variable of the inventory replaces, often by mistake:
`llm_routing: {aliases: ...}` without `llm_overrides:` around it leaves no chain.

Whether an error follows from that is found by trying: it does if it is gone once the same values
are merged over the shipped section instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelyard.catalogue.sourcemap import plain
from modelyard.compiler.inventory import Findings, Inventory
from modelyard.diagnostics import Diagnostic, listing

OWN = ("llm_providers", "llm_routing")
"""Whoever replaces both has a catalogue of their own, on purpose."""

Compile = Callable[[Mapping[str, Any]], Findings]
"""Compiles the catalogue of some `llm_*` variables of the same inventory."""


def check_replaced(
    variables: Mapping[str, Any], inventory: Inventory, compile_again: Compile, out: Findings
) -> None:
    """Tell of replaced sections before everything else that was found; leave out what follows
    and is about other files.

    `variables` are those that were compiled, `inventory.shipped` what the replaced ones would be.
    """
    shipped = inventory.shipped
    own = {*OWN} <= {*shipped}
    files = {origin.file for _, origin in shipped.values() if origin}
    found: list[Diagnostic] = []
    for variable, (value, origin) in shipped.items():
        mine = variables.get(variable)
        lost = [name for name in _names(value) if name not in {*_names(mine)}]
        if isinstance(mine, bool) or (own and variable in OWN):
            continue
        section = variable.removeprefix("llm_")
        gone: list[Diagnostic] = []
        if out.errors:
            # The first override of all: its name sorts before the others'.
            merged = {**variables, variable: value, "llm_overrides_0": {section: mine}}
            left = {_key(one) for one in compile_again(merged).diagnostics}
            gone = [one for one in out.diagnostics if _key(one) not in left]
        errors = [one for one in gone if one.severity == "error"]
        if not errors and (own or not lost):
            continue
        elsewhere = [one for one in gone if one.origin is None or one.origin.file not in files]
        out.diagnostics = [one for one in out.diagnostics if one not in elsewhere]
        away = [one for one in elsewhere if one in errors]
        found.append(
            Diagnostic(
                "section-replaced",
                "error" if errors else "warning",
                f"{variable} replaces the shipped one whole"
                + (f", without {listing(lost, 4)}" if lost else "")
                + _following(len(errors), len(away)),
                (variable,),
                origin,
                f"to change parts of the shipped one, write llm_overrides: {{{section}: {{...}}}}",
            )
        )
    out.diagnostics[:0] = found


def _following(errors: int, away: int) -> str:
    """Return the end of a message: how many errors follow, and how many of them are not shown."""
    if not errors:
        return ""
    follow = "1 error follows" if errors == 1 else f"{errors} errors follow"
    shown = f" ({away} in other files, not listed)" if away else ""
    return f"; {follow} from that{shown}"


def _key(one: Diagnostic) -> tuple[str, str, str]:
    """Return what one error has in both catalogues: in lists, positions may differ."""
    return one.code, one.message, str(one.origin)


def _names(section: Any) -> Iterator[str]:
    """Yield the names in a section: of providers and components, or those that have chains."""
    content = plain(section)
    for key, entry in content.items() if isinstance(content, Mapping) else ():
        if key in ("aliases", "capabilities") or str(key).endswith("fallbacks"):
            yield from map(str, entry if isinstance(entry, Mapping) else ())
        else:
            yield str(key)
