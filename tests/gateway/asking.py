"""The least that a request needs, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKING: Mapping[str, Mapping[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "completions": {"prompt": "x"},
    "embeddings": {"input": "x"},
    "responses": {"input": "x"},
    "moderations": {"input": "x"},
    "audio/speech": {"input": "x", "voice": "x"},
    "images/generations": {"prompt": "x"},
}
"""What is asked with JSON, and the least that a request needs."""
