"""docs/plan.md, made from the types of the plan. `scripts/docs.py` writes it; a test proves that it
is current.
"""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelyard.kinds import unit_of
from modelyard.plan.checks import BaseCheck, Check
from modelyard.plan.model import HostPlan
from modelyard.plan.parts import ENGINE_UNRECORDED, Part, Unrecorded

WIDTH = 98

INTRODUCTION = """\
# The compiled plan

What the compiler makes of a catalogue: one plan per host. Made by `make docs` from `src/modelyard/plan`: do not edit.

`modelyard_compile` returns it. `site.yml` registers the result once as `modelyard_compiled`, and every play reads
`modelyard_compiled.plans[inventory_hostname]`. Each role gets its part whole: role redis the key `redis` as
`redis_plan`, and so on. A part has the sections of the catalogue as they are. For a role that is used alone, the filter
`modelyard_part` makes a part from the keys that differ from the defaults.

A release records its part in its manifest, without the keys marked *not recorded*; `plan` compares what is recorded
with the new plan. A secret appears as `{NAME ON THE HOST: NAME OF THE SECRET}`. Values are never in a plan.

Beside `plans`, the result has:

- `engine_roles`: the roles of all engines. Services are ROLE@INSTANCE, with `-` for `_`.
- `public_names`: exactly what `/v1/models` must list.
- `routes`: per public name the order of attempts, and where each step runs. `context_window` and `content_policy` are
  the order for these errors, `null` if it is the same.
- `pools`: which hosts share the requests for a process of an engine (`name`, `provider`, `models`, `hosts`), how many
  each of them gets at once from one gateway (`max_parallel`, `null`: as many as come), and for how long a request waits
  (`queue_s`).
- `left_out`: what is not deployed, and why.
- `local_chat_models`: public names of chat models that run on hosts of the inventory.
- `warnings`: rendered diagnostics; `report`: all diagnostics as data.
"""

CHECKS = """\
# Checks

One list of checks serves activation, smoke and `status`. `plugins/module_utils/modelyard_checks.py` runs them on the
target. The key `kind` is the heading of a section below. A key without a value is left out.

If a server is up and its only failures are wrong names (`models`) or a model that is not on the GPU (`gpu`), waiting
will not change that, so activation does not wait for the end of its time limit. Smoke runs the plan's checks and the
`gpu` checks of the live releases, because GPUs may be found on the host without being declared.

Credentials are named as `SERVICE/NAME` and read from `/etc/modelyard/credentials/SERVICE/current/NAME` (for a
candidate: from the generation it was started with).

Every check has:
"""


def plan_text() -> str:
    """Return the content of docs/plan.md."""
    blocks = [_wrapped(INTRODUCTION)]
    found = list(_models(HostPlan, {}))
    blocks += [_section(model) for model in found if not issubclass(model, BaseCheck)]
    blocks.append(_wrapped(CHECKS))
    blocks.append(
        "\n".join(
            line for name, field in BaseCheck.model_fields.items() for line in _item(name, field)
        )
        + "\n"
    )
    blocks += [_section(model) for model in found if issubclass(model, BaseCheck)]
    return "\n".join(blocks)


def _models(
    model: type[BaseModel], seen: dict[type[BaseModel], None]
) -> dict[type[BaseModel], None]:
    """Return a model and those below it, in the order in which they are first used."""
    if model not in seen:
        seen[model] = None
        for field in model.model_fields.values():
            for below in _below(field.annotation):
                _models(below, seen)
    return seen


def _below(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _below(argument)


def _section(model: type[BaseModel]) -> str:
    kind = model.model_fields["kind"].default if issubclass(model, BaseCheck) else None
    lines = [f"## {kind or model.__name__}", "", _wrapped(inspect.cleandoc(str(model.__doc__)))]
    unrecorded = set()
    if issubclass(model, Part):
        unrecorded = {*_paths(model.UNRECORDED), *model.BESIDE}
    if model.__name__ in ("EnginePart", "InstancePart"):
        unrecorded = set(
            _paths(
                ENGINE_UNRECORDED["build" if model.__name__ == "EnginePart" else "instance"] or {}
            )
        )
    for name, field in model.model_fields.items():
        if kind and name in ("kind", *BaseCheck.model_fields):
            continue
        lines += _item(field.serialization_alias or name, field, recorded=name not in unrecorded)
    inner = sorted(path for path in unrecorded if path not in model.model_fields)
    if inner:
        lines += ["", _wrapped(f"Not recorded either: {', '.join(f'`{path}`' for path in inner)}.")]
    return "\n".join(lines).rstrip() + "\n"


def _paths(unrecorded: Unrecorded, above: str = "") -> Iterator[str]:
    for key, below in unrecorded.items():
        if below is None:
            yield above + key
        else:
            yield from _paths(below, f"{above}{key}.")


def _item(name: str, field: FieldInfo, *, recorded: bool = True) -> list[str]:
    unit = f", in {found}" if (found := unit_of(field)) else ""
    note = "" if recorded else "; not recorded"
    text = f"- **`{name}`** ({_kind(field.annotation)}{unit}{note}): {field.description}"
    return [
        textwrap.fill(
            text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]


def _kind(annotation: Any) -> str:
    """Return a type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation == Check:
        return "[check](#checks)"
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_kind, arguments))
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"mapping of text to {_kind(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        type(None): "`null`",
    }
    return names.get(annotation, "anything")


def _wrapped(text: str) -> str:
    """Return text with its paragraphs and lists filled anew."""
    blocks = []
    for block in text.strip().split("\n\n"):
        items = block.replace("\n- ", "\0- ").replace("\n  ", " ").split("\0")
        blocks.append(
            "\n".join(
                textwrap.fill(
                    item.replace("\n", " "),
                    WIDTH,
                    subsequent_indent="  " if item.startswith("- ") else "",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                for item in items
            )
        )
    return "\n\n".join(blocks) + "\n"
