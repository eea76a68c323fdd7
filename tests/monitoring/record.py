#!/usr/bin/env python3
"""Print which metrics a server shows: name, type, labels, without values.

usage: tests/monitoring/record.py URL-OR-FILE [FIRST LINE] > tests/monitoring/metrics/JOB.txt

The first line says what was recorded and how; dashboards and rules may use nothing that is not in
these lists.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from pathlib import Path

SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+")


def metrics(exposition: str) -> list[str]:
    """One line for each name in the text format of Prometheus."""
    types: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for line in exposition.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:4]
            types[name] = kind
        elif line and not line.startswith("#") and (sample := SAMPLE.match(line)):
            # A label whose value is no label's business: the process that counted.
            found = set(re.findall(r'(\w+)="', sample[2] or "")) - {"pid"}
            labels.setdefault(sample[1], set()).update(found)
    lines = []
    for name, found in sorted(labels.items()):
        family = next(
            (one for one in (name, re.sub(r"_(bucket|sum|count)$", "", name)) if one in types), ""
        )
        lines.append(f"{name} {types.get(family, 'untyped')} {','.join(sorted(found))}".rstrip())
    return lines


def main() -> None:
    """Read and print."""
    source, *first = sys.argv[1:]
    text = (
        urllib.request.urlopen(source).read().decode()
        if "://" in source
        else Path(source).read_text()
    )
    print("\n".join([*(f"# {line}" for line in first), *metrics(text)]))


if __name__ == "__main__":
    main()
