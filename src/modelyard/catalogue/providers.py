"""`llm_providers`: where models run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, create_model, model_validator

from modelyard.catalogue.models import Model
from modelyard.engines import ENGINES, FLAVOURS, TYPES, engine_of, types_of
from modelyard.engines.base import Engine
from modelyard.kinds import (
    BaseUrl,
    GroupName,
    Identifier,
    Name,
    Port,
    Seconds,
    SecretName,
    Strict,
    WholeSeconds,
    misfit,
    unit,
)

CLOUD_TYPES = ("ollama_cloud", "openai", "anthropic")
"""Types that cannot be used without a key."""

CLOUD_APIS = {"ollama_cloud": "/api"}
"""Paths of APIs of cloud types that are not OpenAI's."""

PROVIDER_TYPES = (*TYPES, *CLOUD_TYPES, "openai_compatible")

if TYPE_CHECKING:
    ProviderType: TypeAlias = str
    Flavour: TypeAlias = str
else:
    ProviderType, Flavour = Literal[PROVIDER_TYPES], Literal[FLAVOURS]

ON_DEMAND = types_of(lambda engine: engine.on_demand)

READY = ", ".join(f"{engine.ready_timeout_s} ({engine.title})" for engine in ENGINES)

MODEL_MARGIN_MIB = 1024
"""What stays free on the disk beside a model that is fetched, unless the provider says
otherwise."""

WITH_FLAVOURS = types_of(lambda engine: engine.flavour is not None)


class _Placed(Strict):
    """The first keys of a provider: what it is, where it is, and when it runs."""

    type: ProviderType = Field(
        examples=[TYPES[0]],
        description=f"What kind of API it is. {types_of(bool)} can be deployed to hosts (`group`).",
    )
    flavour: Flavour | None = Field(
        None,
        examples=[FLAVOURS[0]],
        description=(
            f"{WITH_FLAVOURS} only: which of its servers."
            f" {', '.join(f'`{e.flavour}` is {e.title}' for e in ENGINES if e.flavour)}. Default:"
            f" `{FLAVOURS[0]}`."
        ),
    )
    status: Literal["active", "disabled"] = Field("active", examples=["disabled"])
    """A disabled provider is left out, and listed as left out."""
    group: GroupName | None = Field(None, examples=["llm_gpus"])
    """The inventory group this bundle deploys to: every host in it serves every model. Exactly one
    of `group` and `base_url`. An empty group leaves the provider out; a group the inventory does
    not define is refused."""
    base_url: BaseUrl | None = Field(
        None,
        examples=["https://api.example.org/v1"],
        description=(
            "The address of something that runs elsewhere, without credentials. For "
            f"{types_of(bool)} `/v1` is added if it has no path."
        ),
    )
    port: Port | None = Field(None, examples=[8080])
    """What the engine listens on. Needed with `group`."""
    api_key_env: SecretName | None = Field(
        None,
        examples=["OPENAI_API_KEY"],
        description=(
            "Name of the secret that holds the key, never the key itself. Cloud types need it;"
            " engines we deploy get a generated one (`<PROVIDER>_API_KEY`) unless this names"
            f" another. An {types_of(lambda engine: not engine.keyed)} of ours has none: it knows"
            " no keys."
        ),
    )
    when_secret_missing: Literal["error", "skip"] = Field("error", examples=["skip"])
    """`skip` leaves the provider out while its secret is not defined, and says so."""
    exclusive_group: Identifier | None = Field(None, examples=["gpu"])
    """Of the providers with this word one may be active on a host (where one takes a whole GPU,
    say). Starting one stops the other. `playbooks/switch_model.yml` changes which; the fallbacks of
    the others answer for them."""
    active: Name | None = Field(None, examples=["qwen-coder"])
    """Of its models only this one runs; the fallbacks of the others answer for them.
    `playbooks/switch_model.yml` changes it. Default: all run."""


if TYPE_CHECKING:
    _WithSections = _Placed
else:
    # An engine with settings of its own has a section here, under its type.
    _WithSections = create_model(
        "_WithSections",
        __base__=_Placed,
        **{
            engine.provider_type: (
                engine.settings | None,
                Field(
                    None,
                    examples=[engine.settings_example],
                    description=(
                        f"`{engine.provider_type}` with a `group` only: how the server runs."
                    ),
                ),
            )
            for engine in ENGINES
            if engine.settings
        },
    )


class Provider(_WithSections):
    """Where models run: on the hosts of a `group`, or elsewhere at a `base_url`."""

    timeout: Seconds | None = Field(None, examples=[120], json_schema_extra=unit("seconds"))
    """One attempt may take this long. Default: `llm_gateway.timeouts.request_s`."""
    stream_timeout: Seconds | None = Field(
        None,
        examples=[300],
        json_schema_extra=unit("seconds"),
        description=(
            "A stream may be silent this long, the wait for its first token included. Default:"
            f" `llm_gateway.timeouts.stream_s`, at least 300 for {ON_DEMAND}, which reads a cold"
            " model from disk first; never more than the model's `timeout`."
        ),
    )
    ready_timeout_s: WholeSeconds | None = Field(
        None,
        examples=[1200],
        json_schema_extra=unit("seconds"),
        description=(
            "With a `group` only: a process may take this long until it is ready, before the "
            f"former release is restored. Default: {READY}."
        ),
    )
    model_margin_mib: Annotated[int, Field(gt=0, le=2**24)] | None = Field(
        None,
        examples=[4096],
        json_schema_extra=unit("MiB"),
        description=(
            "With a `group` only: what must stay free on the disk beside a model that is "
            f"fetched. Default: {MODEL_MARGIN_MIB}."
        ),
    )
    max_parallel: Annotated[int, Field(gt=0, le=10000)] | None = Field(
        None,
        examples=[4],
        description=(
            "With a `group` only: requests that a gateway sends to one process of a host at once."
            " What is over it waits. Default: what the engine answers at once, where that is known."
        ),
    )
    queue_s: WholeSeconds | None = Field(
        None,
        examples=[20],
        json_schema_extra=unit("seconds"),
        description=(
            "With a `group` only: a request waits this long for a host that has room, then the next"
            " step of the chain answers. Default: `llm_gateway.timeouts.queue_s`."
        ),
    )
    models: list[Model] = Field([], examples=[[{"name": "qwen2.5-coder:7b"}]])
    """What it serves, by public name."""

    @property
    def engine(self) -> Engine | None:
        """What runs on the hosts of `group`, or at a `base_url` of an engine's type."""
        return engine_of(self.type, self.flavour)

    @property
    def settings(self) -> Any:
        """The section for its engine, or the defaults of one; None if the engine has none."""
        given = getattr(self, self.type, None)
        kind = self.engine.settings if self.engine else None
        return given if given is not None or kind is None else kind()

    @property
    def _sections(self) -> list[str]:
        """The engines' sections that are given."""
        sections = [engine.provider_type for engine in ENGINES if engine.settings]
        return [section for section in sections if getattr(self, section) is not None]

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        running = (
            *("ready_timeout_s", "model_margin_mib", "max_parallel", "queue_s"),
            *self._sections,
        )
        only_ours = ("port", "exclusive_group", "active", "flavour", *running)
        unused = [key for key in only_ours if getattr(self, key) is not None]
        if self.group is not None and self.base_url is not None:
            elsewhere = ", ".join(f"{key}: null" for key in ("group", *unused))
            raise misfit(
                "a provider needs exactly one of group and base_url",
                "base_url",
                "group",
                hint=f"if it runs elsewhere, add {elsewhere} to your overrides of it, or remove"
                " these keys; if Modelyard is to run it, remove base_url",
            )
        if self.group is None and self.base_url is None:
            hint = "add the base_url it is reached at"
            if self.type in TYPES:
                hint += ", or the group of hosts that Modelyard is to run it on"
            raise misfit(
                "a provider needs exactly one of group and base_url", "group", "base_url", hint=hint
            )
        if self.group is not None and self.type not in TYPES:
            raise misfit(
                f"{self.type} is not deployed by Modelyard: it needs base_url, not group",
                "group",
                "type",
            )
        if self.group is not None and self.port is None:
            raise misfit("a provider with a group needs a port", "port", "group", hint="add port")
        if self.base_url is not None and unused:
            raise misfit(
                f"{unused[0]} has no effect on a provider with a base_url",
                unused[0],
                hint=f"remove it; in your overrides of it: {unused[0]}: null",
            )
        return self

    @model_validator(mode="after")
    def _its_api(self) -> Self:
        own = self.engine.own_api if self.engine else CLOUD_APIS.get(self.type, "")
        path = urlsplit(self.base_url or "").path
        if own and self.base_url and f"{path}/".startswith(f"{own}/"):
            bare = self.base_url.removesuffix(path)
            raise misfit(
                f"{self.base_url}: the gateway calls OpenAI's API at /v1, not {own}",
                "base_url",
                hint=f'write "{bare}/v1"',
            )
        return self

    @model_validator(mode="after")
    def _its_engine(self) -> Self:
        engine = self.engine
        if self.flavour is not None and (engine is None or engine.flavour is None):
            raise misfit(
                f"only {WITH_FLAVOURS.replace('`', '')} has flavours", "flavour", hint="remove it"
            )
        for section in self._sections:
            if section != self.type:
                raise misfit(
                    f"the key {section} has no effect on a provider of type {self.type}",
                    section,
                    hint="remove it",
                )
        if engine is not None and self.group is not None:
            if not engine.keyed and self.api_key_env is not None:
                raise misfit(
                    f"{engine.title} checks no keys: api_key_env has no effect on one that"
                    " Modelyard deploys",
                    "api_key_env",
                    hint="remove it",
                )
            if engine.per_provider and self.active is not None:
                raise misfit(
                    f"one {engine.title} serves all its models, so active has no effect",
                    "active",
                    hint="remove it",
                )
        return self

    @model_validator(mode="after")
    def _its_key(self) -> Self:
        if self.type in CLOUD_TYPES and self.api_key_env is None:
            raise misfit(
                f"{self.type} needs api_key_env, the name of the secret that holds its key",
                "api_key_env",
                "type",
                hint="add api_key_env, such as OPENAI_API_KEY, the secret's name",
            )
        if self.api_key_env is None and self.when_secret_missing == "skip":
            raise misfit(
                "when_secret_missing has no effect without api_key_env",
                "when_secret_missing",
                hint="remove it, or name the secret in api_key_env",
            )
        return self
