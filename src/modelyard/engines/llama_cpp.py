"""llama.cpp's native server: one process per model, which is a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from modelyard.engines.base import (
    FORMER_OF_ALL,
    KEY_FILE,
    MODEL,
    OPTIONS,
    Accelerated,
    Engine,
    Flag,
    Metrics,
    Mistake,
    Option,
    Process,
    Value,
)
from modelyard.kinds import (
    SHA256_EXAMPLE,
    CMakeOption,
    ComputeCapability,
    CudaToolkit,
    FromIndex,
    Matching,
    SourceArchive,
    Unique,
    distinct,
    misfit,
)

if TYPE_CHECKING:
    from modelyard.catalogue.models import Model

SIGHT = ("mm", "clip")
"""How the options begin that give a model eyes or ears: `mmproj`, and `clip_model_path` of the
server in Python."""

LAYERS = ("n-gpu-layers", "gpu-layers")
"""The option that says how many layers are on GPUs, by its two names."""


PACKAGED = ("13.0", "7.5 8.0 8.6 8.7 8.8 8.9 9.0 10.0 10.3 11.0 12.0 12.1".split())
"""The toolkit made of packages, and what it compiles for (`nvcc --list-gpu-code`)."""
OLDEST, NEWEST = (5, 0), (12, 1)
"""What any toolkit that is built with compiles for (gpu/cuda.py)."""


class LlamaCppBuild(Accelerated, FromIndex):
    """How either server of llama.cpp is built. What differs here is another build."""

    gpu_keys = ("cuda_toolkit", "cuda_architectures")

    cuda_toolkit: CudaToolkit = Field("auto", examples=["/usr/local/cuda-12.9"])
    """The CUDA toolkit of the build. `auto` makes one of packages (13.0, for compute capability 7.5
    and later and a driver from 580 on) in the directory of the build. Older GPUs or drivers need
    one of version 12, which no packages hold: the path of one that is installed on each host."""
    cuda_architectures: Annotated[list[ComputeCapability], AfterValidator(distinct), Unique] = (
        Field([], examples=[["8.6", "8.9"]])
    )
    """Compute capabilities to build for. Without any, those of the host's GPUs; with those of all
    hosts, one build serves all of them."""
    cmake_options: list[CMakeOption] = Field([], examples=[["-DGGML_AVX512=ON"]])
    """Further options for CMake, which override those of the role."""

    @model_validator(mode="after")
    def _with_gpus(self) -> Self:
        off = re.compile(r"-DGGML_CUDA(:\w+)?=(OFF|0|NO|FALSE|N)", re.IGNORECASE)
        if self.backend == "cuda" and any(map(off.fullmatch, self.cmake_options)):
            raise misfit(
                "backend is cuda, and a CMake option builds without CUDA",
                "cmake_options",
                hint="remove -DGGML_CUDA, or set backend: cpu",
            )
        return self

    @model_validator(mode="after")
    def _compiled_for(self) -> Self:
        version, packaged = PACKAGED
        for text in self.cuda_architectures if self.backend != "cpu" else ():
            major, _, minor = text.partition(".")
            if self.cuda_toolkit == "auto" and text not in packaged:
                raise misfit(
                    f"CUDA toolkit {version} does not build for compute capability {text}",
                    "cuda_architectures",
                    hint=f"it builds for {', '.join(packaged)}; for others set cuda_toolkit to the"
                    " path of one that does",
                )
            if not OLDEST <= (int(major), int(minor)) <= NEWEST:
                raise misfit(
                    f"no CUDA toolkit builds for compute capability {text}",
                    "cuda_architectures",
                    hint="nvidia-smi --query-gpu=compute_cap --format=csv prints that of a GPU",
                )
        return self


class _SourceVersion(Matching):
    """The version of a source; a tag is not enough without the archive of that tag."""

    __slots__ = ()

    def rewritten(self, value: str, meant: str) -> str:
        hint = super().rewritten(value, meant)
        if not meant.startswith("b"):
            return hint
        return f"{hint}, and its archive: source: {{sdist: null, url: ..., sha256: ...}}"


LlamaCppRelease = Annotated[
    str,
    _SourceVersion(
        "llama.cpp version",
        r"b[0-9]{3,7}|[0-9]+(\.[0-9]+)+((\.post|rc|a|b)[0-9]+)?",
        "a version is that of the source: of llama-cpp-python like 0.3.36, or a tag of llama.cpp"
        " like b8200",
        lambda text: re.sub(r"^v?(?=[0-9])(?=[0-9]+$)", "b", text.strip().lower()).lstrip("v="),
    ),
]


class LlamaCppVersion(LlamaCppBuild):
    """The llama.cpp release and how it is built."""

    # GHSA-3p4r-fq3f-q74v: a GGUF file writes beyond its buffer before b8146.
    builds_floor: ClassVar[int] = 8146
    version: LlamaCppRelease = Field(
        examples=["0.3.36", "b8200"],
        description=(
            "Names the build in the store: the version of the `sdist`, or the tag of llama.cpp"
            f" that a `url` or `path` is of. Tags below b{builds_floor} are refused."
        ),
    )
    source: SourceArchive = Field(
        examples=[{"sdist": "llama-cpp-python==0.3.36", "sha256": SHA256_EXAMPLE}]
    )
    """What it is built from."""

    @classmethod
    def least(cls, version: str) -> str:
        """Return the oldest tag that is deployed, if `version` is an older one."""
        if not version.startswith("b"):
            return super().least(version)
        return f"b{cls.builds_floor}" if int(version[1:]) < cls.builds_floor else ""


FORMER = {
    **FORMER_OF_ALL,
    **{
        key: ("versions", key)
        for key in ("backend", "cuda_architectures", "cuda_toolkit", "index_url")
    },
}
"""Former variables of either role."""


def layers_given(process: Process) -> bool:
    """Return whether the user said how many layers are on GPUs."""
    return any(process.options.get(name, False) is not False for name in LAYERS)


def gpu_check(process: Process, layers: str, options: str) -> dict[str, Any]:
    """Return the check that a process computes on its GPUs. `layers`: all of them are to be there,
    or some.
    """
    unit = f"modelyard-{process.service}.service"
    return {
        "name": f"{process.service} uses its GPUs",
        "service": process.service,
        "kind": "gpu",
        "unit": unit,
        "layers": layers,
        "hint": (
            f"journalctl -u {unit} shows why CUDA was not used; check the driver (nvidia-smi), "
            f"CUDA_VISIBLE_DEVICES in the unit, and {options} in the model's options"
        ),
    }


PARALLEL = "parallel"
"""The option that says how many requests are answered at once."""

SLOTS = 4
"""Requests at once, unless `parallel` says otherwise: the server's own number."""

WHOLE_TOKENS = 8192
"""Tokens of the longest input of an embedding model that does not say `context_length`: what the
common models with long inputs take. The server makes its buffers no longer than the model's own
context."""

EMBEDS = ("embedding", "embeddings")
"""The option that starts the server for embeddings, by its two names."""

RERANKS = ("rerank", "reranking")
"""The option that starts it for a path that the gateway does not serve, by its two names."""

HTTP_THREADS = 128
"""Threads of the server that answer connections. One that waits costs some KiB."""

MICRO_BATCHES = ("batch-size", "ubatch-size")
"""An input is embedded in one batch and one micro-batch (server-context.cpp, `can_split`)."""


def whole_number(value: Option) -> int | None:
    """Return an option's value as the server reads it, if that is a whole number above 0."""
    text = str(value)
    return int(text) if text.isdecimal() and int(text) > 0 else None


def slots_of(model: Model) -> int:
    """Return how many requests are answered at once, each with `context_length` tokens.

    Without a `context_length` only the host knows the model's own, which several would divide: then
    it is one request after the other.
    """
    if model.context_length is None:
        return 1
    return whole_number(model.options.get(PARALLEL, SLOTS)) or SLOTS


def embeddings(process: Process) -> bool:
    """Return whether the flag for embeddings is to be added: the options may have it."""
    return process.model.mode == "embedding" and not any(name in process.options for name in EMBEDS)


def context_size(process: Process) -> int | None:
    """Return the tokens of all requests that are answered at once."""
    length = process.model.context_length
    return None if length is None else length * slots_of(process.model)


def batches(model: Model) -> dict[str, Option]:
    """Return the options of batch and micro-batch that have to hold a whole input; none of a model
    that chats.
    """
    if model.mode != "embedding":
        return {}
    length = model.context_length or WHOLE_TOKENS
    return {name: model.options.get(name, length) for name in MICRO_BATCHES}


def batch_flag(name: str) -> Flag:
    """Return the flag of a batch, for a model whose options do not have it."""

    def value(process: Process) -> Value:
        return None if name in process.options else batches(process.model).get(name)

    return Flag(name, value, default=True)


class LlamaCpp(Engine):
    """What llama.cpp's server does its own way."""

    def slots(self, model: Model, settings: Any) -> int:
        """Return `parallel`, or the default."""
        return slots_of(model)

    def parallel(self, models: Sequence[Model], settings: Any) -> int | None:
        """Return the slots of its model."""
        return slots_of(models[0])

    def context(self, model: Model, settings: Any) -> int | None:
        """Return the tokens of context of all requests; None if it is the model's own."""
        return None if model.context_length is None else model.context_length * slots_of(model)

    def options(self, model: Model) -> dict[str, Option]:
        """Return the options, and of an embedding model the micro-batch."""
        return {**model.options, **batches(model)}

    def width(self, model: Model, given: int) -> int:
        """Return as many GPUs as it was given, or as the options name by number: it sees no others,
        and does not start with a number that it does not see (commit 0c1e570, common/arg.cpp).
        """
        named = re.findall(r"CUDA(\d+)", str(model.options.get("device", "")))
        if model.options.get("split-mode") == "none":
            named.append(str(model.options.get("main-gpu", 0)))
        return max(given, *(int(number) + 1 for number in named if number.isdecimal()), 1)

    def mistakes(self, model: Model) -> list[Mistake]:
        """Return options that contradict the model's `mode` or `context_length`."""
        return [*_of_slots(model), *_of_mode(model)]

    def gpu_checks(self, process: Process) -> list[dict[str, Any]]:
        """Return the check that layers are on GPUs: all, or some if the user says how many."""
        return [gpu_check(process, "some" if layers_given(process) else "all", "n-gpu-layers")]


def _of_slots(model: Model) -> Iterator[Mistake]:
    if PARALLEL not in model.options:
        return
    key = ("options", PARALLEL)
    number = whole_number(model.options[PARALLEL])
    if number is None:
        yield Mistake(
            "invalid-value",
            key,
            f'{PARALLEL} of "{model.name}" has to be a whole number above 0',
            f"write how many requests it answers at once, or remove it: {SLOTS} is the default",
        )
    elif number > 1 and model.context_length is None:
        yield Mistake(
            "missing-key",
            key,
            f'{PARALLEL} of "{model.name}" would divide the model\'s own context among {number}'
            " requests",
            "add context_length, the tokens that one request may have: each of them gets as many",
        )


def _of_mode(model: Model) -> Iterator[Mistake]:
    for name in RERANKS:
        if model.options.get(name, False) is not False:
            yield Mistake(
                "invalid-value",
                ("options", name),
                f'"{model.name}" would only rank documents, and the gateway has no path for that',
                "remove it",
            )
    given = [name for name in EMBEDS if name in model.options]
    if model.mode != "embedding":
        for name in given:
            if model.options[name] is not False:
                yield Mistake(
                    "invalid-value",
                    ("options", name),
                    f'"{model.name}" would answer embeddings only, and its mode is {model.mode}',
                    "write mode: embedding, which starts the engine for it, and remove this option",
                )
        return
    for name in given:
        if model.options[name] is False:
            yield Mistake(
                "invalid-value",
                ("options", name),
                f'"{model.name}" has mode: embedding, and the engine would not be started for it',
                "remove it",
            )
    if model.options.get("pooling") in ("none", "rank"):
        yield Mistake(
            "invalid-value",
            ("options", "pooling"),
            f'"{model.name}" would not give one vector for each input',
            "use mean, cls or last, or remove it where the model's file says which",
        )
    for name in MICRO_BATCHES:
        size, least = model.options.get(name), model.context_length or 1
        if size is not None and (whole_number(size) or 0) < least:
            yield Mistake(
                "invalid-value",
                ("options", name),
                f'{name} of "{model.name}" is less than its context_length: an embedding model'
                " reads an input at once, so longer ones would fail",
                "remove it: it follows from context_length",
            )


ENGINE = LlamaCpp(
    title="llama.cpp",
    provider_type="llama_cpp",
    flavour="native",
    role="llama_cpp",
    version=LlamaCppVersion,
    version_example={
        "version": "0.3.36",
        "source": {"sdist": "llama-cpp-python==0.3.36", "sha256": SHA256_EXAMPLE},
    },
    former=FORMER,
    splits=True,
    keys=frozenset({"port"}),
    spreads=("device", "main-gpu"),
    health="/health",
    metrics=Metrics(keyed=True),
    vector=(
        Flag("model", MODEL),
        Flag("alias", lambda process: process.model.served),
        Flag("host", lambda process: process.address),
        Flag("port", lambda process: process.port),
        # The context of all slots. Left to itself the server has four that share it: two long
        # requests at once both failed with 500. One cache for all (`kv-unified`) also makes a model
        # with two sets of factors for long contexts choose by the sum (llama-model.cpp).
        Flag("ctx-size", context_size),
        Flag(
            PARALLEL,
            lambda process: None if PARALLEL in process.options else slots_of(process.model),
            default=True,
        ),
        Flag("no-kv-unified"),
        # Each connection holds a thread for as long as it is open, a stream to its end. By default
        # there are as many as cores, or a few more than slots: with requests of two gateways none
        # was left for their health checks.
        Flag("threads-http", HTTP_THREADS, default=True),
        Flag("embeddings", embeddings, default=True),
        *map(batch_flag, MICRO_BATCHES),
        # By default it silently keeps on the CPU what does not fit.
        Flag(
            "n-gpu-layers",
            lambda process: None if layers_given(process) else "all",
            default=True,
            gpu=True,
        ),
        OPTIONS,
        Flag("metrics"),
        Flag("offline"),
        Flag("api-key-file", KEY_FILE),
    ),
    unsafe=frozenset(
        # Of `llama-server --help` (the llama.cpp of 0.3.36): other names of what the unit sets,
        "m a c np kv-unified kvu no-kvu kv-unified-per-slot api-key no-metrics ssl-key-file"
        " ssl-cert-file api-prefix reuse-port"
        # tokens, and models from elsewhere; a preset is a download, too,
        " hf-token hft hf-repo hf hfr hf-file hff hf-repo-draft hfd hfrd spec-draft-hf hf-repo-v hfv"
        " hfrv hf-file-v hffv docker-repo dr model-url mu mmproj-url mmu models-dir models-preset"
        " models-max models-autoload embd-gemma-default fim-qwen-1 fim-qwen-1.5b-default"
        " fim-qwen-3b-default fim-qwen-7b-default fim-qwen-7b-spec fim-qwen-14b-spec"
        " fim-qwen-30b-default gpt-oss-20b-default gpt-oss-120b-default vision-gemma-4b-default"
        " vision-gemma-12b-default"
        # other hosts and programs, files for whoever asks,
        " rpc tools tools-runtime agent ag mcp-servers-config mcp-servers-json ui-mcp-proxy"
        " webui-mcp-proxy path media-path slot-save-path log-file log-prompts-dir"
        # and what prints something and ends.
        " help h usage version list-devices cache-list cl completion-bash".split()
    ),
    own={
        **dict.fromkeys(
            ("m", "model-url", "mu", "hf-repo", "hf", "hfr", "docker-repo", "dr"),
            "use the key source",
        ),
        **dict.fromkeys(("hf-file", "hff"), "use file of the key source"),
        **dict.fromkeys(("a", "alias"), "use the key served_name"),
        **dict.fromkeys(("c", "ctx-size"), "use the key context_length"),
        "np": f"use the option {PARALLEL}",
    },
    sight=SIGHT,
    # 0.3.36, tools/server/server.cpp
    paths=frozenset(
        "chat/completions completions responses embeddings audio/transcriptions".split()
    ),
    embedding_hint=(
        "a model whose file does not say its pooling needs it in its options: mean, cls or last"
    ),
    closes_connections=True,
)
