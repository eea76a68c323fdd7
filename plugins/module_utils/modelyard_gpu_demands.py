"""A host's GPUs and the models that are to run on them, as preflight needs them.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.modelyard_gguf import GgufError, read
from ansible.module_utils.modelyard_gpus import survey
from ansible.module_utils.modelyard_host import read_text
from ansible.module_utils.modelyard_model_file import MODELS, hub_url, place_of, published_record
from ansible.module_utils.modelyard_sockets import describe_process


def gpu_facts(path: str | None, proc: str = "/proc") -> dict[str, Any]:
    """Return what modelyard_gpu_facts does; every process has its unit, too."""
    facts = survey(path)
    for gpu in facts["gpus"]:
        for process in gpu["processes"]:
            process["unit"] = describe_process(str(process["pid"]), proc).unit
    return facts


def model_file(engine: dict[str, Any], endpoint: str, directory: str = MODELS) -> str:
    """Return where the GGUF file of a model is; raises GgufError with the reason where there is
    none (yet).
    """
    source = engine.get("source") or {}
    if engine.get("unestimated"):
        raise GgufError(engine["unestimated"])
    if not source:
        raise GgufError("it has no file")
    if source.get("path"):
        return str(source["path"])
    sha256, url = str(source.get("sha256") or ""), str(source.get("url"))
    if source.get("repo"):
        url = hub_url(endpoint, source["repo"], source["revision"], source["file"])
        sha256 = sha256 or (read_text(published_record(url, directory)) or "").strip()
    place = place_of(url, sha256, directory)
    if not sha256 or not os.path.exists(place):
        raise GgufError("its file is not on the host yet")
    return place


def headers(
    engines: list[dict[str, Any]], endpoint: str, directory: str = MODELS
) -> list[dict[str, Any]]:
    """Return for every model that does not declare its need the header of its file, or the reason
    why there is none.
    """
    found = []
    for engine in engines:
        if engine.get("vram_mib") is not None or not engine.get("gpu", True):
            continue
        answer = {"service": engine["service"], "model": engine["model"]}
        try:
            path = model_file(engine, endpoint, directory)
            try:
                answer["header"] = read(path)
            except (GgufError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise GgufError(f"{path} cannot be read: {reason}") from error
        except GgufError as error:
            answer["reason"] = str(error)
        found.append(answer)
    return found
