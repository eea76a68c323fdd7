#!/usr/bin/env python3
"""Write what is made from code: docs/catalogue.md, its schema for editors, docs/plan.md and
Grafana's dashboards.
"""

from __future__ import annotations

from pathlib import Path

from modelyard.catalogue.editors import schema_text
from modelyard.catalogue.reference import catalogue_text
from modelyard.dashboards.boards import texts
from modelyard.plan.reference import plan_text

CLONE = Path(__file__).resolve().parent.parent
FILES = {
    "catalogue.md": catalogue_text(),
    "catalogue.schema.json": schema_text(),
    "plan.md": plan_text(),
}
DASHBOARDS = CLONE / "roles/grafana/files/dashboards"


def main() -> None:
    """Write all files; dashboards that are no longer made go."""
    for name, text in FILES.items():
        (CLONE / "docs" / name).write_text(text, encoding="utf-8")
    DASHBOARDS.mkdir(parents=True, exist_ok=True)
    for old in DASHBOARDS.glob("*.json"):
        old.unlink()
    for name, text in texts().items():
        (DASHBOARDS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
