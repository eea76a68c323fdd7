"""Typical mistakes, made in a copy of this tree; docs/mistakes.md is what validate says about them.

Run this file to write docs/mistakes.md anew: `.venv/bin/python tests/plugins/mistakes.py`
"""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from warm import Warm

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/mistakes.md"
TREE = ("ansible.cfg", "group_vars", "inventories/workstation", "playbooks", "plugins")

LEFT_OUT = (".credentials", "__pycache__", "card.yml", ".modelyard.lock")
"""What the copy does without: `card.yml` replaces some of the chains that the mistakes are
about."""

SHIPPED = "group_vars/all"
MINE = "inventories/workstation/group_vars/llm_stack/llm.yml"


@dataclass(frozen=True)
class Mistake:
    """`text` is written to `file`, or replaces `instead_of` there. What is said must hold code,
    place and hint."""

    title: str
    story: str
    file: str
    text: str
    code: str
    line: int | None
    hint: str
    instead_of: str | None = None
    elsewhere: str | None = None
    """The file that the message is about, if not the one with the mistake."""

    @property
    def blamed(self) -> str:
        return self.elsewhere or self.file


MISTAKES = (
    Mistake(
        "A typo in a key",
        "Your values are in the inventory, beside the shipped catalogue. One key is misspelt.",
        MINE,
        """\
        llm_overrides:
          providers:
            llama_cpp_native:
              models:
                - name: llama-cpp-native
                  context_lenght: 8192
        """,
        "unknown-key",
        6,
        'did you mean "context_length"?',
    ),
    Mistake(
        "A typo in the name of a model",
        "The shipped catalogue itself was edited, and a step of a chain is misspelt.",
        f"{SHIPPED}/routing.yml",
        '    qwen-coder-vllm: {chain: ["qwen3-coder:480-cloud", llama-cpp-default]}',
        "unknown-model",
        None,
        'did you mean "qwen3-coder:480b-cloud"?',
        instead_of='    qwen-coder-vllm: {chain: ["qwen3-coder:480b-cloud", llama-cpp-default]}',
    ),
    Mistake(
        "A number in quotes",
        "YAML reads it as text.",
        MINE,
        """\
        llm_overrides:
          gateway:
            port: "4100"
        """,
        "invalid-value",
        3,
        "write the number without quotes",
    ),
    Mistake(
        "The address of one request instead of the API's",
        "The gateway adds the path of each request to `base_url`.",
        MINE,
        """\
        llm_overrides:
          providers:
            mine:
              type: openai_compatible
              base_url: http://10.0.0.5:8000/v1/chat/completions
              models: {my-model: {}}
        """,
        "invalid-value",
        5,
        'write "http://10.0.0.5:8000/v1"',
    ),
    Mistake(
        "The gateway as its own provider",
        "The address is that of the front end, which would call itself.",
        MINE,
        """\
        llm_overrides:
          providers:
            mine:
              type: openai_compatible
              base_url: http://127.0.0.1:4000/v1
              models: {my-model: {}}
          routing:
            fallbacks:
              my-model: {terminal: true}
        """,
        "address-loop",
        5,
        "write the address of what the models run on",
    ),
    Mistake(
        "A number that YAML reads differently",
        "With a zero in front, YAML takes a number for one in base 8.",
        MINE,
        """\
        llm_overrides:
          gateway:
            port: 04100
        """,
        "invalid-value",
        3,
        "write 4100, or 2112 if that is meant",
    ),
    Mistake(
        "An alias that points at nothing",
        "Ollama's models have a tag, and the tag belongs to the name.",
        MINE,
        """\
        llm_overrides:
          routing:
            aliases:
              chat: llama3.1
        """,
        "unknown-alias-target",
        4,
        'did you mean "llama3.1:latest"?',
    ),
    Mistake(
        "A model that is its own fallback by another name",
        "`general` stands for three models, and one of them is the model itself. (Two models may be"
        " each other's fallback.)",
        MINE,
        """\
        llm_overrides:
          routing:
            capabilities:
              general: {models: ["llama3.1:latest", llama-cpp-default, llama-cpp-native]}
            fallbacks:
              "llama3.1:latest": {chain: [general]}
        """,
        "chain-self",
        6,
        'write "llama-cpp-default", "llama-cpp-native" in its place',
    ),
    Mistake(
        "A group that the inventory does not have",
        "A provider is to run on the hosts of a group, and the group has another name.",
        MINE,
        """\
        llm_overrides:
          providers:
            llama_cpp_native:
              group: llm_llama_cpp
        """,
        "unknown-group",
        4,
        'did you mean "llm_llama_cpp_native" or "llm_llama_cpp_python"? Or define it in the'
        " inventory",
    ),
    Mistake(
        "Two engines on one port",
        "llama.cpp runs one process per model, and only the first can have the provider's port.",
        MINE,
        """\
        llm_overrides:
          providers:
            llama_cpp_native:
              models:
                - name: small
                  source: {path: /var/lib/modelyard/models/small.gguf}
          routing:
            fallbacks:
              small: {chain: [llama-cpp-native]}
        """,
        "port-clash",
        5,
        'give "small" its own port, such as port: 8081',
    ),
    Mistake(
        "A key where its name belongs",
        "The catalogue holds names of secrets. The value is not printed.",
        MINE,
        """\
        llm_overrides:
          providers:
            openai:
              status: active
              api_key_env: sk-proj-4f0c0ffee
        """,
        "invalid-value",
        5,
        "write the secret's name here",
    ),
    Mistake(
        "Values in the inventory's group_vars/all",
        "Ansible prefers the playbooks' own `group_vars/all`, and does not report it.",
        "inventories/workstation/group_vars/all/llm.yml",
        """\
        llm_gateway:
          port: 4100
        """,
        "variable-without-effect",
        1,
        "as llm_overrides: {gateway: ...}",
    ),
    Mistake(
        "A typo in the name of the variable",
        "It would have no effect.",
        MINE,
        """\
        llm_overide:
          gateway:
            port: 4100
        """,
        "unknown-variable",
        1,
        'did you mean "llm_overrides"?',
    ),
    Mistake(
        "A version without its source",
        "The version alone was changed, so the old program would run under the new name.",
        MINE,
        """\
        llm_overrides:
          versions:
            llama_cpp: {version: "0.3.40"}
        """,
        "version-mismatch",
        3,
        "change version, source.sdist and its checksum together",
    ),
    Mistake(
        "A secret that YAML changed",
        "Without quotes, `yes` is a boolean: the key would be the text True.",
        MINE,
        """\
        llm_secrets:
          OLLAMA_CLOUD_API_KEY: yes
        """,
        "invalid-value",
        2,
        "put text there, in quotes",
    ),
    Mistake(
        "A setting that is not in the catalogue",
        "It was a variable of a role once, and is misspelt as well.",
        MINE,
        """\
        vllm_bulid: cpu
        """,
        "unknown-variable",
        1,
        'did you mean "vllm_build"? It is in the catalogue',
    ),
    Mistake(
        "A provider was removed, but chains still name it",
        "`null` removes a provider with its models. The chains of the shipped catalogue still name"
        " them.",
        MINE,
        """\
        llm_overrides:
          providers:
            llama_cpp_python: null
        """,
        "unknown-model",
        None,
        "to remove it here, too, add to llm_overrides: {",
        elsewhere=f"{SHIPPED}/routing.yml",
    ),
    Mistake(
        "Values beside the inventory's file",
        "They belong in `group_vars/llm_stack/`: here Ansible takes the variable for a group.",
        "inventories/workstation/llm.yml",
        """\
        llm_overrides:
          gateway:
            port: 4100
        """,
        "variable-without-effect",
        1,
        "move it into a file of group_vars/llm_stack/ beside the inventory",
    ),
    Mistake(
        "Wrong indentation",
        "This is not valid YAML, so Ansible itself stops before Modelyard runs.",
        MINE,
        """\
        llm_overrides:
          gateway:
            port: 4100
           workers: 2
        """,
        "YAML parsing failed",
        4,
        "   workers: 2",
    ),
    Mistake(
        "Another embedding model as a fallback",
        "Vectors of two models cannot be compared, and often have another size.",
        MINE,
        """\
        llm_overrides:
          providers:
            ollama:
              models:
                bge-m3: {mode: embedding}
                nomic-embed-text: {mode: embedding}
          routing:
            fallbacks:
              bge-m3: {chain: [nomic-embed-text]}
              nomic-embed-text: {terminal: true}
        """,
        "chain-vectors",
        9,
        "write terminal: true",
    ),
    Mistake(
        "Requests that share a context",
        "llama-server divides a context that only the model's file knows.",
        MINE,
        """\
        llm_overrides:
          providers:
            llama_cpp_native:
              models:
                wide: {source: {path: /srv/wide.gguf}, port: 8085, options: {parallel: 4}}
          routing:
            fallbacks:
              wide: {terminal: true}
        """,
        "missing-key",
        5,
        "add context_length",
    ),
    Mistake(
        "The page of a file instead of the file",
        "The address was copied from the browser, where Hugging Face shows the file.",
        MINE,
        f"""\
        llm_overrides:
          providers:
            llama_cpp_native:
              models:
                llama-cpp-native:
                  source:
                    url: https://huggingface.co/OWNER/NAME/blob/main/x.gguf
                    sha256: {"0f" * 32}
        """,
        "invalid-value",
        7,
        "resolve/main/x.gguf",
    ),
    Mistake(
        "One GPU twice",
        "The model should be split over two GPUs, but both names are those of one.",
        MINE,
        """\
        llm_gpus:
          - {name: NVIDIA GeForce RTX 4090, memory_mib: 24564, uuid: GPU-5d2b7c3e}
        llm_overrides:
          providers:
            llama_cpp_native:
              models:
                llama-cpp-native:
                  gpus: [0, GPU-5d2b7c3e]
        """,
        "gpu-mismatch",
        8,
        "name it once",
    ),
)

HEAD = """\
# Typical mistakes

Typical mistakes of new users, and how `ansible-playbook playbooks/validate.yml` reports them before
any host is contacted. The output is real: `make docs` makes each mistake in a copy of this tree,
with the shipped chains and llama.cpp on localhost beside Ollama, and writes this page. Shown is the
message of the failed task. Every code is explained in [diagnostics.md](diagnostics.md).
"""


def make(mistake: Mistake, directory: Path, warm: Warm) -> str:
    """Make the mistake in a copy of the tree in `directory`, and return what is printed."""
    for name in TREE:
        source = ROOT / name
        target = directory / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    hosts = directory / "inventories/workstation/hosts.yml"
    text = hosts.read_text(encoding="utf-8")
    hosts.write_text(
        text.replace("llm_llama_cpp_native: {}", "llm_llama_cpp_native: {hosts: {localhost: }}"),
        "utf-8",
    )
    file = directory / mistake.file
    if mistake.instead_of is not None:
        text = file.read_text(encoding="utf-8")
        if text.count(mistake.instead_of) != 1:
            raise ValueError(
                f"{mistake.title}: {mistake.file} does not hold {mistake.instead_of!r} once"
            )
        file.write_text(text.replace(mistake.instead_of, mistake.text), encoding="utf-8")
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(mistake.text), encoding="utf-8")
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("ANSIBLE_") and not k.endswith("_API_KEY")
    }
    done = warm.run(
        ["ansible-playbook", "playbooks/validate.yml"],
        directory,
        {**clean, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "120"},
    )
    return done.stdout.replace(f"{directory}/", "")


def message(output: str) -> str:
    """The message of the failed task; all of the output if it did not come so far."""
    _head, found, rest = output.partition("    msg: |-\n")
    if not found:
        return output[output.index("[ERROR]") :].strip("\n")
    return textwrap.dedent(rest.partition("\n\n")[0])


def section(mistake: Mistake, output: str) -> str:
    """What the page says of one mistake."""
    number = 1 + MISTAKES.index(mistake)
    written = textwrap.indent(textwrap.dedent(mistake.text), "    ")
    said = textwrap.indent(message(output), "    ")
    return (
        f"## {number}."
        f" {mistake.title}\n\n{mistake.story}\n\n`{mistake.file}`:\n\n{written.rstrip()}\n\n"
        f"Output:\n\n{said}\n"
    )


def write(directory: Path) -> None:
    """Make all mistakes, each in a copy of its own below `directory`, and write the page."""
    places = [directory / str(number) for number in range(len(MISTAKES))]
    with Warm() as warm, ThreadPoolExecutor(2) as pool:
        outputs = pool.map(make, MISTAKES, places, [warm] * len(places))
        PAGE.write_text("\n".join([HEAD, *map(section, MISTAKES, outputs)]), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch))
