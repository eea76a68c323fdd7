"""Import a hand-made stack, on the controller. Documented in the module of this name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard_ansible.action import ControllerAction, Refusal
from modelyard_importer import FILES, REPORT, InputError, import_stack

SCHEMA = Path(__file__).parents[2] / "docs/catalogue.schema.json"


class ActionModule(ControllerAction):
    """Reads the two files, writes an inventory. Contacts no host."""

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the report.

        Raises Refusal with everything that is wrong with the input.
        """
        arguments = self._options(
            {
                "source": {"type": "str", "required": True},
                "destination": {"type": "path", "required": True},
            }
        )
        if not arguments["source"]:
            raise Refusal(
                "set -e from=DIR, the directory that contains the old stack's providers.yaml"
            )
        source = Path(arguments["source"]).expanduser()
        destination = Path(os.path.abspath(arguments["destination"]))
        if destination.is_relative_to(Path.cwd()):
            destination = destination.relative_to(Path.cwd())
        if not source.is_dir():
            raise Refusal(f"from={source}: no such directory{nearest(source)}")
        problems = occupied(destination)
        try:
            schema = os.path.relpath(SCHEMA, destination / "group_vars/llm_stack")
            imported = import_stack(read(source), str(source), schema)
        except InputError as error:
            problems = [*error.problems, *problems]
        if problems:
            lines = [
                "The stack cannot be imported. Nothing was written.",
                *problems,
                nearest(source),
            ]
            raise Refusal("\n".join(line for line in lines if line))
        if not imported.public_names:
            raise Refusal(
                f"No active provider can be imported. Nothing was written.\n{imported.report}"
            )
        if self._writes:
            write(imported.files, destination)
        return {
            "changed": True,
            "destination": str(destination),
            "files": [str(destination / name) for name in imported.files],
            "public_names": list(imported.public_names),
            "secrets": list(imported.secrets),
            "summary": imported.summary,
            "report": imported.report,
            "diff": [
                {
                    "before": "",
                    "after": text,
                    "before_header": name,
                    "after_header": str(destination / name),
                }
                for name, text in imported.files.items()
                if name != REPORT
            ],
        }


def read(source: Path) -> dict[str, bytes]:
    """Return the files that exist. Raises Refusal if one cannot be read."""
    try:
        return {name: (source / name).read_bytes() for name in FILES if (source / name).is_file()}
    except OSError as error:
        raise Refusal(f"cannot be read: {error}") from error


def nearest(source: Path) -> str:
    """Say where the files lie, if they are not in `source` itself."""
    if (source / FILES[0]).is_file() or not source.is_dir():
        return ""
    found = sorted(source.glob(f"*/{FILES[0]}"))
    return f"found {found[0]}: use -e from={found[0].parent}" if found else ""


def occupied(destination: Path) -> list[str]:
    """Say why nothing can be written there, if so: what exists is never overwritten."""
    if destination.is_dir() and not any(destination.iterdir()):
        return []
    if not os.path.lexists(destination):
        return []
    return [f"{destination} exists and is not overwritten; choose a new directory with -e to=DIR"]


def write(files: Mapping[str, str], destination: Path) -> None:
    """Write all files or none: beside the destination first, which then appears by one rename.

    Raises Refusal if that fails.
    """
    beside = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        for name, text in files.items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_text(text, encoding="utf-8")
        beside.rename(destination)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise Refusal(f"Nothing was written.\n{destination} cannot be written: {error}") from error
