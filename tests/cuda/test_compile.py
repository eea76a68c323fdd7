"""The CUDA build as far as it goes without a card: the role's own script configures, and some
kernels are compiled.

What is not seen here: that what was compiled runs, and that all of it compiles and links (`make
cuda` does that).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import jinja2
import pytest
import yaml

from modelyard.controller import sources
from modelyard.gpu.cuda import PACKAGED, choose_build

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/llama_cpp"
OBJECTS = "ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir"
# One of every kind that is quick: an operation, one that prepares quantized products, one of flash
# attention.
KERNELS = ("rope.cu.o", "quantize.cu.o", "template-instances/fattn-vec-instance-f16-f16.cu.o")


@pytest.fixture(scope="session")
def toolkit() -> Path:
    """The toolkit that cuda-toolkit.sh makes of the locked packages, kept by the content of
    both."""
    script, lock = ROLE / "files/cuda-toolkit.sh", ROLE / "files/locks/cuda-13.txt"
    digest = hashlib.sha256(script.read_bytes() + lock.read_bytes()).hexdigest()[:12]
    kept = sources.cache_directory() / f"cuda/{digest}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept.with_suffix(".lock"), "w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not kept.exists():
            made = kept.with_suffix(".new")
            shutil.rmtree(made, ignore_errors=True)
            subprocess.run(["sh", script, lock, made], check=True)
            made.rename(kept)
    (found,) = kept.glob("lib/python3*/site-packages/nvidia/cu13")
    return found


def configuring(toolkit: Path) -> str:
    """The role's build script for one card, up to where it builds."""
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["quote"] = shlex.quote
    version = subprocess.run(
        [toolkit / "bin/nvcc", "--version"], check=True, capture_output=True, text=True
    ).stdout
    build = choose_build("cuda", {}, toolkit=str(toolkit), nvcc=version, architectures=["8.9"])
    script = environment.from_string(
        (ROLE / "templates/build.sh.j2").read_text(encoding="utf-8")
    ).render(
        engine_build=build,
        engine_plan={"version": "test", "cuda_toolkit": str(toolkit), "cmake_options": []},
    )
    before, _, after = script.partition("cmake --build build")
    assert "--target llama-server" in after
    return before


def test_some_kernels_compile(toolkit: Path, tmp_path: Path) -> None:
    versions = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))[
        "llm_versions"
    ]
    inputs = tmp_path / "sources"
    inputs.mkdir()
    (inputs / "src.tar.gz").symlink_to(sources.fetch(versions["llama_cpp"]["source"]))
    (inputs / "faster.cmake").symlink_to(ROLE / "files/faster.cmake")
    script = tmp_path / "build.sh"
    script.write_text(configuring(toolkit), encoding="utf-8")
    environment = {
        **os.environ,
        "SOURCES": str(inputs),
        "CCACHE_DIR": str(sources.cache_directory() / "ccache"),
    }
    started = time.monotonic()
    done = subprocess.run(
        ["sh", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Using CMAKE_CUDA_ARCHITECTURES=89-real" in done.stdout
    assert re.search(rf'Found CUDAToolkit: .*version "{re.escape(PACKAGED)}\.', done.stdout)
    assert "ccache found" in done.stdout

    build = tmp_path / "build"
    commands = subprocess.run(
        ["ninja", "-C", build, "-t", "commands", f"{OBJECTS}/{KERNELS[0]}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (compiling,) = [line for line in commands.splitlines() if "/rope.cu" in line]
    assert "ccache" in compiling.split("nvcc")[0]
    assert "arch=compute_89,code=[sm_89]" in compiling.replace("\\", "").replace('"', "")
    assert "-DGGML_CUDA_NO_VMM" in compiling
    assert "GGML_CUDA_NO_FA" not in compiling
    linking = subprocess.run(
        ["ninja", "-C", build, "-t", "commands", "llama-server"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]
    assert "-rpath,$ORIGIN/../lib" in linking.replace("\\", "").replace("'", "").replace('"', "")
    assert "libcublas.so" in linking
    assert "libcuda.so" not in linking, "the driver's library is on hosts with a card only"

    configured = time.monotonic()
    done = subprocess.run(
        ["ninja", "-C", build, *(f"{OBJECTS}/{kernel}" for kernel in KERNELS)],
        env={**environment, "CCACHE_BASEDIR": str(tmp_path), "CCACHE_NOHASHDIR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in KERNELS:
        sections = subprocess.run(
            ["readelf", "--sections", "--wide", build / OBJECTS / kernel],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert ".nv_fatbin" in sections, f"{kernel} holds no code for a card"
    print(
        f"configured in {configured - started:.0f} s, compiled in"
        f" {time.monotonic() - configured:.0f} s"
    )
