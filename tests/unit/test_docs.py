"""What the documentation names is there."""

from __future__ import annotations

import re

from catalogues import ROOT

from modelyard.catalogue.sourcemap import Origin
from modelyard.diagnostics import CODES, Diagnostic, did_you_mean, show_path


def test_every_code_is_documented_once_with_example_and_fix() -> None:
    text = (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section.split("\n", 1)[0] for section in sections] == list(CODES)
    assert [s.split("\n", 1)[0] for s in sections if "\nExample: " not in s or "\nFix: " not in s] == []


def test_every_code_is_used() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "src/modelyard").rglob("*.py")
        if path.name != "diagnostics.py"
    )
    assert [code for code in CODES if f'"{code}"' not in source] == []


def test_rendering() -> None:
    path = ("llm_routing", "fallbacks", "llama3.1:latest", "chain", 0)
    found = Diagnostic("unknown-model", "error", "no such model", path, Origin("a.yml", 3, 7), "look")
    assert found.render() == (
        "a.yml:3:7: error[unknown-model]: no such model\n"
        '  at: llm_routing.fallbacks["llama3.1:latest"].chain[0]\n'
        "  hint: look"
    )
    assert Diagnostic("no-hosts", "error", "none").render() == "error[no-hosts]: none"
    assert show_path(("llm_gateway", "port")) == "llm_gateway.port"
    assert (found.as_dict()["file"], found.as_dict()["line"], found.as_dict()["column"]) == ("a.yml", 3, 7)


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
