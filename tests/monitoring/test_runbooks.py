"""docs/operations.md: a runbook for every alert, and nothing in it that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from promql import groups, unknown

from modelyard.plan.parts import ExporterPart

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
RUNBOOKS = re.split(r"^## ", PAGE.partition("\n# Runbooks\n")[2], flags=re.MULTILINE)[1:]
SECTIONS = {section.partition("\n")[0]: section for section in RUNBOOKS}
EXPRESSIONS = re.findall(r"promtool query instant \S+ (?:\\\n\s*)?'([^']*)'", PAGE)


def named(pattern: str) -> set[str]:
    """What the page names in this way."""
    return set(re.findall(pattern, PAGE))


def test_every_alert_has_its_runbook_and_every_runbook_is_an_alerts() -> None:
    alerts = [rule["alert"] for group in groups() for rule in group["rules"] if "alert" in rule]
    assert sorted(section.partition("\n")[0] for section in RUNBOOKS) == sorted(alerts)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_runbook_has_its_five_parts(name: str) -> None:
    meaning, *parts = re.split(r"^\*\*([^*]*):\*\*\s", SECTIONS[name], flags=re.MULTILINE)
    assert meaning.removeprefix(name).strip()
    assert parts[::2] in (
        ["Impact", "Diagnose", "Fix", "Resolved"],
        ["Impact", "Diagnose and fix", "Resolved"],
    )
    assert all(text.strip() for text in parts[1::2])


def test_links_within_the_page_lead_somewhere() -> None:
    headings = {
        title.lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)", PAGE, flags=re.MULTILINE)
    }
    assert named(r"\]\(#([^)]*)\)") - headings == set()


def test_playbooks_exist() -> None:
    playbooks = named(r"ansible-playbook (\S+)") | named(r"`((?:playbooks/)?[\w/]+\.yml)`")
    assert "playbooks/smoke.yml" in playbooks
    inventory = {"group_vars/llm_stack/llm.yml", "group_vars/llm_stack/upgraded.yml"}
    assert {path for path in playbooks - inventory if not (ROOT / path).is_file()} == set()


def test_targets_of_make_exist() -> None:
    targets = re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert named(r"(?:^    |`)make ([a-z-]+)") - set(targets) == set()


def test_modules_exist() -> None:
    modules = named(r"-m (modelyard_\w+)")
    assert modules
    assert {
        name for name in modules if not (ROOT / f"plugins/modules/{name}.py").is_file()
    } == set()


def test_units_exist() -> None:
    """SERVICE, NAME and PROVIDER are to be filled in; a unit of the exporters is named by its
    kind."""
    templates = ROOT.glob("roles/*/templates/modelyard-*.service.j2")
    units = {path.name.removesuffix(".service.j2").removesuffix("@") for path in templates}
    found = named(r"modelyard-([a-z-]+(?:@\w+)?)")
    assert {"haproxy", "litellm@blue", "exporter@host"} <= found
    assert {name for name in found if f"modelyard-{name.partition('@')[0]}" not in units} == set()
    assert named(r"modelyard-exporter@(\w+)") == set(
        get_args(ExporterPart.model_fields["kind"].annotation)
    )


@pytest.mark.parametrize("expression", sorted(set(EXPRESSIONS)))
def test_queries_ask_for_what_the_servers_show(expression: str) -> None:
    assert unknown(expression) == []


def test_all_queries_were_found() -> None:
    assert len(EXPRESSIONS) == PAGE.count("promtool query")
