"""llama.cpp's native server: one process per model, which is a GGUF file."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from modelyard.engines.base import (
    FORMER_OF_ALL,
    KEY_FILE,
    MODEL,
    OPTIONS,
    Accelerated,
    Engine,
    Flag,
    Metrics,
    Process,
)
from modelyard.kinds import (
    SHA256_EXAMPLE,
    CMakeOption,
    ComputeCapability,
    CudaToolkit,
    FromIndex,
    SourceArchive,
    Version,
)

SIGHT = ("mm", "clip")
"""How the options begin that give a model eyes or ears: `mmproj`, and `clip_model_path` of the
server in Python."""

LAYERS = ("n-gpu-layers", "gpu-layers")
"""The option that says how many layers are on GPUs, by its two names."""


class LlamaCppBuild(Accelerated, FromIndex):
    """How either server of llama.cpp is built. What differs here is another build."""

    cuda_toolkit: CudaToolkit = Field("auto", examples=["/usr/local/cuda-12.9"])
    """The CUDA toolkit of the build. `auto` makes one of packages (13.0, for compute capability 7.5
    and later and a driver from 580 on) in the directory of the build. Older GPUs or drivers need
    one of version 12, which no packages hold: the path of one that is installed on each host."""
    cuda_architectures: list[ComputeCapability] = Field([], examples=[["8.6", "8.9"]])
    """Compute capabilities to build for. Without any, those of the host's GPUs; with those of all
    hosts, one build serves all of them."""
    cmake_options: list[CMakeOption] = Field([], examples=[["-DGGML_AVX512=ON"]])
    """Further options for CMake, which override those of the role."""


class LlamaCppVersion(LlamaCppBuild):
    """The llama.cpp release and how it is built."""

    version: Version = Field(examples=["0.3.36"])
    """Names the build in the store."""
    source: SourceArchive = Field(
        examples=[{"sdist": "llama-cpp-python==0.3.36", "sha256": SHA256_EXAMPLE}]
    )
    """What it is built from."""


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


class LlamaCpp(Engine):
    """What llama.cpp's server does its own way."""

    def gpu_checks(self, process: Process) -> list[dict[str, Any]]:
        """Return the check that layers are on GPUs: all, or some if the user says how many."""
        return [gpu_check(process, "some" if layers_given(process) else "all", "n-gpu-layers")]


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
    health="/health",
    metrics=Metrics(keyed=True),
    vector=(
        Flag("model", MODEL),
        Flag("alias", lambda process: process.model.served),
        Flag("host", lambda process: process.address),
        Flag("port", lambda process: process.port),
        Flag("ctx-size", lambda process: process.model.context_length),
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
        "m a c api-key no-metrics hf-repo hf-file model-url mu ssl-key-file ssl-cert-file"
        " slot-save-path log-file".split()
    ),
    sight=SIGHT,
    closes_connections=True,
)
