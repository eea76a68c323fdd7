"""Run a server, and keep what its clients sent out of the journal.

usage: journal.py PROGRAM [ARGUMENT...]
       journal.py --relay

Servers repeat a request in their errors. A child of this process reads what the server prints (the
second usage, from its standard input); this process itself becomes the server, whose signals,
memory and exit status stay its own. The child has no environment, which may hold a key. Until the
server listens, all passes. From then on `journal_rules.py` beside this file, which is the engine's
role's, says what may be shown of a line: `LISTENS`, a regular expression, and `passed(line)`.

Standard library only, because it runs with the host's own Python (3.9 and later).
"""

from __future__ import annotations

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import journal_rules

LONGEST = 400
"""Characters of a line that pass."""


def relay() -> None:
    """Pass on what may be shown, until the server has closed its end."""
    listens = False
    with open(0, encoding="utf-8", errors="replace") as server:
        for raw in server:
            line = raw.rstrip("\n")
            shown = journal_rules.passed(line) if listens else line
            listens = listens or bool(journal_rules.LISTENS.search(line))
            if shown is not None:
                os.write(2, f"{shown[:LONGEST]}\n".encode())


def main(program: list[str]) -> None:
    """Become the program; a child stays between its output and the journal."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        # systemd stops all processes of a unit at once; the server's last words come later.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.dup2(reading, 0)
        os.execve(sys.executable, [sys.executable, "-IB", __file__, "--relay"], {})
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.execv(program[0], program)


if __name__ == "__main__":
    if sys.argv[1] == "--relay":
        relay()
    else:
        main(sys.argv[1:])
