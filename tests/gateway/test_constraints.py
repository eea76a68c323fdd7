"""A constraint that would end an engine is not passed on to it; one that it understands is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from front_end import FrontEnd
from harness import Gateway, compiled, plan
from stubs import Stubs

CATALOGUE = """\
llm_providers:
  python:
    type: llama_cpp
    flavour: python
    group: py
    port: 8000
    models:
      - {name: py, source: {path: /a.gguf}}
      - {name: py-2, port: 8001, source: {path: /b.gguf}}
  pulls: {type: ollama, base_url: "http://192.0.2.2:8000", models: [{name: pulled}]}
  native: {type: llama_cpp, base_url: "http://192.0.2.3:8000", models: [{name: all}]}
llm_routing:
  fallbacks:
    {py: {terminal: true}, py-2: {chain: [all]}, pulled: {terminal: true}, all: {terminal: true}}
"""
TEXT = {"type": "string"}
UNDERSTOOD: Mapping[str, Any] = {
    # As pydantic and zod write them.
    "plain": {
        "type": "object",
        "title": "Answer",
        "properties": {
            "name": {"type": "string", "maxLength": 200},
            "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            "kind": {"enum": ["a", "b-c", 3]},
            "list": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "maxItems": 10},
        },
        "required": ["name"],
        "additionalProperties": False,
        "$defs": {
            "Item": {
                "type": "object",
                "properties": {"inner": {"type": "array", "items": {"$ref": "#/$defs/Item"}}},
            }
        },
    },
    "any": {},
    "bounds": {"type": "integer", "minimum": -(2**53 - 1), "maximum": 2**53 - 1},
    "values": {"type": ["string", "null"], "format": "date-time", "description": 'a "quote"'},
}
OF_OLLAMA: Mapping[str, Any] = {
    "pattern": {"type": "string", "pattern": r"^[a-z]{2,10}\.(x|y)+$"},
    "quotes": {"enum": ['a "b"', None, 1.5]},
}
FATAL: Mapping[str, Any] = {
    # Each ended llama-cpp-python 0.3.36, Ollama 0.17.4 or its runner.
    "maxItems": {"type": "array", "items": TEXT, "maxItems": 100_000_000},
    "minItems": {"type": "array", "items": TEXT, "minItems": 100_000},
    "maxLength": {"type": "string", "maxLength": 3000},
    "negative": {"type": "string", "minLength": -5, "maxLength": -1},
    "minimum": {"type": "integer", "minimum": 10**18},
    "no choice": {"anyOf": []},
    "no value": {"enum": []},
    "no type": {"type": []},
    "itself": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "itself in a choice": {
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}},
        "$ref": "#/$defs/a",
    },
    "look-ahead": {"type": "string", "pattern": "^(?=a)b$"},
    "reference": {"type": "string", "pattern": r"^(a)\1$"},
    "class": {"type": "string", "pattern": r"^\w+$"},
    "repetition": {"type": "string", "pattern": "^a{1,100000000}$"},
    "optional": {"type": "object", "properties": {f"p{n}": TEXT for n in range(1000)}},
    "deep inside": {"type": "object", "properties": {"a": {"items": {"anyOf": []}}}},
}
FATAL_IN_PYTHON: Mapping[str, Any] = {
    "name": {"type": "object", "properties": {'a"b\n': TEXT}},
    "value": {"enum": ['a"b\n\\x', None]},
    "const": {"const": {"a": '"'}},
}


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for number in (1, 2, 3):
        stubs.listen(f"192.0.2.{number}", 8000)
    stubs.listen("192.0.2.1", 8001)
    found = compiled(CATALOGUE, {"py": ["one"]}, {"one": "192.0.2.1"})
    with (
        FrontEnd(found, tmp_path_factory.mktemp("front")),
        Gateway(environment, plan(found), tmp_path_factory.mktemp("c")) as running,
    ):
        yield running


def asked(
    gateway: Gateway, stubs: Stubs, model: str, **more: Any
) -> tuple[int, list[str], Mapping[str, Any] | None]:
    """The status, who was asked, and the error."""
    with stubs.recording() as calls:
        answer = gateway.chat(model, **more)
    return answer.status, [call.model for call in calls], answer.error


def formatted(schema: Any) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def of_python(schema: Any) -> list[dict[str, Any]]:
    """The fields in which llama-cpp-python takes a schema."""
    function = {"name": "f", "parameters": schema}
    return [
        {"response_format": {"type": "json_object", "schema": schema}},
        {"tools": [{"type": "function", "function": function}], "tool_choice": "required"},
        {"functions": [function], "function_call": {"name": "f"}},
    ]


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_is_understood_is_passed_on(gateway: Gateway, stubs: Stubs, name: str) -> None:
    schema = UNDERSTOOD[name]
    assert asked(gateway, stubs, "pulled", **formatted(schema))[:2] == (200, ["pulled"])
    for fields in of_python(schema):
        assert asked(gateway, stubs, "py", **fields)[:2] == (200, ["py"])


@pytest.mark.parametrize("name", OF_OLLAMA)
def test_more_is_understood_where_text_is_quoted(gateway: Gateway, stubs: Stubs, name: str) -> None:
    assert asked(gateway, stubs, "pulled", **formatted(OF_OLLAMA[name]))[0] == 200
    assert asked(gateway, stubs, "py", **of_python(OF_OLLAMA[name])[0])[0] == 400


@pytest.mark.parametrize("name", FATAL)
def test_what_would_end_an_engine_is_not(gateway: Gateway, stubs: Stubs, name: str) -> None:
    for stream in (False, True):
        status, calls, error = asked(
            gateway, stubs, "pulled", stream=stream, **formatted(FATAL[name])
        )
        assert (status, calls) == (400, [])
        assert error
        assert (error["type"], error["param"]) == ("invalid_request_error", "response_format")
        assert "The schema in 'response_format' is not taken" in error["message"]
    for fields in of_python(FATAL[name]):
        status, calls, error = asked(gateway, stubs, "py", **fields)
        assert (status, calls) == (400, [])
        assert error
        assert error["param"] in fields


@pytest.mark.parametrize("name", FATAL_IN_PYTHON)
def test_text_that_is_not_quoted(gateway: Gateway, stubs: Stubs, name: str) -> None:
    for fields in of_python(FATAL_IN_PYTHON[name]):
        assert asked(gateway, stubs, "py", **fields)[:2] == (400, [])


def test_a_format_of_responses(gateway: Gateway, stubs: Stubs) -> None:
    named = {"type": "json_schema", "name": "answer", "schema": FATAL["look-ahead"]}
    body = {"model": "pulled", "input": "a", "text": {"format": named}}
    with stubs.recording() as calls:
        answer = gateway.request("POST", "/v1/responses", body)
    assert (answer.status, calls) == (400, [])


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_is_for_who_can_read_it(
    gateway: Gateway, stubs: Stubs, path: str, *, stream: bool
) -> None:
    said = {"messages": [{"role": "user", "content": "a"}]} if "chat" in path else {"prompt": "a"}
    for model, wanted in (("py", []), ("py-2", ["all"]), ("all", ["all"]), ("pulled", ["pulled"])):
        body = {"model": model, "grammar": "no grammar", "stream": stream, **said}
        with stubs.recording() as calls:
            answer = gateway.request("POST", f"/v1/{path}", body)
        assert [call.model for call in calls] == wanted
        assert answer.status == (200 if wanted else 400)
        if not wanted:
            assert answer.body["error"]["param"] == "grammar"


def test_it_cools_nothing_down(gateway: Gateway, stubs: Stubs) -> None:
    for _ in range(3):
        assert asked(gateway, stubs, "py-2", grammar="x")[:2] == (200, ["all"])
    assert asked(gateway, stubs, "py-2")[:2] == (200, ["py-2"])


def test_references_that_multiply_take_no_time(gateway: Gateway, stubs: Stubs) -> None:
    """Sixty definitions, each of which is twice the next one."""
    defs: dict[str, Any] = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)
    }
    schema = {"$defs": {**defs, "d60": TEXT}, "$ref": "#/$defs/d0"}
    with stubs.recording() as calls:
        answer = gateway.chat("pulled", **formatted(schema))
    assert (answer.status, len(calls)) == (200, 1)
    assert answer.seconds < 5
