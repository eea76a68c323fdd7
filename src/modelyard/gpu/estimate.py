"""How much GPU memory a model of a GGUF file needs: weights, cache of its context, and buffers.

Taken from llama.cpp's source (commit 0c1e570) and from logs that people published, not measured
here on a GPU:

    weights    All tensors but those that are only looked up; the reader leaves these out. (Of a
               Llama 3 8B of 4685 MiB 4403 are on the GPU, according to its log.)
    cache      Per layer: tokens x KV heads x (key + value length) x bytes per number
               (llama-kv-cache.cpp), where tokens are those of all slots: each has a cache of its
               own. A layer with a sliding window keeps window + micro-batch tokens per slot
               (llama-kv-cache-iswa.cpp). Where a header does not tell which
               layers have one, all count in full; so do recurrent layers (Mamba and its like).
    computing  The buffer of a micro-batch: 512 x (vocabulary + embedding) numbers of 4 bytes
               (Llama 3 8B: 250.5 + 8 MiB, its log says 258.50), a mask of 512 x the context of a
               slot numbers, and 512 MiB for CUDA itself.

It is an estimate, and is shown as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

MIB = 1 << 20
CUDA_MIB = 512
MICRO_BATCH = 512
MOST_LAYERS = 4096
NUMBER_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes per number of a cache, by `--cache-type-k` and `--cache-type-v`."""

WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "llama4": 4}
"""By architecture: every so many layers one sees the whole context, the others a window
(load_swa_pattern)."""

DECISIVE = (
    "device",
    "fit",
    "override-tensor",
    "cpu-moe",
    "n-cpu-moe",
    "no-kv-offload",
    "mmproj",
    "model-draft",
)
"""Options that change where a model lies, or add another one: then nothing is estimated."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model needs, or None and the reason why that cannot be told."""

    mib: int | None
    how: str


def estimate(
    header: Mapping[str, Any],
    context_length: int | None,
    options: Mapping[str, Any],
    own_context: int | None = None,
    slots: int = 1,
) -> Estimate:
    """Estimate from what modelyard_gguf.read returned.

    `context_length` are the tokens of all `slots`, which answer requests at once. `own_context` is
    the engine's own default for a request, if it has one.
    """
    decisive = [option for option in DECISIVE if options.get(option)]
    layers, embedding = _count(header.get("layers")), _count(header.get("embedding"))
    offloaded = _offloaded(options, layers or 0)
    if decisive or not offloaded:
        return Estimate(
            None, f"its option {(decisive or ['n-gpu-layers'])[0]} sets how much of it is on a GPU"
        )
    if (layers or 0) > MOST_LAYERS:
        layers = None
    known = _count(header.get("context_length"))
    own = min(own_context, known or own_context) if own_context else known
    context = context_length or (own * slots if own else None)
    heads = header.get("heads_kv") if header.get("heads_kv") is not None else header.get("heads")
    per_layer = _per_layer(heads, layers or 0)
    length = _head_length(header, embedding or 0)
    if not (layers and embedding and context and per_layer and length):
        return Estimate(None, "its header does not contain what the cache size depends on")
    micro_batch = _number(options.get("ubatch-size")) or MICRO_BATCH
    if shared := _count(header.get("shared_layers")):
        per_layer[max(layers - shared, 0) :] = [0] * min(
            shared, layers
        )  # They read the cache of an earlier layer.
    numbers = context * sum(per_layer)
    windowed = _windowed(header, layers)
    if windowed and not options.get("swa-full"):
        window = ceil((int(header["window"]) + micro_batch) / 256) * 256
        kept = min(context, slots * window)
        numbers = sum(
            (kept if window else context) * n for n, window in zip(per_layer, windowed, strict=True)
        )
    key, value = (_bytes_of(options.get(option)) for option in ("cache-type-k", "cache-type-v"))
    cache = ceil(numbers * (length[0] * key + length[1] * value) / MIB)
    weights = ceil(int(header["weights_bytes"]) / MIB)
    vocabulary = _count(header.get("vocabulary")) or 0
    computing = CUDA_MIB + ceil(micro_batch * 4 * (vocabulary + embedding + context // slots) / MIB)
    each = f"{slots} requests of {context // slots}" if slots > 1 else str(context)
    how = (
        f"estimate: {weights} weights + {cache} cache for {each} tokens + {computing} for computing"
    )
    return Estimate(weights + cache + computing, how)


def _offloaded(options: Mapping[str, Any], layers: int) -> bool:
    """Return whether all layers are on a GPU, as they are by default. The output counts as one
    more.
    """
    for option in ("n-gpu-layers", "gpu-layers", "num-gpu"):
        if option in options:
            given = _number(options[option])
            return str(options[option]) in ("all", "auto") or (
                given is not None and (given < 0 or given > layers)
            )
    return True


def _per_layer(heads: Any, layers: int) -> list[int]:
    """KV heads of every layer; empty if the header does not say it in a way that makes sense."""
    counts = (
        heads if isinstance(heads, Sequence) and not isinstance(heads, str) else [heads] * layers
    )
    return (
        [int(count) for count in counts]
        if len(counts) == layers and all(map(_is_count, counts))
        else []
    )


def _head_length(header: Mapping[str, Any], embedding: int) -> tuple[int, int] | None:
    """Numbers per head of a key and of a value."""
    key, value = _count(header.get("key_length")), _count(header.get("value_length"))
    heads = header.get("heads")
    most = (
        max((int(n) for n in heads if _is_count(n)), default=0)
        if isinstance(heads, list)
        else _count(heads) or 0
    )
    default = embedding // most if most else None
    key, value = key or default, value or default
    return (key, value) if key and value else None


def _windowed(header: Mapping[str, Any], layers: int) -> list[bool]:
    """For every layer whether it keeps a window only; empty if none is known to."""
    if not _count(header.get("window")):
        return []
    pattern = header.get("window_pattern")
    if isinstance(pattern, list):
        return [bool(flag) for flag in pattern] if len(pattern) == layers else []
    period = WINDOW_PERIODS.get(str(header.get("architecture")))
    if period is None:
        return []
    period = _count(pattern) or period
    return [layer % period < period - 1 for layer in range(layers)]


def _bytes_of(kind: Any) -> float:
    return NUMBER_BYTES.get(str(kind or "f16"), 4.0)


def _count(value: Any) -> int | None:
    """Return a number that makes sense as a count, None for anything else that a header may say."""
    return int(value) if _is_count(value) and value > 0 else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
