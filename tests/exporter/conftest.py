"""The exporter is a file of a role: found by path, as are the module_utils that write what it
reads."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[2]

ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
sys.path.insert(0, str(ROOT / "roles/exporter/files"))
