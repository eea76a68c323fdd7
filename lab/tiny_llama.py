#!/usr/bin/env python3
"""Write a tiny, real chat model in the files that vLLM reads: Llama, random weights, the same bytes
every time.

Beside it goes an adapter for it (LoRA). Like `tiny_gguf.py`'s model it says readable nonsense.
Needs the packages gguf and numpy (both in the clone's .venv); what usually writes such files weighs
gigabytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # the path above has to come first
from numpy.typing import NDArray

from lab.state import share_dir
from lab.tiny_gguf import BEGIN, END, TEMPLATE, WORDS

# Heads of 64, because attention on a CPU supports no smaller ones.
WIDTH, LAYERS, HEADS, FEED_FORWARD, RANK = 128, 2, 2, 256, 8
TOKENS = ["<unk>", "<s>", "</s>"]
TOKENS += [f"<0x{byte:02X}>" for byte in range(256)]
TOKENS += [word if word in ",.!?" else f"\u2581{word}" for word in WORDS]

Matrix = NDArray[np.float32]


def write_model(directory: Path, *, seed: int = 0, context_length: int = 1024) -> bool:
    """Write the model unless the directory already holds it.

    Returns:
        Whether a file changed.
    """
    random = np.random.default_rng(seed)
    ones = np.ones(WIDTH, dtype=np.float32)
    output = _matrix(random, len(TOKENS), WIDTH) * 4
    # Bytes and specials score flat, so that answers are words; the end comes up often, so that they
    # end.
    output[:END] = 0
    output[END] *= 2
    output[END + 1 : 259] = 0
    tensors = {
        "model.embed_tokens.weight": _matrix(random, len(TOKENS), WIDTH) * 8,
        "model.norm.weight": ones,
        "lm_head.weight": output,
    }
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("self_attn.q_proj", WIDTH, WIDTH),
            ("self_attn.k_proj", WIDTH, WIDTH),
            ("self_attn.v_proj", WIDTH, WIDTH),
            ("self_attn.o_proj", WIDTH, WIDTH),
            ("mlp.gate_proj", FEED_FORWARD, WIDTH),
            ("mlp.up_proj", FEED_FORWARD, WIDTH),
            ("mlp.down_proj", WIDTH, FEED_FORWARD),
        ):
            tensors[f"model.layers.{layer}.{name}.weight"] = _matrix(random, rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = ones
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": WIDTH // HEADS,
        "vocab_size": len(TOKENS),
        "max_position_embeddings": context_length,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "torch_dtype": "bfloat16",
    }
    names = {"bos_token": TOKENS[BEGIN], "eos_token": TOKENS[END], "unk_token": TOKENS[0]}
    files = {
        "config.json": _json(config),
        "generation_config.json": _json({"bos_token_id": BEGIN, "eos_token_id": END}),
        "model.safetensors": _safetensors(tensors),
        "tokenizer.json": _json(_tokenizer()),
        "tokenizer_config.json": _json(
            {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **names}
        ),
    }
    return _write(directory, files)


def write_adapter(directory: Path, *, seed: int = 1) -> bool:
    """Write an adapter for the model of `write_model` unless it is there.

    Returns whether a file changed.
    """
    random = np.random.default_rng(seed)
    targets = ["q_proj", "v_proj"]
    tensors = {}
    for layer in range(LAYERS):
        for target in targets:
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            tensors[f"{prefix}.lora_A.weight"] = _matrix(random, RANK, WIDTH)
            tensors[f"{prefix}.lora_B.weight"] = _matrix(random, WIDTH, RANK)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK}
    config |= {"target_modules": targets, "bias": "none", "base_model_name_or_path": "tiny-llama"}
    return _write(
        directory,
        {"adapter_config.json": _json(config), "adapter_model.safetensors": _safetensors(tensors)},
    )


def _matrix(random: np.random.Generator, rows: int, columns: int) -> Matrix:
    weights: Matrix = random.standard_normal((rows, columns), dtype=np.float32)
    return weights / np.float32(np.sqrt(columns))


def _tokenizer() -> dict[str, Any]:
    """Return the vocabulary of the GGUF model: words, and bytes for what is none of them."""
    space = "\u2581"
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": rank,
                "content": TOKENS[rank],
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for rank in range(END + 1)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": space},
                {"type": "Replace", "pattern": {"String": " "}, "content": space},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": space}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": True,
            "vocab": [[token, -float(rank)] for rank, token in enumerate(TOKENS)],
        },
    }


def _safetensors(tensors: Mapping[str, Matrix]) -> bytes:
    """Return the tensors as bfloat16: a length, a JSON header, the bytes."""
    header: dict[str, Any] = {}
    body = b""
    for name, tensor in tensors.items():
        # The upper half of a float32 is a bfloat16.
        data = (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": tensor.shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + body


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _write(directory: Path, files: Mapping[str, bytes]) -> bool:
    directory.mkdir(parents=True, exist_ok=True)
    changed = {
        name: content
        for name, content in files.items()
        if not (directory / name).exists() or (directory / name).read_bytes() != content
    }
    for name, content in changed.items():
        new = directory / f".{name}.new"
        new.write_bytes(content)
        new.rename(directory / name)
    return bool(changed)


def main() -> None:
    """Write both; by default where the lab's hosts see them, as /srv/lab/models/tiny-llama and
    tiny-llama-lora.
    """
    parser = argparse.ArgumentParser(
        description="Write a tiny Llama for vLLM, and an adapter for it."
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, default=share_dir() / "models/tiny-llama"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    directory: Path = options.directory
    adapter = directory.with_name(f"{directory.name}-lora")
    changed = write_model(directory, seed=options.seed) | write_adapter(
        adapter, seed=options.seed + 1
    )
    size = sum(path.stat().st_size for path in (*directory.iterdir(), *adapter.iterdir()))
    print(
        f"{directory}: {'written' if changed else 'up to date'}, {size >> 10} KiB with its adapter"
    )


if __name__ == "__main__":
    main()
