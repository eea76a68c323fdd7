"""Whole catalogues as users have them: the gateway takes every entry, and offers exactly the public
names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from harness import CLONE, Gateway, compiled, plan

from modelyard_importer import FILES, import_stack

CLOUDS = ("OLLAMA_CLOUD_API_KEY", "OLLAMA_API_KEY")


def shipped() -> str:
    """The shipped catalogue; versions are the harness' part."""
    files = ("providers", "routing", "gateway")
    return "\n".join(
        (CLONE / f"group_vars/all/{name}.yml").read_text(encoding="utf-8").removeprefix("---\n")
        for name in files
    )


def imported() -> str:
    """The example of an old stack, imported."""
    directory = CLONE / "tests/data/import/workstation"
    files = import_stack(
        {name: (directory / name).read_bytes() for name in FILES}, str(directory)
    ).files
    return "\n".join(
        text.removeprefix("---\n") for name, text in files.items() if "group_vars" in name
    )


@pytest.mark.parametrize("catalogue", [shipped, imported])
def test_every_public_name_is_offered(
    catalogue: Callable[[], str], environment: Path, tmp_path: Path
) -> None:
    groups: dict[str, Sequence[str]] = {
        group: []
        for group in ("llm_ollama", "llm_llama_cpp_python", "llm_vllm_qwen", "llm_vllm_dolphin")
    }
    result = compiled(catalogue(), {"llm_llama_cpp_native": ["gw"], **groups}, secrets=CLOUDS)
    assert len(result.public_names) > 5
    with Gateway(environment, plan(result), tmp_path) as gateway:
        offered = [entry["id"] for entry in gateway.request("GET", "/v1/models").body["data"]]
    assert sorted(offered) == sorted(result.public_names)
