"""What may be shown of the lines of llama-cpp-python's server.

It prints each error with the request's fields. Shown are the kind of an error and the places in the
code, the line of each request, and what llama.cpp says of its work.
"""

from __future__ import annotations

import re

LISTENS = re.compile(r"^INFO: +Uvicorn running on ")
SHOWN = re.compile(
    r"""
    INFO:\ +\S+\ -\ "[A-Z]+\ /v1/[a-z/]*\ HTTP/[\d.]+"\ \d+.*         # a request
    | (?:INFO|ERROR):\ +(?:Shutting|Waiting|Application|Finished|Started|Exception\ in)\b.*
    | Traceback\ \(most\ recent\ call\ last\):
    | \ +File\ "/[^"]+",\ line\ \d+,\ in\ \S+
    | Llama\.generate:\ \d+\ prefix-match\ hit.*
    | (?:llama_(?!grammar)|ggml_|CUDA\ |/\S+\.(?:cpp|cuh?|c|h):\d+:\ ).*
    """,
    re.VERBOSE,
)
KIND = re.compile(r"[A-Za-z_.]*(?:Error|Exception)(?=:|$)")
CUT = "... (the rest is not shown: it may be what a client sent)"


def passed(line: str) -> str | None:
    """Return what may be shown of a line, None for nothing of it."""
    if SHOWN.fullmatch(line):
        return line
    kind = KIND.match(line)
    if kind is None:
        return None
    return line if kind[0] == line else kind[0] + CUT
