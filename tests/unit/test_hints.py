"""Hints: what they offer is not refused next, and what people write in another form is shown in
ours."""

from __future__ import annotations

import re

import pytest
import yaml
from catalogues import change, compiled, load, places, refused

ROUTING = "llm_routing:\n"
OFF = (
    "  spare: {type: openai_compatible, status: disabled, base_url: 'http://h/v1', models: [{name: MODELS}]}\n"
    "  cloud:\n"
)


def routed(text: str) -> str:
    return change(ROUTING, f"{ROUTING}  {text}\n")


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("small: {chain: [big-cloud]}", "small: [big-cloud]", 'write "small": {chain: ["big-cloud"]}'),
        ("small: {chain: [big-cloud]}", "small: big-cloud", 'write "small": {chain: ["big-cloud"]}'),
        ("small: {chain: [big-cloud]}", "small: {chain: big-cloud}", 'write chain: ["big-cloud"]'),
        ("small: {chain: [big-cloud]}", "small: {chain: {first: big-cloud}}", 'write chain: ["big-cloud"]'),
        ("small: {chain: [big-cloud]}", "small: {chain: {big-cloud: {}}}", 'write chain: ["big-cloud"]'),
        ("llm_routing:\n", "llm_routing:\n  default_fallbacks: {chain: [small]}\n",
         'write default_fallbacks: ["small"]'),
        ("llm_routing:\n", "llm_routing:\n  aliases: {fast: {model: small}}\n", 'write "fast": "small"'),
        ("llm_routing:\n", "llm_routing:\n  capabilities: {code: {models: small}}\n", 'write models: ["small"]'),
        ("llm_routing:\n", "llm_routing:\n  capabilities: [{name: code, models: [small]}]\n",
         'write capabilities: {"code": {models: ["small"]}}'),
        ("llm_routing:\n", "llm_routing:\n  context_window_fallbacks: [{model: small, chain: [big-cloud]}]\n",
         'write context_window_fallbacks: {"small": {chain: ["big-cloud"]}}'),
        ("small: {chain: [big-cloud]}", "small: 3", 'write "small": {chain: [...]}'),
        ("llm_routing:\n", "llm_routing:\n  default_fallbacks: small\n", 'write default_fallbacks: ["small"]'),
        ("llm_routing:\n", "llm_routing:\n  aliases: [{fast: small}]\n", 'write aliases: {"fast": "small"}'),
        ("llm_routing:\n", "llm_routing:\n  capabilities: {code: [small]}\n", 'write "code": {models: ["small"]}'),
        ("llm_routing:\n", "llm_routing:\n  capabilities: {code: small}\n", 'write "code": {models: ["small"]}'),
        ("llm_routing:\n", "llm_routing:\n  context_window_fallbacks: [{small: [big-cloud]}]\n",
         'write context_window_fallbacks: {"small": {chain: ["big-cloud"]}}'),
        ("llm_routing:\n", "llm_routing:\n  content_policy_fallbacks: [{small: [big-cloud]}, {large:7b: small}]\n",
         'write content_policy_fallbacks: {"small": {chain: ["big-cloud"]}, "large:7b": {chain: ["small"]}}'),
        ("- name: big-cloud", "- big-cloud", 'write {name: "big-cloud"}'),
        ("      - name: big-cloud", "      big-cloud: {}", 'write models: [{name: "big-cloud", ...}]'),
        ("port: 4000", "listen: 127.0.0.1", 'write listen: ["127.0.0.1"]'),
        ("port: 4000", "timeouts: 30", "for example: timeouts: {"),
    ],
)  # fmt: skip
def test_another_form_is_shown_in_ours(old: str, new: str, hint: str) -> None:
    told = [
        one.render() for one in compiled(change(old, new)).errors if one.code == "invalid-value"
    ]
    assert hint in told[0]


def test_a_whole_list_of_fallbacks_as_litellm_has_it() -> None:
    text = change(
        "    large:7b: {chain: [small, big-cloud]}\n    small: {chain: [big-cloud]}\n"
        "    big-cloud: {terminal: true}\n",
        "    - large:7b: [small, big-cloud]\n    - small: [big-cloud]\n",
    )
    text = refused(compiled(text), "invalid-value", 19)
    (hint,) = re.findall(r"write (fallbacks: .*)", text)
    written = yaml.safe_load(hint)["fallbacks"]
    assert written == {
        "large:7b": {"chain": ["small", "big-cloud"]},
        "small": {"chain": ["big-cloud"]},
    }


def test_a_name_that_would_be_refused_is_not_offered() -> None:
    """Neither the model of a disabled provider, nor what is in the chain, nor its own model."""
    off = change("  cloud:\n", OFF.replace("MODELS", "big-clout"))
    text = change("small: {chain: [big-cloud]}", "small: {chain: [big-clouf]}", off)
    assert 'did you mean "big-cloud"?' in refused(compiled(text), "unknown-model", 22)
    text = change("{chain: [small, big-cloud]}", "{chain: [big-cloud, big-cloup]}")
    assert "did you mean" not in refused(compiled(text), "unknown-model", 20)
    text = change("small: {chain: [big-cloud]}", "small: {chain: [smal]}")
    assert "did you mean" not in refused(compiled(text), "unknown-model", 21)
    text = routed("aliases: {fast: small, quick: fasd}")
    assert "did you mean" not in refused(compiled(text), "unknown-alias-target", 19)


def test_what_is_left_of_a_chain_is_not_refused_next() -> None:
    """The rest that a hint offers has no other mistake of the same chain."""
    off = change("  cloud:\n", OFF.replace("MODELS", "gone")).replace(
        "{chain: [small, big-cloud]}", "{chain: [small, big-cloud, gone, big-cloud]}"
    )
    override = load("{providers: {local: {models: {small: null}}}}", "mine.yml")
    result = compiled(off, llm_overrides=override)
    told = next(one for one in result.errors if one.path[-1] == 0 and one.code == "unknown-model")
    assert '{chain: ["big-cloud"]}' in told.hint


def test_one_hint_for_a_chain_whose_model_was_removed() -> None:
    """To take the entry out; nothing is said of its steps, which go with it."""
    override = load("{providers: {local: {models: {small: null, 'large:7b': null}}}}", "mine.yml")
    result = compiled(llm_overrides=override)
    about = [one for one in result.errors if "large:7b" in map(str, one.path)]
    assert [one.path[-1] for one in about] == ["large:7b"]
    assert '{"large:7b": null}' in about[0].hint


@pytest.mark.parametrize(
    ("extra", "line", "says"),
    [
        ("aliases: {fast: small}\n  capabilities: {code: {models: [fast]}}", 20,
         'which is an alias of "small": a capability lists models\n'),
        ("aliases: {fast: small}\n  capabilities: {code: {models: [fast]}}", 20, 'write "small" in its place'),
        ("capabilities: {code: {models: [all]}, all: {models: [small, big-cloud]}}", 19,
         'write "small", "big-cloud" in its place'),
        ("capabilities: {code: {models: [smal]}}", 19, 'did you mean "small"?'),
        ("capabilities: {code: {models: [xyz]}}", 19, "add it to the models of a provider"),
    ],
)  # fmt: skip
def test_members_of_a_capability_are_models(extra: str, line: int, says: str) -> None:
    assert says in refused(compiled(routed(extra)), "unknown-model", line)


@pytest.mark.parametrize(
    ("models", "chain", "taken_out"),
    [
        ("fast", "", "{providers: {spare: null}}"),
        ("fast", "fast: {chain: [small]}, ", '{providers: {spare: null}, routing: {fallbacks: {"fast": null}}}'),
        ("fast}, {name: slow", "", '{providers: {spare: {models: {"fast": null}}}}'),
    ],
)  # fmt: skip
def test_the_hint_about_a_shadowed_name_frees_it(models: str, chain: str, taken_out: str) -> None:
    """Whose it is, and an override that works."""
    text = change("  cloud:\n", OFF.replace("MODELS", models))
    text = change(ROUTING, f"{ROUTING}  aliases: {{fast: small}}\n", text)
    if chain:
        text = change(
            "    large:7b: {chain", "    fast: {chain: [small]}\n    large:7b: {chain", text
        )
    told = refused(compiled(text), "shadowed-name", 20)
    assert 'the name of a model of provider "spare" (disabled)' in told
    assert f"llm_overrides: {taken_out}" in told
    assert compiled(text, llm_overrides=load(taken_out)).errors == []


@pytest.mark.parametrize("word", ["all-proxy-models", "all-team-models", "no-default-models"])
def test_words_of_the_gateway_are_no_names(word: str) -> None:
    assert "the gateway uses itself" in refused(
        compiled(routed(f"aliases: {{{word}: small}}")), "shadowed-name", 19
    )
    assert "the gateway uses itself" in refused(
        compiled(routed(f"capabilities: {{{word}: {{models: [small]}}}}")), "shadowed-name", 19
    )
    model = (
        change("- name: small", f"- name: {word}")
        .replace("[small, ", "[")
        .replace("    small: {chain: [big-cloud]}\n", "")
    )
    assert "served_name" in refused(compiled(model), "shadowed-name", 7)


def test_a_provider_that_replaces_the_shipped_ones() -> None:
    text = change("    type: llama_cpp\n", "")
    told = refused(
        compiled(text.split("  cloud:")[0] + "llm_versions:" + text.split("llm_versions:")[1]),
        "missing-key",
        2,
    )
    assert "llm_overrides: {providers: {local: ...}}" in told


def test_a_secret_is_needed_where_its_provider_is_switched_on() -> None:
    text = change("type: openai", "type: openai\n    status: disabled")
    text = text.replace("[small, big-cloud]", "[small]").replace(
        "{chain: [big-cloud]}", "{terminal: true}"
    )
    on = load("{providers: {cloud: {status: active}}}", "mine.yml")
    result = compiled(text, secrets=frozenset(), llm_overrides=on)
    assert places(result) == [("secret-undefined", 1)]
    assert str(result.errors[0].origin).startswith("mine.yml")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("aliases: {chat: small}", "write llm_overrides: {routing: {aliases: ...}}"),
        ("retention_days: 3", "{monitoring: {prometheus: {retention_days: ...}}}"),
        ("gateway.port: 4100", "write llm_overrides: {gateway: {port: ...}}"),
        ("llm_overrides: {gateway: {port: 4100}}", "remove this line, and move what is below it"),
        ("llm_gateway: {port: 4100}", 'did you mean "gateway"?'),
        ("local: {port: 8090}", "write llm_overrides: {providers: {local: ...}}"),
        ("gateway: {request_s: 3}", 'did you mean "timeouts.request_s"?'),
        ("gateway: {timeouts.request_s: 3}", "write timeouts: {request_s: ...}"),
        ("gateway: {fallbacks: {}}", "write llm_overrides: {routing: {fallbacks: ...}}"),
        ("monitoring: {retention_days: 3}", 'did you mean "prometheus.retention_days"?'),
        # An engine's own section, of a provider of that engine only.
        ("providers: {ours: {type: ollama, keep_alive: 24h}}", "write ollama: {keep_alive: ...}"),
        ("providers: {local: {keep_alive: 24h}}", "the keys here are"),
        (
            "providers: {ours: {type: ollama, models: {a: {max_loaded_models: 1}}}}",
            "write ollama: {max_loaded_models: ...} in the provider",
        ),
        ("providers: {cloud: {models: {big-cloud: {status: active}}}}", "status: ... in the"),
        # What the schema has at many places says nothing.
        ("gateway: {models: []}", "the keys here are"),
        ("providers: {local: {enabled: true}}", "the keys here are"),
    ],
)
def test_a_key_that_is_elsewhere_is_shown_there(override: str, hint: str) -> None:
    result = compiled(llm_overrides=load(override))
    told = [one.render() for one in result.errors if one.code == "unknown-key"]
    assert hint in told[0]


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("llm_overrides.gateway.port", "write llm_overrides: {gateway: {port: ...}}"),
        ("llm_gateway.port", "write llm_overrides: {gateway: {port: ...}}"),
        ("llm_gateway_port", "write llm_overrides: {gateway: {port: ...}}"),
        ("llm_override_gateway", "write llm_overrides: {gateway: ...}"),
        ("llm_aliases", "write llm_overrides: {routing: {aliases: ...}}"),
        ("llm_secret", 'did you mean "llm_secrets"?'),
        ("llm_override", 'did you mean "llm_overrides"?'),
        ("llm_provider", 'did you mean "llm_providers"?'),
    ],
)
def test_a_variable_is_shown_as_an_override(variable: str, hint: str) -> None:
    (told,) = compiled(**{variable: {}}).errors
    assert hint in told.render()


def test_an_override_with_the_name_of_its_section() -> None:
    (told,) = compiled(llm_overrides_gateway=load("port: 4100")).errors
    assert "write llm_overrides_gateway: {gateway: {port: ...}}" in told.render()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Chat_App", "write chat-app"),
        ("my client", "write my-client"),
        ("BOT", "write bot"),
        ("9lives", ""),
    ],
)
def test_a_name_that_fits_is_offered(name: str, hint: str) -> None:
    (told,) = compiled(llm_overrides={"clients": {name: {"secret": "A_KEY"}}}).errors
    assert told.hint == hint
    assert told.message.count(name) == 1


def test_an_empty_list_in_plain_words() -> None:
    (told,) = compiled(llm_overrides={"clients": {"a": {"secret": "A_KEY", "models": []}}}).errors
    assert told.message == "models is empty: it needs at least one entry"
    assert "or remove this line" in told.hint
    extra = {"routing": {"capabilities": {"code": {"models": []}}}}
    (told,) = compiled(llm_overrides=extra).errors
    assert told.message == "models is empty: it needs at least one entry"
    assert "for example: models: [" in told.hint


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        (
            "- name: big-cloud",
            "- name:big-cloud",
            'write {name: "big-cloud"}: after "name:" YAML needs a space',
        ),
        (
            "- name: big-cloud",
            "- big-cloud: {preload: false, tags: [x]}",
            'write {name: "big-cloud", preload: false, tags: ...}',
        ),
        ("small: {chain: [big-cloud]}", "small: terminal", 'write "small": {terminal: true}'),
        ("small: {chain: [big-cloud]}", "small: []", 'write "small": {terminal: true}'),
        ("llm_gateway:\n", "  aliases: {chat: [small]}\nllm_gateway:\n", 'write "chat": "small"'),
        (
            "llm_gateway:\n",
            "  aliases: {chat: [small, big-cloud]}\nllm_gateway:\n",
            'write capabilities: {"chat": {models: ["small", "big-cloud"]}}',
        ),
        ("{terminal: true}", "{terminal: false}", "remove it, or write terminal: true"),
        ("https://api", "https://https://api", 'write "https://api.example.org/v1"'),
        ("https://api", "http://https://api", 'write "https://api.example.org/v1"'),
    ],
)
def test_a_slip_is_shown_as_it_is_meant(old: str, new: str, hint: str) -> None:
    told = [one.hint for one in compiled(change(old, new)).errors]
    assert hint in told


def test_a_password_behind_two_schemes_is_not_shown() -> None:
    (told,) = compiled(change("https://api", "https://https://svc:PWurl@api")).errors
    assert "PWurl" not in told.render()


@pytest.mark.parametrize(
    ("aliases", "hint"),
    [
        ("{a: a}", "point it at a model or a capability"),
        ("{a: b, b: a}", "point it at a model or a capability"),
        ("{a: b, b: c, c: small}", 'point it at "small"'),
    ],
)
def test_an_alias_of_an_alias_is_pointed_at_what_is_no_alias(aliases: str, hint: str) -> None:
    told = compiled(llm_overrides=load(f"routing: {{aliases: {aliases}}}")).errors
    assert told[0].hint == hint


def test_what_a_capability_is_replaced_by_has_one_mode() -> None:
    text = change("- name: big-cloud", "- name: big-cloud\n      - {name: ear, mode: embedding}")
    mixed = (
        "routing: {capabilities: {all: {models: [small, any]}, any: {models: [ear, big-cloud]}}}"
    )
    told = compiled(text, llm_overrides=load(mixed)).errors
    assert 'write "big-cloud" in its place' in [one.hint for one in told]


def test_a_provider_is_no_model() -> None:
    text = """
routing: {aliases: {chat: cloud}, capabilities: {code: {models: [cloud]}}, fallbacks: {small: {chain: [cloud]}}}
clients: {app: {secret: APP_KEY, models: [cloud]}}
"""
    told = compiled(llm_overrides=load(text)).errors
    assert len(told) == 4
    assert {one.hint for one in told} == {'name its models: "big-cloud"'}
    assert all("which is a provider, not a model" in one.message for one in told)


def test_names_of_a_refused_client_are_checked_in_the_same_run() -> None:
    text = "clients: {Chat_App: {secret: APP_KEY, models: [smal, 'a b']}}"
    told = compiled(llm_overrides=load(text)).errors
    assert [one.code for one in told] == ["invalid-value", "invalid-value", "unknown-model"]
    assert told[-1].hint == 'did you mean "small"?'


def test_a_chain_of_an_alias_is_declared_for_its_model() -> None:
    text = "routing: {aliases: {chat: small}, fallbacks: {chat: {chain: [big-cloud]}}}"
    (told,) = compiled(llm_overrides=load(text)).errors
    assert told.hint == 'declare it for what it refers to, "small", or remove it here'


def test_wrong_names_do_not_hide_each_other() -> None:
    text = """
routing:
  aliases: {"my chat": small, "*": small, small: big-cloud, a: b, b: small, far: nowhere}
  fallbacks: {small: {chain: ["my chat"]}, big-cloud: {chain: nothing}, "large:7b": {chain: [smal]}}
clients: {app: {secret: APP_KEY, models: ["my chat"]}}
"""
    told = compiled(llm_overrides=load(text)).errors
    assert sorted(one.code for one in told) == [
        "invalid-value",  # big-cloud's chain
        "invalid-value",  # "*"
        "invalid-value",  # "my chat" in aliases ...
        "invalid-value",  # ... in a chain
        "invalid-value",  # ... and of a client; none of them is unknown besides
        "shadowed-name",  # small
        "unknown-alias-target",  # a, another alias
        "unknown-alias-target",  # far
        "unknown-model",  # smal
    ]


def test_a_model_with_its_name_for_a_key_is_told_once() -> None:
    mine = "providers: {cloud: {models: [{other: {preload: true}}]}}"
    told = compiled(llm_overrides=load(mine)).errors
    assert [one.hint for one in told] == ['write {name: "other", preload: true}']
