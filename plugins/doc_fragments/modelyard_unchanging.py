"""Attributes of modules that only look."""

from __future__ import annotations


class ModuleDocFragment:
    """They do the same in check mode."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
"""
