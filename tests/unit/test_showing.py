"""Nothing that may be a secret is in a message, hint or path, wherever it was put by mistake."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from catalogues import CATALOGUE, inventory
from catalogues import load as load_yaml
from test_document import SHIPPED_GROUPS, shipped

from modelyard.catalogue.sourcemap import Origin, Path, plain
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Host, Inventory
from modelyard.diagnostics import Diagnostic
from modelyard.output.render import render_plan, render_summary
from modelyard.showing import censored, looks_secret, shown

KEY = "sk-proj-LEAKmarker"
"""It looks like a key: it is shown nowhere."""

WORDS = "Hunter2Tulip-LEAK"
"""A password like a name: it is not shown where a secret could stand."""

MORE = """
llm_clients:
  chat: {secret: CHAT_KEY, models: [mythomax-l2-13b-q5_k_m], rpm: 5}
llm_monitoring:
  alertmanager:
    webhook: {url: "https://hooks.example.org/a/b", token_env: HOOK_TOKEN}
    email: {to: ops@example.org, sender: a@example.org, smarthost: "mail.example.org:587",
            username: me, password_env: MAIL_PASSWORD}
"""

TREE: dict[str, Any] = plain(load_yaml(shipped() + MORE))
TREE["llm_providers"]["llama_cpp_native"]["models"][0]["options"] = {"threads": 4}
TREE["llm_versions"].setdefault("hugging_face", {}).update(
    {"endpoint": "https://hf.example.org", "token_env": "HF_TOKEN"}
)


def spots(node: Any, path: Path = ()) -> Iterator[Path]:
    """Every path of a tree but its variables'."""
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children:
        if path:
            yield (*path, key)
        if isinstance(child, dict | list):
            yield from spots(child, (*path, key))


def put(path: Path, value: Any) -> dict[str, Any]:
    """Return the catalogue with `value` at `path`."""
    tree = {**TREE, path[0]: copy.deepcopy(TREE[path[0]])}
    node: Any = tree
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return tree


def at(path: Path) -> Any:
    node: Any = TREE
    for part in path:
        node = node[part]
    return node


def judged(tree: dict[str, Any]) -> Compiled:
    groups = {**SHIPPED_GROUPS, "llm_stack": ["one"], "llm_gateway": ["one"]}
    groups["llm_monitoring"] = ["one"]
    given = Inventory(groups, {"one": Host(tree, "192.0.2.1")}, frozenset({"OPENAI_API_KEY"}))
    return compile_inventory(given)


def said(result: Compiled) -> str:
    """All that is told of a catalogue, on the terminal and in llm_report."""
    return "\n".join(
        one.render() + json.dumps(one.as_dict(), ensure_ascii=False) for one in result.diagnostics
    )


PATHS = list(spots(TREE))


def test_there_are_places() -> None:
    assert len(PATHS) > 150


@pytest.mark.parametrize("section", list(TREE))
def test_a_key_in_a_wrong_place(section: str) -> None:
    """As text, in a list, in a mapping, as the name of a key, in an address."""
    for path in [(section, "x"), *(path for path in PATHS if path[0] == section)]:
        shapes: list[Any] = [KEY, [KEY], {"value": KEY}, {KEY: KEY}, f"https://h.org/v1?k={KEY}"]
        for value in shapes:
            if isinstance(path[-1], str) or len(path) > 2:
                told = said(judged(put(path, value)))
                assert "LEAKmarker" not in told, (path, value, told)


def could_hold(path: Path) -> bool:
    """Whether somebody may put a secret there: where a mapping or list belongs, below what names
    secrets, and in addresses of services.
    """
    names = {str(part) for part in path}
    if path[0] == "llm_routing" or path[-2:-1] == ("models",) or path[-1] == "models":
        return False
    return isinstance(at(path), dict | list) or bool(
        {"secret", "api_key_env", "token_env", "password_env", "webhook", "options"} & names
    )


def test_a_password_where_a_secret_could_be() -> None:
    found = [path for path in PATHS if could_hold(path)]
    assert len(found) > 30
    for path in found:
        for value in (WORDS, [WORDS], {"value": WORDS}, f"hooks.example.org/{WORDS}"):
            told = said(judged(put(path, value)))
            assert "Hunter2" not in told, (path, value, told)


@pytest.mark.parametrize("number", [7364827364, 55443322119, 73648273640.5])
@pytest.mark.parametrize("path", [path for path in PATHS if str(path[-1]).endswith("_env")])
def test_a_number_that_may_be_a_secret(path: Path, number: float) -> None:
    told = said(judged(put(path, number)))
    assert "a number" in told
    assert str(number) not in told


@pytest.mark.parametrize(
    "variable", ["llm_secrets", "llm_address", "llm_gpus", "llm_overrides", "llm_environment"]
)
@pytest.mark.parametrize("value", [KEY, [KEY], {KEY: KEY}, {"value": KEY}, {"clients": KEY}])
def test_a_key_in_another_variable(variable: str, value: Any) -> None:
    told = said(judged({**TREE, variable: value}))
    assert "LEAKmarker" not in told, told


@pytest.mark.parametrize(
    "text",
    [
        "sk-LEAK", "sk-proj-abc_DEF-123", "hf_LEAKab", "ghp_0123456789abcdef", "xoxb-1-2",
        "eyJhbGciOiJIUzI1NiJ9.x", "Bearer abc", "AKIAIOSFODNN7EXAMPLE", "github_pat_A1b2C3",
        "q8Zt3Lm9Xc2Vb7Nk4Pw6Rs1", "a8b3kq92lmx0p4tz7yw1c5dd", "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "https://hooks.slack.com/services/T0/B0/x", "https://me:word@example.org",
    ],
)  # fmt: skip
def test_what_looks_like_a_key(text: str) -> None:
    assert looks_secret(text)
    assert "(not shown)" in censored(f"port: {text!r}: must be a number")


@pytest.mark.parametrize(
    "text",
    [
        "qwen2.5-coder:7b", "DeepSeek-R1-Distill-Qwen-32B-Q4_K_M.gguf", "mythomax-l2-13b-q5_k_m",
        "task-manager", "disk-space", "OPENAI_API_KEY", "hf_transfer", "llm_vllm_qwen",
        "MIG-1ab2c3d4-1234-5678-9abc-def012345678", "Mistral7BInstruct", "xai-grok-4-fast-reasoning",
        "pplx-70b-online", "Qwen2VL7BInstructQ4KM", "a" * 40,
        "https://api.example.org/v1", "ops@example.org", "GPU-8a3f0c1e-2222-3333-4444-123456789abc",
    ],
)  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    assert not looks_secret(text)
    assert censored(text) == text


def test_checksums_stay_in_sentences() -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert censored(f"sha256 is {digest}") == f"sha256 is {digest}"


@pytest.mark.parametrize(
    ("path", "value", "kinds", "text"),
    [
        (("gateway", "port"), "80x", ["int_type"], "'80x'"),
        (("gateway", "port"), "tulip and rose", ["int_type"], "text"),
        (("clients", "chat"), "tulip", ["dict_type"], "text"),
        (("clients", "chat"), 7, ["dict_type"], "a number"),
        (("providers", "x", "type"), "opanai", [], "'opanai'"),
        (("x", "base_url"), "https://h.org/v1?key=k", [], "'https://h.org/v1...'"),
        (("x", "base_url"), "h.org/v1#k", [], "'h.org/v1...'"),
        (("x", "base_url"), "tulip", [], "(not shown)"),
        (("x", "index_url"), "pypi.example.org/simple?t=k", [], "'pypi.example.org/simple...'"),
        (("x", "index_url"), "me:tulip@pypi.example.org", [], "(not shown)"),
        (("x", "origins", 0), "https://h.org?t=k", [], "'https://h.org...'"),
        (("x", "name"), "https://me:tulip@h.org", [], "(not shown)"),
        (("webhook", "url"), "https://h.org/a/b", [], "'https://h.org...'"),
        (("x", "options", "a"), "tulip", [], "(not shown)"),
        (("x", "api_key"), "tulip", [], "(not shown)"),
        (("x", "sha256"), "A" * 8, [], "'AAAAAAAA'"),
        (("x", "secret"), 12, [], "a number"),
        (("x", "enabled"), None, ["bool_type"], "null"),
    ],
)
def test_what_is_shown(path: Path, value: Any, kinds: list[str], text: str) -> None:
    assert shown(value, path, kinds) == text


def test_a_diagnostic_shows_no_key() -> None:
    told = Diagnostic("no-effect", "warning", f"a {KEY}", ("llm_secrets", KEY), None, f"b {KEY}")
    assert "LEAK" not in told.render() + json.dumps(told.as_dict())


@pytest.mark.parametrize("number", ["7364827364", "073641273", "12:30:30", "2026-01-02"])
def test_how_a_number_was_typed_is_not_told(number: str) -> None:
    text = CATALOGUE.replace("CLOUD_KEY", number)
    lines = text.splitlines()
    given = replace(inventory(text), line=lambda place: lines[(place.line or 1) - 1])
    told = said(compile_inventory(given))
    assert "api_key_env must be text, not" in told
    assert number not in told


def test_a_number_in_another_base_that_may_be_a_secret() -> None:
    text = CATALOGUE.replace(
        "        source: {path: /models/small.gguf}\n",
        "        source: {path: /models/small.gguf}\n        options: {api-key: 01234567}\n",
    )
    lines = text.splitlines()

    def line(place: Origin) -> str:
        return lines[(place.line or 1) - 1]

    told = said(compile_inventory(replace(inventory(text), line=line)))
    assert told
    assert "01234567" not in told
    assert "342391" not in told


def test_a_key_is_no_name_and_not_shown() -> None:
    text = f"llm_clients: {{{KEY.lower()}: {{secret: CHAT_KEY}}}}\n{CATALOGUE}"
    told = said(compile_inventory(inventory(text)))
    assert "this looks like a key" in told
    assert "leakmarker" not in told


def test_a_plan_shows_no_key() -> None:
    """An alias may have the name of a key, which nobody refuses."""
    aliases = f"llm_routing:\n  aliases: {{{KEY.lower()}: small}}\n"
    result = compile_inventory(inventory(CATALOGUE.replace("llm_routing:\n", aliases)))
    assert result.errors == []
    told = render_summary(result) + render_plan(result)
    assert "leakmarker" not in told
    assert "(not shown)" in told
