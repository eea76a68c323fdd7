"""Ask the Prometheus of a scenario, which listens on loopback of its host."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Collection
from typing import Any


def api(host: Any, *paths: str) -> list[Any]:
    """The `data` of the answer for each path of its API, over one connection to the host."""
    urls = [f"http://127.0.0.1:9090/api/v1/{path}" for path in paths]
    text = host.check_output(f"curl -sS -m 20 -w %s {'%s ' * len(urls)}", "\\n", *urls)
    answers = [json.loads(line) for line in text.splitlines()]
    errors = [
        (path, answer)
        for path, answer in zip(paths, answers, strict=True)
        if answer["status"] != "success"
    ]
    assert errors == []
    return [answer["data"] for answer in answers]


def evaluate(host: Any, expressions: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """The series that each expression has now."""
    answers = api(host, *(f"query?{urllib.parse.urlencode({'query': one})}" for one in expressions))
    return dict(zip(expressions, (answer["result"] for answer in answers), strict=True))
