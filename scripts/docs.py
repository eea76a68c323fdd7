#!/usr/bin/env python3
"""Write what is made from the schema: docs/catalogue.md, and docs/catalogue.schema.json for editors."""

from __future__ import annotations

from pathlib import Path

from modelyard.reference import catalogue_text, schema_text

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    """Write both files."""
    for name, text in (("catalogue.md", catalogue_text()), ("catalogue.schema.json", schema_text())):
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
