"""Overrides: merged key by key, models by name, null removes, origins of what was really written
last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from catalogues import change, compiled, document, inventory, load, part, places, probe, refused

from modelyard.catalogue.ineffective import Ineffective
from modelyard.catalogue.overrides import apply_overrides
from modelyard.catalogue.sourcemap import Origin, SourceMap
from modelyard.compile import compile_inventory


def over(text: str, file: str = "mine.yml") -> Any:
    return load(text, file)


def test_key_by_key_and_model_by_name() -> None:
    override = over("providers: {local: {models: [{name: small, rpm: 5}]}}")
    result = document(compiled(llm_overrides=override))
    small = next(e for e in result["model_list"] if e["model_name"] == "small")
    assert small["litellm_params"]["rpm"] == 5
    assert [e["model_name"] for e in result["model_list"]] == ["small", "large:7b", "big-cloud"]


def test_name_order_and_the_plain_one_last() -> None:
    result = compiled(
        llm_overrides=over("gateway: {cooldown_s: 3}"),
        llm_overrides_b=over("gateway: {cooldown_s: 2, port: 5002}"),
        llm_overrides_a=over("gateway: {cooldown_s: 1, port: 5001, workers: 3}"),
    )
    assert document(result)["router_settings"]["cooldown_time"] == 3
    assert result.plans["one"]["haproxy"]["port"] == 5002
    assert result.plans["one"]["litellm"]["workers"] == 3


def test_null_removes() -> None:
    override = over(
        "{providers: {cloud: null, local: {models: {'large:7b': null}}},"
        " routing: {fallbacks: {'large:7b': null, small: {terminal: true}, big-cloud: null}}}"
    )
    assert compiled(llm_overrides=override).public_names == ["small"]


@pytest.mark.parametrize("kind", ["context_window_fallbacks", "content_policy_fallbacks"])
def test_a_chain_for_one_kind_of_error_is_replaced_whole(kind: str) -> None:
    base = change("  fallbacks:\n", f"  {kind}: {{small: {{chain: [big-cloud]}}}}\n  fallbacks:\n")
    result = compiled(
        base, llm_overrides=over(f"routing: {{{kind}: {{small: {{terminal: true}}}}}}")
    )
    assert [d.render() for d in result.errors] == []


def test_one_of_several_shapes_is_replaced_whole() -> None:
    override = over(
        "{routing: {fallbacks: {'large:7b': {terminal: true}}},"
        " providers: {local: {models: {small: {source: {url: 'https://e.org/m', sha256: "
        + "b" * 64
        + "}}}}}}"
    )
    result = compiled(llm_overrides=override)
    assert document(result)["router_settings"]["fallbacks"] == [{"small": ["big-cloud"]}]
    sources = {
        one["model"]: one["source"] for one in part(result.plans["one"], "llama_cpp")["instances"]
    }
    assert sources["small"]["url"] == "https://e.org/m"


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("providers: {locl: null}", "unknown-override", 'did you mean "local"?'),
        ("providers: {local: {models: {smal: null}}}", "unknown-override", 'did you mean "small"?'),
        ("provider: {local: {port: 1}}", "unknown-key", 'did you mean "providers"?'),
        ("llm_gateway: {port: 1}", "unknown-key", 'did you mean "gateway"?'),
        ("providers: {locl: {port: 9000}}", "missing-key", 'did you mean "local"?'),
        (
            "routing: {fallbacks: {small: {chain: [big-clod]}}}",
            "unknown-model",
            'did you mean "big-cloud"?',
        ),
        ("gateway: {redis: {maxmem: 1}}", "unknown-key", "maxmemory_"),
    ],
)
def test_typos_point_at_the_override(text: str, code: str, hint: str) -> None:
    result = compiled(llm_overrides=over(text))
    assert hint in refused(result, code, 1)
    assert result.errors[0].origin is not None
    assert result.errors[0].origin.file == "mine.yml"


def test_not_a_mapping() -> None:
    result = compiled(llm_overrides='{"gateway": {}}')
    assert "write it as JSON" in refused(result, "invalid-value", None)


def test_origins_survive_merging() -> None:
    base = load(
        "providers:\n  a:\n    port: 1\n    models:\n      - name: x\n        rpm: 1\n      - name:"
        " y\n        rpm: 2\n"
    )
    changed = load(
        "providers:\n  a:\n    models:\n      x: null\n      y:\n        tpm: 3\n    port: 2\n",
        "two.yml",
    )
    merged, _removed, problems = apply_overrides(base, {"llm_overrides": changed}, probe)
    assert problems == []
    source = SourceMap(merged, probe)
    assert source.origin(("providers", "a", "port")) == Origin("two.yml", 7, 11)
    assert source.origin(("providers", "a", "models", 0, "rpm")) == Origin("llm.yml", 8, 14)
    assert source.origin(("providers", "a", "models", 0, "tpm")) == Origin("two.yml", 6, 14)
    assert source.origin(("providers", "a", "nothing")) == Origin("llm.yml", 2, 3)


def test_a_boolean_without_origin_has_that_of_its_override_not_of_the_base() -> None:
    """From `-e` neither a key nor a boolean has an origin; the shipped file must not be blamed."""

    class Tagged(dict[str, Any]):
        origin = Origin(description="<CLI option '-e'>")

    override = Tagged(gateway={"cooldwn": True})
    result = compiled(llm_overrides=override)
    assert [str(d.origin) for d in result.errors] == ["<CLI option '-e'>"]


def test_merging_changes_no_input() -> None:
    base = load("providers: {a: {port: 1, models: [{name: x}]}}")
    before = repr(base)
    override = load("providers: {a: {port: 2, models: [{name: x, rpm: 1}], group: g}}")
    apply_overrides(base, {"llm_overrides": override}, probe)
    assert repr(base) == before


def test_duplicate_after_override() -> None:
    result = compiled(
        change("port: 8081", "port: 8081\n        rpm: 0"), llm_overrides=over("gateway: {port: 0}")
    )
    assert places(result) == [("invalid-value", 12), ("invalid-value", 1)]


GONE = "which was removed at mine.yml:1:"


@pytest.mark.parametrize(
    ("override", "message", "instead"),
    [
        (
            "{providers: {local: {models: {small: null}}}, routing: {fallbacks: {small: null}}}",
            'the chain of "large:7b" names "small", ' + GONE,
            '{fallbacks: {"large:7b": {chain: ["big-cloud"]}}}',
        ),
        (
            (
                "{providers: {cloud: null}, routing: {fallbacks: {big-cloud: null, 'large:7b':"
                " {chain: [small]}}}}"
            ),
            'the chain of "small" names "big-cloud", ' + GONE,
            '{fallbacks: {"small": {terminal: true}}}',
        ),
        (
            (
                "{providers: {cloud: null}, routing: {fallbacks: {'large:7b': {chain: [small]},"
                " small: {terminal: true}}}}"
            ),
            'a chain for "big-cloud", ' + GONE,
            '{fallbacks: {"big-cloud": null}}',
        ),
    ],
)
def test_names_that_an_override_removed_are_no_typos(
    override: str, message: str, instead: str
) -> None:
    """Nearest names would be a poor hint for what somebody took out on purpose."""
    result = compiled(llm_overrides=over(override))
    assert [d.code for d in result.errors] == ["unknown-model"]
    assert message in result.errors[0].message
    assert (
        result.errors[0].hint
        == f"to remove it here, too, add to llm_overrides: {{routing: {instead}}}"
    )
    repair = load(result.errors[0].hint.partition("llm_overrides: ")[2])
    assert compiled(llm_overrides_a=over(override), llm_overrides_b=repair).errors == []


@pytest.mark.parametrize(
    ("extra", "override", "code", "instead"),
    [
        (
            "aliases: {fast: small}",
            "{routing: {aliases: {fast: null}, fallbacks: {'large:7b': {chain: [fast]}}}}",
            "unknown-model",
            '{fallbacks: {"large:7b": {terminal: true}}}',
        ),
        (
            "aliases: {fast: code}\n  capabilities: {code: {models: [small]}}",
            "{routing: {capabilities: {code: null}}}",
            "unknown-alias-target",
            '{aliases: {"fast": null}}',
        ),
        (
            "capabilities: {code: {models: [small]}}",
            (
                "{providers: {local: {models: {small: null}}},"
                " routing: {fallbacks: {small: null, 'large:7b': {chain: [big-cloud]}}}}"
            ),
            "unknown-model",
            '{capabilities: {"code": null}}',
        ),
        (
            "default_fallbacks: [small, big-cloud]",
            (
                "{providers: {local: {models: {small: null}}},"
                " routing: {fallbacks: {small: null, 'large:7b': {chain: [big-cloud]}}}}"
            ),
            "unknown-model",
            '{default_fallbacks: ["big-cloud"]}',
        ),
    ],
)
def test_removed_names_elsewhere_in_the_routing(
    extra: str, override: str, code: str, instead: str
) -> None:
    text = change("llm_routing:\n", f"llm_routing:\n  {extra}\n")
    result = compiled(text, llm_overrides=over(override))
    assert [d.code for d in result.errors] == [code]
    assert GONE in result.errors[0].message
    assert (
        result.errors[0].hint
        == f"to remove it here, too, add to llm_overrides: {{routing: {instead}}}"
    )
    repair = load(result.errors[0].hint.partition("llm_overrides: ")[2])
    assert compiled(text, llm_overrides_a=over(override), llm_overrides_b=repair).errors == []


def test_a_removed_name_that_came_back_is_not_removed() -> None:
    again = over("providers: {local: {models: {large:7b: {source: {path: /x}, port: 8081}}}}")
    assert (
        compiled(
            llm_overrides_a=over("providers: {local: {models: {'large:7b': null}}}"),
            llm_overrides_b=again,
        ).errors
        == []
    )


MINE, THEIRS = Origin("all/mine.yml", 2, 1), Origin("stack/theirs.yml", 3, 1)


@pytest.mark.parametrize(
    ("place", "message", "hint"),
    [
        (
            Ineffective("llm_gateway", MINE, "group", "all", "one", THEIRS),
            "stack/theirs.yml:3:1 wins for one",
            "as llm_overrides: {gateway: ...}",
        ),
        (Ineffective("llm_overrides_a", MINE, "group", "all", "one", THEIRS), "wins for one", "llm_overrides_site"),
        (Ineffective("llm_secrets", MINE, "group", "all", "one", THEIRS), "wins for one", "keep one of the two"),
        (Ineffective("llm_overrides", MINE, "group", "llm_local", "one"), "does not read", "directory llm_local/"),
        (Ineffective("llm_overrides", MINE, "group", "llm_locl"), "no group of this name", 'did you mean "llm_local"?'),
        (Ineffective("llm_overrides", MINE, "group", "zzz"), "no group of this name", "group_vars/llm_stack/"),
        (Ineffective("llm_address", MINE, "host", "ones"), "no host of this name", 'did you mean "one"?'),
        (Ineffective("llm_overrides", MINE, "group", "llm_empty"), "applies to no host of llm_stack", "move it"),
        (Ineffective("llm_address", MINE, "host", "two"), "applies to no host of llm_stack", "for a host of llm_stack"),
    ],
)  # fmt: skip
def test_variable_without_effect(place: Ineffective, message: str, hint: str) -> None:
    groups = {"web": ["two"]}
    result = compile_inventory(replace(inventory(groups=groups), ineffective=[place]))
    text = refused(result, "variable-without-effect", 2)
    assert text.startswith(
        f"all/mine.yml:2:1: error[variable-without-effect]: {place.variable} of "
    )
    assert message in text
    assert hint in text


def test_an_empty_group_may_keep_the_variables_of_its_future_hosts() -> None:
    waiting = [Ineffective("llm_gpus", MINE, "group", "llm_empty")]
    assert compile_inventory(replace(inventory(), ineffective=waiting)).errors == []


SHIPPED_OLLAMA = change(
    "  cloud:\n",
    "  ours:\n    type: ollama\n    group: llm_local\n    port: 11434\n    ollama: {context_length: 4096}\n"
    "    models: [{name: tiny}]\n  cloud:\n",
).replace("llm_routing:\n", "llm_routing:\n  default_fallbacks: [big-cloud]\n")


@pytest.mark.parametrize(
    ("override", "path", "hint"),
    [
        ("{ours: {base_url: 'http://10.0.0.9:11434'}}", "ours.base_url", "group: null, port: null"),
        ("{cloud: {ready_timeout_s: 60}}", "cloud.ready_timeout_s", "remove it"),
        ("{cloud: {exclusive_group: a}}", "cloud.exclusive_group", "remove it"),
        ("{cloud: {group: llm_local}}", "cloud.group", "exactly one"),
        ("{cloud: {api_key_env: null}}", "cloud.api_key_env", "add api_key_env"),
        ("{local: {group: null}}", "local.group", "add the base_url"),
        ("{local: {port: null}}", "local.port", "add port"),
        ("{ours: {active: tiny}}", "ours.active", "remove it"),
        ("{local: {models: {small: {source: {path: /x, repo: a/b}}}}}", "path", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_shown_where_the_user_wrote_it(
    override: str, path: str, hint: str
) -> None:
    """Not at the line of the shipped file that it was merged over."""
    result = compiled(SHIPPED_OLLAMA, llm_overrides=over(f"providers: {override}"))
    told = result.errors[0]
    assert path in told.render()
    assert hint in told.render()
    assert told.origin is not None
    assert (told.origin.file, told.origin.line) == ("mine.yml", 1)


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("{versions: {llama_cpp: null}}", "missing-key"),
        ("{versions: null}", "missing-key"),
        ("{providers: {local: {models: {small: null, 'large:7b': null}}}}", "no-models"),
    ],
)
def test_what_was_taken_out_is_missing_where_that_was_done(override: str, code: str) -> None:
    result = compiled(llm_overrides=over(override))
    told = next(one for one in result.errors if one.code == code)
    assert str(told.origin).startswith("mine.yml:1:")


@pytest.mark.parametrize("section", ["providers", "routing", "gateway", "clients"])
def test_a_section_with_nothing_below_it_takes_nothing_out(section: str) -> None:
    text = refused(compiled(llm_overrides=over(f"{section}: null")), "invalid-value", 1)
    assert "would remove the whole section" in text


def test_a_part_with_nothing_below_it_takes_nothing_out() -> None:
    """What was commented out below a key, all of it and at once."""
    result = compiled(
        llm_overrides_a=over(
            "{gateway: {limits: {body_s: 90}}, routing: {default_fallbacks: [small]}}"
        ),
        llm_overrides=over(
            "clients: ~\nproviders:\n  local:\n    models: ~\nrouting:\n  fallbacks: ~\n"
            "  default_fallbacks: ~\ngateway:\n  limits: ~\n  port: ~\n"
        ),
    )
    told = {str(one.path[-1]): one for one in result.errors}
    assert [*told] == ["clients", "models", "fallbacks", "default_fallbacks", "limits"]
    assert all(one.code == "invalid-value" for one in result.errors)
    assert str(told["models"].origin) == "mine.yml:4:5"
    assert "null would remove all that is there" in told["models"].message
    assert (
        told["default_fallbacks"].hint
        == "remove this line, or write default_fallbacks: [] for none"
    )
    assert "write null for that" in told["fallbacks"].hint


def test_null_where_a_value_may_be_null() -> None:
    watched = {"llm_stack": ["one"], "llm_monitoring": ["one"]}
    off = over("{monitoring: {probe_interval_s: null}}")
    text = change("llm_versions:\n", "llm_monitoring: true\nllm_versions:\n")
    result = compiled(text, groups=watched, llm_overrides=off)
    assert result.errors == []
    assert result.catalogue is not None
    assert result.catalogue.monitoring is not None
    assert result.catalogue.monitoring.probe_interval_s is None
    # What is null by default may be written as such.
    unset = over("{providers: {local: {timeout: null, models: {small: {rpm: null}}}}}")
    assert compiled(llm_overrides=unset).errors == []


def test_a_name_with_nothing_below_it() -> None:
    text = refused(
        compiled(llm_overrides=over("{providers: {local: {models: {qwen: null}}}}")),
        "unknown-override",
        1,
    )
    assert 'to add a model that needs no keys, write "qwen": {}' in text


def test_a_model_twice_in_the_list_of_an_override() -> None:
    override = over(
        "{providers: {local: {models: [{name: small, rpm: 1}, {name: small, rpm: 2}]}}}"
    )
    assert 'model "small" twice' in refused(compiled(llm_overrides=override), "duplicate-model", 1)


def test_models_of_a_new_provider_may_be_a_mapping() -> None:
    override = over(
        "{providers: {new: {type: vllm, base_url: 'http://192.0.2.9:8000', models: {fresh: {}}}}}"
    )
    result = compiled(llm_overrides=override)
    assert result.errors == []
    assert "fresh" in result.public_names


def test_keys_of_a_model_that_are_not_indented() -> None:
    override = over(
        "{providers: {local: {models: {small: {}, vram_mib: 4000, source: {path: /x}}}}}"
    )
    result = compiled(llm_overrides=override)
    assert places(result) == [("unknown-key", 1), ("unknown-key", 1)]
    assert "indent it below the model" in result.errors[0].render()
