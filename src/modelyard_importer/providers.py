"""A provider's keys, from its entry in `providers.yaml`."""

from __future__ import annotations

import re

from modelyard.catalogue.providers import CLOUD_TYPES
from modelyard.kinds import SecretName
from modelyard.names import OWN_SECRETS, engine_secret
from modelyard_importer.address import Address
from modelyard_importer.catalogue import Provider
from modelyard_importer.report import Outcome, Report
from modelyard_importer.values import fits, per_million, positive, text_of

TAKEN, CHANGED, UNSUPPORTED, NO_MEANING = (
    Outcome.TAKEN,
    Outcome.CHANGED,
    Outcome.UNSUPPORTED,
    Outcome.NO_MEANING,
)

NOT_ACTIVE = {
    "disabled": "it was disabled",
    "pending_integration": "it was pending",
    "template": "it was a template",
}


def finish_provider(provider: Provider, address: Address, report: Report) -> None:
    """Set the keys of a provider, and report them."""
    node, claim, place = provider.node, report.claim, provider.place
    if provider.name != provider.old_name:
        report.remark(
            node, f"{place}: a provider's name has lower-case letters, digits, - and _ only"
        )
    provider.keys["type"] = provider.kind
    same = provider.kind == text_of(node.get("type"))
    claim(
        node.get("type"),
        TAKEN if same else CHANGED,
        place if same else f"{place}.type: {provider.kind}",
    )
    _status(provider, report)
    _base_url(provider, address, report)
    _secret(provider, report)
    _context_of_all(provider, report)
    _price_of_all(provider, report)


def _base_url(provider: Provider, address: Address, report: Report) -> None:
    node, place = provider.node.get("base_url"), provider.place
    provider.keys["base_url"] = address.url
    text = f"{place}.base_url: {address.text}" if address.text else place
    # What was switched off anyway is not missed.
    urgent = bool(address.unusable) and text_of(provider.node.get("status")) in ("", "active")
    if node is None:
        report.remark(provider.node, text, urgent=urgent)
        return
    report.claim(node, address.outcome, text, urgent=urgent)
    if address.advice:
        report.remark(node, f"{place}.base_url: {address.advice}", urgent=True)


def _status(provider: Provider, report: Report) -> None:
    node, place = provider.node.get("status"), provider.place
    provider.keys["status"] = status = "disabled" if provider.disabled else "active"
    if node is None:
        report.remark(provider.node, f"{place}.status: {status}, as none was given")
    elif text_of(node) == status:
        report.claim(node, TAKEN, place)
    else:
        unknown = text_of(node) not in ("active", *NOT_ACTIVE)
        report.claim(
            node, CHANGED, f"{place}.status: {status}, {provider.disabled}", urgent=unknown
        )


def _secret(provider: Provider, report: Report) -> None:
    claim, place = report.claim, provider.place
    variable, required = provider.node.get("env_var"), provider.node.get("requires_api_key")
    word = text_of(required).lower()
    if provider.kind not in CLOUD_TYPES and (
        word in ("false", "no", "off") or not (text_of(variable) or word)
    ):
        for node in (variable, required):
            claim(node, NO_MEANING, "no key is needed, and without api_key_env none is sent")
        return
    written = text_of(variable)
    name = re.sub(r"^(?:\$\{(\w+)\}|\$(\w+)|os\.environ/(\w+))$", r"\1\2\3", written)
    if fits(SecretName, name) or name in OWN_SECRETS:
        name = engine_secret(provider.name)
    provider.keys["api_key_env"] = name
    if name == written:
        claim(variable, TAKEN, place)
    else:
        # The value there may be the key itself, so it is not repeated.
        claim(
            variable, CHANGED, f"{place}.api_key_env: {name}, as the value here cannot be its name"
        )
    if variable is None:
        report.remark(provider.node, f"{place}.api_key_env: {name}, as no env_var names it")
    claim(required, CHANGED, f"{place}.api_key_env replaces it")


def _context_of_all(provider: Provider, report: Report) -> None:
    node = provider.node.get("max_model_len")
    if node is None:
        return
    if (tokens := positive(node)) is None:
        report.claim(node, UNSUPPORTED, "not a whole number of tokens above 0")
        return
    for model in provider.models.values():
        model.keys["context_length"] = tokens
    report.claim(node, CHANGED, f"{provider.place}: context_length of its models")


def _price_of_all(provider: Provider, report: Report) -> None:
    node = provider.node.get("cost_per_1k_tokens")
    if node is None:
        return
    parts = node.mapping if node.entries is not None else {"input": node, "output": node}
    price = {key: value for key, part in parts.items() if (value := per_million(part)) is not None}
    if parts.keys() != {"input", "output"} or price.keys() != parts.keys():
        hint = "write price: {input: ..., output: ...} at its models, in dollars per million tokens"
        report.claim(node, UNSUPPORTED, f"neither one price nor input and output; {hint}")
        return
    for model in provider.models.values():
        model.keys["price"] = {"input": price["input"], "output": price["output"]}
    report.claim(
        node, CHANGED, f"{provider.place}: price of its models, in dollars per million tokens"
    )
