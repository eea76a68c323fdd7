"""What a folder of the core may do, and whom it may ask: its imports say it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogues import ROOT

CORE = ROOT / "src/modelyard"
IMPORTER = ROOT / "src/modelyard_importer"

OUTSIDE = frozenset(
    "asyncio fcntl http io os pathlib secrets shutil socket subprocess tempfile threading".split()
)
"""Modules of the standard library that reach files, the network or other processes; and
urllib.request."""

MAY = {
    "controller": "it is what this folder is for",
    "dashboards/queries.py": "reads the generated dashboards",
}

TOP = {"addresses", "kinds", "names", "showing", "urls"}
ASKS = {
    "diagnostics": {"catalogue"},  # where a value stands
    "engines": set(),
    "catalogue": {"diagnostics", "engines"},
    "gpu": set(),
    "compiler": {"catalogue", "diagnostics", "engines", "gpu"},
    "plan": {"catalogue", "compiler", "diagnostics", "engines"},
    "compile": {"catalogue", "compiler", "diagnostics", "engines", "plan"},
    "operations": {"catalogue", "compile", "compiler", "diagnostics", "engines", "output", "plan"},
    "output": {"catalogue", "compile", "diagnostics", "operations", "plan"},
    "controller": {"catalogue"},
    "dashboards": set(),
    "report": {"dashboards"},
}
"""By folder (or module), whose modules it imports beside its own and those of TOP."""


def imports(path: Path) -> Iterator[str]:
    """Everything a module imports when it is loaded, not only for types."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = sorted(str(path.relative_to(CORE)) for path in CORE.rglob("*.py") if path.parent != CORE)


@pytest.mark.parametrize("module", MODULES)
def test_only_the_controllers_part_reaches_out(module: str) -> None:
    if module in MAY or module.partition("/")[0] in MAY:
        return
    found = {
        name
        for name in imports(CORE / module)
        if name.split(".")[0] in OUTSIDE or "urllib.request" in name
    }
    assert found == set()
    assert " open(" not in (CORE / module).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    [*MODULES, "compile.py", "diagnostics.py", "kinds.py", "names.py", "addresses.py", "urls.py"],
)
def test_folders_ask_those_they_may(module: str) -> None:
    own = module.partition("/")[0].removesuffix(".py")
    asked = {name.split(".")[1] for name in imports(CORE / module) if name.startswith("modelyard.")}
    assert asked - {own} - TOP - ASKS.get(own, set()) == set()
    assert "ansible" not in {name.split(".")[0] for name in imports(CORE / module)}


@pytest.mark.parametrize("module", sorted(path.name for path in IMPORTER.glob("*.py")))
def test_importer_asks_the_core(module: str) -> None:
    found = set(imports(IMPORTER / module))
    assert {name for name in found if name.split(".")[0] in OUTSIDE | {"ansible"}} == set()
    asked = {name.split(".")[1] for name in found if name.startswith("modelyard.")}
    assert asked <= {"catalogue", "compiler", "diagnostics"} | TOP


def test_nothing_asks_the_importer_but_its_verb() -> None:
    modules = [
        path
        for part in (CORE, ROOT / "src/modelyard_ansible", ROOT / "plugins")
        for path in part.rglob("*.py")
    ]
    asking = [
        path.name
        for path in modules
        if any(name.startswith("modelyard_importer") for name in imports(path))
    ]
    assert asking == ["modelyard_import.py"]
