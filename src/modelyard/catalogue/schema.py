"""The catalogue, schema version 1. A key enters the schema together with the code that makes it do something.

Everything is strict: no unknown keys, no silent conversion (`port: "4000"` is refused). The text under a key is
its documentation: docs/catalogue.md and the editor's JSON Schema are generated from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, create_model, model_validator

from modelyard.engines import ENGINES, FLAVOURS, TYPES, engine_of, types_of
from modelyard.engines.base import Engine
from modelyard.kinds import (
    SHA256_EXAMPLE,
    AbsolutePath,
    Archive,
    BaseUrl,
    ClientName,
    EmailAddress,
    FileName,
    GpuId,
    GpuUuid,
    GroupName,
    HttpUrl,
    Identifier,
    IPAddress,
    MailServer,
    Name,
    OptionName,
    OptionText,
    Port,
    Positive,
    Release,
    Repository,
    Revision,
    Seconds,
    SecretName,
    Sha256,
    Strict,
    Tag,
    Unique,
    UsDollars,
    Version,
    distinct,
    listen_addresses,
    refused_below,
    too_old,
    unit,
)

CLOUD_TYPES = ("ollama_cloud", "openai", "anthropic")
"""Types that cannot be used without a key."""

PROVIDER_TYPES = (*TYPES, *CLOUD_TYPES, "openai_compatible")

if TYPE_CHECKING:
    ProviderType: TypeAlias = str
    Flavour: TypeAlias = str
else:
    ProviderType, Flavour = Literal[PROVIDER_TYPES], Literal[FLAVOURS]

ENGINE_KEYS = ("quantization", "adapter_of", "preload", "port")
"""Keys of a model that mean something to some engines only: each says which (`Engine.keys`)."""

DIRECTORIES = types_of(lambda engine: engine.takes == "directory")
PULLING = types_of(lambda engine: engine.pulls)
ON_DEMAND = types_of(lambda engine: engine.on_demand)
WITH_FLAVOURS = types_of(lambda engine: engine.flavour is not None)


def only_for(key: str) -> str:
    """The types whose engines know a key of a model."""
    return types_of(lambda engine: key in engine.keys)


class ModelSource(Strict):
    """Where a model's files come from: a `path` on the host, a `url` with its `sha256`, or a `repo` of Hugging Face."""

    path: AbsolutePath | None = Field(
        None,
        examples=["/srv/models/qwen.gguf"],
        description=f"What is already on the host: a GGUF file; for {DIRECTORIES} a directory.",
    )
    url: HttpUrl | None = Field(
        None,
        examples=["https://example.org/qwen.gguf"],
        description=f"Where the host fetches the file from, once. Not for {DIRECTORIES}, whose models are directories.",
    )
    repo: Repository | None = Field(None, examples=["Qwen/Qwen2.5-Coder-7B-Instruct-GGUF"])
    """A repository of Hugging Face, at `llm_versions.hugging_face.endpoint`."""
    revision: Revision | None = Field(None, examples=["13fbf4ed4e7b3d2e5a2a6f3a2f6d7b3f0a1b2c3d"])
    """The commit of `repo`, so that nobody can exchange the model under you."""
    file: FileName | None = Field(
        None,
        examples=["qwen2.5-coder-7b-instruct-q4_k_m.gguf"],
        description=f"The GGUF file in `repo`. Not for {DIRECTORIES}, which takes the whole repository.",
    )
    sha256: Sha256 | None = Field(None, examples=[SHA256_EXAMPLE])
    """Checksum of the file, as `sha256sum` prints it. A `url` must have one; for a `repo` the one it publishes is
    taken by default."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.path, self.url, self.repo)) != 1:
            raise ValueError("a source has exactly one of path, url and repo")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of the file it delivers")
        if self.repo is not None and self.revision is None:
            raise ValueError("a repo needs its revision, the commit to take")
        if self.repo is None and (self.revision is not None or self.file is not None):
            raise ValueError("revision and file belong to a repo")
        return self


class Price(Strict):
    """What tokens cost. Without it the gateway takes its own list, which knows cloud models only."""

    input: UsDollars = Field(examples=[0.15], json_schema_extra=unit("USD per million tokens"))
    """Tokens of the request."""
    output: UsDollars = Field(examples=[0.6], json_schema_extra=unit("USD per million tokens"))
    """Tokens of the answer."""


class Model(Strict):
    """One model of a provider."""

    name: Name = Field(examples=["qwen2.5-coder:7b"])
    """What clients ask for: the public name."""
    served_name: Name | None = Field(
        None,
        examples=["qwen2.5-coder-7b-instruct"],
        description=f"What the engine calls it, if different ({PULLING}: the tag). The engine is started with it and "
        "the gateway asks for it. Default: `name`.",
    )
    source: ModelSource | None = Field(
        None,
        examples=[{"path": "/srv/models/qwen.gguf"}],
        description=f"The model's files. {types_of(lambda engine: not engine.pulls)} on hosts of ours need it. "
        f"{PULLING} pulls the tag `served_name` without it, and makes the model from this GGUF file with it.",
    )
    mode: Literal["chat", "embedding"] = Field("chat", examples=["embedding"])
    """What it does. A chain holds models of one mode."""
    context_length: Positive | None = Field(None, examples=[8192], json_schema_extra=unit("tokens"))
    """The context window. An engine of ours is started with it (default: the model's own); for a model that runs
    elsewhere it is what that model takes. `plan` warns where it shrinks along a chain."""
    quantization: OptionText | None = Field(
        None,
        examples=["awq"],
        description=f"{only_for('quantization')} only: how the weights are quantized. Default: what the model itself "
        "says.",
    )
    options: dict[OptionName, OptionText | int | float | bool] = Field(
        {},
        examples=[{"threads": 8, "batch-size": 512}],
        description="Flags of the engine without dashes. `true` is a flag without value, `false` leaves it out. For "
        f"{types_of(lambda engine: not engine.vector)}: parameters of the model, such as `temperature` and `num-gpu`.",
    )
    adapter_of: Name | None = Field(
        None,
        examples=["qwen-coder"],
        description=f"{only_for('adapter_of')} only: this is a LoRA adapter (its `source`) of that model of the same "
        "provider. One process serves both, each by its name.",
    )
    preload: bool = Field(
        False,
        examples=[True],
        description=f"{only_for('preload')} only: it is loaded when the server starts and stays, so that nobody waits "
        "for it.",
    )
    tags: list[Tag] = Field([], examples=[["eu"]])
    """A request with one of these tags (header `x-litellm-tags`) goes to the deployments that have it. Others take a
    deployment without tags if there is one."""
    gpus: Annotated[list[GpuId], Field(min_length=1), AfterValidator(distinct), Unique] | None = Field(
        None, examples=[[0], ["GPU-5d2b7c3e-0000-0000-0000-000000000000"]]
    )
    """GPUs of the host by index or UUID. Default: the first of `llm_gpus` with room for `vram_mib`; without that the
    engine's own choice."""
    vram_mib: Positive | None = Field(None, examples=[6144], json_schema_extra=unit("MiB"))
    """GPU memory it needs. More than the GPUs have is refused. On several GPUs each holds an equal share. Default:
    estimated from the header of a GGUF file that is on the host."""
    weight: Positive | None = Field(None, examples=[3])
    """Only where two providers share one public name: the share of requests each gets."""
    rpm: Positive | None = Field(None, examples=[60], json_schema_extra=unit("requests per minute"))
    """Requests the gateway lets through to each deployment. The next step of the chain takes the rest."""
    tpm: Positive | None = Field(None, examples=[100000], json_schema_extra=unit("tokens per minute"))
    """Tokens the gateway lets through to each deployment, counted after the answer."""
    price: Price | None = Field(None, examples=[{"input": 0.15, "output": 0.6}])
    """What tokens cost, for the gateway's metrics."""
    timeout: Seconds | None = Field(None, examples=[120], json_schema_extra=unit("seconds"))
    """One attempt may take this long. Default: the provider's `timeout`."""
    stream_timeout: Seconds | None = Field(None, examples=[60], json_schema_extra=unit("seconds"))
    """A stream may be silent this long, the wait for its first token included. Default: the provider's
    `stream_timeout`."""
    hosts: Annotated[list[str], AfterValidator(distinct), Unique] | None = Field(None, examples=[["gpu1"]])
    """Serve it on these hosts of the group only. Default: on all."""
    port: Port | None = Field(
        None,
        examples=[8081],
        description=f"{only_for('port')} run one process per model: all but one on a host need a port of their own.",
    )

    @property
    def served(self) -> str:
        """The name the engine knows the model by. The unit and the route both read this."""
        return self.served_name or self.name


class _Placed(Strict):
    """The first keys of a provider: what it is, where it is, and when it runs."""

    type: ProviderType = Field(
        examples=[TYPES[0]],
        description=f"What kind of API it is. {types_of(bool)} can be deployed to hosts (`group`).",
    )
    flavour: Flavour | None = Field(
        None,
        examples=[FLAVOURS[0]],
        description=f"{WITH_FLAVOURS} only: which of its servers. "
        f"{', '.join(f'`{e.flavour}` is {e.title}' for e in ENGINES if e.flavour)}. Default: `{FLAVOURS[0]}`.",
    )
    status: Literal["active", "disabled"] = Field("active", examples=["disabled"])
    """A disabled provider is left out, and listed as left out."""
    group: GroupName | None = Field(None, examples=["llm_gpus"])
    """The inventory group this bundle deploys to: every host in it serves every model. Exactly one of `group` and
    `base_url`. An empty group leaves the provider out; a group the inventory does not define is refused."""
    base_url: BaseUrl | None = Field(
        None,
        examples=["https://api.example.org/v1"],
        description="The address of something that runs elsewhere, without credentials. For "
        f"{types_of(bool)} `/v1` is added if it has no path.",
    )
    port: Port | None = Field(None, examples=[8080])
    """What the engine listens on. Needed with `group`."""
    api_key_env: SecretName | None = Field(
        None,
        examples=["OPENAI_API_KEY"],
        description="Name of the secret that holds the key, never the key itself. Cloud types need it; engines we "
        "deploy get a generated one (`<PROVIDER>_API_KEY`) unless this names another. An "
        f"{types_of(lambda engine: not engine.keyed)} of ours has none: it knows no keys.",
    )
    when_secret_missing: Literal["error", "skip"] = Field("error", examples=["skip"])
    """`skip` leaves the provider out while its secret is not defined, and says so."""
    exclusive_group: Identifier | None = Field(None, examples=["gpu"])
    """Of the providers with this word one may be active on a host (where one takes a whole GPU, say). Starting one
    stops the other. `playbooks/switch_model.yml` changes which; names of the others are answered by whoever steps in
    for them."""
    active: Name | None = Field(None, examples=["qwen-coder"])
    """Of its models only this one runs; the names of the others are answered by whoever steps in for them.
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
                    description=f"`{engine.provider_type}` with a `group` only: how the server runs.",
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
        description="A stream may be silent this long, the wait for its first token included. Default: "
        f"`llm_gateway.timeouts.stream_s`, at least 300 for {ON_DEMAND}, which reads a cold model from disk first; "
        "never more than the model's `timeout`.",
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

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        engine = self.engine
        sections = [
            one.provider_type for one in ENGINES if one.settings and getattr(self, one.provider_type) is not None
        ]
        if (self.group is None) == (self.base_url is None):
            raise ValueError("a provider has exactly one of group and base_url")
        if self.group is not None and self.type not in TYPES:
            raise ValueError(f"{self.type} runs elsewhere: it has a base_url, not a group")
        if self.group is not None and self.port is None:
            raise ValueError("a provider with a group needs a port")
        if self.base_url is not None:
            only_ours = ("port", "exclusive_group", "active", "flavour", *sections)
            unused = [key for key in only_ours if getattr(self, key) is not None]
            if unused:
                raise ValueError(f"{unused[0]} has no effect on a provider with a base_url")
        if self.flavour is not None and (engine is None or engine.flavour is None):
            raise ValueError(f"only {WITH_FLAVOURS.replace('`', '')} has flavours")
        for section in sections:
            if section != self.type:
                raise ValueError(f"the key {section} has no effect on a provider of type {self.type}")
        if engine is not None and self.group is not None:
            if not engine.keyed and self.api_key_env is not None:
                raise ValueError(f"{engine.title} has no keys of its own: api_key_env has no effect on one of ours")
            if engine.per_provider and self.active is not None:
                raise ValueError(f"one {engine.title} serves all its models: active has no effect on it")
        if self.type in CLOUD_TYPES and self.api_key_env is None:
            raise ValueError(f"{self.type} needs api_key_env, the name of the secret that holds its key")
        if self.api_key_env is None and self.when_secret_missing == "skip":
            raise ValueError("when_secret_missing has no effect without api_key_env")
        return self


class Chain(Strict):
    """Who steps in for a model: a `chain` of names, or nobody (`terminal: true`)."""

    chain: list[Name] | None = Field(None, examples=[["qwen2.5-coder:7b", "gpt-oss:20b-cloud"]])
    """Models, aliases or capabilities, tried in this order; behind each step come the steps that stand in for it."""
    terminal: Literal[True] | None = Field(None, examples=[True])
    """Nobody steps in, on purpose."""


class Capability(Strict):
    """A name for a purpose."""

    models: Annotated[list[Name], Field(min_length=1)] = Field(examples=[["qwen2.5-coder:7b", "qwen-coder"]])
    """Tried in this order, then whoever steps in for them."""


class Routing(Strict):
    """Public names and who steps in for whom."""

    fallbacks: dict[Name, Chain] = Field({}, examples=[{"qwen2.5-coder:7b": {"chain": ["gpt-oss:20b-cloud"]}}])
    """By model: who steps in when it fails, whatever the error. Expanded depth first; `plan` prints the result."""
    default_fallbacks: list[Name] = Field([], examples=[["gpt-oss:20b-cloud"]])
    """The chain of every model that has no entry in `fallbacks`. A model in this list gets the part behind it."""
    context_window_fallbacks: dict[Name, Chain] = Field({}, examples=[{"small": {"chain": ["large-context"]}}])
    """By model: who steps in instead when a request is too long for it. Models without an entry keep their chain of
    `fallbacks`. Only errors in words that the gateway knows are recognised as such: OpenAI's and some engines'."""
    content_policy_fallbacks: dict[Name, Chain] = Field({}, examples=[{"gpt-4o-mini": {"chain": ["qwen2.5-coder:7b"]}}])
    """By model: who steps in instead when a provider refuses the content. Models without an entry keep their chain of
    `fallbacks`."""
    aliases: dict[Name, Name] = Field({}, examples=[{"chat": "llama3.1:latest"}])
    """Another name for one model or capability. It shares its chain and its cool-downs."""
    capabilities: dict[Name, Capability] = Field({}, examples=[{"code": {"models": ["qwen2.5-coder:7b"]}}])
    """A name for a purpose, answered by the first of its models that can."""


class Slots(Strict):
    """Ports of the two gateway slots behind the door, on loopback. One of them runs."""

    blue: Port = Field(4001, examples=[4001])
    """The first slot."""
    green: Port = Field(4002, examples=[4002])
    """The second slot."""


class Timeouts(Strict):
    """How long the gateway and its door wait."""

    request_s: Seconds = Field(600, examples=[600], json_schema_extra=unit("seconds"))
    """One attempt may take this long. Long, because a long answer of a slow local model is no fault."""
    stream_s: Seconds = Field(120, examples=[120], json_schema_extra=unit("seconds"))
    """A stream may be silent this long, the wait for its first token included. Then the next step of the chain
    answers."""
    door_s: Positive = Field(3600, examples=[3600], json_schema_extra=unit("seconds"))
    """A connection may be silent this long before the door gives up on it. Longer than any attempt of the gateway."""


class Limits(Strict):
    """What one request, one address and one worker may take."""

    body_mib: Annotated[int, Field(ge=1, le=1024)] = Field(32, examples=[64], json_schema_extra=unit("MiB"))
    """The largest body of a request. Pictures and sound are in it, a third larger than their files."""
    body_s: Positive = Field(60, examples=[300], json_schema_extra=unit("seconds"))
    """A body has to be whole after this long. Slow clients with large bodies need more."""
    connections_per_address: Annotated[int, Field(ge=1, le=4000)] = Field(400, examples=[1000])
    """Connections that the front end holds for one address at once. It holds 4000 in all."""
    worker_mib: Annotated[int, Field(ge=600, le=65536)] = Field(1200, examples=[2000], json_schema_extra=unit("MiB"))
    """A worker that has more memory finishes its requests and is replaced. The unit of a slot may have twice as much
    for each of its workers."""


class Cache(Strict):
    """Whether a repeated question may be answered from Redis."""

    enabled: bool = Field(False, examples=[True])
    """`true`: the same request of the same client within `ttl_s` gets the same answer, from memory. Off, because
    someone who asks again in a chat wants another answer. Needs a host in `llm_redis`."""
    ttl_s: Positive = Field(600, examples=[600], json_schema_extra=unit("seconds"))
    """An answer is kept this long."""


class Redis(Strict):
    """The Redis the gateways share, if `llm_redis` has a host."""

    port: Port = Field(6379, examples=[6379])
    """What it listens on."""
    maxmemory_mib: Annotated[int, Field(ge=16)] = Field(256, examples=[256], json_schema_extra=unit("MiB"))
    """It holds counters, some kilobytes each, and cached answers if `cache` is on."""
    maxmemory_policy: Literal[
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] = Field("allkeys-lru", examples=["allkeys-lru"])
    """What happens when it is full. By default the oldest go; the gateway never stops because of it."""
    persistence: Literal["none", "rdb", "aof"] = Field("none", examples=["none"])
    """Counters of the last minute are not worth a disk write; a restart begins at zero."""


class Gateway(Strict):
    """The gateway (LiteLLM) and its front door (HAProxy)."""

    listen: Annotated[list[IPAddress], Field(min_length=1), AfterValidator(listen_addresses), Unique] = Field(
        ["127.0.0.1"], examples=[["192.0.2.10"]]
    )
    """IP addresses the front door listens on, on every host of `llm_gateway`. The door has no TLS yet."""
    port: Port = Field(4000, examples=[4000])
    """The front door's port: LiteLLM's own default."""
    slots: Slots = Field(Slots(), examples=[{"blue": 4001, "green": 4002}])
    """Ports behind the door."""
    workers: Annotated[int, Field(ge=1, le=64)] = Field(2, examples=[4])
    """Processes per gateway. One answers about 100 requests a second on one core and takes 400 MiB. Two, so that one
    that is busy or dies leaves another."""
    timeouts: Timeouts = Field(Timeouts(), examples=[{"request_s": 300}])
    """How long the gateway and its door wait."""
    limits: Limits = Field(Limits(), examples=[{"body_mib": 64}])
    """What one request, one address and one worker may take."""
    cooldown_s: Seconds = Field(30, examples=[30], json_schema_extra=unit("seconds"))
    """A deployment is left alone this long after two failures in a row. The last step of a chain never is."""
    cache: Cache = Field(Cache(), examples=[{"enabled": True}])
    """Whether a repeated question may be answered from Redis."""
    redis: Redis = Field(Redis(), examples=[{"port": 6380}])
    """The Redis the gateways share."""


class Client(Strict):
    """An application that asks the gateway with a key of its own."""

    secret: SecretName = Field(examples=["CHAT_KEY"])
    """Name of the secret that holds its key, never the key itself. Generated if nobody defines it. Hosts only get a
    hash, so one that you choose must have 24 characters or more."""
    models: Annotated[list[Name], Field(min_length=1), AfterValidator(distinct), Unique] | None = Field(
        None, examples=[["chat", "qwen2.5-coder:7b"]]
    )
    """Names it may ask for: models, aliases and capabilities. Whoever steps in for one of them may answer, too.
    Default: all."""
    rpm: Positive | None = Field(None, examples=[60], json_schema_extra=unit("requests per minute"))
    """In any 60 seconds; more are answered with 429. Default: no limit."""


class PrometheusSettings(Strict):
    """Prometheus, which keeps the metrics."""

    port: Port = Field(9090, examples=[9090])
    """What it listens on, on loopback of the host of `llm_monitoring`."""
    scrape_interval_s: Annotated[int, Field(ge=10, le=30)] = Field(15, examples=[15], json_schema_extra=unit("seconds"))
    """How often everything is asked. At least as long as an answer may take (10 s), and alerts look at two minutes."""
    retention_days: Positive = Field(30, examples=[90], json_schema_extra=unit("days"))
    """What is older is deleted."""
    retention_gib: Positive = Field(10, examples=[50], json_schema_extra=unit("GiB"))
    """The oldest is deleted earlier if there is more than this."""


class Webhook(Strict):
    """Where alerts are posted to."""

    url: HttpUrl = Field(examples=["https://alerts.example.org/modelyard"])
    """The address. It can be read in the configuration on the host, so it must not be a key itself."""
    token_env: SecretName | None = Field(None, examples=["ALERT_TOKEN"])
    """Name of the secret that is sent as bearer token."""


class Email(Strict):
    """Who gets alerts as mail."""

    to: EmailAddress = Field(examples=["ops@example.org"])
    """Recipient."""
    sender: EmailAddress = Field(examples=["modelyard@example.org"])
    """What stands in From."""
    smarthost: MailServer = Field(examples=["mail.example.org:587"])
    """The mail server. TLS is required."""
    username: str | None = Field(None, examples=["modelyard"])
    """The user there, if it wants one."""
    password_env: SecretName | None = Field(None, examples=["SMTP_PASSWORD"])
    """Name of the secret that holds the user's password."""

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.username is None) != (self.password_env is None):
            raise ValueError("username and password_env belong together")
        return self


class AlertmanagerSettings(Strict):
    """Alertmanager, which sends alerts on. Without a receiver it only shows them."""

    port: Port = Field(9093, examples=[9093])
    """What it listens on, on loopback of the host of `llm_monitoring`."""
    webhook: Webhook | None = Field(None, examples=[{"url": "https://alerts.example.org/modelyard"}])
    """Alerts are posted there as JSON."""
    email: Email | None = Field(
        None,
        examples=[{"to": "ops@example.org", "sender": "modelyard@example.org", "smarthost": "mail.example.org:587"}],
    )
    """Alerts are mailed."""


class GrafanaSettings(Strict):
    """Grafana, which shows dashboards. It runs if `llm_versions` says where its archive is."""

    port: Port = Field(3000, examples=[3000])
    """What it listens on, on loopback of the host of `llm_monitoring`."""


class ExporterPorts(Strict):
    """Ports of what gives Prometheus its metrics. Loopback, or `llm_address` if Prometheus is on another host."""

    gateway: Port = Field(8405, examples=[8405])
    """The door's own metrics and, under `/litellm`, those of the slot that answers."""
    node: Port = Field(9100, examples=[9100])
    """Processors, memory, disks and network of every host."""
    host: Port = Field(9117, examples=[9117])
    """Releases, units, GPUs and measured first tokens of every host."""
    blackbox: Port = Field(9115, examples=[9115])
    """Asks what has no metrics of its own."""
    redis: Port = Field(9121, examples=[9121])
    """Redis."""


class Monitoring(Strict):
    """Prometheus, Alertmanager and Grafana on the host of `llm_monitoring`, and exporters on all."""

    prometheus: PrometheusSettings = Field(PrometheusSettings(), examples=[{"retention_days": 90}])
    """Keeps the metrics."""
    alertmanager: AlertmanagerSettings = Field(AlertmanagerSettings(), examples=[{"port": 9094}])
    """Sends alerts on."""
    grafana: GrafanaSettings = Field(GrafanaSettings(), examples=[{"port": 3000}])
    """Shows dashboards."""
    exporters: ExporterPorts = Field(ExporterPorts(), examples=[{"node": 9101}])
    """Where metrics are had."""
    probe_interval_s: Annotated[int, Field(ge=30)] | None = Field(
        300, examples=[300], json_schema_extra=unit("seconds")
    )
    """How often every engine is asked for a few tokens, to measure the time to the first. `null`: never."""


class LitellmVersion(Release):
    """The gateway's release."""

    floor = (1, 83, 7)  # 1.82.7 and 1.82.8 were compromised releases
    version: Version = Field(
        examples=["1.106.2"],
        description=f"A hashed lock of this version lies in roles/litellm/files/locks. {refused_below(floor)}",
    )


class GrafanaArchive(Archive):
    """Where Grafana's archive comes from; exactly one of `url` and `path`. `{version}` stands for the version."""

    url: HttpUrl | None = Field(None, examples=["https://example.org/grafana-{version}.linux-amd64.tar.gz"])
    """An address the controller fetches from: the project's own, or a mirror."""
    path: AbsolutePath | None = Field(None, examples=["/srv/grafana.linux-amd64.tar.gz"])
    """A file on the controller."""


class GrafanaVersion(Release):
    """Grafana's release."""

    version: Version = Field(examples=["12.3.0"])
    """Names it in the store."""
    source: GrafanaArchive = Field(examples=[{"path": "/srv/grafana.linux-amd64.tar.gz", "sha256": SHA256_EXAMPLE}])
    """Its archive."""


class HuggingFace(Strict):
    """Where repositories of models are."""

    endpoint: BaseUrl = Field("https://huggingface.co", examples=["https://hub.example.org"])
    """Hugging Face, or a mirror of it."""
    token_env: SecretName | None = Field(None, examples=["HF_TOKEN"])
    """Name of the secret that holds the token, for repositories that want one."""


class _GatewayVersion(Strict):
    litellm: LitellmVersion = Field(examples=[{"version": "1.106.2"}])
    """The gateway."""


if TYPE_CHECKING:
    _EngineVersions = _GatewayVersion
else:
    # An engine's entry has the name of its role.
    _EngineVersions = create_model(
        "_EngineVersions",
        __base__=_GatewayVersion,
        **{
            engine.role: (
                engine.version | None,
                Field(None, examples=[engine.version_example], description=engine.version.__doc__),
            )
            for engine in sorted(ENGINES, key=lambda engine: engine.role)
        },
    )


class Versions(_EngineVersions):
    """Every component's version and checksum."""

    grafana: GrafanaVersion | None = Field(
        None,
        examples=[
            {"version": "12.3.0", "source": {"path": "/srv/grafana.linux-amd64.tar.gz", "sha256": SHA256_EXAMPLE}}
        ],
    )
    """Grafana. Without it dashboards are left out."""
    hugging_face: HuggingFace = Field(HuggingFace(), examples=[{"endpoint": "https://hub.example.org"}])
    """Where `source: {repo: ...}` is fetched from."""

    def of(self, component: str) -> Release | None:
        """The entry of a component that has a version; None if it has none here, or if there is no such component."""
        entry = getattr(self, component, None)
        return entry if isinstance(entry, Release) else None


COMPONENTS: dict[str, type[Release]] = {
    "litellm": LitellmVersion,
    **{engine.role: engine.version for engine in sorted(ENGINES, key=lambda engine: engine.role)},
    "grafana": GrafanaVersion,
}
"""What has a version in the catalogue."""


def below_floor(component: str, version: str) -> str:
    """The oldest version of a component without known holes, if `version` is older; else an empty string."""
    kind = COMPONENTS.get(component)
    return too_old(version, kind.floor) if kind else ""


class Catalogue(Strict):
    """The whole: `llm_providers`, `llm_routing`, `llm_gateway`, `llm_clients`, `llm_monitoring` and `llm_versions`
    together."""

    providers: dict[Identifier, Provider] = Field(
        {}, examples=[{"local": {"type": TYPES[0], "group": f"llm_{TYPES[0]}", "port": 11434}}]
    )
    """Who serves which model, and where. Providers by name; the name is part of the gateway's deployment ids."""
    routing: Routing = Field(Routing(), examples=[{"aliases": {"chat": "llama3.1:latest"}}])
    """Public names and who steps in for whom."""
    gateway: Gateway = Field(Gateway(), examples=[{"port": 4000}])
    """The gateway and its front door."""
    clients: dict[ClientName, Client] = Field({}, examples=[{"chat-app": {"secret": "CHAT_KEY", "models": ["chat"]}}])
    """Applications and what they may ask for. Their names stand in the gateway's metrics and its journal."""
    monitoring: Monitoring | None = Field(None, examples=[{"prometheus": {"retention_days": 90}}])
    """Prometheus, Alertmanager, Grafana and their exporters. `llm_monitoring: false`: none of them."""
    versions: Versions | None = Field(None, examples=[{"litellm": {"version": "1.106.2"}}])
    """Every component's version and checksum, in one place."""


class Gpu(Strict):
    """One GPU of a host, as declared."""

    memory_mib: Positive = Field(examples=[24576], json_schema_extra=unit("MiB"))
    """Its memory, as `nvidia-smi --query-gpu=memory.total` prints it."""
    name: str | None = Field(None, examples=["NVIDIA GeForce RTX 4090"])
    """Shown by `plan`."""
    uuid: GpuUuid | None = Field(None, examples=["GPU-5d2b7c3e-0000-0000-0000-000000000000"])
    """Lets a model name it by UUID."""


class HostVariables(Strict):
    """What the inventory may say of one host, beside the catalogue."""

    address: IPAddress | None = Field(None, examples=["192.0.2.11", "2001:db8::11"])
    """The address at which other hosts reach it, without a port. Default: `ansible_host`."""
    gpus: list[Gpu] | None = Field(None, examples=[[{"memory_mib": 24576}]])
    """Its GPUs in the order of their indexes, so that a plan that cannot fit is refused before anything is contacted.
    Default: not known, nothing is checked."""
