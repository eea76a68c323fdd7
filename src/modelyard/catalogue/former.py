"""Former variables of the roles, and the keys of the catalogue that replace them.

History, which does not change: docs/diagnostics.md (`unknown-variable`) and CHANGELOG.md say when.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.catalogue.sourcemap import Path

SETTINGS: Mapping[str, Path] = {
    "haproxy_header_timeout_s": ("gateway", "timeouts", "header_s"),
    "haproxy_idle_timeout_s": ("gateway", "timeouts", "idle_s"),
    "litellm_drain_timeout_s": ("gateway", "timeouts", "drain_s"),
    "litellm_index_url": ("versions", "litellm", "index_url"),
    "litellm_ready_timeout_s": ("gateway", "timeouts", "ready_s"),
    "llama_cpp_backend": ("versions", "llama_cpp", "backend"),
    "llama_cpp_cuda_architectures": ("versions", "llama_cpp", "cuda_architectures"),
    "llama_cpp_cuda_toolkit": ("versions", "llama_cpp", "cuda_toolkit"),
    "llama_cpp_index_url": ("versions", "llama_cpp", "index_url"),
    "llama_cpp_model_margin_mib": ("providers", "llama_cpp", "model_margin_mib"),
    "llama_cpp_ready_timeout_s": ("providers", "llama_cpp", "ready_timeout_s"),
    "llama_cpp_python_backend": ("versions", "llama_cpp_python", "backend"),
    "llama_cpp_python_cmake_options": ("versions", "llama_cpp_python", "cmake_options"),
    "llama_cpp_python_cuda_architectures": ("versions", "llama_cpp_python", "cuda_architectures"),
    "llama_cpp_python_cuda_toolkit": ("versions", "llama_cpp_python", "cuda_toolkit"),
    "llama_cpp_python_index_url": ("versions", "llama_cpp_python", "index_url"),
    "llama_cpp_python_model_margin_mib": ("providers", "llama_cpp_python", "model_margin_mib"),
    "llama_cpp_python_ready_timeout_s": ("providers", "llama_cpp_python", "ready_timeout_s"),
    "llama_cpp_python_source": ("versions", "llama_cpp_python", "source"),
    "ollama_model_margin_mib": ("providers", "ollama", "model_margin_mib"),
    "ollama_pull_attempts": ("providers", "ollama", "ollama", "pull_attempts"),
    "ollama_pull_stall_s": ("providers", "ollama", "ollama", "pull_stall_s"),
    "ollama_ready_timeout_s": ("providers", "ollama", "ready_timeout_s"),
    "vllm_build": ("versions", "vllm", "backend"),
    "vllm_cpu_kv_cache_gib": ("providers", "vllm", "vllm", "cpu_kv_cache_gib"),
    "vllm_index_url": ("versions", "vllm", "index_url"),
    "vllm_model_margin_mib": ("providers", "vllm", "model_margin_mib"),
    "vllm_ready_timeout_s": ("providers", "vllm", "ready_timeout_s"),
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
