"""What a variables file may say, for people: docs/catalogue.md, made from the schema.

`scripts/docs.py` writes it, and the JSON Schema for editors; a test proves that they are current.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from modelyard.catalogue.editors import ROOTS, Node, RunVariables, definitions, target, types
from modelyard.catalogue.hosts import HostVariables
from modelyard.catalogue.schema import Catalogue

INTRODUCTION = """\
# The catalogue

Every variable of Modelyard, with every key. Made by `make docs` from `src/modelyard/catalogue`: do not edit.

Editors with yaml-language-server (VS Code with the YAML extension, Neovim, Emacs, ...) complete the keys, show this
text and underline what is wrong in the shipped files. For a file of yours write its path to
[catalogue.schema.json](catalogue.schema.json), from that file or absolute, into a comment at the top:

```yaml
# yaml-language-server: $schema=../../../../docs/catalogue.schema.json
```

Unknown keys and values of another type are refused: a port in quotes is text, not a number. Any value may be a
template (`"{{ ... }}"`); [Templates](#templates) says of what. What else is refused, and what to do about it, is in
[diagnostics.md](diagnostics.md).

Write your values into `inventories/NAME/group_vars/llm_stack/`, as [overrides](#overrides) of the shipped ones.
In an inventory's own `group_vars/all` or `vars:` they would lose to the shipped `group_vars/all`, and are refused
([variable-without-effect](diagnostics.md#variable-without-effect)).

`NAME` stands for a name you choose, `[]` for each entry of a list.
"""

TEMPLATES = """\
## Templates

The catalogue is compiled on the controller before any host is contacted, and is the same for all hosts. A template may
use:

- variables of the inventory, of `group_vars/llm_stack` and of `-e`; a number from one needs `| int` if it is text
- `inventory_hostname`, `group_names` and `groups`
- what is read on the controller: `lookup('env', 'NAME')`, `lookup('file', '/path')`

It cannot use `hostvars` (set the value in `group_vars/llm_stack`, and use that variable in both places), nor facts
(`ansible_facts`, `ansible_default_ipv4`) or registered variables: write these values out, as `llm_address` of a host.
A template that gives another value for another host is refused
([differing-catalogues](diagnostics.md#differing-catalogues)).
"""

OVERRIDES = """\
## Overrides

`llm_overrides` and any `llm_overrides_*` change the catalogue without copying it. They have the keys `providers`,
`routing`, `gateway`, `clients`, `monitoring`, `versions` and `rollout`, and below them those of this page:

```yaml
llm_overrides:
  providers:
    local:
      port: 8090                    # key by key
      models:
        qwen2.5-coder:7b:           # models by name, in a mapping or in a list (- name: qwen2.5-coder:7b)
          context_length: 8192
    spare: null                     # null removes
  routing:
    fallbacks:
      llama3.1:latest: {terminal: true}
```

- Every `llm_overrides_*` is merged in the order of their names, then `llm_overrides`, then
  `llm_overrides_switched`, which `playbooks/switch_model.yml` writes.
- Mappings are merged key by key; lists and other values are replaced, but the models of a provider are merged by
  name.
- A `source` and an entry of `routing.*fallbacks` are replaced whole, because half of one beside half of another
  would not be valid.
- `null` removes; a name with nothing below it is `null`. To remove what is not there is refused
  ([unknown-override](diagnostics.md#unknown-override)), and so is `null` for a whole section or a part of one
  (`fallbacks:`, `models:`). A model that needs no keys is `NAME: {}`. Where `null` is a value of the key, as of
  `probe_interval_s`, it is set.
- Overrides are for the whole inventory; hosts that see different ones are refused
  ([differing-catalogues](diagnostics.md#differing-catalogues)).
"""

CHAPTERS: dict[type[BaseModel], list[str]] = {
    HostVariables: [
        "## Variables of a host\n",
        "In `host_vars`, or beside the host in the inventory.\n",
    ],
    RunVariables: [
        "## Secrets, and settings of a run\n",
        "Settings are given on the command line: `-e llm_graph=a.md`.\n",
    ],
}


def catalogue_text() -> str:
    """Return the content of docs/catalogue.md."""
    return "\n".join([INTRODUCTION, *_Chapters(definitions()).text()])


class _Chapters:
    """One section per object, named by the path at which it first stands; other places link to
    it.
    """

    def __init__(self, found: Mapping[str, Node]) -> None:
        self.found = found
        self.paths: dict[str, str] = {}
        for root in ROOTS:
            for key, node in found[root.__name__]["properties"].items():
                self.place(node, f"llm_{key}")

    def place(self, node: Node, path: str) -> None:
        name = target(node)
        if name and name not in self.paths:
            self.paths[name] = path
            for key, child in self.found[name]["properties"].items():
                self.place(child, f"{path}.{key}")
        if isinstance(node.get("additionalProperties"), dict):
            self.place(node["additionalProperties"], f"{path}.NAME")
        if "items" in node:
            self.place(node["items"], f"{path}[]")

    def text(self) -> Iterator[str]:
        for root in ROOTS:
            yield from CHAPTERS.get(root, ())
            for key, node in self.found[root.__name__]["properties"].items():
                variable = f"llm_{key}"
                if root is Catalogue:
                    yield f"## {variable}\n"
                if self.paths.get(str(target(node))) != variable:
                    yield self.item(variable, node, required=False)
                for name, path in self.paths.items():
                    if re.match(rf"{variable}\b", path):
                        yield from self.object(name, path)
            if root is Catalogue:
                yield TEMPLATES
                yield OVERRIDES
        yield "## Kinds of text\n"
        yield "What the compiler and the editor say of text that does not look as it must.\n"
        kinds = dict(sorted(_kinds(list(self.found.values())), key=lambda kind: kind[0].lower()))
        yield "\n".join(f"- **{kind}**: {form}" for kind, form in kinds.items()) + "\n"

    def object(self, name: str, path: str) -> Iterator[str]:
        definition = self.found[name]
        if "." in path or path.endswith("[]"):
            yield f"### {path}\n"
        yield f"{definition['description']}\n"
        for key, node in definition["properties"].items():
            yield self.item(key, node, required=key in definition.get("required", ()))

    def item(self, key: str, node: Node, *, required: bool) -> str:
        kind = self.kind(node) + (f", in {node['unit']}" if "unit" in node else "")
        presence = (
            "required"
            if required
            else f"default `{flow(node['default'])}`"
            if "default" in node
            else "optional"
        )
        description = node.get("description") or self.found[str(target(node))]["description"]
        examples = " or ".join(f"`{key}: {flow(example)}`" for example in node["examples"])
        return "\n".join(
            [
                f"- **`{key}`** ({kind}; {presence})\\",
                *_wrapped(f"{description}\\"),
                f"  Example: {examples}\n",
            ]
        )

    def kind(self, node: Node, plural: str = "") -> str:
        """Return the type in words; with `plural` ("s") that of several."""
        name = target(node)
        if name:
            return f"[mapping{plural}](#{anchor(self.paths[name])})"
        if "enum" in node:
            return _either([f"`{flow(value)}`" for value in node["enum"] if value is not None])
        return _either([word for kind in types(node) for word in self.words(kind, node, plural)])

    def words(self, kind: str, node: Node, plural: str) -> list[str]:
        if kind == "null":
            return []
        if kind == "boolean":
            return ["`true`", "`false`"]
        if kind == "array":
            return [f"list of {self.kind(node['items'], 's')}"]
        if kind == "object":
            names = _plural(node.get("propertyNames", {}).get("kind", "name"))
            return [f"mapping of {names} to {self.kind(node['additionalProperties'], 's')}"]
        if kind == "string":
            word = str(node.get("kind", "text"))
            return [_plural(word) if plural else word]
        return [("whole number" if kind == "integer" else "number") + plural + _range(node)]


def anchor(heading: str) -> str:
    """Return the link to a heading, as GitHub makes it."""
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def flow(value: Any) -> str:
    """Return a value as one line of YAML."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def _plural(word: str) -> str:
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _range(node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if "exclusiveMinimum" in node:
        return f" above {node['exclusiveMinimum']}" + (
            f" and at most {high}" if high is not None else ""
        )
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""


def _kinds(nodes: list[Any]) -> Iterator[tuple[str, str]]:
    """Every kind of text with what the compiler says of text that is not of it."""
    for node in nodes:
        if isinstance(node, dict):
            if "kind" in node and "integer" not in types(node):
                yield node["kind"], node["patternErrorMessage"]
            yield from _kinds(list(node.values()))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        118,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
