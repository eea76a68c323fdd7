"""What an engine is built for: refused if no toolkit can, told if nothing reads it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from catalogues import change, inventory, refused
from test_engines import CATALOGUE as ENGINES
from test_engines import result as of_engines

from modelyard.compile import compile_inventory
from modelyard.engines.llama_cpp import NEWEST, OLDEST, PACKAGED
from modelyard.gpu import cuda

PYTHON = 'llama_cpp_python: {version: "0.3.36"'


def build(keys: str) -> str:
    """A catalogue whose llama-cpp-python is built with these keys, in line 55."""
    return change(f"{PYTHON}}}", f"{PYTHON}, {keys}}}", ENGINES)


def test_capabilities_are_those_of_the_builds() -> None:
    version, packaged = PACKAGED
    assert version == cuda.PACKAGED
    lowest, highest = cuda._range(cuda._version(version))
    assert all(lowest <= cuda._version(one) <= highest for one in packaged)
    assert (packaged[0], packaged[-1]) == (cuda._text(lowest), cuda._text(highest))
    assert (cuda._range((12, 9))[0], cuda._range((12, 9))[1]) == (OLDEST, NEWEST)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('cuda_architectures: ["6.1"]', "13.0 does not build for compute capability 6.1"),
        ('cuda_architectures: ["8.9", "7.0"]', "not build for compute capability 7.0"),
        ('cuda_architectures: ["0.0"]', "not build for compute capability 0.0"),
        ('cuda_architectures: ["8.5"]', "not build for compute capability 8.5"),
        ('cuda_architectures: ["8.9", "8.9"]', "duplicate"),
        ('cuda_architectures: ["3.5"], cuda_toolkit: /cuda', "no CUDA toolkit builds for"),
        ('cuda_architectures: ["99.0"], cuda_toolkit: /cuda', "no CUDA toolkit builds for"),
        ('cmake_options: ["-DA"]', "a CMake option is"),
        ('cmake_options: ["DA=1"]', "a CMake option is"),
        ('cmake_options: ["-DA:TEXT=1"]', "a CMake option is"),
    ],
)
def test_what_cannot_be_built(keys: str, says: str) -> None:
    text = build(keys)
    line = next(n for n, row in enumerate(text.splitlines(), start=1) if PYTHON in row)
    assert says in refused(of_engines(text), "invalid-value", line)


@pytest.mark.parametrize(
    "keys",
    [
        'cuda_architectures: ["7.5", "12.1"]',
        'cuda_architectures: ["6.1"], cuda_toolkit: /usr/local/cuda-12.9',
        'cmake_options: ["-DCMAKE_C_FLAGS:STRING=-O2 -march=native", "-DA=", "-DB.C=1;2"]',
    ],
)
def test_what_can_be_built(keys: str) -> None:
    out = of_engines(build(keys))
    assert out.errors == []
    assert "no-effect" not in [one.code for one in out.warnings]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (build('backend: cpu, cuda_architectures: ["8.9"]'), "cuda_architectures"),
        (build("backend: cpu, cuda_toolkit: /cuda"), "cuda_toolkit"),
        (change("port: 8001\n", "port: 8001\n    vllm: {cpu_kv_cache_gib: 8}\n", ENGINES), "cpu_kv_cache_gib"),
    ],
)  # fmt: skip
def test_what_no_build_reads(text: str, key: str) -> None:
    out = of_engines(text)
    assert out.errors == []
    (warning,) = (one for one in out.warnings if one.code == "no-effect")
    assert re.match(rf"{key} (of .* )?has no effect", warning.message)
    assert warning.origin is not None


def test_what_is_read() -> None:
    text = change("port: 8001\n", "port: 8001\n    vllm: {cpu_kv_cache_gib: 8}\n", ENGINES)
    for backend in ("cpu", "auto"):
        version = f'vllm: {{version: "0.32.0", backend: {backend}}}'
        out = of_engines(change('vllm: {version: "0.32.0"}', version, text))
        assert "cpu_kv_cache_gib" not in "".join(one.message for one in out.warnings)


def test_an_engine_without_any_lock() -> None:
    text = change("type: llama_cpp\n", "type: llama_cpp\n    flavour: python\n")
    text = text.replace("  llama_cpp:\n", '  llama_cpp_python: {version: "0.3.36"}\n  llama_cpp:\n')
    known = inventory(text)
    assert compile_inventory(known).errors == []
    out = compile_inventory(replace(known, locks={"llama_cpp_python": frozenset()}))
    assert "versions with a lock file: none" in refused(out, "version-without-lock", 28)
