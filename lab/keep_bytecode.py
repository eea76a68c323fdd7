"""Keep the bytecode of what Python imports from a zip file: a host's `sitecustomize` (lab/base.py).

Ansible sends each module as a zip file, and Python compiles all of it anew each time: 0.15 s of
0.36 s for `stat`.
"""

import hashlib
import marshal
import os
import zipimport
from types import CodeType

DIRECTORY = "/var/cache/lab-python"
"""Only root can read or write it."""

_compile = zipimport._compile_source  # type: ignore[attr-defined]


def _compile_once(path: str, source: bytes) -> CodeType:
    kept = f"{DIRECTORY}/{hashlib.sha256(source).hexdigest()}"
    try:
        with open(kept, "rb") as file:
            return marshal.load(file)  # type: ignore[no-any-return]
    except (OSError, EOFError, ValueError, TypeError):
        code: CodeType = _compile(path, source)
    new = f"{kept}.{os.getpid()}"
    try:
        with open(new, "wb") as file:
            marshal.dump(code, file)
        os.replace(new, kept)
    except OSError:
        pass  # not root, or no room
    return code


zipimport._compile_source = _compile_once  # type: ignore[attr-defined]
