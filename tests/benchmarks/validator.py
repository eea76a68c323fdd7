"""What `litellm --validate_config` says and costs: `validator.py FILE... STARTED`, run by the
gateway's own Python.

It calls what the option calls, so that the imports (seconds) can be told from the work. One file is
measured; several are each validated in a process of their own, forked after the imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import litellm.proxy.proxy_server  # noqa: F401 - imported before the clock starts: the work is measured, not this
from litellm.proxy.proxy_cli import ProxyInitializationHelpers


def accepts(file: str) -> bool:
    """Whether the validator passes a file; what it prints goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ProxyInitializationHelpers.run_config_validation(file)
        except Exception as error:
            print(error, file=sys.stderr)
            return False
    return True


def accepts_apart(file: str) -> bool:
    """The same in a child process."""
    child = os.fork()
    if child == 0:
        passed = False
        try:
            passed = accepts(file)
        finally:
            os._exit(0 if passed else 1)
    return os.waitpid(child, 0)[1] == 0


def peak_mib() -> float:
    """The most memory this process ever had in RAM. (`ru_maxrss` is at least its parent's.)"""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print the result as JSON."""
    *files, started = sys.argv[1:]
    if len(files) > 1:
        print(json.dumps({"accepted": [accepts_apart(file) for file in files]}))
        return
    before = peak_mib()
    begun = time.process_time()
    if not accepts(files[0]):
        sys.exit(1)
    work = time.process_time() - begun
    whole = time.monotonic() - float(started)
    print(json.dumps({"work": work, "whole": whole, "peak": peak_mib(), "before": before}))


if __name__ == "__main__":
    main()
    # LiteLLM 1.106.2 hangs where the interpreter takes its objects apart.
    sys.stdout.flush()
    os._exit(0)
