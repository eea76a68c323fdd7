"""Providers and their models: from `providers.yaml`, and from what `exact_matches` and `load_balancing` say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelyard.catalogue.providers import CLOUD_TYPES, PROVIDER_TYPES
from modelyard.compiler.routing import RESERVED
from modelyard.diagnostics import did_you_mean
from modelyard.importer import keys
from modelyard.importer.address import Address, convert
from modelyard.importer.catalogue import Model, Provider
from modelyard.importer.oldfiles import Node
from modelyard.importer.report import Outcome, Report
from modelyard.importer.values import fits, per_million, positive, text_of, whole_shares
from modelyard.kinds import Identifier, Name, SecretName, Tag
from modelyard.names import OWN_SECRETS, engine_secret

TAKEN, CHANGED, UNSUPPORTED, NO_MEANING = Outcome.TAKEN, Outcome.CHANGED, Outcome.UNSUPPORTED, Outcome.NO_MEANING

NO_MODELS = {
    "tool_server": "a tool_server has no models; it goes on running as it is",
    "web_ui": "a web_ui is a client; give it the gateway's address and key",
}
"""Types of the old files that no gateway calls."""

NOT_ACTIVE = {"disabled": "it was disabled", "pending_integration": "it was pending", "template": "it was a template"}

RATES = ("rpm", "tpm")

PROVIDER_KEYS = "type status base_url models requires_api_key env_var max_model_len cost_per_1k_tokens".split()
"""Keys that become something."""

CLOUD_SUFFIX = re.compile(r"[:-]cloud$")
"""A local Ollama marks models of Ollama's cloud so. The cloud itself lists them without it."""


class Servers:
    """Who serves which name. `providers` are by their old name, `aliases` point at models."""

    def __init__(self, old: Node, mappings: Node, report: Report) -> None:
        self.old = old
        self.mappings = mappings
        self.report = report
        self.providers: dict[str, Provider] = {}
        self.aliases: dict[str, str] = {}
        self.gone: dict[str, str] = {}
        """Names of the old files that are not in the catalogue, with the reason."""
        self.renamed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        """Providers that are not taken over, with the reason."""
        self._addresses: dict[str, Address] = {}

    def convert(self) -> None:
        """Read all, then decide: a provider that no file gives a model is left out."""
        for name, node in entries(self.old, "providers", self.report):
            self._read_provider(name, node)
        self._exact_matches()
        for provider in list(self.providers.values()):
            if provider.models:
                self._finish_provider(provider)
            else:
                reason = "it has no models, so the old gateway never knew it; list them in providers.yaml"
                self._leave_out(provider.old_name, provider.node, reason)
        self._share()
        for provider in self.providers.values():
            for model in provider.models.values():
                self._finish_model(provider, model)
            self.report.rest(provider.node, keys.PROVIDER, PROVIDER_KEYS)

    @property
    def active(self) -> dict[str, list[Provider]]:
        """By name of a model: the active providers that serve it."""
        found: dict[str, list[Provider]] = {}
        for provider in self.providers.values():
            if not provider.disabled:
                for name in provider.models:
                    found.setdefault(name, []).append(provider)
        return found

    def disabled(self, name: str) -> str:
        """The provider whose being disabled keeps a model from being served; empty if nothing lists it."""
        return next((p.name for p in self.providers.values() if p.disabled and name in p.models), "")

    def serving(self, name: str) -> list[Provider]:
        """The providers that list a model, disabled ones too."""
        return [provider for provider in self.providers.values() if name in provider.models]

    def public_name(self, text: str) -> tuple[str, str]:
        """A name like `text` that clients can ask for, or else why there is none."""
        name = text if not fits(Name, text) else re.sub(r"[^\w.:/+@-]+", "-", text).strip("-")
        if problem := fits(Name, name):
            return "", problem
        if name in RESERVED:
            return "", f'"{name}" is a word of the gateway itself'
        if name in self.aliases or self.serving(name):
            return "", f'something else is called "{name}"'
        return name, ""

    # -- providers ---------------------------------------------------------------------------------------------

    def _read_provider(self, old_name: str, node: Node) -> None:
        kind, known = text_of(node.get("type")), PROVIDER_TYPES
        if kind not in known:
            reason = NO_MODELS.get(kind) or (
                f"its type is none of {', '.join(known)}; {did_you_mean(kind, known)}".rstrip("; ")
            )
            self._leave_out(old_name, node, reason)
            return
        address = convert(text_of(node.get("base_url")), kind)
        status = text_of(node.get("status")) or "active"
        disabled = address.unusable
        if status != "active":
            disabled = NOT_ACTIVE.get(status, "its status is none that is known")
        provider = Provider(old_name, self._provider_name(old_name), node, address.kind, disabled)
        provider.comments = [text_of(node.get("description"))]
        if disabled and status != "disabled":
            provider.comments.append(f"Disabled: {disabled}.")
        self._addresses[old_name] = address
        self.providers[old_name] = provider
        models = node.get("models")
        for entry in models.sequence if models else ():
            self._read_model(provider, entry)

    def _provider_name(self, old_name: str) -> str:
        if not fits(Identifier, old_name):
            return old_name
        name = re.sub(r"[^a-z0-9_-]+", "_", old_name.lower()).strip("_-")
        name = name if re.match(r"[a-z]", name) else f"provider_{name}".rstrip("_")
        # A name that stands in the old file as it is belongs to that provider.
        taken = {provider.name for provider in self.providers.values()} | self.old.mapping["providers"].mapping.keys()
        candidates = (name if number == 1 else f"{name}_{number}" for number in range(1, len(taken) + 2))
        return next(candidate for candidate in candidates if candidate not in taken)

    def _leave_out(self, name: str, node: Node, reason: str) -> None:
        self.providers.pop(name, None)
        self.left_out[name] = reason
        models = node.get("models")
        for entry in models.sequence if models else ():
            self.gone.setdefault(text_of(entry.get("name") or entry), f'provider "{name}" is left out')
        urgent = text_of(node.get("status")) in ("", "active") and text_of(node.get("type")) not in NO_MODELS
        self.report.claim(node, UNSUPPORTED, f"the provider is left out: {reason}", urgent=urgent)

    def _read_model(self, provider: Provider, entry: Node) -> None:
        name = text_of(entry.get("name") if entry.entries is not None else entry)
        if problem := fits(Name, name):
            self.gone.setdefault(name, f"its name cannot be used: {problem}")
            self.report.claim(entry, UNSUPPORTED, f"the model is left out: {problem}", urgent=True)
        elif name in provider.models:
            line = provider.models[name].node.line
            self.report.claim(entry, UNSUPPORTED, f"left out: the model stands in line {line} already")
        else:
            provider.models[name] = Model(name, entry, comment=text_of(entry.get("description")))

    def _finish_provider(self, provider: Provider) -> None:
        node, claim, place = provider.node, self.report.claim, provider.place
        if provider.name != provider.old_name:
            self.report.remark(node, f"{place}: a provider's name has lower-case letters, digits, - and _ only")
        provider.keys["type"] = provider.kind
        same = provider.kind == text_of(node.get("type"))
        claim(node.get("type"), TAKEN if same else CHANGED, place if same else f"{place}.type: {provider.kind}")
        self._status(provider)
        self._base_url(provider)
        self._secret(provider)
        self._context_of_all(provider)
        self._price_of_all(provider)

    def _base_url(self, provider: Provider) -> None:
        node, place = provider.node.get("base_url"), provider.place
        address = self._addresses[provider.old_name]
        provider.keys["base_url"] = address.url
        text = f"{place}.base_url: {address.text}" if address.text else place
        # What was switched off anyway is not missed.
        urgent = bool(address.unusable) and text_of(provider.node.get("status")) in ("", "active")
        if node is None:
            self.report.remark(provider.node, text, urgent=urgent)
            return
        self.report.claim(node, address.outcome, text, urgent=urgent)
        if address.advice:
            self.report.remark(node, f"{place}.base_url: {address.advice}", urgent=True)

    def _status(self, provider: Provider) -> None:
        node, place = provider.node.get("status"), provider.place
        provider.keys["status"] = status = "disabled" if provider.disabled else "active"
        if node is None:
            self.report.remark(provider.node, f"{place}.status: {status}, as none was written")
        elif text_of(node) == status:
            self.report.claim(node, TAKEN, place)
        else:
            unknown = text_of(node) not in ("active", *NOT_ACTIVE)
            self.report.claim(node, CHANGED, f"{place}.status: {status}, {provider.disabled}", urgent=unknown)

    def _secret(self, provider: Provider) -> None:
        claim, place = self.report.claim, provider.place
        variable, required = provider.node.get("env_var"), provider.node.get("requires_api_key")
        word = text_of(required).lower()
        if provider.kind not in CLOUD_TYPES and (word in ("false", "no", "off") or not (text_of(variable) or word)):
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
            # What stands there may be the key itself, so it is not repeated.
            claim(variable, CHANGED, f"{place}.api_key_env: {name}, as what stands here cannot be its name")
        if variable is None:
            self.report.remark(provider.node, f"{place}.api_key_env: {name}, as no env_var names it")
        claim(required, CHANGED, f"{place}.api_key_env says it")

    def _context_of_all(self, provider: Provider) -> None:
        node = provider.node.get("max_model_len")
        if node is None:
            return
        if (tokens := positive(node)) is None:
            self.report.claim(node, UNSUPPORTED, "not a whole number of tokens above 0")
            return
        for model in provider.models.values():
            model.keys["context_length"] = tokens
        self.report.claim(node, CHANGED, f"{provider.place}: context_length of its models")

    def _price_of_all(self, provider: Provider) -> None:
        node = provider.node.get("cost_per_1k_tokens")
        if node is None:
            return
        parts = node.mapping if node.entries is not None else {"input": node, "output": node}
        price = {key: value for key, part in parts.items() if (value := per_million(part)) is not None}
        if parts.keys() != {"input", "output"} or price.keys() != parts.keys():
            hint = "write price: {input: ..., output: ...} at its models, in dollars per million tokens"
            self.report.claim(node, UNSUPPORTED, f"neither one price nor input and output; {hint}")
            return
        for model in provider.models.values():
            model.keys["price"] = {"input": price["input"], "output": price["output"]}
        self.report.claim(node, CHANGED, f"{provider.place}: price of its models, in dollars per million tokens")

    # -- names -------------------------------------------------------------------------------------------------

    def _exact_matches(self) -> None:
        """Names of models first, then the display names that may stand for one of them."""
        later = []
        for text, node in entries(self.mappings, "exact_matches", self.report):
            backend = text_of(node.get("backend_model"))
            if self.serving(text):
                self._describe(text, node)
            elif backend:
                later.append((text, node, backend))
            else:
                self._add(text, node, "")
        for text, node, backend in later:
            self._display_name(text, node, backend)

    def _describe(self, name: str, node: Node) -> None:
        """An exact match for a model that a provider lists."""
        serving = self.serving(name)
        named = self.providers.get(text_of(node.get("provider")))
        if named in serving:
            self.report.claim(node.get("provider"), NO_MEANING, "the provider that lists the model serves it")
        else:
            text = f"never read; the model is listed by {' and '.join(provider.name for provider in serving)}"
            self.report.claim(node.get("provider"), UNSUPPORTED, text)
        backend = node.get("backend_model")
        if text_of(backend) == name:
            self.report.claim(backend, NO_MEANING, "the name says it")
        elif backend is not None and not (problem := fits(Name, text_of(backend))):
            for provider in [named] if named in serving and named else serving:
                provider.models[name].keys["served_name"] = text_of(backend)
            self.report.claim(backend, TAKEN, f'llm_providers: served_name of "{name}"')
        elif backend is not None:
            self.report.claim(backend, UNSUPPORTED, problem)
        models = [provider.models[name] for provider in serving]
        self._limits(node, models)
        described = [model for model in models if not model.comment]
        for model in described:
            model.comment = text_of(node.get("description"))
        if described:
            self.report.claim(node.get("description"), *keys.COMMENT)
        self.report.rest(node, keys.EXACT_MATCH, ["provider", "backend_model", "rate_limit"])

    def _display_name(self, text: str, node: Node, backend: str) -> None:
        """An exact match that gives a model of a provider another name."""
        holders = self.serving(backend)
        named = self.providers.get(text_of(node.get("provider")))
        if not holders:
            self._add(text, node, backend)
            return
        holders.sort(key=lambda provider: (provider is not named, bool(provider.disabled)))
        chains = self.mappings.get("fallback_chains")
        if (chains and text in chains.mapping) or node.get("rate_limit") is not None:
            served = holders[0].models[backend].keys.get("served_name") or served_name(holders[0], backend)
            self._add(text, node, str(served), holders[0])
            return
        name, problem = self.public_name(text)
        if all(provider.disabled for provider in holders):
            problem = f'provider "{holders[0].name}" of its model is disabled'
        if problem:
            self.gone[text] = problem
            self.report.claim(node, UNSUPPORTED, f"the name is left out: {problem}", urgent=True)
            return
        self.aliases[name] = backend
        self._renamed(text, name, node)
        self.report.claim(node.get("backend_model"), TAKEN, f"llm_routing.aliases: {name}")
        self.report.claim(node.get("provider"), NO_MEANING, "the provider that lists the model serves it")
        self.report.rest(node, keys.EXACT_MATCH, ["provider", "backend_model"])

    def _add(self, text: str, node: Node, served: str, provider: Provider | None = None) -> None:
        """A model that no provider lists by this name."""
        written = text_of(node.get("provider"))
        provider = provider or self.providers.get(written)
        name, problem = self.public_name(text)
        if provider is None:
            reason = self.left_out.get(written)
            hint = f"it is left out: {reason}" if reason else did_you_mean(written, self.providers)
            problem = f'no provider lists it, and there is no "{written}"' + (f"; {hint}" if hint else "")
        elif served or name != text:
            problem = problem or fits(Name, served)
        if problem or provider is None:
            self.gone[text] = problem
            self.report.claim(node, UNSUPPORTED, f"the name is left out: {problem}", urgent=True)
            return
        model = Model(name, node, listed=False, comment=text_of(node.get("description")))
        if served and served != name:
            model.keys["served_name"] = served
        if text_of(node.get("backend_model")) and served == text_of(node.get("backend_model")):
            self.report.claim(node.get("backend_model"), TAKEN, f"{provider.place}: served_name of a model of its own")
        else:
            self.report.claim(node.get("backend_model"), CHANGED, f"{provider.place}: served_name {served}")
        provider.models[name] = model
        self._renamed(text, name, node)
        self.report.remark(node, f'{provider.place}: "{name}" is a model of it now; no provider listed it', urgent=True)
        self.report.claim(node.get("provider"), CHANGED, f"{provider.place}: it serves this name now")
        self._limits(node, [model])
        self.report.rest(node, {**keys.EXACT_MATCH, "description": keys.COMMENT}, ["provider", "rate_limit"])

    def _renamed(self, text: str, name: str, node: Node) -> None:
        if text != name:
            self.renamed[text] = name
            self.report.remark(node, f'clients must ask for "{name}": {fits(Name, text)}', urgent=True)

    def _limits(self, node: Node, models: list[Model]) -> None:
        limits = node.get("rate_limit")
        for rate in RATES:
            if limits is None or (limit := limits.get(rate)) is None:
                continue
            if (most := positive(limit)) is None:
                self.report.claim(limit, UNSUPPORTED, "not a whole number above 0")
                continue
            for model in models:
                model.keys[rate] = most
            self.report.claim(limit, TAKEN, f"llm_providers: {rate} of {models[0].name}")
        if limits is not None:
            self.report.rest(limits, {}, RATES)

    # -- names that several providers serve --------------------------------------------------------------------

    def _share(self) -> None:
        """Weights for names with several providers: those of `load_balancing`, else equal ones."""
        engines: dict[str, Provider] = {}
        for provider in self.providers.values():
            if provider.kind in ("vllm", "llama_cpp") and not provider.disabled:
                other = engines.setdefault(str(provider.keys["base_url"]), provider)
                if other is not provider:
                    text = f"{provider.place}: {other.name} has this address too, and one engine cannot be both"
                    self.report.remark(provider.node, text, urgent=True)
        shared = {name: serving for name, serving in self.active.items() if len(serving) > 1}
        for key, node in entries(self.mappings, "load_balancing", self.report):
            self._balance(key, node, shared)
        for name, serving in shared.items():
            for provider in serving:
                model = provider.models[name]
                if "weight" not in model.keys:
                    model.keys["weight"] = 1
                    text = f'{provider.place}: weight 1 for "{name}", which {len(serving)} providers serve'
                    self.report.remark(model.node, text)

    def _balance(self, key: str, node: Node, shared: dict[str, list[Provider]]) -> None:
        listed = node.get("providers")
        members = [member for member in (listed.sequence if listed else ()) if member.entries is not None]
        mine = [self.providers.get(text_of(member.get("provider"))) for member in members]
        names = [
            name
            for name, serving in shared.items()
            if sum(provider in mine for provider in serving) > 1
            and not any("weight" in provider.models[name].keys for provider in serving)
        ]
        names = [key] if key in names else names
        weights = whole_shares([member.get("weight") for member in members])
        problem = "a weight divides the requests for one name that several providers serve; no name is left for these"
        if names and weights is None:
            problem = "each provider needs a weight above 0"
        for position, member in enumerate(members):
            provider = mine[position]
            weighed = [name for name in names if provider in shared[name]]
            if provider is None or weights is None or not weighed:
                for part in (member.get("provider"), member.get("weight")):
                    self.report.claim(part, UNSUPPORTED, problem)
            else:
                for name in weighed:
                    provider.models[name].keys["weight"] = weights[position]
                text = f"{provider.place}: weight of {', '.join(weighed)}"
                same = str(weights[position]) == text_of(member.get("weight"))
                self.report.claim(member.get("weight"), TAKEN if same else CHANGED, text)
                self.report.claim(member.get("provider"), CHANGED, text)
            self.report.rest(member, keys.MEMBER, ["provider", "weight"])
        self.report.rest(node, keys.LOAD_BALANCING, ["providers"])

    # -- models ------------------------------------------------------------------------------------------------

    def _finish_model(self, provider: Provider, model: Model) -> None:
        node, place = model.node, f'{provider.place} "{model.name}"'
        if model.embeds:
            model.keys["mode"] = "embedding"
            self.report.remark(node, f"{place}: mode embedding, as its name says")
        if not model.listed:
            return
        if served_name(provider, model.name) != model.name and "served_name" not in model.keys:
            model.keys["served_name"] = served_name(provider, model.name)
            text = f"{place}: served_name {model.keys['served_name']}, as Ollama's cloud itself calls it"
            self.report.remark(node, text)
        if node.entries is None:
            self.report.claim(node, TAKEN, provider.place)
            return
        self.report.claim(node.get("name"), TAKEN, provider.place)
        if (context := node.get("context_length")) is not None:
            if (tokens := positive(context)) is not None:
                model.keys["context_length"] = tokens
                self.report.claim(context, TAKEN, place)
            else:
                self.report.claim(context, UNSUPPORTED, "not a whole number of tokens above 0")
        self._tags(model, place, shared=len(self.active.get(model.name, ())) > 1)
        self.report.rest(node, keys.MODEL, ["name", "context_length", "tags"])

    def _tags(self, model: Model, place: str, *, shared: bool) -> None:
        taken: list[str] = []
        listed = model.node.get("tags")
        for node in listed.sequence if listed else ():
            problem = fits(Tag, node.scalar)
            if shared:
                problem = "several providers serve the name; tags would take all other requests away from this one"
            if problem:
                self.report.claim(node, UNSUPPORTED, problem)
                continue
            taken.append(text_of(node))
            self.report.claim(node, TAKEN, f"{place}: now it routes, requests choose it by the header x-litellm-tags")
        if taken:
            model.keys["tags"] = taken


def entries(root: Node, section: str, report: Report) -> Iterator[tuple[str, Node]]:
    """The entries of a section that are mappings; the others are told."""
    node = root.get(section)
    for key, entry in (node.mapping if node else {}).items():
        if entry.entries is not None:
            yield key, entry
        else:
            report.claim(entry, UNSUPPORTED, "this must be a mapping", urgent=True)


def served_name(provider: Provider, name: str) -> str:
    """What a provider calls a model by this name."""
    return CLOUD_SUFFIX.sub("", name) or name if provider.kind == "ollama_cloud" else name
