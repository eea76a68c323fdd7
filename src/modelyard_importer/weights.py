"""Weights of names that several providers serve, from `load_balancing`."""

from __future__ import annotations

from modelyard_importer import keys
from modelyard_importer.catalogue import Provider
from modelyard_importer.oldfiles import Node
from modelyard_importer.report import Outcome, Report
from modelyard_importer.servers import Servers, entries
from modelyard_importer.values import text_of, whole_shares

TAKEN, CHANGED, UNSUPPORTED = Outcome.TAKEN, Outcome.CHANGED, Outcome.UNSUPPORTED


def share(mappings: Node, servers: Servers, report: Report) -> None:
    """Weights for names with several providers: those of `load_balancing`, else equal ones."""
    engines: dict[str, Provider] = {}
    for provider in servers.providers.values():
        if provider.kind in ("vllm", "llama_cpp") and not provider.disabled:
            other = engines.setdefault(str(provider.keys["base_url"]), provider)
            if other is not provider:
                text = (
                    f"{provider.place}: {other.name} has the same address, and one engine cannot be"
                    " both"
                )
                report.remark(provider.node, text, urgent=True)
    shared = {name: serving for name, serving in servers.active.items() if len(serving) > 1}
    for key, node in entries(mappings, "load_balancing", report):
        _balance(key, node, shared, servers, report)
    for name, serving in shared.items():
        parts = [provider.models[name].keys.get("weight") for provider in serving]
        if len({*parts}) > 1:
            divided = ", ".join(
                f"{provider.name} {part or 1}"
                for provider, part in zip(serving, parts, strict=True)
            )
            report.remark(
                serving[0].models[name].node,
                f'requests for "{name}" are now divided by load_balancing ({divided}), which the'
                " old gateway never read: it divided them equally",
                urgent=True,
            )
        for provider in serving:
            model = provider.models[name]
            if "weight" not in model.keys:
                model.keys["weight"] = 1
                text = (
                    f'{provider.place}: weight 1 for "{name}", which {len(serving)} providers serve'
                )
                report.remark(model.node, text)


def _balance(
    key: str, node: Node, shared: dict[str, list[Provider]], servers: Servers, report: Report
) -> None:
    listed = node.get("providers")
    members = [
        member for member in (listed.sequence if listed else ()) if member.entries is not None
    ]
    mine = [servers.providers.get(text_of(member.get("provider"))) for member in members]
    names = [
        name
        for name, serving in shared.items()
        if sum(provider in mine for provider in serving) > 1
        and not any("weight" in provider.models[name].keys for provider in serving)
    ]
    names = [key] if key in names else names
    weights = whole_shares([member.get("weight") for member in members])
    problem = (
        "a weight divides the requests for one name that several providers serve; no name is left"
        " for these"
    )
    if names and weights is None:
        problem = "each provider needs a weight above 0"
    for position, member in enumerate(members):
        provider = mine[position]
        weighed = [name for name in names if provider in shared[name]]
        if provider is None or weights is None or not weighed:
            for part in (member.get("provider"), member.get("weight")):
                report.claim(part, UNSUPPORTED, problem)
        else:
            for name in weighed:
                provider.models[name].keys["weight"] = weights[position]
            text = f"{provider.place}: weight of {', '.join(weighed)}"
            same = str(weights[position]) == text_of(member.get("weight"))
            report.claim(member.get("weight"), TAKEN if same else CHANGED, text)
            report.claim(member.get("provider"), CHANGED, text)
        report.rest(member, keys.MEMBER, ["provider", "weight"])
    report.rest(node, keys.LOAD_BALANCING, ["providers"])
