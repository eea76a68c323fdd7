"""Diagnostics: what is wrong, where it was written, why, and the likely fix.

Every code is listed in `CODES` and explained in docs/diagnostics.md; a test proves that the two
agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Literal

from modelyard.catalogue.sourcemap import Origin, Path, SourceMap
from modelyard.showing import HIDDEN, censored

Severity = Literal["error", "warning"]

CODES: dict[str, str] = {
    "unknown-variable": "a variable looks like one of ours but is none",
    "unreadable-variable": "a variable could not be templated without contacting a host",
    "variable-without-effect": "a variable is set in a place that applies to no host",
    "section-replaced": "a variable replaces a section of the shipped catalogue whole",
    "backup-read": "a file of the inventory looks like a copy of another (warning)",
    "differing-catalogues": "two hosts see different catalogues",
    "unknown-key": "a key the schema does not have",
    "unknown-value": "a value that is not one of the allowed ones",
    "missing-key": "a required key is missing",
    "invalid-value": "a value of the wrong type, format or range",
    "unknown-override": "an override removes something that does not exist",
    "empty-catalogue": "there is no provider",
    "no-hosts": "no host in llm_stack",
    "no-gateway": "no host in llm_gateway",
    "too-many-redis": "more than one host in llm_redis",
    "too-many-monitoring": "more than one host in llm_monitoring",
    "unknown-group": "a provider's group is not defined, or a group only looks like ours",
    "unknown-host": "a model is placed on a host that is not in its provider's group, or a host is not in llm_stack",
    "host-outside-stack": "a host of one of our groups is not in llm_stack",
    "no-models": "a provider has no models",
    "duplicate-model": "two models have the same public name, or the same name in one process",
    "shadowed-name": "a name is that of something else; one that is only like it is a warning",
    "unknown-model": "a name that no provider declares",
    "model-not-deployed": "a name that no active provider serves",
    "unknown-alias-target": "an alias points at an unknown name, or at another alias",
    "chain-empty": "a chain without steps that is not terminal",
    "chain-self": "a model is its own fallback",
    "chain-duplicate": "a chain has a duplicate entry (a warning where a capability has it)",
    "chain-mode": "a chain mixes models of different modes",
    "chain-vectors": "another embedding model would answer for one",
    "chain-lost": "every step of a chain was left out",
    "chain-undeclared": "a model has no chain and is not terminal (warning)",
    "name-unreachable": "no deployment serves a capability or alias (warning)",
    "context-shrinks": "a fallback has a smaller context than its model (warning)",
    "single-point-of-failure": "every step of a chain is on one host or at one provider (warning)",
    "redis-advised": "limits or cool-downs need Redis to work as configured (warning)",
    "no-effect": "a key has no effect in its place (warning)",
    "no-deployment": "no deployment is left for the gateway",
    "exclusive-group": "two active providers of one exclusive group on one host",
    "unknown-gpu": "a model names a GPU its host does not declare",
    "gpu-mismatch": "a model is split over more GPUs than it has, or names one twice",
    "vram-exceeded": "models need more GPU memory than their host declares",
    "vram-uncounted": "the memory of a model is not counted beside others (warning)",
    "cache-without-redis": "the cache is enabled, but no host is in llm_redis",
    "port-clash": "two listeners use the same port on one host",
    "port-privileged": "a port below 1024, of a service that may not bind it",
    "address-corrected": "a provider's address is not called as it is written (warning)",
    "address-doubtful": "an address that is probably not what is meant (warning)",
    "address-loop": "a provider's address is a part of this stack itself",
    "address-unusable": "a host that others must reach has no usable IP address",
    "duplicate-address": "two hosts have the same address",
    "connection-local": "a host is the machine Ansible runs on, and its address is another's",
    "listen-address": "the front end cannot listen on an address, or no client reaches it",
    "loopback-provider": "a provider on loopback, as seen from several machines (warning)",
    "secret-undefined": "a named secret is not defined",
    "secret-unusable": "the value of a secret cannot be used",
    "secret-differs": "two hosts have different values of one secret",
    "secret-reserved": "a secret of Modelyard itself is named for something else",
    "secret-shared": "one secret, or one value, for two purposes",
    "secret-too-short": "a client's key is too short to be stored as a hash",
    "version-mismatch": "a version, and a source or lock of another version",
    "version-unsafe": "a version below the security floor, or a compromised one",
    "version-without-lock": "a version without a lock file with hashes",
}


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem. `path` is the catalogue path, `origin` the place in a file (None if unknown).

    What looks like a key in the message, the hint or the path is not shown.
    """

    code: str
    severity: Severity
    message: str
    path: Path = ()
    origin: Origin | None = None
    hint: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"undeclared diagnostic code {self.code}")
        object.__setattr__(self, "message", censored(self.message))
        object.__setattr__(self, "hint", censored(self.hint))

    def without(self, texts: Iterable[str]) -> Diagnostic:
        """Return the same with `HIDDEN` in the place of some texts."""
        pattern = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))

        def hide(text: str) -> str:
            return re.sub(pattern, HIDDEN, text) if pattern else text

        path = tuple(hide(part) if isinstance(part, str) else part for part in self.path)
        return replace(self, message=hide(self.message), hint=hide(self.hint), path=path)

    def render(self) -> str:
        """`FILE:LINE:COLUMN: error[CODE]: message`, then the path and the hint on lines of their
        own.
        """
        where = f"{self.origin}: " if self.origin else ""
        lines = [f"{where}{self.severity}[{self.code}]: {self.message}"]
        if self.path:
            lines.append(f"  at: {show_path(self.path)}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON-able data: code, severity, message, hint, path, origin, file,
        line, column.
        """
        origin = (
            asdict(self.origin)
            if self.origin
            else dict.fromkeys(("file", "line", "column", "description"))
        )
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
            "path": show_path(self.path),
            "origin": str(self.origin) if self.origin else "",
            "file": origin["file"],
            "line": origin["line"],
            "column": origin["column"],
        }


def variable_path(path: Path) -> Path:
    """Return a catalogue path as the user wrote it: beginning with the variable's name."""
    return (f"llm_{path[0]}", *path[1:]) if path else ()


def diagnose(
    source: SourceMap,
    code: str,
    message: str,
    path: Path,
    hint: str = "",
    *,
    key: bool = False,
    severity: Severity = "error",
) -> Diagnostic:
    """Return a diagnostic about a place in the catalogue. `key` and the origin are as in
    `SourceMap.origin`.
    """
    return Diagnostic(
        code, severity, message, variable_path(path), source.origin(path, key=key), hint
    )


class Report:
    """Collects what is wrong with a catalogue, in the order in which it is found: one for each step
    of the compiler.
    """

    def __init__(self, source: SourceMap) -> None:
        self.source = source
        self.found: list[Diagnostic] = []

    @property
    def has_errors(self) -> bool:
        """Whether something is refused, and not only warned of."""
        return any(one.severity == "error" for one in self.found)

    def error(
        self, code: str, message: str, path: Path, hint: str = "", *, key: bool = False
    ) -> None:
        """Refuse what stands at a place in the catalogue. `key` and the origin are as in
        `SourceMap.origin`.
        """
        self.found.append(diagnose(self.source, code, message, path, hint, key=key))

    def warning(
        self, code: str, message: str, path: Path, hint: str = "", *, key: bool = False
    ) -> None:
        """Warn of what stands at a place in the catalogue."""
        self.found.append(
            diagnose(self.source, code, message, path, hint, key=key, severity="warning")
        )

    def outside(self, broken: frozenset[Path]) -> list[Diagnostic]:
        """Return what was found, but for what is about something that the schema has refused a part
        of (`broken`).
        """
        return [one for one in self.found if not _is_within(one.path, broken)]


def _is_within(path: Path, broken: frozenset[Path]) -> bool:
    inside = (str(path[0]).removeprefix("llm_"), *path[1:]) if path else ()
    return any(len(place) > 1 and inside[: len(place)] == place for place in broken)


def show_path(path: Path) -> str:
    """Render `("llm_providers", "a", "models", 0)` as `llm_providers.a.models[0]`."""
    text = ""
    for part in path:
        if part is None or isinstance(part, bool):  # A key that YAML does not read as text.
            text += f"[{json.dumps(part)}]"
        elif isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", str(part)):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return censored(text)


def on_command_line(variable: str, value: str = "{...}") -> str:
    """Return the hint for text where Ansible's `-e NAME=VALUE` cannot give what is wanted."""
    return f"""on the command line write it as JSON: -e '{{"{variable}": {value}}}'"""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`did you mean "x"?` for the declared name nearest to `name` (two that are equally near), or
    an empty string.
    """
    unique = sorted(set(candidates) - {name})
    near = _nearest(name, unique)
    if not near:
        folded = {candidate.casefold(): candidate for candidate in unique}
        near = [folded[hit] for hit in _nearest(name.casefold(), sorted(folded))]
    names = '" or "'.join(near)
    return f'did you mean "{names}"?' if near else ""


ALIKE = 0.75
"""From this ratio on (`difflib`), a word is taken for a misspelling of one of a few."""


def misspelt_choice(value: str, allowed: Iterable[str]) -> str:
    """`did you mean "x"?` where a value can only be a misspelling of one of the allowed ones, else
    an empty string.

    Words that are merely near have a meaning of their own: `gpu` is no misspelling of `cpu`, nor
    `inactive` of `active`. A misspelling begins with the same letter and is nearest to one alone.
    """
    folded = value.strip().casefold()
    words = sorted(set(allowed))
    ratios = {word: SequenceMatcher(None, word.casefold(), folded).ratio() for word in words}
    near = [word for word in words if ratios[word] == max(ratios.values())]
    if len(near) != 1 or ratios[near[0]] < ALIKE or near[0][:1].casefold() != folded[:1]:
        return ""
    return f'did you mean "{near[0]}"?'


def _nearest(name: str, candidates: list[str]) -> list[str]:
    near = get_close_matches(name, candidates, n=2, cutoff=0.6)
    ratios = [SequenceMatcher(None, hit, name).ratio() for hit in near]
    return sorted(hit for hit, ratio in zip(near, ratios, strict=True) if ratio == ratios[0])


def listing(names: Iterable[str], most: int = 8) -> str:
    """Return at most `most` names for a sentence: `a, b, c and 4 more`."""
    all_names = list(names)
    text = ", ".join(all_names[:most])
    return f"{text} and {len(all_names) - most} more" if len(all_names) > most else text
