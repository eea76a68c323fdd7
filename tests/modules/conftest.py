"""Modules import `ansible.module_utils.modelyard_*`: Ansible ships these to a target, here they are
found by path."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"

ansible.module_utils.__path__.append(str(PLUGINS / "module_utils"))
sys.path.insert(0, str(PLUGINS / "modules"))
