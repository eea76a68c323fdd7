"""All dashboards, as the files that the role puts on the host."""

from __future__ import annotations

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from modelyard.dashboards.engines import ENGINES, GPUS
from modelyard.dashboards.gateway import OVERVIEW, ROUTING, TOKENS
from modelyard.dashboards.hosts import HOSTS, REDIS, RELEASES

BOARDS = (OVERVIEW, ROUTING, TOKENS, ENGINES, GPUS, REDIS, HOSTS, RELEASES)


def texts() -> dict[str, str]:
    """The content of each file, by name."""
    encoder = JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False)
    return {f"{str(one.uid).removeprefix('modelyard-')}.json": encoder.encode(one) + "\n" for one in BOARDS}
