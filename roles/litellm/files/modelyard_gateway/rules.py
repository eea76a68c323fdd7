"""What the compiler tells the guard: rules.json beside the document
(src/modelyard/compiler/guard.py writes it).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Redis:
    """Where limits are counted for all workers and gateways."""

    host: str
    port: int
    username: str
    password_env: str
    """Name of the environment variable that holds the password."""
    namespace: str
    """What the names of its keys begin with."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an engine does not survive of what a request says about its answer."""

    refused: tuple[str, ...]
    """Fields that it is not sent."""
    schemas: tuple[str, ...]
    """Fields whose schemas it makes a grammar of."""
    plain: bool
    """Whether it puts names and values into the grammar as they are."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Facts about this release that a request is judged by."""

    public_names: tuple[str, ...]
    """What clients can ask for: models, aliases, capabilities."""
    text_only: frozenset[str]
    """Those of them that are known to read nothing but text."""
    paths: Mapping[str, Collection[str]]
    """By public name the paths that somebody answers, where that is known."""
    cached: bool
    """Whether answers are kept for repeated questions."""
    body_bytes: int
    """The largest body."""
    body_s: float
    """Seconds until a body has to be whole."""
    worker_bytes: int
    """Resident memory of a worker from which it is replaced."""
    pools: str | None
    """How the URLs of our own engines begin; None without any."""
    health: Mapping[str, str]
    """By the id of a deployment the URL that says whether its engine is well."""
    windows: Mapping[str, int]
    """By the id of a deployment whose engine cuts prompts the tokens that a request may have."""
    constraints: Mapping[str, Constraint]
    """By the id of a deployment whose engine can be ended by a request."""
    hidden: tuple[str, ...]
    """Addresses and ids of deployments, which clients must not see."""
    redis: Redis | None

    @classmethod
    def read(cls, path: Path) -> Rules:
        """Read the file.

        Raises OSError, ValueError, KeyError or TypeError: it is written by the same release.
        """
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            public_names=tuple(found["public_names"]),
            text_only=frozenset(found["text_only"]),
            paths=found["paths"],
            cached=found["cached"],
            body_bytes=found["limits"]["body_mib"] * 2**20,
            body_s=found["limits"]["body_s"],
            worker_bytes=found["limits"]["worker_mib"] * 2**20,
            pools=found["pools"],
            health=found["health"],
            windows=found["windows"],
            constraints={
                name: Constraint(tuple(one["refused"]), tuple(one["schemas"]), one["plain"])
                for name, one in found["constraints"].items()
            },
            # The longest first: one can be the beginning of another.
            hidden=tuple(sorted(found["hidden"], key=len, reverse=True)),
            redis=Redis(**found["redis"]) if found["redis"] else None,
        )
