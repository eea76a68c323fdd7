"""Says which file is no YAML. Ansible's own plugin for group_vars and host_vars drops the file and
the line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.group import InventoryObjectType
from ansible.plugins.vars import BaseVarsPlugin

DOCUMENTATION = r"""
name: modelyard_yaml
short_description: Name file and line of YAML that cannot be read
version_added: "0.1.0"
description:
  - Reads what C(host_group_vars) is about to read, so that an error of the YAML parser arrives with
    its file, line and column. What is read stays in Ansible's cache; nothing is read twice.
  - Sets no variable.
"""

NO_MAPPING = (
    "{file} has no variables: a file of variables is a mapping, with a line NAME: VALUE for each"
)

ENCRYPTED = (
    "{file} is encrypted with ansible-vault, and no password that was given decrypts it: give"
    " --vault-password-file FILE or --ask-vault-pass, or set ANSIBLE_VAULT_PASSWORD_FILE in the"
    " environment"
)

READ: set[tuple[str, str]] = set()
"""Directories and names that were looked up."""


def load(loader: Any, file: str) -> Any:
    """Return the content of a file. Raises AnsibleError, with what to do if it is encrypted."""
    try:
        return loader.load_from_file(file, unsafe=True, trusted_as_template=True)
    except AnsibleError as error:
        if "decrypt" not in str(error).lower():
            raise
        raise AnsibleError(ENCRYPTED.format(file=file)) from None


class VarsModule(BaseVarsPlugin):
    """Loads the files of groups and hosts, and lets Ansible's error about them through."""

    # Ansible asks for the variables of every host many times, and makes a new plugin each time
    # without this.
    is_stateless = True

    def get_vars(self, loader: Any, path: str, entities: Sequence[Any]) -> dict[str, Any]:
        """Return nothing; raise AnsibleError for a file that cannot be read."""
        for entity in entities:
            kind = "host_vars" if entity.base_type is InventoryObjectType.HOST else "group_vars"
            directory = os.path.join(os.path.realpath(path), kind)
            if (directory, entity.name) not in READ:
                for file in loader.find_vars_files(directory, entity.name):
                    content = load(loader, file)
                    if content and not isinstance(content, Mapping):
                        raise AnsibleError(NO_MAPPING.format(file=file))
                READ.add((directory, entity.name))
        return {}
