"""Run llama-server, and keep what its clients sent out of the journal.

usage: journal.py PROGRAM [ARGUMENT...]

llama-server logs errors with what the request said (`got exception: {...}`), addresses of
pictures, answers that it cannot parse, and grammars. No option leaves these out and the rest in. So
a child of this process reads what the server prints; this process itself becomes the server, whose
signals, memory and exit status stay its own. Until the server listens, all passes. From then on a
line passes up to where a text could begin: a second colon, a quote, a bracket. What has not the
form of the server's own lines is left out, such as further lines of a text; what ggml and CUDA say
passes.

One file, standard library only, because it runs with the host's own Python (3.9 and later).
"""

from __future__ import annotations

import os
import re
import signal
import sys

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
LONGEST = 400
"""Characters of a line that pass. No line of the server's own is longer."""
CUT = "... (the rest is not shown: it may be what a client sent)"


class Filter:
    """Decides line by line; the server has not begun to listen yet."""

    def __init__(self) -> None:
        self.listens = False

    def passed(self, line: str) -> str | None:
        """Return what may be shown of a line, None for nothing of it."""
        if not self.listens:
            self.listens = bool(LISTENS.search(line))
            return line
        if COMPUTING.match(line):
            return line[:LONGEST]
        own = OWN.match(line)
        if own is None:
            return None
        shown = own[0][:LONGEST]
        return shown if shown == line else shown + CUT


def relay(source: int, target: int) -> None:
    """Pass on what may be shown, until the server has closed its end."""
    lines = Filter()
    with os.fdopen(source, encoding="utf-8", errors="replace") as server:
        for line in server:
            shown = lines.passed(line.rstrip("\n"))
            if shown is not None:
                os.write(target, f"{shown}\n".encode())


def main(program: list[str]) -> None:
    """Become the program; a child stays between its output and the journal."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        # systemd stops all processes of a unit at once; the server's last words come later.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        relay(reading, 2)
        os._exit(0)
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
