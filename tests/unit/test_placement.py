"""Models on the GPUs that a host really has: who gets which, what does not fit, and what cannot be
said."""

from __future__ import annotations

from typing import Any

import pytest
import test_engines as engines
from catalogues import change, compiled, part

from modelyard.diagnostics import show_path
from modelyard.engines.ollama import ENGINE as OLLAMA
from modelyard.gpu.preflight import Fitted, fit_on_host
from modelyard.output.tables import gpu_table

MIB = 1 << 20


def gpu(index: int, memory: int | None = 24564, **more: Any) -> dict[str, Any]:
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "RTX",
        "memory_mib": memory,
        "mig_mode": None,
        "mig_instances": [],
        "processes": [],
        **more,
    }


def mig(index: int, *instances: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    keys = ("uuid", "profile", "gpu_instance", "memory_mib")
    return gpu(
        index,
        81920,
        mig_mode="enabled",
        mig_instances=[dict(zip(keys, (u, "3g.40gb", i, m), strict=True)) for u, i, m in instances],
        **more,
    )


def facts(*gpus: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"gpus": list(gpus), "driver_version": "580.1", "cuda_version": "13.0", "reason": reason}


def engine(model: str, mib: int | None = None, **more: Any) -> dict[str, Any]:
    return {
        "service": f"llama-cpp@{model}",
        "model": model,
        "role": "llama_cpp",
        "gpu": True,
        "gpus": [],
        "vram_mib": mib,
        "source": {"path": f"/srv/{model}.gguf"},
        "context_length": None,
        "options": {},
        "max_loaded": None,
        **more,
    }


def ollama(model: str, mib: int | None = None, **more: Any) -> dict[str, Any]:
    own = {"max_loaded": 1, "contexts": [list(entry) for entry in OLLAMA.contexts]}
    return engine(
        model, mib, **({"service": "ollama@local", "role": "ollama", "source": None} | own | more)
    )


def header(weights_mib: int) -> dict[str, Any]:
    """Of a model without any cache worth mentioning: one head of one number in one layer."""
    tiny = {
        "architecture": "x",
        "layers": 1,
        "context_length": 1,
        "embedding": 1,
        "heads": 1,
        "vocabulary": 1,
    }
    return {**tiny, "weights_bytes": weights_mib * MIB}


OVERHEAD = 512 + 1 + 1  # CUDA, the buffers and the cache, rounded up


def fit(
    engines: list[dict[str, Any]],
    *gpus: dict[str, Any],
    headers: dict[str, int] | None = None,
    declared: list[dict[str, Any]] | None = None,
    reason: str | None = None,
) -> Fitted:
    models = [
        (
            {
                "service": e["service"],
                "model": e["model"],
                "header": header((headers or {})[e["model"]]),
            }
            if e["model"] in (headers or {})
            else {
                "service": e["service"],
                "model": e["model"],
                "reason": "it is not on the host yet",
            }
        )
        for e in engines
        if e["vram_mib"] is None
    ]
    return fit_on_host("one", engines, facts(*gpus, reason=reason), declared or [], models)


def test_first_fit_in_order_after_those_that_name_their_gpus() -> None:
    found = fit(
        [engine("a", 10000), engine("b", 16000), engine("c", 20000, gpus=[0])],
        gpu(0),
        gpu(1),
        gpu(2),
    )
    assert found.problems == []
    assert found.placed == {
        "llama-cpp@a": [1],
        "llama-cpp@b": [2],
    }, "what is named already is not placed again"
    assert gpu_table(found.gpus) == [
        "GPU  MiB    free   name  models",
        "0    24564  4564   RTX   c 20000",
        "1    24564  14564  RTX   a 10000",
        "2    24564  8564   RTX   b 16000",
    ]


def test_the_arithmetic_of_what_does_not_fit() -> None:
    found = fit([engine("a", 30000, gpus=["GPU-0", "GPU-1"])], gpu(0), gpu(1, 8192))
    assert found.problems == [
        '"a" needs 15000 MiB on each of its GPUs of one, but GPU 1 has 8192 of 8192 MiB left. Fix:'
        " choose other gpus, a smaller model or quantization, or a shorter context_length"
    ]
    found = fit([engine("a", 20000), engine("b", 6000)], gpu(0))
    assert found.problems == [
        '"b" needs 6000 MiB on one GPU of one: GPU 0 has 4564 of 24564 MiB left beside "a" (20000).'
        " Fix: name several GPUs in gpus to split it, narrow its hosts, or choose a smaller model"
        " or context_length"
    ]


def test_a_gpu_that_is_not_there() -> None:
    found = fit(
        [engine("a", gpus=[1]), engine("b", 1, gpus=["GPU-9"]), engine("c", 1, gpus=["GPU-0"])],
        gpu(0),
    )
    assert found.problems == [
        '"a" is assigned GPU 1 of one, which it does not have: one has GPU 0 (GPU-0)',
        '"b" is assigned GPU GPU-9 of one, which it does not have: one has GPU 0 (GPU-0)',
    ]


def process(
    pid: int, name: str, memory: int | None, unit: str = "", instance: int | None = None
) -> dict[str, Any]:
    return {"pid": pid, "name": name, "memory_mib": memory, "unit": unit, "gpu_instance": instance}


def test_programs_that_are_not_ours_decide_whether_and_never_where() -> None:
    """Our own units, also those that the plan no longer has, make room themselves."""
    busy = gpu(
        0,
        processes=[
            process(1, "/usr/lib/xorg/Xorg", 300),
            process(2, "/opt/train", 9000, "train.service"),
            process(3, "chrome", 10),
            process(4, "unknown", None),
            process(5, "llama-server", 12000, "modelyard-llama-cpp@old.service"),
        ],
    )
    assert fit([engine("a", 15000)], busy, gpu(1)).placed == {"llama-cpp@a": [0]}
    (problem,) = fit([engine("a", 16000)], busy, gpu(1)).problems
    assert (
        problem
        == '"a" needs 16000 MiB on GPU 0 of one, but GPU 0 has 15254 of 24564 MiB left beside'
        " train, Xorg and 1 more (9310, unmanaged). Fix: choose other gpus, a smaller model or"
        " quantization, or a shorter context_length"
    )
    assert fit([engine("a", 16000, gpus=[1])], busy, gpu(1)).problems == []


def test_of_one_ollama_the_largest_set_counts() -> None:
    models = [
        ollama("small", 3000),
        ollama("large", 15000),
        ollama("middle", 9000),
        ollama("unknown"),
    ]
    found = fit(models, gpu(0))
    assert found.placed == {"ollama@local": [0]}
    assert [m["name"] for m in found.gpus[0]["models"]] == ["large"], "one, where it decides itself"
    two = [{**model, "max_loaded": 2} for model in models]
    found = fit(two, gpu(0))
    assert [m["name"] for m in found.gpus[0]["models"]] == ["large", "middle"]
    (problem,) = fit(two, gpu(0, 20000)).problems
    assert problem.startswith(
        '"large" and "middle" need 24000 MiB (together 15000 + 9000) on one GPU of one: GPU 0 has'
    )
    split = fit([{**model, "gpus": [0, 1]} for model in two], gpu(0, 13000), gpu(1, 13000))
    assert split.problems == []
    assert split.placed == {}
    assert split.gpus[1]["models"] == [
        {"name": "large", "vram_mib": 7500, "estimated": False},
        {"name": "middle", "vram_mib": 4500, "estimated": False},
    ]


def test_an_estimate_places_and_refuses_and_says_what_it_is() -> None:
    found = fit([engine("a"), engine("b")], gpu(0), gpu(1), headers={"a": 20000, "b": 10000})
    assert found.placed == {"llama-cpp@a": [0], "llama-cpp@b": [1]}
    assert found.estimates[0] == {
        "service": "llama-cpp@a",
        "model": "a",
        "mib": 20000 + OVERHEAD,
        "how": "estimate: 20000 weights + 1 cache for 1 tokens + 513 for computing",
    }
    assert gpu_table(found.gpus)[1] == "0    24564  4050   RTX   a about 20514"
    (problem,) = fit([engine("a"), engine("b")], gpu(0), headers={"a": 20000, "b": 10000}).problems
    assert (
        problem
        == f'"b" is estimated to need {10000 + OVERHEAD} MiB on one GPU of one: GPU 0 has 4050 of '
        f'24564 MiB left beside "a" (about {20000 + OVERHEAD}) [b: estimate: 10000 weights + 1 '
        "cache for 1 tokens + 513 for computing]. Fix: name several GPUs in gpus to split it, "
        "narrow its hosts, or choose a smaller model or context_length, or set vram_mib to a "
        "measured value"
    )


def test_what_was_downloaded_is_checked_but_moves_nothing() -> None:
    """Its file is there in the second run only, and a second run changes nothing."""
    download = engine("a", source={"url": "http://x/a.gguf", "sha256": "0" * 64})
    first = fit([download, engine("b", 10000)], gpu(0))
    second = fit([download, engine("b", 10000)], gpu(0), headers={"a": 14000})
    assert first.placed == second.placed == {"llama-cpp@b": [0]}
    assert first.estimates == [
        {"service": "llama-cpp@a", "model": "a", "mib": None, "how": "it is not on the host yet"}
    ]
    assert first.notices == []
    assert second.problems == []
    assert second.notices == []
    assert [model["name"] for model in second.gpus[0]["models"]] == ["b", "a"]
    (notice,) = fit([download, engine("b", 20000)], gpu(0), headers={"a": 14000}).notices
    assert (
        'GPU 0 has 4564 of 24564 MiB left beside "b" (20000) [a: estimate: 14000 weights' in notice
    )
    assert notice.endswith("It may run with a shorter context or partly on the CPU")
    mixed = [ollama("x", 5000), ollama("y")]
    assert fit(mixed, gpu(0), headers={"y": 9000}).gpus == fit(mixed, gpu(0)).gpus


def test_ollamas_own_context_depends_on_the_memory_it_has() -> None:
    long = {**header(1000), "context_length": 131072}
    models = [{"service": "ollama@local", "model": "a", "header": long}]
    for gpus, context in (([], 131072), ([0], 32768)):
        found = fit_on_host("one", [ollama("a", gpus=gpus)], facts(gpu(0), gpu(1)), [], models)
        assert f"cache for {context} tokens" in found.estimates[0]["how"]


def test_hosts_without_gpus() -> None:
    absent = "nvidia-smi is not installed; it comes with the NVIDIA driver"
    assert fit([engine("a")], reason=absent) == Fitted(), "a host that is meant to have none"
    assert fit([engine("a", 5000, gpu=False)], reason=absent) == Fitted()
    found = fit([engine("a", 5000), engine("b", gpus=[0]), engine("c")], reason=absent)
    assert found.problems == [
        'GPUs are required (gpus, vram_mib) by "a", "b", but the host has no usable GPU: '
        f"{absent}. Install or repair the NVIDIA driver, or move the models to a host that has "
        "GPUs"
    ]
    declared = [{"index": 0, "name": None, "uuid": None, "memory_mib": 24576, "models": []}]
    (problem,) = fit([engine("c")], reason=absent, declared=declared).problems
    assert problem.startswith(
        "llm_gpus of one declares 1 GPU, but the host has no usable GPU: nvidia-smi is"
    )
    (problem,) = fit([engine("a", 1)], mig(3)).problems
    assert "MIG is enabled and has no instances (GPU 3)" in problem


def test_without_engines_nothing_is_said() -> None:
    assert fit([], gpu(0)) == Fitted()


def test_mig_instances_are_gpus_of_their_own_found_by_uuid() -> None:
    whole = mig(
        0,
        ("MIG-a", 1, 40000),
        ("MIG-b", 2, 20000),
        processes=[process(9, "other", 30000, instance=2)],
    )
    found = fit([engine("a", 30000), engine("b", 10000), engine("c", 30000)], whole, gpu(1, 81920))
    assert found.placed == {
        "llama-cpp@a": ["MIG-a"],
        "llama-cpp@b": ["MIG-a"],
        "llama-cpp@c": ["GPU-1"],
    }
    (problem,) = fit([engine("a", 1, gpus=["MIG-b"])], whole).problems
    assert "MIG 3g.40gb of GPU 0 has 0 of 20000 MiB left beside other (30000, unmanaged)" in problem
    for name in (0, "GPU-0"):
        (problem,) = fit([engine("a", 1, gpus=[name])], whole).problems
        assert problem.endswith(
            "one has MIG 3g.40gb of GPU 0 (MIG-a), MIG 3g.40gb of GPU 0 (MIG-b)"
        )


def test_instances_of_one_gpu_instance_share_its_memory() -> None:
    shared = mig(0, ("MIG-a", 1, 40000), ("MIG-b", 1, 40000))
    (problem,) = fit(
        [engine("a", 30000, gpus=["MIG-a"]), engine("b", 20000, gpus=["MIG-b"])], shared
    ).problems
    assert 'MIG 3g.40gb of GPU 0 has 10000 of 40000 MiB left beside "a" (30000)' in problem


def test_memory_that_is_not_told_is_not_checked_and_that_is_said() -> None:
    found = fit([engine("a", 500000)], gpu(0, None))
    assert found.problems == []
    assert found.placed == {"llama-cpp@a": [0]}
    assert found.notices == [
        'GPU 0 does not report its memory (it shares the host\'s): not checked whether "a" fits'
    ]
    assert gpu_table(found.gpus)[1] == "0    ?    ?     RTX   a 500000"


def test_a_complaint_of_nvidia_smi_is_passed_on() -> None:
    assert fit([engine("a", 1)], gpu(0), reason="nvidia-smi: one GPU is lost").notices == [
        "nvidia-smi: one GPU is lost"
    ]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ([{"memory_mib": 24576}, {"memory_mib": 24000}], None),
        ([{"memory_mib": 24576, "uuid": "GPU-0"}, {"memory_mib": 24576, "uuid": "GPU-1"}], None),
        (
            [{"memory_mib": 24576}],
            "declares 1 GPU, the host has 2: GPU 0, RTX, 24564 MiB, GPU-0; GPU 1, RTX",
        ),
        (
            [{"memory_mib": 24576}, {"memory_mib": 49152}],
            "GPU 1 with 49152 MiB, but on the host it is GPU 1, RTX, 24564",
        ),
        (
            [{"memory_mib": 24576, "uuid": "GPU-7"}, {"memory_mib": 24576}],
            "GPU 0 as GPU-7, which the host does not have",
        ),
        (
            [{"memory_mib": 24576, "uuid": "GPU-1"}, {"memory_mib": 24576}],
            "as GPU-1, but on the host it is GPU 1, RTX",
        ),
    ],
)
def test_declared_gpus_that_differ_from_those_of_the_host(
    declared: list[dict[str, Any]], says: str | None
) -> None:
    plan = [
        {"index": index, "name": None, "uuid": None, "models": [], **one}
        for index, one in enumerate(declared)
    ]
    found = fit([engine("a", 1, gpus=[0])], gpu(0), gpu(1), declared=plan)
    assert len(found.problems) == (0 if says is None else 1)
    if says is not None:
        assert says in found.problems[0]
        assert "llm_gpus of one" in found.problems[0]


def test_declared_instances_go_by_their_uuid() -> None:
    plan = [
        {"index": n, "name": None, "uuid": f"MIG-{n}", "models": [], "memory_mib": 40000}
        for n in (0, 1)
    ]
    found = fit([engine("a", 1)], mig(0, ("MIG-1", 1, 40192), ("MIG-0", 2, 40192)), declared=plan)
    assert found.problems == []
    result = compiled(
        change("- name: small", "- name: small\n        vram_mib: 3000"),
        llm_gpus=[{"memory_mib": 40000, "uuid": "MIG-0"}],
    )
    assert part(result.plans["one"], "llama_cpp")["instances"][0]["gpus"] == ["MIG-0"]


def test_what_the_compiler_says_of_engines_is_what_preflight_reads() -> None:
    text = change("- name: small", "- name: small\n        vram_mib: 3000")
    plan = compiled(text).plans["one"]
    found = fit_on_host("one", plan["demands"], facts(gpu(0)), plan["gpus"], [])
    assert found.problems == []
    assert found.placed == {"llama-cpp@small": [0]}
    assert [entry["model"] for entry in found.estimates] == ["large:7b"]
    declared = compiled(text, llm_gpus=[{"memory_mib": 24576}]).plans["one"]
    found = fit_on_host("one", declared["demands"], facts(gpu(0)), declared["gpus"], [])
    assert (found.problems, found.placed) == ([], {}), "the compiler has placed it"
    (problem,) = fit_on_host(
        "one", declared["demands"], facts(gpu(0, 16376)), declared["gpus"], []
    ).problems
    assert problem.startswith(
        "llm_gpus of one declares GPU 0 with 24576 MiB, but on the host it is GPU 0, RTX, 16376 MiB"
    )


def test_one_ollama_of_the_catalogue_counts_as_many_models_as_it_may_hold() -> None:
    text = engines.change("options: {temperature: 0.5, num-gpu: 20}", "vram_mib: 9000")
    text = text.replace("- {name: ready, ", "- {name: ready, vram_mib: 12000, ")
    gpus = [{"memory_mib": 16384}] * 2
    one = engines.result(text, llm_gpus=gpus)
    assert one.errors == []
    assert one.plans["a"]["gpus"][0]["models"] == [{"name": "ready", "vram_mib": 12000}]
    assert {
        entry["gpus"][0] for entry in one.plans["a"]["demands"] if entry["role"] == "ollama"
    } == {0}
    text = text.replace("port: 11434\n", "port: 11434\n    ollama: {max_loaded_models: 2}\n")
    (error,) = [
        error
        for error in engines.result(text, llm_gpus=gpus).errors
        if error.code == "vram-exceeded"
    ]
    assert (
        '"chatty" and "ready" need 21000 MiB (together 9000 + 12000) on one GPU of a: GPU 0 has'
        in error.render()
    )


GPUS = [{"memory_mib": 8192}]


@pytest.mark.parametrize("backend", ["auto", "cuda"])
def test_a_host_that_has_no_gpus(backend: str) -> None:
    """`auto` builds for its CPU there, and counts nothing; a build for GPUs is refused."""
    text = change("- name: small", "- name: small\n        vram_mib: 9000\n        gpus: [0]")
    text = change("    source: {sdist", f"    backend: {backend}\n    source: {{sdist", text)
    found = compiled(text, llm_gpus=[])
    if backend == "cuda":
        assert {error.code for error in found.errors} == {"unknown-gpu"}
        assert "llama.cpp is built for GPUs, and one has none" in found.errors[0].message
        return
    assert found.errors == []
    assert [one.code for one in found.warnings if one.code == "no-effect"] == []
    plan = found.plans["one"]
    assert {demand["gpu"] for demand in plan["demands"]} == {False}
    assert [instance["gpus"] for instance in part(plan, "llama_cpp")["instances"]] == [[], []]


@pytest.mark.parametrize(("backend", "uses"), [("cpu", False), ("auto", True), ("cuda", True)])
def test_a_build_for_processors_takes_no_gpu(backend: str, uses: bool) -> None:
    """More memory than the host's only GPU has is no problem for what does not use it."""
    text = change("- name: small", "- name: small\n        vram_mib: 9000\n        gpus: [0]")
    text = change("    source: {sdist", f"    backend: {backend}\n    source: {{sdist", text)
    found = compiled(text, llm_gpus=GPUS)
    if uses:
        assert [error.code for error in found.errors] == ["vram-exceeded"]
        return
    assert found.errors == []
    assert [
        (one.code, show_path(one.path)) for one in found.warnings if one.code == "no-effect"
    ] == [
        ("no-effect", "llm_providers.local.models[0].gpus"),
        ("no-effect", "llm_providers.local.models[0].vram_mib"),
    ]
    plan = found.plans["one"]
    assert plan["gpus"][0]["models"] == []
    assert part(plan, "llama_cpp")["backend"] == "cpu"
    assert [instance["gpus"] for instance in part(plan, "llama_cpp")["instances"]] == [[], []]
    assert {demand["gpu"] for demand in plan["demands"]} == {False}
    fitted = fit_on_host("one", plan["demands"], facts(), plan["gpus"], [])
    assert fitted == Fitted()
