"""The header of a GGUF file: what an estimate of a model's memory needs, and nothing of its
weights.

    "GGUF", version, number of tensors, number of keys | key, type, value ... | name, shape, type,
    offset ... | weights

A tensor's size is the distance to the next one, so no table of quantizations has to be kept up to
date. Every count and length is checked before it is believed: the file may be cut off, damaged or
hostile. Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any, BinaryIO

PART = re.compile(r"-00001-of-(\d{5})\.gguf$")
# Large tokenizers take some 15 MiB; no more than this is ever read.
LIMIT_BYTES = 128 << 20
CHUNK_BYTES = 1 << 20
LONGEST_KEY = 1 << 16
MOST_KEYS = 1 << 16
MOST_TENSORS = 1 << 20
# Arrays of numbers up to this length are kept: one number per layer.
LONGEST_KEPT = 4096
MOST_PARTS = 999

NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9

# Of these llama.cpp only looks up rows, on the processor. The first is the output, too, if a model
# has none of its own.
EMBEDDING, OUTPUT, ON_THE_PROCESSOR = (
    "token_embd.weight",
    "output.weight",
    "per_layer_token_embd.weight",
)

# Keys of the architecture that decide the cache, by our name for them.
KEYS = {
    "layers": "block_count",
    "context_length": "context_length",
    "embedding": "embedding_length",
    "heads": "attention.head_count",
    "heads_kv": "attention.head_count_kv",
    "key_length": "attention.key_length",
    "value_length": "attention.value_length",
    "window": "attention.sliding_window",
    "window_pattern": "attention.sliding_window_pattern",
    "shared_layers": "attention.shared_kv_layers",
    "vocabulary": "vocab_size",
}


class GgufError(Exception):
    """The header cannot be read; the text says why."""


class Header:
    """Reads the header of one file from its start, never more than LIMIT_BYTES of it."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle = handle
        self.data = b""
        self.at = 0

    def have(self, size: int) -> None:
        """See to it that `size` more bytes are there.

        Raises GgufError if they are not, or would be too many.
        """
        missing = self.at + size - len(self.data)
        if missing <= 0:
            return
        if self.at + size > LIMIT_BYTES:
            raise GgufError(f"its header is longer than {LIMIT_BYTES >> 20} MiB")
        self.data += self.handle.read(max(missing, len(self.data), CHUNK_BYTES))
        if self.at + size > len(self.data):
            raise GgufError("it ends within its header")

    def number(self, form: str) -> Any:
        """Return one number of a struct's form. Raises GgufError."""
        packed = struct.Struct(f"<{form}")
        self.have(packed.size)
        (value,) = packed.unpack_from(self.data, self.at)
        self.at += packed.size
        return value

    def text(self, longest: int = LIMIT_BYTES) -> str:
        """Return one string. Raises GgufError."""
        size = self.number("Q")
        if size > longest:
            raise GgufError(f"it has a string of {size} bytes in its header")
        self.have(size)
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self) -> Any:
        """Return the value that comes next: a number, a string, a list of numbers, or for other
        lists their length.

        Raises GgufError.
        """
        kind = self.number("I")
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise GgufError(f"its header has a value of unknown type {kind}")
        kind, count = self.number("I"), self.number("Q")
        if kind == STRING:
            self.skip_strings(count)
            return Length(count)
        if kind not in NUMBERS:
            raise GgufError(f"its header has a list of values of unknown type {kind}")
        packed = struct.Struct(f"<{NUMBERS[kind]}")
        self.have(count * packed.size)
        start, self.at = self.at, self.at + count * packed.size
        if count > LONGEST_KEPT:
            return Length(count)
        return [value for (value,) in packed.iter_unpack(self.data[start : self.at])]

    def skip_strings(self, count: int) -> None:
        """Pass over a list of strings.

        A vocabulary has hundreds of thousands, so this loop has to be a plain one.

        Raises GgufError.
        """
        if count * 8 > LIMIT_BYTES:
            raise GgufError(f"it has a list of {count} strings in its header")
        unpack = struct.Struct("<Q").unpack_from
        data, at = self.data, self.at
        for _ in range(count):
            if at + 8 > len(data):
                self.at = at
                self.have(8)
                data = self.data
            at += 8 + unpack(data, at)[0]
            if at > LIMIT_BYTES:
                raise GgufError(f"its header is longer than {LIMIT_BYTES >> 20} MiB")
        self.at = at


class Length(int):
    """How long a list was that has not been kept."""


def read(path: str) -> dict[str, Any]:
    """Return the summary of a model: KEYS, `architecture`, and `weights_bytes`, what of it lies on
    a GPU.

    `path` is the file or, of a split model, its first part. Raises GgufError, or OSError.
    """
    keys: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for number, part in enumerate(parts_of(path)):
        found, tensors = read_file(part)
        sizes.update(tensors)
        if number == 0:
            keys = found
    architecture = keys.get("general.architecture")
    if not isinstance(architecture, str):
        raise GgufError("its header names no architecture")
    summary: dict[str, Any] = {
        name: keys.get(f"{architecture}.{key}") for name, key in KEYS.items()
    }
    tokens = keys.get("tokenizer.ggml.tokens")
    if isinstance(tokens, int):
        summary["vocabulary"] = int(tokens)
    on_the_processor = {ON_THE_PROCESSOR, *([EMBEDDING] if OUTPUT in sizes else [])}
    weights = sum(size for name, size in sizes.items() if name not in on_the_processor)
    return {"architecture": architecture, **summary, "weights_bytes": weights}


def parts_of(path: str) -> list[str]:
    """Return the files of the model whose (first) file is `path`. Raises GgufError."""
    match = PART.search(path)
    if not match:
        return [path]
    count = int(match[1])
    if count > MOST_PARTS:
        raise GgufError(f"its header declares {count} parts")
    return [
        f"{path[: match.start()]}-{number:05d}-of-{match[1]}.gguf" for number in range(1, count + 1)
    ]


def read_file(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the keys of one file with their values, and the sizes of its tensors in bytes.

    Raises GgufError.
    """
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        header = Header(handle)
        header.have(4)
        if header.data[:4] != b"GGUF":
            raise GgufError("it is not a GGUF file")
        header.at = 4
        version = header.number("I")
        if version not in (2, 3):
            raise GgufError(f"its GGUF version ({version}) is unknown")
        tensors, entries = header.number("Q"), header.number("Q")
        if tensors > MOST_TENSORS or entries > MOST_KEYS:
            raise GgufError(f"its header declares {tensors} tensors and {entries} keys")
        keys = {}
        for _ in range(entries):
            key = header.text(LONGEST_KEY)
            keys[key] = header.value()
        offsets = {}
        for _ in range(tensors):
            name = header.text(LONGEST_KEY)
            dimensions = header.number("I")
            if dimensions > 8:
                raise GgufError(f"it has a tensor of {dimensions} dimensions")
            for _ in range(dimensions):
                header.number("Q")
            header.number("I")
            offsets[name] = header.number("Q")
    alignment = keys.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= CHUNK_BYTES:
        raise GgufError(f"its alignment is {alignment!r}")
    end = size - -(-header.at // alignment) * alignment
    sizes = {}
    for name, offset in sorted(offsets.items(), key=lambda item: item[1], reverse=True):
        if offset > end:
            raise GgufError("it is shorter than its header says. Was it copied completely?")
        sizes[name], end = end - offset, offset
    return keys, sizes
