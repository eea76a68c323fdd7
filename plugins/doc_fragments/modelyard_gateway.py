"""Options of modules that ask the gateway."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the gateway is, what to ask, and with which key."""

    DOCUMENTATION = r"""
options:
  url:
    description: Address of the gateway, without C(/v1).
    type: str
    required: true
  bearer:
    description: Credential of the host that holds the key, as C(SERVICE/NAME).
    type: str
    default: litellm/LITELLM_MASTER_KEY
  model:
    description: Public name to ask.
    type: str
    required: true
"""
