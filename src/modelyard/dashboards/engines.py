"""Dashboards of the engines and the GPUs they run on."""

from __future__ import annotations

from modelyard.dashboards.expressions import quantile
from modelyard.dashboards.parts import above, board, listing, rate, series, states

ON = "{{instance}} {{service}}"
GPU = "{{instance}} {{index}}"

ENGINES = board(
    "engines",
    "Engines",
    "Queues, cache use and speed of the engines.",
    {
        "Measured by a real request": [
            series(
                "Time to first token",
                "s",
                {"{{instance}} {{model}}": "modelyard_probe_time_to_first_token_seconds"},
                steps=above(5, "orange"),
                description=(
                    "The host's exporter queries each model periodically, bypassing the gateway."
                ),
            ),
            series(
                "Tokens per second",
                "none",
                {"{{instance}} {{model}}": "modelyard_probe_tokens_per_second"},
            ),
            states(
                "Answered",
                {"{{instance}} {{model}}": "modelyard_probe_success"},
                {0: ("failed", "red"), 1: ("answered", "green")},
            ),
        ],
        "vLLM": [
            series(
                "Requests",
                "none",
                {
                    f"{ON} running": "vllm:num_requests_running",
                    f"{ON} waiting": "vllm:num_requests_waiting",
                },
                steps=above(5, "orange"),
            ),
            series(
                "KV cache in use",
                "percentunit",
                {ON: "vllm:kv_cache_usage_perc"},
                steps=above(0.95),
            ),
            series(
                "Preempted requests",
                "none",
                {ON: "increase(vllm:num_preemptions_total[$__rate_interval])"},
                steps=above(1, "orange"),
            ),
            series(
                "Prompt cache hit rate",
                "percentunit",
                {
                    ON: (
                        f"{rate('vllm:prefix_cache_hits_total', 'instance', 'service')}"
                        f" / ({rate('vllm:prefix_cache_queries_total', 'instance', 'service')} > 0)"
                    )
                },
            ),
        ],
        "vLLM: speed": [
            series(
                "Tokens per second",
                "none",
                {
                    f"{ON} read": rate("vllm:prompt_tokens_total", "instance", "service"),
                    f"{ON} written": rate("vllm:generation_tokens_total", "instance", "service"),
                },
            ),
            series(
                "Time to first token, p95",
                "s",
                {ON: quantile(0.95, "vllm:time_to_first_token_seconds", "instance", "service")},
            ),
            series(
                "Time in the queue, p95",
                "s",
                {ON: quantile(0.95, "vllm:request_queue_time_seconds", "instance", "service")},
            ),
        ],
        "llama.cpp": [
            series(
                "Busy slots and waiting requests",
                "none",
                {
                    f"{ON} running": "llamacpp:requests_processing",
                    f"{ON} waiting": "llamacpp:requests_deferred",
                },
                steps=above(1, "orange"),
            ),
            series(
                "Tokens per second",
                "none",
                {
                    f"{ON} read": rate("llamacpp:prompt_tokens_total", "instance", "service"),
                    f"{ON} written": rate("llamacpp:tokens_predicted_total", "instance", "service"),
                },
            ),
            series(
                "Prompt cache hit rate",
                "percentunit",
                {
                    ON: (
                        f"{rate('llamacpp:prompt_tokens_cached_total', 'instance', 'service')}"
                        f" / ({rate('llamacpp:prompt_tokens_cached_total', 'instance', 'service')}"
                        f" + {rate('llamacpp:prompt_tokens_total', 'instance', 'service')} > 0)"
                    )
                },
            ),
        ],
    },
)

GPUS = board(
    "gpus",
    "GPUs",
    "Load, temperature and errors of the NVIDIA GPUs.",
    {
        "Use": [
            series("Computing", "percentunit", {GPU: "modelyard_gpu_utilization_ratio"}),
            series(
                "Memory in use",
                "percentunit",
                {GPU: "modelyard_gpu_memory_used_bytes / modelyard_gpu_memory_total_bytes"},
                steps=above(0.98),
            ),
            series("Memory in use, bytes", "bytes", {GPU: "modelyard_gpu_memory_used_bytes"}),
        ],
        "Heat": [
            series(
                "Temperature",
                "celsius",
                {GPU: "modelyard_gpu_temperature_celsius"},
                steps=above(87),
            ),
            series(
                "Power",
                "watt",
                {
                    GPU: "modelyard_gpu_power_watts",
                    f"{GPU} limit": "modelyard_gpu_power_limit_watts",
                },
            ),
        ],
        "Errors": [
            series(
                "Errors in the kernel log (XID)",
                "none",
                {GPU: "modelyard_gpu_xid_errors_total"},
                steps=above(1),
                description="Since the host's last boot.",
            ),
            series(
                "Memory errors (ECC)",
                "none",
                {f"{GPU} {{{{type}}}}": "modelyard_gpu_ecc_errors_total"},
                steps=above(1, "orange"),
                description="Since the driver was loaded; consumer GPUs do not report them.",
            ),
            listing(
                "GPUs",
                "none",
                "modelyard_gpu_info",
                {
                    "instance": "Host",
                    "index": "Number",
                    "name": "Name",
                    "driver_version": "Driver",
                    "uuid": "UUID",
                },
            ),
        ],
    },
)
