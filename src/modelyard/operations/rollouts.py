"""What a rollout in waves came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard.output.tables import table


def progress(
    waves: Sequence[Sequence[str]], changed: Sequence[str], failures: Mapping[str, str]
) -> str:
    """Return as text how far a rollout got: `changed` are the hosts that did, `failures` by host
    why others did not. All others of `waves` have not begun.
    """
    rows = []
    for number, wave in enumerate(waves, start=1):
        for host in wave:
            what = "done" if host in changed else "not begun"
            rows.append((f"wave {number}", host, "failed" if host in failures else what))
    lines = [f"  {line}" for line in table(rows)]
    for host, reason in failures.items():
        lines += [f"{host} runs what it ran before, as far as that was possible:", reason]
    return "\n".join(lines)
