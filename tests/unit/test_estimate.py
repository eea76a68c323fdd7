"""The estimate of a model's GPU memory, against numbers that llama.cpp itself logged."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.engines import ollama
from modelyard.gpu.estimate import MIB, Estimate, estimate
from modelyard.gpu.preflight import own_context

# Llama 3 8B. Published logs say of one: CPU buffer 281.81 MiB, CUDA0 buffer 4403.49 MiB; with 512
# tokens KV buffer 64.00 MiB, CUDA0 compute buffer 258.50 MiB; with 2048 tokens KV buffer 256.00
# MiB.
LLAMA = {
    "architecture": "llama",
    "layers": 32,
    "context_length": 8192,
    "embedding": 4096,
    "heads": 32,
    "heads_kv": 8,
    "vocabulary": 128256,
    "weights_bytes": int(4403.49 * MIB),
}


def mib(header: dict[str, Any], context: int | None, **options: object) -> int:
    found = estimate(
        header, context, {name.replace("_", "-"): value for name, value in options.items()}
    )
    assert found.mib is not None, found.how
    return found.mib


def test_the_numbers_that_llama_cpp_logs() -> None:
    assert estimate(LLAMA, 512, {}) == Estimate(
        4404 + 64 + 512 + 260,
        "estimate: 4404 weights + 64 cache for 512 tokens + 772 for computing",
    )
    assert "256 cache for 2048 tokens" in estimate(LLAMA, 2048, {}).how


def test_context_is_the_models_own_by_default() -> None:
    assert "1024 cache for 8192 tokens" in estimate(LLAMA, None, {}).how
    assert "512 cache for 4096 tokens" in estimate(LLAMA, None, {}, own_context=4096).how
    assert "1024 cache for 8192 tokens" in estimate(LLAMA, None, {}, own_context=32768).how, (
        "never more than it has"
    )
    assert "2048 cache for 16384 tokens" in estimate(LLAMA, 16384, {}, own_context=4096).how, (
        "but as said if said"
    )


@pytest.mark.parametrize(
    ("change", "cache"),
    [
        ({"heads_kv": None}, 4096),
        ({"heads_kv": [8, 0] * 16}, 512),
        ({"key_length": 256, "value_length": 128}, 1536),
        ({"shared_layers": 16}, 512),
        ({"window": 1024}, 1024),  # this architecture has none
        # gemma3: 5 of 6 layers keep 1024 + 512 tokens; layers 5, 11, 17, 23, 29 keep all.
        ({"architecture": "gemma3", "window": 1024}, 5 * 32 + 27 * 6),
        ({"architecture": "gemma3", "window": 1024, "window_pattern": 2}, 16 * 32 + 16 * 6),
        ({"architecture": "other", "window": 1024, "window_pattern": [True] * 32}, 32 * 6),
        ({"architecture": "other", "window": 1024, "window_pattern": [True] * 7}, 1024),
        ({"architecture": "gemma3", "window": 8192}, 1024),  # never more than the context
    ],
)
def test_cache_of_other_architectures(change: dict[str, Any], cache: int) -> None:
    assert f" {cache} cache for 8192 tokens" in estimate({**LLAMA, **change}, None, {}).how


def test_options_that_change_the_cache() -> None:
    assert (
        mib(LLAMA, 8192) - mib(LLAMA, 8192, cache_type_k="q8_0", cache_type_v="q8_0") == 1024 - 544
    )
    assert mib(LLAMA, 8192, cache_type_k="new") - mib(LLAMA, 8192) == 512, (
        "an unknown type counts as the largest"
    )
    gemma = {**LLAMA, "architecture": "gemma3", "window": 1024}
    assert mib(gemma, 8192, swa_full=True) == mib(LLAMA, 8192)
    assert mib(LLAMA, 8192, ubatch_size=1024) - mib(LLAMA, 8192) == 274


def test_every_slot_has_a_context_of_its_own() -> None:
    four = estimate(LLAMA, 4 * 2048, {}, slots=4)
    assert "1024 cache for 4 requests of 2048 tokens" in four.how
    assert "4096 cache for 4 requests of 8192 tokens" in estimate(LLAMA, None, {}, slots=4).how
    assert (
        "1024 cache for 2 requests of 4096 tokens" in estimate(LLAMA, None, {}, 4096, slots=2).how
    )
    # The mask of a micro-batch is as long as the context of one slot.
    assert estimate(LLAMA, 2048, {}).mib == (four.mib or 0) - 3 * 256
    gemma = {**LLAMA, "architecture": "gemma3", "window": 1024}
    # Of 32 layers 5 keep all, the others window + micro-batch, in every slot.
    one, two = (estimate(gemma, slots * 8192, {}, slots=slots).how for slots in (1, 2))
    assert f" {5 * 32 + 27 * 6} cache" in one
    assert f" {2 * (5 * 32 + 27 * 6)} cache" in two


@pytest.mark.parametrize("value", [-1, 33, 99, "99", "all", "auto"])
def test_options_that_put_all_layers_on_the_gpu_change_nothing(value: object) -> None:
    assert mib(LLAMA, 512, n_gpu_layers=value) == mib(LLAMA, 512)


@pytest.mark.parametrize(
    "options",
    [
        {"n-gpu-layers": 0},
        {"num-gpu": 20},
        {"n-gpu-layers": 32},
        {"override-tensor": "x=CPU"},
        {"fit": "on"},
    ],
)
def test_options_that_decide_where_it_lies_leave_nothing_to_estimate(
    options: dict[str, Any],
) -> None:
    found = estimate(LLAMA, 512, options)
    assert found.mib is None
    assert "sets how much of it is on a GPU" in found.how


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": -1},
        {"layers": 2**30},
        {"layers": "32"},
        {"heads": 0, "heads_kv": 8},
        {"heads_kv": [8] * 5},
        {"heads_kv": [8] * 31 + [-1]},
        {"heads_kv": "8"},
        {"embedding": None},
        {"context_length": None},
        {"context_length": 1.5},
    ],
)
def test_headers_that_make_no_sense(change: dict[str, Any]) -> None:
    assert estimate({**LLAMA, **change}, None, {}) == Estimate(
        None, "its header does not contain what the cache size depends on"
    )


@pytest.mark.parametrize(
    ("total", "context"), [(0, 4096), (16376, 4096), (24564, 32768), (49128, 262144)]
)
def test_ollamas_own_context(total: int, context: int) -> None:
    assert own_context(ollama.ENGINE.contexts, total) == context
