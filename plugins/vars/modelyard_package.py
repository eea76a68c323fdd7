"""Refuses to run under a Python that lacks this project's package, or what that needs.

Ansible asks vars plugins before it loads any other plugin of ours. So this is the one place that
has to say what is wrong; elsewhere the package is imported like any other. An ImportError of an
action plugin would end the run with a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.vars import BaseVarsPlugin

try:
    import modelyard  # noqa: F401 - whether it can be imported is the question
except ImportError as error:
    MISSING = str(error)
else:
    # Looked for, not imported: that takes longer than most of what Ansible does without them.
    absent = [name for name in ("pydantic", "plotly") if find_spec(name) is None]
    MISSING = f"No module named {absent[0]!r}" if absent else ""

DOCUMENTATION = r"""
name: modelyard_package
short_description: Refuse to run without the package modelyard
version_added: "0.1.0"
description:
  - Fails with what to do if the Python that runs Ansible lacks the package modelyard, or what that
    needs.
  - Sets no variable.
"""


class VarsModule(BaseVarsPlugin):
    """Sets no variable."""

    # Ansible makes a new plugin for every host and group without this.
    is_stateless = True

    def get_vars(self, loader: Any, path: str, entities: Sequence[Any]) -> dict[str, Any]:
        """Return nothing; raise AnsibleError if the package cannot be imported."""
        if MISSING:
            raise AnsibleError(
                f"{MISSING}. This Python ({sys.executable}) is not Modelyard's: run `make env`,"
                " then `.venv/bin/ansible-playbook` (or `. .venv/bin/activate` first)."
            )
        return {}
