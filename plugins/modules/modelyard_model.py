#!/usr/bin/python
"""Put a model in place on the host: one that is there, or a download that survives
interruptions.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_model
short_description: Put a model in place on the host
description:
  - Either accepts a model that the host already has (O(path)), or lets the host itself fetch one,
    from an address
    (O(url)) or from a repository at Hugging Face or at a mirror of it (O(repo)).
  - A download keeps its partial files, so a second run continues where the first was cut off. Space
    on the
    disk is checked before the first byte is written, and every checksum before a model gets its
    final name, so it
    is seen whole or not at all.
  - Verified files are not hashed again. Their sizes and modification times are recorded beside
    them.
  - While it downloads it writes a line to the host's journal every ten seconds.
  - Where a file of O(repo) comes without O(sha256), the checksum is the one that the hub publishes
    for this file of
    this commit (C(X-Linked-ETag)). It is asked once and kept.
  - Of a directory of O(repo) are fetched the weights in the C(safetensors) format, and the small
    files that describe
    the model and its words. Weights in other formats can run programs when they are loaded; a
    repository that has no
    others is refused.
options:
  form:
    description: What the engine loads, a GGUF V(file) or a V(directory) with the files of a model
      or of an adapter.
    type: str
    choices: [file, directory]
    default: file
  path:
    description: Where it is on the host. Of a split file, the first part; the others must lie
      beside it.
    type: path
  url:
    description: Where the host fetches the file. O(sha256) is then required.
    type: str
  sha256:
    description: Checksum of the file, 64 hexadecimal digits. Together with O(path) the file must
      match it.
    type: str
  repo:
    description: A repository of models, C(OWNER/NAME). O(revision) is then required, and for
      V(form=file) O(file).
    type: str
  revision:
    description: The commit, 40 hexadecimal digits. A branch or a tag may name something else
      tomorrow.
    type: str
  file:
    description: The file in the repository, with its directory if it is in one.
    type: str
  endpoint:
    description: The hub that has the repository, or a mirror of it.
    type: str
    default: https://huggingface.co
  token_secret:
    description: Name of the secret with the hub's access token, for a repository that wants one. It
      is looked up on the
      controller and reaches the module as O(token).
    type: str
  token:
    description: The access token itself. It is sent to O(endpoint) only, not to where that
      redirects.
    type: str
  directory:
    description: Downloads lie below this directory, a file in a directory named after its checksum,
      a repository as
      C(hf/OWNER--NAME/REVISION).
    type: path
    default: /var/lib/modelyard/models
  reader:
    description: The user that must be able to read the files. Not checked while that user does not
      exist.
    type: str
  margin_mib:
    description: MiB that must stay free on the disk beside the model.
    type: int
    default: 1024
  attempts:
    description: How many attempts in a row may bring no data before the run fails.
    type: int
    default: 5
attributes:
  check_mode: {support: full}
  diff_mode: {support: none}
author: Modelyard
"""

EXAMPLES = r"""
- name: 1. A model that the host already has
  modelyard_model:
    path: /srv/models/qwen2.5-coder-7b-q5_k_m.gguf
    reader: modelyard-llama-cpp

- name: 2. A model that the host fetches
  modelyard_model:
    url: https://models.example/tiny.gguf
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: 3. A model at Hugging Face, whose owner wants to know who fetches it
  modelyard_model:
    repo: example/tiny-GGUF
    revision: 0123456789abcdef0123456789abcdef01234567
    file: tiny-q4_k_m.gguf
    token_secret: HF_TOKEN

- name: 4. The directory of a model, as vLLM wants it
  modelyard_model:
    form: directory
    repo: example/tiny-llama
    revision: 0123456789abcdef0123456789abcdef01234567
    reader: modelyard-vllm
"""

RETURN = r"""
path:
  description: Where the model is. In check mode, where it would be.
  returned: success
  type: str
files:
  description: What a sandbox has to show so that the model can be read. All parts of a split file;
    a directory, and
    what its links lead to.
  returned: success
  type: list
  elements: str
fingerprint:
  description: Changes when the model does. The checksum or the commit if there is one, else made of
    sizes and times.
  returned: success
  type: str
resumed_from:
  description: How many bytes an earlier run had left.
  returned: when something was downloaded
  type: int
"""

import os
import re
from typing import Any, Callable

from ansible.module_utils.modelyard_download import Means, ModelError
from ansible.module_utils.modelyard_host_lock import heard
from ansible.module_utils.modelyard_model_directory import Snapshot, local_directory
from ansible.module_utils.modelyard_model_file import MODELS, Download, Hub, local_file
from ansible.module_utils.modelyard_module import new_module

DIRECTORY_WANTS_NONE_OF = ("url", "sha256", "file")
"""Options that only a file has."""


def local(options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the result for a model that is on the host. Raises ModelError."""
    if options["form"] == "directory":
        return local_directory(options["path"], options["reader"])
    return local_file(
        options["path"], options["sha256"], options["reader"], options["directory"], check_mode
    )


def fetched(
    options: dict[str, Any], check_mode: bool, log: Callable[[str], None]
) -> tuple[Download | Snapshot, str]:
    """Return a model that the host fetches, and its fingerprint. Raises ModelError."""
    means = Means(options["token"], options["margin_mib"], options["attempts"], log)
    where = options["endpoint"], options["repo"], options["revision"]
    if options["form"] == "directory":
        home = os.path.join(options["directory"], "hf")
        return Snapshot(*where, home, means), options["revision"]
    url, sha256 = options["url"], options["sha256"]
    if options["repo"]:
        hub = Hub(*where, options["file"], means)
        url = hub.url
        sha256 = sha256 or hub.published_sha256(options["directory"], check_mode)
    return Download(url, sha256, options["directory"], means), sha256


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "form": {"type": "str", "choices": ["file", "directory"], "default": "file"},
            "path": {"type": "path"},
            "url": {"type": "str"},
            "sha256": {"type": "str"},
            "repo": {"type": "str"},
            "revision": {"type": "str"},
            "file": {"type": "str"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "token_secret": {"type": "str", "no_log": False},
            "token": {"type": "str", "no_log": True},
            "directory": {"type": "path", "default": MODELS},
            "reader": {"type": "str"},
            "margin_mib": {"type": "int", "default": 1024},
            "attempts": {"type": "int", "default": 5},
        },
        required_one_of=[("path", "url", "repo")],
        mutually_exclusive=[("path", "url", "repo")],
        required_by={"url": "sha256", "repo": "revision"},
        supports_check_mode=True,
    )
    heard()
    options = module.params
    directory = options["form"] == "directory"
    given = [name for name in DIRECTORY_WANTS_NONE_OF if options[name]]
    if directory and given:
        module.fail_json(msg=f"form=directory has no {', '.join(given)}")
    if options["repo"] and not directory and not options["file"]:
        module.fail_json(msg="missing parameter(s) required by 'repo': file")
    try:
        if options["sha256"]:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", options["sha256"]):
                raise ModelError(f"sha256 must be 64 hexadecimal digits, not {options['sha256']!r}")
            options["sha256"] = options["sha256"].lower()
        if options["path"]:
            module.exit_json(**local(options, module.check_mode))
        model, fingerprint = fetched(options, module.check_mode, module.log)
        result: dict[str, Any] = {
            "path": model.path,
            "files": [model.path],
            "fingerprint": fingerprint,
        }
        if model.is_there():
            module.exit_json(changed=False, **result)
        if not module.check_mode:
            result["resumed_from"] = model.fetch()
        module.exit_json(changed=True, **result)
    except ModelError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the model could not be put in place: {error}")


if __name__ == "__main__":
    main()
