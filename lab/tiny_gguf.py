#!/usr/bin/env python3
"""Write a tiny, real chat model: GGUF, llama architecture, random weights, the same bytes every
time.

It says readable nonsense at thousands of tokens a second, which is all that a test of the machinery
needs. Needs the packages gguf and numpy (both in the clone's .venv).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gguf  # the path above has to come first
import numpy as np
from numpy.typing import NDArray

from lab.state import share_dir

WIDTH, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 176
BEGIN, END = 1, 2

WORDS = """
    a about after again all also always an and another any are as at back be because been before between
    both but by can carry chain check close cold come day deep door each early engine even every fall
    fast few find first flow for four free from full gate give go good great green had half hand hard
    has have help her here high him his home host house how idea if in into is it just keep key know
    large last late lead left less let light like line little live long look low made main make man many
    may model more most move much must name near new next night no not now number of off often old on
    one only open or other our out over own part path people place plan play point port quick quiet rack
    read real red rest right room route run said same say second see send set she should show side slot
    small so some soon sound stand start still stop store such sure switch take talk tell than that the
    their them then there these they thing think this those three through time to token too tool tree
    true turn two under until up use very voice wait want warm was watch water way we well went were
    what when where which while white who why will wind wire with word work world would write year yes
    you young your , . ! ?
""".split()

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor"
    " %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def write_model(path: Path, *, seed: int = 0, context_length: int = 4096) -> bool:
    """Write the model unless the file already holds it; a different seed gives a different model.

    Returns:
        Whether the file changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    writer = gguf.GGUFWriter(new, "llama")
    writer.add_name(f"tiny-{seed}")
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    vocabulary = _add_vocabulary(writer)
    _add_weights(writer, vocabulary, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if path.exists() and path.read_bytes() == new.read_bytes():
        new.unlink()
        return False
    new.rename(path)
    return True


def _add_vocabulary(writer: gguf.GGUFWriter) -> int:
    """Add a SentencePiece vocabulary (specials, all bytes, words) and return its size."""
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(word if word in ",.!?" else f"\u2581{word}", kinds.NORMAL) for word in WORDS]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def _add_weights(writer: gguf.GGUFWriter, vocabulary: int, random: np.random.Generator) -> None:
    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        weights: NDArray[np.float32] = random.standard_normal((rows, columns), dtype=np.float32)
        return weights / np.float32(np.sqrt(columns))

    ones = np.ones(WIDTH, dtype=np.float32)
    writer.add_tensor("token_embd.weight", matrix(vocabulary, WIDTH) * 8)
    output = matrix(vocabulary, WIDTH) * 4
    # Bytes and specials score flat, so that answers are words; the end comes up often, so that they
    # end.
    output[:END] = 0
    output[END] *= 2
    output[END + 1 : 259] = 0
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, WIDTH),
            ("attn_v", WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", FEED_FORWARD, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            writer.add_tensor(f"blk.{layer}.{name}.weight", matrix(rows, columns))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones)


def main() -> None:
    """Write one model; by default where the lab's hosts see it as /srv/lab/models/tiny.gguf."""
    parser = argparse.ArgumentParser(
        description="Write a tiny GGUF chat model with random weights."
    )
    parser.add_argument("path", nargs="?", type=Path, default=share_dir() / "models/tiny.gguf")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    changed = write_model(options.path, seed=options.seed)
    print(
        f"{options.path}: {'written' if changed else 'up to date'},"
        f" {options.path.stat().st_size >> 10} KiB"
    )


if __name__ == "__main__":
    main()
