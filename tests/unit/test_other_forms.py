"""Values in the form of another tool: the hint says what to write, and that is accepted."""

from __future__ import annotations

import re

import pytest
from catalogues import CATALOGUE, GROUPS, change, compiled, load

from modelyard.catalogue.fields import refusal
from modelyard.catalogue.hosts import HostVariables
from modelyard.catalogue.schema import Catalogue
from modelyard.compile import Compiled

SHA, COMMIT = "9f86d081884c7d659a2feaa0c55ad015" * 2, "c03e6d358207e414f1eca0bb1891e29f1db0e242"
LLAMA = ("versions", "llama_cpp")
SOURCE = ("providers", "x", "models", 0, "source")
OF_A_TAG = ", and its archive: source: {sdist: null, url: ..., sha256: ...}"
TOOLKIT, ARCHITECTURE = (*LLAMA, "cuda_toolkit"), (*LLAMA, "cuda_architectures", 0)


@pytest.mark.parametrize(
    ("path", "given", "meant"),
    [
        ((*LLAMA, "version"), "8200", "b8200"),
        ((*LLAMA, "version"), "B8200", "b8200"),
        ((*LLAMA, "version"), "v0.3.36", "0.3.36"),
        (("versions", "litellm", "version"), "v1.106.2", "1.106.2"),
        (("versions", "litellm", "version"), "==1.106.2", "1.106.2"),
        (("versions", "litellm", "version"), "1.106.2 ", "1.106.2"),
        (TOOLKIT, "12.9", "/usr/local/cuda-12.9"),
        (TOOLKIT, "cuda-12.9", "/usr/local/cuda-12.9"),
        (TOOLKIT, "12.9.1", "/usr/local/cuda-12.9"),
        (ARCHITECTURE, "89", "8.9"),
        (ARCHITECTURE, "sm_90", "9.0"),
        (ARCHITECTURE, "sm_90a", "9.0"),
        (ARCHITECTURE, "compute_120", "12.0"),
        (ARCHITECTURE, "86-real", "8.6"),
        ((*LLAMA, "cmake_options", 0), "GGML_AVX512=ON", "-DGGML_AVX512=ON"),
        ((*LLAMA, "cmake_options", 0), "-D GGML_AVX512=ON", "-DGGML_AVX512=ON"),
        ((*SOURCE, "sha256"), SHA.upper(), SHA),
        ((*SOURCE, "sha256"), f"sha256:{SHA}", SHA),
        ((*SOURCE, "revision"), COMMIT.upper(), COMMIT),
        ((*SOURCE, "repo"), "https://huggingface.co/A/B-GGUF", "A/B-GGUF"),
        ((*SOURCE, "repo"), "https://huggingface.co/A/B-GGUF/tree/main", "A/B-GGUF"),
        ((*SOURCE, "repo"), "huggingface.co/A/B.git", "A/B"),
        ((*SOURCE, "repo"), "hf://A/B/", "A/B"),
        ((*SOURCE, "file"), "x-q4.gguf?download=true", "x-q4.gguf"),
        ((*SOURCE, "file"), "https://huggingface.co/A/B/resolve/main/q4/x.gguf?download=true", "q4/x.gguf"),
    ],
)  # fmt: skip
def test_what_is_meant_is_said_and_accepted(
    path: tuple[str | int, ...], given: str, meant: str
) -> None:
    hint = (refusal(Catalogue, path, given) or "").removesuffix(OF_A_TAG)
    assert hint in (
        f'write "{meant}"',
        "write it in lower case",
        "write -D directly before its name",
        "write it without white space before or after it",
    )
    assert meant in (
        re.sub(r'write "|"', "", hint),
        given.lower(),
        given.strip(),
        "-DGGML_AVX512=ON",
    )
    assert refusal(Catalogue, path, meant) is None


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ((*LLAMA, "version"), "latest"),
        (ARCHITECTURE, "native"),
        (TOOLKIT, "installed"),
        ((*SOURCE, "repo"), "qwen"),
        ((*SOURCE, "sha256"), "9f86"),
        ((*SOURCE, "revision"), "main"),
    ],
)
def test_nothing_is_made_up_for_what_is_not_known(path: tuple[str | int, ...], given: str) -> None:
    found = refusal(Catalogue, path, given)
    assert found is not None
    assert not found.startswith("write ")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("8200", f'write "b8200"{OF_A_TAG}'),
        ("0.3", "put it in quotes"),
    ],
)
def test_quotes_are_not_offered_where_they_are_refused(value: str, hint: str) -> None:
    text = change('version: "0.3.36"', f"version: {value}")
    assert [one.hint for one in compiled(text).errors] == [hint]


def told(result: Compiled) -> list[tuple[str, str]]:
    return [(one.as_dict()["path"].rpartition(".")[2], one.hint) for one in result.errors]


def test_options_in_another_form_are_told_all_at_once() -> None:
    options = (
        'options: {n_gpu_layers: 9, "--threads": 8, Flash-Attn: true, ctx_size: 1, host: h, hf-repo: A/B, '
        "alias: x, rpc: y, c: 2}"
    )
    result = compiled(change("port: 8081", f"port: 8081\n        {options}"))
    assert told(result) == [
        ("n_gpu_layers", "write n-gpu-layers"),
        ('options["--threads"]', "write threads"),
        ("Flash-Attn", "write flash-attn"),
        ("ctx_size", "use the key context_length"),
        ("host", "the host's llm_address is what it listens on"),
        ("hf-repo", "use the key source"),
        ("alias", "use the key served_name"),
        ("rpc", "remove it"),
        ("c", "use the key context_length"),
    ]


@pytest.mark.parametrize(
    ("kind", "source", "options", "hints"),
    [
        ("vllm", "/m/a", "{tensor_parallel_size: 2, max_model_len: 1, enable-lora: true, lora-modules: a}",
         ["write tensor-parallel-size", "use the key context_length", *["use the key adapter_of of the adapter"] * 2]),
        ("vllm", "/m/a", "{served-model-name: x, quantization: awq, no-enable-lora: true}",
         ["use the key served_name", "use the key quantization", "use the key adapter_of of the adapter"]),
        ("vllm", "/m/a", "{gpu-memory-utilization: 90}", ["it is a part of the memory of each GPU: write 0.9"]),
        ("vllm", "/m/a", '{gpu-memory-utilization: "85%"}', ["it is a part of the memory of each GPU: write 0.85"]),
        ("vllm", "/m/a", "{gpu-memory-utilization: 9000}",
         ["it is a part of the memory of each GPU: 0.5 is half of it"]),
        ("ollama", "/m/a.gguf", "{num_gpu: 20, num_ctx: 4096}", ["write num-gpu", "use the key context_length"]),
    ],
)  # fmt: skip
def test_own_keys_are_named_for_options(
    kind: str, source: str, options: str, hints: list[str]
) -> None:
    provider = (
        f"  other: {{type: {kind}, group: llm_empty, port: 9999, models: "
        f"[{{name: new, source: {{path: {source}}}, options: {options}}}]}}\n"
    )
    version = f'  {kind}: {{version: "0.32.0", source: {{path: /a, sha256: {SHA}}}}}\n'
    if kind == "vllm":
        version = '  vllm: {version: "0.32.0"}\n'
    text = change("llm_routing:\n", f"{provider}llm_routing:\n") + version
    text = change("  fallbacks:\n", "  fallbacks:\n    new: {terminal: true}\n", text)
    result = compiled(text, groups={**GROUPS, "llm_empty": ["one"]})
    assert [hint for _, hint in told(result)] == hints


@pytest.mark.parametrize(
    ("gpus", "message", "hint"),
    [
        ("2", "llm_gpus must be a list, not a number", "for example: llm_gpus: [{memory_mib: 24576}]"),
        ("[RTX 4090]", "llm_gpus[0] must be a mapping, not text", "for example: llm_gpus: [{memory_mib: 24576}]"),
        ("{memory_mib: 24576}", "llm_gpus must be a list, not a mapping",
         "for example: llm_gpus: [{memory_mib: 24576}]"),
        ("[{memory_mib: 24}]", "memory_mib: 24: a GPU has more; 24 GiB are 24576", "write 24576"),
        ("[{memory_mib: 25757220864}]", "memory_mib: 25757220864: a GPU has less; 25757220864 bytes are 24564 MiB",
         "write 24564"),
        ("[{memory_mib: 25153536}]", "memory_mib: 25153536: a GPU has less; 25153536 KiB are 24564 MiB", "write 24564"),
        ("[{memory_mib: 24564, uuid: GPU-aa}, {memory_mib: 24564, uuid: GPU-AA}]",
         "llm_gpus: two GPUs have the UUID GPU-AA; nvidia-smi -L lists them", ""),
    ],
)  # fmt: skip
def test_the_gpus_of_a_host_are_named_as_they_are_written(
    gpus: str, message: str, hint: str
) -> None:
    (one,) = compiled(llm_gpus=load(gpus)).errors
    assert (one.message, one.hint) == (message, hint)


@pytest.mark.parametrize("memory", [1024, 8192, 81559, 183359, 294912])
def test_every_card_that_is_sold_is_accepted(memory: int) -> None:
    assert refusal(HostVariables, ("gpus",), [{"memory_mib": memory}]) is None


@pytest.mark.parametrize(
    ("keys", "messages", "hints"),
    [
        ("vram_mib: 16", ["vram_mib: 16: a model on a GPU has more; 16 GiB are 16384"], ["write 16384"]),
        ("vram_mib: 17179869184", ["vram_mib: 17179869184: a model on a GPU has less; 17179869184 bytes are 16384 MiB"],
         ["write 16384"]),
        ('gpus: "0,1"', ["gpus must be a list, not text"], ["write gpus: [0, 1]"]),
        ("gpus: 0", ["gpus must be a list, not a number"], ["write gpus: [0]"]),
        ('gpus: ["0"]', ["gpus[0]: '0': a GPU is named by its index (0, 1, ...) or its UUID; nvidia-smi -L lists them"],
         ["write 0 without quotes"]),
        ("gpus: []", ["gpus is empty: it needs at least one entry"],
         ["for example: gpus: [0]; or remove this line"]),
    ],
)  # fmt: skip
def test_gpus_and_their_memory_in_other_units_and_forms(
    keys: str, messages: list[str], hints: list[str]
) -> None:
    errors = compiled(change("port: 8081", f"port: 8081\n        {keys}")).errors
    assert [one.message for one in errors] == messages
    assert [one.hint for one in errors] == hints


@pytest.mark.parametrize(
    ("listen", "hint"),
    [
        ("gw1", "write the address that the name stands for"),
        ("10.20.0.11:4000", "write 10.20.0.11: the port is set by a key of its own"),
        ("10.20.0.0/24", "write the address of a host, without the network's /24"),
        ("[2001:db8::1]:4000", "write 2001:db8::1, without brackets and port"),
        (" 10.20.0.11", "write 10.20.0.11"),
        ("10.20.0", ""),
    ],
)
def test_what_is_no_bare_address(listen: str, hint: str) -> None:
    text = change("port: 4000", f'listen: ["{listen}"]')
    assert [one.hint for one in compiled(text).errors] == [hint]


def test_a_section_that_replaces_the_shipped_one_is_told_so() -> None:
    text = CATALOGUE[: CATALOGUE.index("llm_versions:")] + "llm_versions: {vllm: {backend: cpu}}\n"
    instead = (
        "llm_versions replaces the shipped one, so to change a part of that write llm_overrides: "
    )
    assert [one.hint for one in compiled(text).errors] == [
        f"add litellm; {instead}{{versions: {{...}}}}",
        f"add version; {instead}{{versions: {{vllm: ...}}}}",
    ]


def test_a_source_without_a_checksum_names_a_key_that_is_there() -> None:
    over = load(
        "versions: {ollama: {version: '0.18.0', source: {path: /srv/a.tar.zst}}}", "mine.yml"
    )
    (one,) = compiled(llm_overrides=over).errors
    assert one.as_dict()["path"] == "llm_versions.ollama.source.path"
    assert one.hint == "add sha256, as sha256sum prints it"


@pytest.mark.parametrize("option", ["-DGGML_CUDA=OFF", "-DGGML_CUDA:BOOL=0", "-DGGML_CUDA=off"])
def test_a_build_for_gpus_is_not_built_without(option: str) -> None:
    for backend, hints in (
        ("cuda", ["remove -DGGML_CUDA, or set backend: cpu"]),
        ("cpu", []),
        ("auto", []),
    ):
        keys = f'backend: {backend}\n    cmake_options: ["{option}"]'
        text = change('version: "0.3.36"', f'version: "0.3.36"\n    {keys}')
        assert [one.hint for one in compiled(text).errors] == hints


def test_an_option_of_the_other_server_of_llama_cpp() -> None:
    text = change("type: llama_cpp", "type: llama_cpp\n    flavour: python")
    text = change("port: 8081", "port: 8081\n        options: {parallel: 4}", text)
    text += '  llama_cpp_python: {version: "0.3.36"}\n'
    (one,) = compiled(text).errors
    assert one.hint == "remove it: this server answers one request after the other"
