"""Every refusal: the right code, on the right line, alone, with the right hint."""

# ruff: noqa: E501 - one edit per line reads better than a wrapped table
from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from catalogues import (
    CATALOGUE,
    GROUPS,
    ROOT,
    change,
    compiled,
    inventory,
    load,
    part,
    places,
    probe,
    refused,
    views,
)
from pydantic import BaseModel

from modelyard.catalogue.former import FORMER
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.secrets import SeenSecret
from modelyard.catalogue.sourcemap import Origin
from modelyard.catalogue.strays import SHAPES, Variable
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.chains import SECTIONS
from modelyard.compiler.inventory import Host, Inventory
from modelyard.controller.places import declared
from modelyard.diagnostics import CODES
from modelyard.showing import NAMES_OF_SECRETS

# (name, old text, new text, code, line, part of the rendering)
EDITS = [
    ("unknown key of a model", "port: 8081", "prot: 8081", "unknown-key", 11, 'did you mean "port"?'),
    ("unknown key of a provider", "group: llm_local", "group: llm_local\n    cuda: 1", "unknown-key", 5, "the keys here"),
    ("unknown key of the gateway", "port: 4000", "ports: 4000", "unknown-key", 24, 'did you mean "port"?'),
    ("unknown key of a chain", "{terminal: true}", "{terminate: true}", "unknown-key", 22, 'did you mean "terminal"?'),
    ("unknown type", "type: openai", "type: opnai", "unknown-value", 13, 'did you mean "openai"?'),
    ("unknown mode", "- name: small", "- name: small\n        mode: chatt", "unknown-value", 8, 'did you mean "chat"?'),
    ("text for a number", "port: 4000", 'port: "4000"', "invalid-value", 24, "without quotes"),
    ("number for text", '"1.106.2"', "1.106", "invalid-value", 26, "put it in quotes"),
    ("key of the time-outs", "port: 4000", "ready_s: 5", "unknown-key", 24, 'did you mean "timeouts.ready_s"?'),
    ("key of the limits", "port: 4000", "timeouts: {body_s: 3}", "unknown-key", 24, 'did you mean "limits.body_s"?'),
    ("former name of a key", "llama_cpp:\n    version:", "vllm: {version: 0.32.0, build: cpu}\n  llama_cpp:\n    version:", "unknown-key", 27, 'did you mean "backend"?'),
    ("endless time-out", "port: 4000", "timeouts: {door_s: 86401}", "invalid-value", 24, "less than or equal to 86400"),
    ("endless header", "port: 4000", "timeouts: {header_s: 3000000}", "invalid-value", 24, "less than or equal to 86400"),
    ("endless drain", "port: 4000", "timeouts: {drain_s: 99999999999}", "invalid-value", 24, "less than or equal to 86400"),
    ("endless body", "port: 4000", "limits: {body_s: 86401}", "invalid-value", 24, "less than or equal to 86400"),
    ("number too large", "port: 4000", "port: 70000", "invalid-value", 24, "65535"),
    ("address twice", "port: 4000", "listen: [127.0.0.1, 127.0.0.1]", "invalid-value", 24, "duplicate address"),
    ("address beside all", "port: 4000", "listen: [0.0.0.0, 127.0.0.1]", "invalid-value", 24, "mean all addresses"),
    ("zero limit", "- name: small", "- name: small\n        rpm: 0", "invalid-value", 8, "greater than 0"),
    ("negative weight", "- name: small", "- name: small\n        weight: -1", "invalid-value", 8, "greater than 0"),
    ("credentials in a URL", "https://api", "https://u:p@api", "invalid-value", 14, "api_key_env"),
    ("URL without scheme", "https://api.example.org/v1", "api.example.org", "invalid-value", 14, "http://"),
    ("key instead of a secret's name", "CLOUD_KEY", "sk-12345", "invalid-value", 15, "never the key itself"),
    ("group and base_url", "base_url:", "group: llm_local\n    base_url:", "invalid-value", 15, "exactly one"),
    ("cloud without a key", "    api_key_env: CLOUD_KEY\n", "", "invalid-value", 13, "api_key_env"),
    ("url without sha256", "{path: /models/small.gguf}", "{url: https://e.org/m}", "invalid-value", 8, "sha256"),
    ("token on a command line", "port: 8081", "port: 8081\n        options: {hf-token: s3cret}", "invalid-value", 12, "show a secret"),
    ("password on a command line", "port: 8081", "port: 8081\n        options: {x: 'http://u:s3cret@e.org/'}", "invalid-value", 12, "URL with a password"),
    ("option the unit sets", "port: 8081", "port: 8081\n        options: {host: x}", "invalid-value", 12, "set by the unit"),
    ("source of a model elsewhere", "- name: big-cloud", "- name: big-cloud\n        source: {path: /x}",
     "invalid-value", 18, "runs elsewhere"),
    ("no type", "    type: openai\n", "", "missing-key", 12, '"type" is missing'),
    ("no source", "        source: {path: /models/small.gguf}\n", "", "missing-key", 7, "has no source"),
    ("model without name", "- name: big-cloud", "- name: big-cloud\n      - mode: chat", "missing-key", 18, '"name"'),
    ("group not in the inventory", "llm_local", "llm_loca", "unknown-group", 4, 'did you mean "llm_local"?'),
    ("host not in the group", "port: 8081", "port: 8081\n        hosts: [ome]", "unknown-host", 12, 'did you mean "one"?'),
    ("typo in a chain", "{chain: [small, big-cloud]}", "{chain: [smal, big-cloud]}", "unknown-model", 20,
     'did you mean "small"?'),
    ("typo in a chain's head", "    small: {chain", "    smal: {chain", "unknown-model", 21, 'did you mean "small"?'),
    ("chain with itself", "small: {chain: [big-cloud]}", "small: {chain: [small]}", "chain-self", 21, "itself"),
    ("duplicate step", "[small, big-cloud]", "[small, small]", "chain-duplicate", 20, "duplicate entry"),
    ("alias beside its model", "  fallbacks:\n    large:7b: {chain: [small, big-cloud]}",
     "  aliases: {chat: small}\n  fallbacks:\n    large:7b: {chain: [chat, big-cloud, small]}", "chain-duplicate", 21,
     '"small" is the same as "chat"'),
    ("model beside its alias", "  fallbacks:", "  aliases: {chat: small}\n  default_fallbacks: [small, chat]\n  fallbacks:",
     "chain-duplicate", 20, '"chat" is the same as "small"'),
    ("two aliases of one model", "  fallbacks:",
     "  aliases: {chat: small, talk: small}\n  default_fallbacks: [talk, chat]\n  fallbacks:", "chain-duplicate", 20,
     "remove one of them"),
    ("empty chain", "small: {chain: [big-cloud]}", "small: {chain: []}", "chain-empty", 21, "terminal: true"),
    ("empty entry", "small: {chain: [big-cloud]}", "small: {}", "chain-empty", 21, "terminal: true"),
    ("terminal with a chain", "{chain: [big-cloud]}", "{chain: [big-cloud], terminal: true}", "invalid-value", 21,
     "keep one"),
    ("port taken by the door", "port: 8081", "port: 4000", "port-clash", 11, '"large:7b"'),
    ("two models on one port", "        port: 8081\n", "", "port-clash", 9, 'give "large:7b" its own port, such as port: 8081'),
    ("version with known holes", "1.106.2", "1.83.6", "version-unsafe", 26, "1.83.7"),
    ("compromised version", "1.106.2", "1.82.7", "version-unsafe", 26, "steals keys"),
    ("version that the index lacks", "1.106.2", "1.107.0", "version-unsafe", 26, "use another version"),
    ("typo in a context chain", "  fallbacks:", "  context_window_fallbacks: {small: {chain: [big-clod]}}\n  fallbacks:",
     "unknown-model", 19, 'did you mean "big-cloud"?'),
    ("typo in a content chain's head", "  fallbacks:", "  content_policy_fallbacks: {smal: {chain: [big-cloud]}}\n  fallbacks:",
     "unknown-model", 19, 'did you mean "small"?'),
    ("context chain with itself", "  fallbacks:",
     "  context_window_fallbacks: {small: {chain: [big-cloud, small]}}\n  fallbacks:", "chain-self", 19, "itself"),
    ("content chain with a step twice", "  fallbacks:",
     "  content_policy_fallbacks: {small: {chain: [big-cloud, big-cloud]}}\n  fallbacks:", "chain-duplicate", 19,
     "duplicate entry"),
    ("typo in the default chain", "  fallbacks:", "  default_fallbacks: [big-clod]\n  fallbacks:", "unknown-model", 19,
     'did you mean "big-cloud"?'),
    ("default chain with a step twice", "  fallbacks:", "  default_fallbacks: [small, small]\n  fallbacks:",
     "chain-duplicate", 19, "duplicate entry"),
    ("tag of the gateway's own", "- name: small", "- name: small\n        tags: [default]", "invalid-value", 8, "tag"),
    ("negative price", "- name: big-cloud", "- name: big-cloud\n        price: {input: -1, output: 0}", "invalid-value", 18,
     "greater than or equal to 0"),
    ("GPU of a model elsewhere", "- name: big-cloud", "- name: big-cloud\n        gpus: [0]", "invalid-value", 18, "runs elsewhere"),
    ("GPU that is not declared", "- name: small", "- name: small\n        gpus: [1]", "unknown-gpu", 8, "has GPU 0"),
    ("UUID that is not declared", "- name: small", "- name: small\n        gpus: [GPU-1]", "unknown-gpu", 8, "has GPU 0"),
    ("GPUs by index and UUID", "- name: small", "- name: small\n        gpus: [0, GPU-1]", "unknown-gpu", 8, "has GPU 0"),
    ("not a UUID", "- name: small", "- name: small\n        gpus: [first]", "invalid-value", 8, "nvidia-smi -L"),
    ("too much for the GPU", "- name: small", "- name: small\n        vram_mib: 9000", "vram-exceeded", 8,
     "needs 9000 MiB on one GPU of one: GPU 0 has 8192 of 8192 MiB left"),
    ("too long for the door", "port: 4000", "timeouts: {door_s: 500}", "invalid-value", 24, "front end gives up after 500 s"),
    ("silence too long for the door", "- name: small", "- name: small\n        stream_timeout: 4000", "invalid-value", 8,
     "a stream may be silent for 4000 s, but the front end gives up after 3600 s"),
    ("model's time-out too long for the door", "- name: small", "- name: small\n        timeout: 4000", "invalid-value", 8, "3600 s"),
    ("cached without redis", "port: 4000", "cache: {enabled: true}", "cache-without-redis", 24, "llm_redis"),
    ("secret of our own", "CLOUD_KEY", "LITELLM_MASTER_KEY", "secret-reserved", 15, "Modelyard itself"),
    ("client with a provider's key", "llm_versions:", "llm_clients: {app: {secret: CLOUD_KEY}}\nllm_versions:",
     "secret-shared", 25, 'also a secret of provider "cloud"'),
    ("client with the master key", "llm_versions:", "llm_clients: {app: {secret: LITELLM_MASTER_KEY}}\nllm_versions:",
     "secret-shared", 25, "Modelyard itself"),
    ("client with an engine's key", "llm_versions:", "llm_clients: {app: {secret: LOCAL_API_KEY}}\nllm_versions:",
     "secret-shared", 25, 'provider "local"'),
    ("clients with one key", "llm_versions:", "llm_clients:\n  a: {secret: KEY}\n  b: {secret: KEY}\nllm_versions:",
     "secret-shared", 27, 'client "a"'),
    ("client's key that is too short", "llm_versions:", "llm_clients: {app: {secret: SHORT}}\nllm_versions:",
     "secret-too-short", 25, "fewer than 24 characters"),
    ("typo in a client's models", "llm_versions:",
     "llm_clients: {app: {secret: KEY, models: [small, big-clod]}}\nllm_versions:", "unknown-model", 25,
     'did you mean "big-cloud"?'),
    ("client without models", "llm_versions:", "llm_clients: {app: {secret: KEY, models: []}}\nllm_versions:",
     "invalid-value", 25, "at least one entry"),
    ("client with a model twice", "llm_versions:",
     "llm_clients: {app: {secret: KEY, models: [small, small]}}\nllm_versions:", "invalid-value", 25, "duplicate entry"),
    ("client with a key instead of a secret's name", "llm_versions:",
     "llm_clients: {app: {secret: sk-12345}}\nllm_versions:", "invalid-value", 25, "never the key itself"),
    ("client's name", "llm_versions:", "llm_clients: {My App: {secret: KEY}}\nllm_versions:", "invalid-value", 25,
     "lower-case letters"),
    ("client without a secret", "llm_versions:", "llm_clients: {app: {rpm: 5}}\nllm_versions:", "missing-key", 25,
     '"secret" is missing'),
    ("unknown key of a client", "llm_versions:", "llm_clients: {app: {secret: KEY, model: [small]}}\nllm_versions:",
     "unknown-key", 25, 'did you mean "models"?'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "text"), [edit[1:] for edit in EDITS], ids=[e[0] for e in EDITS]
)
def test_one_wrong_line(old: str, new: str, code: str, line: int, text: str) -> None:
    groups = {"llm_redis": []} if code == "cache-without-redis" else {}
    gpus = [{"memory_mib": 8192}]
    given = inventory(CATALOGUE.replace(old, new, 1), groups=groups, llm_gpus=gpus)
    assert text in refused(
        compile_inventory(replace(given, views=views(SHORT=SeenSecret(1, short=True)))), code, line
    )


ALERTS = "llm_monitoring:\n  alertmanager: {{{}}}\nllm_versions:"
EMAIL = "email: {to: a@e.org, sender: a@e.org"
OLLAMA = "  more: {{type: ollama, group: llm_empty, port: 1, models: [{{name: m}}], ollama: {{{}}}}}\n  cloud:"


def codes(result: Compiled) -> list[str]:
    return [code for code, _line in places(result)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{path: /models/small.gguf}", "{url: 'https://u:s3cret@e.org/m', sha256: x}"),
        ('version: "1.106.2"', 'version: "1.106.2", index_url: "https://u:s3cret@e.org/simple"'),
        ("llm_versions:", "llm_versions:\n  hugging_face: {endpoint: 'https://u:s3cret@e.org'}"),
        ("port: 8081", "port: 8081\n        options: {proxy: 'http://u:s3cret@e.org'}"),
        ("port: 8081", "port: 8081\n        options: {hf-token: s3cret}"),
        ("llm_versions:", ALERTS.format("webhook: {url: 'https://u:s3cret@e.org/x'}")),
        ("llm_versions:", ALERTS.format(f"{EMAIL}, smarthost: 'u:s3cret@e.org:25'}}")),
        ("  port: 4000", "  port: 4000\n  listen: ['u:s3cret@e.org']"),
        ("  port: 4000", "  port: 4000\n  listen: 'http://u:s3cret@e.org'"),
        ("  llama_cpp:", "  llama_cpp:\n    cmake_options: ['-DX=https://u:s3cret@e.org/x']"),
        ("  cloud:", OLLAMA.format("origins: ['https://u:s3cret@e.org']")),
        ("  cloud:", OLLAMA.format("registry: 'u:s3cret@e.org:5000'")),
    ],
)
def test_a_password_in_a_url_is_not_shown(old: str, new: str) -> None:
    told = [one.render() for one in compiled(CATALOGUE.replace(old, new, 1)).errors]
    assert told
    assert not any("s3cret" in text for text in told)


def test_everything_at_once() -> None:
    """Problems in all parts of the catalogue are told in one go, each on its own line."""
    text = change("port: 8081", "prot: 8081")
    text = change("type: openai", "type: opnai", text)
    text = change("{chain: [small, big-cloud]}", "{chain: [smal, big-cloud]}", text)
    text = change("port: 4000", "port: 0", text)
    text = change("1.106.2", "1.82.8", text)
    assert places(compiled(text)) == [
        ("unknown-key", 11),
        ("unknown-value", 13),
        ("invalid-value", 24),
        ("version-unsafe", 26),
        ("unknown-model", 20),
    ]


def test_disabled_provider_in_chains() -> None:
    result = compiled(change("type: openai", "type: openai\n    status: disabled"))
    assert places(result) == [("model-not-deployed", 21), ("model-not-deployed", 22)]
    assert "status: disabled" in result.errors[0].message


def test_chain_of_a_disabled_model_may_name_a_disabled_one() -> None:
    text = change("type: openai", "type: openai\n    status: disabled")
    text = change("small: {chain: [big-cloud]}", "small: {terminal: true}", text)
    text = change("{chain: [small, big-cloud]}", "{chain: [small]}", text)
    assert (
        compiled(
            change("{terminal: true}\nllm_gateway", "{chain: [small]}\nllm_gateway", text)
        ).errors
        == []
    )


def test_provider_without_models() -> None:
    """The first failure of the hand-made stack: it must never reach the gateway's document."""
    result = compiled(change("    models:\n      - name: big-cloud\n", ""))
    assert places(result) == [
        ("no-models", 12),
        ("unknown-model", 18),
        ("unknown-model", 19),
        ("unknown-model", 20),
    ]


def test_undefined_secret() -> None:
    text = refused(compiled(secrets=frozenset({"CLOUD_KEYS"})), "secret-undefined", 15)
    assert 'did you mean "CLOUD_KEYS"?' in text
    text = refused(compiled(secrets=frozenset()), "secret-undefined", 15)
    assert "when_secret_missing: skip" in text


def test_chain_that_loses_every_step() -> None:
    text = change("api_key_env: CLOUD_KEY", "api_key_env: CLOUD_KEY\n    when_secret_missing: skip")
    text = refused(compiled(text, secrets=frozenset()), "chain-lost", 22)
    assert "secret CLOUD_KEY is not defined" in text
    assert '{routing: {fallbacks: {"small": {terminal: true}}}}' in text


def test_default_chain_that_loses_every_step() -> None:
    text = change("api_key_env: CLOUD_KEY", "api_key_env: CLOUD_KEY\n    when_secret_missing: skip")
    text = change("    small: {chain: [big-cloud]}\n", "", text)
    text = change("  fallbacks:", "  default_fallbacks: [big-cloud]\n  fallbacks:", text)
    assert codes(compiled(text)) == []
    found = refused(compiled(text, secrets=frozenset()), "chain-lost", 20)
    assert "every step of default_fallbacks for small was left out (big-cloud:" in found
    assert '{routing: {fallbacks: {"small": {terminal: true}}}}' in found


ONE_PROCESS = """\
llm_providers:
  far:
    type: TYPE
    base_url: http://10.0.0.9:1234/v1
    models: [{name: a, served_name: same}, {name: b, served_name: same}, {name: c}]
  cloud:
    type: openai
    base_url: https://api.example.org/v1
    api_key_env: CLOUD_KEY
    models: [{name: d, served_name: same}]
llm_routing:
  fallbacks:
    a: {chain: [STEPS]}
    b: {chain: [d]}
    c: {chain: [d]}
    d: {terminal: true}
llm_versions: {litellm: {version: "1.106.2"}}
"""


@pytest.mark.parametrize("kind", ["openai_compatible", "ollama"])
@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ("b", ["warning"]),  # The chain of "b" goes on to another model.
        ("b, d", ["warning"]),
        ("c", []),
        ("d", []),
    ],
)
def test_a_step_that_is_the_same_model(kind: str, steps: str, found: list[str]) -> None:
    result = compiled(ONE_PROCESS.replace("TYPE", kind).replace("STEPS", steps))
    assert [one.severity for one in result.diagnostics if one.code == "chain-self"] == found


def test_a_chain_of_nothing_but_the_same_model() -> None:
    text = ONE_PROCESS.replace("TYPE", "ollama").replace("STEPS", "b")
    text = text.replace("b: {chain: [d]}", "b: {chain: [a]}").replace(
        "served_name: same}, {name: c}", "served_name: 'same:latest'}, {name: c}"
    )
    result = compiled(text)
    assert codes(result) == ["chain-self", "chain-self"]
    assert "is the same model" in result.errors[0].message
    # Another account has limits of its own.
    text = ONE_PROCESS.replace("TYPE", "openai_compatible").replace("STEPS", "d")
    text = text.replace("https://api.example.org", "http://10.0.0.9:1234")
    assert "chain-self" not in codes(compiled(text))


def test_nothing_left_to_serve() -> None:
    text = change("api_key_env: CLOUD_KEY", "api_key_env: CLOUD_KEY\n    when_secret_missing: skip")
    text = refused(
        compiled(text, secrets=frozenset(), groups={"llm_local": []}), "no-deployment", 2
    )
    assert "no host in group llm_local" in text


def test_same_name_at_two_providers() -> None:
    text = change("name: big-cloud", "name: small").replace("big-cloud", "small")
    text = change(
        "    small: {chain: [small]}\n    small: {terminal: true}",
        "    small: {terminal: true}",
        text,
    )
    text = change("{chain: [small, small]}", "{chain: [small]}", text)
    assert "llm.yml:7" in refused(compiled(text), "duplicate-model", 17)
    shared = text.replace("- name: small", "- name: small\n        weight: 1")
    assert compiled(shared).errors == []
    mixed = "\n        mode: embedding".join(shared.rsplit("\n        weight: 1", 1))
    assert codes(compiled(mixed)) == ["duplicate-model", "chain-mode"]


def test_same_name_twice_at_one_provider() -> None:
    result = compiled(
        change("name: large:7b", "name: small").replace(
            "    large:7b: {chain: [small, big-cloud]}\n", ""
        )
    )
    refused(result, "duplicate-model", 9)


ROUTING = "llm_routing:\n"


@pytest.mark.parametrize(
    ("extra", "code", "line", "text"),
    [
        ("  aliases: {small: big-cloud}\n", "shadowed-name", 19, "also the name of a model"),
        ("  aliases: {fast: smal}\n", "unknown-alias-target", 19, 'did you mean "small"?'),
        (
            "  aliases: {fast: small, quick: fast}\n",
            "unknown-alias-target",
            19,
            'point it at "small"',
        ),
        ("  aliases: {default: small}\n", "shadowed-name", 19, "default"),
        (
            "  capabilities: {small: {models: [big-cloud]}}\n",
            "shadowed-name",
            19,
            "the name of a model of provider",
        ),
        (
            "  capabilities: {code: {models: [smal]}}\n",
            "unknown-model",
            19,
            'did you mean "small"?',
        ),
        ("  capabilities: {code: {models: []}}\n", "invalid-value", 19, "at least one entry"),
        (
            "  capabilities: {code: {models: [small, small]}}\n",
            "chain-duplicate",
            19,
            "duplicate entry",
        ),
    ],
)
def test_aliases_and_capabilities(extra: str, code: str, line: int, text: str) -> None:
    assert text in refused(compiled(change(ROUTING, ROUTING + extra)), code, line)


def test_a_chain_for_an_alias() -> None:
    text = change(ROUTING, ROUTING + "  aliases: {fast: small}\n")
    text = change("    small: {chain", "    fast: {chain", text)
    assert "alias, not a model" in refused(compiled(text), "unknown-model", 22)


@pytest.mark.parametrize(
    ("step", "hint"),
    [
        ("fast", "remove this step"),
        ("all", 'write "small", "big-cloud" in its place'),
        ("any", 'write "small", "big-cloud" in its place'),
    ],
)
@pytest.mark.parametrize("section", SECTIONS)
def test_chain_with_another_name_of_its_own_model(section: str, step: str, hint: str) -> None:
    text = change(
        ROUTING,
        f"{ROUTING}  aliases: {{fast: 'large:7b', any: all}}\n"
        "  capabilities: {all: {models: [small, 'large:7b', big-cloud]}}\n",
    )
    more = {"routing": {section: {"large:7b": {"chain": ["small", step]}}}}
    (error,) = compiled(text, llm_overrides=more).errors
    assert error.code == "chain-self"
    assert f'contains "large:7b" itself (step "{step}")' in error.message
    assert error.hint == hint


def test_modes_do_not_mix() -> None:
    text = change("- name: big-cloud", "- name: big-cloud\n        mode: embedding")
    assert codes(compiled(text)) == ["chain-mode", "chain-mode"]


def test_undeclared_chain_is_a_warning() -> None:
    result = compiled(change("    big-cloud: {terminal: true}\n", ""))
    assert result.errors == []
    assert [(d.code, d.severity) for d in result.diagnostics] == [("chain-undeclared", "warning")]


# -- the inventory ---------------------------------------------------------------------------------


def test_no_host() -> None:
    assert codes(compiled(groups={"llm_stack": []})) == ["no-hosts"]


def test_no_gateway() -> None:
    refused(compiled(groups={"llm_gateway": []}), "no-gateway", None)


def test_two_redis() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_redis": ["one", "two"]}
    refused(compiled(groups=groups), "too-many-redis", None)


def test_two_that_watch() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_monitoring": ["one", "two"]}
    addresses = {"one": "10.0.0.1", "two": "10.0.0.2"}
    watched = CATALOGUE + "llm_monitoring: true\n"
    refused(compiled(watched, groups=groups, addresses=addresses), "too-many-monitoring", None)
    assert compiled(groups=groups).errors == []


def test_empty_catalogue() -> None:
    versions = CATALOGUE[CATALOGUE.index("llm_versions") :]
    refused(compiled(versions), "empty-catalogue", None)
    refused(compiled("llm_providers: {}\n" + versions), "empty-catalogue", 1)


def test_no_versions() -> None:
    refused(compiled(CATALOGUE[: CATALOGUE.index("llm_versions")]), "missing-key", None)
    removed = f"{CATALOGUE}llm_overrides: {{versions: null}}\n"
    assert "no version is pinned" in refused(compiled(removed), "missing-key", 30)


def test_version_without_a_lock() -> None:
    inv = replace(inventory(), locks={"litellm": frozenset({"1.99.0"})})
    assert "with a lock file: 1.99.0" in refused(compile_inventory(inv), "version-without-lock", 26)
    assert compile_inventory(replace(inv, locks={"litellm": frozenset({"1.106.2"})})).errors == []


def test_host_outside_the_stack() -> None:
    groups = {"llm_local": ["one", "stray"], "llm_gateway": ["one"]}
    assert "stray" in refused(compiled(groups=groups), "host-outside-stack", 4)


def test_engine_whose_version_is_not_said() -> None:
    text = change("type: llama_cpp", "type: llama_cpp\n    flavour: python")
    message = refused(compiled(text), "missing-key", 27)
    assert "llama_cpp_python is deployed, but llm_versions has no version of it" in message
    assert compiled(text, groups={"llm_local": []}).errors == []


def test_exclusive_group() -> None:
    text = change(
        "  cloud:\n",
        "  other:\n    type: llama_cpp\n    group: llm_local\n    port: 9000\n    exclusive_group: gpu\n"
        "    models: [{name: other, source: {path: /x}}]\n  cloud:\n",
    )
    text = change("    port: 8080\n", "    port: 8080\n    exclusive_group: gpu\n", text)
    assert '"local" and "other"' in refused(compiled(text), "exclusive-group", 17)


def test_engine_that_a_gateway_elsewhere_cannot_reach() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_local": ["two"]}
    one, two = compiled(groups=groups).errors
    assert (one.code, two.code) == ("address-unusable", "address-unusable")
    assert "set llm_address for two" in one.render()
    assert 'the firewall admits the gateway on one to "small" on two by its address' in two.render()
    assert compiled(groups=groups, addresses={"one": "10.0.0.1", "two": "10.0.0.2"}).errors == []
    refused(
        compiled(groups=groups, addresses={"one": "10.0.0.1", "two": "127.0.0.1"}),
        "address-unusable",
        None,
    )


def test_llm_address_must_be_one() -> None:
    refused(compiled(llm_address="gpu.example.org"), "address-unusable", None)


def test_declared_gpus_are_checked_like_the_catalogue() -> None:
    gpus = load("llm_gpus:\n  - {memory_mb: 8192}\n  - {memory_mib: 0}\n", "host.yml")["llm_gpus"]
    groups = {"llm_stack": ["one", "two"]}
    result = compiled(groups=groups, llm_gpus=gpus)
    assert places(result) == [("missing-key", 2), ("unknown-key", 2), ("invalid-value", 3)], (
        "once, not per host"
    )
    assert 'did you mean "memory_mib"?' in result.errors[1].render()
    assert str(result.errors[1].origin).startswith("host.yml:2")


def test_memory_of_gpus_is_added_up() -> None:
    """Explicit places are taken first; then first fit in catalogue order; the message has the
    arithmetic."""
    text = change("- name: small", "- name: small\n        vram_mib: 3000")
    text = change(
        "- name: large:7b", "- name: large:7b\n        vram_mib: 6000\n        gpus: [0]", text
    )
    gpus = [{"memory_mib": 8192}]
    message = refused(compiled(text, llm_gpus=gpus), "vram-exceeded", 8)
    assert (
        '"small" needs 3000 MiB on one GPU of one: GPU 0 has 2192 of 8192 MiB left beside "large:7b" (6000)'
        in message
    )
    result = compiled(text, llm_gpus=[*gpus, {"memory_mib": 4096, "uuid": "GPU-b", "name": "B"}])
    assert result.errors == []
    assert result.plans["one"]["gpus"] == [
        {
            "index": 0,
            "name": None,
            "uuid": None,
            "memory_mib": 8192,
            "models": [{"name": "large:7b", "vram_mib": 6000}],
        },
        {
            "index": 1,
            "name": "B",
            "uuid": "GPU-b",
            "memory_mib": 4096,
            "models": [{"name": "small", "vram_mib": 3000}],
        },
    ]
    instances = {i["model"]: i["gpus"] for i in part(result.plans["one"], "llama_cpp")["instances"]}
    assert instances == {"small": [1], "large:7b": [0]}
    split = change("gpus: [0]", "gpus: [0, GPU-b]", text)
    message = refused(
        compiled(split, llm_gpus=[*gpus, {"memory_mib": 2048, "uuid": "GPU-b"}]),
        "vram-exceeded",
        11,
    )
    assert (
        '"large:7b" needs 3000 MiB on each of its GPUs of one, but GPU 1 has 2048 of 2048 MiB left'
        in message
    )


def test_a_shortage_on_many_hosts_is_told_once() -> None:
    groups = {name: ["one", "two", "three"] for name in ("llm_stack", "llm_local")}
    text = change("- name: small", "- name: small\n        vram_mib: 9000")
    addresses = {"one": "10.0.0.1", "two": "10.0.0.2", "three": "10.0.0.3"}
    result = compiled(text, groups=groups, addresses=addresses, llm_gpus=[{"memory_mib": 8192}])
    assert "and so on 2 more" in refused(result, "vram-exceeded", 8)


def test_capability_of_two_modes() -> None:
    text = change("- name: small", "- name: small\n        mode: embedding")
    text = change(
        "    large:7b: {chain: [small, big-cloud]}\n    small: {chain: [big-cloud]}\n",
        "    large:7b: {terminal: true}\n    small: {terminal: true}\n",
        text,
    )
    text = change(
        "  fallbacks:\n",
        "  capabilities: {all: {models: [small, 'large:7b']}}\n  fallbacks:\n",
        text,
    )
    assert '"small" (embedding), "large:7b" (chat)' in refused(compiled(text), "chain-mode", 20)


def test_window_of_the_active_one_of_two_with_one_name() -> None:
    """A disabled alternative of the same name says nothing about what is deployed."""
    text = change("- name: small", "- name: small\n        context_length: 4096")
    text = change("- name: large:7b", "- name: large:7b\n        context_length: 4096", text)
    off = "  off: {type: vllm, status: disabled, base_url: 'http://h', models: [{name: small, context_length: 1}]}\n"
    assert compiled(change("llm_routing:\n", off + "llm_routing:\n", text)).warnings == []


def warned(result: Compiled, code: str, line: int | None) -> str:
    """Assert that `code` is the only warning, on `line`, and that there is no error; return its
    text."""
    assert places(result) == []
    assert places(result, "warning") == [(code, line)], [d.render() for d in result.diagnostics]
    return result.warnings[0].render()


def test_weight_of_a_name_that_is_not_shared() -> None:
    warned(compiled(change("- name: small", "- name: small\n        weight: 2")), "no-effect", 8)


@pytest.mark.parametrize(
    ("steps", "step"),
    [
        ("[code, small]", '"small"'),
        ("[code, chat]", '"chat"'),
        ("[small, big-cloud, code]", '"code"'),
        ("[small, code, big-cloud]", '"big-cloud"'),
        ("[small, code]", None),
    ],
)
def test_step_whose_models_are_all_there_already(steps: str, step: str | None) -> None:
    """A capability and its members: valid, and nothing is ever tried for the later one."""
    text = change(
        "  fallbacks:\n",
        "  aliases: {chat: small}\n  capabilities: {code: {models: [small, big-cloud]}}\n"
        "  fallbacks:\n",
    )
    result = compiled(change("{chain: [small, big-cloud]}", f"{{chain: {steps}}}", text))
    assert places(result) == []
    told = [one for one in result.warnings if one.code == "chain-duplicate"]
    assert [one.message.split(" step ")[1].split()[0] for one in told] == [step] * bool(step)


@pytest.mark.parametrize(
    ("timeouts", "model", "limit"),
    [
        ("{stream_s: 601}", "", 600),
        ("{request_s: 60, stream_s: 90}", "", 60),
        ("{request_s: 60, stream_s: 90}", "timeout: 70", 70),
        # There it counts; and one that nobody wrote is lowered without a word.
        ("{request_s: 60, stream_s: 90}", "timeout: 90", None),
        ("{request_s: 60}", "", None),
        # A stream's own time-out takes the place of the attempt's.
        ("{}", "timeout: 60\n        stream_timeout: 300", None),
    ],
)
def test_silence_longer_than_any_attempt(timeouts: str, model: str, limit: int | None) -> None:
    text = change("port: 4000", f"timeouts: {timeouts}")
    result = compiled(change("- name: small", f"- name: small\n        {model}", text))
    if limit is None:
        assert places(result, "warning") == []
        return
    assert f"no effect beyond {limit} s" in warned(result, "no-effect", 25)


def test_context_that_shrinks() -> None:
    text = change("- name: large:7b", "- name: large:7b\n        context_length: 32768")
    text = change("- name: small", "- name: small\n        context_length: 4096", text)
    message = warned(compiled(text), "context-shrinks", 22)
    assert '"large:7b" (32768 tokens) has steps with a smaller context: "small" (4096)' in message
    text = change("context_length: 32768", "context_length: 4096", text)
    assert compiled(text).warnings == []


def test_context_that_shrinks_because_of_the_providers_own() -> None:
    """An Ollama's models have its context where they have none of their own."""
    ollama = "  ours: {type: ollama, group: llm_local, port: 11434, ollama: {context_length: 8192}, models: [{name: mine}, {name: long, context_length: 32768}]}\n"
    text = change("  cloud:\n", f"{ollama}  cloud:\n")
    version = '  ollama: {version: "0.17.4", source: {path: /o.tgz, sha256: ' + "b" * 64 + "}}\n"
    text = (
        text.replace(
            "    small: {", "    long: {chain: [mine]}\n    mine: {terminal: true}\n    small: {"
        )
        + version
    )
    found = compiled(text)
    assert found.errors == [], [error.render() for error in found.errors]
    (warning,) = [one for one in found.warnings if one.code == "context-shrinks"]
    assert (
        '"long" (32768 tokens) has steps with a smaller context: "mine" (8192)' in warning.message
    )


@pytest.mark.parametrize("pattern", ["all:!b", "b[1:2]", "b*"])
def test_hosts_are_named_one_by_one(pattern: str) -> None:
    text = change("- name: small", f"- name: small\n        hosts: ['{pattern}']")
    (error,) = compiled(text).errors
    assert "list the hosts by their names, or write a template" in error.render()


@pytest.mark.parametrize("section", SECTIONS[:2])
def test_context_that_shrinks_in_a_circle(section: str) -> None:
    """Told of the model that loses by it, not of the one that gains."""
    text = change("- name: large:7b", "- name: large:7b\n        context_length: 32768")
    text = change("- name: small", "- name: small\n        context_length: 4096", text)
    each_other = {"small": {"chain": ["large:7b"]}, "large:7b": {"chain": ["small"]}}
    more = {"routing": {"fallbacks": {name: {"chain": ["big-cloud"]} for name in each_other}}}
    more["routing"][section] = each_other
    found = compiled(text, llm_overrides=more)
    assert found.errors == []
    (warning,) = [one for one in found.warnings if one.code == "context-shrinks"]
    assert warning.message.startswith('the chain of "large:7b"')


def test_single_point_of_failure() -> None:
    """One warning per place, naming all chains; none for a host without which there is no gateway
    either."""
    here = change(
        "    large:7b: {chain: [small, big-cloud]}\n    small: {chain: [big-cloud]}\n",
        "    large:7b: {chain: [small]}\n    small: {terminal: true}\n",
    )
    assert (
        compiled(here)
        .warnings[0]
        .message.endswith('is on provider "local": if it fails, all of them fail')
    )
    groups = {"llm_stack": ["one", "two"], "llm_local": ["two"]}
    addresses = {"one": "10.0.0.1", "two": "10.0.0.2"}
    message = warned(
        compiled(here, groups=groups, addresses=addresses), "single-point-of-failure", 20
    )
    assert "chain of large:7b is on host two" in message
    assert compiled(groups=groups, addresses=addresses).warnings == []
    # Nothing else is there that a chain could name.
    alone = change("    base_url:", "    status: disabled\n    base_url:", here)
    assert [d.code for d in compiled(alone).warnings if d.code == "single-point-of-failure"] == []


def test_what_needs_a_shared_redis() -> None:
    limited = change("- name: big-cloud", "- name: big-cloud\n        rpm: 9")
    message = warned(compiled(limited, groups={"llm_redis": []}), "redis-advised", 18)
    assert 'each of the gateway\'s 2 processes counts rpm of "big-cloud" on its own' in message
    assert (
        compiled(change("port: 4000", "workers: 1", limited), groups={"llm_redis": []}).warnings
        == []
    )
    assert compiled(limited).warnings == []
    client = change("llm_versions:", "llm_clients: {app: {secret: KEY, rpm: 5}}\nllm_versions:")
    message = warned(compiled(client, groups={"llm_redis": []}), "redis-advised", 25)
    assert 'counts rpm of client "app" on its own' in message
    assert compiled(client).warnings == []
    many = change(
        "- name: big-cloud\n",
        "- name: big-cloud\n" + "".join(f"      - name: m{n}\n" for n in range(80)),
    )
    many = change("  fallbacks:\n", "  default_fallbacks: [big-cloud]\n  fallbacks:\n", many)
    (message,) = [
        d.message
        for d in compiled(many, groups={"llm_redis": []}).warnings
        if d.code == "redis-advised"
    ]
    assert "with 83 deployments" in message
    assert "redis-advised" not in [d.code for d in compiled(many).warnings]


def test_name_nobody_is_left_to_answer_for() -> None:
    text = change(
        "  cloud:\n",
        "  gone:\n    type: llama_cpp\n    group: llm_empty\n    port: 9000\n"
        "    models: [{name: gone, source: {path: /x}}]\n  cloud:\n",
    )
    text = change(
        "  fallbacks:\n",
        "  capabilities: {code: {models: [gone]}}\n  fallbacks:\n    gone: {terminal: true}\n",
        text,
    )
    assert '"code"' in warned(compiled(text), "name-unreachable", 24)


# -- variables -------------------------------------------------------------------------------------


def test_unknown_variable() -> None:
    text = refused(
        compiled(CATALOGUE + "llm_overides: {gateway: {port: 1}}\n"), "unknown-variable", 30
    )
    assert 'did you mean "llm_overrides"?' in text


ROLE_VARIABLES = declared(
    ROOT / "roles", [f"{role}_x" for role in ("engine", "service", "redis", "haproxy")]
)


def stray(text: str, *, command_line: bool = False, catalogue: str = CATALOGUE) -> Compiled:
    """The catalogue with other variables of the inventory, given as YAML."""
    variables = [
        Variable(str(name), value, probe(name), command_line)
        for name, value in load(text, "mine.yml").items()
    ]
    given = inventory(catalogue)
    return compile_inventory(replace(given, others=variables, role_variables=ROLE_VARIABLES))


DEDENTED = [
    ("fallbacks: {small: {chain: [big-cloud]}}", "error", "{routing: {fallbacks: ...}}"),
    ("default_fallbacks: [small]", "error", "{routing: {default_fallbacks: ...}}"),
    ("aliases: {chat: small}", "error", "{routing: {aliases: ...}}"),
    ("capabilities: {code: {models: [small]}}", "error", "{routing: {capabilities: ...}}"),
    ("local: {port: 8090}", "error", "{providers: {local: ...}}"),
    ("timeouts: {request_s: 300}", "error", "{gateway: {timeouts: ...}}"),
    ("cooldown_s: 60", "error", "{gateway: {cooldown_s: ...}}"),
    ("slots: {blue: 5001, green: 5002}", "error", "{gateway: {slots: ...}}"),
    ("redis: {port: 6380}", "warning", "{gateway: {redis: ...}}"),
    ("aliases: {l: ls}", "warning", "{routing: {aliases: ...}}"),
    ("fallbacks: {deb: rpm}", "warning", "{routing: {fallbacks: ...}}"),
    ("timeouts: {connect: 3}", "warning", "{gateway: {timeouts: ...}}"),
    ("my_port: 4100", "", ""),
    ("workers: 3", "warning", "{gateway: {workers: ...}}"),
    ("gateway: {port: 4100}", "error", "{gateway: ...}"),
    ("gateway: {address: x}", "warning", "{gateway: ...}"),
    ("gateway: 192.0.2.1", "", ""),
    ("small: {context_length: 4096}", "warning", "{providers: {local: {models: {small: ...}}}}"),
]

ELSEWHERE = ("fallbacks: {small", "aliases: {chat", "capabilities", "timeouts: {request_s", "slots")
"""Mappings that are ours by their keys: warned of in any file."""


@pytest.mark.parametrize(("text", "severity", "hint"), DEDENTED)
@pytest.mark.parametrize("file", ["llm.yml", "other.yml"])
def test_part_of_a_section_beside_the_overrides(
    text: str, severity: str, hint: str, file: str
) -> None:
    """In a file with overrides, where a line lost its indentation; elsewhere it is another's."""
    others = [Variable(str(name), value, probe(name)) for name, value in load(text, file).items()]
    given = inventory(llm_overrides=load("{gateway: {workers: 3}}"))
    result = compile_inventory(replace(given, others=others))
    told = [one for one in result.diagnostics if one.code == "unknown-variable"]
    if file == "other.yml" and text.startswith(ELSEWHERE):
        severity = "warning"
    elif file == "other.yml" or not severity:
        assert told == []
        return
    assert [one.severity for one in told] == [severity]
    assert f"write it as llm_overrides: {hint}" in told[0].hint
    assert str(told[0].origin) == f"{file}:1:1"


@pytest.mark.parametrize(
    ("lines", "severity", "path"),
    [
        (("  gateway: {workers: 3}", "port: 4100"), "error", "{gateway: {port: ...}}"),
        (("  gateway: {workers: 3}", 'port: "4100"'), "warning", "{gateway: {port: ...}}"),
        (("  gateway: {workers: 3}", "listen: [0.0.0.0]"), "error", "{gateway: {listen: ...}}"),
        (("  gateway:", "    redis: {port: 6380}", "maxmemory_mib: 512"), "error",
         "{gateway: {redis: {maxmemory_mib: ...}}}"),
        (("  providers:", "    cloud: {status: active}", "api_key_env: CLOUD_KEY"), "error",
         "{providers: {cloud: {api_key_env: ...}}}"),
        (("  providers:", "    local:", "      port: 8080", "models: {small: {context_length: 9}}"),
         "error", "{providers: {local: {models: ...}}}"),
        (("  providers:", "    local: {models: {small: {vram_mib: 4000}}}", "context_length: 4096"),
         "error", "{providers: {local: {models: {small: {context_length: ...}}}}}"),
        (("  gateway: {workers: 3}", "models: [{name: small}]"), "error",
         "{providers: {local: {models: ...}}}"),
        (("  gateway: {workers: 3}", "models: [{name: other}]"), "warning", "models: ...}"),
        (("  gateway: {workers: 3}", "context_length: 4096"), "warning", "context_length: ...}"),
        (("  gateway: {workers: 3}", "workers: '{{ cores }}'", "cores: 3"), "warning", "workers"),
        # Used in a template, or no key of ours.
        (("  gateway: {workers: '{{ workers }}'}", "workers: 3"), "", ""),
        (("  gateway: {workers: 3}", "timezone: UTC"), "", ""),
    ],
)  # fmt: skip
def test_a_key_that_lost_its_indentation(lines: tuple[str, ...], severity: str, path: str) -> None:
    """It belongs to the section above it; further up in the file it may be the user's own."""
    text = "\n".join(("llm_overrides:", *lines))
    given = inventory()
    values = load(text, "mine.yml")
    others = [
        Variable(str(name), value, probe(name))
        for name, value in values.items()
        if name != "llm_overrides"
    ]
    mine = {name: value for name, value in values.items() if name == "llm_overrides"}
    variables = {**given.hosts["one"].variables, **mine}
    host = replace(given.hosts["one"], variables=variables, raw=variables)
    result = compile_inventory(replace(given, hosts={"one": host}, others=others))
    told = [one for one in result.diagnostics if one.code == "unknown-variable"]
    assert [one.severity for one in told] == [severity] * bool(severity)
    if severity:
        assert path in told[0].hint
        assert told[0].origin
        assert told[0].origin.file == "mine.yml"


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("model_list: [{model_name: a, litellm_params: {model: openai/a}}]", "providers"),
        ("router_settings: {fallbacks: [{a: [b]}]}", "routing"),
        ("litellm_settings: {num_retries: 3}", "gateway and routing"),
        ("general_settings: {master_key: sk-1234}", "gateway and clients"),
        ("model_list: [a, b]", ""),
        ("router_settings: {ssid: home}", ""),
        ("general_settings: {motd: hello}", ""),
        ("litellm_settings: {}", ""),
    ],
)
def test_the_configuration_of_litellm_is_not_read(text: str, sections: str) -> None:
    told = [one for one in stray(text).diagnostics if one.code == "unknown-variable"]
    assert [one.severity for one in told] == ["warning"] * bool(sections)
    assert all(f"into {sections}," in one.hint and "sk-1234" not in one.render() for one in told)


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("small: {fallbacks: [big-cloud]}", 'did you mean "chain"?'),
        ("small: {models: [big-cloud]}", 'did you mean "chain"?'),
        ("small: {terminal: true, termnal: [a]}", 'did you mean "chain"?'),
        ("small: {chain: [big-cloud], models: [a]}", ""),
    ],
)
def test_names_listed_below_another_key(entry: str, hint: str) -> None:
    text = change("    small: {chain: [big-cloud]}\n", f"    {entry}\n")
    (told,) = [one.hint for one in compiled(text).errors if one.code == "unknown-key"]
    assert told == hint if hint else 'did you mean "chain"?' not in told


def test_a_model_of_another_mode_is_not_offered_as_a_step() -> None:
    text = change("- name: big-cloud", "- name: big-cloud\n      - {name: bge-m3, mode: embedding}")
    text = change("    small: {chain: [big-cloud]}", "    small: {chain: [bge-m2]}", text)
    (told,) = [one.hint for one in compiled(text).errors if one.code == "unknown-model"]
    assert "bge-m3" not in told


def test_what_is_removed_twice_names_the_line_that_removed_it() -> None:
    def removes(entry: str) -> str:
        first, second = (load(entry, file) for file in ("card.yml", "mine.yml"))
        result = compiled(CATALOGUE, llm_overrides_card=first, llm_overrides=second)
        (told,) = [one for one in result.errors if one.code == "unknown-override"]
        assert str(told.origin).startswith("mine.yml:1")
        assert told.hint == "remove this line"
        return told.message

    said = "was removed at card.yml:1"
    assert said in removes("{providers: {local: {models: {small: null}}}}")
    assert said in removes("{routing: {fallbacks: {small: null}}}")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("_llm_overrides: {gateway: {port: 1}}", 'did you mean "llm_overrides"?'),
        ("_llm_gateway: {port: 4100}", 'did you mean "llm_gateway"?'),
        ("__llm_secrets: {A: b}", 'did you mean "llm_secrets"?'),
        ("my_llm_overrides: {gateway: {port: 1}}", 'did you mean "llm_overrides"?'),
        ("modelyard_overrides: {gateway: {port: 1}}", 'did you mean "llm_overrides"?'),
        ("overrides_llm: {routing: {}}", 'did you mean "llm_overrides"?'),
        ("LLM_routing: {aliases: {chat: small}}", "write llm_overrides: {routing: ...}"),
        ("llm_overrides-site: {}", 'did you mean "llm_overrides"?'),
    ],
)
def test_a_name_of_ours_with_something_around_it(text: str, hint: str) -> None:
    told = refused(stray(text), "unknown-variable", 1)
    assert hint in told


@pytest.mark.parametrize("name", ["llm_overrides_", "llm_overrides__", "llm_overrides2"])
def test_an_override_without_a_name_of_its_own(name: str) -> None:
    """Read as an override, its values would be in effect; most likely the name is not finished."""
    told = refused(
        compiled(CATALOGUE + f"{name}: {{gateway: {{workers: 3}}}}\n"), "unknown-variable", 30
    )
    assert 'did you mean "llm_overrides"?' in told
    for fine in ("llm_overrides_site", "llm_overrides_0", "llm_overrides__x", "llm_overrides_SITE"):
        assert not compiled(CATALOGUE + f"{fine}: {{gateway: {{workers: 3}}}}\n").errors


def test_a_variable_named_in_a_template_is_used() -> None:
    given = inventory()
    mine = {**given.hosts["one"].variables, "llm_overrides": "{{ my_llm_overrides }}"}
    host = replace(given.hosts["one"], raw=mine)
    for text in ("my_llm_overrides: {gateway: {workers: 3}}",):
        others = [Variable(str(name), value, probe(name)) for name, value in load(text).items()]
        assert not compile_inventory(replace(given, hosts={"one": host}, others=others)).errors


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "vllm_build: cpu",
            "it is in the catalogue: llm_overrides: {versions: {vllm: {backend: cpu}}}, for all hosts; auto chooses for each host",
        ),
        (
            "vllm_bulid: cpu",
            'did you mean "vllm_build"? It is in the catalogue: llm_overrides: {versions: {vllm: {backend: cpu}}}',
        ),
        ("VLLM_BUILD: cpu", "llm_overrides: {versions: {vllm: {backend: cpu}}}"),
        ("vlm_build: cpu", 'did you mean "vllm_build"?'),
        ("llamacpp_backend: cpu", 'did you mean "llama_cpp_backend"?'),
        ("llama_cpp_pyhton_backend: cpu", 'did you mean "llama_cpp_python_backend"?'),
        ("olama_pull_attempts: 3", 'did you mean "ollama_pull_attempts"?'),
        ("ollama_pull_atempts: 3", 'did you mean "ollama_pull_attempts"?'),
        ("vllm_cpu_kv_cache_gib: 2", "the provider's {vllm: {cpu_kv_cache_gib: 2}}"),
        ("llama_cpp_ready_timeout_s: 900", "{providers: {local: {ready_timeout_s: 900}}}"),
        ("llama_cpp_ready_timeout_s: soon", "{providers: {local: {ready_timeout_s: ...}}}"),
        (
            "llama_cpp_python_backend: cpu",
            "llm_overrides: {versions: {llama_cpp_python: {backend: cpu}}}, for all hosts; auto chooses for each host",
        ),
        ("llama_cpp_cuda_toolkit: auto", "{versions: {llama_cpp: {cuda_toolkit: auto}}}"),
        ("ollama_pull_attempts: 3", "the provider's {ollama: {pull_attempts: 3}}"),
        ("prometheus_retention_days: 9", "{monitoring: {prometheus: {retention_days: 9}}}"),
        ("litellm_drain_timeout_s: 9", "{gateway: {timeouts: {drain_s: 9}}}"),
        ("haproxy_idle_timeout_s: 9", "{gateway: {timeouts: {idle_s: 9}}}"),
        ("haproxy_stream_timeout_s: 9", "{gateway: {timeouts: {door_s: 9}}}"),
        ("haproxy_body_timeout_s: 9", "{gateway: {limits: {body_s: 9}}}"),
        ("haproxy_body_timeout_s: 90000", "{gateway: {limits: {body_s: ...}}}"),
        ("haproxy_listen: any", "{gateway: {listen: ...}}"),
        ("litellm_index_url: abc", "{versions: {litellm: {index_url: ...}}}"),
        ("engine_models: []", "a role takes it"),
        ("service_secrets: {}", "a role takes it"),
        ("llm-overrides: {}", 'did you mean "llm_overrides"?'),
        ("LLM_OVERRIDES: {}", 'did you mean "llm_overrides"?'),
        ("LLM_Overides: {}", 'did you mean "llm_overrides"?'),
        ("lmm_overrides: {}", 'did you mean "llm_overrides"?'),
        ("lm_overrides: {}", 'did you mean "llm_overrides"?'),
        ("lllm_overrides: {}", 'did you mean "llm_overrides"?'),
        ("ml_overrides: {}", 'did you mean "llm_overrides"?'),
        ("lmm_overrides_site: {}", 'did you mean "llm_overrides"?'),
        ("llmoverrides_site: {}", 'did you mean "llm_overrides"?'),
        ("llmm_gateway: {}", 'did you mean "llm_gateway"?'),
        ("llm-zzz: 1", "known variables: llm_providers"),
        ("LLM_API_URL: 1", "known variables: llm_providers"),
        ("llm-team: 1", "known variables: llm_providers"),
        ("overrides: {gateway: {port: 1, workers: 1}}", "write it as llm_overrides: {...}"),
        ("Overrides: {gateway: {port: 1}, clients: {}}", "write it as llm_overrides: {...}"),
        ("override: {versions: {vllm: {version: 1.2.3}}}", "write it as llm_overrides: {...}"),
        ("llm: {gateway: {port: 1, workers: 1}}", "write it as llm_overrides: {...}"),
        (
            "providers: {a: {type: vllm, group: llm_a, port: 1}}",
            "write it as llm_overrides: {providers: {...}}",
        ),
        ("providers: {local: {port: 1}}", "write it as llm_overrides: {providers: {...}}"),
        (
            "Providers: {a: {type: vllm, group: llm_a, port: 1}}",
            "write it as llm_overrides: {providers: {...}}",
        ),
        (
            "routing: {aliases: {a: b}, default_fallbacks: [a]}",
            "write it as llm_overrides: {routing: {...}}",
        ),
        ("gatway: {port: 4000, workers: 2}", "write it as llm_overrides: {gateway: {...}}"),
        ("versions: {vllm: {version: '1.2.3'}}", "write it as llm_overrides: {versions: {...}}"),
        (
            "clients: {app: {secret: KEY, rpm: 3}}",
            "write it as llm_overrides: {clients: {...}}",
        ),
        (
            "monitoring: {grafana: {port: 3}, prometheus: {port: 4}}",
            "write it as llm_overrides: {monitoring: {...}}",
        ),
    ],
)
def test_a_variable_that_looks_like_one_of_ours(text: str, hint: str) -> None:
    assert hint in refused(stray(text), "unknown-variable", 1)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("redis_plan: {}", "the plan is made from the catalogue"),
        ("engine_plan: {}", "the plan is made from the catalogue"),
        ("gateway: {port: 4000, wokers: 2, workers: 2}", "if it is meant for Modelyard, write it"),
        ("providers: {docker: {type: docker, group: docker}, 8: [x]}", "if it is meant"),
        ("providers: {local: null}", "if it is meant for Modelyard, write it"),
        ("providers: {local: {port: 1, prot: 2}}", "if it is meant for Modelyard, write it"),
        ("overrides: {gateway: {port: 1}}", "if it is meant for Modelyard, write it"),
        ("overides: {gateway: {port: 1}}", "if it is meant for Modelyard, write it"),
        ("llm: {gateway: {port: 1}}", "if it is meant for Modelyard, write it"),
    ],
)
def test_a_variable_that_may_be_one_of_ours(text: str, hint: str) -> None:
    result = stray(text)
    (warning,) = (one for one in result.warnings if one.code == "unknown-variable")
    assert result.errors == []
    assert hint in warning.hint


def test_a_section_beside_one_that_is_ours() -> None:
    """In one file with it, one key is enough; alone it may be another tool's."""
    result = stray("providers: {local: {port: 1}}\ngateway: {port: 4100}\nrouting: {x: 1}\n")
    assert places(result) == [("unknown-variable", 1), ("unknown-variable", 2)]
    assert "write it as llm_overrides: {gateway: {...}}" in result.errors[1].hint


@pytest.mark.parametrize("name", ["engine_plan", "service_name", "redis_plan"])
def test_the_command_line_replaces_what_a_role_is_given(name: str) -> None:
    result = stray(f"{name}: x", command_line=True)
    assert "rename yours" in refused(result, "unknown-variable", 1)


@pytest.mark.parametrize(
    "text",
    [
        "vllm_host: gpu1",
        "ollama_url: http://localhost:11434",
        "redis_sentinel_quorum: 2",
        "vlm_address: 192.0.2.1",
        "ml_gpus: 2",
        "llmops_token: abc",
        "llmops_overrides: {}",
        "lab_cache: /srv",
        "ansible_user: root",
        "gateway: 192.0.2.1",
        "gateway: {address: 192.0.2.1, port: 80}",
        "gateway: {port: 443}",
        "providers: [a, b]",
        "providers: {aws: {region: eu}}",
        "providers: {docker: {type: [a], group: docker, socket: x, user: y}}",
        "versions: {python: '3.11', node: '20'}",
        "monitoring: true",
        "monitoring: {enabled: true}",
        "monitoring: {prometheus: {url: x}}",
        "clients: {}",
        "clients: {nas: {secret: abc}}",
        "routing: {aliases: {a: b}}",
        "overrides: [{host: a}]",
        "overrides: {8080: {a: b}}",
        "haproxy_enabled: true",
        "litellm_enabled: true",
        "service_name: crm",
        "service_package: crm",
        "service_file: crm",
        "engine_model: V8",
        "ollama_models: [a]",
        "ollama_model: a",
        "vllm_model: a",
        "ollama_version: 1",
        "vllm_port: 1",
        "vllm_timeouts: 1",
        "prometheus_retention: 30d",
        "redis_persistent: true",
        "redis_maxmemory: 1g",
        "haproxy_ports: [1]",
        "haproxy_listens: [1]",
        "haproxy_listeners: [1]",
        "grafana_versions: [1]",
        "ollama_api_key_env: hunter",
        "vllm_build_host: a",
    ],
)
def test_a_variable_of_the_users_own(text: str) -> None:
    assert [one for one in stray(text).diagnostics if one.code == "unknown-variable"] == []


@pytest.mark.parametrize(
    "text", ["vllm_index_url: 'https://me:word@x.example'", "redis_port: s3cr3t"]
)
def test_a_refused_variable_is_not_printed(text: str) -> None:
    rendered = refused(stray(text), "unknown-variable", 1)
    assert "word@" not in rendered
    assert "s3cr3t" not in rendered
    assert ": ...}" in rendered


def test_the_hint_of_a_former_variable_names_all_providers_that_have_it() -> None:
    more = "  more:\n    type: llama_cpp\n    group: llm_local\n    port: 9000\n    models: []\n  cloud:\n"
    result = stray("llama_cpp_ready_timeout_s: 9", catalogue=change("  cloud:\n", more))
    hint = next(one.hint for one in result.errors if one.code == "unknown-variable")
    assert hint.endswith("the provider's (local, more) {ready_timeout_s: 9}")


@pytest.mark.parametrize("wrong", ["5", "[a]", "null", "{local: [1]}"])
def test_a_stray_variable_beside_a_section_that_is_wrong(wrong: str) -> None:
    text = "ollama_pull_attempts: 3\nclients: {a: {secret: b}}\nproviders: {local: null}\n"
    catalogue = f"llm_providers: {wrong}\nllm_clients: {wrong}\n"
    hints = [one.hint for one in stray(text, catalogue=catalogue).errors]
    assert "it is in the catalogue: the provider's {ollama: {pull_attempts: 3}}" in hints


def test_all_places_of_a_stray_variable_are_told() -> None:
    places = [
        Variable("vllm_build", "cpu", Origin(file, 3)) for file in ("a.yml", "b.yml", "a.yml")
    ]
    result = compile_inventory(replace(inventory(), others=places))
    assert "unknown variable vllm_build, also set at b.yml:3" in refused(
        result, "unknown-variable", 3
    )


def test_thousands_of_other_variables_take_no_time() -> None:
    prefixes = ("vllm", "ollama", "llama_cpp", "redis", "gateway", "site")
    others = [Variable(f"{prefixes[n % 6]}_setting_{n}_s", n) for n in range(10_000)]
    begin = time.process_time()
    assert compile_inventory(replace(inventory(), others=others)).errors == []
    assert time.process_time() - begin < 2


def test_every_former_variable_has_a_key() -> None:
    for name, path in FORMER.items():
        keys = ("any", *path[2:]) if path[0] == "providers" else path[1:]
        kind = SHAPES[str(path[0])] if path[0] != "providers" else Provider
        for key in keys[1:] if path[0] == "providers" else keys:
            assert key in kind.model_fields, name
            inner = kind.model_fields[str(key)].annotation
            candidates = (inner, *get_args(inner))
            kind = next((one for one in candidates if hasattr(one, "model_fields")), BaseModel)
        assert path[-1] not in NAMES_OF_SECRETS


@pytest.mark.parametrize(
    ("group", "hosts", "near"),
    [
        ("llm_reddis", ["one"], "llm_redis"),
        ("llm_rdeis", ["one"], "llm_redis"),
        ("llm-gateway", ["two"], "llm_gateway"),
        ("LLM_STACK", ["two"], "llm_stack"),
        ("llm_monitorng", ["one"], "llm_monitoring"),
        ("llm_vlm_qwen", ["one"], "llm_vllm_qwen"),
        ("llm_vllm_qwne", ["two"], None),  # no host of the stack
        ("llm-gateway", [], None),
        ("llm_reddis", [], None),
        ("llm_reddis", ["two"], None),
        ("llm_gateway_eu", ["one"], None),
        ("llm_gateway_eu", ["two"], None),
        ("llm_gateways", ["one", "two"], None),  # has llm_gateway in it
        ("llm_stacks", ["one"], None),  # a part of llm_stack
        ("llm_track", ["one"], None),
        ("llm_slack", ["one"], None),
        ("llm_red", ["one"], None),
        ("llm_monitor", ["one"], None),
        ("vlm_stack", ["two"], None),
        ("llm_local", ["one"], None),
        ("llm_spare", ["two"], None),
        ("web", ["two"], None),
    ],
)
def test_a_group_that_looks_like_one_of_ours(
    group: str, hosts: list[str], near: str | None
) -> None:
    text = change(
        "  cloud:\n",
        "  idle:\n    type: llama_cpp\n    group: llm_vllm_qwen\n    port: 9000\n"
        "    models: [{name: idle, source: {path: /x}}]\n  cloud:\n",
    )
    groups = {"llm_redis": [], "llm_vllm_qwen": [], group: hosts}
    result = compiled(text, groups=groups)
    found = [one for one in result.diagnostics if one.code == "unknown-group"]
    if near is None:
        assert found == []
    else:
        (only,) = found
        assert f"group {group} of the inventory" in only.message
        assert f'did you mean "{near}"?' in only.hint


def test_a_group_of_a_provider_may_look_like_one_of_ours() -> None:
    groups = {"llm_redix": ["one"], "llm_redis": []}
    assert compiled(CATALOGUE.replace("llm_local", "llm_redix"), groups=groups).errors == []


@pytest.mark.parametrize("group", ["llm_overrides", "llm_overrides_site", "llm_providers"])
def test_a_group_with_the_name_of_a_variable(group: str) -> None:
    """A file of variables that lies beside the inventory, where Ansible reads groups."""
    text = refused(compiled(groups={group: []}), "unknown-group", None)
    assert "group_vars/llm_stack/ beside the inventory" in text


@pytest.mark.parametrize(
    ("groups", "warned"),
    [
        ({"llm_vllm_llama": ["one"]}, True),
        ({"llm_vllm_llama": []}, False),
        ({"llm_vllm_llama": ["two"]}, False),
        ({"llm_vllm_llama": ["one"], "llm_vllm_llama_big": ["one"]}, True),
        ({"llm_team": ["one"]}, False),
    ],
)
def test_a_group_for_an_engine_that_no_provider_names(
    groups: dict[str, list[str]], warned: bool
) -> None:
    result = compiled(groups=groups)
    assert result.errors == []
    assert any("no provider names group" in one.message for one in result.warnings) is warned


MODEL = "{name: other, source: {path: /o.gguf}}"


def test_the_group_of_another_provider_is_offered_for_a_misspelling_only() -> None:
    def hint(group: str) -> str:
        text = change("llm_local", group)
        two = f"  more: {{type: llama_cpp, group: llm_more, port: 9000, models: [{MODEL}]}}\n"
        groups = {"llm_stack": ["one"], "llm_more": ["one"], "llm_free": []}
        result = compiled(text.replace("  cloud:\n", f"{two}  cloud:\n", 1), groups=groups)
        (error,) = (one for one in result.errors if one.code == "unknown-group")
        return error.hint

    assert hint("llm_fre").startswith('did you mean "llm_free"?')
    assert hint("llm_moer").startswith('did you mean "llm_more"?')
    assert hint("llm_more_of_it").startswith("define it in the inventory")


def test_the_group_of_a_provider_that_is_refused() -> None:
    """The provider names it, whatever else is wrong with it."""
    text = CATALOGUE.replace("llm_local", "llm_vllm_llama").replace(
        "local:\n    type: llama_cpp", "local:\n    type: llama"
    )
    result = compiled(text, groups={"llm_vllm_llama": ["one"]})
    assert ("unknown-value", 3) in places(result)
    assert "unknown-group" not in {one.code for one in result.diagnostics}


def test_a_group_that_is_made_of_groups_of_providers() -> None:
    text = CATALOGUE.replace("llm_local", "llm_llama_cpp_native")
    for name in ("llm_llama_cpp", "llm_llama_cpp_native_big"):
        result = compiled(text, groups={"llm_llama_cpp_native": ["one"], name: ["one"]})
        assert "unknown-group" not in {one.code for one in result.diagnostics}


def test_a_misspelt_stack() -> None:
    result = compile_inventory(Inventory({"llm-stack": ["one"]}, {}))
    assert "rename group llm-stack to llm_stack" in refused(result, "no-hosts", None)


def test_a_misspelt_gateway_has_no_opposite_hints() -> None:
    groups = {"llm_stack": ["one"], "llm_local": ["one"], "llm_gatewy": ["one"]}
    result = compile_inventory(replace(inventory(), groups=groups))
    told = {one.code: one.hint for one in result.errors}
    assert told["no-gateway"] == "rename group llm_gatewy to llm_gateway"
    assert told["unknown-group"] == 'did you mean "llm_gateway"? If not, rename it'


def test_secrets_must_be_a_mapping() -> None:
    assert "not a mapping" in refused(compiled(llm_secrets=["CLOUD_KEY"]), "invalid-value", None)


def test_unreadable_variable() -> None:
    base = inventory()
    host = Host(
        base.hosts["one"].variables, "one", {"llm_overrides": ("no attribute 'distribution'", None)}
    )
    result = compile_inventory(Inventory(GROUPS, {"one": host}, base.secrets, probe))
    assert "cannot use facts" in refused(result, "unreadable-variable", None)


def test_differing_catalogues_name_both_places() -> None:
    groups = {**GROUPS, "llm_stack": ["one", "two", "three"]}
    mine = load(CATALOGUE)
    theirs = load(change("port: 8081", "port: 8082"), "other.yml")
    hosts = {"one": Host(mine, "one"), "two": Host(theirs, "two"), "three": Host(theirs, "three")}
    text = refused(
        compile_inventory(Inventory(groups, hosts, frozenset({"CLOUD_KEY"}), probe)),
        "differing-catalogues",
        11,
    )
    assert "other.yml:11:15" in text
    assert "llm.yml:11:15" in text
    assert "two, three" in text


def test_override_on_some_hosts_only() -> None:
    groups = {**GROUPS, "llm_stack": ["one", "two"]}
    mine = load(CATALOGUE)
    more = {**mine, **load("llm_overrides: {gateway: {port: 5000}}", "extra.yml")}
    hosts = {"one": Host(mine, "one"), "two": Host(more, "two")}
    text = refused(
        compile_inventory(Inventory(groups, hosts, frozenset({"CLOUD_KEY"}), probe)),
        "differing-catalogues",
        1,
    )
    assert "extra.yml:1" in text
    assert "(not defined)" in text


def test_every_code_is_tested() -> None:
    """A code that no test provokes may be one that nothing can provoke."""
    tests = Path(__file__).parent.glob("test_*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert [code for code in CODES if f'"{code}"' not in text] == []
