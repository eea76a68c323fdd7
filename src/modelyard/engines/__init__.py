"""The registry: all engines, in the order in which a host's plan has them. The rest of the core
asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from modelyard.engines import llama_cpp, llama_cpp_python, ollama, vllm
from modelyard.engines.base import Engine

ENGINES: tuple[Engine, ...] = (
    ollama.ENGINE,
    llama_cpp.ENGINE,
    llama_cpp_python.ENGINE,
    vllm.ENGINE,
)

TYPES = tuple(dict.fromkeys(engine.provider_type for engine in ENGINES))
"""Types of providers that this bundle deploys itself; the others run elsewhere and have a
`base_url`."""

FLAVOURS = tuple(dict.fromkeys(engine.flavour for engine in ENGINES if engine.flavour))

ROLES = tuple(engine.role for engine in ENGINES)


@cache
def engine_of(kind: str, flavour: str | None = None) -> Engine | None:
    """Return the engine of a provider's type and flavour, the type's first by default; None for
    what only runs elsewhere.
    """
    mine = (engine for engine in ENGINES if engine.provider_type == kind)
    return next((engine for engine in mine if flavour is None or engine.flavour == flavour), None)


def by_role(role: str) -> Engine:
    """Return the engine that a role deploys. Raises KeyError."""
    return {engine.role: engine for engine in ENGINES}[role]


def types_of(matches: Callable[[Engine], bool], last: str = "and") -> str:
    """For documentation: the types of the engines for which `matches` holds, such as "`a`, `b` and
    `c`".
    """
    names = list(
        dict.fromkeys(f"`{engine.provider_type}`" for engine in ENGINES if matches(engine))
    )
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)
