#!/usr/bin/python
"""Manage the models of a running Ollama: pulled from a registry, or created from GGUF files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_ollama_models
short_description: Manage the models of a running Ollama
description:
  - Talks to the server that runs on this host. Pulls what is missing, creates models from GGUF
    files, applies
    parameters, and deletes what is not wanted, but only when asked (O(prune)).
  - A pull that breaks off is tried again. What has arrived stays in the model store, where a later
    run continues it.
    Where the registry reports the size of a model, the space on the disk is checked before the
    pull.
  - A model that is there is not pulled again when its tag has moved in the registry.
  - While it pulls it writes a line to the host's journal every ten seconds.
  - What the models were made from is noted in O(record), so that another file or other parameters
    are noticed.
options:
  url:
    description: Address of the server.
    type: str
    required: true
  models:
    description: Models to have.
    type: list
    elements: dict
    required: true
    suboptions:
      served_name:
        description: The model's name in Ollama. Without a tag it means V(latest).
        type: str
        required: true
      context_length:
        description: Tokens of context, the same as the parameter C(num_ctx).
        type: int
      parameters:
        description: Parameters of the model, as a Modelfile knows them, such as C(temperature) or
          C(stop).
        type: dict
        default: {}
  files:
    description:
      - Models that are created from a GGUF file on the host, by their C(served_name); all others
        are pulled.
      - Each has the C(path) and the C(fingerprint) that M(modelyard_model) returned, and its
        C(files).
    type: dict
    default: {}
  models_path:
    description: Where the server keeps its models.
    type: path
    required: true
  record:
    description: File in which the module notes what models were made from.
    type: path
    required: true
  registry:
    description: C(HOST:PORT) of the registry to pull from, if it is not Ollama's own. The models'
      names stay the same.
    type: str
  insecure:
    description: Ask the registry without TLS.
    type: bool
    default: false
  prune:
    description: Delete the models that O(models) does not name.
    type: bool
    default: false
  margin_mib:
    description: MiB that must stay free on the disk beside what is added.
    type: int
    default: 1024
  attempts:
    description: How many attempts in a row may bring no data before a pull fails.
    type: int
    default: 5
  stall_s:
    description: Seconds after which a pull that brings no data counts as failed.
    type: int
    default: 120
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: Modelyard
"""

EXAMPLES = r"""
- name: Models are there
  modelyard_ollama_models:
    url: http://127.0.0.1:11434
    models:
      - {served_name: "qwen2.5-coder:7b", context_length: 16384}
      - {served_name: house-style, parameters: {temperature: 0.2}}
    files:
      house-style: {path: /srv/models/house-style.gguf, fingerprint: "9f86d08188"}
    models_path: /var/lib/modelyard/ollama/local/models
    record: /var/lib/modelyard/ollama/local.json
"""

RETURN = r"""
pulled:
  description: Models that were pulled, or would be.
  returned: success
  type: list
  elements: str
created:
  description: Models that were created, or would be, from a file or with other parameters.
  returned: success
  type: list
  elements: str
removed:
  description: Models that were deleted, or would be.
  returned: success
  type: list
  elements: str
unknown:
  description: Models that are there, are not wanted, and stay.
  returned: success
  type: list
  elements: str
unchecked:
  description: What check mode could not check because it does not exist yet.
  returned: success
  type: list
  elements: str
"""

import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable

from ansible.module_utils.modelyard_host import read_text, sha256_of, write_atomically
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_ollama_pull import Pull, Space
from ansible.module_utils.modelyard_ollama_server import (
    TIMEOUT_S,
    OllamaError,
    Server,
    display_name,
    key,
    manifest_url,
    remote_name,
)

# The former version of a model that is replaced, kept until the new one is there. Deleting it then
# deletes its data, which the server would otherwise keep for good.
SUPERSEDED = "modelyard/superseded:latest"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Models:
    """What is wanted, compared with what is there; every change is one method."""

    def __init__(self, options: dict[str, Any], log: Callable[[str], None]) -> None:
        self.options, self.log = options, log
        self.server = Server(options["url"])
        self.space = Space(options["models_path"], options["margin_mib"])
        self.there: dict[str, dict[str, Any]] = {}
        text = read_text(options["record"])
        self.records: dict[str, dict[str, Any]] = json.loads(text) if text else {}

    def wanted(self, model: dict[str, Any]) -> dict[str, Any]:
        """Return what a model has to be made from: comparable with a record."""
        file = self.options["files"].get(model["served_name"])
        parameters = dict(model.get("parameters") or {})
        if model.get("context_length"):
            parameters["num_ctx"] = model["context_length"]
        return {"file": file["fingerprint"] if file else None, "parameters": parameters}

    def current(self, name: str) -> dict[str, Any] | None:
        """Return what a model is made from, None if it is absent. Unrecorded: pulled by hand."""
        found = self.there.get(key(name))
        if found is None:
            return None
        record = self.records.get(key(name))
        if record is None or record["digest"] != found["digest"]:
            return {"file": None, "parameters": {}}
        return {"file": record["file"], "parameters": record["parameters"]}

    def steps(self, model: dict[str, Any]) -> list[str]:
        """Return what has to be done for a model: `pull`, `create` (from a file), `adjust` (its
        parameters).
        """
        wanted, current = self.wanted(model), self.current(model["served_name"])
        if current == wanted:
            return []
        if wanted["file"]:
            return ["create"]
        adjust = ["adjust"] if wanted["parameters"] else []
        # A parameter cannot be taken away, so a model that has one too many is taken from the
        # registry again.
        if (
            current is None
            or current["file"]
            or current["parameters"].keys() - wanted["parameters"].keys()
        ):
            return ["pull", *adjust]
        return adjust

    def leftovers(self) -> list[str]:
        """Return names that only an interrupted run of ours can have left."""
        ours = [SUPERSEDED]
        for model in self.options["models"]:
            remote = remote_name(model["served_name"], self.options["registry"])
            if key(remote) != key(model["served_name"]):
                ours.append(remote)
        return [self.there[key(name)]["name"] for name in ours if key(name) in self.there]

    def unknown(self) -> list[str]:
        """Return the names of models that are there and not wanted."""
        known = {key(model["served_name"]) for model in self.options["models"]} | {
            key(name) for name in self.leftovers()
        }
        return sorted(entry["name"] for found, entry in self.there.items() if found not in known)

    def apply(self, model: dict[str, Any], steps: list[str]) -> None:
        """Take the steps for one model. The former version stays until the new one is there.

        Raises OllamaError.
        """
        name = model["served_name"]
        replaced = key(name) in self.there
        if replaced:
            self.server.must("POST", "/api/copy", {"source": name, "destination": SUPERSEDED})
        try:
            for step in steps:
                {"pull": self._pull, "create": self._create, "adjust": self._adjust}[step](model)
        finally:
            if replaced:
                self.remove(SUPERSEDED)
        digest = self.server.models()[key(name)]["digest"]
        self.records[key(name)] = {**self.wanted(model), "digest": digest}
        self.write_records()

    def remove(self, name: str) -> None:
        """Delete a model and the data that no other one uses. Raises OllamaError."""
        self.server.must("DELETE", "/api/delete", {"model": name})

    def write_records(self) -> None:
        """Note what the models are made from."""
        os.makedirs(os.path.dirname(self.options["record"]), mode=0o755, exist_ok=True)
        write_atomically(
            self.options["record"], json.dumps(self.records, indent=2, sort_keys=True) + "\n", 0o600
        )

    def forget(self) -> None:
        """Drop the notes about models that are gone."""
        stale = self.records.keys() - self.server.models().keys()
        if stale:
            self.records = {
                name: record for name, record in self.records.items() if name not in stale
            }
            self.write_records()

    def _pull(self, model: dict[str, Any]) -> None:
        name = remote_name(model["served_name"], self.options["registry"])
        missing = self._missing(name)
        if missing is not None:
            self.space.require(name, missing)
        Pull(self.server, name, self.options, self.log).run()
        if key(name) != key(model["served_name"]):
            self.server.must(
                "POST", "/api/copy", {"source": name, "destination": model["served_name"]}
            )
            self.remove(name)

    def _missing(self, name: str) -> int | None:
        """Ask the registry how many bytes a model needs that are not here; None if it does not tell
        us.
        """
        request = urllib.request.Request(
            manifest_url(name, self.options["insecure"]), headers={"Accept": MANIFEST}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                manifest = json.load(response)
            layers = [*manifest["layers"], manifest["config"]]
            return sum(
                max(0, int(layer["size"]) - self.space.here(str(layer["digest"])))
                for layer in layers
            )
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            self.log(f"{name}: its size is not known before the pull ({error})")
            return None

    def _create(self, model: dict[str, Any]) -> None:
        file = self.options["files"][model["served_name"]]
        path = file["path"]
        if len(file.get("files") or [path]) > 1:
            raise OllamaError(
                f"{path} is split, and Ollama does not support split models. Merge it with"
                " llama-gguf-split --merge"
            )
        fingerprint = file["fingerprint"]
        digest = f"sha256:{fingerprint if re.fullmatch(r'[0-9a-f]{64}', fingerprint) else sha256_of(path)}"
        if self.server.call("HEAD", f"/api/blobs/{digest}")[0] != 200:
            self.space.require(model["served_name"], os.path.getsize(path))
            self.server.send_file(path, digest)
        self._make(model, {"files": {os.path.basename(path): digest}})

    def _adjust(self, model: dict[str, Any]) -> None:
        self._make(model, {"from": model["served_name"]})

    def _make(self, model: dict[str, Any], base: dict[str, Any]) -> None:
        body = {
            "model": model["served_name"],
            "parameters": self.wanted(model)["parameters"],
            **base,
        }
        for event in self.server.events("/api/create", body):
            if "error" in event:
                raise OllamaError(f"{model['served_name']} could not be created: {event['error']}")


def describe(made: dict[str, dict[str, Any]]) -> str:
    """Return a line per model, for the diff."""
    lines = []
    for name, given in sorted(made.items()):
        file = f" from a file ({given['file']})" if given["file"] else ""
        parameters = "".join(
            f" {parameter}={value}" for parameter, value in sorted(given["parameters"].items())
        )
        lines.append(f"{name}{file}{parameters}\n")
    return "".join(lines)


def run(options: dict[str, Any], check_mode: bool, log: Callable[[str], None]) -> dict[str, Any]:
    """Bring the models to what is wanted; returns the module's result."""
    models = Models(options, log)
    unchecked = []
    try:
        models.there = models.server.models()
    except (OSError, http.client.HTTPException):
        if not check_mode:
            raise
        unchecked.append(f"the models of Ollama at {options['url']}, which does not run yet")
    wanted = {model["served_name"]: model for model in options["models"]}
    steps = {name: todo for name, model in wanted.items() if (todo := models.steps(model))}
    unknown = models.unknown()
    removed = models.leftovers() + (unknown if options["prune"] else [])
    before = {entry["name"]: models.current(entry["name"]) or {} for entry in models.there.values()}
    after = {name: given for name, given in before.items() if name not in removed}
    after.update({display_name(name): models.wanted(wanted[name]) for name in steps})
    if not check_mode:
        for name in removed:
            models.remove(name)
            del models.there[key(name)]
        for name, todo in steps.items():
            models.apply(wanted[name], todo)
        models.forget()
    return {
        "changed": bool(removed or steps),
        "pulled": [name for name, todo in steps.items() if "pull" in todo],
        "created": [name for name, todo in steps.items() if "pull" not in todo],
        "removed": removed,
        "unknown": [] if options["prune"] else unknown,
        "unchecked": unchecked,
        "diff": {
            "before_header": "models",
            "after_header": "models",
            "before": describe(before),
            "after": describe(after),
        },
    }


def main() -> None:
    """Run the module."""
    module = new_module(
        argument_spec={
            "url": {"type": "str", "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
            "files": {"type": "dict", "default": {}},
            "models_path": {"type": "path", "required": True},
            "record": {"type": "path", "required": True},
            "registry": {"type": "str"},
            "insecure": {"type": "bool", "default": False},
            "prune": {"type": "bool", "default": False},
            "margin_mib": {"type": "int", "default": 1024},
            "attempts": {"type": "int", "default": 5},
            "stall_s": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode, module.log)
    except OllamaError as error:
        module.fail_json(msg=str(error))
    except (OSError, http.client.HTTPException) as error:
        module.fail_json(
            msg=f"Ollama at {module.params['url']} does not answer: {error or type(error).__name__}"
        )
    for note in result["unchecked"]:
        module.warn(f"not checked yet: {note}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
