"""The preflight's parts, against this machine's real /proc where that is possible."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import ansible.module_utils
import modelyard_preflight as preflight
import pytest
from ansible.module_utils import modelyard_gguf, modelyard_model_file, modelyard_sockets
from ansible.module_utils import modelyard_gpu_demands as demands
from ansible.module_utils.modelyard_download import Means
from ansible.module_utils.modelyard_sockets import Holder, Listener

REDIS = {
    "service": "redis",
    "unit": "modelyard-redis.service",
    "address": "127.0.0.1",
    "port": 6379,
    "variable": "llm_gateway.redis.port",
}


@pytest.mark.parametrize(
    ("identifier", "version"),
    [("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")],
)
def test_known_systems_pass(identifier: str, version: str) -> None:
    assert preflight.os_problems(identifier, version) == []


@pytest.mark.parametrize(
    ("identifier", "version"), [("debian", "11"), ("fedora", "41"), ("debian", ""), ("", "")]
)
def test_other_systems_are_refused_with_what_is_supported(identifier: str, version: str) -> None:
    (problem,) = preflight.os_problems(identifier, version)
    assert "debian 12 and 13, ubuntu 22.04 and 24.04" in problem
    assert f"{identifier or 'unknown'}" in problem


def test_os_release_is_read_with_and_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text('NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n', encoding="utf-8")
    assert preflight.os_release(str(path)) == ("ubuntu", "24.04")
    assert preflight.os_release(str(tmp_path / "absent")) == ("", "")


def test_first_process_must_be_systemd(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/comm").write_text("systemd\n", encoding="utf-8")
    assert preflight.systemd_problems(str(tmp_path)) == []
    (tmp_path / "1/comm").write_text("tini\n", encoding="utf-8")
    assert "process 1 is tini" in preflight.systemd_problems(str(tmp_path))[0]


def test_paths_on_one_file_system_share_its_space(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    free = state.f_bavail * state.f_frsize // 2**20
    first, second = str(tmp_path / "not/there/yet"), str(tmp_path)
    assert preflight.disk_problems({first: 1, second: 1}) == []
    (problem,) = preflight.disk_problems({first: free - 10, second: free - 10})
    assert first in problem
    assert second in problem
    assert f"{2 * (free - 10)} MiB are needed" in problem


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000001000000", "::1"),
        ("00000000000000000000000000000000", "::"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
    ],
)
@pytest.mark.skipif(
    sys.byteorder != "little", reason="the examples are from a little-endian machine"
)
def test_addresses_of_proc_are_decoded(text: str, address: str) -> None:
    assert modelyard_sockets.decode_address(text) == address


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/redis-server.service\n", "redis-server.service"),
        (
            "0::/system.slice/system-modelyard\\x2dlitellm.slice/modelyard-litellm@blue.service\n",
            "modelyard-litellm@blue.service",
        ),
        ("0::/system.slice/docker.service/worker\n", "docker.service"),
        (
            "4:memory:/system.slice/wrong.service\n1:name=systemd:/system.slice/right.service\n",
            "right.service",
        ),
        ("0::/user.slice/user-0.slice/session-3.scope\n", ""),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_unit_is_read_from_the_cgroup(cgroup: str, unit: str) -> None:
    assert modelyard_sockets.unit_of_cgroup(cgroup) == unit


@pytest.mark.parametrize(
    ("planned", "held", "clash"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("0.0.0.0", "10.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", False),
        ("127.0.0.1", "::1", False),
    ],
)
def test_clash_of_addresses(planned: str, held: str, clash: bool) -> None:
    assert modelyard_sockets.clashes(planned, Listener(held, 1, "1")) is clash


def test_our_own_unit_may_hold_its_port_and_nobody_else() -> None:
    found = [Listener("127.0.0.1", 6379, "7")]
    assert preflight.port_problems([REDIS], [], {}) == []
    assert (
        preflight.port_problems(
            [REDIS], found, {"7": Holder("modelyard-redis.service", "redis-server", 9)}
        )
        == []
    )

    (foreign,) = preflight.port_problems(
        [REDIS], found, {"7": Holder("redis-server.service", "redis-server", 9)}
    )
    assert (
        "redis: 127.0.0.1 port 6379 is taken by redis-server.service (program redis-server, pid 9)"
        in foreign
    )
    assert "did not install it" in foreign
    assert "stop it yourself (`systemctl disable --now redis-server.service`)" in foreign
    assert foreign.endswith("or choose another port with llm_gateway.redis.port")

    door = {**REDIS, "service": "haproxy", "unit": "modelyard-haproxy.service", "port": 4000}
    held = {"7": Holder("modelyard-haproxy.service", "haproxy", 9)}
    (other,) = preflight.port_problems([REDIS, door], found, held)
    assert "another service of this plan" in other
    (leaving,) = preflight.port_problems([REDIS], found, held)
    assert (
        "It is a service of Modelyard that leaves this host, which must release the port first"
        in leaving
    ), "it goes at the end of a run"
    engine = {"7": Holder("modelyard-llama-cpp@old.service", "llama-server", 9)}
    assert preflight.port_problems([REDIS], found, engine) == [], "an engine that leaves makes room"

    (program,) = preflight.port_problems([REDIS], found, {"7": Holder("", "python3", 9)})
    assert "taken by program python3, pid 9" in program

    (unknown,) = preflight.port_problems([REDIS], found, {})
    assert "taken by an unknown process" in unknown


def test_a_public_name_does_not_go_unnoticed() -> None:
    live = {"checks": [{"kind": "http"}, {"kind": "models", "names": ["a", "b"]}]}
    (problem,) = preflight.removal_problems(["b", "c"], live)
    assert "missing from the plan: a." in problem
    assert "llm_allow_removal=true" in problem
    assert preflight.removal_problems(["a", "b", "c"], live) == []
    assert preflight.removal_problems(["c"], None) == [], "nothing is live yet"
    assert preflight.removal_problems([], live) == [], "it is not to be asked"


OLLAMA = {
    "service": "ollama@local",
    "unit": "modelyard-ollama@local.service",
    "address": "127.0.0.1",
    "port": 11434,
    "variable": "llm_providers.local.port",
    "foreign": {
        "unit": "ollama.service",
        "port": 11434,
        "program": "ollama",
        "adoption": (
            "Its models need not be pulled again: llm_providers.local.ollama.models_path adopts "
            "their directory (roles/ollama/README.md)"
        ),
    },
}
ADOPTS = (
    "Its models need not be pulled again: llm_providers.local.ollama.models_path adopts their"
    " directory"
)


def test_an_ollama_that_is_not_ours_is_refused_with_what_adopts_its_models() -> None:
    found = [Listener("127.0.0.1", 11434, "7")]
    (foreign,) = preflight.port_problems(
        [OLLAMA], found, {"7": Holder("ollama.service", "ollama", 9)}
    )
    assert (
        foreign
        == "ollama@local: 127.0.0.1 port 11434 is taken by ollama.service (program ollama, pid 9). "
        "Modelyard did not install it and leaves it alone: stop it yourself (`systemctl disable "
        f"--now ollama.service`), or choose another port with llm_providers.local.port. {ADOPTS} "
        "(roles/ollama/README.md)"
    )
    (other,) = preflight.port_problems([OLLAMA], found, {"7": Holder("nginx.service", "nginx", 9)})
    assert "models" not in other
    (redis,) = preflight.port_problems(
        [{**REDIS, "port": 11434}], found, {"7": Holder("", "ollama", 9)}
    )
    assert "models" not in redis


@pytest.mark.parametrize(
    ("enabled", "active", "port", "problems"),
    [
        ("enabled", "inactive", 11434, 1),
        ("enabled", "failed", 11434, 1),
        ("enabled", "active", 11434, 0),  # where it really listens is port_problems' part
        ("enabled", "inactive", 11435, 0),
        ("disabled", "inactive", 11434, 0),
        ("masked", "inactive", 11434, 0),
        ("", "inactive", 11434, 0),  # not installed
    ],
)
def test_a_stopped_unit_counts_if_a_boot_starts_it_on_our_port(
    enabled: str, active: str, port: int, problems: int
) -> None:
    states = {"ollama.service": {"UnitFileState": enabled, "ActiveState": active}}
    services = [{**OLLAMA, "port": port}, {**OLLAMA, "port": port, "address": "::1"}, REDIS]
    found = preflight.boot_problems(services, states)
    assert len(found) == problems
    if found:
        assert found[0].startswith(
            "ollama@local: ollama.service is stopped, but enabled: at the next boot it may "
        )
        assert f"or choose another port with llm_providers.local.port. {ADOPTS}" in found[0]


@pytest.mark.parametrize(
    ("service", "unit", "port"),
    [("redis", "redis-server", 6379), ("grafana", "grafana-server", 3000)],
)
def test_the_units_of_packages_are_known(service: str, unit: str, port: int) -> None:
    states = {f"{unit}.service": {"UnitFileState": "enabled", "ActiveState": "inactive"}}
    (problem,) = preflight.boot_problems(
        [{**REDIS, "service": service, "port": port, "variable": "x.port"}], states
    )
    assert (
        f"`systemctl disable {unit}.service` yourself, or choose another port with x.port"
        in problem
    )
    assert "models" not in problem


def test_every_problem_is_reported_once() -> None:
    holder = Holder("nginx.service", "nginx", 3)
    found = [
        Listener("0.0.0.0", 6379, "1"),
        Listener("::", 6379, "2"),
        Listener("0.0.0.0", 4000, "3"),
    ]
    door = {**REDIS, "service": "haproxy", "unit": "modelyard-haproxy.service", "port": 4000}
    problems = preflight.port_problems([REDIS, door], found, dict.fromkeys("123", holder))
    assert [problem.partition(":")[0] for problem in problems] == ["redis", "haproxy"]


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_real_socket_is_found_with_its_process(
    family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        server.listen()
        port = server.getsockname()[1]
        (listener,) = [entry for entry in modelyard_sockets.listeners() if entry.port == port]
        assert listener.address == address
        holder = modelyard_sockets.holders({listener.inode})[listener.inode]
        assert holder.pid == os.getpid()
        assert holder.program == Path("/proc/self/comm").read_text(encoding="utf-8").strip()


def test_the_module_reports_all_problems_and_never_a_change() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        arguments = {
            "services": [{**REDIS, "port": port}],
            "free_mib": {"/opt": 2**40},
            "_ansible_check_mode": True,
        }
        done = run_module(arguments)
    assert "failed" not in done, "its action judges the GPUs, and fails"
    assert done["changed"] is False
    assert any(f"port {port} is taken by" in problem for problem in done["problems"])
    assert any("/opt" in problem for problem in done["problems"])
    assert done["gpus"] == {
        "gpus": [],
        "driver_version": None,
        "cuda_version": None,
        "reason": "no engine runs on this host",
    }
    assert done["models"] == []


def engine(**more: object) -> dict:
    return {"service": "llama-cpp@a", "model": "a", "role": "llama_cpp", "vram_mib": None, **more}


SHA256 = "0123456789abcdef" * 4


def test_file_of_a_model_is_found_where_it_is_fetched_to(tmp_path: Path) -> None:
    url = engine(source={"url": "https://x.example/dir/m%2B1.gguf?download=true", "sha256": SHA256})
    repo = {"repo": "o/n", "revision": "1" * 40, "file": "sub/m.gguf"}
    both = [url, engine(source={**repo, "sha256": SHA256}), engine(source=repo)]
    for one in both:
        with pytest.raises(modelyard_gguf.GgufError, match="not on the host yet"):
            demands.model_file(one, "https://hub.example/", str(tmp_path))
    home = tmp_path / SHA256[:16]
    home.mkdir()
    for name in ("m+1.gguf", "m.gguf"):
        (home / name).touch()
    hub = modelyard_model_file.Hub("https://hub.example/", **repo, means=Means())
    record = Path(modelyard_model_file.published_record(hub.url, str(tmp_path)))
    record.parent.mkdir()
    record.write_text(f"{SHA256}\n", encoding="utf-8")
    found = [demands.model_file(one, "https://hub.example/", str(tmp_path)) for one in both]
    assert found == [f"{home}/m+1.gguf", f"{home}/m.gguf", f"{home}/m.gguf"]
    download = modelyard_model_file.Download(url["source"]["url"], SHA256, str(tmp_path), Means())
    assert download.path == found[0], "the very place where modelyard_model puts it"


def test_models_that_cannot_be_estimated_have_a_reason(tmp_path: Path) -> None:
    damaged = tmp_path / "m.gguf"
    damaged.write_bytes(b"GGUF")
    engines = [
        engine(vram_mib=1, source={"path": str(damaged)}),
        engine(gpu=False, source={"path": str(damaged)}),
        engine(model="b", source={"path": str(damaged)}),
        engine(model="c", source={"path": "/absent.gguf"}),
        engine(model="d", source={"path": "/srv/qwen"}, unestimated="its engine knows why"),
        engine(model="e"),
    ]
    found = demands.headers(engines, "https://hub.example", str(tmp_path))
    assert [(one["model"], one["reason"]) for one in found] == [
        ("b", f"{damaged} cannot be read: it ends within its header"),
        ("c", "/absent.gguf cannot be read: No such file or directory"),
        ("d", "its engine knows why"),
        ("e", "it has no file"),
    ]
    json.dumps(found)


def test_unit_of_every_program_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(
        "0::/system.slice/modelyard-llama-cpp@a.service\n", encoding="utf-8"
    )
    processes = [{"pid": 7}, {"pid": 8}]
    monkeypatch.setattr(demands, "survey", lambda path: {"gpus": [{"processes": processes}]})
    assert demands.gpu_facts(None, str(tmp_path)) == {
        "gpus": [
            {
                "processes": [
                    {"pid": 7, "unit": "modelyard-llama-cpp@a.service"},
                    {"pid": 8, "unit": ""},
                ]
            }
        ]
    }


def run_module(arguments: dict) -> dict:
    """Run the module as Ansible does, with its arguments on standard input."""
    bootstrap = (
        "import ansible.module_utils, ansible.module_utils.basic as b, json, sys, runpy\n"
        f"ansible.module_utils.__path__.append({ansible.module_utils.__path__[-1]!r})\n"
        "b._ANSIBLE_ARGS = sys.stdin.buffer.read()\n"
        "b._ANSIBLE_PROFILE = 'legacy'\n"
        f"runpy.run_path({preflight.__file__!r}, run_name='__main__')\n"
    )
    payload = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    done = subprocess.run(
        [sys.executable, "-c", bootstrap],
        input=payload,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))
