"""Documentation of the action plugin modelyard_import, which runs on the controller alone."""

DOCUMENTATION = r"""
module: modelyard_import
short_description: Import a hand-made stack as an inventory with a catalogue
version_added: "0.1.0"
author: Modelyard
description:
  - Reads C(providers.yaml) and C(model-mappings.yaml) of a hand-made stack and writes an inventory
    whose
    C(group_vars/llm_stack) hold the same as a catalogue, with a report of what became of each
    value.
  - Runs on the controller and contacts no host. Nothing of the old stack is changed.
  - Writes all files or none. What exists is never overwritten.
  - Nothing in the old files is run, and no text of them becomes a template.
  - What becomes of which key is explained in C(docs/import.md).
options:
  source:
    description: Directory of the two files, relative to where the playbook was started.
    type: str
    required: true
  destination:
    description: Directory of the new inventory. It must not exist, or be empty.
    type: path
    required: true
requirements:
  - modelyard (this project's package, C(make env) installs it)
  - pydantic >= 2.14
attributes:
  check_mode:
    support: full
    description: Nothing is written, the report is the same.
  diff_mode:
    support: full
    description: Shows the new files.
"""

EXAMPLES = r"""
# 1. As playbooks/import.yml does.
- name: Import the old stack
  modelyard_import:
    source: /srv/old-stack/config
    destination: inventories/imported
  register: imported
"""

RETURN = r"""
destination:
  description: The new inventory's directory.
  returned: success
  type: str
files:
  description: What was written, or would be in check mode.
  returned: success
  type: list
  elements: str
public_names:
  description: What clients can ask for.
  returned: success
  type: list
  elements: str
secrets:
  description: Names of the keys that the active providers need.
  returned: success
  type: list
  elements: str
summary:
  description: A few lines for people, with what to check first.
  returned: success
  type: str
report:
  description: What became of every value of the old files, as Markdown. Begins with the summary.
  returned: success
  type: str
"""
