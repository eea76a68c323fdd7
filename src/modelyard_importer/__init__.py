"""Import of hand-made stacks: `providers.yaml` and `model-mappings.yaml` in, a catalogue and a
report out.

Pure: text in, text out. Every value of the old files is claimed in the report by the code that
reads it, and what is not claimed is reported as unknown, so that nothing can be dropped silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.diagnostics import listing
from modelyard_importer import keys
from modelyard_importer.catalogue import (
    ROUTING,
    Provider,
    Routing,
    write_providers,
    write_routing,
)
from modelyard_importer.chains import Chains
from modelyard_importer.matches import ExactMatches
from modelyard_importer.models import finish_model
from modelyard_importer.oldfiles import InputError, Node, read
from modelyard_importer.report import TWICE, Entry, Outcome, Report, render_entries
from modelyard_importer.servers import Servers
from modelyard_importer.weights import share

__all__ = ["FILES", "REPORT", "Imported", "InputError", "import_stack"]

PROVIDERS, MAPPINGS = FILES = ("providers.yaml", "model-mappings.yaml")
"""What an old stack has."""

REPORT = "IMPORT-REPORT.md"
"""Ansible does not take a file of this extension for an inventory."""

PROVIDER_KEYS = (
    "type status base_url models requires_api_key env_var max_model_len cost_per_1k_tokens".split()
)
"""Keys that become something."""

MOST_URGENT = 20
"""Lines of a summary. More than a screen is not read."""

HOSTS = """\
---
# Where the gateway and its Redis run: on this machine. The imported providers run already and have a base_url, so no
# engine has a group here. With group and port in place of base_url this bundle deploys it: see inventories/workstation.
all:
  children:
    llm_stack:
      children:
        llm_gateway:
          hosts:
            localhost:
        llm_redis:
          hosts:
            localhost:
        llm_monitoring:
          hosts:
            localhost:
      vars:
        ansible_connection: local
        ansible_python_interpreter: /usr/bin/python3
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """An inventory with the imported catalogue. `files` are its texts by path in the new directory.

    `public_names` are the names that clients can ask for, `secrets` the keys that active providers
    need.
    """

    files: Mapping[str, str]
    entries: Sequence[Entry]
    public_names: Sequence[str]
    secrets: Sequence[str]
    summary: str
    report: str


def import_stack(files: Mapping[str, bytes], directory: str, schema: str = "") -> Imported:
    """Convert an old stack.

    `files` are the contents of `FILES`, `directory` is where they lie (for messages), and `schema`
    the address of the catalogue's JSON Schema as an editor finds it from group_vars/llm_stack of
    the result, empty for none. Raises InputError with all that is wrong if a file is missing or
    cannot be read.
    """
    providers, mappings = _read(files, directory)
    report = Report()
    for root in (providers, mappings):
        report.overwritten(root)
    servers = _servers(providers, mappings, report)
    chains = Chains(mappings, servers, report)
    chains.convert()
    report.rest(providers, keys.TOP_PROVIDERS, ["providers"])
    for section, known in (
        ("routing_rules", keys.ROUTING_RULES),
        ("special_cases", keys.SPECIAL_CASES),
    ):
        if (node := mappings.get(section)) is not None:
            report.rest(node, known)
    sections = [
        "exact_matches",
        "capabilities",
        "load_balancing",
        "fallback_chains",
        "routing_rules",
        "special_cases",
    ]
    report.rest(mappings, keys.TOP_MAPPINGS, sections)
    report.finish([providers, mappings])
    return _result(servers, chains.routing, report, schema)


def _servers(providers: Node, mappings: Node, report: Report) -> Servers:
    """Return the providers and their models. All is read before what has no model is left out."""
    servers = Servers(providers, report)
    servers.read()
    ExactMatches(mappings, servers, report).convert()
    servers.finish()
    share(mappings, servers, report)
    for provider in servers.providers.values():
        for model in provider.models.values():
            finish_model(provider, model, report)
        report.rest(provider.node, keys.PROVIDER, PROVIDER_KEYS)
    return servers


def _read(files: Mapping[str, bytes], directory: str) -> tuple[Node, Node]:
    problems: list[str] = []
    roots: dict[str, Node] = {}
    for file in FILES:
        shown = f"{directory}/{file}"
        if file not in files:
            hint = (
                f"; if the stack has none, make an empty one: touch {shown}"
                if file == MAPPINGS
                else ""
            )
            problems.append(f"{shown}: there is no such file{hint}")
            continue
        try:
            root = roots[file] = read(file, shown, files[file])
        except InputError as error:
            problems += error.problems
            continue
        if root.entries is None and not (
            file == MAPPINGS and root.scalar is None and root.elements is None
        ):
            problems.append(f"{shown}:{root.line}:1: the file is not a mapping")
        elif file == PROVIDERS and not (node := root.get("providers")):
            problems.append(f"{shown}:{root.line}:1: there is no key providers")
        elif file == PROVIDERS and node and not node.entries:
            problems.append(
                f"{shown}:{node.line}:1: providers is not a mapping of providers by name"
            )
    if problems:
        raise InputError(problems)
    return roots[PROVIDERS], roots[MAPPINGS]


def _result(servers: Servers, routing: Routing, report: Report, schema: str) -> Imported:
    providers = list(servers.providers.values())
    public = [*servers.active, *routing.capabilities, *routing.aliases]
    keyed = [provider for provider in providers if not provider.disabled]
    secrets = list(
        dict.fromkeys(str(p.keys["api_key_env"]) for p in keyed if "api_key_env" in p.keys)
    )
    summary = _summary(servers, providers, routing, report, public, secrets)
    text = _report(summary, report)
    files = {
        "hosts.yml": HOSTS,
        "group_vars/llm_stack/providers.yml": write_providers(providers, schema),
        ROUTING: write_routing(routing, schema),
        REPORT: text,
    }
    return Imported(files, tuple(report.entries), public, secrets, summary, text)


def _summary(
    servers: Servers,
    providers: Sequence[Provider],
    routing: Routing,
    report: Report,
    public: Sequence[str],
    secrets: Sequence[str],
) -> str:
    disabled = [provider.name for provider in providers if provider.disabled]
    lines = [
        (
            f"Providers: {len(providers) - len(disabled)} active, {len(disabled)}"
            f" disabled{_names(disabled)}, {len(servers.left_out)} left"
            f" out{_names(servers.left_out)}."
        ),
        (
            f"Public names: {len(public)} (models {len(servers.active)}, aliases"
            f" {len(routing.aliases)}, capabilities {len(routing.capabilities)}). Chains:"
            f" {len(routing.fallbacks)}."
        ),
    ]
    values = ", ".join(
        f"{sum(e.values for e in report.entries if e.outcome is o)} {o}" for o in Outcome
    )
    lines.append(f"Values of the old files: {values}.")
    if secrets:
        lines.append(
            f"Secrets to define first: {', '.join(secrets)} (in the environment, llm_secrets or"
            " .credentials/)."
        )
    urgent = render_entries(
        sorted((entry for entry in report.entries if entry.urgent), key=_who_answers)
    )
    if urgent:
        lines += ["", "Check these first:", *(f"- {line}" for line in urgent[:MOST_URGENT])]
        if len(urgent) > MOST_URGENT:
            lines.append(f"- and {len(urgent) - MOST_URGENT} more in the report")
    return "\n".join(lines)


def _who_answers(entry: Entry) -> tuple[bool, bool, bool]:
    """Sort what stands there twice first, since it may be why the rest has nothing to refer to;
    then what changes who answers a request, the default chain before all else.
    """
    ours = entry.path and entry.path[0] in ("fallback_chains", "capabilities")
    default = entry.path[:2] == ("fallback_chains", "default")
    return entry.text != TWICE, not default, not ours


def _names(names: Sequence[str] | Mapping[str, str]) -> str:
    return f" ({listing(names)})" if names else ""


def _report(summary: str, report: Report) -> str:
    lines = [
        "# Import report",
        "",
        (
            "Every value of the old files has a line here, or is part of one that has: FILE:LINE,"
            " path, result."
        ),
        "",
        summary,
    ]
    for outcome in Outcome:
        found = render_entries(entry for entry in report.entries if entry.outcome is outcome)
        if found:
            lines += ["", f"## {outcome.capitalize()}", "", *(f"- {line}" for line in found)]
    return "\n".join([*lines, ""])
