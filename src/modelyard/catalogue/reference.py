"""What a variables file may say, made from the schema: a JSON Schema for editors, and docs/catalogue.md for people.

`scripts/docs.py` writes both files; a test proves that they are current.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from modelyard.catalogue.overrides import is_atomic
from modelyard.catalogue.schema import Catalogue, HostVariables
from modelyard.catalogue.sourcemap import Path
from modelyard.kinds import Strict

Node = dict[str, Any]

REF = "#/definitions/"
TEMPLATE = r"\{[{%]"
"""Any value may be a template of variables in the inventory; what comes out of it only the compiler can check."""

QUOTED = {
    "integer": "write a whole number, without quotes",
    "number": "write a number, without quotes",
    "boolean": "write true or false, without quotes",
    "array": "write a list",
    "object": "write a mapping",
}
"""What an editor says of text where something else belongs, by the type that does."""

BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "le": "maximum"}
"""Pydantic leaves the bounds of a union as it names them; JSON Schema has these words."""

ANNOTATIONS = ("description", "default", "examples")


class RunVariables(Strict):
    """What a user may say of a run. Most of it stands on the command line: `-e llm_graph=graph.md`."""

    secrets: dict[str, str] | None = Field(None, examples=[{"OPENAI_API_KEY": "{{ vault_openai_api_key }}"}])
    """Secrets by name; keep them in a vault. A name that is not here is looked up in the environment, then in
    `.credentials/` beside the inventory."""
    allow_removal: bool = Field(False, examples=[True])
    """Lets `site.yml` remove public names that are live. Without it such a plan is refused."""
    environment: Literal["production", "staging", "lab"] = Field("production", examples=["staging"])
    """What the inventory is for. `playbooks/drill.yml` breaks things on `staging` and `lab` without asking twice."""
    report: str | None = Field(None, examples=["/tmp/report.json"])
    """A file on the controller that gets all diagnostics as JSON."""
    graph: str | None = Field(None, examples=["graph.md"])
    """A file on the controller that gets who steps in for whom as a Mermaid flowchart, within Markdown if its name
    ends in `.md`."""


ROOTS: tuple[type[BaseModel], ...] = (Catalogue, HostVariables, RunVariables)
"""Their keys, with llm_ before them, are the variables; llm_overrides is made from the first."""


# -- the schema's definitions ------------------------------------------------------------------------------


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: CoreSchema, mode: Any = "validation") -> Node:
        return _normal(super().generate(schema, mode))


def definitions() -> dict[str, Node]:
    """Every object by the name of its class, in one form: one `type` (or list of types), `enum`, `$ref` or `anyOf`."""
    found: dict[str, Node] = {}
    for root in ROOTS:
        schema = root.model_json_schema(ref_template=f"{REF}{{model}}", schema_generator=_Generator)
        found |= schema.pop("$defs", {})
        found[root.__name__] = schema
    return found


def _normal(node: Node) -> Node:
    out: Node = {BOUNDS.get(key, key): value for key, value in node.items() if key != "title"}
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if out.get("default") is None or target(out):
        out.pop("default", None)  # An object's default is that of each of its keys.
    if "const" in out:
        out["enum"] = [out.pop("const")]
    if "enum" in out:
        out.pop("type", None)
    for key in ("properties", "$defs"):
        if key in out:
            out[key] = {name: _normal(child) for name, child in out[key].items()}
    if "items" in out:
        out["items"] = _normal(out["items"])
    if "patternProperties" in out:
        # The same, said so that an editor can explain a name that does not match.
        ((pattern, value),) = out.pop("patternProperties").items()
        out["propertyNames"] = {"pattern": pattern, **out.get("propertyNames", {})}
        out["additionalProperties"] = _normal(value)
    elif isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _normal(out["additionalProperties"])
    if "anyOf" in out:
        out = _one_of([_normal(alternative) for alternative in out.pop("anyOf")], out)
    return out


def _one_of(alternatives: list[Node], around: Node) -> Node:
    """Alternatives as one node where that means the same: each constraint is about one type only."""
    null = {"type": "null"} in alternatives
    others = [alternative for alternative in alternatives if alternative != {"type": "null"}]
    if len(others) == 1 and "enum" in others[0]:
        return {**others[0], **around, "enum": [*others[0]["enum"], *([None] if null else [])]}
    if not all("type" in alternative for alternative in others):
        return {"anyOf": alternatives, **around}
    kinds = [kind for alternative in alternatives for kind in types(alternative)]
    merged: Node = {}
    for alternative in others:
        merged |= alternative
    kinds = [kind for kind in dict.fromkeys(kinds) if not (kind == "integer" and "number" in kinds)]
    return {**merged, **around, "type": kinds[0] if len(kinds) == 1 else kinds}


def types(node: Node) -> list[str]:
    """The JSON types a node allows."""
    kind = node.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def target(node: Node) -> str | None:
    """The definition a node stands for, if it does."""
    for candidate in (node, *node.get("anyOf", ())):
        if "$ref" in candidate:
            return str(candidate["$ref"]).removeprefix(REF)
    return None


# -- for editors -------------------------------------------------------------------------------------------


def variables_schema() -> Node:
    """A JSON Schema (draft 7, which all editors know) for a file of variables, like those in `group_vars`.

    Variables that do not begin with `llm_` are left alone. It says what the schema says of each key; what needs two
    keys or the inventory, only the compiler says.
    """
    found = definitions()
    overrides = _Overrides(found).definition("Catalogue", ())
    found["CatalogueOverride"]["description"] = "Merged over the catalogue key by key, models by name; null removes."
    properties = {f"llm_{key}": node for root in ROOTS for key, node in found.pop(root.__name__)["properties"].items()}
    # False is off, true is on with nothing else said.
    properties["llm_monitoring"]["anyOf"].append({"type": "boolean"})
    properties["llm_overrides"] = overrides
    known = "|".join(sorted(name.removeprefix("llm_") for name in properties))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "description": "Variables of Modelyard. Made by scripts/docs.py from src/modelyard/catalogue/schema.py.",
        "type": ["object", "null"],
        "properties": {name: _templated(node) for name, node in properties.items()},
        "patternProperties": {"^llm_overrides_": overrides, f"^llm_(?!({known})$|overrides_)": False},
        "definitions": {
            **{name: _templated(node) for name, node in found.items()},
            "Template": {"type": "string", "pattern": TEMPLATE},
        },
    }


class _Overrides:
    """What overrides may say (`modelyard.catalogue.overrides`): every key may be left out, and `null` removes it."""

    def __init__(self, found: dict[str, Node]) -> None:
        self.found = found

    def definition(self, name: str, path: Path) -> Node:
        """A reference to the override's form of a definition, which is made if it does not exist yet."""
        made = f"{name}Override"
        if made not in self.found:
            self.found[made] = {}  # keeps its place before what it refers to
            base = self.found[name]
            self.found[made] |= {
                "description": base["description"],
                "type": ["object", "null"],
                "properties": {key: self.key(name, key, (*path, key)) for key in base["properties"]},
                "additionalProperties": False,
            }
        return {"$ref": f"{REF}{made}"}

    def key(self, owner: str, key: str, path: Path) -> Node:
        node = self.found[owner]["properties"][key]
        notes = {word: node[word] for word in ANNOTATIONS if word in node}
        if path == ("providers", "*", "models"):
            return self.models(node, path)
        if isinstance(node.get("additionalProperties"), dict):
            return _nullable({**node, "additionalProperties": self.value(node["additionalProperties"], (*path, "*"))})
        if target(node) is None and _is_nullable(node):
            return {"$ref": f"{REF}{owner}/properties/{key}"}
        return {**self.value(node, path), **notes}

    def value(self, node: Node, path: Path) -> Node:
        inner = target(node)
        return self.definition(inner, path) if inner and not is_atomic(path) else _nullable(node)

    def models(self, node: Node, path: Path) -> Node:
        """A list, whose entries are found by their name, or a mapping NAME: model."""
        name = str(target(node["items"]))
        model = self.definition(name, (*path, 0))
        merged = "A list, or a mapping NAME: model; merged by name, and null removes."
        return {
            "description": f"{node['description']} {merged}",
            "type": ["array", "object", "null"],
            "items": {"allOf": [model, {"type": "object", "required": ["name"]}]},
            "propertyNames": self.found["Routing"]["properties"]["aliases"]["propertyNames"],
            "additionalProperties": model,
        }


def _is_nullable(node: Node) -> bool:
    return "null" in types(node) or None in node.get("enum", ()) or {"type": "null"} in node.get("anyOf", ())


def _nullable(node: Node) -> Node:
    if _is_nullable(node):
        return node
    if "enum" in node:
        return {**node, "enum": [*node["enum"], None]}
    if "$ref" in node:
        notes = {key: value for key, value in node.items() if key != "$ref"}
        return {"anyOf": [{"$ref": node["$ref"]}, {"type": "null"}], **notes}
    return {**node, "type": [*types(node), "null"]}


def _templated(node: Node) -> Node:
    """Allow a template in place of every value."""
    out = dict(node)
    if "unit" in out:
        out["description"] += f" Unit: {out.pop('unit')}."
    out.pop("kind", None)
    if "propertyNames" in out:
        out["propertyNames"] = {key: value for key, value in out["propertyNames"].items() if key != "kind"}
    if "properties" in out:
        out["properties"] = {key: _templated(child) for key, child in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _templated(out[key])
    for key in ("anyOf", "allOf"):
        if key in out:
            out[key] = [_templated(child) for child in out[key]]
    if "enum" in out:
        out["anyOf"] = [{"enum": out.pop("enum")}, {"$ref": f"{REF}Template"}]
    kinds = types(out)
    if "string" in kinds:
        if "pattern" in out:
            out["pattern"] = f"{out['pattern']}|{TEMPLATE}"
    elif kinds and kinds != ["null"]:
        out |= {"type": [*kinds, "string"], "pattern": TEMPLATE, "patternErrorMessage": QUOTED[kinds[0]]}
    return out


def schema_text() -> str:
    """The content of docs/catalogue.schema.json."""
    return json.dumps(variables_schema(), indent=1, ensure_ascii=False) + "\n"


# -- for people --------------------------------------------------------------------------------------------

INTRODUCTION = """\
# The catalogue

Every variable of Modelyard, with every key. Made by `make docs` from `src/modelyard/catalogue/schema.py`: do not edit.

Editors with yaml-language-server (VS Code with the YAML extension, Neovim, Emacs, ...) complete the keys, show this
text and underline what is wrong in the shipped files. For a file of yours write its path to
[catalogue.schema.json](catalogue.schema.json), from that file or absolute, into a comment at the top:

```yaml
# yaml-language-server: $schema=../../../../docs/catalogue.schema.json
```

Unknown keys and values of another type are refused: a port in quotes is text, not a number. Any value may be a
template (`"{{ ... }}"`) of variables in the inventory, but not of facts. What else is refused, and what to do about
it, is in [diagnostics.md](diagnostics.md).

Write your values into `inventories/NAME/group_vars/llm_stack/`, as [overrides](#overrides) of the shipped ones.
In an inventory's own `group_vars/all` or `vars:` they would lose to the shipped `group_vars/all`, and are refused
([variable-without-effect](diagnostics.md#variable-without-effect)).

`NAME` stands for a name you choose, `[]` for each entry of a list.
"""

OVERRIDES = """\
## Overrides

`llm_overrides` and any `llm_overrides_*` change the catalogue without copying it. They have the keys `providers`,
`routing`, `gateway`, `clients`, `monitoring` and `versions`, and below them those of this page:

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
- `null` removes. To remove what is not there is refused
  ([unknown-override](diagnostics.md#unknown-override)).
- Overrides are for the whole inventory; hosts that see different ones are refused
  ([differing-catalogues](diagnostics.md#differing-catalogues)).
"""

CHAPTERS: dict[type[BaseModel], list[str]] = {
    HostVariables: ["## Variables of a host\n", "In `host_vars`, or beside the host in the inventory.\n"],
    RunVariables: ["## Secrets, and settings of a run\n", "Settings stand on the command line: `-e llm_graph=a.md`.\n"],
}


def catalogue_text() -> str:
    """The content of docs/catalogue.md."""
    return "\n".join([INTRODUCTION, *_Chapters(definitions()).text()])


class _Chapters:
    """One section per object, named by the path at which it first stands; other places link to it."""

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
        presence = "required" if required else f"default `{flow(node['default'])}`" if "default" in node else "optional"
        description = node.get("description") or self.found[str(target(node))]["description"]
        examples = " or ".join(f"`{key}: {flow(example)}`" for example in node["examples"])
        return "\n".join(
            [f"- **`{key}`** ({kind}; {presence})\\", *_wrapped(f"{description}\\"), f"  Example: {examples}\n"]
        )

    def kind(self, node: Node, plural: str = "") -> str:
        """The type in words; with `plural` ("s") that of several."""
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
    """The link to a heading, as GitHub makes it."""
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def flow(value: Any) -> str:
    """A value as one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _plural(word: str) -> str:
    return f"{word}es" if word.endswith("s") else f"{word}s"


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _range(node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if "exclusiveMinimum" in node:
        return f" above {node['exclusiveMinimum']}" + (f" and at most {high}" if high is not None else "")
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
        text, 118, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
