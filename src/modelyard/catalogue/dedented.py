"""Keys of the catalogue that begin their line in a file of variables, where they lost their
indentation: to Ansible each is a variable of its own, which nothing reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelyard.catalogue.fields import ENTRY, nested, paths_by_key, refusal
from modelyard.catalogue.overrides import SECTIONS, is_override
from modelyard.catalogue.routing import Routing
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path, Probe, is_list, plain
from modelyard.catalogue.strays import BY_NAME, SHAPES, Judgement, Variable, fit, is_valid
from modelyard.diagnostics import Severity

Place = tuple[int, Path]
"""A line of a file, and the path in the catalogue that stands there."""


class Dedented:
    """Judges variables by the sections of the catalogue and the overrides in the same file.

    `variables` are those sections and overrides by their variables' names, `tree` is the catalogue,
    `models` has the provider of every model.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        probe: Probe,
        tree: Mapping[str, Any],
        models: Callable[[], Mapping[str, str]],
    ) -> None:
        self._variables = variables
        self._probe = probe
        self._tree = tree
        self._models = models
        self._places: dict[str, list[Place]] = {}
        origins = (probe(name) or probe(value) for name, value in variables.items())
        self._files = {origin.file for origin in origins if origin and origin.file}

    def judge(self, variable: Variable) -> Judgement | None:
        """Return whether a variable is refused as a key of the catalogue, with the hint."""
        origin, value = variable.origin, plain(variable.value)
        severity: Severity
        path: Path
        if origin is None or origin.file is None or value is None or value in ("", [], {}):
            return None
        found = self._by_value(variable.name, value)
        if origin.file not in self._files:
            # It may be another tool's; a mapping whose keys are ours is hardly.
            if not found or found[0] != "error" or not isinstance(value, Mapping):
                return None
            if found[1] == "providers":
                return None
            severity, path = "warning", (found[1], variable.name)
        elif found:
            severity, path = found[0], (found[1], variable.name)
        elif variable.name in SECTIONS and not isinstance(value, Mapping):
            return None  # `gateway: 192.0.2.1` is in many inventories.
        elif path := self._owned(variable.name, value):
            severity = "error"
        elif path := self._path(variable.name, origin.file, origin.line or 0):
            before = self._before(origin.file, origin.line or 0)
            follows = len(path) == 1 or path[:1] == before[:1]
            certain = follows and _is_accepted(path, value)
            severity = "error" if certain else "warning"
        else:
            return None
        hint = f"write it as llm_overrides: {nested(path)}"
        if severity == "warning":
            return severity, f"if it is meant for Modelyard, {hint}"
        return severity, f"{hint}; move what is for another tool into a file of its own"

    def _by_value(self, name: str, value: Any) -> tuple[Severity, str] | None:
        """Return the section that a value can only belong to, or (a warning) could."""
        severity = fit("providers", {name: value}, self._tree)
        if severity is not None:
            return severity, "providers"
        section = next(
            (
                one
                for one in SECTIONS
                if one not in BY_NAME
                and name in SHAPES[one].model_fields
                and is_valid({one: {name: value}})
            ),
            "",
        )
        # `port: 4100` may be anybody's, `cooldown_s: 60` and `cache: {ttl_s: 60}` hardly.
        if not section or not ("_" in name or isinstance(value, Mapping)):
            return None
        names = {*value} if isinstance(value, Mapping) and section != "routing" else {name}
        clear = "_" in f"{name}{''.join(map(str, names))}" or len(names) > 1
        return "error" if clear or self._is_routing(name, value) else "warning", section

    def _is_routing(self, name: str, value: Mapping[Any, Any]) -> bool:
        """Return whether a value that is valid in the routing could hardly be anything else:
        chains, capabilities, or aliases of models that there are.
        """
        if name != "aliases":
            return name in Routing.model_fields
        return any(target in self._models() for target in value.values())

    def _owned(self, name: str, value: Any) -> Path:
        """Return where models belong that a provider of the catalogue has; empty for others."""
        if name != "models" or not (is_list(value) or isinstance(value, Mapping)):
            return ()
        names = [one.get("name") if isinstance(one, Mapping) else one for one in value]
        owners = (self._models().get(one) for one in names if isinstance(one, str))
        owner = next(filter(None, owners), None)
        return ("providers", owner, name) if owner else ()

    def _path(self, name: str, file: str, line: int) -> Path:
        """Return where the catalogue has a key of this name, nearest to what stands before it."""
        if name in self._models():
            return "providers", self._models()[name], "models", name
        if name in SECTIONS:
            return (name,)
        before = self._before(file, line)

        def rank(path: Path) -> tuple[int, int]:
            common = 0
            while common < min(len(before), len(path) - 1) and path[common] in (
                ENTRY,
                before[common],
            ):
                common += 1
            return common, -len(path)

        paths = paths_by_key(Catalogue).get(name, ())
        best: Path = max(paths, key=rank, default=())
        common = rank(best)[0] if best else 0
        return (*before[:common], *best[common:])

    def _before(self, file: str, line: int) -> Path:
        """Return the last path of the catalogue that stands above a line of a file."""
        if file not in self._places:
            self._places[file] = sorted(self._in(file), key=lambda place: place[0])
        above = [path for at, path in self._places[file] if at < line]
        return above[-1] if above else ()

    def _in(self, file: str) -> Iterator[Place]:
        for name, value in self._variables.items():
            path = () if is_override(name) else (name.removeprefix("llm_"),)
            yield from self._below(value, path, file)

    def _below(self, node: Any, path: Path, file: str) -> Iterator[Place]:
        is_mapping = isinstance(node, Mapping)
        children = node.items() if is_mapping else enumerate(node) if is_list(node) else ()
        for key, child in children:
            origin = self._probe(key) or self._probe(child)
            if origin and origin.file == file and origin.line:
                yield origin.line, (*path, key)
            yield from self._below(child, (*path, key), file)


def _is_accepted(path: Path, value: Any) -> bool:
    """Return whether an override may have a value at a path. One of models by name is checked no
    further.
    """
    if path[-1] == "models" or (path[0] == "providers" and len(path) == 4):
        return isinstance(value, list | Mapping)
    if isinstance(value, Mapping):
        tree: Any = value
        for key in reversed(path):
            tree = {key: tree}
        return is_valid(tree, path)
    return refusal(Catalogue, path, value) is None
