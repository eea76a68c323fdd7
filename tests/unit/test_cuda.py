"""The choice of a build: cards, driver and toolkit."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.gpu.cuda import CudaError, choose_build

ADA = ("NVIDIA GeForce RTX 4090", "8.9")
AMPERE = ("NVIDIA GeForce RTX 3090", "8.6")
TURING = ("Tesla T4", "7.5")
VOLTA = ("Tesla V100", "7.0")
PASCAL = ("NVIDIA GeForce GTX 1080", "6.1")
BLACKWELL = ("NVIDIA GeForce RTX 5090", "12.0")
SPARK = ("NVIDIA GB10", "12.1")
KEPLER = ("Tesla K80", "3.7")

DRIVERS = {
    "13.0": "580.173.02",
    "13.2": "595.45",
    "12.4": "550.90",
    "12.0": "525.105",
    "11.4": "470.256",
}
PATH = "/usr/local/cuda"


def nvcc(version: str) -> str:
    return (
        f"nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {version},"
        f" V{version}.88\n"
    )


def facts(cards: list[tuple[str, str]], cuda: str | None = "13.0") -> dict[str, Any]:
    return {
        "gpus": [
            {"index": i, "name": name, "compute_capability": cc}
            for i, (name, cc) in enumerate(cards)
        ],
        "driver_version": DRIVERS[cuda] if cuda else None,
        "cuda_version": cuda if cards else None,
        "reason": None if cards else "nvidia-smi is not installed; it comes with the NVIDIA driver",
    }


@pytest.mark.parametrize(
    ("cards", "cuda", "toolkit", "chosen", "architectures"),
    [
        ([ADA], "13.0", "auto", "13.0", ["89-real"]),
        ([TURING], "13.2", "auto", "13.0", ["75-real"]),
        # Not in the order of the text: 120 comes after 89.
        ([BLACKWELL, ADA, AMPERE, ADA], "13.0", "auto", "13.0", ["86-real", "89-real", "120-real"]),
        ([SPARK], "13.0", "auto", "13.0", ["121-real"]),
        # A driver that does not say what it supports is tried.
        ([ADA], None, "auto", "13.0", ["89-real"]),
        # What only toolkit 12 can do, and a driver that is newer than the toolkit.
        ([PASCAL, ADA], "12.4", "12.6", f"12.6 in {PATH}", ["61-real", "89-real"]),
        ([VOLTA], "13.0", "12.9", f"12.9 in {PATH}", ["70-real"]),
        # Within a major version a driver may be older than the toolkit.
        ([ADA], "12.0", "12.8", f"12.8 in {PATH}", ["89-real"]),
        ([BLACKWELL], "13.0", "12.8", f"12.8 in {PATH}", ["120-real"]),
    ],
)
def test_chosen(
    cards: list[tuple[str, str]],
    cuda: str | None,
    toolkit: str,
    chosen: str,
    architectures: list[str],
) -> None:
    given = {} if toolkit == "auto" else {"toolkit": PATH, "nvcc": nvcc(toolkit)}
    for backend in ("auto", "cuda"):
        found = choose_build(backend, facts(cards, cuda), **given)
        assert found == {"backend": "cuda", "toolkit": chosen, "architectures": architectures}


@pytest.mark.parametrize(("backend", "cards"), [("auto", []), ("cpu", []), ("cpu", [ADA])])
def test_for_the_processor(backend: str, cards: list[tuple[str, str]]) -> None:
    assert choose_build(backend, facts(cards), toolkit=PATH, architectures=["8.9"]) == {
        "backend": "cpu"
    }


def test_architectures_can_be_given() -> None:
    # A host without cards builds for others; a fleet has one build for all of its cards.
    for cards in ([], [AMPERE]):
        found = choose_build("cuda", facts(cards), architectures=["8.9", "7.5", "8.9"])
        assert found["architectures"] == ["75-real", "89-real"]
    # The old card is left out.
    assert choose_build("auto", facts([PASCAL, ADA]), architectures=["8.9"])["architectures"] == [
        "89-real"
    ]


@pytest.mark.parametrize(
    ("cards", "cuda", "options", "message"),
    [
        (
            [],
            "13.0",
            {},
            (
                "no NVIDIA GPU to build for (nvidia-smi is not installed; it comes with the NVIDIA "
                "driver): set x_cuda_architectures to the compute capabilities of the GPUs, for "
                "example ['8.9']"
            ),
        ),
        (
            [ADA],
            "12.4",
            {},
            (
                "binaries built with CUDA toolkit 13.0 do not run here: the driver (550.90)"
                " supports CUDA up to 12.4. Update the driver, or set x_cuda_toolkit to the path of"
                " a toolkit on the host that does, or x_backend to"
            ),
        ),
        (
            [PASCAL],
            "13.0",
            {},
            (
                "CUDA toolkit 13.0 builds for compute capabilities 7.5 to 12.1, not for 6.1 (NVIDIA"
                " GeForce GTX 1080): set x_cuda_toolkit to the path of a toolkit on the host that"
                " does, or x_backend to cpu"
            ),
        ),
        (
            [VOLTA, ADA],
            "13.0",
            {},
            (
                "not for 7.0 (Tesla V100): set x_cuda_toolkit to the path of a toolkit on the host "
                "that does, or x_backend to cpu; to leave a GPU out, set x_cuda_architectures to "
                "those of the others"
            ),
        ),
        # No one toolkit: the old card wants less than 13, the new one more than 12.6.
        (
            [PASCAL, BLACKWELL],
            "13.0",
            {"toolkit": PATH, "nvcc": nvcc("12.6")},
            (
                "builds for compute capabilities 5.0 to 9.0, not for 12.0 (NVIDIA GeForce RTX"
                " 5090): set x_cuda_toolkit to the path of one that does"
            ),
        ),
        (
            [KEPLER],
            "11.4",
            {"toolkit": PATH, "nvcc": nvcc("11.4")},
            "5.0 to 8.6, not for 3.7 (Tesla K80)",
        ),
        (
            [ADA],
            "11.4",
            {"toolkit": PATH, "nvcc": nvcc("12.4")},
            (
                "the driver (470.256) supports CUDA up to 11.4. Update the driver, or set"
                " x_cuda_toolkit to the path of"
            ),
        ),
        (
            [ADA],
            "13.0",
            {"toolkit": PATH, "nvcc": "sh: not found"},
            (
                "/usr/local/cuda/bin/nvcc does not print its version. Is x_cuda_toolkit the path of"
                " a CUDA toolkit?"
            ),
        ),
        (
            [ADA],
            "13.0",
            {"architectures": ["sm_89"]},
            "x_cuda_architectures: sm_89 is not a compute capability",
        ),
        ([], "13.0", {"architectures": ["6.1"]}, "7.5 to 12.1, not for 6.1: set x_cuda_toolkit"),
    ],
    ids=[
        "no card",
        "old driver",
        "old card",
        "old card among others",
        "cards of no one toolkit",
        "card of no toolkit",
        "driver too old for the given toolkit",
        "no toolkit",
        "no capability",
        "given capability",
    ],
)
def test_refused(
    cards: list[tuple[str, str]], cuda: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CudaError) as refused:
        choose_build("cuda", facts(cards, cuda), prefix="x_", **options)
    assert message in str(refused.value)
