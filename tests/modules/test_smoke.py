"""What smoke adds to the plan's checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import modelyard_smoke
import pytest
from ansible.module_utils import modelyard_services as services


def check(service: str, kind: str = "unit") -> dict[str, Any]:
    return {"name": f"{service} {kind}", "service": service, "kind": kind}


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine that found its GPU on the host, one without, and the gateway's two slots."""
    monkeypatch.setattr(services, "SERVICES", str(tmp_path))
    slots = {"activation": {"strategy": "slots", "slots": {"blue": 1}}}
    for name, checks, more in (
        ("llama-cpp@a", [check("llama-cpp@a"), check("llama-cpp@a", "gpu")], {}),
        ("llama-cpp@b", [check("llama-cpp@b")], {}),
        ("litellm", [{**check("litellm", "http"), "url": "http://127.0.0.1:@PORT@/"}], slots),
    ):
        spec = {
            "user": "u",
            "files": {},
            "units": {},
            "store": [],
            "generation": "",
            "activation": {},
            "plan": {},
        }
        release = services.Release(name, {**spec, "checks": checks, **more})
        Path(release.path).mkdir(parents=True)
        Path(release.path, "manifest.json").write_text(release.manifest(), encoding="utf-8")
        services.Service(name).point("current", release)


@pytest.mark.usefixtures("live")
def test_gpus_that_a_host_found_are_checked_though_no_plan_names_them() -> None:
    left_out = {**check("vllm-qwen"), "skip": "status: disabled"}
    planned = [
        check("llama-cpp@a"),
        check("llama-cpp@b"),
        check("litellm"),
        check("never-applied"),
        left_out,
    ]
    assert modelyard_smoke.with_gpu_checks(planned) == [
        planned[0],
        check("llama-cpp@a", "gpu"),
        *planned[1:],
    ]
