"""Requests that an engine does not survive: constraints on its answer that it cannot make a grammar
of.

Some engines end their process, and with it the answers of everybody else, when a grammar has a
fault: llama.cpp's library gives them none then, and they go on without looking. Which fields are
concerned, and how much of a schema is understood, is in the module of the engine
(src/modelyard/engines). Another step of the chain may take what is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import litellm
from litellm.exceptions import BadRequestError
from litellm.integrations.custom_logger import CustomLogger

from modelyard_gateway.rules import Constraint

REPEATED = 1000
"""The most that a schema or a pattern may repeat. llama.cpp takes 2,000 (llama-grammar.cpp,
MAX_REPETITION_THRESHOLD)."""
OPTIONAL = 200
"""The most properties of an object that may be left out: the grammar grows with the square."""
DEEP = 50
"""Levels of a schema."""
NODES = 5000
"""Schemas within a schema, and values of enumerations."""
PATTERN = 200
"""Characters of a pattern."""

LARGEST = 2**53
"""The largest number: the largest that JavaScript counts exactly, which its libraries write as the
bound of any whole number."""

BOUNDS = frozenset("minimum maximum exclusiveMinimum exclusiveMaximum".split())
COUNTS = frozenset("minLength maxLength minItems maxItems".split())
CHOICES = frozenset("anyOf oneOf allOf enum type".split())
PLAIN = re.compile(r"[^\"\\\x00-\x1f]*")
"""Text that is the same in a grammar."""
EXPRESSION = re.compile(
    r"""\^(?: [^\\^$.*+?{}()\[\]|"] | \\[.+*?()\[\]{}|^$]   # a character, also a quoted one
        | \. | \| | \( (?!\?) | \) | [*+?] | \{\d{1,3}(?:,\d{0,3})?\}
        | \[\^? [^\\\[\]"]+ \] )*\$""",
    re.VERBOSE,
)
"""What is understood of regular expressions (json-schema-to-grammar.cpp, `_visit_pattern`): no
look-ahead, no references, no named groups, no classes by a letter."""


class Unfit(BadRequestError):  # noqa: N818  # a refusal
    """A request that is not passed on to an engine, because it would not survive it."""

    def __init__(self, field: str, message: str, model: str) -> None:
        super().__init__(message=message, model=model, llm_provider="openai")
        self.param = field


class Misfit(ValueError):  # noqa: N818  # it is raised and caught here
    """What is wrong with a schema."""


class Constraints(CustomLogger):
    """LiteLLM's word that it is about to ask a deployment."""

    def __init__(self, constraints: Mapping[str, Constraint]) -> None:
        super().__init__()
        self.constraints = constraints

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: object
    ) -> dict[str, Any] | None:
        """Raise Unfit instead of ending an engine."""
        known = self.constraints.get((kwargs.get("model_info") or {}).get("id", ""))
        if known is not None:
            check(kwargs, known)
        return None


def mend(constraints: Mapping[str, Constraint]) -> None:
    """Be asked before a deployment is. `constraints`: by its id what it does not survive."""
    litellm.callbacks.append(Constraints(constraints))


def check(asked: Mapping[str, Any], known: Constraint) -> None:
    """Raise Unfit if a request has a field that is refused, or a schema that is not understood."""
    model = str(asked.get("model"))
    for name in known.refused:
        if asked.get(name) is not None:
            raise Unfit(name, f"{name!r} is not taken by this model's engine.", model)
    for name in known.schemas:
        for schema in schemas(asked.get(name)):
            try:
                Schema(plain=known.plain, root=schema).check(schema, 0)
            except Misfit as wrong:
                text = f"The schema in {name!r} is not taken by this model's engine: {wrong}."
                raise Unfit(name, text, model) from None


def schemas(value: object) -> Iterator[object]:
    """The schemas in a field, however its API packs them."""
    if isinstance(value, list):
        for one in value:
            yield from schemas(one)
    elif isinstance(value, dict):
        for name in ("schema", "parameters"):
            if value.get(name) is not None:
                yield value[name]
        for name in ("json_schema", "format", "function"):
            yield from schemas(value.get(name))


class Schema:
    """One schema, which is looked through."""

    def __init__(self, *, plain: bool, root: object) -> None:
        self.plain = plain
        self.root = root
        self.left = NODES
        self.whole: set[int] = set()
        """Those that are seen to be in no circle."""

    def check(self, schema: object, level: int) -> None:
        """Raise Misfit."""
        values = schema.get("enum") if isinstance(schema, dict) else None
        self.left -= 1 + (len(values) if isinstance(values, list) else 0)
        if level > DEEP or self.left < 0:
            raise Misfit("it is too large")
        if not isinstance(schema, dict):
            return
        self.check_values(schema)
        for inner in parts(schema):
            self.check(inner, level + 1)
        self.check_circle(schema, ())

    def check_values(self, schema: Mapping[str, Any]) -> None:
        """Raise Misfit if a key has a value that no grammar is made of."""
        check_numbers(schema)
        for name in CHOICES & schema.keys():
            if schema[name] == [] or (name != "type" and not isinstance(schema[name], list)):
                raise Misfit(f"{name} has to be a list that is not empty")
        if schema.get("pattern") is not None:
            self.check_pattern(schema["pattern"])
        properties, needed = schema.get("properties"), schema.get("required")
        names = properties if isinstance(properties, dict) else {}
        needed = needed if isinstance(needed, list) else []
        if len(names) > OPTIONAL + len(names.keys() & {str(name) for name in needed}):
            raise Misfit(f"more than {OPTIONAL} properties may be left out")
        if self.plain and not all(map(is_plain, texts(schema))):
            raise Misfit("names and values have to be text without quotes, or whole numbers")

    def check_pattern(self, pattern: object) -> None:
        """Raise Misfit."""
        text = pattern if isinstance(pattern, str) else ""
        if len(text) > PATTERN or EXPRESSION.fullmatch(text) is None or self.plain:
            raise Misfit("its pattern is not understood")
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError):
            raise Misfit("its pattern is not understood") from None

    def check_circle(self, schema: Mapping[str, Any], above: tuple[int, ...]) -> None:
        """Raise Misfit if a schema is itself, with nothing between."""
        if id(schema) in above:
            raise Misfit("it is defined by itself")
        if id(schema) in self.whole:
            return
        inner = [
            one
            for name in ("anyOf", "oneOf", "allOf")
            if isinstance(schema.get(name), list)
            for one in schema[name]
        ]
        if isinstance(schema.get("$ref"), str):
            inner.append(self.target(schema["$ref"]))
        for one in inner:
            if isinstance(one, dict):
                self.check_circle(one, (*above, id(schema)))
        self.whole.add(id(schema))

    def target(self, reference: str) -> object:
        """What is referred to. Raises Misfit."""
        found: object = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step) if isinstance(found, dict) else None
        if found is None or not reference.startswith("#"):
            raise Misfit("$ref has to name a part of it")
        return found


def check_numbers(schema: Mapping[str, Any]) -> None:
    """Raise Misfit if a number is none, or too large."""
    for name in COUNTS & schema.keys():
        if not isinstance(schema[name], int) or not 0 <= schema[name] <= REPEATED:
            raise Misfit(f"{name} has to be a whole number up to {REPEATED}")
    for name in BOUNDS & schema.keys():
        if not isinstance(schema[name], int | float) or abs(schema[name]) > LARGEST:
            raise Misfit(f"{name} has to be a number up to 2^53")
    for least, most in (("minLength", "maxLength"), ("minItems", "maxItems")):
        if schema.get(least, 0) > schema.get(most, REPEATED):
            raise Misfit(f"{least} is larger than {most}")


def is_plain(value: object) -> bool:
    """Whether it is the same in a grammar."""
    return isinstance(value, str | int) and PLAIN.fullmatch(str(value)) is not None


def parts(schema: Mapping[str, Any]) -> Iterator[object]:
    """The schemas that a schema consists of."""
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            yield from schema[name].values()
    for name in ("anyOf", "oneOf", "allOf", "prefixItems", "items"):
        value = schema.get(name)
        yield from value if isinstance(value, list) else [value]
    yield schema.get("additionalProperties")


def texts(schema: Mapping[str, Any]) -> Iterator[object]:
    """What of a schema stands in a grammar as it is."""
    for name in ("properties", "$defs", "definitions"):
        if isinstance(schema.get(name), dict):
            yield from schema[name]
    if isinstance(schema.get("enum"), list):
        yield from schema["enum"]
    if "const" in schema:
        yield schema["const"]
