"""What may be shown of llama-server's lines.

It logs errors with what the request said (`got exception: {...}`), addresses of pictures, answers
that it cannot parse, and grammars. No option leaves these out and the rest in. So a line passes up
to where such a text could begin: a second colon, a quote, a bracket. What has not the form of the
server's own lines is left out, such as further lines of a text; what ggml and CUDA say passes.
"""

from __future__ import annotations

import re

LISTENS = re.compile(r"\blistening on\b")
OWN = re.compile(
    r"""
    (?:[\d.]+\ [A-Z]\ )?(?:srv|slot|que|res|main|llama_server)\s+   # time and level, part
    [\w~]+(?:\(\))?:\                                             # function
    (?:[^:'"{\[<=]|=\s*-?\d)*                                     # words and numbers
    """,
    re.VERBOSE,
)
COMPUTING = re.compile(
    r"(?:[\d.]+ [A-Z] )?(?:ggml_|GGML_|CUDA |cuBLAS|llama_(?!grammar))|/\S+\.(?:cpp|cuh?|c|h):\d+: "
)
CUT = "... (the rest is not shown: it may be what a client sent)"


def passed(line: str) -> str | None:
    """Return what may be shown of a line, None for nothing of it."""
    if COMPUTING.match(line):
        return line
    own = OWN.match(line)
    if own is None:
        return None
    return line if own[0] == line else own[0] + CUT
