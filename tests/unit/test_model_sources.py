"""Sources of models: what an engine cannot load is refused by its name, where it was written."""

from __future__ import annotations

import pytest
from catalogues import change, compiled, refused
from test_engines import CATALOGUE as ENGINES
from test_engines import COMMIT
from test_engines import result as of_engines

SHA = "c" * 64
HUB = "https://huggingface.co"
SMALL = "        source: {path: /models/small.gguf}\n"


def llama_cpp(source: str) -> str:
    """A catalogue with a model of llama.cpp that has this source, in line 8."""
    return change(SMALL, f"        source: {{{source}}}\n")


def vllm(source: str) -> str:
    """One with a model of vLLM that has this source, in line 32."""
    return change(
        f"source: {{repo: Qwen/Coder, revision: {COMMIT}}}", f"source: {{{source}}}", ENGINES
    )


def ollama(source: str) -> str:
    """One with a model of Ollama that has this source, in line 7."""
    return change("{name: ready,", f"{{name: ready, source: {{{source}}},", ENGINES)


def url(address: str) -> str:
    return f'url: "{address}", sha256: {SHA}'


def repo(file: str) -> str:
    return f"repo: A/B, revision: {COMMIT}, file: {file}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("path: /m/model.safetensors", "does not end in .gguf"),
        ("path: /m/pytorch_model.bin", "does not end in .gguf"),
        ("path: /m/model.PT", "does not end in .gguf"),
        ("path: /m/model.zip", "does not end in .gguf"),
        ("path: /m/small.gguf.part", "does not end in .gguf"),
        ("path: /m/", "is a directory"),
        ("path: /m/mmproj-small-f16.gguf", "is a projector"),
        (repo("small-mmproj-f16.gguf"), "is a projector"),
        ("path: /", "whole host"),
        ("path: /m/small-00002-of-00003.gguf", "name the first, beside which the others are: /m/small-00001-of"),
        ("path: /m/small.gguf.part1of2", "a piece of a file"),
        (repo("model.safetensors"), "does not end in .gguf"),
        (repo("Q4_K_M"), "does not end in .gguf"),
        (repo("q/m-00001-of-00003.gguf"), "is part 1 of a model in 3 files, and one is fetched"),
        (f"repo: datasets/B, revision: {COMMIT}, file: m.gguf", "no model's repository"),
        (f"repo: A/B.git, revision: {COMMIT}, file: m.gguf", "write A/B"),
        (url(f"{HUB}/A/B/blob/main/x.gguf"), f"write {HUB}/A/B/resolve/main/x.gguf"),
        (url(f"{HUB}/A/B/raw/main/x.gguf"), "is the pointer to a file"),
        (url(f"{HUB}/A/B/tree/main"), "is a web page"),
        (url(f"{HUB}/A/B"), "is a web page"),
        (url(f"{HUB}/A/B/resolve/main"), "is a web page"),
        (url(f"{HUB}/datasets/A/B"), "is a web page"),
        (url(f"{HUB}/spaces/A/B/tree/main"), "is a web page"),
        (url(f"{HUB}/api/models/A/B"), "is no file"),
        (url("https://hf.co/A/B/blob/main/x.gguf"), "write https://hf.co/A/B/resolve/main/x.gguf"),
        (url(f"{HUB}/A/B/resolve/main/x-00001-of-00002.gguf"), "is part 1 of a model in 2 files"),
        (url(f"{HUB}/A/B/resolve/main/model.safetensors"), "does not end in .gguf"),
        (url("https://github.com/A/B/blob/main/x.gguf"), "is a web page"),
        (url("https://github.com/A/B/releases/tag/v1"), "is a web page"),
        (url("https://ollama.com/library/qwen3"), "by name: write served_name"),
        (url("https://modelscope.cn/models/A/B/file/view/master"), "is a web page"),
        (url("https://example.org/models/"), "is a directory"),
    ],
)  # fmt: skip
def test_what_llama_cpp_cannot_load(source: str, says: str) -> None:
    assert says in refused(compiled(llama_cpp(source)), "invalid-value", 8)


@pytest.mark.parametrize(
    "source",
    [
        "path: /m/small-00001-of-00003.gguf",
        "path: /m/small-00001-of-00001.gguf",
        "path: /usr/share/ollama/.ollama/models/blobs/sha256-0123",
        "path: /m/Small.GGUF",
        "path: /mmproj/small.gguf",
        "path: /m/small.Q4_K_M",
        repo("q4/m.gguf"),
        repo("m-00001-of-00001.gguf"),
        url(f"{HUB}/A/B/resolve/main/x.gguf?download=true"),
        url(f"{HUB}/gpt2/resolve/main/x.gguf"),
        url(f"{HUB}/datasets/A/B/resolve/main/x.gguf"),
        url(f"{HUB}/A/resolve/resolve/main/x.gguf"),
        url("https://cas-bridge.xethub.hf.co/xet/0123?X-Sig=1"),
        url("https://github.com/A/B/releases/download/v1/x.gguf"),
        url("https://modelscope.cn/models/A/B/resolve/master/x.gguf"),
        url("https://civitai.com/api/download/models/1"),
        url("https://example.org/a%20b.gguf"),
        url("https://example.org/blob/main/x.gguf"),
        url("http://127.0.0.1:8900/two.gguf"),
    ],
)
def test_what_llama_cpp_may_load(source: str) -> None:
    assert compiled(llama_cpp(source)).errors == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("path: /m/qwen.Q4_K_M.gguf", "by a provider of type ollama or llama_cpp"),
        ("path: /m/qwen-00001-of-00002.gguf", "reads no GGUF file"),
        ("path: /m/qwen/model.safetensors", "name its directory: /m/qwen"),
        ("path: /m/qwen/config.json", "name its directory: /m/qwen"),
        ("path: /m/qwen.tar.gz", "needs a directory"),
        ("path: //", "whole host"),
        (f"repo: Qwen/Qwen3-8B-GGUF, revision: {COMMIT}", "called one of GGUF files"),
        (f"repo: me/qwen-gguf, revision: {COMMIT}", "called one of GGUF files"),
        (f"repo: spaces/qwen, revision: {COMMIT}", "no model's repository"),
        (url(f"{HUB}/A/B/resolve/main/x.gguf"), "needs a directory"),
    ],
)
def test_what_vllm_cannot_load(source: str, says: str) -> None:
    assert says in refused(of_engines(vllm(source)), "invalid-value", 32)


@pytest.mark.parametrize(
    "source",
    [
        "path: /m/Qwen2.5-Coder-7B",
        "path: /m/qwen.bin/",
        "path: /m/gguf",
        f"repo: Qwen/Qwen3-8B-AWQ, revision: {COMMIT}",
        f"repo: me/GGUF-tools, revision: {COMMIT}",
    ],
)
def test_what_vllm_may_load(source: str) -> None:
    assert of_engines(vllm(source)).errors == []


def test_ollama_loads_no_split_file() -> None:
    text = refused(of_engines(ollama("path: /m/x-00001-of-00002.gguf")), "invalid-value", 8)
    assert "Ollama does not load split models: merge them" in text
    assert of_engines(ollama("path: /m/x.gguf")).errors == []


def test_a_token_in_an_address_is_not_shown() -> None:
    text = llama_cpp(url("https://github.com/A/B/blob/main/x.gguf?token=geheim"))
    assert "geheim" not in refused(compiled(text), "invalid-value", 8)
