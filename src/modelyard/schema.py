"""The catalogue, schema version 1. A key enters the schema together with the code that makes it do something.

Everything is strict: no unknown keys, no silent conversion (`port: "4000"` is refused). The text under a key is
its documentation: docs/catalogue.md and the editor's JSON Schema are generated from it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

ProviderType = Literal["ollama", "llama_cpp", "vllm", "ollama_cloud", "openai", "anthropic", "openai_compatible"]

ENGINE_TYPES = frozenset({"ollama", "llama_cpp", "vllm"})
"""Types this bundle deploys itself; the others run elsewhere and have a `base_url`."""

CLOUD_TYPES = frozenset({"ollama_cloud", "openai", "anthropic"})
"""Types that cannot be used without a key."""

OWN_OPTIONS: dict[str, frozenset[str]] = {
    engine: frozenset(options.split())
    for engine, options in {
        "llama_cpp (native)": "host port model m alias a api-key api-key-file ctx-size c metrics no-metrics hf-repo "
        "hf-file model-url mu ssl-key-file ssl-cert-file slot-save-path log-file",
        "llama_cpp (python)": "host port model model-alias n-ctx api-key config-file hf-model-repo-id ssl-keyfile "
        "ssl-certfile root-path",
        "vllm": "host port uds model served-model-name api-key max-model-len quantization trust-remote-code revision "
        "code-revision tokenizer-revision hf-token download-dir enable-lora lora-modules ssl-keyfile ssl-certfile "
        "ssl-ca-certs root-path config",
        "ollama": "num-ctx",
    }.items()
}
"""Options by engine that its unit sets from other keys, or that reach outside its sandbox."""


def for_editors(kind: str, pattern: str, message: str) -> dict[str, str]:
    """JSON Schema for text that matches `pattern` as a whole.

    `message` is what editors say (those that read `patternErrorMessage`, as VS Code's does), `kind` is what
    docs/catalogue.md calls such text.
    """
    return {"type": "string", "kind": kind, "pattern": f"^(?:{pattern})$", "patternErrorMessage": message}


@dataclass(frozen=True, slots=True)
class Matching:
    """A constraint on text that says in words what it must look like, to the user and to editors."""

    kind: str
    pattern: str
    message: str

    def check(self, value: str) -> str:
        """Return `value`; raises ValueError if it does not match."""
        if not re.fullmatch(self.pattern, value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), **for_editors(self.kind, self.pattern, self.message)}


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IP address looks like 192.0.2.10 or 2001:db8::10") from None


def _listen(value: list[str]) -> list[str]:
    if len(value) != len(set(value)):
        raise ValueError("an address stands here twice")
    if len(value) > 1 and not {"0.0.0.0", "::"}.isdisjoint(value):
        raise ValueError("0.0.0.0 and :: are all addresses: they stand alone")
    return value


def _distinct(value: list[Any]) -> list[Any]:
    if len(value) != len(set(value)):
        raise ValueError("something stands here twice")
    return value


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("a base URL begins with http:// or https:// and names a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a base URL holds no credentials; name the secret in api_key_env")
    if parts.query or parts.fragment or re.search(r"\s", value):
        raise ValueError("a base URL has no query, fragment or white space")
    return value.rstrip("/")


_GPU_ID = "a GPU is named by its index (0, 1, ...) or its UUID; nvidia-smi -L lists them"


def _gpu_id(value: int | str) -> int | str:
    if value < 0 if isinstance(value, int) else not re.fullmatch(_UUID, value):
        raise ValueError(_GPU_ID)
    return value


def unit(name: str) -> dict[str, Any]:
    """The unit of a number, for the reference: `json_schema_extra` of a field."""
    return {"unit": name}


Unique: FieldInfo = Field(json_schema_extra={"uniqueItems": True})
"""Tells editors what `_distinct` and `_listen` check."""

Name = Annotated[
    str,
    Matching(
        "name",
        r"[^\s*\x22\x27\\\x00-\x1f\x7f]+",
        "a name has no white space, quotes, backslashes or asterisks and is not empty",
    ),
]
Identifier = Annotated[
    str,
    Matching("identifier", r"[a-z][a-z0-9_-]*", "use lower-case letters, digits, - and _, beginning with a letter"),
]
ClientName = Annotated[
    str,
    Matching(
        "client name",
        r"[a-z][a-z0-9-]{0,47}",
        "a client's name has lower-case letters, digits and -, begins with a letter and is no longer than 48",
    ),
]
GroupName = Annotated[
    str,
    Matching(
        "group name", r"[A-Za-z_][A-Za-z0-9_]*", "a group name has letters, digits and _, and begins with no digit"
    ),
]
SecretName = Annotated[
    str,
    Matching(
        "secret name", r"[A-Z][A-Z0-9_]*", "a secret's name is in capitals, like OPENAI_API_KEY (never the key itself)"
    ),
]
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPAddress = Annotated[
    str,
    AfterValidator(_ip_address),
    WithJsonSchema(
        for_editors(
            "IP address",
            rf"{_BYTE}(\.{_BYTE}){{3}}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[^\s%]+)?",
            "an IP address looks like 192.0.2.10 or 2001:db8::10",
        )
    ),
]
BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    WithJsonSchema(
        for_editors(
            "base URL",
            r"https?://[^\s@/?#]+(/[^\s?#]*)?",
            "a base URL begins with http:// or https://, names a host and holds no credentials and no query",
        )
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[int | float, Field(gt=0, le=86400)]
UsDollars = Annotated[int | float, Field(ge=0, allow_inf_nan=False)]
Sha256 = Annotated[str, Matching("SHA-256", r"[0-9a-f]{64}", "a sha256 has 64 digits of 0-9a-f")]
AbsolutePath = Annotated[
    str,
    Matching("absolute path", r"/[^\x00-\x1f\x7f]*", "an absolute path begins with / and has no control characters"),
]
HttpUrl = Annotated[
    str, Matching("URL", r"https?://[^\s/@]+/\S*", "a URL begins with http:// or https:// and holds no credentials")
]
EmailAddress = Annotated[
    str, Matching("mail address", r"[^\s@<>]+@[^\s@<>]+", "a mail address looks like ops@example.org")
]
MailServer = Annotated[
    str,
    Matching("host and port", r"[A-Za-z0-9.-]+:[0-9]{1,5}", "a mail server is HOST:PORT, like mail.example.org:587"),
]
Version = Annotated[
    str, Matching("version", r"[0-9]+(\.[0-9]+)+((\.post|rc|a|b)[0-9]+)?", "a version looks like 1.106.2")
]
Sdist = Annotated[
    str, Matching("sdist", r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", "an sdist is NAME==VERSION in the Python package index")
]
Revision = Annotated[
    str,
    Matching(
        "commit", r"[0-9a-f]{40}", "a revision is a commit, 40 digits of 0-9a-f: a branch or tag would move under you"
    ),
]
Repository = Annotated[
    str, Matching("repository", r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", "a repository is OWNER/NAME at Hugging Face")
]
FileName = Annotated[
    str,
    Matching(
        "file name",
        r"(?!/)(?!(?:.*/)?\.\.?(?:/|$))[^\s\x00-\x1f\x7f]+",
        "a file of the repository, like model-q4_k_m.gguf",
    ),
]
Duration = Annotated[
    str,
    Matching("duration", r"-1|0|[1-9][0-9]*(s|m|h)", "a duration is like 30s, 5m or 24h; 0 is at once, -1 is never"),
]
HostPort = Annotated[
    str, Matching("host and port", r"[A-Za-z0-9.-]+(:[0-9]{1,5})?", "a host is a name or address, like registry:5000")
]
WebOrigin = Annotated[
    str,
    Matching(
        "origin", r"[a-z][a-z0-9+.-]*://[^\s,/]+", "an origin is like http://localhost or https://chat.example.org"
    ),
]
OptionName = Annotated[
    str,
    Matching(
        "option name", r"[a-z][a-z0-9-]*", "an option is a long flag without the dashes, like batch-size, in lower case"
    ),
]
OptionText = Annotated[
    str, Matching("option text", r"[^\x00-\x1f\x7f]*", "an option's value has no control characters")
]
CMakeOption = Annotated[str, Matching("CMake option", r"-D[A-Za-z0-9_]+=\S*", "a CMake option is -DNAME=VALUE")]
Tag = Annotated[
    str,
    Matching(
        "tag",
        r"(?!default$|!)[^\s,]+",
        'a tag has no white space or comma, does not begin with "!" and is not "default"',
    ),
]
_UUID = r"(GPU|MIG)-[0-9A-Za-z/-]+"
GpuUuid = Annotated[str, Matching("GPU UUID", _UUID, "a GPU's UUID begins with GPU- or MIG-; nvidia-smi -L lists them")]
GpuId = Annotated[
    int | str,
    AfterValidator(_gpu_id),
    WithJsonSchema({**for_editors("GPU UUID", _UUID, _GPU_ID), "type": ["integer", "string"], "minimum": 0}),
]


_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class Strict(BaseModel):
    """Base of everything in the catalogue."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class ModelSource(Strict):
    """Where a model's files come from: a `path` on the host, a `url` with its `sha256`, or a `repo` of Hugging Face."""

    path: AbsolutePath | None = Field(None, examples=["/srv/models/qwen.gguf"])
    """What is already on the host: a GGUF file; for `vllm` a directory."""
    url: HttpUrl | None = Field(None, examples=["https://example.org/qwen.gguf"])
    """Where the host fetches the file from, once. Not for `vllm`, whose models are directories."""
    repo: Repository | None = Field(None, examples=["Qwen/Qwen2.5-Coder-7B-Instruct-GGUF"])
    """A repository of Hugging Face, at `llm_versions.hugging_face.endpoint`."""
    revision: Revision | None = Field(None, examples=["13fbf4ed4e7b3d2e5a2a6f3a2f6d7b3f0a1b2c3d"])
    """The commit of `repo`, so that nobody can exchange the model under you."""
    file: FileName | None = Field(None, examples=["qwen2.5-coder-7b-instruct-q4_k_m.gguf"])
    """The GGUF file in `repo`. Not for `vllm`, which takes the whole repository."""
    sha256: Sha256 | None = Field(None, examples=[_SHA256])
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
    served_name: Name | None = Field(None, examples=["qwen2.5-coder-7b-instruct"])
    """What the engine calls it, if different (Ollama: the tag). The engine is started with it and the gateway asks for
    it. Default: `name`."""
    source: ModelSource | None = Field(None, examples=[{"path": "/srv/models/qwen.gguf"}])
    """The model's files. `llama_cpp` and `vllm` on hosts of ours need it. `ollama` pulls the tag `served_name` without
    it, and makes the model from this GGUF file with it."""
    mode: Literal["chat", "embedding"] = Field("chat", examples=["embedding"])
    """What it does. A chain holds models of one mode."""
    context_length: Positive | None = Field(None, examples=[8192], json_schema_extra=unit("tokens"))
    """The context window. An engine of ours is started with it (default: the model's own); for a model that runs
    elsewhere it is what that model takes. `plan` warns where it shrinks along a chain."""
    quantization: OptionText | None = Field(None, examples=["awq"])
    """`vllm` only: how the weights are quantized. Default: what the model itself says."""
    options: dict[OptionName, OptionText | int | float | bool] = Field({}, examples=[{"threads": 8, "batch-size": 512}])
    """Flags of the engine without dashes. `true` is a flag without value, `false` leaves it out. For `ollama`:
    parameters of the model, such as `temperature` and `num-gpu`."""
    adapter_of: Name | None = Field(None, examples=["qwen-coder-vllm"])
    """`vllm` only: this is a LoRA adapter (its `source`) of that model of the same provider. One process serves both,
    each by its name."""
    preload: bool = Field(False, examples=[True])
    """`ollama` only: it is loaded when the server starts and stays, so that nobody waits for it."""
    tags: list[Tag] = Field([], examples=[["eu"]])
    """A request with one of these tags (header `x-litellm-tags`) goes to the deployments that have it. Others take a
    deployment without tags if there is one."""
    gpus: Annotated[list[GpuId], Field(min_length=1), AfterValidator(_distinct), Unique] | None = Field(
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
    hosts: Annotated[list[str], AfterValidator(_distinct), Unique] | None = Field(None, examples=[["gpu1"]])
    """Serve it on these hosts of the group only. Default: on all."""
    port: Port | None = Field(None, examples=[8081])
    """`llama_cpp` and `vllm` run one process per model: all but one on a host need a port of their own."""

    @property
    def served(self) -> str:
        """The name the engine knows the model by. The unit and the route both read this."""
        return self.served_name or self.name


class OllamaSettings(Strict):
    """How an Ollama of ours runs."""

    models_path: AbsolutePath | None = Field(None, examples=["/srv/ollama/models"])
    """Where it keeps its models. The store of an Ollama that was there before can be adopted (roles/ollama/README.md).
    Default: below /var/lib/modelyard/ollama."""
    keep_alive: Duration = Field("30m", examples=["24h"])
    """A model stays loaded this long after its last request. A cold one makes the next request wait for the disk."""
    num_parallel: Positive | None = Field(None, examples=[2])
    """Requests a model answers at once; each takes memory for a context of its own. Default: Ollama's own choice."""
    max_loaded_models: Positive | None = Field(None, examples=[2])
    """Models that are loaded at once. Default: Ollama's own choice, by memory. The GPUs are planned for this many of
    the largest (one by default)."""
    context_length: Positive | None = Field(None, examples=[8192], json_schema_extra=unit("tokens"))
    """Context of models that do not say `context_length`. Default: Ollama's own."""
    flash_attention: bool = Field(True, examples=[False])
    """Less memory for long contexts."""
    origins: list[WebOrigin] = Field([], examples=[["https://chat.example.org"]])
    """Web pages that may call it from a browser, beside those of this machine. The gateway needs none."""
    registry: HostPort | None = Field(None, examples=["registry.example.org:5000"])
    """Where models are pulled from, if not from Ollama's own registry."""
    insecure_registry: bool = Field(False, examples=[True])
    """The registry is asked without TLS."""
    prune: bool = Field(False, examples=[True])
    """Models on the host that the catalogue does not name are deleted."""


class Provider(Strict):
    """Where models run: on the hosts of a `group`, or elsewhere at a `base_url`."""

    type: ProviderType = Field(examples=["llama_cpp"])
    """What kind of API it is. `ollama`, `llama_cpp` and `vllm` can be deployed to hosts (`group`)."""
    flavour: Literal["native", "python"] | None = Field(None, examples=["native"])
    """`llama_cpp` only: llama-server (`native`, the default) or llama-cpp-python's server."""
    status: Literal["active", "disabled"] = Field("active", examples=["disabled"])
    """A disabled provider is left out, and listed as left out."""
    group: GroupName | None = Field(None, examples=["llm_llama_cpp_native"])
    """The inventory group this bundle deploys to: every host in it serves every model. Exactly one of `group` and
    `base_url`. An empty group leaves the provider out; a group the inventory does not define is refused."""
    base_url: BaseUrl | None = Field(None, examples=["https://api.example.org/v1"])
    """The address of something that runs elsewhere, without credentials. For `ollama`, `llama_cpp` and `vllm` `/v1`
    is added if it has no path."""
    port: Port | None = Field(None, examples=[8080])
    """What the engine listens on. Needed with `group`."""
    api_key_env: SecretName | None = Field(None, examples=["OPENAI_API_KEY"])
    """Name of the secret that holds the key, never the key itself. Cloud types need it; engines we deploy get a
    generated one (`<PROVIDER>_API_KEY`) unless this names another. An `ollama` of ours has none: it knows no keys."""
    when_secret_missing: Literal["error", "skip"] = Field("error", examples=["skip"])
    """`skip` leaves the provider out while its secret is not defined, and says so."""
    exclusive_group: Identifier | None = Field(None, examples=["vllm-gpu"])
    """Of the providers with this word one may be active on a host (one vLLM takes a whole GPU). Starting one stops the
    other. `playbooks/switch_model.yml` changes which; names of the others are answered by whoever steps in for them."""
    active: Name | None = Field(None, examples=["qwen-coder-vllm"])
    """Of its models only this one runs; the names of the others are answered by whoever steps in for them.
    `playbooks/switch_model.yml` changes it. Default: all run."""
    ollama: OllamaSettings | None = Field(None, examples=[{"keep_alive": "24h"}])
    """`ollama` with a `group` only: how the server runs."""
    timeout: Seconds | None = Field(None, examples=[120], json_schema_extra=unit("seconds"))
    """One attempt may take this long. Default: `llm_gateway.timeouts.request_s`."""
    stream_timeout: Seconds | None = Field(None, examples=[300], json_schema_extra=unit("seconds"))
    """A stream may be silent this long, the wait for its first token included. Default:
    `llm_gateway.timeouts.stream_s`, at least 300 for `ollama`, which reads a cold model from disk first; never more
    than the model's `timeout`."""
    models: list[Model] = Field([], examples=[[{"name": "qwen2.5-coder:7b"}]])
    """What it serves, by public name."""

    @property
    def engine(self) -> str:
        """What runs on the hosts of `group`, e.g. `llama_cpp (native)`."""
        return f"{self.type} ({self.flavour or 'native'})" if self.type == "llama_cpp" else self.type

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.group is None) == (self.base_url is None):
            raise ValueError("a provider has exactly one of group and base_url")
        if self.group is not None and self.type not in ENGINE_TYPES:
            raise ValueError(f"{self.type} runs elsewhere: it has a base_url, not a group")
        if self.group is not None and self.port is None:
            raise ValueError("a provider with a group needs a port")
        if self.base_url is not None:
            only_ours = ("port", "exclusive_group", "active", "flavour", "ollama")
            unused = [key for key in only_ours if getattr(self, key) is not None]
            if unused:
                raise ValueError(f"{unused[0]} has no effect on a provider with a base_url")
        if self.flavour is not None and self.type != "llama_cpp":
            raise ValueError("only llama_cpp has flavours")
        if self.type != "ollama" and self.ollama is not None:
            raise ValueError(f"the key ollama has no effect on a provider of type {self.type}")
        if self.type == "ollama" and self.group is not None:
            if self.api_key_env is not None:
                raise ValueError("Ollama has no keys of its own: api_key_env has no effect on one of ours")
            if self.active is not None:
                raise ValueError("one Ollama serves all its models: active has no effect on it")
        if self.type in CLOUD_TYPES and self.api_key_env is None:
            raise ValueError(f"{self.type} needs api_key_env, the name of the secret that holds its key")
        if self.api_key_env is None and self.when_secret_missing == "skip":
            raise ValueError("when_secret_missing has no effect without api_key_env")
        return self


class Chain(Strict):
    """Who steps in for a model: a `chain` of names, or nobody (`terminal: true`)."""

    chain: list[Name] | None = Field(None, examples=[["llama-cpp-native", "gpt-oss:20b-cloud"]])
    """Models, aliases or capabilities, tried in this order; behind each step come the steps that stand in for it."""
    terminal: Literal[True] | None = Field(None, examples=[True])
    """Nobody steps in, on purpose."""


class Capability(Strict):
    """A name for a purpose."""

    models: Annotated[list[Name], Field(min_length=1)] = Field(examples=[["qwen2.5-coder:7b", "qwen-coder-vllm"]])
    """Tried in this order, then whoever steps in for them."""


class Routing(Strict):
    """Public names and who steps in for whom."""

    fallbacks: dict[Name, Chain] = Field({}, examples=[{"qwen2.5-coder:7b": {"chain": ["gpt-oss:20b-cloud"]}}])
    """By model: who steps in when it fails, whatever the error. Expanded depth first; `plan` prints the result."""
    default_fallbacks: list[Name] = Field([], examples=[["gpt-oss:20b-cloud"]])
    """The chain of every model that has no entry in `fallbacks`. A model in this list gets the part behind it."""
    context_window_fallbacks: dict[Name, Chain] = Field({}, examples=[{"small": {"chain": ["large-context"]}}])
    """By model: who steps in instead when a request is too long for it. Models without an entry keep their chain of
    `fallbacks`. Only errors in OpenAI's, vLLM's or llama.cpp's words are recognised as such."""
    content_policy_fallbacks: dict[Name, Chain] = Field({}, examples=[{"gpt-4o-mini": {"chain": ["llama-cpp-native"]}}])
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

    listen: Annotated[list[IPAddress], Field(min_length=1), AfterValidator(_listen), Unique] = Field(
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
    models: Annotated[list[Name], Field(min_length=1), AfterValidator(_distinct), Unique] | None = Field(
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


class LitellmVersion(Strict):
    """The gateway's release."""

    version: Version = Field(examples=["1.106.2"])
    """A hashed lock of this version lies in roles/litellm/files/locks. Refused below 1.83.7."""


class SourceArchive(Strict):
    """Where a source archive comes from; exactly one of `sdist`, `url` and `path`, always with its checksum."""

    sdist: Sdist | None = Field(None, examples=["llama-cpp-python==0.3.36"])
    """A source distribution of the Python package index, NAME==VERSION."""
    url: HttpUrl | None = Field(None, examples=["https://example.org/llama.cpp.tar.gz"])
    """An address the controller fetches from."""
    path: AbsolutePath | None = Field(None, examples=["/srv/llama.cpp.tar.gz"])
    """A file on the controller."""
    sha256: Sha256 = Field(examples=[_SHA256])
    """Checksum of the archive."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.sdist, self.url, self.path)) != 1:
            raise ValueError("a source has exactly one of sdist, url and path")
        return self


class LlamaCppVersion(Strict):
    """The llama.cpp release and how it is built."""

    version: Version = Field(examples=["0.3.36"])
    """Names the build in the store."""
    source: SourceArchive = Field(examples=[{"sdist": "llama-cpp-python==0.3.36", "sha256": _SHA256}])
    """What it is built from."""
    cmake_options: list[CMakeOption] = Field([], examples=[["-DGGML_AVX512=ON"]])
    """Further options for CMake. Each pair of source and options is one build."""


class LlamaCppPythonVersion(Strict):
    """The release of llama-cpp-python, llama.cpp's server in Python."""

    version: Version = Field(examples=["0.3.36"])
    """A hashed lock of this version lies in roles/llama_cpp_python/files/locks."""


class OllamaArchive(Strict):
    """Where Ollama's archive comes from; exactly one of `url` and `path`. `{version}` stands for the version."""

    url: HttpUrl | None = Field(None, examples=["https://example.org/v{version}/ollama-linux-amd64.tar.zst"])
    """An address the controller fetches from: the project's own, or a mirror."""
    path: AbsolutePath | None = Field(None, examples=["/srv/ollama-linux-amd64.tar.zst"])
    """A file on the controller."""
    sha256: Sha256 | None = Field(None, examples=[_SHA256])
    """Checksum of the archive."""
    checksums: HttpUrl | None = Field(None, examples=["https://example.org/v{version}/sha256sum.txt"])
    """Where the release publishes its checksums, if `sha256` is not given. What stood there at the first fetch is
    recorded beside the inventory, and holds from then on."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("a source has exactly one of url and path")
        if self.sha256 is None and (self.url is None or self.checksums is None):
            raise ValueError("nothing downloaded runs unchecked: give the sha256, or for a url where checksums are")
        return self


class GrafanaArchive(OllamaArchive):
    """Where Grafana's archive comes from; exactly one of `url` and `path`. `{version}` stands for the version."""

    url: HttpUrl | None = Field(None, examples=["https://example.org/grafana-{version}.linux-amd64.tar.gz"])
    """An address the controller fetches from: the project's own, or a mirror."""
    path: AbsolutePath | None = Field(None, examples=["/srv/grafana.linux-amd64.tar.gz"])
    """A file on the controller."""


class GrafanaVersion(Strict):
    """Grafana's release."""

    version: Version = Field(examples=["12.3.0"])
    """Names it in the store."""
    source: GrafanaArchive = Field(examples=[{"path": "/srv/grafana.linux-amd64.tar.gz", "sha256": _SHA256}])
    """Its archive."""


class OllamaVersion(Strict):
    """Ollama's release."""

    version: Version = Field(examples=["0.17.4"])
    """Refused below 0.17.1."""
    source: OllamaArchive = Field(examples=[{"path": "/srv/ollama-linux-amd64.tar.zst", "sha256": _SHA256}])
    """Its archive."""


class VllmVersion(Strict):
    """vLLM's release."""

    version: Version = Field(examples=["0.32.0"])
    """Hashed locks of this version lie in roles/vllm/files/locks. Refused below 0.14.1."""


class HuggingFace(Strict):
    """Where repositories of models are."""

    endpoint: BaseUrl = Field("https://huggingface.co", examples=["https://hub.example.org"])
    """Hugging Face, or a mirror of it."""
    token_env: SecretName | None = Field(None, examples=["HF_TOKEN"])
    """Name of the secret that holds the token, for repositories that want one."""


class Versions(Strict):
    """Every component's version and checksum."""

    litellm: LitellmVersion = Field(examples=[{"version": "1.106.2"}])
    """The gateway."""
    llama_cpp: LlamaCppVersion | None = Field(
        None,
        examples=[{"version": "0.3.36", "source": {"sdist": "llama-cpp-python==0.3.36", "sha256": _SHA256}}],
    )
    """llama.cpp's native server."""
    llama_cpp_python: LlamaCppPythonVersion | None = Field(None, examples=[{"version": "0.3.36"}])
    """llama.cpp's server in Python."""
    ollama: OllamaVersion | None = Field(
        None,
        examples=[{"version": "0.17.4", "source": {"path": "/srv/ollama-linux-amd64.tar.zst", "sha256": _SHA256}}],
    )
    """Ollama."""
    vllm: VllmVersion | None = Field(None, examples=[{"version": "0.32.0"}])
    """vLLM."""
    grafana: GrafanaVersion | None = Field(
        None,
        examples=[{"version": "12.3.0", "source": {"path": "/srv/grafana.linux-amd64.tar.gz", "sha256": _SHA256}}],
    )
    """Grafana. Without it dashboards are left out."""
    hugging_face: HuggingFace = Field(HuggingFace(), examples=[{"endpoint": "https://hub.example.org"}])
    """Where `source: {repo: ...}` is fetched from."""


class Catalogue(Strict):
    """The whole: `llm_providers`, `llm_routing`, `llm_gateway`, `llm_clients`, `llm_monitoring` and `llm_versions`
    together."""

    providers: dict[Identifier, Provider] = Field(
        {}, examples=[{"local": {"type": "ollama", "group": "llm_ollama", "port": 11434}}]
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
