"""Applications with keys of their own: what a gateway is told of them, and what `plan` says of a
change."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from catalogues import ROOT, change, compiled, inventory, load, places
from test_live import changes, details

from modelyard.compile import compile_inventory

CLIENTS = """\
llm_clients:
  chat-app: {secret: CHAT_KEY, models: [small, nickname, code], rpm: 60}
  batch: {secret: BATCH_KEY}
"""
CATALOGUE = change("llm_versions:", f"{CLIENTS}llm_versions:")
CATALOGUE = change(
    "  fallbacks:\n",
    "  aliases: {nickname: small}\n  capabilities: {code: {models: [small]}}\n  fallbacks:\n",
    CATALOGUE,
)


def test_what_a_gateway_is_told() -> None:
    result = compiled(CATALOGUE)
    assert result.errors == []
    assert result.plans["one"]["litellm"]["clients"] == {
        "chat-app": {"secret": "CHAT_KEY", "models": ["small", "nickname", "code"], "rpm": 60},
        "batch": {"secret": "BATCH_KEY", "models": None, "rpm": None},
    }


def test_their_keys_are_no_secrets_of_the_gateway() -> None:
    """They would reach the host."""
    plan = compiled(CATALOGUE).plans["one"]
    assert not {"CHAT_KEY", "BATCH_KEY"} & plan["litellm"]["secrets"].keys()
    assert "CHAT_KEY" not in str(plan["litellm"]["document"])


def test_nobody_has_a_key_by_default() -> None:
    assert compiled().plans["one"]["litellm"]["clients"] == {}


def test_overrides() -> None:
    """Client by client, key by key; its models are one value, because they are names and not
    models."""
    override = load("clients: {chat-app: {models: [small]}, batch: null, new: {secret: NEW_KEY}}")
    plan = compiled(CATALOGUE, llm_overrides=override).plans["one"]
    assert plan["litellm"]["clients"] == {
        "chat-app": {"secret": "CHAT_KEY", "models": ["small"], "rpm": 60},
        "new": {"secret": "NEW_KEY", "models": None, "rpm": None},
    }


def test_a_name_that_an_override_removed() -> None:
    override = load("routing: {aliases: {nickname: null}}", "mine.yml")
    result = compiled(CATALOGUE, llm_overrides=override)
    (error,) = result.errors
    assert 'may use "nickname", which was removed at mine.yml:1:21' in error.render()


def test_a_name_of_a_disabled_provider() -> None:
    other = (
        "{type: openai_compatible, status: disabled, base_url: http://other, models: [{name:"
        " spare}]}"
    )
    text = change("  cloud:\n", f"  other: {other}\n  cloud:\n", CATALOGUE)
    text = change("[small, nickname, code]", "[small, spare]", text)
    assert places(compiled(text)) == [("model-not-deployed", 29)]


def test_a_name_that_is_left_out_stays() -> None:
    """Its provider waits for a secret: the client may ask as soon as it is there."""
    text = change(
        "    api_key_env: CLOUD_KEY\n",
        "    api_key_env: CLOUD_KEY\n    when_secret_missing: skip\n",
        CATALOGUE,
    )
    text = change("[small, nickname, code]", "[small, big-cloud]", text)
    text = text.replace("small: {chain: [big-cloud]}", "small: {terminal: true}")
    result = compile_inventory(replace(inventory(text), secrets=frozenset()))
    assert result.errors == []
    assert result.plans["one"]["litellm"]["clients"]["chat-app"]["models"] == ["small", "big-cloud"]
    assert "big-cloud" not in result.public_names


def test_plan_tells_who_comes_and_goes() -> None:
    assert details(
        changes(CATALOGUE, CATALOGUE.replace("  batch: {secret: BATCH_KEY}\n", "")), "litellm"
    ) == ('clients.batch removed (was {"models": null, "rpm": null})',)
    assert details(changes(CATALOGUE, CATALOGUE.replace("rpm: 60", "rpm: 30")), "litellm") == (
        "clients.chat-app.rpm: 60 → 30",
    )


def test_what_the_guard_serves_is_what_the_front_end_opens() -> None:
    """The guard's own lists of paths, and HAProxy's."""
    front_end = (ROOT / "roles/haproxy/templates/haproxy.cfg.j2").read_text(encoding="utf-8")
    guard = ast.parse(
        (ROOT / "roles/litellm/files/modelyard_gateway/requests.py").read_text(encoding="utf-8")
    )
    lists: dict[str, set[str]] = {}
    for node in guard.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(keys=keys)):
                lists[name] = {key.value for key in keys if isinstance(key, ast.Constant)}
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(path))):
                lists[name] = {path}
    for name, acl in (("ASKING", "inference"), ("READING", "reading")):
        opened = {
            path for line in re.findall(rf"acl {acl} path (.*)", front_end) for path in line.split()
        }
        assert opened == {f"{version}/{path}" for path in lists[name] for version in ("", "/v1")}


def test_both_sides_hash_alike() -> None:
    salts = {
        re.findall(r"^SALT = (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)[0]
        for path in (
            "roles/litellm/files/modelyard_gateway/clients.py",
            "plugins/action/modelyard_clients.py",
        )
    }
    assert len(salts) == 1
