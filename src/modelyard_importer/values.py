"""Single values of old files: whether the schema takes them, and what becomes of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from modelyard.kinds import UsDollars
from modelyard_importer.oldfiles import Node

Share = Annotated[int | float, Field(gt=0, allow_inf_nan=False)]


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def fits(kind: Any, value: object) -> str:
    """Why the schema's type `kind` refuses a value; empty if it takes it.

    Text that Ansible would take for a template is refused too: what stands in an old file is never
    run.
    """
    if isinstance(value, str) and re.search(r"\{[{%#]", value):
        return "it looks like a template"
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        message = str(error.errors(include_url=False)[0]["msg"])
        return message.removeprefix("Value error, ").replace("Input should be", "it must be")
    return ""


def text_of(node: Node | None) -> str:
    """Return the text of a scalar, without white space around it; empty for everything else."""
    return node.name.strip() if node else ""


def positive(node: Node) -> int | None:
    """Return a whole number above 0; None if the value is none."""
    value = node.scalar
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def per_million(node: Node) -> float | None:
    """US dollars per million tokens from dollars per thousand; None if the value is no price."""
    if fits(UsDollars, node.scalar):
        return None
    try:
        return float(Fraction(repr(node.scalar)) * 1000)
    except OverflowError:
        return None


def whole_shares(nodes: Sequence[Node | None]) -> list[int] | None:
    """Return the same proportions in whole numbers (0.7 and 0.3: 7 and 3).

    None if a share is missing or not above 0.
    """
    if any(node is None or fits(Share, node.scalar) for node in nodes):
        return None
    shares = [Fraction(repr(node.scalar)) for node in nodes if node is not None]
    scale = lcm(*(share.denominator for share in shares))
    return [int(share * scale) for share in shares]
