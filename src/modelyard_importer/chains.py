"""Capabilities and fallback chains, from `model-mappings.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelyard.catalogue.models import Model
from modelyard.compiler.vectors import strangers
from modelyard.diagnostics import did_you_mean
from modelyard_importer import keys
from modelyard_importer.catalogue import ROUTING, Commented, Routing, write_default
from modelyard_importer.oldfiles import Node
from modelyard_importer.report import Outcome, Report
from modelyard_importer.servers import Servers, entries
from modelyard_importer.values import text_of

TAKEN, CHANGED, UNSUPPORTED, NO_MEANING = (
    Outcome.TAKEN,
    Outcome.CHANGED,
    Outcome.UNSUPPORTED,
    Outcome.NO_MEANING,
)

ORDINALS = ("primary", "secondary", "tertiary", "quaternary", "quinary", "senary")
"""Named steps in their order; other names follow as they are written."""

OTHER_MODE = "an embedding model and a chat model cannot be each other's fallback"

OTHER_VECTORS = "another embedding model's vectors do not fit; only the same model may answer"


class Chains:
    """`routing` is the result.

    A step that the compiler would refuse is left out of its chain, and told.
    """

    def __init__(self, mappings: Node, servers: Servers, report: Report) -> None:
        self.mappings = mappings
        self.servers = servers
        self.report = report
        self.routing = Routing(aliases=servers.aliases)
        self._active = servers.active

    def convert(self) -> None:
        """Capabilities first: they may be steps of chains."""
        chains = self.mappings.get("fallback_chains")
        written = dict(chains.mapping) if chains else {}
        for text, node in entries(self.mappings, "capabilities", self.report):
            self._capability(text, node, written)
        for text, node in written.items():
            if text == "default":
                self._default(node)
            else:
                self._chain(text, node)
                self.report.rest(node, keys.CHAIN, ["chain"])

    # -- names -------------------------------------------------------------------------------------

    def _find(self, text: str) -> tuple[str, str]:
        """Return the public name that `text` stands for in a chain, or else why there is none."""
        name = self.servers.renamed.get(text, text)
        known = {**self._active, **self.routing.aliases, **self.routing.capabilities}
        if name in known:
            return name, ""
        if provider := self.servers.disabled(name):
            return "", f'provider "{provider}" of "{name}" is disabled'
        if text in self.servers.gone:
            return "", f'"{text}" is not in the catalogue: {self.servers.gone[text]}'
        if text in self.servers.providers or text in self.servers.left_out:
            return "", f'"{text}" is a provider, not a model'
        return "", f'nothing serves "{text}"; {did_you_mean(text, known)}'.rstrip("; ")

    def _models(self, name: str) -> list[str]:
        """Return the models that a public name stands for."""
        name = self.routing.aliases.get(name, name)
        return (
            self.routing.capabilities[name].names if name in self.routing.capabilities else [name]
        )

    def _embeds(self, name: str) -> bool:
        return any(provider.models[name].embeds for provider in self.servers.serving(name))

    def _unfit(self, head: str, steps: Sequence[str]) -> str:
        """Return why one of `steps` cannot answer for `head`; empty if all can."""
        if any(self._embeds(step) != self._embeds(head) for step in steps):
            return OTHER_MODE
        found = [
            self.servers.serving(name)[0].models[name] for name in dict.fromkeys([head, *steps])
        ]
        models = [
            Model(
                name=one.name,
                served_name=str(one.keys.get("served_name", one.name)),
                mode="embedding" if one.embeds else "chat",
            )
            for one in found
        ]
        return OTHER_VECTORS if strangers(models) else ""

    def _flat(self, node: Node | None) -> Iterator[Node]:
        """Yield the steps of a chain in order; claim what is none."""
        if node is None:
            return
        if node.entries is not None:
            named = {key: child for key, child in node.entries.items() if key not in keys.STEP}
            for key in sorted(named, key=_rank):
                yield from self._flat(named[key])
            for key, child in node.entries.items():
                if key in keys.STEP:
                    self.report.claim(child, *keys.STEP[key])
        elif node.elements is not None:
            # Each may be a mapping with one of `primary`, `secondary`, ...: these say the order.
            for child in sorted(
                node.elements, key=lambda one: min(map(_rank, one.mapping), default=0)
            ):
                yield from self._flat(child)
        elif text_of(node):
            yield node
        else:
            self.report.claim(node, UNSUPPORTED, "there is no name here")

    def _steps(self, node: Node, place: str, head: str) -> Iterator[str]:
        """Yield the steps of a model's chain that can be imported, each once; claim all of them."""
        covered: set[str] = set()
        for leaf in self._flat(chain_of(node)):
            text = text_of(leaf)
            name, problem = self._find(text)
            if problem:
                self.report.claim(leaf, UNSUPPORTED, f"left out of {place}: {problem}", urgent=True)
                continue
            models = self._models(name)
            others = [model for model in models if model != head]
            if not others:
                self.report.claim(leaf, CHANGED, f"left out of {place}: it contains {head} itself")
            elif covered.issuperset(others):
                self.report.claim(leaf, CHANGED, f"left out of {place}: duplicate entry")
            elif why := self._unfit(head, others):
                self.report.claim(leaf, CHANGED, f"left out of {place}: {why}", urgent=True)
            else:
                # A capability that contains the model itself: its others.
                names = [name] if head not in models else [m for m in others if m not in covered]
                covered.update(others)
                same = names == [text]
                self.report.claim(
                    leaf, TAKEN if same else CHANGED, place if same else f"{place}: {quoted(names)}"
                )
                yield from names

    def _default(self, node: Node) -> None:
        """Leave out the default chain, which the old gateway never read: with it, models that had
        no fallback would get one, perhaps in a cloud.

        The summary tells it first, and the new file has it as a comment.
        """
        names: dict[str, None] = {}
        leaves = list(self._flat(chain_of(node)))
        for leaf in leaves:
            name, problem = self._find(text_of(leaf))
            if not problem:
                names[name] = None
        text = "left out: the old gateway never read it, so models without a chain had no fallback"
        if names:
            self.routing.default_fallbacks = Commented(
                list(names), text_of(node.get("description"))
            )
            line = write_default(self.routing)
            text += f"; for all of them to get this one, add to llm_routing in {ROUTING}: {line}"
        self.report.claim(node, UNSUPPORTED, text, urgent=bool(leaves))

    # -- what is written ---------------------------------------------------------------------------

    def _capability(self, text: str, node: Node, chains: dict[str, Node]) -> None:
        """Add a capability. A chain for it becomes its last models: only models have chains."""
        claim = self.report.claim
        name, problem = self.servers.public_name(text)
        place = f"llm_routing.capabilities.{name}"
        if name in self.routing.capabilities:
            problem = f'another capability is called "{name}" already'
        if problem:
            self.servers.gone[text] = problem
            claim(node, UNSUPPORTED, f"the capability is left out: {problem}", urgent=True)
            return
        listed, legacy = node.get("preferred_models"), node.get("models")
        if listed is not None:
            claim(legacy, UNSUPPORTED, "preferred_models takes precedence")
        names: dict[str, None] = {}
        own_chain = None if self.servers.serving(text) else chains.get(text)
        for leaf in [
            *self._flat(listed or legacy),
            *self._flat(chain_of(own_chain) if own_chain else None),
        ]:
            found, reason = self._find(text_of(leaf))
            if text_of(leaf) == text:
                claim(leaf, CHANGED, f"left out of {place}: it is the capability itself")
            elif reason:
                claim(leaf, UNSUPPORTED, f"left out of {place}: {reason}", urgent=True)
            elif names.keys() >= set(self._models(found)):
                claim(leaf, CHANGED, f"left out of {place}: duplicate entry")
            elif names and (why := self._unfit(next(iter(names)), self._models(found))):
                claim(leaf, CHANGED, f"left out of {place}: {why}", urgent=True)
            else:
                models = self._models(found)
                same = models == [text_of(leaf)]
                claim(
                    leaf,
                    TAKEN if same else CHANGED,
                    place if same else f"{place}: {', '.join(models)}",
                )
                names.update(dict.fromkeys(models))
        if not names:
            self.servers.gone[text] = "none of its models is served"
            self.report.rest(node, keys.CAPABILITY, ["preferred_models", "models"])
            claim(
                node,
                UNSUPPORTED,
                f"the capability is left out: {self.servers.gone[text]}",
                urgent=True,
            )
            return
        self.routing.capabilities[name] = Commented(list(names), text_of(node.get("description")))
        if name != text:
            self.servers.renamed[text] = name
            self.report.remark(node, f'clients must ask for "{name}"', urgent=True)
        if own_chain is not None:
            self.report.remark(own_chain, f"{place}: its last models, as only models have chains")
            self.report.rest(own_chain, {**keys.CHAIN, "description": keys.NOTE}, ["chain"])
            del chains[text]
        self.report.rest(node, keys.CAPABILITY, ["preferred_models", "models"])

    def _chain(self, text: str, node: Node) -> None:
        name = self.servers.renamed.get(text, text)
        place = f'llm_routing.fallbacks["{name}"]'
        if not self.servers.serving(name):
            _found, problem = self._find(text)
            if not problem:
                problem = f'"{name}" is an alias or a capability; only models have chains'
            self.report.claim(node, UNSUPPORTED, f"the chain is left out: {problem}", urgent=True)
            return
        source = chain_of(node)
        steps = list(self._steps(node, place, name))
        self.routing.fallbacks[name] = Commented(steps, text_of(node.get("description")))
        if steps:
            return
        unknown = [key for key in node.mapping if key not in {*keys.CHAIN, "description"}]
        if source is None and unknown:
            what = f'terminal, as it has no "chain" but {quoted(unknown)}'
            self.report.remark(node, f"{place}: {what}", urgent=True)
        elif source is None or not any(leaf.name for leaf in source.leaves()):
            self.report.claim(source, CHANGED, f"{place}: terminal, as there is no fallback")
        else:
            self.report.remark(node, f"{place}: terminal, as every step is left out", urgent=True)


def quoted(names: list[str]) -> str:
    """Return names for a sentence: `"a", "b"`."""
    return ", ".join(f'"{name}"' for name in names)


def _rank(key: str) -> int:
    """Return where a key stands among `primary`, `secondary` and so on; others come last."""
    return ORDINALS.index(key) if key in ORDINALS else len(ORDINALS)


def chain_of(node: Node) -> Node | None:
    """Where the steps stand: under `chain`, or as the entry itself."""
    if node.entries is None or not node.entries.keys().isdisjoint(ORDINALS):
        return node
    return node.get("chain")
