"""Only the same model elsewhere answers for an embedding model."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from catalogues import compiled

from modelyard.catalogue.models import Model
from modelyard.compiler.vectors import same_vectors

SHA = "ab" * 32


def catalogue(first: dict[str, Any], second: dict[str, Any], **routing: Any) -> str:
    """Two embedding models at two providers, and a chat."""
    here = {"name": "emb", "mode": "embedding", "source": {"path": "/m/emb.gguf"}, **first}
    there = {"name": "other", "mode": "embedding", **second}
    fallbacks = {"emb": {"chain": ["other"]}, "other": {"terminal": True}}
    return yaml.safe_dump(
        {
            "llm_providers": {
                "local": {
                    "type": "llama_cpp",
                    "group": "llm_local",
                    "port": 8080,
                    "models": [here],
                },
                "cloud": {
                    "type": "openai_compatible",
                    "base_url": "http://192.0.2.1/v1",
                    "models": [there, {"name": "chat"}],
                },
            },
            "llm_routing": {
                "fallbacks": {"chat": {"terminal": True}, **fallbacks},
                **routing,
            },
            "llm_versions": {
                "litellm": {"version": "1.106.2"},
                "llama_cpp": {
                    "version": "1.0.0",
                    "source": {"url": "https://example.org/l.tar.gz", "sha256": SHA},
                },
            },
        }
    )


def codes(result: Any) -> list[str]:
    """The codes of all errors."""
    return [diagnostic.code for diagnostic in result.errors]


def model(**keys: Any) -> Model:
    return Model.model_validate({"mode": "embedding", **keys})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "bge-m3"}, {"name": "elsewhere", "served_name": "BAAI/bge-m3"}),
        ({"name": "bge-m3:latest"}, {"name": "elsewhere", "served_name": "bge-m3"}),
        ({"name": "a", "served_name": "e5"}, {"name": "b", "served_name": "e5"}),
        (
            {"name": "a", "source": {"path": "/srv/x/e5.gguf"}},
            {"name": "b", "source": {"path": "/models/e5.gguf"}},
        ),
        (
            {"name": "a", "source": {"path": "/srv/x/e5.gguf", "sha256": SHA}},
            {"name": "b", "source": {"url": "https://h/y.gguf", "sha256": SHA}},
        ),
        (
            {"name": "a", "source": {"repo": "o/E5", "revision": "a" * 40, "file": "q4.gguf"}},
            {"name": "b", "source": {"repo": "o/e5", "revision": "b" * 40, "file": "q8.gguf"}},
        ),
        (
            {"name": "a", "source": {"path": "/m/e5.gguf"}},
            {"name": "b", "source": {"repo": "o/e", "revision": "a" * 40, "file": "x/e5.gguf"}},
        ),
    ],
)
def test_one_model_at_two_places(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert same_vectors(model(**one), model(**other))
    assert same_vectors(model(**other), model(**one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "bge-m3"}, {"name": "bge-m3-small"}),
        ({"name": "nomic:v1"}, {"name": "nomic:v1.5"}),
        ({"name": "a", "served_name": "x/e5"}, {"name": "b", "served_name": "e5/x"}),
        # A name says nothing of a file, nor the other way round.
        ({"name": "e5.gguf"}, {"name": "b", "source": {"path": "/m/e5.gguf"}}),
        (
            {"name": "a", "source": {"path": "/m/a.gguf"}},
            {"name": "b", "source": {"path": "/m/b.gguf"}},
        ),
    ],
)
def test_two_models(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert not same_vectors(model(**one), model(**other))


def test_a_chain_of_another_model_is_refused() -> None:
    found = compiled(catalogue({}, {}))
    assert codes(found) == ["chain-vectors"]
    said = found.errors[0].render()
    assert 'the chain of "emb" names "other", another embedding model' in said
    assert "routing.fallbacks.emb.chain[0]" in said
    assert "same source or served_name" in said
    assert compiled(catalogue({"served_name": "e5"}, {"served_name": "e5"})).errors == []


@pytest.mark.parametrize("section", ["context_window_fallbacks", "content_policy_fallbacks"])
def test_in_every_kind_of_chain(section: str) -> None:
    ends = {"emb": {"terminal": True}, "other": {"terminal": True}, "chat": {"terminal": True}}
    routing = {"fallbacks": ends, section: {"emb": {"chain": ["other"]}}}
    assert codes(compiled(catalogue({}, {}, **routing))) == ["chain-vectors"]
    assert compiled(catalogue({}, {"served_name": "emb"}, **routing)).errors == []


def test_through_an_alias_and_a_capability() -> None:
    ends = {"other": {"terminal": True}, "chat": {"terminal": True}}
    for extra in (
        {"aliases": {"vectors": "other"}},
        {"capabilities": {"vectors": {"models": ["other"]}}},
    ):
        routing = {"fallbacks": {**ends, "emb": {"chain": ["vectors"]}}, **extra}
        assert codes(compiled(catalogue({}, {}, **routing))) == ["chain-vectors"]
        assert compiled(catalogue({}, {"served_name": "emb"}, **routing)).errors == []


def test_a_capability_is_one_model() -> None:
    ends = {name: {"terminal": True} for name in ("emb", "other", "chat")}
    routing = {"fallbacks": ends, "capabilities": {"vectors": {"models": ["emb", "other"]}}}
    assert codes(compiled(catalogue({}, {}, **routing))) == ["chain-vectors"]
    assert compiled(catalogue({}, {"served_name": "emb"}, **routing)).errors == []


def test_a_name_of_two_providers_is_one_model() -> None:
    shared = {"name": "emb", "weight": 1}
    ends = {"emb": {"terminal": True}, "chat": {"terminal": True}}
    for served, wanted in (("e5", ["chain-vectors"]), ("emb", [])):
        text = catalogue({"weight": 1}, {**shared, "served_name": served}, fallbacks=ends)
        assert codes(compiled(text)) == wanted


def test_a_default_chain_is_for_chats_and_for_the_same_model() -> None:
    routing = {"fallbacks": {"chat": {"terminal": True}}, "default_fallbacks": ["chat", "other"]}
    for served, chain in ((None, []), ("emb", ["other"])):
        second = {"served_name": served} if served else {}
        result = compiled(catalogue({}, second, **routing))
        assert result.errors == []
        document = result.plans["one"]["litellm"]["document"]
        chains = {k: v for one in document["router_settings"]["fallbacks"] for k, v in one.items()}
        assert chains.get("emb", []) == chain


def test_chats_may_answer_for_each_other() -> None:
    both = {"mode": "chat"}
    assert codes(compiled(catalogue(both, both))) == []
