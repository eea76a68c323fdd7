"""Former variables of the roles, and the keys of the catalogue that replace them.

History, which does not change: docs/diagnostics.md (`unknown-variable`) and CHANGELOG.md say when.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.catalogue.sourcemap import Path
from modelyard.engines import ENGINES

SETTINGS: Mapping[str, Path] = {
    "haproxy_header_timeout_s": ("gateway", "timeouts", "header_s"),
    "haproxy_idle_timeout_s": ("gateway", "timeouts", "idle_s"),
    "litellm_drain_timeout_s": ("gateway", "timeouts", "drain_s"),
    "litellm_index_url": ("versions", "litellm", "index_url"),
    "litellm_ready_timeout_s": ("gateway", "timeouts", "ready_s"),
    **{
        f"{engine.role}_{name}": (section, engine.role, *keys)
        for engine in ENGINES
        for name, (section, *keys) in engine.former.items()
    },
}
"""What only these variables could set. The second word of a provider's path is the role."""

FORMER: Mapping[str, Path] = {
    **SETTINGS,
    "alertmanager_port": ("monitoring", "alertmanager", "port"),
    "engine_hugging_face": ("versions", "hugging_face"),
    "grafana_port": ("monitoring", "grafana", "port"),
    "haproxy_body_timeout_s": ("gateway", "limits", "body_s"),
    "haproxy_connections_per_address": ("gateway", "limits", "connections_per_address"),
    "haproxy_listen": ("gateway", "listen"),
    "haproxy_metrics_port": ("monitoring", "exporters", "gateway"),
    "haproxy_port": ("gateway", "port"),
    "haproxy_slots": ("gateway", "slots"),
    "haproxy_stream_timeout_s": ("gateway", "timeouts", "door_s"),
    "litellm_slots": ("gateway", "slots"),
    "litellm_version": ("versions", "litellm", "version"),
    "litellm_workers": ("gateway", "workers"),
    "prometheus_port": ("monitoring", "prometheus", "port"),
    "prometheus_retention_days": ("monitoring", "prometheus", "retention_days"),
    "prometheus_retention_gib": ("monitoring", "prometheus", "retention_gib"),
    "prometheus_scrape_interval_s": ("monitoring", "prometheus", "scrape_interval_s"),
    "redis_maxmemory_mib": ("gateway", "redis", "maxmemory_mib"),
    "redis_maxmemory_policy": ("gateway", "redis", "maxmemory_policy"),
    "redis_persistence": ("gateway", "redis", "persistence"),
    "redis_port": ("gateway", "redis", "port"),
}
"""All that have a key. Others, such as `redis_checks`, follow from the catalogue."""
