"""`llm_providers.*.models`: the models of a provider."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from modelyard.engines import types_of
from modelyard.kinds import (
    SHA256_EXAMPLE,
    AbsolutePath,
    FileName,
    GpuId,
    HttpUrl,
    Name,
    OptionName,
    OptionText,
    PerMinute,
    Port,
    Positive,
    Repository,
    Revision,
    Seconds,
    Sha256,
    Strict,
    Tag,
    Tokens,
    Unique,
    UsDollars,
    WholeSeconds,
    distinct,
    mebibytes,
    misfit,
    unit,
)

ENGINE_KEYS = ("quantization", "adapter_of", "preload", "port")
"""Keys of a model that mean something to some engines only: each says which (`Engine.keys`)."""

DIRECTORIES = types_of(lambda engine: engine.takes == "directory")

PULLING = types_of(lambda engine: engine.pulls)


def only_for(key: str) -> str:
    """Return the types whose engines know a key of a model."""
    return types_of(lambda engine: key in engine.keys)


LEAST_MIB, MOST_MIB = 128, 8 * 1024**2
"""CUDA alone takes more, and no host has GPUs with as much: other numbers are of other units."""


def _needed(value: int) -> int:
    return mebibytes(value, LEAST_MIB, MOST_MIB, "a model on a GPU")


class ModelSource(Strict):
    """Where a model's files come from: a `path` on the host, a `url` with its `sha256`, or a `repo`
    of Hugging Face.
    """

    path: AbsolutePath | None = Field(
        None,
        examples=["/srv/models/qwen.gguf"],
        description=f"What is already on the host: a GGUF file; for {DIRECTORIES} a directory.",
    )
    url: HttpUrl | None = Field(
        None,
        examples=["https://example.org/qwen.gguf"],
        description=(
            f"Where the host fetches the file from, once. Not for {DIRECTORIES}, whose models are"
            " directories."
        ),
    )
    repo: Repository | None = Field(None, examples=["Qwen/Qwen2.5-Coder-7B-Instruct-GGUF"])
    """A repository of Hugging Face, at `llm_versions.hugging_face.endpoint`."""
    revision: Revision | None = Field(None, examples=["13fbf4ed4e7b3d2e5a2a6f3a2f6d7b3f0a1b2c3d"])
    """The commit of `repo`, so that the model cannot change unnoticed."""
    file: FileName | None = Field(
        None,
        examples=["qwen2.5-coder-7b-instruct-q4_k_m.gguf"],
        description=(
            f"The GGUF file in `repo`. Not for {DIRECTORIES}, which takes the whole repository."
        ),
    )
    sha256: Sha256 | None = Field(None, examples=[SHA256_EXAMPLE])
    """Checksum of the file, as `sha256sum` prints it. A `url` must have one; for a `repo` the one
    it publishes is taken by default."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.path, self.url, self.repo)) != 1:
            raise misfit("a source needs exactly one of path, url and repo", "path", "url", "repo")
        if self.url is not None and self.sha256 is None:
            raise misfit("a url needs sha256, the checksum of its file", "url")
        if self.repo is not None and self.revision is None:
            raise misfit("a repo needs revision, the commit to fetch", "repo")
        if self.repo is None and (self.revision is not None or self.file is not None):
            raise misfit("revision and file are only valid with repo", "revision", "file")
        return self


class Price(Strict):
    """What tokens cost. Without it the gateway takes its own list, which knows cloud models
    only.
    """

    input: UsDollars = Field(examples=[0.15], json_schema_extra=unit("USD per million tokens"))
    """Tokens of the request."""
    output: UsDollars = Field(examples=[0.6], json_schema_extra=unit("USD per million tokens"))
    """Tokens of the answer."""


class Model(Strict):
    """One model of a provider."""

    name: Name = Field(examples=["qwen2.5-coder:7b"])
    """The public name, which clients use."""
    served_name: Name | None = Field(
        None,
        examples=["qwen2.5-coder-7b-instruct"],
        description=(
            f"What the engine calls it, if different ({PULLING}: the tag). The engine is started"
            " with it and the gateway asks for it. Default: `name`."
        ),
    )
    source: ModelSource | None = Field(
        None,
        examples=[{"path": "/srv/models/qwen.gguf"}],
        description=(
            f"The model's files. {types_of(lambda engine: not engine.pulls)} on hosts of ours need"
            f" it. {PULLING} pulls the tag `served_name` without it, and makes the model from this"
            " GGUF file with it."
        ),
    )
    mode: Literal["chat", "embedding"] = Field("chat", examples=["embedding"])
    """The kind of requests it answers. A chain holds models of one mode, and that of an embedding
    model only the same model elsewhere."""
    context_length: Tokens | None = Field(None, examples=[8192], json_schema_extra=unit("tokens"))
    """The context window: what one request may have, its answer included. An engine of ours keeps
    as much for every request that it answers at once (default: the model's own); for a model that
    runs elsewhere it is what that model takes. `plan` warns where it shrinks along a chain."""
    quantization: OptionText | None = Field(
        None,
        examples=["awq"],
        description=(
            f"{only_for('quantization')} only: how the weights are quantized. Default: what the"
            " model itself says."
        ),
    )
    options: dict[OptionName, OptionText | int | float | bool] = Field(
        {},
        examples=[{"threads": 8, "batch-size": 512}],
        description=(
            "Flags of the engine without dashes. `true` is a flag without value, `false` leaves it"
            f" out. For {types_of(lambda engine: not engine.vector)}: parameters of the model, such"
            " as `temperature` and `num-gpu`."
        ),
    )
    adapter_of: Name | None = Field(
        None,
        examples=["qwen-coder"],
        description=(
            f"{only_for('adapter_of')} only: this is a LoRA adapter (its `source`) of that model of"
            " the same provider. One process serves both, each by its name."
        ),
    )
    preload: bool = Field(
        False,
        examples=[True],
        description=(
            f"{only_for('preload')} only: it is loaded when the server starts and stays loaded."
        ),
    )
    tags: list[Tag] = Field([], examples=[["eu"]])
    """A request with one of these tags (header `x-litellm-tags`) goes to the deployments that have
    it. Others take a deployment without tags if there is one."""
    gpus: Annotated[list[GpuId], Field(min_length=1), AfterValidator(distinct), Unique] | None = (
        Field(None, examples=[[0], ["GPU-5d2b7c3e-0000-0000-0000-000000000000"]])
    )
    """GPUs of the host by index or UUID. Default: the first of `llm_gpus` with room for `vram_mib`;
    without that the engine's own choice."""
    vram_mib: Annotated[Positive, AfterValidator(_needed)] | None = Field(
        None, examples=[6144], json_schema_extra=unit("MiB")
    )
    """GPU memory it needs. More than the GPUs have is refused. On several GPUs each holds an equal
    share. An engine that reserves a part of a GPU takes this much where `llm_gpus` is declared.
    Default: estimated from the header of a GGUF file that is on the host."""
    weight: Annotated[int, Field(gt=0, le=10000)] | None = Field(None, examples=[3])
    """Only where two providers share one public name: the share of requests each gets."""
    rpm: PerMinute | None = Field(
        None, examples=[60], json_schema_extra=unit("requests per minute")
    )
    """Requests the gateway lets through to the model, all hosts of its provider together. The next
    step of the chain takes the rest."""
    tpm: Annotated[int, Field(gt=0, le=10**10)] | None = Field(
        None, examples=[100000], json_schema_extra=unit("tokens per minute")
    )
    """Tokens the gateway lets through to the model, all hosts of its provider together, counted
    after the answer."""
    price: Price | None = Field(None, examples=[{"input": 0.15, "output": 0.6}])
    """What tokens cost, for the gateway's metrics."""
    timeout: Seconds | None = Field(None, examples=[120], json_schema_extra=unit("seconds"))
    """One attempt may take this long. Default: the provider's `timeout`."""
    stream_timeout: Seconds | None = Field(None, examples=[60], json_schema_extra=unit("seconds"))
    """A stream may be silent this long, the wait for its first token included. Default: the
    provider's `stream_timeout`."""
    max_parallel: Annotated[int, Field(gt=0, le=10000)] | None = Field(None, examples=[4])
    """Engines of ours with a process per model only: requests that a gateway sends to one host at
    once. What is over it waits. Default: the provider's `max_parallel`, else what the engine
    answers at once, where that is known."""
    queue_s: WholeSeconds | None = Field(None, examples=[20], json_schema_extra=unit("seconds"))
    """Engines of ours with a process per model only: a request waits this long for a host that has
    room, then the next step of the chain answers. Default: the provider's `queue_s`."""
    hosts: Annotated[list[str], AfterValidator(distinct), Unique] | None = Field(
        None, examples=[["gpu1"]]
    )
    """Serve it on these hosts of the group only. Default: on all."""
    port: Port | None = Field(
        None,
        examples=[8081],
        description=(
            f"{only_for('port')} run one process per model: all but one on a host need a port of"
            " their own."
        ),
    )

    @property
    def served(self) -> str:
        """The name the engine knows the model by. The unit and the route both read this."""
        return self.served_name or self.name

    @property
    def planned_source(self) -> dict[str, Any] | None:
        """`source` as a plan says it."""
        return self.source.model_dump(exclude_none=True) if self.source else None
