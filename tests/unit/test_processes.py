"""What the models of one process, and the processes of one host, must not share."""

from __future__ import annotations

import pytest
from catalogues import GROUPS, change, compiled, refused
from test_engines import CATALOGUE as ENGINES
from test_engines import result as of_engines

from modelyard.engines.ollama import ENGINE as OLLAMA

STORES = """\
llm_providers:
  one:
    type: ollama
    group: llm_local
    port: 11434
    ollama: {ONE}
    models: [{name: a}]
  two:
    type: ollama
    group: GROUP
    port: 11435
    ollama: {TWO}
    models: [{name: b}]
llm_routing: {fallbacks: {a: {terminal: true}, b: {terminal: true}}}
llm_versions:
  litellm: {version: "1.106.2"}
  ollama: {version: "0.17.4", source: {path: /o.tgz, sha256: SHA}}
""".replace("SHA", "a" * 64)


def stores(one: str, two: str, group: str = "llm_local") -> str:
    return STORES.replace("ONE", one).replace("TWO", two).replace("GROUP", group)


@pytest.mark.parametrize(
    ("one", "two", "line"),
    [
        ("models_path: /srv/o", "models_path: /srv/o", 12),
        ("models_path: /srv/o", "models_path: //srv/./o/", 12),
        ("models_path: /srv/o", "models_path: /srv/o/two", 12),
        ("models_path: /srv/o/one", "models_path: /srv/o", 12),
        ("", "models_path: /var/lib/modelyard/ollama/one/models", 12),
        ("models_path: /var/lib/modelyard/ollama/two/models", "", 6),
        ("models_path: /var/lib/modelyard/ollama/two", "", 6),
    ],
)
def test_two_stores_in_one_directory(one: str, two: str, line: int) -> None:
    assert "two Ollama cannot share a store" in refused(
        compiled(stores(one, two)), "invalid-value", line
    )


@pytest.mark.parametrize(
    ("one", "two", "group"),
    [
        ("", "", "llm_local"),
        ("models_path: /srv/o", "models_path: /srv/o2", "llm_local"),
        ("models_path: /srv/o", "models_path: /srv/o", "llm_other"),
        ("", "models_path: /var/lib/modelyard/ollama/former/models", "llm_local"),
    ],
)
def test_stores_of_their_own(one: str, two: str, group: str) -> None:
    groups = {**GROUPS, "llm_stack": ["one", "other"], "llm_other": ["other"]}
    addresses = {"one": "10.0.0.1", "other": "10.0.0.2"}
    out = compiled(stores(one, two, group), groups=groups, addresses=addresses)
    assert out.errors == []


@pytest.mark.parametrize(
    "path",
    "/ // /srv /srv/ /home /home/me /usr/share /var/lib /etc/ollama /tmp/models /var/tmp/x /dev/shm/o"
    " /proc/1/cwd /usr/bin /usr/lib/ollama /mnt /srv/../etc/x /opt/modelyard/store /var/lib/modelyard"
    " /var/lib/modelyard/ollama /var/lib/modelyard/models/x /boot/o /run/o /root".split(),
)
def test_not_a_directory_of_its_own(path: str) -> None:
    text = stores(f"models_path: {path}", "")
    assert "for this alone" in refused(compiled(text), "invalid-value", 6)


@pytest.mark.parametrize(
    "path",
    "/usr/share/ollama/.ollama/models /srv/models /home/me/.ollama/models /mnt/disk /data /models"
    " /var/lib/ollama /var/lib/ollama/models /opt/ollama /usr/local/models /media/me/disk /root/.ollama/models"
    " /var/lib/modelyard/ollama/former/models".split(),
)
def test_a_directory_of_its_own(path: str) -> None:
    assert compiled(stores(f"models_path: {path}", "")).errors == []


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        ('served_name: "x:1", context_length: 4096', 'served_name: "x:1", context_length: 8192', "context_length"),
        ('served_name: "x:1"', 'served_name: "x:1", context_length: 8192', "context_length"),
        ("served_name: x", 'served_name: "X:latest", options: {temperature: 1}', "options"),
        ("served_name: x", 'served_name: "library/x", source: {path: /m.gguf}', "source"),
        ("served_name: x", 'served_name: "registry.ollama.ai/library/x:latest", source: {path: /m.gguf}', "source"),
    ],
)  # fmt: skip
def test_one_tag_with_two_meanings(first: str, second: str, differs: str) -> None:
    text = stores("", "").replace("[{name: a}]", f"[{{name: a, {first}}}, {{name: c, {second}}}]")
    text = text.replace("{fallbacks: {", "{fallbacks: {c: {terminal: true}, ")
    shown = refused(compiled(text), "duplicate-model", 7)
    assert f"another {differs}, which is part of the model" in shown


def test_one_tag_by_two_names_with_one_meaning() -> None:
    text = stores("", "").replace(
        "[{name: a}]", "[{name: a, served_name: x, rpm: 3}, {name: c, served_name: x}]"
    )
    text = text.replace("{fallbacks: {", "{fallbacks: {c: {terminal: true}, ")
    assert compiled(text).errors == []


def test_names_of_ollamas_models() -> None:
    same = ("Llama3", "llama3:latest", "library/llama3", "registry.ollama.ai/library/llama3:latest")
    assert {OLLAMA.identity(name) for name in same} == {"llama3:latest"}
    others = ("llama3:8b", "me/llama3", "hf.co/me/llama3", "registry.example/library/llama3")
    assert len({OLLAMA.identity(name) for name in others}) == 4


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("{name: coder-sql, ", "{name: coder-sql, served_name: coder-7b, ", 36),
        ("served_name: coder-7b", "served_name: coder-sql", 36),
    ],
)
def test_adapter_under_the_name_of_its_base(old: str, new: str, line: int) -> None:
    out = of_engines(change(old, new, ENGINES))
    text = refused(out, "duplicate-model", line)
    assert '"coder-sql" has the served_name of "coder"' in text


def test_preloads_beyond_what_stays_loaded() -> None:
    models = "[{name: a, preload: true}, {name: c, preload: true}]"
    text = stores("max_loaded_models: 1", "").replace("[{name: a}]", models)
    text = text.replace("{fallbacks: {", "{fallbacks: {c: {terminal: true}, ")
    assert "2 models have preload (a, c), but max_loaded_models is 1" in refused(
        compiled(text), "invalid-value", 6
    )
    for enough in ("max_loaded_models: 2", ""):
        assert compiled(text.replace("max_loaded_models: 1", enough)).errors == []


def test_unknown_quantization() -> None:
    wrong = change("quantization: awq", "quantization: awk", ENGINES)
    assert 'did you mean "awq"' in refused(of_engines(wrong), "unknown-value", 33)
    wrong = change("quantization: awq", "quantization: Q4_K_M", ENGINES)
    assert "vLLM knows auto_awq, auto_gptq" in refused(of_engines(wrong), "unknown-value", 33)
    other = wrong.replace('vllm: {version: "0.32.0"}', 'vllm: {version: "0.33.0"}')
    out = of_engines(other)
    assert out.errors == []
    assert "unknown-value" in [one.code for one in out.warnings]
