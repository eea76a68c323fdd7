"""A model's keys, from its entry in `providers.yaml` and the limits of an exact match."""

from __future__ import annotations

import re

from modelyard_importer import keys
from modelyard_importer.catalogue import Model, Provider
from modelyard_importer.oldfiles import Node
from modelyard_importer.report import Outcome, Report
from modelyard_importer.values import positive

TAKEN, UNSUPPORTED = Outcome.TAKEN, Outcome.UNSUPPORTED

RATES = ("rpm", "tpm")

CLOUD_SUFFIX = re.compile(r"[:-]cloud$")
"""A local Ollama marks models of Ollama's cloud so. The cloud itself lists them without it."""


def finish_model(provider: Provider, model: Model, report: Report) -> None:
    """Set the keys of a model, and report them."""
    node, place = model.node, f'{provider.place} "{model.name}"'
    if model.embeds:
        model.keys["mode"] = "embedding"
        report.remark(node, f"{place}: mode embedding, as its name says")
    if not model.listed:
        return
    if served_name(provider, model.name) != model.name and "served_name" not in model.keys:
        model.keys["served_name"] = served_name(provider, model.name)
        text = (
            f"{place}: served_name {model.keys['served_name']}, as Ollama's cloud itself calls it"
        )
        report.remark(node, text)
    if node.entries is None:
        report.claim(node, TAKEN, provider.place)
        return
    report.claim(node.get("name"), TAKEN, provider.place)
    if (context := node.get("context_length")) is not None:
        if (tokens := positive(context)) is not None:
            model.keys["context_length"] = tokens
            report.claim(context, TAKEN, place)
        else:
            report.claim(context, UNSUPPORTED, "not a whole number of tokens above 0")
    report.rest(node, keys.MODEL, ["name", "context_length"])


def set_limits(node: Node, models: list[Model], report: Report) -> None:
    """Give the models the requests and tokens per minute that an exact match states."""
    limits = node.get("rate_limit")
    for rate in RATES:
        if limits is None or (limit := limits.get(rate)) is None:
            continue
        if (most := positive(limit)) is None:
            report.claim(limit, UNSUPPORTED, "not a whole number above 0")
            continue
        for model in models:
            model.keys[rate] = most
        report.claim(limit, TAKEN, f"llm_providers: {rate} of {models[0].name}")
    given = [rate for rate in RATES if models and rate in models[0].keys]
    if limits is not None and given:
        report.remark(
            limits,
            f"{' and '.join(given)} of {models[0].name} will be enforced, which the old gateway did"
            " not do: what exceeds them goes to the next step of the chain, or gets 429",
            urgent=True,
        )
    if limits is not None:
        report.rest(limits, {}, RATES)


def served_name(provider: Provider, name: str) -> str:
    """Return the provider's own name for a model."""
    return CLOUD_SUFFIX.sub("", name) or name if provider.kind == "ollama_cloud" else name
