"""Says which file is no YAML. Ansible's own plugin for group_vars and host_vars drops the file and
the line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from ansible import context
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
  - Refuses a mapping with a key twice, also of the inventory and of C(-e). Ansible takes the last
    one, or refuses also what overrides a key that C(<<) merges.
  - Sets no variable.
"""

NO_MAPPING = (
    "{file} has no variables: a file of variables is a mapping, with a line NAME: VALUE for each"
)

TWICE = (
    '{place}:{line}:{column}: the key "{key}" is there twice, and Ansible takes the last one:'
    " keep one of them"
)

ENCRYPTED = (
    "{file} is encrypted with ansible-vault, and no password that was given decrypts it: give"
    " --vault-password-file FILE or --ask-vault-pass, or set ANSIBLE_VAULT_PASSWORD_FILE in the"
    " environment"
)

READ: set[tuple[str, str]] = set()
"""Directories and names that were looked up."""


def refuse_repeated(text: str, place: str) -> None:
    """Raise AnsibleError if text is YAML or JSON that has a key twice."""
    # Not at the top: modelyard_package says first what to do where the package is missing.
    from modelyard.catalogue.repeated import repeated_key

    if found := repeated_key(text):
        raise AnsibleError(TWICE.format(place=place, **found._asdict()))


def refuse_repeated_in(file: str) -> None:
    """Raise AnsibleError if a file is YAML or JSON that has a key twice. What cannot be read is
    not ours to say.
    """
    with suppress(OSError, UnicodeDecodeError):
        refuse_repeated(Path(file).read_text(encoding="utf-8"), file)


def check_command_line() -> None:
    """Check what `-e` and `-i` name."""
    for given in context.CLIARGS.get("extra_vars") or ():
        if given.startswith("@"):
            refuse_repeated_in(os.path.expanduser(given[1:]))
        else:
            refuse_repeated(given, "-e")
    for source in context.CLIARGS.get("inventory") or ():
        for file in [source] if os.path.isfile(source) else files_of(source):
            if not os.access(file, os.X_OK):  # A program, which prints the inventory.
                refuse_repeated_in(file)


def files_of(directory: str) -> list[str]:
    """Return the files of an inventory that may be YAML or JSON."""
    return [
        file
        for file in sorted(glob(os.path.join(directory, "**"), recursive=True))
        if file.endswith((".yml", ".yaml", ".json")) and os.path.isfile(file)
    ]


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
    checked = False

    def get_vars(self, loader: Any, path: str, entities: Sequence[Any]) -> dict[str, Any]:
        """Return nothing; raise AnsibleError for a file that cannot be read."""
        if not VarsModule.checked:
            VarsModule.checked = True
            check_command_line()
        for entity in entities:
            kind = "host_vars" if entity.base_type is InventoryObjectType.HOST else "group_vars"
            directory = os.path.join(os.path.realpath(path), kind)
            if (directory, entity.name) not in READ:
                for file in loader.find_vars_files(directory, entity.name):
                    content = load(loader, file)
                    if content and not isinstance(content, Mapping):
                        raise AnsibleError(NO_MAPPING.format(file=file))
                    # Not from the disk: it may be encrypted.
                    refuse_repeated(str(loader.get_text_file_contents(file)), str(file))
                READ.add((directory, entity.name))
        return {}
