"""vLLM: one process per model, which is a directory; LoRA adapters share the process of their
model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from modelyard.engines.base import (
    ADAPTERS,
    FORMER_OF_ALL,
    MODEL,
    OPTIONS,
    Accelerated,
    Backend,
    Engine,
    Flag,
    Metrics,
    Mistake,
    Option,
    Process,
)
from modelyard.kinds import FromIndex, Strict, Version, refused_below, unit

if TYPE_CHECKING:
    from modelyard.catalogue.models import Model


SEQUENCES = "max-num-seqs"
"""The option that says how many requests are worked on at once (0.32.0, vllm/config)."""

QUANTIZATIONS = (
    "auto_awq auto_gptq awq awq_marlin compressed-tensors deepseek_v4_fp8 experts_int8 fbgemm_fp8"
    " fp8 fp8_per_block fp8_per_channel fp8_per_tensor fp_quant gpt_oss_mxfp4 gptq gptq_marlin"
    " humming inc int8_per_channel_weight_only modelopt modelopt_fp4 modelopt_mixed modelopt_mxfp8"
    " moe_wna16 mxfp4 mxfp8 nvfp4_per_token online quark torchao"
)
"""0.32.0, vllm/model_executor/layers/quantization."""


class VllmSettings(Strict):
    """How a deployed vLLM runs."""

    cpu_kv_cache_gib: Annotated[int, Field(gt=0, le=1024)] = Field(
        4, examples=[8], json_schema_extra=unit("GiB")
    )
    """Memory for the context of all requests, with the CPU build. On GPUs `vram_mib` of the model
    says how much of their memory vLLM takes for all, or its option `gpu-memory-utilization`."""


class VllmVersion(Accelerated, FromIndex):
    """vLLM's release."""

    # CVE-2026-27893: up to 0.17 code of a model runs whatever trust-remote-code says.
    floor = (0, 18, 0)
    version: Version = Field(
        examples=["0.32.0"],
        description=(
            "roles/vllm/files/locks needs lock files with hashes of this version."
            f" {refused_below(floor)}"
        ),
    )
    backend: Backend = Field("cuda", examples=["cpu"])
    """`cuda`: vLLM's own build for NVIDIA GPUs; hosts without one are refused. `cpu`: a community's
    rebuild of the same version, slow, to try things without GPUs: its models are not placed on
    GPUs. `auto`: each host gets the build that suits it."""


SPREADS = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "prefill-context-parallel-size",
    "data-parallel-size",
)
"""Options of which each multiplies the GPUs of an instance (0.32.0, vllm/config/parallel.py)."""
LOCAL = "data-parallel-size-local"
"""What counts on this host instead of `data-parallel-size`."""

SHARES = ("gpu-memory-utilization", "device-memory-utilization")
"""The option for the part of each GPU's memory that is reserved, by its two names."""


def _tensor_parallel(process: Process) -> int | None:
    """Return how many GPUs a model is split over: all it has, if several. None for one, or if the
    user says how.
    """
    gpus = process.model.gpus or []
    return len(gpus) if len(gpus) > 1 and not {*SPREADS, LOCAL} & process.options.keys() else None


def _share(process: Process) -> str | None:
    return None if set(SHARES) & process.options.keys() else process.share


class Vllm(Engine):
    """What vLLM does its own way."""

    def instance(self, process: Process) -> dict[str, Any]:
        """Return the keys of all engines, `adapters` and `settings`. `arguments` are all words
        before --model.
        """
        adapters = [
            {"name": model.served, "source": model.planned_source} for model in process.adapters
        ]
        words = self.argv(process)
        return {
            **super().instance(process),
            "arguments": words[: words.index("--model")],
            "adapters": adapters,
            "settings": process.settings.model_dump(),
        }

    def width(self, model: Model, given: int) -> int:
        """Return the product of all ways in which the options split a model or copy it; without any
        it is split over all that was given.
        """
        sizes = [name for name in SPREADS if name in model.options]
        if LOCAL in model.options:
            sizes = [*(name for name in sizes if name != "data-parallel-size"), LOCAL]
        if not sizes:
            return given
        return prod(_size(model.options[name]) or 1 for name in sizes)

    def parallel(self, models: Sequence[Model], settings: Any) -> int | None:
        """Return the option that says how many sequences run at once. Its default depends on the
        GPU, and what is over it waits inside.
        """
        return _size(models[0].options.get(SEQUENCES, ""))

    def mistakes(self, model: Model) -> list[Mistake]:
        """Return options that vLLM refuses when it starts."""
        return [
            *(
                Mistake(
                    "invalid-value",
                    ("options", name),
                    f'option "{name}" of "{model.name}" must be a whole number above 0',
                    "it is a number of GPUs",
                )
                for name in (*SPREADS, LOCAL)
                if name in model.options and _size(model.options[name]) is None
            ),
            *(
                Mistake(
                    "invalid-value",
                    ("options", name),
                    f'option "{name}" of "{model.name}" must be above 0 and at most 1',
                    f"it is a part of the memory of each GPU: {_part(model.options[name])}",
                )
                for name in SHARES
                if name in model.options and self.share_of(model) is None
            ),
        ]

    def unestimated(self, model: Model) -> str | None:
        """Return why there never is an estimate: vLLM reserves a share of the GPU."""
        return "vLLM reserves a share of the GPU, which its option or vram_mib sets"


def _size(value: Option) -> int | None:
    """Return a number of GPUs as an option says it; None for what is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def _part(value: Option) -> str:
    """Return what to write for a part, which may have been given in percent."""
    text = str(value).removesuffix("%").strip()
    percent = float(text) if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", text) else 0
    return f"write {percent / 100:g}" if 1 < percent <= 100 else "0.5 is half of it"


ENGINE = Vllm(
    title="vLLM",
    provider_type="vllm",
    role="vllm",
    version=VllmVersion,
    version_example={"version": "0.32.0"},
    settings=VllmSettings,
    settings_example={"cpu_kv_cache_gib": 8},
    former={
        **FORMER_OF_ALL,
        "build": ("versions", "backend"),
        "cpu_kv_cache_gib": ("providers", "vllm", "cpu_kv_cache_gib"),
        "index_url": ("versions", "index_url"),
    },
    # Large models take many minutes: to read, to compile and to measure.
    ready_timeout_s=1800,
    locked=True,
    takes="directory",
    keys=frozenset({"port", "quantization", "adapter_of"}),
    cpu_keys=("cpu_kv_cache_gib",),
    spreads=(*SPREADS, LOCAL),
    shares=SHARES,
    share=0.92,  # 0.32.0, vllm/config/cache.py
    quantizations=frozenset(QUANTIZATIONS.split()),
    quantizations_of="0.32.0",
    health="/health",
    paths=frozenset(
        "chat/completions completions embeddings responses audio/transcriptions".split()
    ),
    metrics=Metrics(keyed=False),
    # Later words win, so those of the plan come last.
    vector=(
        OPTIONS,
        Flag("quantization", lambda process: process.model.quantization),
        Flag("tensor-parallel-size", _tensor_parallel, default=True),
        Flag("gpu-memory-utilization", _share, default=True),
        Flag("model", MODEL),
        Flag("served-model-name", lambda process: process.model.served),
        Flag("host", lambda process: process.address),
        Flag("port", lambda process: process.port),
        Flag("max-model-len", lambda process: process.model.context_length),
        Flag("enable-lora", lambda process: bool(process.adapters)),
        Flag("lora-modules", lambda process: [ADAPTERS] if process.adapters else None),
        # Its key guards a few paths only (0.32.0); a file of the role, in the release, closes the
        # rest.
        Flag("middleware", "modelyard_guard.Guard"),
    ),
    unsafe=frozenset(
        # Of `vllm serve --help=all` (0.32.0): secrets, and code or models from elsewhere,
        "api-key hf-token trust-remote-code trust-request-chat-template revision code-revision"
        " tokenizer-revision download-dir config"
        # what the unit and the front end are for,
        " uds ssl-keyfile ssl-certfile ssl-ca-certs ssl-cert-reqs ssl-ciphers enable-ssl-refresh"
        " root-path"
        # files and services for whoever asks, and processes on other hosts,
        " allowed-local-media-path tool-server nnodes node-rank master-addr master-port"
        " data-parallel-address data-parallel-rpc-port data-parallel-start-rank"
        " data-parallel-hybrid-lb data-parallel-external-lb data-parallel-multi-port-external-lb"
        # and what is no server for requests of OpenAI's kind.
        " headless grpc help version".split()
    ),
    own={
        "served-model-name": "use the key served_name",
        "max-model-len": "use the key context_length",
        "quantization": "use the key quantization",
        "revision": "use revision of the key source",
        **dict.fromkeys(("enable-lora", "lora-modules"), "use the key adapter_of of the adapter"),
    },
    abbreviates=True,
    whole=frozenset({"tokenizer"}),
)
