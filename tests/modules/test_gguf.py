"""The reader of GGUF headers: real files, and files that are cut off, damaged or made to harm."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from ansible.module_utils import modelyard_gguf
from ansible.module_utils.modelyard_gguf import GgufError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.tiny_gguf import write_model


def test_a_real_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_model(path, context_length=4096)
    found = modelyard_gguf.read(str(path))
    reader = gguf.GGUFReader(path)
    weights = {tensor.name: tensor.n_bytes for tensor in reader.tensors}
    padded = {name: -(-size // 32) * 32 for name, size in weights.items()}
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    assert found == {
        "architecture": "llama",
        "layers": 2,
        "context_length": 4096,
        "embedding": 64,
        "heads": 4,
        "heads_kv": 4,
        "key_length": None,
        "value_length": None,
        "window": None,
        "window_pattern": None,
        "shared_layers": None,
        "vocabulary": vocabulary,
        "weights_bytes": sum(padded.values()) - padded["token_embd.weight"],
    }


def write(path: Path, **keys: object) -> Path:
    """Write a file with one key per kind of value, and the tensors of a model whose output is its
    embedding."""
    writer = gguf.GGUFWriter(path, "gemma9")
    writer.add_block_count(3)
    writer.add_head_count_kv([8, 0, 4])
    writer.add_sliding_window(1024)
    writer.add_array("gemma9.attention.sliding_window_pattern", [True, False, True])
    writer.add_string("general.description", "é" * 1000)
    writer.add_float64("a", 0.5)
    writer.add_int8("b", -1)
    writer.add_array("tokenizer.ggml.scores", [0.5] * 9000)
    writer.add_token_list([f"token {number}" for number in range(9000)])
    for name, value in keys.items():
        writer.add_uint32(name, value)
    for name in ("token_embd.weight", "per_layer_token_embd.weight", "blk.0.attn_q.weight"):
        writer.add_tensor(name, np.ones((4, 256), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_one_number_per_layer_and_tied_embeddings(tmp_path: Path) -> None:
    found = modelyard_gguf.read(str(write(tmp_path / "m.gguf")))
    assert found["heads_kv"] == [8, 0, 4]
    assert found["window_pattern"] == [True, False, True]
    assert found["window"] == 1024
    assert found["vocabulary"] == 9000
    assert found["context_length"] is None
    assert found["weights_bytes"] == 2 * 4096, (
        "the embedding is the output too, that of the layers is only looked up"
    )


def test_parts_of_a_split_model_are_added_up(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf")
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(whole.read_bytes())
    with pytest.raises(FileNotFoundError, match="m-00002-of-00002"):
        modelyard_gguf.read(str(first))
    writer = gguf.GGUFWriter(tmp_path / "m-00002-of-00002.gguf", "gemma9")
    writer.add_tensor("output.weight", np.ones((4, 256), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = modelyard_gguf.read(str(first))
    assert found["weights_bytes"] == 2 * 4096, (
        "with an output of its own the embedding stays with the processor"
    )
    assert found["layers"] == 3
    with pytest.raises(GgufError, match="99999 parts"):
        modelyard_gguf.read("/m-00001-of-99999.gguf")


def test_a_file_that_is_cut_off_anywhere(tmp_path: Path) -> None:
    """Within the header the reader says so; within the weights the size of the last tensor gives it
    away or not."""
    path = write(tmp_path / "m.gguf")
    whole = path.read_bytes()
    for size in [*range(400), *range(400, len(whole) - 12288, 997)]:
        path.write_bytes(whole[:size])
        with pytest.raises(GgufError, match=r"ends within its header|shorter than its header"):
            modelyard_gguf.read(str(path))
    path.write_bytes(whole[: len(whole) - 12288])
    with pytest.raises(GgufError, match="shorter than its header"):
        modelyard_gguf.read(str(path))


HEAD = b"GGUF" + struct.pack("<I", 3)


def key(name: bytes, kind: int, rest: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + rest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends within"),
        (b"PK\x03\x04" + bytes(60), "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(60), r"GGUF version \(1\)"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(60), r"GGUF version \(50331648\)"),
        (HEAD + struct.pack("<QQ", 2**63, 1), "9223372036854775808 tensors"),
        (HEAD + struct.pack("<QQ", 1, 2**40), "1099511627776 keys"),
        (
            HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62),
            "string of 4611686018427387904 bytes",
        ),
        (HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 99, b""), "value of unknown type 99"),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 8, struct.pack("<Q", 2**40)),
            "string of 1099511627776",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 8, struct.pack("<Q", 2**27)),
            "longer than 128 MiB",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQ", 9, 1)),
            "list of values of unknown type 9",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQ", 4, 2**60)),
            "longer than 128 MiB",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQ", 8, 2**60)),
            "list of 11529215.* strings",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQQ", 8, 5, 2**60)),
            "longer than 128 MiB",
        ),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"a", 9, struct.pack("<IQQ", 8, 5, 2**20)),
            "ends within",
        ),
        (HEAD + struct.pack("<QQ", 0, 0), "names no architecture"),
        (
            HEAD + struct.pack("<QQ", 0, 1) + key(b"general.alignment", 4, struct.pack("<I", 0)),
            "alignment is 0",
        ),
        (HEAD + struct.pack("<QQ", 1, 0) + struct.pack("<QI", 0, 9), "9 dimensions"),
        (
            HEAD + struct.pack("<QQ", 1, 0) + struct.pack("<QIIQ", 0, 0, 0, 2**50),
            "shorter than its header",
        ),
    ],
)
def test_what_is_no_model_has_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(GgufError, match=reason):
        modelyard_gguf.read(str(path))


def test_no_more_than_the_header_is_read(tmp_path: Path) -> None:
    """A sparse file of 8 GiB."""
    path = write(tmp_path / "m.gguf")
    with open(path, "r+b") as handle:
        handle.truncate(8 << 30)
    assert modelyard_gguf.read(str(path))["weights_bytes"] > 7 << 30
