"""The routes as a Mermaid flowchart: where each model runs, and its fallbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from modelyard.compile import Compiled
from modelyard.output.render import at_once

FENCE = "```"

WIDE_LABELS = '%%{init: {"flowchart": {"wrappingWidth": 500}}}%%'
"""Pixels before a label is wrapped. Mermaid's 200 break names of models in two."""


def render_mermaid(compiled: Compiled) -> str:
    """Return a flowchart of every public name. Same plan, same text. What hosts share has its pool
    in the title of its box: how many requests a host gets at once, and how long the rest waits.

    An arrow goes from a model to each of its fallbacks, numbered where there are several. Followed
    depth first, the arrows give the order of attempts; what an earlier step already leads to has
    no arrow of its own. Dotted arrows are followed first, all of them: those of a capability, and
    of a model whose default chain leads back to it.
    """
    routes = {route["name"]: route for route in compiled.routes}
    nodes = {name: f"n{number}" for number, name in enumerate(routes)}
    places: dict[str, list[str]] = {}
    shared = _shared(compiled.pools)
    lines = [WIDE_LABELS, "flowchart LR"]
    for name, route in routes.items():
        if route["kind"] == "model":
            head = route["attempts"][0]
            where = ", ".join(urlsplit(place).netloc or place for place in head["where"])
            place = f"{head['provider']} on {where}{shared.get(name, '')}"
            places.setdefault(place, []).append(name)
        else:
            lines.append(f'  {nodes[name]}(["{_escape(name)}"])')
    for number, (place, models) in enumerate(places.items()):
        lines.append(f'  subgraph p{number}["{_escape(place)}"]')
        lines += [f'    {nodes[model]}["{_escape(model)}"]' for model in models]
        lines.append("  end")
    attempts = {
        name: [attempt["model"] for attempt in route["attempts"]] for name, route in routes.items()
    }
    solid = _solid(
        {name: attempts[name] for name, route in routes.items() if route["kind"] == "model"}
    )
    for name, route in routes.items():
        if route["kind"] == "alias":
            lines.append(f"  {nodes[name]} -. alias .-> {nodes[route['target']]}")
        elif name in solid:
            lines += _arrows(nodes, name, solid[name], "-->", "-->|{}|")
        else:
            head_of = route["kind"] in ("capability", "inactive")
            steps = _heads(attempts[name], attempts) if head_of else attempts[name][1:]
            lines += _arrows(nodes, name, steps, "-.->", "-. {} .->")
    return "\n".join(lines) + "\n"


def graph_file(compiled: Compiled, path: str) -> str:
    """Return the text of a file with the graph: for Markdown (`.md`) in a fence, otherwise bare."""
    graph = render_mermaid(compiled)
    return f"{FENCE}mermaid\n{graph}{FENCE}\n" if path.endswith(".md") else graph


def _shared(pools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By model that several hosts of one pool share, how many requests each of them gets."""
    return {
        model: f": {at_once(pool)}"
        for pool in pools
        if len(pool["hosts"]) > 1
        for model in pool["models"]
    }


def _arrows(
    nodes: Mapping[str, str], name: str, steps: Sequence[str], single: str, numbered: str
) -> list[str]:
    """Return the lines of the arrows from `name`; with several of them each has its number."""
    arrows = (
        [single]
        if len(steps) == 1
        else [numbered.format(number) for number, _step in enumerate(steps, start=1)]
    )
    return [
        f"  {nodes[name]} {arrow} {nodes[step]}" for arrow, step in zip(arrows, steps, strict=True)
    ]


def _solid(attempts: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """By model, its direct fallbacks; without the models for which that would not give their
    attempts.
    """
    solid = {name: _stand_ins(name, attempts) for name in attempts}
    while wrong := [name for name in solid if _follow(name, solid, attempts) != attempts[name]]:
        for name in wrong:
            del solid[name]
    return solid


def _stand_ins(name: str, attempts: Mapping[str, list[str]]) -> list[str]:
    """Return the attempts behind `name`, without those that an earlier one leads to."""
    found: list[str] = []
    reached = {name}
    for step in attempts[name]:
        if step not in reached:
            found.append(step)
            reached.update(attempts[step])
    return found


def _follow(
    start: str, solid: Mapping[str, list[str]], attempts: Mapping[str, list[str]]
) -> list[str]:
    """Return the order of attempts that the arrows give."""
    order: dict[str, None] = {}
    stack = [start]
    while stack:
        name = stack.pop()
        if name not in order:
            order[name] = None
            if name in solid:
                stack.extend(reversed(solid[name]))
            else:
                order.update(dict.fromkeys(attempts[name]))
    return list(order)


def _heads(order: list[str], attempts: Mapping[str, list[str]]) -> list[str]:
    """Return the models a capability stands for: the shortest beginning of its attempts that
    explains all of them.
    """
    for count in range(1, len(order)):
        heads = order[:count]
        if (
            list(dict.fromkeys([*heads, *(name for head in heads for name in attempts[head])]))
            == order
        ):
            return heads
    return order


def _escape(text: str) -> str:
    """Text inside a quoted label: everything that could mean something to Mermaid or HTML as a
    character code.
    """
    return "".join(
        char if char.isalnum() or char in " ._:/@-,()" else f"#{ord(char)};" for char in text
    )
