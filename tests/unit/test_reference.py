"""The editors' schema and docs/catalogue.md: current, complete, and of one opinion with the
compiler."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from catalogues import CATALOGUE, ROOT, change, compiled, load
from hypothesis import assume, given
from jsonschema import Draft7Validator
from jsonschema import ValidationError as JsonSchemaError
from pydantic import TypeAdapter, ValidationError
from test_document import SHIPPED_GROUPS
from test_properties import SECRETS, SHIPPED, mutated

from modelyard.catalogue.editors import definitions, schema_text, types, variables_schema
from modelyard.catalogue.overrides import SECTIONS
from modelyard.catalogue.reference import anchor, catalogue_text
from modelyard.catalogue.schema import Catalogue
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import CATALOGUE_VARIABLES, OTHER_VARIABLES, Host, Inventory
from modelyard.kinds import Strict
from modelyard.plan.reference import plan_text

SCHEMA = variables_schema()
VALIDATOR = Draft7Validator(SCHEMA)
SCHEMA_FILE = ROOT / "docs/catalogue.schema.json"

VARIABLE_FILES = sorted(
    path
    for top in ("group_vars", "inventories", "molecule")
    for path in (ROOT / top).rglob("*.yml")
    if any(part in ("group_vars", "host_vars") for part in path.relative_to(ROOT).parts)
)

EXPORTERS = {"gateway", "node", "host", "blackbox", "redis"}
COUNTS = EXPORTERS | set(
    "connections_per_address port pool_port blue green weight workers num_parallel max_loaded_models"
    " max_parallel batch max_failures".split()
)
"""Numbers without a unit: ports, shares, processes and what runs at once."""


def underlined(variables: Any) -> list[tuple[Any, ...]]:
    """Where an editor underlines something: of several alternatives, in the one that comes
    nearest."""

    def place(error: JsonSchemaError) -> tuple[Any, ...]:
        return max(
            (place(inner) for inner in error.context or ()),
            key=len,
            default=tuple(error.absolute_path),
        )

    return [place(error) for error in VALIDATOR.iter_errors(variables)]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside the schema."""
    if isinstance(node, dict):
        yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from nodes(child)


# -- current and complete --------------------------------------------------------------------------


def test_committed_files_are_current() -> None:
    message = "run `make docs`"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), message
    assert (ROOT / "docs/plan.md").read_text(encoding="utf-8") == plan_text(), message
    assert (ROOT / "docs/catalogue.md").read_text(encoding="utf-8") == catalogue_text(), message


def test_every_variable_is_known_and_no_other() -> None:
    assert set(SCHEMA["properties"]) == {*CATALOGUE_VARIABLES, *OTHER_VARIABLES}
    assert underlined({"llm_overrides_mine": None, "their_variable": 1, "llm": 1}) == []
    for unknown in ("llm_override", "llm_gateways", "llm_", "llm_overridesx"):
        assert underlined({unknown: {}}) != [], unknown


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA)
    for node in nodes(SCHEMA):
        if "$ref" in node:
            place: Any = SCHEMA
            for step in node["$ref"].removeprefix("#/").split("/"):
                place = place[step]
            assert place, node


def test_patterns_are_understood_by_javascript() -> None:
    patterns = {node["pattern"] for node in nodes(SCHEMA) if isinstance(node.get("pattern"), str)}
    patterns |= set(SCHEMA["patternProperties"])
    assert len(patterns) > 10
    for pattern in patterns:
        re.compile(pattern)
        # With JavaScript's u flag only these may be escaped; Python has groups and anchors of its
        # own.
        assert set(re.findall(r"\\(.)", pattern)) <= set("sSdDwWxubB^$\\.*+?()[]{}|/"), pattern
        assert not re.search(r"\(\?(?!:|!|=)", pattern), pattern


@pytest.mark.parametrize(
    "path", VARIABLE_FILES, ids=[str(path.relative_to(ROOT)) for path in VARIABLE_FILES]
)
def test_files_of_variables(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    modeline = re.search(
        r"^# yaml-language-server: \$schema=(\S+)$", text.split("\nllm_")[0], re.MULTILINE
    )
    assert modeline, "no modeline"
    assert (path.parent / modeline[1]).resolve() == SCHEMA_FILE
    assert underlined(yaml.safe_load(text)) == []


def test_there_are_files_of_variables() -> None:
    assert len(VARIABLE_FILES) >= 6


def models(kind: type[Strict] = Strict) -> Iterator[type[Strict]]:
    """The models of the catalogue."""
    for model in kind.__subclasses__():
        if not model.__module__.startswith("modelyard.plan"):
            yield model
            yield from models(model)


def fields() -> list[Any]:
    return [
        pytest.param(name, field, id=f"{model.__name__}.{name}")
        for model in models()
        for name, field in model.model_fields.items()
    ]


@pytest.mark.parametrize(("name", "field"), fields())
def test_every_key_is_explained_with_a_valid_example(name: str, field: Any) -> None:
    assert field.description
    assert field.examples
    kind = TypeAdapter(Annotated[field.annotation, name, *field.metadata])
    for example in field.examples:
        kind.validate_python(example, strict=True)


def test_every_number_has_a_unit() -> None:
    bare = {
        key
        for definition in definitions().values()
        for key, node in definition["properties"].items()
        if {"integer", "number"} & set(types(node)) and "unit" not in node
    }
    assert bare == COUNTS


@pytest.mark.parametrize(("name", "field"), fields())
def test_no_number_is_without_an_upper_limit(name: str, field: Any) -> None:
    kind = TypeAdapter(Annotated[field.annotation, name, *field.metadata])
    for value in (10**13, 1e13):
        with pytest.raises(ValidationError):
            kind.validate_python(value, strict=True)


def test_the_page_has_every_key_and_its_links_lead_somewhere() -> None:
    text = catalogue_text()
    for model in models():
        for name in (
            model.model_fields
            if model is not Catalogue
            else [f"llm_{section}" for section in SECTIONS]
        ):
            assert re.search(rf"\*\*`(llm_)?{name}`\*\*|^## {name}$", text, re.MULTILINE), name
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, heading = target.partition("#")
        page = (ROOT / "docs" / file).read_text(encoding="utf-8") if file else text
        headings = {anchor(line) for line in re.findall(r"^#+ (.*)$", page, re.MULTILINE)}
        assert not heading or heading in headings, target


# -- of one opinion with the compiler --------------------------------------------------------------


def test_what_the_compiler_takes() -> None:
    assert compiled().errors == []
    assert underlined(yaml.safe_load(CATALOGUE)) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("port: 8080", "prot: 8080", ("llm_providers", "local")),
        ("port: 8080", 'port: "8080"', ("llm_providers", "local", "port")),
        ("port: 8080", "port: 70000", ("llm_providers", "local", "port")),
        ("port: 8080", "port: true", ("llm_providers", "local", "port")),
        ("type: openai", "type: opnai", ("llm_providers", "cloud", "type")),
        ("type: openai", "type: [openai]", ("llm_providers", "cloud", "type")),
        ("    type: openai\n", "", ("llm_providers", "cloud")),
        ("https://api", "api", ("llm_providers", "cloud", "base_url")),
        ("https://api", "https://me:key@api", ("llm_providers", "cloud", "base_url")),
        (
            "api_key_env: CLOUD_KEY",
            "api_key_env: sk-abc",
            ("llm_providers", "cloud", "api_key_env"),
        ),
        ("  cloud:", "  Cloud:", ("llm_providers",)),
        ("- name: big-cloud", "- name: big cloud", ("llm_providers", "cloud", "models", 0, "name")),
        ("- name: big-cloud", "- big-cloud", ("llm_providers", "cloud", "models", 0)),
        ("- name: big-cloud", "- mode: chat", ("llm_providers", "cloud", "models", 0)),
        (
            "- name: big-cloud",
            "- {name: big-cloud, rpm: 0}",
            ("llm_providers", "cloud", "models", 0, "rpm"),
        ),
        (
            "- name: big-cloud",
            "- {name: big-cloud, timeout: 1d}",
            ("llm_providers", "cloud", "models", 0, "timeout"),
        ),
        (
            "- name: big-cloud",
            "- {name: big-cloud, timeout: 0}",
            ("llm_providers", "cloud", "models", 0, "timeout"),
        ),
        (
            "- name: big-cloud",
            "- {name: big-cloud, timeout: 90000}",
            ("llm_providers", "cloud", "models", 0, "timeout"),
        ),
        (
            "- name: big-cloud",
            "- {name: big-cloud, tags: [default]}",
            ("llm_providers", "cloud", "models", 0, "tags", 0),
        ),
        (
            "- name: big-cloud",
            "- {name: big-cloud, hosts: [a, a]}",
            ("llm_providers", "cloud", "models", 0, "hosts"),
        ),
        (
            "- name: big-cloud",
            "- {name: big-cloud, price: {input: -1, output: 1}}",
            ("llm_providers", "cloud", "models", 0, "price", "input"),
        ),
        (
            "name: small",
            "name: small\n        gpus: [-1]",
            ("llm_providers", "local", "models", 0, "gpus", 0),
        ),
        (
            "name: small",
            "name: small\n        gpus: []",
            ("llm_providers", "local", "models", 0, "gpus"),
        ),
        (
            "name: small",
            "name: small\n        options: {Threads: 8}",
            ("llm_providers", "local", "models", 0, "options"),
        ),
        (
            "/models/small.gguf",
            "small.gguf",
            ("llm_providers", "local", "models", 0, "source", "path"),
        ),
        (
            "{path: /models/small.gguf}",
            "/models/small.gguf",
            ("llm_providers", "local", "models", 0, "source"),
        ),
        (
            "small: {chain: [big-cloud]}",
            "small: [big-cloud]",
            ("llm_routing", "fallbacks", "small"),
        ),
        (
            "small: {chain: [big-cloud]}",
            "small: {chain: big-cloud}",
            ("llm_routing", "fallbacks", "small", "chain"),
        ),
        (
            "terminal: true",
            "terminal: false",
            ("llm_routing", "fallbacks", "big-cloud", "terminal"),
        ),
        ("llm_gateway:\n", "llm_gateway:\n  listen: [localhost]\n", ("llm_gateway", "listen", 0)),
        ("llm_gateway:\n", "llm_gateway:\n  listen: [1.2.3.400]\n", ("llm_gateway", "listen", 0)),
        ("llm_gateway:\n", "llm_gateway:\n  cache: on\n", ("llm_gateway", "cache")),
        (
            "llm_gateway:\n",
            "llm_gateway:\n  redis: {persistence: all}\n",
            ("llm_gateway", "redis", "persistence"),
        ),
        ("port: 4000", "port: null", ("llm_gateway", "port")),
        ('"1.106.2"', "1.106", ("llm_versions", "litellm", "version")),
        ("sha256: aaaa", "sha256: AAAA", ("llm_versions", "llama_cpp", "source", "sha256")),
        (
            "llm_versions",
            "llm_gpus: [{memory_mib: 24G}]\nllm_versions",
            ("llm_gpus", 0, "memory_mib"),
        ),
        ("llm_versions", "llm_secrets: [KEY]\nllm_versions", ("llm_secrets",)),
        ("llm_versions", "llm_cache: true\nllm_versions", ()),
    ],
)
def test_one_mistake(old: str, new: str, where: tuple[Any, ...]) -> None:
    text = change(old, new)
    assert compiled(text).errors != []
    assert underlined(yaml.safe_load(text)) == [where]


@pytest.mark.parametrize(
    "override",
    [
        "providers: {cloud: null}",
        (
            "providers: {local: {port: 9000, models: {small: {rpm: 5, rpm: null}, 'large:7b':"
            " {port: 8082}}}}"
        ),
        (
            "providers: {local: {models: [{name: small, mode: embedding}, {name: more, source:"
            " {path: /x}, port: 9}]}}"
        ),
        (
            "routing: {fallbacks: {small: {terminal: true}}, aliases: {chat: small},"
            " context_window_fallbacks: {}}"
        ),
        "gateway: {listen: ['::1'], timeouts: {stream_s: 3}, redis: {maxmemory_mib: 64}}",
        "versions: {litellm: {version: 1.108.1}, llama_cpp: null}",
        "{}",
        "null",
    ],
)
def test_overrides_the_editor_takes(override: str) -> None:
    assert underlined({"llm_overrides": yaml.safe_load(override)}) == []


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("providrs: {}", ()),
        ("providers: {local: {prot: 1}}", ("providers", "local")),
        ("providers: {local: {port: '1'}}", ("providers", "local", "port")),
        (
            "providers: {local: {models: {small: {source: {pth: /x}}}}}",
            ("providers", "local", "models", "small", "source"),
        ),
        ("providers: {local: {models: {small: 1}}}", ("providers", "local", "models", "small")),
        ("providers: {local: {models: [{rpm: 1}]}}", ("providers", "local", "models", 0)),
        ("providers: {local: {status: off}}", ("providers", "local", "status")),
        ("routing: {fallbacks: {small: {chian: []}}}", ("routing", "fallbacks", "small")),
        (
            "routing: {content_policy_fallbacks: {small: []}}",
            ("routing", "content_policy_fallbacks", "small"),
        ),
        ("gateway: {timeouts: {stream: 3}}", ("gateway", "timeouts")),
        (
            "versions: {llama_cpp: {source: {path: /replaced-whole}}}",
            ("versions", "llama_cpp", "source"),
        ),
        ("gateway: {cooldown_s: 0}", ("gateway", "cooldown_s")),
        ("[]", ()),
    ],
)
def test_one_mistake_in_an_override(override: str, where: tuple[Any, ...]) -> None:
    for name in ("llm_overrides", "llm_overrides_mine"):
        assert compiled(**{name: load(override)}).errors != []
        assert underlined({name: yaml.safe_load(override)}) == [(name, *where)]


def test_templates_stand_for_anything() -> None:
    template = "{{ somewhere }}"
    trees = [
        {
            "llm_providers": template,
            "llm_gateway": template,
            "llm_overrides": template,
            "llm_gpus": template,
        },
        {
            "llm_providers": {
                "a": {"type": template, "port": template, "base_url": template, "models": template}
            }
        },
        {
            "llm_gateway": {
                "listen": [template],
                "cache": {"enabled": template},
                "timeouts": {"door_s": template},
            }
        },
        {
            "llm_overrides": {
                "gateway": {"listen": template},
                "providers": {"a": {"port": template, "status": template}},
            }
        },
        {
            "llm_routing": {
                "fallbacks": {"a": {"terminal": template}, "b": template},
                "aliases": {"a": template},
            }
        },
    ]
    for tree in trees:
        assert underlined(tree) == []


def as_json(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree as an editor reads it; 1.0 is a whole number in JSON Schema, and no YAML file of
    ours has NaN."""
    text = json.dumps(tree)
    assume("{{" not in text and "{%" not in text)
    plain: dict[str, Any] = json.loads(
        text, parse_float=lambda _: 0.5, parse_constant=lambda _: 0.5
    )
    return plain


@given(tree=mutated())
def test_the_editor_and_the_compiler_agree(tree: dict[str, Any]) -> None:
    """What is underlined is refused; what is refused without looking at two keys at once is
    underlined."""
    tree = {name: value for name, value in as_json(tree).items() if name in CATALOGUE_VARIABLES}
    sections = {name.removeprefix("llm_"): value for name, value in tree.items()}
    if isinstance(sections.get("monitoring"), bool):  # as the compiler does, before it validates
        sections["monitoring"] = {} if sections["monitoring"] else None
    try:
        Catalogue.model_validate(sections)
    except ValidationError as error:
        by_type = [
            problem
            for problem in error.errors()
            if problem["type"] not in ("value_error", "misfit")
        ]
        assert underlined(tree) or not by_type
    else:
        # For pydantic 1 is as good as true in `terminal: true`.
        assert [place for place in underlined(tree) if place[-1:] != ("terminal",)] == []


def with_overrides(overrides: dict[str, Any]) -> Compiled:
    groups = {**SHIPPED_GROUPS, "llm_stack": ["one"], "llm_gateway": ["one"]}
    host = Host({**SHIPPED, "llm_overrides": overrides}, "one")
    return compile_inventory(Inventory(groups, {"one": host}, SECRETS))


def test_the_shipped_catalogue_is_an_override_of_itself() -> None:
    overrides = {name.removeprefix("llm_"): value for name, value in SHIPPED.items()}
    assert with_overrides(overrides).errors == []
    assert underlined({"llm_overrides": overrides}) == []


@given(tree=mutated())
def test_what_is_underlined_in_an_override_is_refused(tree: dict[str, Any]) -> None:
    overrides = {
        name.removeprefix("llm_"): value
        for name, value in as_json(tree).items()
        if name in CATALOGUE_VARIABLES
    }
    assert not underlined({"llm_overrides": overrides}) or with_overrides(overrides).errors
