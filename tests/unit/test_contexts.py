"""`context_length` is what one request may have, whatever an engine shares among several."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import change, compiled, part, refused

from modelyard.catalogue.models import Model
from modelyard.engines import by_role
from modelyard.engines.base import Process

GGUF = "source: {path: /models/small.gguf}"
LINE = 8
"""Of the source; the keys follow it, `options` last."""


def catalogue(**keys: str) -> str:
    """The tests' catalogue, in which the model `small` has these keys, and no chain."""
    text = change(GGUF, "\n        ".join([GGUF, *(f"{k}: {v}" for k, v in keys.items())]))
    text = change("small: {chain: [big-cloud]}", "small: {terminal: true}", text)
    return change("[small, big-cloud]", "[big-cloud]", text)


def words(**keys: str) -> list[str]:
    """The command line of the model `small` with these keys, without placeholders."""
    result = compiled(catalogue(**keys))
    assert result.errors == [], [d.render() for d in result.diagnostics]
    (only,) = (
        one
        for one in part(result.plans["one"], "llama_cpp")["instances"]
        if one["model"] == "small"
    )
    argv: list[str] = only["argv"]
    return argv


def value(argv: list[str], flag: str) -> str | None:
    return argv[argv.index(flag) + 1] if flag in argv else None


@pytest.mark.parametrize(
    ("keys", "size", "slots"),
    [
        ({}, None, "1"),
        ({"context_length": "4096"}, "16384", "4"),
        ({"context_length": "2048", "options": "{parallel: 2}"}, "4096", "2"),
        ({"context_length": "2048", "options": "{parallel: '2'}"}, "4096", "2"),
        ({"context_length": "2048", "options": "{parallel: 1}"}, "2048", "1"),
        ({"options": "{parallel: 1}"}, None, "1"),
    ],
)
def test_each_request_at_once_has_the_whole_context(
    keys: dict[str, str], size: str | None, slots: str
) -> None:
    argv = words(**keys)
    assert value(argv, "--ctx-size") == size
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "--parallel"] == [slots]
    assert "--no-kv-unified" in argv
    assert not {"--embeddings", "--batch-size", "--ubatch-size"} & set(argv)


@pytest.mark.parametrize(
    ("keys", "size"),
    [
        ({"context_length": "2048"}, "2048"),
        ({}, "8192"),
        ({"context_length": "2048", "options": "{embeddings: true, pooling: mean}"}, "2048"),
        ({"options": "{embedding: true, batch-size: 8192}"}, "8192"),
    ],
)
def test_an_embedding_model_reads_a_whole_input_at_once(keys: dict[str, str], size: str) -> None:
    argv = words(mode="embedding", **keys)
    assert sum(word in ("--embedding", "--embeddings") for word in argv) == 1
    assert [value(argv, flag) for flag in ("--batch-size", "--ubatch-size")] == [size, size]


def test_a_larger_batch_of_the_users_stays() -> None:
    argv = words(mode="embedding", context_length="512", options="{ubatch-size: 4096}")
    assert [argv[at + 1] for at, word in enumerate(argv) if word == "--ubatch-size"] == ["4096"]
    assert value(argv, "--batch-size") == "512"


WRONG: list[tuple[dict[str, str], str, str]] = [
    ({"options": "{parallel: 4}"}, "missing-key", "add context_length"),
    *(
        (
            {"context_length": "2048", "options": f"{{parallel: {number}}}"},
            "invalid-value",
            "above 0",
        )
        for number in ("0", "-1", "auto", "true", "false", "1.5", "2x")
    ),
    *(
        ({"context_length": "2048", "options": f"{{{option}: 1}}"}, "invalid-value", "by the unit")
        for option in ("np", "ctx-size", "kv-unified", "no-kv-unified", "kv-unified-per-slot")
    ),
    ({"options": "{embeddings: true}"}, "invalid-value", "write mode: embedding"),
    ({"options": "{embedding: true}"}, "invalid-value", "write mode: embedding"),
    ({"options": "{reranking: true}"}, "invalid-value", "no path for that"),
    ({"mode": "embedding", "options": "{rerank: true}"}, "invalid-value", "no path for that"),
    ({"mode": "embedding", "options": "{embeddings: false}"}, "invalid-value", "remove it"),
    ({"mode": "embedding", "options": "{pooling: none}"}, "invalid-value", "mean, cls or last"),
    ({"mode": "embedding", "options": "{pooling: rank}"}, "invalid-value", "mean, cls or last"),
    *(
        (
            {"mode": "embedding", "context_length": "2048", "options": f"{{{option}: {size}}}"},
            "invalid-value",
            "follows from context_length",
        )
        for option in ("batch-size", "ubatch-size")
        for size in ("512", "-1", "big")
    ),
]


@pytest.mark.parametrize(("keys", "code", "says"), WRONG)
def test_options_that_contradict_it(keys: dict[str, str], code: str, says: str) -> None:
    assert says in refused(compiled(catalogue(**keys)), code, LINE + len(keys))


@pytest.mark.parametrize(
    "options",
    ["{embeddings: false}", "{embedding: false, rerank: false}", "{pooling: none}"],
)
def test_options_that_change_nothing_of_a_chat_are_left(options: str) -> None:
    words(options=options)


def demand(**keys: str) -> dict[str, Any]:
    result = compiled(catalogue(**keys))
    assert result.errors == []
    found: dict[str, Any] = result.plans["one"]["demands"][0]
    return found


def test_memory_is_counted_for_all_requests_at_once() -> None:
    found = [
        demand(),
        demand(context_length="4096"),
        demand(context_length="4096", options="{parallel: 2}"),
    ]
    assert [(one["context_length"], one["slots"]) for one in found] == [
        (None, 1),
        (16384, 4),
        (8192, 2),
    ]
    assert [one["options"] for one in found] == [{}, {}, {"parallel": 2}]
    embeds = demand(mode="embedding", context_length="2048")
    assert embeds["options"] == {"batch-size": 2048, "ubatch-size": 2048}


def rules(text: str) -> dict[str, Any]:
    result = compiled(text)
    assert result.errors == [], [d.render() for d in result.diagnostics]
    found: dict[str, Any] = result.plans["one"]["litellm"]["rules"]
    return found


def test_paths_that_nobody_answers_are_known() -> None:
    chats = ["chat/completions", "completions", "responses"]
    assert rules(catalogue())["paths"] == {"small": chats}, "the others lead elsewhere"
    assert rules(catalogue(mode="embedding"))["paths"] == {"small": ["embeddings"]}


def test_an_engine_that_cuts_prompts_is_known_with_its_window() -> None:
    """Only where the catalogue says it; for what runs elsewhere, too."""
    text = change("type: llama_cpp", "type: ollama", catalogue(context_length="512"))
    text = change("        port: 8081\n", "", text)
    text = change("small: {terminal: true}", "small: {terminal: true}", text)
    assert rules(catalogue(context_length="512"))["windows"] == {}
    elsewhere = change("group: llm_local\n    port: 8080", "base_url: http://h", text)
    assert GGUF in elsewhere
    elsewhere = elsewhere.replace(f"        {GGUF}\n", "").replace(
        "        source: {path: /models/large.gguf}\n", ""
    )
    assert list(rules(elsewhere)["windows"].values()) == [512]


def test_the_server_in_python_is_started_for_embeddings() -> None:
    def argv(**keys: Any) -> list[str]:
        model = Model.model_validate({"name": "a", "source": {"path": "/a.gguf"}, **keys})
        return by_role("llama_cpp_python").argv(Process("a@a", "a", (model,), "127.0.0.1", 80))

    embeds = argv(mode="embedding", context_length=2048)
    assert [value(embeds, flag) for flag in ("--embedding", "--n_batch", "--n_ubatch")] == [
        "true",
        "2048",
        "2048",
    ]
    assert not {"--embedding", "--n_batch"} & set(argv(context_length=2048))
    given = argv(mode="embedding", options={"embedding": True, "n-batch": 99})
    assert given.count("--embedding") == 1
    assert value(given, "--n_batch") == "99"
