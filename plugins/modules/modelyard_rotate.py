"""Documentation of the action plugin modelyard_rotate, which runs on the controller alone."""

DOCUMENTATION = r"""
module: modelyard_rotate
short_description: Rotate a secret of the inventory
version_added: "0.1.0"
author: Modelyard
description:
  - Begins, ends or undoes the rotation of a secret in C(.credentials/) beside the inventory. No
    host is contacted and
    nothing is printed but names; C(playbooks/rotate_secrets.yml) carries the value to where it is
    used.
  - The value of before stays in C(NAME_FORMER), also mode 0600, until the rotation is ended. While
    that file is there
    every run has Redis and the gateway accept both.
  - A secret that comes from C(llm_secrets) or the environment is the user's to change. There both
    names have to be
    defined before a rotation is begun, and NAME_FORMER is removed by hand before it is ended.
options:
  secret:
    description: Its name.
    type: str
    required: true
  state:
    description:
      - V(begun) generates a new value, unless that was done and never ended. V(ended) forgets the
        former value.
        V(undone) puts it back.
    type: str
    choices: [begun, ended, undone]
    default: begun
attributes:
  check_mode:
    support: full
"""

EXAMPLES = r"""
- name: Redis' password is another one
  modelyard_rotate:
    secret: REDIS_PASSWORD
  run_once: true
"""

RETURN = r"""
changed:
  description: Whether a value was changed, kept or forgotten.
  returned: success
  type: bool
given:
  description: Whether its value comes from C(llm_secrets) or the environment, so whether it is the
    user's to change.
  returned: success
  type: bool
"""
