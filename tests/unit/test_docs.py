"""The documentation names only what exists, and its prose fits in 100 columns."""

from __future__ import annotations

import re

import pytest
from catalogues import ROOT

from modelyard.catalogue.sourcemap import Origin
from modelyard.diagnostics import CODES, Diagnostic, did_you_mean, show_path


def test_every_code_is_documented_once_with_example_and_fix() -> None:
    text = (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(CODES)
    assert [
        s.split("\n", 1)[0] for s in sections if "\nExample: " not in s or "\nFix: " not in s
    ] == []


def test_every_code_is_used() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src/modelyard").rglob("*.py")
        if path.name != "diagnostics.py"
    )
    assert [code for code in CODES if f'"{code}"' not in source] == []


def test_rendering() -> None:
    path = ("llm_routing", "fallbacks", "llama3.1:latest", "chain", 0)
    found = Diagnostic(
        "unknown-model", "error", "no such model", path, Origin("a.yml", 3, 7), "look"
    )
    assert found.render() == (
        "a.yml:3:7: error[unknown-model]: no such model\n"
        '  at: llm_routing.fallbacks["llama3.1:latest"].chain[0]\n'
        "  hint: look"
    )
    assert Diagnostic("no-hosts", "error", "none").render() == "error[no-hosts]: none"
    assert show_path(("llm_gateway", "port")) == "llm_gateway.port"
    assert (found.as_dict()["file"], found.as_dict()["line"], found.as_dict()["column"]) == (
        "a.yml",
        3,
        7,
    )


def test_did_you_mean() -> None:
    assert did_you_mean("lama", ["llama", "other"]) == 'did you mean "llama"?'
    assert did_you_mean("LLAMA", ["llama"]) == 'did you mean "llama"?'
    assert did_you_mean("zzz", ["llama"]) == ""
    assert did_you_mean("llama_c", ["llama_b", "llama_a"]) == 'did you mean "llama_a" or "llama_b"?'


def test_every_test_that_security_names_is_there() -> None:
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "test_" in line]
    named = []
    for row in rows:
        path = ""
        for found in re.findall(r"`([\w/.]*)::(\w+)`", row):
            path = found[0] or path
            named.append((path, found[1]))
    named += re.findall(r"`([\w/.]+)::(\w+)`", text)
    assert len(rows) > 25
    tests = {path: (ROOT / path).read_text(encoding="utf-8") for path, _ in named}
    assert [f"{path}::{name}" for path, name in named if f"\ndef {name}(" not in tests[path]] == []


PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("roles/*/README.md")),
    )
]
GENERATED = {"docs/catalogue.md", "docs/mistakes.md"}

TREE = (
    "docs",
    "group_vars",
    "inventories",
    "lab",
    "molecule",
    "playbooks",
    "plugins",
    "requirements",
    "roles",
    "scripts",
    "src",
    "tests",
)
"""Directories of the repository. A path that begins with one of them must exist."""

CORE = ROOT / "src/modelyard"
FOLDERS = (*TREE, *(path.name for path in CORE.iterdir() if path.is_dir()))
"""The core's folders too: docs/architecture.md names its modules from there."""

NAMED_FILE = re.compile(r"[\w@-]+\.(?:py|sh|yml|md|toml|cfg|j2|cmake)")
"""A file that is named without its directory. It must exist somewhere in the repository, a user's
file excepted."""

NOT_OURS = {
    "group_vars/llm_stack": "of the user's inventory",
    "group_vars/llm_gateway": "of an inventory that is refused",
    "llm.yml": "the user's overrides",
    "switched.yml": "written by playbooks/switch_model.yml",
    "upgraded.yml": "written by playbooks/upgrade.yml",
    "inventories/imported": "written by playbooks/import.yml",
    "llm_stack/providers.yml": "written by playbooks/import.yml",
    "llm_stack/routing.yml": "written by playbooks/import.yml",
    "molecule/default/molecule.yml": "molecule says that it is missing",
    "pylock.toml": "a format of uv",
    "graph.md": "an example of a file to write",
}
"""Endings of paths that look like ours and need not exist, with the reason."""

PLACEHOLDER = re.compile(r"\b(?!README\b)[A-Z]{2,}\b|\bx\b|[*{<]|\.\.\.")
"""A path with a part to fill in (NAME, VERSION, *) is not looked up."""


def named_paths(text: str) -> set[str]:
    """Paths and file names that a page names in backticks, links and code blocks."""
    quoted = re.findall(r"`([^`\n]+)`", text) + re.findall(
        r"^(?: {4}|\t)(.*)$", text, flags=re.MULTILINE
    )
    words = {word.strip("()[],;:'\"").rstrip(".") for part in quoted for word in part.split()}
    words |= {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    words = {re.sub(r"(::|:\d).*", "", word) for word in words if "://" not in word}
    return {
        word
        for word in words
        if word.startswith(tuple(f"{top}/" for top in FOLDERS)) or NAMED_FILE.fullmatch(word)
    }


def exists(path: str, page: str) -> bool:
    """Whether it exists: from the root, the core or the page, or as a file (or template) of that
    name anywhere."""
    if any((start / path).exists() for start in (ROOT, CORE, (ROOT / page).parent)):
        return True
    return "/" not in path and any(
        True for top in TREE for name in (path, f"{path}.j2") for _ in (ROOT / top).rglob(name)
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    paths = {path.rstrip("/") for path in named_paths(text) if not PLACEHOLDER.search(path)}
    others = {path for path in paths if "/.credentials/" in path or path.endswith(tuple(NOT_OURS))}
    assert sorted(path for path in paths - others if not exists(path, page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Targets of links exist, and so does the heading that a link names."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        other = (ROOT / page).parent / file if file else ROOT / page
        assert other.exists(), target
        if anchor:
            headings = re.findall(
                r"^#+ (.*)", other.read_text(encoding="utf-8"), flags=re.MULTILINE
            )
            slugs = {
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
            }
            assert anchor in slugs, target


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_prose_fits_in_100_columns(page: str) -> None:
    """Tables and code blocks may be wider, and so may a line without a space to break it at."""
    text = re.sub(
        r"^ *```.*?^ *```",
        "",
        (ROOT / page).read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    prose = [
        line
        for line in text.splitlines()
        if not line.startswith(("|", "    ")) and " " in line.strip()
    ]
    assert [line for line in prose if len(line) > 100] == []
