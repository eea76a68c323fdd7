"""The plan as people read it."""

from __future__ import annotations

from catalogues import CATALOGUE, change, compiled

from modelyard.compile import Compiled
from modelyard.output.render import render_plan


def plan(text: str = CATALOGUE, **arguments: object) -> str:
    result: Compiled = compiled(text, **arguments)
    assert result.errors == [], [diagnostic.render() for diagnostic in result.errors]
    return render_plan(result)


def test_hosts_with_services_ports_and_gpus() -> None:
    text = change("/models/small.gguf}", "/models/small.gguf}\n        vram_mib: 6144")
    text = change("port: 8081", "port: 8081\n        gpus: [1]", text)
    gpus = [
        {"memory_mib": 24576, "name": "NVIDIA GeForce RTX 4090"},
        {"memory_mib": 8192, "uuid": "GPU-5d2b7c3e-0000-0000-0000-000000000000"},
    ]
    assert plan(text, llm_gpus=gpus).startswith(
        "Host one\n"
        "  127.0.0.1:6379  modelyard-redis\n"
        "  127.0.0.1:8080  modelyard-llama-cpp@small     small           GPU 0\n"
        "  127.0.0.1:8081  modelyard-llama-cpp@large-7b  large:7b        GPU 1\n"
        "  127.0.0.1:4001  modelyard-litellm@blue\n"
        "  127.0.0.1:4002  modelyard-litellm@green\n"
        "  127.0.0.1:4000  modelyard-haproxy             3 public names\n"
        "  127.0.0.1:4003  modelyard-haproxy             2 pools\n"
        "  GPU  MiB    free   name                     models\n"
        "  0    24576  18432  NVIDIA GeForce RTX 4090  small 6144\n"
        "  1    8192   8192                            large:7b (need unknown)\n"
        "\n"
    )


def test_pools_with_their_hosts_and_limits() -> None:
    hosts = {"llm_stack": ["one", "two"], "llm_local": ["one", "two"]}
    groups = {**hosts, "llm_gateway": ["one"], "llm_redis": ["one"]}
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    text = change("port: 8081", "port: 8081\n        max_parallel: 3\n        queue_s: 9")
    title = "Pools: hosts that share an engine's requests\n"
    assert (
        f"{title}"
        "  pool.local.small     one, two  1 at once on each, others wait up to 60 s  small\n"
        "  pool.local.large-7b  one, two  3 at once on each, others wait up to 9 s   large:7b\n"
        "\n"
    ) in plan(text, groups=groups, addresses=addresses)
    assert f"{title}  pool.local.small     one  1 at once, others wait up to 60 s" in plan()


def test_host_without_any_service() -> None:
    text = plan(groups={"llm_stack": ["one", "idle"]}, addresses={"one": "192.0.2.1"})
    assert "Host idle\n  nothing\n\n" in text


def test_ipv6_addresses_are_in_brackets() -> None:
    text = change("  port: 4000", '  port: 4000\n  listen: ["::1"]')
    assert "  [::1]:4000      modelyard-haproxy" in plan(text)


NAMES = change(
    "llm_gateway:",
    "  aliases: {chat: small}\n  capabilities:\n    code: {models: ['large:7b', small]}\n"
    "  context_window_fallbacks:\n    small: {chain: ['large:7b']}\n"
    "  content_policy_fallbacks:\n    big-cloud: {chain: [small]}\nllm_gateway:",
)


def test_order_of_attempts_per_name() -> None:
    assert (
        "Order of attempts for each public name\n"
        "  small\n"
        "    1. small      local on one\n"
        "    2. big-cloud  cloud on https://api.example.org/v1\n"
        "    on a context-window error: small → large:7b\n"
        "  large:7b\n"
        "    1. large:7b   local on one\n"
        "    2. small      local on one\n"
        "    3. big-cloud  cloud on https://api.example.org/v1\n" in plan(NAMES)
    )


def test_names_that_stand_for_others() -> None:
    text = plan(NAMES)
    assert (
        "  code (capability)\n    1. large:7b   local on one\n    2. small      local on one\n"
        in text
    )
    assert "  chat (alias of small)\n" in f"{text}\n"


def test_clients() -> None:
    clients = (
        "llm_clients:\n  app: {secret: A, models: [small, big-cloud], rpm: 60}\n  batch: {secret:"
        " B}\n"
    )
    assert "Clients with" not in plan()
    assert (
        "Clients with their own keys\n  app    small, big-cloud  60 requests a minute\n  batch  all"
        " names" in plan(CATALOGUE + clients)
    )


def test_what_is_left_out_and_why() -> None:
    text = change(
        "    api_key_env: CLOUD_KEY\n",
        "    api_key_env: CLOUD_KEY\n    when_secret_missing: skip\n",
    )
    text = change("    small: {chain: [big-cloud]}", "    small: {terminal: true}", text)
    reason = "secret CLOUD_KEY is not defined (when_secret_missing: skip)"
    shown = plan(text, secrets=frozenset())
    assert (
        f'    2. small     local on one\n    -  big-cloud is left out: provider "cloud": {reason}'
        in shown
    )
    assert f"\n\nLeft out\n  provider cloud: {reason} (big-cloud)" in shown


def test_warnings_stand_at_the_end() -> None:
    text = change("    big-cloud: {terminal: true}\n", "")
    assert plan(text).split("\n\n")[-1].startswith("Warnings\n  llm.yml:")
