"""All dashboards, as the files that the role puts on the host."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from modelyard.dashboards.engines import ENGINES, GPUS
from modelyard.dashboards.gateway import OVERVIEW, ROUTING, TOKENS
from modelyard.dashboards.hosts import HOSTS, REDIS, RELEASES

BOARDS = (OVERVIEW, ROUTING, TOKENS, ENGINES, GPUS, REDIS, HOSTS, RELEASES)


def texts() -> dict[str, str]:
    """Return the content of each file, by name."""
    return {f"{str(one.uid).removeprefix('modelyard-')}.json": text(one) for one in BOARDS}


def text(one: Dashboard) -> str:
    """Return a dashboard as JSON with a line for each panel, so that a diff shows which of them
    changed.
    """
    content = json.loads(JSONEncoder(sort_keys=True).encode(one))
    panels = ",\n  ".join(json.dumps(panel, ensure_ascii=False) for panel in content.pop("panels"))
    head = "".join(
        f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},\n"
        for key, value in content.items()
    )
    return f'{{\n{head} "panels": [\n  {panels}\n ]\n}}\n'
