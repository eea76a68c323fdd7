"""The arithmetic of GPUs before a host is asked: how many, which, and how much of each."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import pytest
from catalogues import GROUPS, change, compiled, part, places, refused

from modelyard.compile import Compiled
from modelyard.gpu.preflight import Fitted, fit_on_host

CARD = {"memory_mib": 24564, "uuid": "GPU-aa"}
OTHER = {"memory_mib": 24564, "uuid": "GPU-bb"}

CATALOGUE = """\
llm_providers:
  vllm:
    type: vllm
    group: llm_local
    port: 8001
    models:
      - {name: a, source: {path: /a}FIRST}
      - {name: b, source: {path: /b}, port: 8002SECOND}
  ollama:
    type: ollama
    group: llm_local
    port: 11434
    models:
      - {name: cTHIRD}
      - {name: dFOURTH}
llm_routing:
  fallbacks: {a: {terminal: true}, b: {terminal: true}, c: {terminal: true}, d: {terminal: true}}
llm_versions:
  litellm: {version: "1.106.2"}
  vllm: {version: "0.32.0"}
  ollama: {version: "0.17.4", source: {path: /o.tgz, sha256: SHA}}
""".replace("SHA", "a" * 64)
SECOND = "      - {name: b, source: {path: /b}, port: 8002SECOND}\n"


def catalogue(*keys: str, both: bool = True) -> str:
    """The catalogue with these keys of the models a, b (of vLLM), c and d (of Ollama)."""
    text = CATALOGUE
    if not both:
        text = change(SECOND, "", change("b: {terminal: true}, ", "", text))
    for place, more in zip_longest(("FIRST", "SECOND", "THIRD", "FOURTH"), keys, fillvalue=""):
        text = text.replace(place, f", {more}" if more else "")
    return text


def run(*keys: str, gpus: list[dict[str, Any]] | None = None, both: bool = True) -> Compiled:
    """Compile it for a host with these `llm_gpus`."""
    variables = {} if gpus is None else {"llm_gpus": gpus}
    return compiled(catalogue(*keys, both=both), groups=GROUPS, **variables)


def vllm(out: Compiled, model: str) -> dict[str, Any]:
    assert out.errors == [], [error.render() for error in out.errors]
    instances = part(out.plans["one"], "vllm")["instances"]
    return next(dict(one) for one in instances if one["model"] == model)


def share(out: Compiled, model: str) -> str | None:
    words = vllm(out, model)["argv"]
    option = "--gpu-memory-utilization"
    return words[words.index(option) + 1] if option in words else None


def warned(out: Compiled, code: str) -> str:
    return "\n".join(one.render() for one in out.warnings if one.code == code)


def test_the_share_follows_from_vram_mib() -> None:
    out = run("gpus: [0], vram_mib: 10000", "gpus: [0], vram_mib: 10000", gpus=[CARD])
    assert (share(out, "a"), share(out, "b")) == ("0.407", "0.407")
    assert 9990 < 0.407 * 24564 <= 10000, "rounded down"
    (card,) = out.plans["one"]["gpus"]
    assert [(one["name"], one["vram_mib"]) for one in card["models"]] == [
        ("a", 10000),
        ("b", 10000),
    ]
    alone = run("vram_mib: 10000", gpus=[CARD], both=False)
    assert (share(alone, "a"), vllm(alone, "a")["gpus"]) == ("0.407", [0])
    split = run("vram_mib: 20000, gpus: [0, 1]", gpus=[CARD, OTHER], both=False)
    assert share(split, "a") == "0.407"
    assert share(run("vram_mib: 10000", gpus=None, both=False), "a") is None, "unknown memory"


def test_without_gpus_there_is_no_share() -> None:
    text = catalogue("vram_mib: 10000", both=False)
    text = change('vllm: {version: "0.32.0"', 'vllm: {version: "0.32.0", backend: cpu', text)
    out = compiled(text, llm_gpus=[CARD])
    assert share(out, "a") is None
    (demand, *_) = (one for one in out.plans["one"]["demands"] if one["role"] == "vllm")
    assert (demand["gpu"], demand["share"], demand["width"]) == (False, None, None)


FOUND = {
    "index": 0,
    "uuid": "GPU-aa",
    "name": "RTX",
    "memory_mib": 24564,
    "mig_mode": None,
    "mig_instances": [],
    "processes": [],
}


def on_host(out: Compiled, *gpus: dict[str, Any]) -> Fitted:
    demands = [one for one in out.plans["one"]["demands"] if one["role"] == "vllm"]
    return fit_on_host("one", demands, {"gpus": list(gpus)}, [], [])


def test_preflight_counts_the_share() -> None:
    out = run("gpus: [0], vram_mib: 10000", "gpus: [0], vram_mib: 10000", gpus=[CARD])
    demands = [one for one in out.plans["one"]["demands"] if one["role"] == "vllm"]
    assert [(one["share"], one["width"]) for one in demands] == [(0.407, 1), (0.407, 1)]
    assert on_host(out, FOUND).problems == []


def test_preflight_counts_what_is_reserved_by_default() -> None:
    out = run("", "")
    found = on_host(out, FOUND)
    (problem,) = found.problems
    assert '"b" reserves 0.92 of the memory, 22599 MiB on one GPU of one' in problem
    assert found.placed == {"vllm@a": [0]}
    two = on_host(out, FOUND, {**FOUND, "index": 1, "uuid": "GPU-bb"})
    assert (two.problems, two.placed) == ([], {"vllm@a": [0], "vllm@b": [1]})
    unknown = on_host(out, {**FOUND, "memory_mib": None})
    assert "0.08 of GPU 0 is left" in unknown.problems[0]


def test_a_users_option_counts() -> None:
    option = "gpus: [0], options: {gpu-memory-utilization: 0.3}"
    out = run(option, option, gpus=[CARD])
    assert share(out, "a") == "0.3"
    assert vllm(out, "a")["argv"].count("--gpu-memory-utilization") == 1
    alias = run(
        "vram_mib: 9000, options: {device-memory-utilization: 0.5}", gpus=[CARD], both=False
    )
    assert share(alias, "a") is None
    text = refused(
        run("vram_mib: 20000, options: {gpu-memory-utilization: 0.5}", gpus=[CARD], both=False),
        "invalid-value",
        7,
    )
    assert "reserves 12282 MiB of GPU 0" in text
    assert "needs 20000" in text


@pytest.mark.parametrize(
    ("keys", "gpus", "code", "line", "says"),
    [
        (["gpus: [0]", "gpus: [0]"], [CARD], "vram-exceeded", 8, '"b" reserves 0.92 of the memory, 22599 MiB on GPU 0'),
        (["", ""], [CARD], "vram-exceeded", 8, "from which its share follows"),
        (["gpus: [0], vram_mib: 10000", "gpus: [0]"], [CARD], "vram-exceeded", 8, "has 14564 of 24564 MiB left"),
        (["gpus: [0]", "gpus: [0]"], None, "vram-exceeded", 8, "0.08 of GPU 0 is left"),
        (["gpus: [0], vram_mib: 9000", "gpus: [0], vram_mib: 9000"], None, "vram-exceeded", 8, "declare llm_gpus"),
        (["gpus: [0]", "", "gpus: [0], vram_mib: 9000"], [CARD, OTHER], "vram-exceeded", 14, "needs 9000 MiB"),
    ],
)  # fmt: skip
def test_too_much_of_a_card(keys: list[str], gpus: Any, code: str, line: int, says: str) -> None:
    assert says in refused(run(*keys, gpus=gpus), code, line)


@pytest.mark.parametrize(
    ("keys", "gpus", "says"),
    [
        ("gpus: [0, 1], options: {tensor-parallel-size: 4}", None, "split over 4 GPUs, and is assigned 2"),
        ("gpus: [0, 1], options: {tensor-parallel-size: 4}", [CARD, OTHER], "split over 4 GPUs, and is assigned 2"),
        ("options: {tensor-parallel-size: 2}", [CARD], "split over 2 GPUs, and one has 1"),
        ('options: {tensor-parallel-size: "2"}', [CARD], "split over 2 GPUs, and one has 1"),
        ("options: {pipeline-parallel-size: 2}", [CARD], "split over 2 GPUs, and one has 1"),
        ("options: {data-parallel-size: 2}", [CARD], "split over 2 GPUs, and one has 1"),
        ("gpus: [0, 1], options: {tensor-parallel-size: 2, pipeline-parallel-size: 2}", None, "split over 4"),
        ("gpus: [0, 1], options: {tensor-parallel-size: 2, data-parallel-size: 2}", None, "split over 4"),
        ("gpus: [0, GPU-aa]", [CARD], "is assigned GPU 0 of one twice, as 0 and as GPU-aa"),
        ("gpus: [0, GPU-zz]", None, "by index and by UUID"),
    ],
)  # fmt: skip
def test_not_these_gpus(keys: str, gpus: Any, says: str) -> None:
    assert says in refused(run(keys, gpus=gpus, both=False), "gpu-mismatch", 7)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("options: {tensor-parallel-size: 0}", "must be a whole number above 0"),
        ("options: {tensor-parallel-size: two}", "must be a whole number above 0"),
        ("options: {pipeline-parallel-size: true}", "must be a whole number above 0"),
        ("options: {gpu-memory-utilization: 90}", "must be above 0 and at most 1"),
        ("options: {gpu-memory-utilization: 90%}", "must be above 0 and at most 1"),
        ("options: {gpu-memory-utilization: 0}", "must be above 0 and at most 1"),
        ("gpus: []", "at least one"),
        ("vram_mib: 20", "20 GiB are 20480"),
        ("gpus: [-1]", "nvidia-smi -L"),
        ("gpus: [0, 0]", "duplicate"),
    ],
)
def test_not_these_values(keys: str, says: str) -> None:
    assert says in refused(run(keys, both=False), "invalid-value", 7)


@pytest.mark.parametrize(
    "keys",
    [
        "gpus: [0, 1]",
        "gpus: [0, GPU-bb]",
        "options: {tensor-parallel-size: 2}",
        "options: {data-parallel-size: 4, data-parallel-size-local: 2}",
        "options: {gpu-memory-utilization: 1}",
    ],
)
def test_these_gpus(keys: str) -> None:
    out = run(keys, gpus=[CARD, OTHER], both=False)
    assert out.errors == []


def test_names_of_two_kinds_become_one() -> None:
    out = run("gpus: [0, GPU-bb]", gpus=[CARD, OTHER], both=False)
    assert vllm(out, "a")["gpus"] == [0, 1]
    assert vllm(run("gpus: [GPU-bb]", gpus=[CARD, OTHER], both=False), "a")["gpus"] == ["GPU-bb"]


def test_what_is_split_gets_as_many() -> None:
    out = run("options: {tensor-parallel-size: 2}", gpus=[CARD, OTHER], both=False)
    assert vllm(out, "a")["gpus"] == [0, 1]
    out = run("gpus: [0, 1], options: {tensor-parallel-size: 1}", gpus=[CARD, OTHER], both=False)
    assert "has 2 GPUs and is split over 1" in warned(out, "no-effect")
    copied = run("gpus: [0, 1], options: {data-parallel-size: 2}", gpus=[CARD, OTHER], both=False)
    assert "--tensor-parallel-size" not in vllm(copied, "a")["argv"]


def test_what_is_not_counted_is_said() -> None:
    out = run("vram_mib: 9000", "", "vram_mib: 5000", gpus=[CARD, OTHER])
    assert "d of one is not counted" in warned(out, "vram-uncounted")
    assert warned(run("vram_mib: 9000", "", "vram_mib: 5000"), "vram-uncounted") == ""
    both = run("vram_mib: 9000", "", "vram_mib: 5000", "vram_mib: 5000", gpus=[CARD, OTHER])
    assert warned(both, "vram-uncounted") == ""


def test_gpus_are_planned_for_what_stays_loaded() -> None:
    keys = ("", "", "preload: true, vram_mib: 13000", "preload: true, vram_mib: 13000")
    out = run(*keys, gpus=[CARD], both=False)
    assert [code for code, _line in places(out)] == ["vram-exceeded"]


@pytest.mark.parametrize(
    ("gpus", "says"),
    [
        ([CARD, {**OTHER, "uuid": "GPU-aa"}], "two GPUs have the UUID GPU-aa"),
        ([{"memory_mib": 24}], "24 GiB are 24576"),
    ],
)
def test_not_these_cards(gpus: list[dict[str, Any]], says: str) -> None:
    assert says in "\n".join(error.render() for error in run("", gpus=gpus, both=False).errors)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("device: CUDA1", "is split over 2 GPUs, and is assigned 1"),
        ('device: "CUDA0,CUDA2"', "is split over 3 GPUs"),
        ("split-mode: none, main-gpu: 1", "is split over 2 GPUs"),
    ],
)
def test_gpus_that_llama_cpp_does_not_see(options: str, says: str) -> None:
    text = change(
        "- name: small", f"- name: small\n        gpus: [1]\n        options: {{{options}}}"
    )
    assert says in refused(compiled(text), "gpu-mismatch", 9)
    wider = text.replace("gpus: [1]", "gpus: [1, 2, 3]")
    assert compiled(wider).errors == []
