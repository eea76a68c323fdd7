"""The engines in the plan: their processes, what they are started with, who excludes whom, and who
may call them."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import compiled, part

COMMIT = "0123456789abcdef0123456789abcdef01234567"

CATALOGUE = f"""\
llm_providers:
  ollama:
    type: ollama
    group: llm_ollama
    port: 11434
    models:
      - {{name: chatty, served_name: "llama3.1:8b", options: {{temperature: 0.5, num-gpu: 20}}}}
      - {{name: ready, preload: true, context_length: 8192}}
  native:
    type: llama_cpp
    group: llm_native
    port: 8080
    models:
      - name: Tiny.7b
        source: {{path: /m.gguf}}
        options: {{threads: 8, swa-full: true, no-mmap: false, alias-suffix: "a b"}}
  python:
    type: llama_cpp
    flavour: python
    group: llm_python
    port: 8000
    models:
      - {{name: snake, source: {{path: /m.gguf}}, options: {{n-threads: 8, flash-attn: true, verbose: false}}}}
  qwen:
    type: vllm
    group: llm_vllm
    port: 8001
    exclusive_group: card
    models:
      - name: coder
        served_name: coder-7b
        source: {{repo: Qwen/Coder, revision: {COMMIT}}}
        quantization: awq
        gpus: [0, 1]
        options: {{enforce-eager: true}}
      - {{name: coder-sql, adapter_of: coder, source: {{path: /lora/sql}}}}
  dolphin:
    type: vllm
    status: disabled
    group: llm_vllm
    port: 8002
    exclusive_group: card
    models:
      - {{name: dolphin, source: {{path: /models/dolphin}}}}
llm_routing:
  fallbacks:
    chatty: {{chain: [Tiny.7b]}}
    ready: {{chain: [chatty]}}
    Tiny.7b: {{terminal: true}}
    snake: {{chain: [Tiny.7b]}}
    coder: {{chain: [ready]}}
    coder-sql: {{chain: [coder]}}
    dolphin: {{chain: [coder, snake]}}
llm_gateway: {{port: 4000}}
llm_versions:
  litellm: {{version: "1.106.2"}}
  ollama: {{version: "0.17.4", source: {{url: "https://x.example/v{{version}}.tgz", sha256: {"d" * 64}}}}}
  llama_cpp: {{version: "0.3.36", source: {{sdist: llama-cpp-python==0.3.36, sha256: {"a" * 64}}}}}
  llama_cpp_python: {{version: "0.3.36"}}
  vllm: {{version: "0.32.0"}}
"""

HOSTS = ["a", "b", "g"]
GROUPS = {
    "llm_stack": HOSTS,
    "llm_gateway": ["g"],
    "llm_redis": ["g"],
    "llm_ollama": ["a"],
    "llm_native": ["a"],
    "llm_python": ["a"],
    "llm_vllm": ["b"],
}
ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2", "g": "10.0.0.9"}


def result(text: str = CATALOGUE, **keywords: Any) -> Any:
    keywords = {"groups": GROUPS, "addresses": ADDRESSES, "secrets": frozenset()} | keywords
    return compiled(text, **keywords)


def change(old: str, new: str) -> str:
    assert CATALOGUE.count(old) == 1
    return CATALOGUE.replace(old, new)


def plan(host: str, text: str = CATALOGUE) -> dict[str, Any]:
    out = result(text)
    assert out.errors == [], [error.render() for error in out.errors]
    return dict(out.plans[host])


def instance(role: str, text: str = CATALOGUE) -> dict[str, Any]:
    (only,) = part(plan("b" if role == "vllm" else "a", text), role)["instances"]
    return dict(only)


def error(text: str, code: str) -> str:
    errors = result(text).errors
    assert [one.code for one in errors] == [code], [one.render() for one in errors]
    return str(errors[0].render())


def test_one_process_per_model_and_one_ollama_per_provider() -> None:
    services = [(s["service"], s["address"], s["port"], s["models"]) for s in plan("a")["services"]]
    assert services == [
        ("ollama@ollama", "10.0.0.1", 11434, ["chatty", "ready"]),
        ("llama-cpp@tiny-7b", "10.0.0.1", 8080, ["Tiny.7b"]),
        ("llama-cpp-python@snake", "10.0.0.1", 8000, ["snake"]),
    ]
    assert [s["service"] for s in plan("b")["services"]] == ["vllm@coder"]


def test_arguments_of_each_engine() -> None:
    assert instance("llama_cpp")["arguments"] == [
        "--threads",
        "8",
        "--swa-full",
        "--alias-suffix",
        "a b",
    ]
    python = ["--n_threads", "8", "--flash_attn", "true", "--verbose", "false"]
    assert instance("llama_cpp_python")["arguments"] == python
    wanted = ["--enforce-eager", "--quantization", "awq", "--tensor-parallel-size", "2"]
    assert instance("vllm")["arguments"] == wanted
    text = change("enforce-eager: true", "pipeline-parallel-size: 2")
    assert instance("vllm", text)["arguments"] == [
        "--pipeline-parallel-size",
        "2",
        "--quantization",
        "awq",
    ]


def test_ollama() -> None:
    assert part(plan("a"), "ollama")["source"]["url"] == "https://x.example/v0.17.4.tgz"
    only = instance("ollama")
    assert only["secrets"] == {}
    assert [
        (m["name"], m["served_name"], m["preload"], m["context_length"]) for m in only["models"]
    ] == [
        ("chatty", "llama3.1:8b", False, None),
        ("ready", "ready", True, 8192),
    ]
    assert only["models"][0]["parameters"] == {"temperature": 0.5, "num_gpu": 20}
    checks = {check["kind"]: check for check in only["checks"]}
    assert checks["models"]["names"] == ["llama3.1:8b", "ready:latest"]
    # A check loads nothing: what is not resident is not asked.
    assert ["skip" in check for check in only["checks"] if check["kind"] == "chat"] == [True, False]
    deployed = plan("g")["litellm"]["document"]["model_list"]
    keys = {entry["model_name"]: entry["litellm_params"]["api_key"] for entry in deployed}
    assert keys["chatty"] == "none"
    assert keys["coder"] == "os.environ/QWEN_API_KEY"


def test_adapter_shares_its_models_process() -> None:
    only = instance("vllm")
    assert only["adapters"] == [{"name": "coder-sql", "source": {"path": "/lora/sql"}}]
    assert only["served_name"] == "coder-7b"
    names = next(check["names"] for check in only["checks"] if check["kind"] == "models")
    assert names == ["coder-7b", "coder-sql"]
    bases = {
        entry["model_name"]: entry["litellm_params"]["api_base"]
        for entry in plan("g")["litellm"]["document"]["model_list"]
    }
    assert bases["coder-sql"] == bases["coder"] == "http://127.0.0.1:4003/pool.qwen.coder/v1"


def test_members_of_an_exclusive_group_stop_each_other() -> None:
    assert instance("vllm")["conflicts"] == ["modelyard-vllm@dolphin.service"]
    assert instance("llama_cpp")["conflicts"] == []
    swapped = change("    type: vllm\n    status: disabled\n", "    type: vllm\n").replace(
        "    exclusive_group: card\n    models:\n      - name: coder\n",
        "    exclusive_group: card\n    status: disabled\n    models:\n      - name: coder\n",
    )
    assert instance("vllm", swapped)["service"] == "vllm@dolphin"
    assert instance("vllm", swapped)["conflicts"] == ["modelyard-vllm@coder.service"]


def test_name_of_an_inactive_member_is_answered_by_who_steps_in() -> None:
    out = result()
    assert out.errors == []
    route = next(route for route in out.routes if route["name"] == "dolphin")
    assert route["kind"] == "inactive"
    assert [attempt["model"] for attempt in route["attempts"]] == [
        "coder",
        "ready",
        "chatty",
        "Tiny.7b",
        "snake",
    ]
    assert route["left_out"][0] == {
        "model": "dolphin",
        "reason": 'provider "dolphin": "qwen" is active in card',
    }
    document = out.plans["g"]["litellm"]["document"]
    groups = document["router_settings"]["routing_groups"]
    assert [(group["group_name"], group["models"]) for group in groups] == [("dolphin", ["coder"])]
    assert {"dolphin": ["ready", "chatty", "Tiny.7b", "snake"]} in document["router_settings"][
        "fallbacks"
    ]


def test_chains_do_without_an_inactive_member() -> None:
    out = result(
        change("coder: {chain: [ready]}", "coder: {chain: [dolphin, ready]}").replace(
            "[coder, snake]", "[snake]"
        )
    )
    assert out.errors == []
    route = next(route for route in out.routes if route["name"] == "coder")
    # Whoever steps in for the member that is switched off does so here, too.
    assert [attempt["model"] for attempt in route["attempts"]] == [
        "coder",
        "snake",
        "Tiny.7b",
        "ready",
        "chatty",
    ]
    assert [left["model"] for left in route["left_out"]] == ["dolphin"]


def test_an_alias_of_an_inactive_member() -> None:
    out = result(change("  fallbacks:\n", "  aliases: {fish: dolphin}\n  fallbacks:\n"))
    assert out.errors == []
    assert "fish" in out.public_names
    assert out.plans["g"]["litellm"]["document"]["router_settings"]["model_group_alias"] == {
        "fish": "dolphin"
    }


def test_a_long_request_to_an_inactive_member() -> None:
    """The model that answers for it is asked first, then the chain for long requests."""
    text = change(
        "  fallbacks:\n", "  context_window_fallbacks: {dolphin: {chain: [snake]}}\n  fallbacks:\n"
    )
    out = result(text)
    assert out.errors == []
    route = next(route for route in out.routes if route["name"] == "dolphin")
    assert route["context_window"][:2] == ["coder", "snake"]
    router = out.plans["g"]["litellm"]["document"]["router_settings"]
    assert (
        next(
            chain["dolphin"] for chain in router["context_window_fallbacks"] if "dolphin" in chain
        )[0]
        == "snake"
    )


def test_without_anybody_to_step_in_the_name_goes() -> None:
    out = result(change("dolphin: {chain: [coder, snake]}", "dolphin: {terminal: true}"))
    assert out.errors == []
    assert "dolphin" not in out.public_names


def test_only_the_active_model_of_a_provider_runs() -> None:
    adder = "      - {name: adder, source: {path: /a.gguf}}\n"
    text = change("  qwen:\n", f"{adder}    active: adder\n  qwen:\n")
    text = text.replace("    snake: {chain", "    adder: {terminal: true}\n    snake: {chain")
    out = result(text)
    assert out.errors == [], [one.render() for one in out.errors]
    (only,) = part(out.plans["a"], "llama_cpp_python")["instances"]
    assert (only["service"], only["conflicts"]) == (
        "llama-cpp-python@adder",
        ["modelyard-llama-cpp-python@snake.service"],
    )
    route = next(route for route in out.routes if route["name"] == "snake")
    assert (route["kind"], [attempt["model"] for attempt in route["attempts"]]) == (
        "inactive",
        ["Tiny.7b"],
    )
    message = error(text.replace("active: adder", "active: addr"), "unknown-model")
    assert 'did you mean "adder"' in message


def test_only_gateways_may_call_what_listens_beyond_loopback() -> None:
    assert plan("a")["firewall"]["rules"] == [
        {"service": "ollama@ollama", "port": 11434, "from": ["10.0.0.9"]},
        {"service": "llama-cpp@tiny-7b", "port": 8080, "from": ["10.0.0.9"]},
        {"service": "llama-cpp-python@snake", "port": 8000, "from": ["10.0.0.9"]},
    ]
    # The gateway's own host: Redis is on loopback, and the door is for everybody who reaches it.
    assert plan("g")["firewall"]["rules"] == []
    two = result(groups={**GROUPS, "llm_gateway": ["g", "a"]}).plans
    assert {tuple(rule["from"]) for rule in two["a"]["firewall"]["rules"]} == {("10.0.0.9",)}
    assert {tuple(rule["from"]) for rule in two["b"]["firewall"]["rules"]} == {
        ("10.0.0.1", "10.0.0.9")
    }
    assert [(rule["service"], rule["from"]) for rule in two["g"]["firewall"]["rules"]] == [
        ("redis", ["10.0.0.1"])
    ]


def test_what_preflight_is_told() -> None:
    wanted = {entry["model"]: entry for entry in plan("a")["demands"]}
    assert wanted["ready"]["context_length"] == 8192
    assert wanted["ready"]["service"] == wanted["chatty"]["service"] == "ollama@ollama"
    assert wanted["Tiny.7b"]["source"] == {"path": "/m.gguf"}
    assert plan("b")["demands"][0]["gpus"] == [0, 1]


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("preload: true, ", "preload: true, port: 1234, ", "invalid-value", "port has no effect"),
        ("adapter_of: coder,", "adapter_of: codr,", "unknown-model", 'did you mean "coder"'),
        (
            "adapter_of: coder,",
            "adapter_of: coder, gpus: [0],",
            "invalid-value",
            "an adapter uses that of ",
        ),
        (
            "{path: /models/dolphin}",
            f"{{url: 'https://x.example/a', sha256: {'c' * 64}}}",
            "invalid-value",
            "a directory",
        ),
        (
            "{enforce-eager: true}",
            "{trust-remote-code: true}",
            "invalid-value",
            'option "trust-remote-code"',
        ),
        ("temperature: 0.5", "num-ctx: 99", "invalid-value", 'option "num-ctx"'),
        (
            "{threads: 8",
            '{threads: "@GPU@"',
            "invalid-value",
            'options of "Tiny.7b": @GPU@ is a placeholder',
        ),
        (
            "coder-7b",
            '"@MODEL@"',
            "invalid-value",
            'served_name of "coder": @MODEL@ is a placeholder',
        ),
        (
            "{threads: 8",
            '{threads: "8@KEY_FILE@"',
            "invalid-value",
            'options of "Tiny.7b": @KEY_FILE@ is a placeholder',
        ),
        ("options: {n-threads", "options: {n-ctx", "invalid-value", 'option "n-ctx"'),
        (
            "preload: true,",
            "preload: true, quantization: q4,",
            "invalid-value",
            "it applies to vllm",
        ),
        (
            "port: 11434\n",
            "port: 11434\n    api_key_env: KEY\n",
            "invalid-value",
            "Ollama checks no keys",
        ),
        (
            "port: 8001\n",
            "port: 8001\n    ollama: {prune: true}\n",
            "invalid-value",
            "the key ollama has no effect",
        ),
        (f"revision: {COMMIT}", "revision: main", "invalid-value", "a revision is a commit"),
        (
            "port: 8001\n",
            "port: 8001\n    vllm: {cpu_kv_cache_gb: 1}\n",
            "unknown-key",
            '"cpu_kv_cache_gib"?',
        ),
        ("port: 8001\n", "port: 8001\n    ready_timeout_s: 0\n", "invalid-value", "greater than 0"),
        (
            'vllm: {version: "0.32.0"}',
            'vllm: {version: "0.32.0", bakend: cpu}',
            "unknown-key",
            '"backend"?',
        ),
        (
            'vllm: {version: "0.32.0"}',
            'vllm: {version: "0.32.0", backend: cdua}',
            "unknown-value",
            '"cuda"?',
        ),
        (
            'vllm: {version: "0.32.0"}',
            'vllm: {version: "0.32.0", index_url: "https://u:p@x.example"}',
            "invalid-value",
            "no credentials",
        ),
        (
            'llama_cpp_python: {version: "0.3.36"}',
            'llama_cpp_python: {version: "0.3.36", cuda_architectures: ["sm_89"]}',
            "invalid-value",
            "'8.9'",
        ),
        (
            'llama_cpp_python: {version: "0.3.36"}',
            'llama_cpp_python: {version: "0.3.36", cuda_toolkit: cuda-12}',
            "invalid-value",
            "absolute path",
        ),
        (
            'llama_cpp_python: {version: "0.3.36"}',
            'llama_cpp_python: {version: "0.3.36", source: {}}',
            "invalid-value",
            "exactly one of url and path",
        ),
        (
            'ollama: {version: "0.17.4"',
            'ollama: {version: "0.17.0"',
            "version-unsafe",
            "below 0.17.1",
        ),
        (
            'vllm: {version: "0.32.0"}',
            'vllm: {version: "0.14.0"}',
            "version-unsafe",
            "below 0.18.0",
        ),
        (
            '  vllm: {version: "0.32.0"}\n',
            "",
            "missing-key",
            "vllm is deployed, but llm_versions has no version of it",
        ),
        (
            f"sha256: {'d' * 64}}}}}\n  llama_cpp:",
            "}}\n  llama_cpp:",
            "invalid-value",
            "downloads are always verified",
        ),
        (
            '  vllm: {version: "0.32.0"}\n',
            '  vllm: {version: "0.32.0"}\n  hugging_face: {token_env: HF_TOKEN}\n',
            "secret-undefined",
            "HF_TOKEN",
        ),
    ],
)
def test_refused(old: str, new: str, code: str, says: str) -> None:
    assert says in error(change(old, new), code)


def test_what_decides_the_build_is_in_the_engines_part() -> None:
    keys = {"cuda_toolkit": "auto", "cuda_architectures": [], "cmake_options": []}
    python = part(plan("a"), "llama_cpp_python")
    assert python == {
        "role": "llama_cpp_python",
        "version": "0.3.36",
        "backend": "auto",
        **keys,
        "instances": python["instances"],
    }
    vllm = part(plan("b"), "vllm")
    assert vllm == {
        "role": "vllm",
        "version": "0.32.0",
        "backend": "cuda",
        "instances": vllm["instances"],
    }
    index = 'vllm: {version: "0.32.0", backend: auto, index_url: "https://x.example/simple"}'
    vllm = part(plan("b", change('vllm: {version: "0.32.0"}', index)), "vllm")
    assert (vllm["backend"], vllm["index_url"]) == ("auto", "https://x.example/simple")


def test_how_it_runs_is_in_the_instance() -> None:
    ready = {role: instance(role)["ready_timeout_s"] for role in ("ollama", "llama_cpp", "vllm")}
    assert ready == {"ollama": 60, "llama_cpp": 600, "vllm": 1800}
    assert {instance(role)["model_margin_mib"] for role in ready} == {1024}
    assert instance("vllm")["settings"] == {"cpu_kv_cache_gib": 4}
    more = (
        "port: 8001\n    ready_timeout_s: 9\n    model_margin_mib: 7\n    vllm: {cpu_kv_cache_gib:"
        " 1}\n"
    )
    vllm = instance("vllm", change("port: 8001\n", more))
    assert (vllm["ready_timeout_s"], vllm["model_margin_mib"]) == (9, 7)
    assert vllm["settings"] == {"cpu_kv_cache_gib": 1}


@pytest.mark.parametrize(
    "key", ["ready_timeout_s: 9", "model_margin_mib: 9", "vllm: {cpu_kv_cache_gib: 1}"]
)
def test_how_it_runs_has_no_effect_elsewhere(key: str) -> None:
    text = change(
        "    group: llm_vllm\n    port: 8002\n", f"    base_url: https://x.example\n    {key}\n"
    )
    text = text.replace(
        "    exclusive_group: card\n    models:\n      - {name: dolphin, source: {path:"
        " /models/dolphin}}",
        "    models:\n      - {name: dolphin}",
    )
    assert f"{key.split(':')[0]} has no effect on a provider with a base_url" in str(
        [error.render() for error in result(text).errors]
    )


def test_without_gpus_a_model_is_not_split_over_them() -> None:
    text = change('vllm: {version: "0.32.0"}', 'vllm: {version: "0.32.0", backend: cpu}')
    assert "--tensor-parallel-size" in instance("vllm")["argv"]
    assert "--tensor-parallel-size" not in instance("vllm", text)["argv"]
    assert instance("vllm", text)["gpus"] == []
