"""vLLM: one process per model, which is a directory; LoRA adapters share the process of their
model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    Process,
)
from modelyard.kinds import FromIndex, Positive, Strict, Version, refused_below, unit

if TYPE_CHECKING:
    from modelyard.catalogue.models import Model


QUANTIZATIONS = (
    "auto_awq auto_gptq awq awq_marlin compressed-tensors deepseek_v4_fp8 experts_int8 fbgemm_fp8"
    " fp8 fp8_per_block fp8_per_channel fp8_per_tensor fp_quant gpt_oss_mxfp4 gptq gptq_marlin"
    " humming inc int8_per_channel_weight_only modelopt modelopt_fp4 modelopt_mixed modelopt_mxfp8"
    " moe_wna16 mxfp4 mxfp8 nvfp4_per_token online quark torchao"
)
"""0.32.0, vllm/model_executor/layers/quantization."""


class VllmSettings(Strict):
    """How a deployed vLLM runs."""

    cpu_kv_cache_gib: Positive = Field(4, examples=[8], json_schema_extra=unit("GiB"))
    """Memory for the context of all requests, with the CPU build. On GPUs it is a share
    of their memory, and an option of the model: `gpu-memory-utilization`."""


class VllmVersion(Accelerated, FromIndex):
    """vLLM's release."""

    floor = (0, 14, 1)
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


def _tensor_parallel(process: Process) -> int | None:
    """Return how many GPUs a model is split over: all it has, if several. None for one, or if the
    user says how.
    """
    gpus = process.model.gpus or []
    parallel = {"tensor-parallel-size", "pipeline-parallel-size"} & process.options.keys()
    return len(gpus) if len(gpus) > 1 and not parallel else None


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

    def unestimated(self, model: Model) -> str | None:
        """Return why there never is an estimate: vLLM reserves a share of the GPU."""
        return (
            "vLLM reserves a share of the GPU that its options set; declare vram_mib to have it"
            " counted"
        )


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
    quantizations=frozenset(QUANTIZATIONS.split()),
    quantizations_of="0.32.0",
    health="/health",
    metrics=Metrics(keyed=False),
    # Later words win, so those of the plan come last.
    vector=(
        OPTIONS,
        Flag("quantization", lambda process: process.model.quantization),
        Flag("tensor-parallel-size", _tensor_parallel, default=True),
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
        "uds api-key trust-remote-code revision code-revision tokenizer-revision hf-token"
        " download-dir ssl-keyfile ssl-certfile ssl-ca-certs root-path config".split()
    ),
)
