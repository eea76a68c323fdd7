"""vLLM's build for processors on a real host: what it answers, to whom, in which sandbox, and what
a change touches.

The hub of models is a stand-in (hub.py); no GPU is here, so the unit for GPUs is only rendered and
scored.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from modelyard_playbook import ansible_playbook, new_file

UNIT = "modelyard-vllm@tiny"
GPU = "vllm@gpu"
BASE = "http://127.0.0.1:8001"
MODELS = "/var/lib/modelyard/models/hf/vendor--tiny-llama"
GOOD, DAMAGED = (
    "0123456789abcdef0123456789abcdef01234567",
    "76543210fedcba9876543210fedcba9876543210",
)


def ask(
    host: Any, path: str, body: dict[str, Any] | None = None, key: str | None = None
) -> tuple[int, str]:
    """Return (status, text) of a request with the own key, or with `key`, or without (empty)."""
    header = ""
    if key is None:
        header = (
            '-H "Authorization: Bearer $(cat /etc/modelyard/credentials/vllm@tiny/current/API_KEY)"'
        )
    elif key:
        header = f'-H "Authorization: Bearer {key}"'
    data = f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body else ""
    done = host.run(f"curl -sS -m 120 -w '\\n%{{http_code}}' {header} {data} {BASE}{path}")
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def chat(model: str = "vendor/tiny", **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": "say something"}],
        "max_tokens": 4,
        **more,
    }


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


def fingerprint(host: Any) -> dict[str, str]:
    """Return what must not change when a run is refused: files, links, the process and when it
    started."""
    return {
        "files": host.check_output(
            "find /opt/modelyard/services /etc/modelyard /etc/systemd/system -type f -exec"
            " sha256sum {} + | sort"
        ),
        "links": host.check_output(
            "find /opt/modelyard /etc/modelyard -maxdepth 4 -type l -printf '%p %l\n' | sort"
        ),
        "models": host.check_output(
            "find /var/lib/modelyard/models -name '*.safetensors' -exec sha256sum {} + | sort"
        ),
        "process": host.check_output(
            f"systemctl show -p MainPID,ActiveState,ActiveEnterTimestampMonotonic {UNIT}"
        ),
    }


def test_the_environment_says_how_long_it_took(host: Any, measured: Callable[[str], None]) -> None:
    log = host.check_output("cat /opt/modelyard/store/vllm-*/build.log")
    found = re.findall(r"^(installed|built) in \d+ s$", log, re.MULTILINE)
    assert found == ["installed", "built"]
    size = host.check_output("du -sh /opt/modelyard/store/vllm-* | cut -f1")
    measured(
        f"vLLM's environment, {size}: {log.strip().splitlines()[-1]}; from then on it is copied"
    )


def main_pid(host: Any) -> str:
    return str(host.check_output(f"systemctl show --value -p MainPID {UNIT}"))


def test_unit_runs_as_its_user_and_comes_back_at_boot(host: Any) -> None:
    service = host.service(UNIT)
    assert service.is_running
    assert service.is_enabled
    assert host.file(f"/etc/systemd/system/modelyard.target.wants/{UNIT}.service").exists
    assert host.check_output(f"ps -o user:32= -p {main_pid(host)}") == "modelyard-vllm"


def score(line: str) -> float:
    return float(line.split(":")[1].split()[0])


def test_sandbox_score(host: Any, measured: Callable[[str], None]) -> None:
    found = score(host.run(f"systemd-analyze security --no-pager {UNIT} | tail -1").stdout)
    measured(f"systemd-analyze security, vLLM without a GPU: {found}")
    assert found <= 3.0


def test_sandbox_score_of_the_unit_for_gpus(host: Any, measured: Callable[[str], None]) -> None:
    text = json.dumps(host.ansible.get_variables()["instances"][0]).replace("vllm@tiny", GPU)
    model = {"source": {"path": "/srv/a model"}, "conflicts": ["modelyard-vllm@other.service"]}
    host.check_output("cp -r /srv/lab/models/tiny-llama '/srv/a model'")
    variables = {
        "backend": "cuda",
        "wanted_instances": [{**json.loads(text), **model, "adapters": []}],
        "engine_host_gpus": {"gpus": [{"index": 0}, {"index": 1}]},
        "engine_placed_gpus": {GPU: [1]},
    }
    done = ansible_playbook("converge.yml", "--check", "--diff", "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout + done.stderr
    unit = f"/run/modelyard-{GPU}.service"
    host.run(f"cat > {unit} <<'END'\n{new_file(done, f'{GPU}: modelyard-{GPU}.service')}\nEND")
    found = score(
        host.run(f"systemd-analyze security --no-pager --offline=true {unit} | tail -1").stdout
    )
    measured(
        f"systemd-analyze security, vLLM's unit for GPUs (rendered, never started here): {found}"
    )
    assert found <= 3.0
    text = host.file(unit).content_string
    for line in (
        "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1",
        "DeviceAllow=char-nvidia* rwm",
        "Conflicts=modelyard-vllm@other.service",
        'BindReadOnlyPaths="/srv/a model"',
    ):
        assert line in text.splitlines()
    assert "PrivateDevices" not in text
    assert "VLLM_CPU_KVCACHE_SPACE" not in text


def test_the_service_sees_its_adapter_and_nothing_else_of_a_home(host: Any) -> None:
    seen = host.check_output(f"ls /proc/{main_pid(host)}/root/home/keeper")
    assert seen == "adapter"


def test_listens_where_it_was_told(host: Any) -> None:
    assert host.check_output("ss -Hltn sport = :8001").split()[3] == "127.0.0.1:8001"


@pytest.mark.parametrize("model", ["vendor/tiny", "tuned"])
def test_answers(host: Any, model: str) -> None:
    status, text = ask(host, "/v1/chat/completions", chat(model))
    assert status == 200, text
    answer = json.loads(text)
    assert answer["model"] == model
    assert answer["usage"]["completion_tokens"] >= 1


def test_the_adapter_changes_the_answers(host: Any) -> None:
    said = {}
    for model in ("vendor/tiny", "tuned"):
        _, text = ask(
            host, "/v1/chat/completions", chat(model, temperature=0, max_tokens=32, ignore_eos=True)
        )
        said[model] = json.loads(text)["choices"][0]["message"]["content"]
    assert said["vendor/tiny"] != said["tuned"]


def test_streams(host: Any) -> None:
    status, text = ask(host, "/v1/chat/completions", chat(stream=True))
    assert status == 200, text
    assert text.strip().splitlines()[-1] == "data: [DONE]"


def test_offers_the_served_names_with_the_context_that_was_asked_for(host: Any) -> None:
    status, text = ask(host, "/v1/models")
    assert status == 200, text
    offered = {entry["id"]: entry["max_model_len"] for entry in json.loads(text)["data"]}
    assert offered.keys() == {"vendor/tiny", "tuned"}
    assert offered["vendor/tiny"] == 512


@pytest.mark.parametrize("key", ["", "wrong"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/completions"])
def test_nothing_without_the_key(host: Any, path: str, key: str) -> None:
    body = None if path == "/v1/models" else chat()
    assert ask(host, path, body, key=key)[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/invocations",
        "/tokenize",
        "/generative_scoring",
        "/inference/v1/generate",
        "/docs",
        "/openapi.json",
    ],
)
def test_what_the_key_does_not_guard_is_closed(host: Any, path: str) -> None:
    """vLLM 0.32.0 itself answers a chat at /invocations without a key."""
    for key in ("", None):
        assert ask(host, path, chat(), key=key)[0] == 404


def test_health_and_metrics_are_open(host: Any) -> None:
    assert ask(host, "/health", key="")[0] == 200
    status, text = ask(host, "/metrics", key="")
    assert status == 200
    assert re.search(
        r"^vllm:generation_tokens_total\{.*model_name=\"vendor/tiny\"", text, re.MULTILINE
    )


def test_keys_are_nowhere_but_where_they_belong(host: Any) -> None:
    places = {
        "unit files": "cat /etc/systemd/system/modelyard-vllm@*",
        "properties": f"systemctl show {UNIT}",
        "command lines": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        "journal": "journalctl --no-pager -o cat",
        "releases": (
            "grep -ra . /opt/modelyard/services /var/lib/modelyard/activations"
            " /var/lib/modelyard/vllm"
        ),
    }
    # Written so that the search does not find itself.
    search = "grep -ao 'planted-key-o[f]' | wc -l"
    found = {
        place: host.run(f"({command}) 2>/dev/null | {search}").stdout.strip()
        for place, command in places.items()
    }
    assert found == dict.fromkeys(places, "0")
    # vLLM reads its key from the environment, which only root and the service itself can look into.
    assert (
        host.run(
            f"cat /proc/{main_pid(host)}/environ | tr '\\0' '\\n' | grep -c ^VLLM_API_KEY="
        ).stdout.strip()
        == "1"
    )
    assert host.run(f"stat -c %a /proc/{main_pid(host)}/environ").stdout.strip() == "400"


def test_it_reports_nothing_to_anybody(host: Any) -> None:
    environment = host.check_output(f"tr '\\0' '\\n' < /proc/{main_pid(host)}/environ").splitlines()
    wanted = {
        "VLLM_NO_USAGE_STATS=1",
        "DO_NOT_TRACK=1",
        "HF_HUB_OFFLINE=1",
        "TRANSFORMERS_OFFLINE=1",
    }
    assert wanted <= set(environment)
    # Where it reports, it writes down what.
    assert host.run("find /var/lib/modelyard/vllm -name 'usage_stats*'").stdout == ""
    pids = host.check_output("pgrep -u modelyard-vllm").split()
    connected = host.check_output("ss -Htnp state established state syn-sent; true").splitlines()
    own = [line for line in connected if any(f"pid={pid}," in line for pid in pids)]
    assert [line for line in own if not re.search(r"\s127\.0\.0\.1:\d+\s+users", line)] == []


def test_the_model_was_fetched_whole(host: Any) -> None:
    assert sorted(host.check_output(f"ls {MODELS}").split()) == [
        GOOD,
        f"{GOOD}.lock",
        f"{GOOD}.verified",
    ]
    assert "model.safetensors" in host.check_output(f"ls {MODELS}/{GOOD}").split()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"arguments": ["--enforce-eager", "--no-such-option"]},
            "vllm: error: unrecognized arguments: --no-such-option",
        ),
        (
            {"arguments": ["--trust-remote-code"]},
            "--trust-remote-code would run code that comes with a model",
        ),
        # vLLM understands abbreviations.
        ({"arguments": ["--trust-rem"]}, "--trust-remote-code runs code that comes with a model"),
        pytest.param(
            {"commit": "damaged"},
            "model.safetensors has the wrong checksum: the hub publishes",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"version": "0.14.0"},
            "vLLM 0.14.0 has known vulnerabilities: set llm_versions.vllm.version to 0.18.0 or"
            " newer",
            marks=pytest.mark.full,
        ),
        ({"backend": "cuda"}, "an NVIDIA GPU (nvidia-smi"),
    ],
    ids=[
        "unknown argument",
        "foreign programs",
        "the same, abbreviated",
        "wrong checksum",
        "version below the floor",
        "no GPU",
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    host: Any, variables: dict[str, Any], message: str
) -> None:
    before = fingerprint(host)
    done = converge(**variables)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    after = fingerprint(host)
    if variables.get("commit") == "damaged":
        assert not host.file(f"{MODELS}/{DAMAGED}").exists
    assert after == before


@pytest.mark.full
def test_an_engine_that_died_is_started_again(host: Any, measured: Callable[[str], None]) -> None:
    """The process that computes is killed, not the one that listens: that ends by itself then."""
    former = main_pid(host)
    killed = time.monotonic()
    host.check_output(
        f"kill -9 {host.check_output('pgrep -u modelyard-vllm -f ^VLLM::EngineCore')}"
    )
    # It imports 2 GB of Python four times.
    while main_pid(host) in (former, "0") or ask(host, "/v1/chat/completions", chat())[0] != 200:
        assert time.monotonic() - killed < 900, "it is not back"
        time.sleep(1)
    measured(f"vLLM answers again {time.monotonic() - killed:.0f} s after its engine was killed")


@pytest.mark.full
def test_an_instance_that_is_no_longer_wanted_goes(host: Any) -> None:
    """Comes last: bringing it back would cost another start."""
    done = converge(wanted=[])
    assert done.returncode == 0, done.stdout + done.stderr
    assert not host.service(UNIT).is_running
    # Its releases stay for a week.
    for gone in (
        f"/etc/systemd/system/{UNIT}.service",
        "/opt/modelyard/services/vllm@tiny/current",
    ):
        assert not host.file(gone).exists, gone
    # Models are large: they go only when asked.
    assert host.file(f"{MODELS}/{GOOD}/model.safetensors").exists
