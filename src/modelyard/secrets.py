"""Where the value of a secret comes from.

Not part of the compiler, which knows names of secrets only: this module reads the environment and the disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def find(name: str, given: Mapping[str, Any], store: Path) -> str | None:
    """Return a secret from `given` (the variable llm_secrets), else the environment, else its file in `store`.

    None where nobody defined it; an empty text if its file is empty.
    """
    value = given.get(name) or os.environ.get(name)
    if value:
        return str(value)
    path = store / name
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
