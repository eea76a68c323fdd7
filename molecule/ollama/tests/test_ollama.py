"""Ollama on a real host: what it answers, in which sandbox, where its models come from, and what an
accident costs.

The server is the real one, built from source by Go for the CPU, not the official archive; no GPU
was met. Where it could not be built, every test here is skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from modelyard_playbook import SCENARIO, ansible_module, ansible_playbook, said

from modelyard.engines.ollama import ENGINE

SERVICE = "ollama@local"
UNIT = f"modelyard-{SERVICE}"
URL = "http://127.0.0.1:11434"
BLOBS = "/srv/models/blobs"
LOCK = SCENARIO / "inventory/checksums.txt"
# Waiting ends when what is waited for has come; the limit is only for a machine that is very slow.
PATIENCE_S = 180.0


@pytest.fixture(scope="module", autouse=True)
def _needs_ollama() -> None:
    if not host_of("ollama").file("/opt/modelyard/services").exists:
        pytest.skip("Ollama could not be built on this machine (lab/ollama.py says why)")


@pytest.fixture(scope="module")
def hub() -> Any:
    """The host with the registry."""
    return testinfra.get_host("ansible://hub")


def ask(
    host: Any, path: str, body: dict[str, Any] | None = None, headers: str = "", method: str = ""
) -> Any:
    """Return (status, text) of a request to the server."""
    data = f"-d '{json.dumps(body)}'" if body else ""
    verb = f"-X {method}" if method else ""
    done = host.run(f"curl -sS -m 120 -w '\\n%{{http_code}}' {verb} {headers} {data} {URL}{path}")
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def converge(*arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", *arguments, "-e", json.dumps(variables))


def have(*models: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Have these models beside the scenario's own, with the module that the role uses, as root on
    the host."""
    own = [
        {"served_name": "tiny"},
        {
            "served_name": "tiny:second",
            "context_length": 512,
            "parameters": {"temperature": 0.5, "stop": [".", "!"]},
        },
        {"served_name": "own", "context_length": 256},
    ]
    record = json.loads(
        host_of("ollama").file("/var/lib/modelyard/ollama/local.json").content_string
    )
    arguments = {
        "url": URL,
        "models": own + list(models),
        "files": {
            "own": {
                "path": "/srv/lab/models/tiny-3.gguf",
                "fingerprint": record["own:latest"]["file"],
            }
        },
        "models_path": "/srv/models",
        "record": "/var/lib/modelyard/ollama/local.json",
        "registry": "hub:5001",
        "insecure": True,
        "margin_mib": 1,
        **options,
    }
    return ansible_module("ollama", "modelyard_ollama_models", arguments)


def host_of(name: str) -> Any:
    return testinfra.get_host(f"ansible://{name}")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.3)


def names(host: Any) -> set[str]:
    return {entry["name"] for entry in json.loads(ask(host, "/api/tags")[1])["models"]}


def loaded(host: Any) -> dict[str, str]:
    """Return {model: when it expires} of what is loaded."""
    status, text = ask(host, "/api/ps")
    return (
        {entry["name"]: entry["expires_at"] for entry in json.loads(text)["models"]}
        if status == 200
        else {}
    )


def pid(host: Any) -> str:
    return str(host.check_output(f"systemctl show --value -p MainPID {UNIT}"))


def score(host: Any) -> float:
    line = host.run(f"systemd-analyze security --no-pager {UNIT} | tail -1").stdout
    return float(line.split(":")[1].split()[0])


def test_unit_runs_as_its_user_and_comes_back_at_boot(host: Any) -> None:
    assert host.service(UNIT).is_running
    assert host.service(UNIT).is_enabled
    assert host.check_output(f"ps -o user:32= -p {pid(host)}") == "modelyard-ollama"
    assert "0.17.4" in ask(host, "/api/version")[1]


def test_sandbox_score(host: Any, measured: Callable[[str], None]) -> None:
    measured(f"sandbox score of ollama: {score(host)}")
    assert score(host) <= 1.6


def test_listens_where_it_was_told(host: Any) -> None:
    listening = host.check_output("ss -Hltn 'sport = :11434'").splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:11434"]


def test_models_belong_to_the_service_alone(host: Any) -> None:
    assert host.check_output(
        "stat -c '%U %a' /srv/models /var/lib/modelyard/ollama/local"
    ).splitlines() == [
        "modelyard-ollama 700",
        "modelyard-ollama 700",
    ]
    for path in ("/srv/models", "/var/lib/modelyard/ollama/local"):
        assert host.run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups ls {path}").rc != 0


def test_models_are_there_and_answer(host: Any) -> None:
    assert names(host) == {"tiny:latest", "tiny:second", "own:latest"}
    for name in ("tiny", "tiny:second", "own"):
        question = {
            "model": name,
            "messages": [{"role": "user", "content": "say something"}],
            "max_tokens": 4,
        }
        status, text = ask(host, "/v1/chat/completions", question)
        assert status == 200, text
        assert json.loads(text)["choices"][0]["message"]["content"], text


def test_parameters_of_models(host: Any) -> None:
    found = {}
    for name in ("tiny", "tiny:second", "own"):
        shown = json.loads(ask(host, "/api/show", {"model": name})[1])
        found[name] = sorted(
            " ".join(line.split()) for line in shown.get("parameters", "").splitlines()
        )
    # As it is in the registry: stops that belong to its template.
    assert found["tiny"] == ['stop "<|im_end|>"', 'stop "<|im_start|>"']
    assert found["tiny:second"] == ["num_ctx 512", 'stop "!"', 'stop "."', "temperature 0.5"]
    assert found["own"] == ["num_ctx 256", *found["tiny"]]
    loaded_now = {
        entry["name"]: entry["context_length"]
        for entry in json.loads(ask(host, "/api/ps")[1])["models"]
    }
    assert loaded_now["tiny:latest"] == 1024  # the server's default, which the settings set


def test_web_pages_of_others_are_refused(host: Any) -> None:
    def status(origin: str) -> int:
        asked = f'-H "Origin: {origin}" -H "Access-Control-Request-Method: POST"'
        return int(ask(host, "/api/chat", headers=asked, method="OPTIONS")[0])

    assert status("https://chat.example.org") == 204
    assert status("https://other.example.org") == 403


def test_a_crash_is_repaired_and_the_model_is_loaded_again(host: Any) -> None:
    assert loaded(host)["tiny:latest"] > "2100"  # for good
    before = pid(host)
    host.check_output(f"kill -9 {before}")
    wait_until(
        lambda: host.service(UNIT).is_running and pid(host) not in ("0", before),
        "a restart by systemd",
    )
    wait_until(lambda: loaded(host).get("tiny:latest", "") > "2100", "the preload after a crash")
    assert names(host) == {"tiny:latest", "tiny:second", "own:latest"}


def test_the_command_works_for_the_admin(host: Any) -> None:
    assert host.check_output("ollama --version").splitlines() == ["ollama version is 0.17.4"]
    listed = {
        line.split()[0] for line in host.check_output("HOME=/root ollama list").splitlines()[1:]
    }
    assert listed == names(host)


def test_the_checksum_that_was_published_is_recorded(host: Any) -> None:
    entries = [line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    published = host.check_output("cat /srv/lab/ollama/0.17.4/sha256sum.txt")
    assert len(entries) == 1
    assert f"{entries[0][0]}  ./{entries[0][1].rpartition('/')[2]}" in published


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"archive_sha256": "0" * 64}, f"pinned {'0' * 64}; the file changed"),
        pytest.param(
            {"version": "0.17.0"},
            "Ollama 0.17.0 has known vulnerabilities: set llm_versions.ollama.version to 0.17.1 or"
            " newer",
            marks=pytest.mark.full,
        ),
    ],
    ids=["wrong checksum", "below the floor"],
)
def test_what_is_wrong_is_refused_and_the_former_release_serves(
    host: Any, variables: dict[str, Any], message: str
) -> None:
    before = host.check_output(
        f"find /opt/modelyard /etc/systemd/system -printf '%p %s %l\\n' | sort; {started()}"
    )
    done = converge(**variables)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert (
        host.check_output(
            f"find /opt/modelyard /etc/systemd/system -printf '%p %s %l\\n' | sort; {started()}"
        )
        == before
    )


def started() -> str:
    return f"systemctl show -p MainPID,ActiveState,ActiveEnterTimestampMonotonic {UNIT}"


@pytest.fixture
def cut(hub: Any) -> Iterator[int]:
    """The registry hangs up after so many bytes of a layer, until the test or its end repairs
    it."""
    hub.check_output("rm -f /run/front.seen; echo 200000 > /run/front.cut")
    yield 200000
    hub.check_output("rm -f /run/front.cut")


def test_a_pull_that_is_cut_off_loses_nothing(host: Any, hub: Any, cut: int) -> None:
    slow = {"served_name": "slow"}
    # The registry hangs up in the middle of the model; so does every further attempt, with no byte
    # more.
    failed = have(slow, attempts=1, stall_s=10)
    assert failed["failed"], failed
    kept = "0.2 MiB of 0.6 MiB are kept in the model store; run again to continue"
    assert failed["msg"] == f"hub:5001/library/slow could not be pulled: no data for 10 s. {kept}"
    assert names(host) == {"tiny:latest", "tiny:second", "own:latest"}
    partial = host.check_output(f"ls {BLOBS}/*-partial")
    # A restart of the server deletes no partial pull.
    host.check_output(f"systemctl restart {UNIT}")
    wait_until(lambda: ask(host, "/api/version")[0] == 200, "a restart")
    assert host.check_output(f"ls {BLOBS}/*-partial") == partial
    hub.check_output("rm -f /run/front.cut /run/front.seen")
    done = have(slow)
    assert (done["changed"], done["pulled"]) == (True, ["slow"])
    layer = Path(partial).name.removeprefix("sha256-").removesuffix("-partial")
    seen = [json.loads(line) for line in hub.check_output("cat /run/front.seen").splitlines()]
    assert [entry["first"] for entry in seen if entry["layer"] == layer] == [cut]
    assert host.run(f"ls {BLOBS}/*-partial*").rc != 0
    assert host.check_output(f"sha256sum < {BLOBS}/sha256-{layer}").split()[0] == layer
    assert not have(slow)["changed"]
    # The scenario's models do not name it: it stays, until pruning is asked for.
    assert have()["unknown"] == ["slow:latest"]
    pruned = have(prune=True)
    assert (pruned["changed"], pruned["removed"]) == (True, ["slow:latest"])
    assert not host.file(f"{BLOBS}/sha256-{layer}").exists
    assert names(host) == {"tiny:latest", "tiny:second", "own:latest"}


@pytest.mark.full
def test_a_registry_that_is_gone_is_named(hub: Any) -> None:
    hub.check_output("systemctl stop front")
    try:
        failed = have({"served_name": "slow"}, attempts=1)
    finally:
        hub.check_output("systemctl start front")
    assert failed["failed"], failed
    assert re.search(
        r"slow could not be pulled: .*connection refused\. run again to continue", failed["msg"]
    ), failed


@pytest.mark.full
def test_a_disk_that_is_too_small_is_noticed_before_the_pull(host: Any) -> None:
    used = int(host.check_output("df --output=used -B1 /srv/models").splitlines()[1])
    host.check_output(f"mount -o remount,size={used + (1 << 20)} /srv/models")
    try:
        failed = have({"served_name": "slow"})
    finally:
        host.check_output("mount -o remount,size=64m /srv/models")
    assert failed["failed"], failed
    assert "no room for hub:5001/library/slow in /srv/models" in failed["msg"]
    assert host.run(f"ls {BLOBS}/*-partial*").rc != 0
    assert have({"served_name": "slow"})["pulled"] == ["slow"]
    assert have(prune=True)["removed"] == ["slow:latest"]


@pytest.fixture(scope="module")
def changed() -> Iterator[set[str]]:
    """One run with another file for `own`, on a host that is said to have a GPU, where somebody has
    a command `ollama`.

    What lay in the model store before is returned. The last test puts everything back.
    """
    host = host_of("ollama")
    before = set(host.check_output(f"ls {BLOBS}").split())
    host.check_output("printf '#!/bin/sh\\necho mine\\n' > /usr/local/bin/ollama")
    gpus = {"engine_host_gpus": {"gpus": [{"index": 1}]}, "engine_placed_gpus": {SERVICE: [1]}}
    done = converge(own_file="/srv/lab/models/tiny.gguf", **gpus)
    assert done.returncode == 0, done.stdout + done.stderr
    yield before
    host.run("grep -q mine /usr/local/bin/ollama && rm /usr/local/bin/ollama")


def test_another_file_is_another_model_and_the_former_one_leaves_no_data(
    host: Any, changed: set[str]
) -> None:
    # The lab's first model is what `tiny` was pushed from, so its weights were there already.
    after = set(host.check_output(f"ls {BLOBS}").split())
    digest = host.check_output("sha256sum /srv/lab/models/tiny-3.gguf").split()[0]
    assert f"sha256-{digest}" in changed
    assert f"sha256-{digest}" not in after
    assert not [name for name in after - changed if host.file(f"{BLOBS}/{name}").size > 4096]


def test_gpu_flavour_of_the_unit(
    host: Any, changed: set[str], measured: Callable[[str], None]
) -> None:
    """No GPU was met: what is checked is that the unit shows NVIDIA's devices, is as closed as
    before, and starts."""
    unit = host.file(f"/etc/systemd/system/{UNIT}.service").content_string
    assert "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1\n" in unit
    assert "PrivateDevices=true" not in unit
    assert "\nDevicePolicy=closed\n" in unit
    assert "\nDeviceAllow=char-nvidia* rwm\n" in unit
    assert "\nExecStartPre=+-/usr/bin/nvidia-modprobe -u -c 1\n" in unit
    assert host.service(UNIT).is_running
    measured(f"sandbox score of ollama with NVIDIA's devices allowed (no GPU there): {score(host)}")
    assert score(host) <= 1.6


def test_somebody_elses_command_stays(host: Any, changed: set[str]) -> None:
    assert host.check_output("ollama") == "mine"
    host.check_output("rm /usr/local/bin/ollama")


def test_the_last_instance_can_go_and_come_back(host: Any, hub: Any) -> None:
    done = converge(wanted=[])
    assert done.returncode == 0, done.stdout + done.stderr
    assert not host.service(UNIT).is_running
    for gone in (
        f"/etc/systemd/system/{UNIT}.service",
        f"/opt/modelyard/services/{SERVICE}/current",
        "/usr/local/bin/ollama",
    ):
        assert not host.file(gone).exists, gone
    # Models are large: they go only when asked. So nothing is fetched when it comes back.
    hub.check_output("rm -f /run/front.seen")
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.run("cat /run/front.seen").rc != 0
    assert names(host) == {"tiny:latest", "tiny:second", "own:latest"}
    assert host.file("/usr/local/bin/ollama").exists
    assert (
        "CUDA_VISIBLE_DEVICES"
        not in host.file(f"/etc/systemd/system/{UNIT}.service").content_string
    )


ADOPTED = "/usr/share/ollama/.ollama/models"


def test_the_store_of_an_ollama_that_was_here_before_is_adopted_where_it_is() -> None:
    """What roles/ollama/README.md says, step by step, on a host that Modelyard has not seen yet."""
    host, target = host_of("adopted"), {"target": "adopted"}
    theirs = "systemctl show -p MainPID,ActiveState,UnitFileState ollama"
    files = f"cd {ADOPTED} && find . -type f -printf '%i %s %p\\n' | sort"
    before, running = host.check_output(files), host.check_output(theirs)
    assert " ./manifests/registry.ollama.ai/library/kept/latest" in before
    assert "ActiveState=active" in running

    # site.yml looks before anything changes.
    assert ENGINE.foreign
    ours = {"service": SERVICE, "unit": f"{UNIT}.service", "address": "127.0.0.1", "port": 11434}
    ours |= {"variable": "llm_providers.local.port"}
    theirs_would_be = {**ENGINE.foreign._asdict(), "adoption": ENGINE.adoption("local")}
    looked = {"services": [{**ours, "foreign": theirs_would_be}], "free_mib": {}}
    (problem,) = ansible_module("adopted", "modelyard_preflight", looked)["problems"]
    assert "127.0.0.1 port 11434 is taken by ollama.service (program ollama, pid " in problem
    assert "`systemctl disable --now ollama.service`" in problem
    assert (
        "llm_providers.local.ollama.models_path adopts their directory (roles/ollama/README.md)"
        in problem
    )
    # Check mode knows whose the store is before there is a user of ours; that root made the
    # directory says nothing.
    host.check_output(f"chown root: {ADOPTED}")
    refused = converge("--check", **target)
    assert refused.returncode != 0
    assert re.search(f"{ADOPTED}/(blobs|manifests) belongs to ollama, so", said(refused))
    assert host.check_output(theirs) == running
    assert not host.user("modelyard-ollama").exists

    host.check_output("systemctl disable --now ollama.service")
    assert ansible_module("adopted", "modelyard_preflight", looked)["problems"] == []
    host.check_output("useradd --system --user-group modelyard-ollama")
    give = f"chown -R modelyard-ollama:modelyard-ollama {ADOPTED}/"
    assert give in said(refused)
    host.check_output(give)
    done = converge(**target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.check_output(files) == before, "something was copied, pulled or deleted"
    answers(host)
    assert loaded(host)["kept:latest"] > "2100"
    again = converge(**target)
    assert re.search(r"^adopted\s.* changed=0 .* failed=0 ", again.stdout, re.MULTILINE), (
        again.stdout
    )

    # The way back.
    host.check_output(
        f"systemctl stop {UNIT} && chown -R ollama:ollama {ADOPTED}/ && systemctl start ollama"
    )
    wait_until(lambda: ask(host, "/api/version")[0] == 200, "a start of the other Ollama")
    answers(host)
    assert host.check_output(files) == before


def answers(host: Any) -> None:
    """Ask the model of the host `adopted`."""
    question = {
        "model": "kept",
        "messages": [{"role": "user", "content": "say something"}],
        "max_tokens": 4,
    }
    status, text = ask(host, "/v1/chat/completions", question)
    assert status == 200, text
    assert json.loads(text)["choices"][0]["message"]["content"], text
