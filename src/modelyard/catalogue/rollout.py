"""`llm_rollout`: how a change reaches several hosts."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from modelyard.kinds import Strict, WholeSeconds, for_editors, unfit, unit

_BATCH = 'a batch is a number of hosts, or a share of them such as "20%"'
_SHARE = "([1-9][0-9]?|100)%"
MOST = 10_000
"""No inventory has more hosts."""


def _batch(value: int | str) -> int | str:
    """Refuse what is neither a number of hosts nor a percentage. Raises ValueError."""
    if isinstance(value, str) and value.strip().isdecimal():
        raise unfit(_BATCH, f'write {int(value)} without quotes, or "{int(value)}%"')
    if not 0 < value <= MOST if isinstance(value, int) else not re.fullmatch(_SHARE, value):
        raise ValueError(_BATCH)
    return value


Batch = Annotated[
    int | str,
    AfterValidator(_batch),
    WithJsonSchema(
        {
            **for_editors("batch", _SHARE, _BATCH),
            "type": ["integer", "string"],
            "minimum": 1,
            "maximum": MOST,
        }
    ),
]
"""A number of hosts, or a share of them in percent."""


class Rollout(Strict):
    """Engines change in waves: the first host alone, then `batch` hosts at a time. A host that
    fails runs what it ran before, and no further wave begins.
    """

    first: str | None = Field(None, examples=["gpu7"])
    """The host that changes first, by its name in the inventory. By default the first of the
    inventory."""
    batch: Batch = Field(1, examples=["20%"])
    """How many hosts change at the same time after the first, as a number or as a share of all
    hosts. Fewer where the rest could not answer: all hosts of a model never change at once."""
    max_failures: Annotated[int, Field(ge=0, le=MOST)] = Field(0, examples=[1])
    """The rollout goes on while no more hosts than that have failed."""
    pause_s: Annotated[int, Field(ge=0, le=86400)] = Field(
        0, examples=[300], json_schema_extra=unit("seconds")
    )
    """Wait this long between two waves."""
    drain_s: WholeSeconds = Field(120, examples=[600], json_schema_extra=unit("seconds"))
    """Before an engine restarts, its requests have this long to end. It gets no new ones
    meanwhile. Then they are cut, which is said."""
    on_unreachable: Literal["stop", "skip"] = Field("stop", examples=["skip"])
    """What a host that cannot be reached means to the others: `stop` changes none of them, `skip`
    changes all others. The next run catches up on it."""

    def size(self, hosts: int) -> int:
        """Return how many of so many hosts change at a time, at least one."""
        if isinstance(self.batch, int):
            return self.batch
        return max(1, hosts * int(self.batch.removesuffix("%")) // 100)
