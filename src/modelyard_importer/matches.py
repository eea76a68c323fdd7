"""What `exact_matches` adds to the providers: names, served names and limits of their models."""

from __future__ import annotations

from modelyard.diagnostics import did_you_mean
from modelyard.kinds import Name
from modelyard_importer import keys
from modelyard_importer.catalogue import Model, Provider
from modelyard_importer.models import served_name, set_limits
from modelyard_importer.oldfiles import Node
from modelyard_importer.report import Outcome, Report
from modelyard_importer.servers import Servers, entries
from modelyard_importer.values import fits, text_of

TAKEN, CHANGED, UNSUPPORTED, NO_MEANING = (
    Outcome.TAKEN,
    Outcome.CHANGED,
    Outcome.UNSUPPORTED,
    Outcome.NO_MEANING,
)


class ExactMatches:
    """The section `exact_matches`. It changes `servers`."""

    def __init__(self, mappings: Node, servers: Servers, report: Report) -> None:
        self.mappings = mappings
        self.servers = servers
        self.report = report

    def convert(self) -> None:
        """Names of models first, then the display names that may stand for one of them."""
        later = []
        for text, node in entries(self.mappings, "exact_matches", self.report):
            backend = text_of(node.get("backend_model"))
            if self.servers.serving(text):
                self._describe(text, node)
            elif backend:
                later.append((text, node, backend))
            else:
                self._add(text, node, "")
        for text, node, backend in later:
            self._display_name(text, node, backend)

    def _describe(self, name: str, node: Node) -> None:
        """Take over an exact match for a model that a provider lists."""
        serving = self.servers.serving(name)
        named = self.servers.providers.get(text_of(node.get("provider")))
        if named in serving:
            self.report.claim(
                node.get("provider"), NO_MEANING, "the provider that lists the model serves it"
            )
        else:
            text = (
                "never read; the model is listed by"
                f" {' and '.join(provider.name for provider in serving)}"
            )
            self.report.claim(node.get("provider"), UNSUPPORTED, text)
        backend = node.get("backend_model")
        if text_of(backend) == name:
            self.report.claim(backend, NO_MEANING, "the name implies it")
        elif backend is not None and not (problem := fits(Name, text_of(backend))):
            for provider in [named] if named in serving and named else serving:
                provider.models[name].keys["served_name"] = text_of(backend)
            self.report.claim(backend, TAKEN, f'llm_providers: served_name of "{name}"')
        elif backend is not None:
            self.report.claim(backend, UNSUPPORTED, problem)
        models = [provider.models[name] for provider in serving]
        set_limits(node, models, self.report)
        described = [model for model in models if not model.comment]
        for model in described:
            model.comment = text_of(node.get("description"))
        if described:
            self.report.claim(node.get("description"), *keys.COMMENT)
        self.report.rest(node, keys.EXACT_MATCH, ["provider", "backend_model", "rate_limit"])

    def _display_name(self, text: str, node: Node, backend: str) -> None:
        """Take over an exact match that gives a model of a provider another name."""
        holders = self.servers.serving(backend)
        named = self.servers.providers.get(text_of(node.get("provider")))
        if not holders:
            self._add(text, node, backend)
            return
        holders.sort(key=lambda provider: (provider is not named, bool(provider.disabled)))
        chains = self.mappings.get("fallback_chains")
        if (chains and text in chains.mapping) or node.get("rate_limit") is not None:
            served = holders[0].models[backend].keys.get("served_name") or served_name(
                holders[0], backend
            )
            self._add(text, node, str(served), holders[0])
            return
        name, problem = self.servers.public_name(text)
        if all(provider.disabled for provider in holders):
            problem = f'provider "{holders[0].name}" of its model is disabled'
        if problem:
            self.servers.gone[text] = problem
            self.report.claim(node, UNSUPPORTED, f"the name is left out: {problem}", urgent=True)
            return
        self.servers.aliases[name] = backend
        self._renamed(text, name, node)
        self.report.claim(node.get("backend_model"), TAKEN, f"llm_routing.aliases: {name}")
        self.report.claim(
            node.get("provider"), NO_MEANING, "the provider that lists the model serves it"
        )
        self.report.rest(node, keys.EXACT_MATCH, ["provider", "backend_model"])

    def _add(self, text: str, node: Node, served: str, provider: Provider | None = None) -> None:
        """Add a model that no provider lists by this name."""
        written = text_of(node.get("provider"))
        provider = provider or self.servers.providers.get(written)
        name, problem = self.servers.public_name(text)
        if provider is None:
            reason = self.servers.left_out.get(written)
            hint = (
                f"it is left out: {reason}"
                if reason
                else did_you_mean(written, self.servers.providers)
            )
            problem = f'no provider lists it, and there is no "{written}"' + (
                f"; {hint}" if hint else ""
            )
        elif served or name != text:
            problem = problem or fits(Name, served)
        if problem or provider is None:
            self.servers.gone[text] = problem
            self.report.claim(node, UNSUPPORTED, f"the name is left out: {problem}", urgent=True)
            return
        model = Model(name, node, listed=False, comment=text_of(node.get("description")))
        if served and served != name:
            model.keys["served_name"] = served
        if text_of(node.get("backend_model")) and served == text_of(node.get("backend_model")):
            self.report.claim(
                node.get("backend_model"),
                TAKEN,
                f"{provider.place}: served_name of a separate model",
            )
        else:
            self.report.claim(
                node.get("backend_model"), CHANGED, f"{provider.place}: served_name {served}"
            )
        provider.models[name] = model
        self._renamed(text, name, node)
        self.report.remark(
            node,
            f'{provider.place}: "{name}" is now a model of it; no provider listed it',
            urgent=True,
        )
        self.report.claim(
            node.get("provider"), CHANGED, f"{provider.place}: it now serves this name"
        )
        set_limits(node, [model], self.report)
        self.report.rest(
            node, {**keys.EXACT_MATCH, "description": keys.COMMENT}, ["provider", "rate_limit"]
        )

    def _renamed(self, text: str, name: str, node: Node) -> None:
        if text != name:
            self.servers.renamed[text] = name
            self.report.remark(
                node, f'clients must ask for "{name}": {fits(Name, text)}', urgent=True
            )
