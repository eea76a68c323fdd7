"""Overrides: merged key by key, models by name, null removes, origins of what was really written last."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import change, compiled, document, load, places, probe, refused

from modelyard.overrides import apply_overrides
from modelyard.sourcemap import Origin, SourceMap


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
        llm_overrides_a=over("gateway: {cooldown_s: 1, port: 5001, workers: 2}"),
    )
    assert document(result)["router_settings"]["cooldown_time"] == 3
    assert result.plans["one"]["haproxy"]["port"] == 5002
    assert result.plans["one"]["litellm"]["workers"] == 2


def test_null_removes() -> None:
    override = over(
        "{providers: {cloud: null, local: {models: {'large:7b': null}}},"
        " routing: {fallbacks: {'large:7b': null, small: {terminal: true}, big-cloud: null}}}"
    )
    assert compiled(llm_overrides=override).public_names == ["small"]


def test_one_of_several_shapes_is_replaced_whole() -> None:
    override = over(
        "{routing: {fallbacks: {'large:7b': {terminal: true}}},"
        " providers: {local: {models: {small: {source: {url: 'https://e.org/m', sha256: " + "b" * 64 + "}}}}}}"
    )
    result = compiled(llm_overrides=override)
    assert document(result)["router_settings"]["fallbacks"] == [{"small": ["big-cloud"]}]
    assert result.plans["one"]["llama_cpp"]["instances"][0]["source"]["url"] == "https://e.org/m"


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("providers: {locl: null}", "unknown-override", 'did you mean "local"?'),
        ("providers: {local: {models: {smal: null}}}", "unknown-override", 'did you mean "small"?'),
        ("provider: {local: {port: 1}}", "unknown-key", 'did you mean "providers"?'),
        ("llm_gateway: {port: 1}", "unknown-key", 'did you mean "gateway"?'),
        ("providers: {locl: {port: 9000}}", "missing-key", 'did you mean "local"?'),
        ("routing: {fallbacks: {small: {chain: [big-clod]}}}", "unknown-model", 'did you mean "big-cloud"?'),
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
        "providers:\n  a:\n    port: 1\n    models:\n      - name: x\n        rpm: 1\n      - name: y\n        rpm: 2\n"
    )
    changed = load("providers:\n  a:\n    models:\n      x: null\n      y:\n        tpm: 3\n    port: 2\n", "two.yml")
    merged, problems = apply_overrides(base, {"llm_overrides": changed}, probe)
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
    result = compiled(change("port: 8081", "port: 8081\n        rpm: 0"), llm_overrides=over("gateway: {port: 0}"))
    assert places(result) == [("invalid-value", 12), ("invalid-value", 1)]
