"""Imports this project's package once, and refuses to run under a Python that lacks it.

Ansible asks vars plugins before it loads any other plugin of ours. So this is the one place that
has to say what is wrong; elsewhere the package is imported like any other. An ImportError of an
action plugin would end the run with a traceback.

It is also the place to import what tasks need. Ansible forks a process per task and host, and each
that meets a filter loads all filters, with this package and pydantic, unless its parent did: 0.6 s
of processor time per task.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader
from ansible.plugins.vars import BaseVarsPlugin

try:
    import modelyard
except ImportError as error:
    MISSING = str(error)
else:
    # Looked for, not imported: that takes longer than most of what Ansible does without them.
    absent = [name for name in ("pydantic", "plotly") if find_spec(name) is None]
    MISSING = f"No module named {absent[0]!r}" if absent else ""

DOCUMENTATION = r"""
name: modelyard_package
short_description: Import the package modelyard once, refuse to run without it
version_added: "0.1.0"
description:
  - Fails with what to do if the Python that runs Ansible lacks the package modelyard, or what that
    needs.
  - Loads the filters before C(ansible-playbook) starts a process for each task.
  - Sets no variable.
"""


class VarsModule(BaseVarsPlugin):
    """Sets no variable."""

    # Ansible makes a new plugin for every host and group without this.
    is_stateless = True
    loaded = False

    def get_vars(self, loader: Any, path: str, entities: Sequence[Any]) -> dict[str, Any]:
        """Return nothing; raise AnsibleError if the package cannot be imported."""
        if MISSING:
            raise AnsibleError(
                f"{MISSING}. This Python ({sys.executable}) is not Modelyard's: run `make env`,"
                " then `.venv/bin/ansible-playbook` (or `. .venv/bin/activate` first)."
            )
        program = Path(sys.argv[0]).name
        if program in ("ansible", "ansible-playbook"):
            modelyard.WITH_DOCSTRINGS = False
        if not VarsModule.loaded and program == "ansible-playbook":
            VarsModule.loaded = True
            filter_loader.get("modelyard_part")
            # What is loaded stays: neither this process nor its forks need to look through it
            # again, and the forks copy no page of it.
            gc.freeze()
            # A process per task makes less garbage than is worth looking for (700 objects else).
            gc.set_threshold(100_000, 20, 20)
        return {}
