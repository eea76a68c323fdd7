"""The catalogue, schema version 1. A key enters the schema together with the code that makes it do something.

Everything is strict: no unknown keys, no silent conversion (`port: "4000"` is refused).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ProviderType = Literal["ollama", "llama_cpp", "vllm", "ollama_cloud", "openai", "anthropic", "openai_compatible"]

ENGINE_TYPES = frozenset({"ollama", "llama_cpp", "vllm"})
"""Types this bundle deploys itself; the others run elsewhere and have a `base_url`."""

CLOUD_TYPES = frozenset({"ollama_cloud", "openai", "anthropic"})
"""Types that cannot be used without a key."""

LLAMA_CPP_OWN_OPTIONS = frozenset(
    "host port model m alias a api-key api-key-file ctx-size c metrics no-metrics hf-repo hf-file model-url "
    "mu ssl-key-file ssl-cert-file slot-save-path log-file".split()
)
"""Flags of llama-server that the unit sets from other keys, or that reach outside its sandbox."""


def _public_name(value: str) -> str:
    if not re.fullmatch(r"[^\s*\"'\\\x00-\x1f\x7f]+", value):
        raise ValueError("a name has no white space, quotes, backslashes or asterisks and is not empty")
    return value


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("not an IP address") from None


def _listen(value: list[str]) -> list[str]:
    if len(value) != len(set(value)):
        raise ValueError("an address stands here twice")
    if len(value) > 1 and not {"0.0.0.0", "::"}.isdisjoint(value):
        raise ValueError("0.0.0.0 and :: are all addresses: they stand alone")
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


def _matching(pattern: str, message: str) -> AfterValidator:
    """A validator that says in words what a value must look like."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_public_name)]
Identifier = Annotated[
    str, _matching(r"[a-z][a-z0-9_-]*", "use lower-case letters, digits, - and _, beginning with a letter")
]
GroupName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "not the name of an inventory group")]
SecretName = Annotated[
    str,
    _matching(r"[A-Z][A-Z0-9_]*", "a secret's name is in capitals, like OPENAI_API_KEY (never the key itself)"),
]
IPAddress = Annotated[str, AfterValidator(_ip_address)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[int | float, Field(gt=0, le=86400)]
Sha256 = Annotated[str, _matching(r"[0-9a-f]{64}", "a sha256 has 64 digits of 0-9a-f")]
AbsolutePath = Annotated[str, _matching(r"/[^\x00-\x1f\x7f]*", "not an absolute path")]
HttpUrl = Annotated[
    str, _matching(r"https?://[^\s/@]+/\S*", "a URL begins with http:// or https:// and holds no credentials")
]
Version = Annotated[str, _matching(r"[0-9]+(\.[0-9]+)+((\.post|rc|a|b)[0-9]+)?", "not a version like 1.106.2")]
Sdist = Annotated[str, _matching(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", "an sdist is NAME==VERSION")]
OptionName = Annotated[
    str, _matching(r"[a-z][a-z0-9-]*", "an option is a long flag without the dashes, like batch-size")
]
OptionText = Annotated[str, _matching(r"[^\x00-\x1f\x7f]*", "an option's value has no control characters")]
CMakeOption = Annotated[str, _matching(r"-D[A-Za-z0-9_]+=\S*", "a CMake option is -DNAME=VALUE")]


class Strict(BaseModel):
    """Base of everything in the catalogue."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelSource(Strict):
    """Where a model file comes from: a `path` on the host, or a `url` with its `sha256`."""

    path: AbsolutePath | None = None
    url: HttpUrl | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("a source has exactly one of path and url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of the file it delivers")
        return self


class Model(Strict):
    """One model of a provider. `name` is what clients ask for."""

    name: Name
    served_name: Name | None = None
    source: ModelSource | None = None
    mode: Literal["chat", "embedding"] = "chat"
    context_length: Positive | None = None
    options: dict[OptionName, OptionText | int | float | bool] = {}
    weight: Positive | None = None
    rpm: Positive | None = None
    tpm: Positive | None = None
    timeout: Seconds | None = None
    hosts: list[str] | None = None
    port: Port | None = None

    @property
    def served(self) -> str:
        """The name the engine knows the model by. The unit and the route both read this."""
        return self.served_name or self.name


class Provider(Strict):
    """Where models run: on the hosts of a `group`, or elsewhere at a `base_url`."""

    type: ProviderType
    flavour: Literal["native", "python"] | None = None
    status: Literal["active", "disabled"] = "active"
    group: GroupName | None = None
    base_url: BaseUrl | None = None
    port: Port | None = None
    api_key_env: SecretName | None = None
    when_secret_missing: Literal["error", "skip"] = "error"
    exclusive_group: Identifier | None = None
    models: list[Model] = []

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
            unused = [key for key in ("port", "exclusive_group", "flavour") if getattr(self, key) is not None]
            if unused:
                raise ValueError(f"{unused[0]} has no effect on a provider with a base_url")
        if self.flavour is not None and self.type != "llama_cpp":
            raise ValueError("only llama_cpp has flavours")
        if self.type in CLOUD_TYPES and self.api_key_env is None:
            raise ValueError(f"{self.type} needs api_key_env, the name of the secret that holds its key")
        if self.api_key_env is None and self.when_secret_missing == "skip":
            raise ValueError("when_secret_missing has no effect without api_key_env")
        return self


class Chain(Strict):
    """Who steps in for a model: a `chain` of names, or nobody (`terminal: true`)."""

    chain: list[Name] | None = None
    terminal: Literal[True] | None = None


class Capability(Strict):
    """A name for a purpose: its models are tried in order."""

    models: Annotated[list[Name], Field(min_length=1)]


class Routing(Strict):
    """Public names and who steps in for whom."""

    fallbacks: dict[Name, Chain] = {}
    aliases: dict[Name, Name] = {}
    capabilities: dict[Name, Capability] = {}


class Slots(Strict):
    """Ports of the two gateway slots behind the door, on loopback."""

    blue: Port = 4001
    green: Port = 4002


class Timeouts(Strict):
    """All in seconds."""

    request_s: Seconds = 600
    stream_s: Seconds = 120
    door_s: Positive = 3600


class Redis(Strict):
    """The Redis the gateways share, if llm_redis has a host."""

    port: Port = 6379
    maxmemory_mib: Annotated[int, Field(ge=16)] = 256
    maxmemory_policy: Literal[
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] = "allkeys-lru"
    persistence: Literal["none", "rdb", "aof"] = "none"


class Gateway(Strict):
    """The gateway and its front door."""

    listen: Annotated[list[IPAddress], Field(min_length=1), AfterValidator(_listen)] = ["127.0.0.1"]
    port: Port = 4000
    slots: Slots = Slots()
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    timeouts: Timeouts = Timeouts()
    cooldown_s: Seconds = 30
    redis: Redis = Redis()


class LitellmVersion(Strict):
    """The gateway's release."""

    version: Version


class SourceArchive(Strict):
    """Where a source archive comes from; always with its checksum."""

    sdist: Sdist | None = None
    url: HttpUrl | None = None
    path: AbsolutePath | None = None
    sha256: Sha256

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.sdist, self.url, self.path)) != 1:
            raise ValueError("a source has exactly one of sdist, url and path")
        return self


class LlamaCppVersion(Strict):
    """The llama.cpp release and how it is built."""

    version: Version
    source: SourceArchive
    cmake_options: list[CMakeOption] = []


class Versions(Strict):
    """Every component's version and checksum."""

    litellm: LitellmVersion
    llama_cpp: LlamaCppVersion | None = None


class Catalogue(Strict):
    """The whole: what `llm_providers`, `llm_routing`, `llm_gateway` and `llm_versions` say together."""

    providers: dict[Identifier, Provider] = {}
    routing: Routing = Routing()
    gateway: Gateway = Gateway()
    versions: Versions | None = None
