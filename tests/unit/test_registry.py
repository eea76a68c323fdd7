"""Everything about an engine is in its module: nothing else names one, and a new one needs nothing
else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from catalogues import ROOT, part
from test_engines import change, instance

from modelyard.engines import ENGINES, by_role
from modelyard.engines.base import ADAPTERS, GPU, KEY_FILE, MODEL

CORE = ROOT / "src/modelyard"
NAMING = ("engines", "dashboards")
"""Folders that name engines: what they are, and what their metrics are called."""


def test_no_other_module_names_an_engine() -> None:
    names = {
        name
        for engine in ENGINES
        for name in (engine.role, engine.provider_type, engine.prefix[:-1])
    }
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(CORE)}:{number}: {line.strip()}"
        for path in sorted(CORE.rglob("*.py"))
        if path.relative_to(CORE).parts[0] not in NAMING
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


# -- command lines ---------------------------------------------------------------------------------


def test_command_lines() -> None:
    native, python, vllm = (instance(role) for role in ("llama_cpp", "llama_cpp_python", "vllm"))
    assert native["argv"] == [
        *("--model", MODEL, "--alias", "Tiny.7b", "--host", "10.0.0.1", "--port", "8080"),
        *("--parallel", "1", "--no-kv-unified", "--threads-http", "128", GPU),
        *("--threads", "8", "--swa-full", "--alias-suffix", "a b", "--metrics", "--offline"),
        *("--api-key-file", KEY_FILE),
    ]
    assert native["gpu_argv"] == ["--n-gpu-layers", "all"]
    assert python["argv"] == [
        *("--interrupt_requests", "false", "--logits_all", "false", "--use_mlock", "false", GPU),
        *("--n_threads", "8", "--flash_attn", "true", "--verbose", "false"),
        *(
            "--n_ctx",
            "0",
            "--model",
            MODEL,
            "--model_alias",
            "snake",
            "--host",
            "10.0.0.1",
            "--port",
            "8000",
        ),
    ]
    assert python["gpu_argv"] == ["--n_gpu_layers", "-1"]
    assert vllm["argv"] == [
        *(
            "--enforce-eager",
            "--quantization",
            "awq",
            "--tensor-parallel-size",
            "2",
            "--model",
            MODEL,
        ),
        *("--served-model-name", "coder-7b", "--host", "10.0.0.2", "--port", "8001"),
        *("--enable-lora", "--lora-modules", ADAPTERS, "--middleware", "modelyard_guard.Guard"),
    ]
    assert vllm["gpu_argv"] == vllm["gpu_checks"] == []
    assert [check["layers"] for one in (native, python) for check in one["gpu_checks"]] == [
        "all",
        "all",
    ]


def test_context_is_on_the_command_line() -> None:
    longer = "source: {path: /m.gguf}\n        context_length: 4096\n        options: {threads"
    native = instance(
        "llama_cpp", change("source: {path: /m.gguf}\n        options: {threads", longer)
    )["argv"]
    # What one request may have, for each of the server's four slots.
    assert native[native.index("--ctx-size") + 1] == "16384"
    text = change("        quantization: awq\n", "        context_length: 512\n")
    vllm = instance("vllm", text)["argv"]
    assert vllm[vllm.index("--max-model-len") + 1] == "512"
    python = instance(
        "llama_cpp_python", change("{name: snake,", "{name: snake, context_length: 9,")
    )["argv"]
    assert python[python.index("--n_ctx") + 1] == "9"


@pytest.mark.parametrize(
    ("given", "words", "layers"), [("7", [], "some"), ("false", ["--n-gpu-layers", "all"], "all")]
)
def test_a_user_decides_how_many_layers_are_on_gpus(
    given: str, words: list[str], layers: str
) -> None:
    native = instance("llama_cpp", change("{threads: 8", f"{{n-gpu-layers: {given}"))
    assert native["gpu_argv"] == words
    assert [check["layers"] for check in native["gpu_checks"]] == [layers]


def test_environment_of_an_engine_without_words() -> None:
    settings = (
        "port: 11434\n    ollama: {num_parallel: 2, models_path: /srv/m, origins:"
        " ['https://a.example']}\n"
    )
    only = instance("ollama", change("port: 11434\n", settings))
    assert only["environment"] == {
        "OLLAMA_HOST": "10.0.0.1:11434",
        "OLLAMA_MODELS": "/var/lib/modelyard/ollama/ollama/models_path",
        "OLLAMA_KEEP_ALIVE": "30m",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_ORIGINS": "https://a.example",
    }


# -- options that a user may not set ---------------------------------------------------------------

FORMERLY = {
    "llama_cpp": (
        "host port model m alias a api-key api-key-file ctx-size c metrics no-metrics hf-repo"
        " hf-file model-url mu ssl-key-file ssl-cert-file slot-save-path log-file"
    ),
    "llama_cpp_python": (
        "host port model model-alias n-ctx api-key config-file hf-model-repo-id ssl-keyfile "
        "ssl-certfile root-path"
    ),
    "vllm": (
        "host port uds model served-model-name api-key max-model-len quantization trust-remote-code"
        " revision code-revision tokenizer-revision hf-token download-dir enable-lora lora-modules"
        " ssl-keyfile ssl-certfile ssl-ca-certs root-path config"
    ),
    "ollama": "num-ctx",
}
"""What was listed by hand before the list was made from the command line; a later engine has no
entry."""


@pytest.mark.parametrize("role", FORMERLY)
def test_what_the_unit_says_a_user_may_not(role: str) -> None:
    slots = "no-kv-unified kv-unified kvu no-kvu kv-unified-per-slot np".split()
    more = {"llama_cpp": {"offline", *slots}, "vllm": {"middleware"}}.get(role, set())
    assert by_role(role).reserved >= frozenset(FORMERLY[role].split()) | more


SECRETS = {
    "llama_cpp": "hf-token hft api-key ssl-key-file hf-repo hfr docker-repo models-preset tools rpc",
    "llama_cpp_python": "api-key ssl-keyfile config-file models rpc-servers api-k ssl-key hf-mod",
    "vllm": "hf-token api-key ssl-keyfile tool-server master-addr headless hf-tok no-enable-lora",
}
RIGHT = {
    "llama_cpp": "threads n-gpu-layers flash-attn pooling mmproj jinja chat-template-file",
    "llama_cpp_python": "n-threads n-gpu-layers chat-format clip-model-path cache draft-model",
    "vllm": "tokenizer tokenizer-mode gpu-memory-utilization enable-auto-tool-choice kv-cache-dtype"
    " tool-call-parser reasoning-parser max-num-seqs config-format load-format",
}


@pytest.mark.parametrize("role", SECRETS)
def test_options_that_show_a_secret_or_reach_outside(role: str) -> None:
    engine = by_role(role)
    assert [option for option in SECRETS[role].split() if not engine.reserves(option)] == []
    assert [option for option in RIGHT[role].split() if engine.reserves(option)] == []


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.role)
def test_what_the_vector_says_stands_there_only(engine: Any) -> None:
    assert not engine.unsafe & {flag.name for flag in engine.vector}


# -- a new engine ----------------------------------------------------------------------------------

MODULE = '''\
"""An engine that does not exist."""

from pydantic import Field

from modelyard.engines.base import KEY_FILE, MODEL, OPTIONS, Engine, Flag, Metrics
from modelyard.kinds import Release, Strict, Version


class ShelfVersion(Release):
    """The release of Shelf."""

    floor = (2, 1)
    version: Version = Field(examples=["2.2.0"])
    """The version of Shelf."""


class ShelfSettings(Strict):
    """How a Shelf of ours runs."""

    boards: int = Field(3, examples=[4])
    """How many boards it has."""


class Shelf(Engine):
    def instance(self, process):
        return {**super().instance(process), "boards": process.settings.boards}


ENGINE = Shelf(
    title="Shelf",
    provider_type="shelf",
    role="book_shelf",
    version=ShelfVersion,
    version_example={"version": "2.2.0"},
    settings=ShelfSettings,
    settings_example={"boards": 4},
    takes="directory",
    keys=frozenset({"port", "quantization"}),
    health="/up",
    metrics=Metrics(keyed=True),
    vector=(Flag("books", MODEL), Flag("call", lambda process: process.model.served), OPTIONS, Flag("key", KEY_FILE)),
    unsafe=frozenset({"burn"}),
)
'''

CATALOGUE = """\
llm_providers:
  upstairs:
    type: shelf
    group: llm_shelf
    port: 7000
    shelf: {boards: 5}
    models:
      - {name: novels, served_name: fiction, source: {path: /books}, quantization: thin, options: {dust: true}}
llm_versions:
  litellm: {version: "1.106.2"}
  book_shelf: {version: "2.2.0"}
llm_monitoring: {}
llm_routing:
  fallbacks: {novels: {terminal: true}}
"""

SCRIPT = """\
import json, sys
from catalogues import compiled
from modelyard.operations.diff import compare
from modelyard.catalogue.editors import variables_schema
from modelyard.catalogue.reference import catalogue_text

texts = json.load(sys.stdin)
groups = {"llm_stack": ["a", "g"], "llm_gateway": ["g"], "llm_shelf": ["a"], "llm_monitoring": ["g"]}
groups |= {"llm_redis": [], "llm_local": []}
where = {"groups": groups, "addresses": {"a": "10.0.0.1", "g": "10.0.0.9"}, "secrets": frozenset()}
found = [compiled(text, **where) for text in texts]
live = {"book-shelf@novels": {"release": "1", "since": "", "plan": None}}
json.dump(
    {
        "errors": [[error.render() for error in one.errors] for one in found],
        "compiled": found[0].as_dict(),
        "gone": [one.kind for one in compare(found[0].hosts, {"g": live})[1].services if "shelf" in one.service],
        "reference": catalogue_text(),
        "schema": variables_schema(),
    },
    sys.stdout,
)
"""


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a core says in which one module and one entry in the registry were added."""
    core = tmp_path_factory.mktemp("core")
    shutil.copytree(CORE, core / "modelyard", ignore=shutil.ignore_patterns("__pycache__"))
    engines = core / "modelyard/engines"
    (engines / "shelf.py").write_text(MODULE, encoding="utf-8")
    registry = (engines / "__init__.py").read_text(encoding="utf-8")
    base = "from modelyard.engines.base import "
    entry, found = re.subn(
        r"(= \([\w., \n]*\.ENGINE),?\s*\)", r"\1, shelf.ENGINE)", registry, count=1
    )
    assert found
    entry = entry.replace(base, f"from modelyard.engines import shelf\n{base}", 1)
    (engines / "__init__.py").write_text(entry, encoding="utf-8")
    texts = [
        CATALOGUE,
        CATALOGUE.replace("2.2.0", "2.0.9"),
        CATALOGUE.replace("dust", "burn"),
        CATALOGUE.replace("dust", "call"),
        CATALOGUE.replace("quantization: thin", "preload: true"),
        CATALOGUE.replace("source: {path: /books}, ", ""),
        CATALOGUE.replace("boards: 5", "boards: many"),
        CATALOGUE.replace("type: shelf", "type: shlef"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(texts),
        env={"PYTHONPATH": f"{core}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_new_engine_is_validated(made_up: dict[str, Any]) -> None:
    sound, *wrong = made_up["errors"]
    assert sound == []
    for errors, says in zip(
        wrong,
        [
            "book_shelf 2.0.9 is below 2.1, the minimum version without known vulnerabilities",
            'option "burn" of "novels" is set by the unit, or reaches outside its sandbox',
            'option "call" of "novels" is set by the unit',
            'preload has no effect on "novels"',
            'model "novels" of provider "upstairs" has no source',
            "boards must be a whole number",
            'did you mean "shelf"?',
        ],
        strict=True,
    ):
        assert any(says in error for error in errors), (says, errors)


def test_a_new_engine_is_planned_and_watched(made_up: dict[str, Any]) -> None:
    result = made_up["compiled"]
    host, gateway = result["plans"]["a"], result["plans"]["g"]
    assert result["engine_roles"] == [*(engine.role for engine in ENGINES), "book_shelf"]
    engine = part(host, "book_shelf")
    (only,) = engine["instances"]
    assert engine["version"] == "2.2.0"
    assert (only["service"], only["boards"], only["secrets"]) == (
        "book-shelf@novels",
        5,
        {"API_KEY": "UPSTAIRS_API_KEY"},
    )
    assert only["argv"] == ["--books", MODEL, "--call", "fiction", "--dust", "--key", KEY_FILE]
    assert [
        (s["service"], s["port"], s["variable"])
        for s in host["services"]
        if s["role"] == "book_shelf"
    ] == [("book-shelf@novels", 7000, "llm_providers.upstairs.port")]
    assert [(demand["role"], demand["model"]) for demand in host["demands"]] == [
        ("book_shelf", "novels")
    ]
    assert "http://10.0.0.1:7000/up" in [check.get("url") for check in host["checks"]]
    (job,) = (job for job in gateway["prometheus"]["scrape"] if job["job"] == "book_shelf")
    assert (job["credential"], job["targets"][0]["address"]) == (
        "UPSTAIRS_API_KEY",
        "10.0.0.1:7000",
    )
    assert made_up["gone"] == ["remove"], "a host that the plan gives it no model on loses it"


def test_a_new_engine_is_emitted(made_up: dict[str, Any]) -> None:
    gateway = made_up["compiled"]["plans"]["g"]["litellm"]
    (entry,) = gateway["document"]["model_list"]
    assert entry["litellm_params"]["model"] == "openai/fiction"
    base = "http://127.0.0.1:4003/pool.upstairs.novels"
    assert entry["litellm_params"]["api_base"] == f"{base}/v1"
    assert gateway["rules"]["health"] == {"upstairs/-/novels": base}
    ((name, pool),) = made_up["compiled"]["plans"]["g"]["haproxy"]["pools"].items()
    assert (name, pool["health"]) == ("pool.upstairs.novels", "/up")
    assert pool["servers"] == {"a": {"address": "10.0.0.1", "port": 7000}}
    # It has one, because nothing is loaded on demand.
    assert any(check["name"] == "the gateway answers (novels)" for check in gateway["checks"])


def test_a_new_engine_is_documented(made_up: dict[str, Any]) -> None:
    text = made_up["reference"]
    for heading in ("### llm_providers.NAME.shelf", "### llm_versions.book_shelf"):
        assert f"{heading}\n" in text
    with_key = dict.fromkeys(
        engine.provider_type for engine in ENGINES if "quantization" in engine.keys
    )
    assert (
        f"{', '.join(f'`{kind}`' for kind in with_key)} and `shelf` only: how the weights are"
        " quantized." in text
    )
    assert "How many boards it has." in text
    kinds = made_up["schema"]["definitions"]["Provider"]["properties"]["type"]["anyOf"][0]["enum"]
    assert "shelf" in kinds
