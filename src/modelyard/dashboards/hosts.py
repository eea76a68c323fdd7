"""Dashboards of Redis, the hosts, and what was changed on them."""

from __future__ import annotations

from modelyard.dashboards.expressions import RELEASE
from modelyard.dashboards.parts import above, below, board, listing, number, rate, series, states

HOST = "{{instance}}"
DISK = 'fstype!~"tmpfs|ramfs|vfat|iso9660|squashfs"'
FOUND = rate("redis_keyspace_hits_total", "instance")
MISSES = rate("litellm_cache_misses_metric_total", "model")
# Before the first hit there is no counter of hits.
HITS = f"({rate('litellm_cache_hits_metric_total', 'model')} or 0 * {MISSES})"

REDIS = board(
    "redis",
    "Redis and cache",
    "The state that gateways share, and answers from the cache.",
    {
        "Now": [
            number("Redis", "none", "min(redis_up)", steps=below(1), description="1: up"),
            number(
                "Memory in use",
                "percentunit",
                "max(redis_memory_used_bytes / redis_memory_max_bytes)",
                steps=above(0.9),
            ),
            number("Keys", "short", "sum(redis_db_keys) or vector(0)"),
            number("Clients", "none", "sum(redis_connected_clients)"),
        ],
        "Redis": [
            series(
                "Memory",
                "bytes",
                {
                    f"{HOST} in use": "redis_memory_used_bytes",
                    f"{HOST} limit": "redis_memory_max_bytes",
                },
            ),
            series("Commands", "ops", {HOST: rate("redis_commands_processed_total", "instance")}),
            series(
                "Removed keys",
                "none",
                {
                    f"{HOST} evicted": "increase(redis_evicted_keys_total[$__rate_interval])",
                    f"{HOST} expired": "increase(redis_expired_keys_total[$__rate_interval])",
                },
                description="Evicted: the memory was full.",
            ),
        ],
        "Cache": [
            series(
                "Redis hit rate",
                "percentunit",
                {
                    HOST: (
                        f"{FOUND} / ({FOUND} + {rate('redis_keyspace_misses_total', 'instance')}"
                        " > 0)"
                    ),
                },
                description="Counters, cool-downs and cached answers together.",
            ),
            series(
                "Answers from the cache",
                "percentunit",
                {
                    "{{model}}": f"{HITS} / ({HITS} + {MISSES} > 0)",
                },
                description="Only where llm_gateway.cache is enabled.",
            ),
            series(
                "Tokens from the cache",
                "short",
                {"{{model}}": rate("litellm_cached_tokens_metric_total", "model")},
                description="Per second; only where llm_gateway.cache is enabled.",
            ),
        ],
    },
)

HOSTS = board(
    "hosts",
    "Hosts",
    "CPU, memory, disks and network of every host.",
    {
        "CPU and memory": [
            series(
                "CPU in use",
                "percentunit",
                {
                    HOST: (
                        "1 - avg by (instance)"
                        ' (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))'
                    )
                },
                steps=above(0.9, "orange"),
            ),
            series(
                "Load per CPU",
                "none",
                {
                    HOST: (
                        "node_load5 / on (instance) count by (instance)"
                        ' (node_cpu_seconds_total{mode="idle"})'
                    )
                },
                steps=above(2, "orange"),
            ),
            series(
                "Memory in use",
                "percentunit",
                {HOST: "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"},
                steps=above(0.95),
            ),
        ],
        "Disks": [
            series(
                "Free space",
                "percentunit",
                {
                    f"{HOST} {{{{mountpoint}}}}": (
                        f"node_filesystem_avail_bytes{{{DISK}}} / node_filesystem_size_bytes"
                    )
                },
                steps=below(0.1),
            ),
            series(
                "Free space, bytes",
                "bytes",
                {f"{HOST} {{{{mountpoint}}}}": f"node_filesystem_avail_bytes{{{DISK}}}"},
            ),
            series(
                "Read and written",
                "Bps",
                {
                    f"{HOST} read": rate("node_disk_read_bytes_total", "instance"),
                    f"{HOST} written": rate("node_disk_written_bytes_total", "instance"),
                },
            ),
        ],
        "Network and time": [
            series(
                "Network",
                "Bps",
                {
                    f"{HOST} in": rate(
                        'node_network_receive_bytes_total{device!="lo"}', "instance"
                    ),
                    f"{HOST} out": rate(
                        'node_network_transmit_bytes_total{device!="lo"}', "instance"
                    ),
                },
            ),
            series("Open connections", "none", {HOST: "node_netstat_Tcp_CurrEstab"}),
            series(
                "Since the last start", "s", {HOST: "node_time_seconds - node_boot_time_seconds"}
            ),
        ],
    },
)

RELEASES = board(
    "releases",
    "Releases and drift",
    "Live releases, drift and restarts.",
    {
        "Live": [
            listing(
                "Live releases",
                "dateTimeFromNow",
                "1000 * modelyard_release_live_since_seconds"
                f" * on (instance, service) group_left (release, version) {RELEASE}",
                {
                    "instance": "Host",
                    "service": "Service",
                    "release": "Release",
                    "version": "Version",
                    "Value": "Live since",
                },
            ),
            states(
                "Last activation",
                {"{{instance}} {{service}}": "modelyard_activation_last_success"},
                {0: ("failed", "red"), 1: ("good", "green")},
                description="Failed: the former release was restored.",
            ),
        ],
        "Drift": [
            states(
                "Differs from its release",
                {"{{instance}} {{unit}} {{what}}": "modelyard_unit_drift"},
                {0: ("equal", "green"), 1: ("differs", "orange")},
            ),
        ],
        "Units": [
            states(
                "Units",
                {"{{instance}} {{unit}}": "modelyard_unit_active"},
                {0: ("not active", "red"), 1: ("active", "green")},
            ),
            series(
                "Restarts by systemd",
                "none",
                {
                    "{{instance}} {{unit}}": (
                        "increase(modelyard_unit_restarts_total[$__rate_interval])"
                    )
                },
                steps=above(1, "orange"),
            ),
        ],
    },
)
