"""What an engine is: everything that the rest of the core knows of one.

A new engine is one module in this package that ends in `ENGINE = ...`, and one line in
`__init__.py`.

The command line is made here, from `Engine.vector`, and nowhere else. A plan's instance has it in
these keys:

    argv         the words after the program. Some are placeholders for what only the host knows; a
                 placeholder is always a whole word, and a role puts words in its place:
                   @MODEL@     one word: the path of the model's file or directory
                   @ADAPTERS@  for each entry of `adapters` one word NAME=PATH, in their order
                   @GPU@       the words of `gpu_argv` if the instance was given GPUs (by the plan's
                               `gpus`, else by preflight's `placed`), else none
                   @KEY_FILE@  one word: the path of the file with the API key,
                               `${CREDENTIALS_DIRECTORY}/API_KEY` in a unit, which systemd fills in:
                               it is not to be escaped
    gpu_argv     what replaces @GPU@
    gpu_checks   checks that an instance has in addition to `checks` if it was given GPUs
    arguments    of `argv` the words that the catalogue's `options` give, for people: `plan`
                 compares them
    environment  variables of the process by name, for an engine that is not configured by words

Every word but the one of @KEY_FILE@ is plain text, to be quoted as the place demands where it is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from modelyard.kinds import Release, Strict

if TYPE_CHECKING:
    from modelyard.catalogue.models import Model

DERIVED = ("argv", "gpu_argv", "gpu_checks", "environment")
"""Keys of an instance that follow from its others: what differs in them alone is this bundle's
doing, not a user's."""

MODEL, ADAPTERS, GPU, KEY_FILE = "@MODEL@", "@ADAPTERS@", "@GPU@", "@KEY_FILE@"
PLACEHOLDERS = (MODEL, ADAPTERS, GPU, KEY_FILE)

Option = str | int | float | bool

FORMER_OF_ALL: Mapping[str, tuple[str, ...]] = {
    "model_margin_mib": ("providers", "model_margin_mib"),
    "ready_timeout_s": ("providers", "ready_timeout_s"),
}
"""Former variables that the role of each engine had."""


Backend = Literal["auto", "cuda", "cpu"]


class Accelerated(Release):
    """The entry in `llm_versions` of an engine that has a build for NVIDIA GPUs, and one
    without.
    """

    backend: Backend = Field("auto", examples=["cpu"])
    """`cuda`: for NVIDIA GPUs; hosts without one are refused. `cpu`: without GPUs, wherever it
    runs: its models are then not placed on GPUs. `auto`: each host gets the build that suits it."""
    gpu_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that only a build for GPUs reads."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of an engine on one host.

    `name` is what it is named after: a provider, or the public name of a model. `models` are those
    it serves, that of the process first and its adapters after it. `settings` is the provider's
    section for the engine, if it has one.
    """

    service: str
    name: str
    models: tuple[Model, ...]
    address: str
    port: int
    settings: Any = None
    share: str | None = None
    """The part of the memory of each of its GPUs that it may reserve, as it is placed; None if that
    is not known."""

    @property
    def model(self) -> Model:
        """The model the process is started with."""
        return next((model for model in self.models if model.adapter_of is None), self.models[0])

    @property
    def adapters(self) -> list[Model]:
        """The models it loads beside its own, each from a source."""
        return [
            model
            for model in self.models
            if model.adapter_of is not None and model.source is not None
        ]

    @property
    def options(self) -> Mapping[str, Option]:
        """The catalogue's `options` of the model it is started with."""
        return self.model.options


Value = Option | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of an engine, by its long name without dashes, as `options` of the catalogue names it.

    The value is a word or what makes one (several, for a list) of a process; True is a flag alone,
    and without a value (None, False) it is left out. `default`: a user's option of this name has
    its way. Others are the unit's: a user may not set them. `gpu`: only a process that was given
    GPUs gets it.
    """

    name: str
    value: Value | Callable[[Process], Value] = True
    default: bool = False
    gpu: bool = False

    def of(self, process: Process) -> Value:
        """Return the value for one process."""
        return self.value(process) if callable(self.value) else self.value


OWN = {
    "host": "the host's llm_address is what it listens on",
    "port": "use the key port",
    "model": "use the key source",
}
"""What sets the options that all engines have."""

HEARING = frozenset({"audio/transcriptions"})
"""The path that only a model answers that reads more than text."""

OPTIONS = Flag("", None, default=True)
"""Where the catalogue's `options` stand in a vector."""


class Metrics(NamedTuple):
    """The engine has /metrics of its own; `keyed`: it wants its key there."""

    keyed: bool


class Mistake(NamedTuple):
    """What a model says that its engine cannot do: `key` is the path below the model."""

    code: str
    key: tuple[str, ...]
    message: str
    hint: str


class Constraint(NamedTuple):
    """What an engine does not survive of what a request says about its answer: it ends, and with it
    the answers of everybody else. The gateway reads this (`modelyard_gateway/constraints.py`).
    """

    schemas: tuple[str, ...]
    """Fields whose schemas it makes a grammar of: only what it understands is passed on."""
    refused: tuple[str, ...] = ()
    """Fields that are not passed on, because nobody else can tell whether they are right."""
    plain: bool = False
    """It puts names and values into the grammar as they are, without quoting them."""


class Probe(NamedTuple):
    """What the blackbox exporter asks an engine without metrics, and its module that says what
    counts as an answer.
    """

    path: str
    module: Literal["http_2xx", "http_401_is_up"]


class Foreign(NamedTuple):
    """The same program as its own installer sets it up: its unit, its port, and the process's
    name.
    """

    unit: str
    port: int
    program: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One kind of server that is deployed by a role of this bundle. Facts are fields; what has to
    be computed is a method, which an engine's module may override.
    """

    title: str
    """Its name in a sentence."""
    provider_type: str
    """`type` of the providers that it serves."""
    flavour: str | None = None
    """`flavour` of these, if several engines have the type. The first one registered is the type's
    default."""
    role: str
    """The Ansible role. Services are named after it: ROLE@INSTANCE, with `-` for `_`."""
    version: type[Release]
    """Its entry in `llm_versions`, whose key is the role's name."""
    version_example: Mapping[str, Any]
    settings: type[Strict] | None = None
    """A section of the provider for it, whose key is the type."""
    settings_example: Mapping[str, Any] = field(default_factory=dict)
    former: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Former variables of its role, by what follows `ROLE_`: the key that replaces each, below its
    entry in `llm_versions` ("versions", ...) or below a provider ("providers", ...)."""
    ready_timeout_s: int = 600
    """Seconds a process may take until it is ready, unless the provider says otherwise. Large
    models take minutes to load from a disk."""
    locked: bool = False
    """The role installs Python packages, from locks in its files/locks."""
    per_provider: bool = False
    """One process serves all models of a provider; else every model has one of its own, and a
    port."""
    takes: Literal["file", "directory"] = "file"
    """What a model's `source` is."""
    splits: bool = False
    """It loads a file that is split, by the name of its first part."""
    pulls: bool = False
    """It can fetch a model by its name: then `source` may be missing."""
    library: str | None = None
    """The host of the web pages about the models that it fetches by name."""
    keys: frozenset[str] = frozenset()
    """Those of ENGINE_KEYS that mean something to it."""
    keyed: bool = True
    """It checks the API key that the gateway sends."""
    health: str | None = None
    """A path that says without a key whether it is well."""
    metrics: Metrics | None = None
    probe: Probe | None = None
    vector: tuple[Flag, ...] = ()
    underscores: bool = False
    """Its flags are written with underscores, and `true` and `false` are values of theirs."""
    unsafe: frozenset[str] = frozenset()
    """Options that a user may not set beside those of `vector`: other names of these, what
    reaches outside the sandbox, downloads, shows a secret, or starts no server."""
    abbreviates: bool = False
    """Its parser takes the beginning of an option's name for the option (Python's argparse)."""
    whole: frozenset[str] = frozenset()
    """Of a parser that abbreviates, options whose names are the beginnings of reserved ones."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Of the options that a user may not set, those that a key of the catalogue sets: that key, or
    what to do instead."""
    quantizations: frozenset[str] = frozenset()
    """What `quantization` may be; without any it is not checked."""
    quantizations_of: str = ""
    """The version that knows these."""
    spreads: tuple[str, ...] = ()
    """Options that say over how many GPUs a model is split."""
    shares: tuple[str, ...] = ()
    """Options that say which part of the memory of each GPU a process reserves, by all names."""
    share: float | None = None
    """That part by default. None: it takes what its models need."""
    cpu_keys: tuple[str, ...] = ()
    """Keys of its settings that only a build for CPUs reads."""
    holds: str | None = None
    """The key of its settings that says how many models are loaded at once."""
    keeps: str | None = None
    """The key of its settings that says where it keeps its models (`store`)."""
    on_demand: bool = False
    """A model is loaded on the first request, unless it has `preload`."""
    loaded_path: str | None = None
    """Of an engine that loads on demand, the path that lists what is loaded."""
    lists_others: bool = False
    """/v1/models may list more than the catalogue names."""
    models_timeout_s: int | None = None
    """Seconds that /v1/models may take, if that is longer than other checks wait."""
    sight: tuple[str, ...] | None = None
    """How the options begin that let a model read more than text. None: its models may read more
    without any."""
    paths: frozenset[str] = frozenset(
        ("chat/completions", "completions", "embeddings", "responses")
    )
    """The paths below /v1 that it answers, of those that the gateway opens."""
    cuts_prompts: bool = False
    """It cuts a prompt that is too long instead of refusing it, and a request for a chat or an
    embedding cannot forbid that."""
    constraint: Constraint | None = None
    """What of a request would end it."""
    embedding_hint: str = "is it a model for embeddings?"
    """What to look at when a model of mode `embedding` gives none."""
    own_api: str = ""
    """Path of an API of its own that is not OpenAI's, where it has one."""
    closes_connections: bool = False
    """The gateway has to open a new connection for every request."""
    contexts: tuple[tuple[int, int], ...] = ()
    """Its own default context: (MiB of all its GPUs, tokens), the largest memory first. Without
    any, the model's."""
    foreign: Foreign | None = None

    @property
    def name(self) -> str:
        """E.g. `vllm`, or with a flavour `TYPE (FLAVOUR)`: how it is called in messages about the
        catalogue.
        """
        return f"{self.provider_type} ({self.flavour})" if self.flavour else self.provider_type

    @property
    def prefix(self) -> str:
        """What the names of its services begin with."""
        return f"{self.role.replace('_', '-')}@"

    @property
    def reserved(self) -> frozenset[str]:
        """Options that a user may not set."""
        return frozenset(flag.name for flag in self.vector if not flag.default) | self.unsafe

    def reserves(self, option: str) -> bool:
        """Return whether a user may not set an option: one of `reserved`, its negation, or an
        abbreviation of it.
        """
        if option in self.reserved or option.removeprefix("no-") in self.reserved - self.unsafe:
            return True
        return (
            self.abbreviates
            and option not in self.whole
            and any(name.startswith(option) for name in self.reserved)
        )

    def instead(self, option: str) -> str:
        """Return what to use instead of an option that a user may not set."""
        own = {**OWN, **self.own}
        return own.get(option) or own.get(option.removeprefix("no-"), "")

    # -- what a process is started with ------------------------------------------------------------

    def words(self, name: str, value: Value) -> list[str]:
        """One flag as words of a command line."""
        if value is None:
            return []
        if self.underscores:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return [f"--{name.replace('-', '_')}", text]
        if isinstance(value, bool):
            return [f"--{name}"] if value else []
        return [f"--{name}", *([str(value)] if isinstance(value, str | int | float) else value)]

    def option_words(self, process: Process) -> list[str]:
        """Return the catalogue's `options` as words."""
        return [word for name, value in process.options.items() for word in self.words(name, value)]

    def argv(self, process: Process) -> list[str]:
        """Return the words after the program, with placeholders (see the module's docstring)."""
        out: list[str] = []
        for flag in self.vector:
            if flag is OPTIONS:
                out += self.option_words(process)
            elif flag.gpu:
                out.append(GPU)
            else:
                out += self.words(flag.name, flag.of(process))
        return out

    def gpu_argv(self, process: Process) -> list[str]:
        """Return the words in place of @GPU@."""
        return [
            word
            for flag in self.vector
            if flag.gpu
            for word in self.words(flag.name, flag.of(process))
        ]

    def gpu_checks(self, process: Process) -> list[dict[str, Any]]:
        """Return what is checked in addition where it was given GPUs."""
        return []

    def instance(self, process: Process) -> dict[str, Any]:
        """Return what the plan's instance says beside its names and addresses: the engine's own
        keys.
        """
        model = process.model
        return {
            "served_name": model.served,
            "source": model.planned_source,
            "context_length": model.context_length,
            "arguments": self.option_words(process),
            "argv": self.argv(process),
            "gpu_argv": self.gpu_argv(process),
            "gpu_checks": self.gpu_checks(process),
        }

    # -- what it needs, and how it answers ---------------------------------------------------------

    def at_once(self, settings: Any, models: Sequence[Model]) -> int | None:
        """How many of its `models` a process holds at once; None for all of them."""
        return None

    def context(self, model: Model, settings: Any) -> int | None:
        """Tokens of context that a process keeps for a model; None if that is not known from the
        catalogue.
        """
        return model.context_length

    def serves(self, model: Model) -> frozenset[str]:
        """Return the paths that it can answer for a model, by its mode and what it reads."""
        embeds = frozenset({"embeddings"})
        if model.mode == "embedding":
            return embeds
        return self.paths - embeds - (HEARING if self.reads_text_only(model) else frozenset())

    def reads_text_only(self, model: Model) -> bool:
        """Return whether a model is known to read nothing but text."""
        return self.sight is not None and not any(
            option.lower().startswith(self.sight) for option in model.options
        )

    def window(self, model: Model, settings: Any) -> int | None:
        """Return the tokens that one request may have; None if the catalogue does not say."""
        return model.context_length

    def slots(self, model: Model, settings: Any) -> int:
        """Return how many requests for a model a process answers at once, each with a context of
        its own; `context` is that of all of them.
        """
        return 1

    def parallel(self, models: Sequence[Model], settings: Any) -> int | None:
        """Return how many requests a process with these `models` answers at once, the model it is
        started with first; what is over it waits in its pool. None where that is not known, or is
        a matter of memory.
        """
        return None

    def options(self, model: Model) -> dict[str, Option]:
        """Return the options that decide the memory of a model: the catalogue's, and what the
        command line says beside them.
        """
        return dict(model.options)

    def width(self, model: Model, given: int) -> int:
        """Return how many GPUs a process uses that was given so many."""
        return given

    def share_of(self, model: Model) -> float | None:
        """Return the part of the memory of each GPU that the options reserve; None if they say
        nothing of it that makes sense.
        """
        given = next((model.options[name] for name in self.shares if name in model.options), None)
        try:
            share = 0 if given is None else float(given)
        except ValueError:
            return None
        return share if 0 < share <= 1 else None

    def mistakes(self, model: Model) -> list[Mistake]:
        """Return what is wrong with a model that only its engine can tell."""
        return []

    def unestimated(self, model: Model) -> str | None:
        """Why the memory that a model needs cannot be estimated from its file; None if it can."""
        return None

    def store(self, service: str, settings: Any) -> str:
        """Return the directory where a process keeps its models, which is its alone; empty if it
        keeps none.
        """
        return ""

    def places(self, part: Mapping[str, Any]) -> list[str]:
        """Return the paths on a host that its role looks at, beside those of its releases, models
        and programs. `part` is its part of a host's plan.
        """
        toolkit = part.get("cuda_toolkit") or "auto"
        return [] if toolkit == "auto" else [f"{toolkit}/bin/nvcc"]

    def loaded(self, instance: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a process of its plan must have in memory: `url`, which lists what it has,
        and `models`. None if that is not asked for.
        """
        return None

    def identity(self, served_name: str) -> str:
        """Return what two names have in common that a process takes for one model."""
        return served_name

    def listed(self, served_name: str) -> str:
        """Return a model's name as /v1/models lists it."""
        return served_name

    def adoption(self, provider: str) -> str:
        """Return what to say of taking over from `foreign`; empty if there is nothing to say."""
        return ""
