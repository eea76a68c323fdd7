"""A JSON Schema for editors of variables files, made from the schema:
docs/catalogue.schema.json.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from modelyard.catalogue.hosts import HostVariables
from modelyard.catalogue.overrides import is_atomic
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.kinds import Strict

Node = dict[str, Any]

REF = "#/definitions/"
TEMPLATE = r"\{[{%]"
"""Any value may be a template of variables in the inventory; what comes out of it only the compiler
can check."""

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
    """What a user may set for a run, most of it on the command line: `-e llm_graph=graph.md`."""

    secrets: dict[str, str] | None = Field(
        None, examples=[{"OPENAI_API_KEY": "{{ vault_openai_api_key }}"}]
    )
    """Secrets by name; keep them in a vault. A name that is not here is looked up in the
    environment, then in `.credentials/` beside the inventory."""
    allow_removal: bool = Field(False, examples=[True])
    """Lets `site.yml` remove public names that are live. Without it such a plan is refused."""
    full: bool = Field(False, examples=[True])
    """Lets `site.yml` run every role on every host, also where nothing has changed."""
    environment: Literal["production", "staging", "lab"] = Field("production", examples=["staging"])
    """What the inventory is for. `playbooks/drill.yml` breaks things on `staging` and `lab` without
    asking twice."""
    report: str | None = Field(None, examples=["/tmp/report.json"])
    """A file on the controller that gets all diagnostics as JSON."""
    graph: str | None = Field(None, examples=["graph.md"])
    """A file on the controller that gets the fallbacks as a Mermaid flowchart, within Markdown if
    its name ends in `.md`."""


ROOTS: tuple[type[BaseModel], ...] = (Catalogue, HostVariables, RunVariables)
"""Their keys, with llm_ before them, are the variables; llm_overrides is made from the first."""


# -- the schema's definitions ----------------------------------------------------------------------


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def generate(self, schema: CoreSchema, mode: Any = "validation") -> Node:
        return _normal(super().generate(schema, mode))


def definitions() -> dict[str, Node]:
    """Every object by the name of its class, in one form: one `type` (or list of types), `enum`,
    `$ref` or `anyOf`.
    """
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
    """Alternatives as one node where that means the same: each constraint is about one type
    only.
    """
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
    """Return the JSON types a node allows."""
    kind = node.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def target(node: Node) -> str | None:
    """Return the name of the definition a node refers to; None if it refers to none."""
    for candidate in (node, *node.get("anyOf", ())):
        if "$ref" in candidate:
            return str(candidate["$ref"]).removeprefix(REF)
    return None


# -- for editors -----------------------------------------------------------------------------------


def variables_schema() -> Node:
    """Return a JSON Schema (draft 7, which all editors know) for a file of variables, like those in
    `group_vars`.

    Variables that do not begin with `llm_` are left alone. It says what the schema says of each
    key; what needs two keys or the inventory, only the compiler says.
    """
    found = definitions()
    overrides = _Overrides(found).definition("Catalogue", ())
    found["CatalogueOverride"]["description"] = (
        "Merged over the catalogue key by key, models by name; null removes."
    )
    properties = {
        f"llm_{key}": node
        for root in ROOTS
        for key, node in found.pop(root.__name__)["properties"].items()
    }
    # False is off, true is on with nothing else said.
    properties["llm_monitoring"]["anyOf"].append({"type": "boolean"})
    properties["llm_overrides"] = overrides
    known = "|".join(sorted(name.removeprefix("llm_") for name in properties))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "description": (
            "Variables of Modelyard. Made by scripts/docs.py from src/modelyard/catalogue."
        ),
        "type": ["object", "null"],
        "properties": {name: _templated(node) for name, node in properties.items()},
        "patternProperties": {
            "^llm_overrides_": overrides,
            f"^llm_(?!({known})$|overrides_)": False,
        },
        "definitions": {
            **{name: _templated(node) for name, node in found.items()},
            "Template": {"type": "string", "pattern": TEMPLATE},
        },
    }


class _Overrides:
    """What overrides may say (`modelyard.catalogue.overrides`): every key may be left out, and
    `null` removes it.
    """

    def __init__(self, found: dict[str, Node]) -> None:
        self.found = found

    def definition(self, name: str, path: Path) -> Node:
        """Return a reference to the override's form of a definition, which is made if it does not
        exist yet.
        """
        made = f"{name}Override"
        if made not in self.found:
            self.found[made] = {}  # keeps its place before what it refers to
            base = self.found[name]
            self.found[made] |= {
                "description": base["description"],
                "type": ["object", "null"],
                "properties": {
                    key: self.key(name, key, (*path, key)) for key in base["properties"]
                },
                "additionalProperties": False,
            }
        return {"$ref": f"{REF}{made}"}

    def key(self, owner: str, key: str, path: Path) -> Node:
        node = self.found[owner]["properties"][key]
        notes = {word: node[word] for word in ANNOTATIONS if word in node}
        if path == ("providers", "*", "models"):
            return self.models(node, path)
        if isinstance(node.get("additionalProperties"), dict):
            return _nullable(
                {
                    **node,
                    "additionalProperties": self.value(node["additionalProperties"], (*path, "*")),
                }
            )
        if target(node) is None and _is_nullable(node):
            return {"$ref": f"{REF}{owner}/properties/{key}"}
        return {**self.value(node, path), **notes}

    def value(self, node: Node, path: Path) -> Node:
        inner = target(node)
        return self.definition(inner, path) if inner and not is_atomic(path) else _nullable(node)

    def models(self, node: Node, path: Path) -> Node:
        """Return the schema of a list, whose entries are found by their name, or a mapping NAME:
        model.
        """
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
    return (
        "null" in types(node)
        or None in node.get("enum", ())
        or {"type": "null"} in node.get("anyOf", ())
    )


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
        out["propertyNames"] = {
            key: value for key, value in out["propertyNames"].items() if key != "kind"
        }
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
        out |= {
            "type": [*kinds, "string"],
            "pattern": TEMPLATE,
            "patternErrorMessage": QUOTED[kinds[0]],
        }
    return out


def schema_text() -> str:
    """Return the content of docs/catalogue.schema.json."""
    return json.dumps(variables_schema(), indent=1, ensure_ascii=False) + "\n"
