"""The importer: what becomes of each key, that nothing is dropped in silence, and that the result
compiles."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from catalogues import ROOT, load, probe
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from yamllint import linter
from yamllint.config import YamlLintConfig

from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Host, Inventory
from modelyard_importer import FILES, Imported, InputError, import_stack

STACKS = ROOT / "tests/data/import"
VERSIONS = (ROOT / "group_vars/all/versions.yml").read_text(encoding="utf-8")


def read(stack: str) -> dict[str, bytes]:
    return {name: (STACKS / stack / name).read_bytes() for name in FILES}


def convert(providers: str, mappings: str = "") -> Imported:
    return import_stack(
        dict(zip(FILES, (providers.encode(), mappings.encode()), strict=True)), "old"
    )


def provider(
    name: str = "local", *, type: str = "ollama", url: str = "http://localhost:1234", rest: str = ""
) -> str:
    """A provider that serves `one` and `two`; `rest` are further lines."""
    lines = [
        f"{name}:",
        f"  type: {type}",
        f"  base_url: {url}",
        "  status: active",
        "  models: [one, two]",
    ]
    return "\n".join(
        [
            "providers:",
            *(f"  {line}" for line in [*lines, *(f"  {line}" for line in rest.splitlines())]),
        ]
    )


def catalogue(imported: Imported) -> dict[str, Any]:
    """What was written, as Ansible would read it."""
    out: dict[str, Any] = {}
    for name, text in imported.files.items():
        if "group_vars" in name:
            out |= yaml.safe_load(text)
    return out


def written(imported: Imported, name: str = "local") -> dict[str, Any]:
    found: dict[str, Any] = catalogue(imported)["llm_providers"][name]
    return found


def routing(imported: Imported) -> dict[str, Any]:
    found: dict[str, Any] = catalogue(imported)["llm_routing"]
    return found


def told(imported: Imported, path: str, outcome: str | None = None) -> str:
    """What the report says of the one value at `path`."""
    lines = [
        line
        for line in imported.report.splitlines()
        if f" {path} → " in line and line.startswith("- ")
    ]
    sections = re.split(r"^## ", imported.report, flags=re.MULTILINE)[1:]
    matching = [
        (s.split("\n", 1)[0], line) for s in sections for line in s.splitlines() if line in lines
    ]
    assert len(matching) == 1, f"{path}: {matching}\n{imported.report}"
    if outcome is not None:
        assert matching[0][0] == outcome
    return matching[0][1].split(" → ", 1)[1]


def compiled(imported: Imported) -> Compiled:
    variables = load(VERSIONS)
    for name, text in imported.files.items():
        if "group_vars" in name:
            variables |= load(text, name)
    groups = {"llm_stack": ["localhost"], "llm_gateway": ["localhost"], "llm_redis": ["localhost"]}
    host = Host(variables, "localhost")
    return compile_inventory(
        Inventory(groups, {"localhost": host}, frozenset(imported.secrets), probe)
    )


def document(imported: Imported) -> dict[str, Any]:
    result = compiled(imported)
    assert result.errors == [], "\n".join(d.render() for d in result.errors)
    assert result.public_names == list(imported.public_names)
    found: dict[str, Any] = result.plans["localhost"]["litellm"]["document"]
    return found


# -- the whole -------------------------------------------------------------------------------------


def test_every_active_model_of_the_old_stack_is_deployed() -> None:
    """Counted from the old file itself, not from what the importer says of it."""
    old = yaml.safe_load(read("workstation")["providers.yaml"])["providers"]
    expected = {
        model if isinstance(model, str) else model["name"]
        for entry in old.values()
        if entry["status"] == "active" and entry["type"] not in ("tool_server", "web_ui")
        for model in entry["models"]
    }
    assert len(expected) == 12
    deployed = {
        entry["model_name"]
        for entry in document(import_stack(read("workstation"), "old"))["model_list"]
    }
    assert deployed == expected | {"nomic-embed-text"}


def test_chains_of_the_example() -> None:
    router = document(import_stack(read("workstation"), "old"))["router_settings"]
    chains = {head: chain for entry in router["fallbacks"] for head, chain in entry.items()}
    assert chains["llama3.1:latest"] == [
        "llama-cpp-default",
        "llama-cpp-native",
        "gpt-oss:20b-cloud",
    ]
    assert chains["qwen-coder-vllm"][0] == "qwen3-coder:480b-cloud", "the disabled vLLM is left out"
    assert "llama-cpp-native" not in chains
    assert router["model_group_alias"] == {"chat": "llama3.1:latest"}
    assert {group["group_name"] for group in router["routing_groups"]} == {"code", "reasoning"}


@pytest.mark.parametrize("stack", ["workstation", "faulty"])
def test_examples_compile_and_pass_the_linter(stack: str) -> None:
    imported = import_stack(read(stack), "old", "../../../../schema.json")
    assert document(imported)["model_list"]
    assert import_stack(read(stack), "old", "../../../../schema.json") == imported, (
        "not deterministic"
    )
    schema = Draft7Validator(
        json.loads((ROOT / "docs/catalogue.schema.json").read_text(encoding="utf-8"))
    )
    assert list(schema.iter_errors(catalogue(imported))) == [], "an editor would underline it"
    config = YamlLintConfig(
        (ROOT / ".yamllint").read_text(encoding="utf-8").replace("ignore-from-file: .gitignore", "")
    )
    for name, text in imported.files.items():
        if name.endswith(".yml"):
            assert list(linter.run(text, config, name)) == [], name
    assert imported.files["group_vars/llm_stack/routing.yml"].startswith(
        "---\n# yaml-language-server: $schema=../../../../schema.json\n"
    )


def test_nothing_secret_is_repeated() -> None:
    for name, text in import_stack(read("faulty"), "old").files.items():
        assert "hunter2" not in text, name
        assert "sk-live" not in text, name


def test_what_is_wrong_in_the_faulty_example_is_told_first() -> None:
    summary = import_stack(read("faulty"), "old").summary
    for words in (
        "providers.forgotten → the provider is left out",
        "it looks like a template",
        'did you mean "shared:7b"?',
    ):
        assert words in summary


# -- nothing is dropped in silence -----------------------------------------------------------------

EXAMPLE = [yaml.safe_load(read("workstation")[name]) for name in FILES]
FAULTY = [yaml.safe_load(read("faulty")[name]) for name in FILES]
WORDS = [
    "one", "default", "llama3.1:latest", "chat", "code", "ollama", "ollama_cloud", "gpt-4o-mini", "vllm-dolphin",
    "active", "disabled", "template", "openai", "vllm", "http://h:1", "http://h:PORT", "${A:-http://h}", "a b",
    "{{ 1 }}", "x*", "embed-x", "\u2028", "null", "1e3", "no", "A: b", "# c", "rpm",
]  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 9),
    st.floats(allow_nan=True),
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5),
)
KEYS = sorted(
    {
        str(key)
        for tree in [*EXAMPLE, *FAULTY]
        for node in [tree, *(v for v in tree.values() if isinstance(v, dict))]
        for key in node
    }
    | set(
        "chain provider weight models type name backend_model rate_limit tags env_var primary"
        " max_model_len".split()
    )
)
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(WORDS))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


def spots(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree."""
    children = list(
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return [spot for key, child in children for spot in [(node, key), *spots(child)]]


@st.composite
def stacks(draw: st.DrawFn) -> list[Any]:
    """An example with some of it replaced, removed, doubled or moved."""
    trees = copy.deepcopy(draw(st.sampled_from([EXAMPLE, FAULTY])))
    for _ in range(draw(st.integers(1, 8))):
        places = [spot for tree in trees for spot in spots(tree)]
        container, key = places[draw(st.integers(0, len(places) - 1))]
        other, other_key = places[draw(st.integers(0, len(places) - 1))]
        action = draw(st.sampled_from(["replace", "remove", "copy", "add"]))
        if action == "replace":
            container[key] = draw(values)
        elif action == "remove":
            del container[key]
        elif action == "copy":
            container[key] = copy.deepcopy(other[other_key])
        elif isinstance(container, dict):
            container[draw(keys)] = draw(values)
        else:
            container.append(draw(values))
    return trees


def leaves(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """Paths and values of the scalars and empty containers of plain data. What the importer must
    account for."""
    children = list(
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    if not children:
        return [(path, node)]
    return [leaf for key, child in children for leaf in leaves(child, (*path, key))]


def account(files: dict[str, bytes], trees: list[Any]) -> Imported:
    """Import; assert that every value is claimed once, that what is taken over is there, and that
    it compiles."""
    imported = import_stack(files, "old")
    output = {str(value) for _, value in leaves(catalogue(imported))}
    output |= {str(part) for path, _ in leaves(catalogue(imported)) for part in path}
    for file, tree in zip(FILES, trees, strict=True):
        claims = [entry for entry in imported.entries if entry.file == file and entry.values]
        found = leaves(tree)
        assert sum(entry.values for entry in claims) == len(found)
        places = {tuple(map(str, entry.path)): entry for entry in claims}
        for path, value in found:
            names = tuple(map(str, path))
            claim = next(
                (
                    places[names[:length]]
                    for length in range(len(names), -1, -1)
                    if names[:length] in places
                ),
                None,
            )
            assert claim is not None, path
            if claim.outcome == "taken over":
                assert tuple(map(str, claim.path)) == names, "taken over are single values"
                as_yaml = yaml.safe_dump(value).splitlines()[0]
                assert output & {
                    str(value),
                    str(value).strip(),
                    as_yaml,
                }, f"{path} is said to be taken over"
    assert not re.search(r"\{[{%#]", " ".join(output)), "text of an old file would be a template"
    if imported.public_names:
        document(imported)
    return imported


def test_every_value_of_the_examples_is_accounted_for() -> None:
    account(read("workstation"), EXAMPLE)


@given(stacks())
def test_every_value_of_any_stack_is_accounted_for(trees: list[Any]) -> None:
    texts = [yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode() for tree in trees]
    files, loaded = dict(zip(FILES, texts, strict=True)), [yaml.safe_load(text) for text in texts]
    providers = loaded[0].get("providers")
    if providers and isinstance(providers, dict):
        account(files, loaded)
    else:
        with pytest.raises(InputError):
            import_stack(files, "old")


@given(st.dictionaries(keys, values, max_size=4), st.dictionaries(keys, values, max_size=4))
def test_any_document_at_all(providers: dict[str, Any], mappings: dict[str, Any]) -> None:
    trees = [{"providers": providers}, mappings]
    assume(providers)
    texts = [yaml.safe_dump(tree, allow_unicode=True).encode() for tree in trees]
    account(dict(zip(FILES, texts, strict=True)), [yaml.safe_load(text) for text in texts])


def test_key_that_stands_twice() -> None:
    """YAML lets the last one count; the first would be gone without a trace."""
    imported = convert(provider(rest="max_model_len: 1\nmax_model_len: 2"))
    entries = [
        (entry.line, entry.text)
        for entry in imported.entries
        if entry.path[-1:] == ("max_model_len",)
    ]
    assert entries == [
        (7, "duplicate key; the last one takes effect"),
        (8, "llm_providers.local: context_length of its models"),
    ]


def test_merge_keys_and_aliases() -> None:
    imported = convert(
        "x: &base {type: ollama, status: active}\n"
        "providers:\n  a: {<<: *base, base_url: 'http://h:1', models: &m [one]}\n"
        "  b: {<<: [*base, {status: disabled}], type: vllm, base_url: 'http://h:2', models: *m}\n"
    )
    assert written(imported, "a")["type"] == "ollama"
    assert written(imported, "b")["type"] == "vllm"
    assert written(imported, "b")["status"] == "active"
    assert document(imported)


def test_unknown_keys_are_listed() -> None:
    imported = convert(provider(rest="modles: [three]\nzzz: 1"), "special_case: {}\n")
    assert (
        told(imported, "providers.local.modles", "Not supported")
        == 'unknown key; did you mean "models"?'
    )
    assert told(imported, "providers.local.zzz", "Not supported") == "unknown key"
    assert told(imported, "special_case") == 'unknown key; did you mean "special_cases"?'


# -- providers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "old", "new", "reached"),
    [
        ("ollama", "http://h:11434", "http://h:11434", "http://h:11434/v1"),
        ("ollama", "http://h:11434/api/", "http://h:11434", "http://h:11434/v1"),
        ("llama_cpp", "http://h:8080/v1", "http://h:8080/v1", "http://h:8080/v1"),
        ("vllm", "${VLLM_URL:-http://h:8000}", "http://h:8000", "http://h:8000/v1"),
        (
            "vllm",
            "http://${VLLM_HOST:-h}:${VLLM_PORT:-8000}/v1",
            "http://h:8000/v1",
            "http://h:8000/v1",
        ),
        (
            "openai",
            "https://api.openai.com",
            "https://api.openai.com/v1",
            "https://api.openai.com/v1",
        ),
        ("ollama", "https://ollama.com", "https://ollama.com/v1", "https://ollama.com/v1"),
        (
            "anthropic",
            "https://api.anthropic.com/v1",
            "https://api.anthropic.com",
            "https://api.anthropic.com",
        ),
        ("openai_compatible", "http://h:9000", "http://h:9000", "http://h:9000"),
    ],
)
def test_addresses(kind: str, old: str, new: str, reached: str) -> None:
    imported = convert(provider(type=kind, url=old))
    assert written(imported)["base_url"] == new
    assert document(imported)["model_list"][0]["litellm_params"]["api_base"] == reached
    outcome = "Taken over" if old == new and kind != "openai_compatible" else None
    if outcome is None and kind != "openai_compatible":
        assert told(imported, "providers.local.base_url", "Changed")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("http://localhost:VLLM_PORT/v1", "http://localhost/v1", "the port is a placeholder"),
        ("http://localhost:${VLLM_PORT}", "http://localhost", "the port is a placeholder"),
        ("${VLLM_URL}", "http://set-me.invalid", "the address is a variable without a default"),
        (
            "https://user:pass@h/v1",
            "http://set-me.invalid",
            "a URL must not contain credentials",
        ),
        ("localhost:8000", "http://set-me.invalid", "a URL must begin with http"),
        ("''", "http://set-me.invalid", "it has no address"),
        (
            "'http://h/{{ x }}'",
            "http://set-me.invalid",
            "the address is a variable without a default",
        ),
    ],
)
def test_addresses_that_cannot_be_used_disable_the_provider(
    old: str, new: str, reason: str
) -> None:
    imported = convert(provider(type="vllm", url=old))
    assert (written(imported)["status"], written(imported)["base_url"]) == ("disabled", new)
    assert reason in told(imported, "providers.local.base_url", "Changed")
    assert reason in imported.summary, "an active provider that is switched off is told first"
    assert imported.public_names == []


@pytest.mark.parametrize("status", ["disabled", "pending_integration", "template", "soon"])
def test_status(status: str) -> None:
    imported = convert(provider().replace("active", status))
    assert written(imported)["status"] == "disabled"
    told(
        imported,
        (
            "providers.local.status"
            if status != "disabled"
            else "providers.local.{type, base_url, status}"
        ),
    )
    assert ("providers.local.status" in imported.summary) == (status == "soon")


@pytest.mark.parametrize(
    ("type", "rest", "secret"),
    [
        ("ollama", "", None),
        ("ollama", "env_var: null\nrequires_api_key: null", None),
        ("ollama", "env_var: SOME_KEY", "SOME_KEY"),
        ("ollama", "env_var: ${SOME_KEY}", "SOME_KEY"),
        ("ollama", "requires_api_key: true", "LOCAL_API_KEY"),
        ("ollama", "requires_api_key: false\nenv_var: SOME_KEY", None),
        ("openai", "", "LOCAL_API_KEY"),
        ("openai", "requires_api_key: false", "LOCAL_API_KEY"),
        ("openai", "env_var: sk-abc123", "LOCAL_API_KEY"),
        ("openai", "env_var: LITELLM_MASTER_KEY", "LOCAL_API_KEY"),
    ],
)
def test_keys(type: str, rest: str, secret: str | None) -> None:
    imported = convert(provider(type=type, url="https://h/v1", rest=rest))
    assert written(imported).get("api_key_env") == secret
    assert imported.secrets == ([secret] if secret else [])
    assert document(imported)
    assert "sk-abc123" not in imported.report


def test_provider_without_models_is_left_out_loudly() -> None:
    """The old generator skipped it in silence, and every chain that named its models failed with
    400."""
    old = provider() + "\n  empty: {type: vllm, base_url: 'http://h:1', status: active}\n"
    imported = convert(old, "fallback_chains:\n  one: {chain: [empty, gone]}\n")
    assert set(catalogue(imported)["llm_providers"]) == {"local"}
    assert "it has no models" in told(imported, "providers.empty", "Not supported")
    assert "providers.empty" in imported.summary
    assert '"empty" is a provider, not a model' in told(
        imported, "fallback_chains.one.chain[0]", "Not supported"
    )
    assert routing(imported)["fallbacks"]["one"] == {"terminal": True}


@pytest.mark.parametrize("kind", ["tool_server", "web_ui", "olama", ""])
def test_types_that_cannot_be_taken_over(kind: str) -> None:
    imported = convert(
        provider("tools", type=kind or "''")
        + "\n  local: {type: ollama, base_url: 'http://h:1', models: [x]}"
    )
    assert set(catalogue(imported)["llm_providers"]) == {"local"}
    assert "left out" in told(imported, "providers.tools", "Not supported")
    assert ("did you mean" in imported.report) == (kind == "olama")


def test_names_of_providers() -> None:
    imported = convert(
        provider("My_Provider")
        + "\n".join(f"\n  {name}: {{type: ollama, base_url: 'http://h:1', models: [m{index}]}}"
                    for index, name in enumerate(["my_provider", "2nd", "'__'", "my-PROVIDER"]))
    )  # fmt: skip
    names = ["my_provider_2", "my_provider", "provider_2nd", "provider", "my-provider"]
    assert list(catalogue(imported)["llm_providers"]) == names
    assert document(imported)


def test_two_engines_at_one_address() -> None:
    imported = convert(
        "providers:\n  a: {type: vllm, base_url: 'http://h:1', status: active, models: [x]}\n"
        "  b: {type: vllm, base_url: 'http://h:1', status: active, models: [y]}\n"
    )
    assert "one engine cannot be both" in imported.summary


def test_prices_and_windows() -> None:
    old = provider(
        rest="cost_per_1k_tokens: {input: 0.00015, output: 0.00000006}\nmax_model_len: 4096"
    )
    imported = convert(old)
    assert written(imported)["models"][0] == {
        "name": "one",
        "context_length": 4096,
        "price": {"input": 0.15, "output": 0.00006},
    }
    params = document(imported)["model_list"][0]["litellm_params"]
    assert params["input_cost_per_token"] == pytest.approx(0.00015 / 1000)
    same = written(convert(provider(rest="cost_per_1k_tokens: 2")))["models"][0]["price"]
    assert same == {"input": 2000, "output": 2000}
    for other in (
        "cheap",
        "{input: 1}",
        "{input: 1, output: -1}",
        "{input: 1, output: 1, cached: 1}",
        ".inf",
    ):
        imported = convert(provider(rest=f"cost_per_1k_tokens: {other}"))
        assert "price" not in written(imported)["models"][0]
        assert "neither one price" in imported.report


# -- names -----------------------------------------------------------------------------------------


def test_backend_model_of_a_model() -> None:
    imported = convert(provider(), "exact_matches: {one: {provider: local, backend_model: real}}")
    assert written(imported)["models"][0] == {"name": "one", "served_name": "real"}


def test_backend_model_of_another_name() -> None:
    imported = convert(provider(), "exact_matches: {fast: {provider: local, backend_model: one}}")
    assert routing(imported)["aliases"] == {"fast": "one"}
    told(imported, "exact_matches.fast.backend_model", "Taken over")


def test_display_name_with_a_chain_or_limits_is_a_model_of_its_own() -> None:
    """An alias has neither."""
    mappings = (
        "exact_matches:\n  fast: {provider: local, backend_model: one}\n"
        "  few: {provider: local, backend_model: two, rate_limit: {rpm: 3, tpm: x}}\n"
        "fallback_chains: {fast: {chain: [two]}, one: {chain: []}, two: {chain: []}}"
    )
    imported = convert(provider(), mappings)
    assert written(imported)["models"][2:] == [
        {"name": "fast", "served_name": "one"},
        {"name": "few", "served_name": "two", "rpm": 3},
    ]
    assert routing(imported)["aliases"] == {}
    told(imported, "exact_matches.few.rate_limit.rpm", "Taken over")
    told(imported, "exact_matches.few.rate_limit.tpm", "Not supported")
    assert document(imported)["router_settings"]["fallbacks"] == [{"fast": ["two"]}]


def test_model_that_only_an_exact_match_names() -> None:
    old = (
        "providers:\n  local: {type: ollama, base_url: 'http://h:1', status: active, models:"
        " null}\n"
    )
    imported = convert(
        old, "exact_matches: {late: {provider: local, priority: primary}, x: {provider: locl}}"
    )
    assert written(imported)["models"] == [{"name": "late"}]
    assert "no provider listed it" in imported.summary
    assert 'did you mean "local"?' in told(imported, "exact_matches.x", "Not supported")


def test_names_with_white_space() -> None:
    mappings = (
        'exact_matches: {"My Model": {provider: local, backend_model: one}}\n'
        'fallback_chains: {two: {chain: ["My Model"]}}\n'
        'capabilities: {"For Code": {preferred_models: ["My Model"]}}\n'
    )
    imported = convert(provider(rest="").replace("[one, two]", "[one, two, 'a b']"), mappings)
    assert routing(imported)["aliases"] == {"My-Model": "one"}
    assert routing(imported)["fallbacks"]["two"] == {"chain": ["My-Model"]}
    assert routing(imported)["capabilities"] == {"For-Code": {"models": ["one"]}}
    assert 'clients must ask for "My-Model"' in imported.summary
    assert "white space" in told(imported, "providers.local.models[2]", "Not supported")
    assert document(imported)


def test_text_that_would_be_a_template() -> None:
    evil = "'{{ lookup(1) }}'"
    imported = convert(
        provider().replace("[one, two]", f"[one, {evil}, {{name: three, tags: [{evil}]}}]"),
        f"exact_matches: {{{evil}: {{provider: local, backend_model: one}}}}\n"
        f"fallback_chains: {{one: {{chain: [{evil}]}}}}",
    )
    for name, text in imported.files.items():
        if name.endswith(".yml"):
            assert "{{" not in text, name
    assert document(imported)


def test_shared_names_get_weights() -> None:
    old = (
        provider()
        + "\n  other: {type: ollama, base_url: 'http://h:2', status: active, models: [{name: one,"
        " tags: [x]}]}\n"
    )
    imported = convert(old)
    assert [
        entry["litellm_params"].get("weight") for entry in document(imported)["model_list"]
    ] == [1, 1, None]
    assert "tags" not in written(imported, "other")["models"][0]
    balance = (
        "load_balancing: {pool: {providers: [{provider: other, weight: 0.3}, {provider: local,"
        " weight: 0.7}]}}"
    )
    imported = convert(old, balance)
    assert written(imported)["models"][0]["weight"] == 7
    assert written(imported, "other")["models"][0]["weight"] == 3
    assert document(imported)
    imported = convert(provider(), balance)
    assert "no name is left" in told(
        imported, "load_balancing.pool.providers[0].{provider, weight}", "Not supported"
    )


def test_ollama_cloud() -> None:
    old = provider(url="https://ollama.com", rest="env_var: OLLAMA_API_KEY").replace(
        "[one, two]", "['x:1b-cloud', 'y:cloud', z]"
    )
    imported = convert(old)
    assert written(imported)["type"] == "ollama_cloud"
    params = [entry["litellm_params"]["model"] for entry in document(imported)["model_list"]]
    assert params == ["openai/x:1b", "openai/y", "openai/z"]
    local = convert(old.replace("https://ollama.com", "http://localhost:11434"))
    assert document(local)["model_list"][0]["litellm_params"]["model"] == "openai/x:1b-cloud"


def test_embedding_models() -> None:
    old = provider().replace("two]", "two, nomic-embed-text]")
    mappings = (
        "fallback_chains: {one: {chain: [nomic-embed-text, two]}}\n"
        "capabilities: {all: {models: [one, nomic-embed-text, two]}}"
    )
    imported = convert(old, mappings)
    assert routing(imported)["capabilities"] == {"all": {"models": ["one", "two"]}}
    assert written(imported)["models"][2] == {"name": "nomic-embed-text", "mode": "embedding"}
    assert routing(imported)["fallbacks"] == {"one": {"chain": ["two"]}}
    assert document(imported)


def test_embedding_models_with_other_vectors() -> None:
    """Only the same model may answer for one, which another provider may call otherwise."""
    old = provider().replace("two]", "two, nomic-embed-text, mxbai-embed-large]")
    old += (
        "\n  other: {type: openai_compatible, base_url: 'http://h:2/v1', status: active, models:"
        " ['nomic-ai/nomic-embed-text']}\n  off: {type: openai_compatible, base_url: 'http://h:3/v1',"
        " status: disabled, models: [dark-embed]}\n"
    )
    mappings = (
        "fallback_chains:\n"
        "  nomic-embed-text: {chain: [mxbai-embed-large, nomic-ai/nomic-embed-text]}\n"
        "  nomic-ai/nomic-embed-text: {chain: [nomic-embed-text]}\n"
        "  mxbai-embed-large: {chain: [vectors]}\n"
        "  dark-embed: {chain: [nomic-embed-text]}\n"
        "capabilities: {vectors: {models: [nomic-embed-text, mxbai-embed-large]}}"
    )
    imported = convert(old, mappings)
    assert routing(imported)["capabilities"] == {"vectors": {"models": ["nomic-embed-text"]}}
    assert routing(imported)["fallbacks"] == {
        "nomic-embed-text": {"chain": ["nomic-ai/nomic-embed-text"]},
        "nomic-ai/nomic-embed-text": {"chain": ["nomic-embed-text"]},
        "mxbai-embed-large": {"terminal": True},
        "dark-embed": {"terminal": True},
    }
    assert imported.summary.count("another embedding model's vectors") == 4
    assert document(imported)


# -- chains and capabilities -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ("[two, three]", ["two", "three"]),
        ("[{primary: two, secondary: three}]", ["two", "three"]),
        ("[{tertiary: four, primary: two, last: one, secondary: three}]", ["two", "three", "four"]),
        ("[{primary: one, secondary: two}]", ["two"]),
        ("{secondary: three, primary: two}", ["two", "three"]),
        ("two", ["two"]),
        ("[two, two, {primary: [three, two]}]", ["two", "three"]),
        ("[alias, two, cap]", ["alias", "cap"]),
        ("[two, {condition: local_saturated, primary: three}, null]", ["two", "three"]),
    ],
)
def test_steps(chain: str, expected: list[str]) -> None:
    old = provider().replace("two]", "two, three, four]")
    mappings = (
        "exact_matches: {alias: {provider: local, backend_model: two}}\ncapabilities: {cap:"
        f" {{models: [three, four]}}}}\nfallback_chains:\n  one: {{chain: {chain}}}\n"
    )
    imported = convert(old, mappings)
    assert routing(imported)["fallbacks"]["one"]["chain"] == expected
    assert document(imported)
    direct = convert(old, mappings.replace(f"{{chain: {chain}}}", chain))
    assert routing(direct) == routing(imported), "the steps may stand under the name itself"


def test_step_to_the_model_itself() -> None:
    """Usual in chains with named steps, where the primary is the model itself. Nothing is lost, so
    it is no alarm."""
    imported = convert(
        provider(), "fallback_chains: {one: {chain: [{primary: one, secondary: two}]}}"
    )
    assert "contains one itself" in told(
        imported, "fallback_chains.one.chain[0].primary", "Changed"
    )
    assert "fallback_chains" not in imported.summary


def test_steps_that_cannot_be_taken_over() -> None:
    old = (
        provider()
        + "\n  off: {type: vllm, base_url: 'http://h:1', status: disabled, models: [dark]}\n"
    )
    imported = convert(
        old,
        "fallback_chains:\n  one: {chain: [tow, dark, two]}\n  dark: {chain: [one]}\n  nobody:"
        " {chain: [one]}\n",
    )
    assert routing(imported)["fallbacks"] == {"one": {"chain": ["two"]}, "dark": {"chain": ["one"]}}
    assert 'did you mean "two"?' in told(imported, "fallback_chains.one.chain[0]", "Not supported")
    assert "disabled" in told(imported, "fallback_chains.one.chain[1]", "Not supported")
    assert "nothing serves" in told(imported, "fallback_chains.nobody", "Not supported")
    assert imported.summary.count("fallback_chains") == 3
    assert document(imported)


def test_circles_are_taken_over() -> None:
    old = provider().replace("two]", "two, three]")
    mappings = (
        "fallback_chains: {one: {chain: [two]}, two: {chain: [three]}, three: {chain: [one, two]}}"
    )
    imported = convert(old, mappings)
    assert routing(imported)["fallbacks"] == {
        "one": {"chain": ["two"]},
        "two": {"chain": ["three"]},
        "three": {"chain": ["one", "two"]},
    }
    assert "fallback_chains" not in imported.summary, "nothing is lost"
    assert document(imported)["router_settings"]["fallbacks"] == [
        {"one": ["two", "three"]},
        {"two": ["three", "one"]},
        {"three": ["one", "two"]},
    ]


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(st.sampled_from("abcde"), max_size=4)))
def test_chains_are_equivalent(chains: dict[str, list[str]]) -> None:
    """Whatever leads where: each name tries what the old chains reach, depth first, each once."""
    old = provider().replace("[one, two]", "[a, b, c, d, e]")
    written_chains = {name: {"chain": chain} for name, chain in chains.items()}
    imported = convert(old, yaml.safe_dump({"fallback_chains": written_chains}))

    def reach(name: str, order: list[str]) -> list[str]:
        if name not in order:
            order.append(name)
            for step in chains.get(name, []):
                reach(step, order)
        return order

    result = compiled(imported)
    assert result.errors == []
    assert {r["name"]: [a["model"] for a in r["attempts"]] for r in result.routes} == {
        name: reach(name, []) for name in "abcde"
    }
    assert "left out of" not in imported.summary, "nothing is lost"


def test_step_to_a_capability_of_the_model_itself() -> None:
    """Its other models are the fallback; the compiler would refuse the capability as a step."""
    old = provider().replace("two]", "two, three]")
    mappings = (
        "capabilities: {any: {models: [one, two, three]}, mine: {models: [one]}}\n"
        "fallback_chains: {one: {chain: [mine, any]}, two: {chain: [three, any]}}"
    )
    imported = convert(old, mappings)
    assert routing(imported)["fallbacks"] == {
        "one": {"chain": ["two", "three"]},
        "two": {"chain": ["three", "one"]},
    }
    assert '"two", "three"' in told(imported, "fallback_chains.one.chain[1]", "Changed")
    assert "fallback_chains" not in imported.summary, "nothing is lost"
    assert document(imported)


def test_empty_and_default_chains() -> None:
    mappings = (
        "fallback_chains: {default: {chain: [two, nope]}, two: {chain: [], tier: universal,"
        " retry_attempts: 3}}"
    )
    imported = convert(provider(), mappings)
    assert "default_fallbacks" not in routing(imported)
    assert routing(imported)["fallbacks"] == {"two": {"terminal": True}}
    assert document(imported)["router_settings"]["fallbacks"] == []
    assert "terminal" in told(imported, "fallback_chains.two.chain", "Changed")


def test_the_default_chain_is_told_first_and_can_be_had() -> None:
    """The old gateway never read it: live, it would send local models to a cloud."""
    mappings = (
        "exact_matches: {nowhere: {provider: nobody}}\n"
        "fallback_chains: {one: {chain: [nope]}, default: {description: D, chain: [{primary: two,"
        " secondary: 'x:1'}, nope]}}"
    )
    imported = convert(provider().replace("two]", "two, 'x:1']"), mappings)
    first = imported.summary.split("Check these first:\n")[1].splitlines()[0]
    line = 'default_fallbacks: [two, "x:1"]'
    assert "fallback_chains.default → left out: the old gateway never read it" in first
    assert first.endswith(f"group_vars/llm_stack/routing.yml: {line}")
    text = imported.files["group_vars/llm_stack/routing.yml"]
    assert f"  # {line}\n" in text
    assert document(imported)["router_settings"]["fallbacks"] == []
    wanted = replace(
        imported,
        files={
            **imported.files,
            "group_vars/llm_stack/routing.yml": text.replace(f"# {line}", line),
        },
    )
    assert document(wanted)["router_settings"]["fallbacks"] == [
        {"two": ["x:1"]},
    ], "one keeps what is written for it: nothing"


NEVER_READ = {
    "providers.yaml": [
        "health_checks: {enabled: true, interval_seconds: 5}",
        "cors: {allow_origins: ['*']}",
        "router_settings: {routing_strategy: least-busy, fallbacks: [{one: [two]}]}",
        "general_settings: {master_key: sk-1}",
    ],
    "model": [
        "tags: [fast]",
        "options: {num_ctx: 1}",
        "size: 7B",
        "timeout: 1",
        "weight: 3",
        "rpm: 1",
        "fallback: two",
        "rate_limit: {rpm: 1}",
    ],
    "provider": [
        "rate_limits: {rpm: 1}",
        "budget: {max_budget_usd: 1}",
        "configuration: {n_ctx: 1, timeout: 1}",
        "health_endpoint: /x",
        "timeout: 1",
    ],
    "model-mappings.yaml": [
        "patterns: [{pattern: '^o', provider: local, fallback: two}]",
        "routing_rules: {default_provider: local, default_fallback: two}",
        "routing_rules: {request_metadata_routing: {high: {provider: local}}}",
        "special_cases: {error_based_routing: {timeout: {action: next}}}",
        "load_balancing: {pool: {providers: [{provider: local, weight: 3}], strategy: random}}",
        "fallback_chains: {default: {chain: [two]}}",
        "exact_matches: {one: {provider: local, priority: primary, fallback: two}}",
        "exact_matches: {one: {provider: local, budget: {max_budget_usd: 1}}}",
        "default_fallbacks: [two]",
        "aliases: {a: one}",
        "context_window_fallbacks: {one: {chain: [two]}}",
        "cors: {allow_origins: ['*']}",
    ],
}


@pytest.mark.parametrize(
    ("place", "key"), [(place, key) for place, keys in NEVER_READ.items() for key in keys]
)
def test_what_had_no_effect_gets_none(place: str, key: str) -> None:
    """The gateway is the same with and without it, and the report says so."""
    old = provider().replace("[one, two]", "[{name: one}, two]")
    with_key = {
        "providers.yaml": f"{old}\n{key}",
        "provider": old.replace("    status", f"    {key}\n    status"),
        "model": old.replace("{name: one}", f"{{name: one, {key}}}"),
        "model-mappings.yaml": old,
    }[place]
    imported = convert(with_key, key if place == "model-mappings.yaml" else "")
    assert document(imported) == document(convert(old))
    name = key.partition(":")[0]
    sections = re.split(r"^## ", imported.report, flags=re.MULTILINE)[1:]
    said = [s for s in sections if s.startswith(("Not supported", "No meaning"))]
    assert any(name in section for section in said)


def test_what_comes_into_effect_is_told_first() -> None:
    """Limits and shares were written down, and the old gateway did not heed them."""
    imported = convert(
        provider() + "\n  b: {type: ollama, base_url: 'http://h:2', status: active, models: [one]}",
        "exact_matches: {two: {provider: local, rate_limit: {rpm: 3}}}\n"
        "load_balancing: {one: {providers: [{provider: local, weight: 3}, {provider: b, weight:"
        " 1}]}}",
    )
    first = imported.summary.split("Check these first:\n")[1]
    assert "rpm of two will be enforced" in first
    assert 'requests for "one" are now divided by load_balancing (local 3, b 1)' in first
    equal = convert(
        provider() + "\n  b: {type: ollama, base_url: 'http://h:2', status: active, models: [one]}"
    )
    assert "Check these first" not in equal.summary


def test_a_provider_that_stands_there_twice_is_told_before_what_follows_from_it() -> None:
    twice = """\
providers:
  local: {type: ollama, base_url: 'http://127.0.0.1:11434', status: active, models: [{name: a}]}
  local: {type: ollama, base_url: 'http://127.0.0.1:11434', status: active, models: [{name: b}]}
"""
    imported = convert(twice, "fallback_chains: {a: {chain: [b]}}\n")
    first, second, *_ = imported.summary.split("Check these first:\n")[1].splitlines()
    assert "providers.local → duplicate key" in first
    assert 'nothing serves "a"' in second


def test_what_is_not_understood_is_told_first() -> None:
    """A chain that is lost is one that somebody relied on."""
    imported = convert(
        provider(),
        "fallback_chains: {one: {chian: [two]}, two: {models: [one], description: x}}\n"
        "capabilities: {code: {prefered_models: [one]}}\n",
    )
    first = imported.summary.split("Check these first:\n")[1]
    assert 'llm_routing.fallbacks["one"]: terminal, as it has no "chain" but "chian"' in first
    assert 'llm_routing.fallbacks["two"]: terminal, as it has no "chain" but "models"' in first
    assert 'did you mean "preferred_models"' in told(
        imported, "capabilities.code.prefered_models", "Not supported"
    )
    lists = convert(
        provider(), "fallback_chains:\n  - one: [two]\ncapabilities: [code]\nexact_matches: null\n"
    )
    first = lists.summary.split("Check these first:\n")[1]
    for line, name in ((2, "fallback_chains"), (3, "capabilities")):
        assert f"model-mappings.yaml:{line} {name} → not in a form that the importer" in first, (
            first
        )
    assert "exact_matches" not in first


def test_order_of_named_steps_in_a_list() -> None:
    chain = "chain: [{secondary: two}, {primary: three}]"
    imported = convert(
        provider(rest="").replace("[one, two]", "[one, two, three]"),
        f"fallback_chains: {{one: {{{chain}}}, two: {{chain: []}}, three: {{chain: []}}}}",
    )
    assert routing(imported)["fallbacks"]["one"]["chain"] == ["three", "two"]


def test_capabilities() -> None:
    mappings = (
        "capabilities:\n  code: {preferred_models: [two, nope], models: [one], routing_strategy:"
        " direct}\n  legacy: {models: [one, two, one]}\n  hollow: {models: [nope]}\n  one: {models:"
        " [two]}\n  default: {models: [two]}\nfallback_chains: {code: {chain: [one, code]}}\n"
    )
    imported = convert(provider(), mappings)
    expected = {"code": {"models": ["two", "one"]}, "legacy": {"models": ["one", "two"]}}
    assert routing(imported)["capabilities"] == expected
    assert (
        told(imported, "capabilities.code.models", "Not supported")
        == "preferred_models takes precedence"
    )
    for name in ("hollow", "one", "default"):
        assert "the capability is left out" in told(
            imported, f"capabilities.{name}", "Not supported"
        )
    assert document(imported)


@pytest.mark.parametrize(
    "section", ["patterns", "routing_rules.default_provider", "special_cases.geographic_routing"]
)
def test_sections_that_never_had_an_effect(section: str) -> None:
    imported = import_stack(read("workstation"), "old")
    assert "never had an effect" in told(imported, section, "Not supported")


# -- input -----------------------------------------------------------------------------------------

P, M = FILES


@pytest.mark.parametrize(
    ("providers", "mappings", "problems"),
    [
        (None, None, [f"{P}: there is no such file", f"{M}: there is no such file; if"]),
        (provider(), None, [f"{M}: there is no such file; if"]),
        (None, "", [f"{P}: there is no such file"]),
        ("a: [", "a: b: c", [f"{P}:1:5: not YAML", f"{M}:1:5: not YAML"]),
        (
            "- a",
            "text",
            [f"{P}:1:1: the file is not a mapping", f"{M}:1:1: the file is not a mapping"],
        ),
        ("", "", [f"{P}:1:1: the file is not a mapping"]),
        ("metadata: {}", "", [f"{P}:1:1: there is no key providers"]),
        ("\nproviders: []", "", [f"{P}:2:1: providers is not a mapping"]),
        (b"\xff\xfe\x00", "", [f"{P}: not YAML"]),
        (b"a: \x07", "", [f"{P}: not YAML"]),
        ("a: 1\n# caf\u00e9\n".encode("latin-1"), "", [f"{P}:2: not UTF-8; if"]),
        ("a: &x [*x]", "", [f"{P}:1:4: an alias is inside"]),
        ("a: !!python/name:os.system x", "", [f"{P}:1:4: could not"]),
        (
            "a: 2024-99-99",
            "? [a]\n: 1",
            [f"{P}:1:4: month must be", f"{M}:1:3: a key must be a scalar"],
        ),
        ("<<: 1", "a: 1\n---\nb: 1", [f"{P}:1:5: << needs an alias", f"{M}:2:1: not YAML"]),
        ("a: " + "[" * 3000, "", [f"{P}: nested too deeply"]),
    ],
)
def test_input_errors_are_told_all_at_once(
    providers: str | bytes | None, mappings: str | None, problems: list[str]
) -> None:
    given = {
        name: text
        for name, text in zip(FILES, (providers, mappings), strict=True)
        if text is not None
    }
    with pytest.raises(InputError) as caught:
        import_stack(
            {
                name: text.encode() if isinstance(text, str) else text
                for name, text in given.items()
            },
            "old",
        )
    assert len(caught.value.problems) == len(problems), caught.value.problems
    for found, expected in zip(caught.value.problems, problems, strict=True):
        assert found.startswith(f"old/{expected}")


def test_nested_aliases_do_not_explode() -> None:
    """Ten lines that stand for a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InputError, match="more than 200000 values"):
        import_stack(
            {"providers.yaml": "\n".join(lines).encode(), "model-mappings.yaml": b""}, "old"
        )


def test_empty_mappings_are_no_error() -> None:
    assert document(convert(provider(), ""))["model_list"]


def test_lines_in_the_documentation_are_real() -> None:
    report = import_stack(read("workstation"), "old").report.splitlines()
    text = (ROOT / "docs/import.md").read_text(encoding="utf-8")
    quoted = [line.strip() for line in text.splitlines() if line.startswith("    - ")]
    assert len(quoted) == 12
    assert [line for line in quoted if line not in report] == []


def test_files() -> None:
    """A directory that is an inventory: Ansible must not take the report for one."""
    assert [Path(name).suffix for name in import_stack(read("workstation"), "old").files] == [
        ".yml",
        ".yml",
        ".yml",
        ".md",
    ]
