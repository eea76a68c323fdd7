"""Every query of the generated dashboards, for those who evaluate them; needs nothing but the
files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IN_GRAFANA = {"$__rate_interval": "5m", "$__range": "1h"}
"""What Grafana puts in for itself, and what stands for it here."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of one panel or annotation."""

    dashboard: str
    """Name of the file without its suffix."""
    panel: str
    raw: str

    @property
    def expression(self) -> str:
        """As Prometheus takes it."""
        text = self.raw
        for name, value in IN_GRAFANA.items():
            text = text.replace(name, value)
        return text


def queries(directory: Path) -> Iterator[Query]:
    """Those of all dashboards in a directory, in the order of the files."""
    for path in sorted(directory.glob("*.json")):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for panel in content["panels"]:
            for target in panel.get("targets") or []:
                yield Query(path.stem, panel["title"], target["expr"])
        for annotation in content["annotations"]["list"]:
            yield Query(path.stem, f"annotation {annotation['name']}", annotation["expr"])
