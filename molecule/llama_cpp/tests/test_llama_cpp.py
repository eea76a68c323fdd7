"""llama.cpp on a real host: what it answers, to whom, in which sandbox, and what a change
touches."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from modelyard_playbook import ansible_playbook, new_file

INSTANCES = {"one": ("http://127.0.0.1:8080", "vendor/one"), "two": ("http://[::1]:8081", "two")}
GPU = "llama-cpp@gpu"
MODELS = "/var/lib/modelyard/models"
HUB = "http://127.0.0.1:8900"
HUB_SOURCE = {
    "repo": "owner/tiny-GGUF",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "file": "two.gguf",
}


def ask(
    host: Any, name: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
) -> Any:
    """Return (status, text) of a request with the own key, or with `key`, or without (empty)."""
    base, _ = INSTANCES[name]
    header = ""
    if key is None:
        header = (
            '-H "Authorization: Bearer $(cat'
            f' /etc/modelyard/credentials/llama-cpp@{name}/current/API_KEY)"'
        )
    elif key:
        header = f'-H "Authorization: Bearer {key}"'
    data = f"-d '{json.dumps(body)}'" if body else ""
    done = host.run(f"curl -gsS -m 20 -w '\\n%{{http_code}}' {header} {data} {base}{path}")
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def chat(name: str, **more: Any) -> dict[str, Any]:
    return {
        "model": INSTANCES[name][1],
        "messages": [{"role": "user", "content": "say something"}],
        "max_tokens": 4,
        **more,
    }


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


def fingerprint(host: Any) -> dict[str, str]:
    """Return what must not change when a run is refused: files, links, processes and when they
    started."""
    return {
        "files": host.check_output(
            "find /opt/modelyard /etc/modelyard /etc/systemd/system -type f -exec sha256sum {} + |"
            " sort"
        ),
        "links": host.check_output(
            "find /opt/modelyard /etc/modelyard -type l -printf '%p %l\n' | sort"
        ),
        "models": host.check_output(f"find {MODELS} -name '*.gguf' -exec sha256sum {{}} + | sort"),
        **{name: started(host, name) for name in INSTANCES},
    }


def started(host: Any, name: str) -> str:
    shown = host.check_output(
        "systemctl show -p MainPID,ActiveState,ActiveEnterTimestampMonotonic"
        f" modelyard-llama-cpp@{name}"
    )
    return str(shown)


@pytest.fixture
def restored() -> Iterator[None]:
    """Afterwards the host is as the scenario describes it."""
    yield
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=sorted(INSTANCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_unit_runs_as_its_user_and_comes_back_at_boot(host: Any, name: str) -> None:
    service = host.service(f"modelyard-llama-cpp@{name}")
    assert service.is_running
    assert service.is_enabled
    assert host.file(
        f"/etc/systemd/system/modelyard.target.wants/modelyard-llama-cpp@{name}.service"
    ).exists
    pid = host.check_output(f"systemctl show --value -p MainPID modelyard-llama-cpp@{name}")
    assert host.check_output(f"ps -o user:32= -p {pid}") == "modelyard-llama-cpp"


def test_sandbox_score(host: Any, name: str) -> None:
    line = host.run(
        f"systemd-analyze security --no-pager modelyard-llama-cpp@{name} | tail -1"
    ).stdout
    assert float(line.split(":")[1].split()[0]) <= 1.6, line


def test_the_service_sees_its_model_and_nothing_else_of_a_home(host: Any) -> None:
    pid = host.check_output("systemctl show --value -p MainPID modelyard-llama-cpp@one")
    assert host.check_output(f"ls /proc/{pid}/root/home /proc/{pid}/root/home/keeper").split() == [
        f"/proc/{pid}/root/home:",
        "keeper",
        f"/proc/{pid}/root/home/keeper:",
        "one.gguf",
    ]


def test_listens_where_it_was_told(host: Any) -> None:
    sockets = host.check_output("ss -Hltnp | grep llama-server")
    assert sorted(line.split()[3] for line in sockets.splitlines()) == [
        "127.0.0.1:8080",
        "[::1]:8081",
    ]


def test_answers(host: Any, name: str) -> None:
    status, text = ask(host, name, "/v1/chat/completions", chat(name))
    assert status == 200, text
    answer = json.loads(text)
    assert answer["usage"]["completion_tokens"] >= 1
    assert answer["model"] == INSTANCES[name][1]


def test_streams(host: Any, name: str) -> None:
    status, text = ask(host, name, "/v1/chat/completions", chat(name, stream=True))
    assert status == 200, text
    assert text.strip().splitlines()[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    "field",
    [
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"arguments": "planted-content"},
                        }
                    ],
                }
            ]
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": "http://127.0.0.1:1/planted-content"},
                        }
                    ],
                }
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "planted-content"}]}]},
        {"grammar": "planted-content \n planted-content: x"},
        {"tools": [{"type": "planted-content"}], "tool_choice": "planted-content"},
        {"response_format": {"type": "planted-content"}},
    ],
    ids=["tool-call", "image", "part", "grammar", "tool", "format"],
)
def test_what_a_client_sent_is_not_in_the_journal(host: Any, field: dict[str, Any]) -> None:
    """The server repeats it in its errors. What it says of a request before that is there."""
    status, _text = ask(host, "one", "/v1/chat/completions", {**chat("one"), **field})
    assert 400 <= status < 600
    assert ask(host, "one", "/v1/chat/completions", chat("one"))[0] == 200
    journal = host.check_output(
        "sync; journalctl --sync; journalctl -u modelyard-llama-cpp@one --no-pager -o cat"
    )
    assert "planted-content" not in journal
    assert "listening on" in journal
    assert "slot" in journal.partition("listening on")[2]


def test_offers_the_served_name(host: Any, name: str) -> None:
    status, text = ask(host, name, "/v1/models")
    assert status == 200, text
    assert [entry["id"] for entry in json.loads(text)["data"]] == [INSTANCES[name][1]]


def test_context_is_what_was_asked_for(host: Any) -> None:
    # two has no context_length: it gets the model's own.
    for name, tokens in (("one", 512), ("two", 4096)):
        status, text = ask(host, name, "/props")
        assert status == 200, text
        assert json.loads(text)["default_generation_settings"]["n_ctx"] == tokens


def test_metrics(host: Any, name: str) -> None:
    status, text = ask(host, name, "/metrics")
    assert status == 200, text
    assert re.search(r"^llamacpp:tokens_predicted_total \d", text, re.MULTILINE)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/metrics", "/props", "/slots"]
)
@pytest.mark.parametrize("key", ["", "wrong"])
def test_nothing_without_the_key(host: Any, name: str, path: str, key: str) -> None:
    body = chat(name) if "chat" in path else None
    assert ask(host, name, path, body, key=key)[0] == 401


def test_health_is_open_for_the_front_door(host: Any, name: str) -> None:
    assert ask(host, name, "/health", key="")[0] == 200


def test_keys_are_nowhere_but_in_their_credentials(host: Any) -> None:
    places = {
        "unit files": "cat /etc/systemd/system/modelyard-llama-cpp@*",
        "command lines": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        "environments": "cat $(ls -d /proc/[0-9]*/environ) | tr '\\0' ' '",
        "journal": "journalctl --no-pager -o cat",
        "releases": "grep -ra . /opt/modelyard/services /var/lib/modelyard/activations",
    }
    control = "cat /etc/modelyard/credentials/llama-cpp@*/current/API_KEY"
    # Written so that the search does not find itself.
    search = "grep -ao 'planted-key-o[f]' | wc -l"
    found = {
        place: host.run(f"({command}) 2>/dev/null | {search}").stdout.strip()
        for place, command in places.items()
    }
    assert found == dict.fromkeys(places, "0")
    assert host.run(f"{control} | {search}").stdout.strip() == "2"


def test_the_program_is_stripped_and_needs_only_what_every_host_has(host: Any) -> None:
    program = host.check_output(
        "ls /opt/modelyard/store/llama-cpp-*/bin/llama-server"
    ).splitlines()[0]
    assert host.run(f"grep -ac '[.]symtab' {program}").stdout.strip() == "0"
    assert "not found" not in host.check_output(f"ldd {program}")
    assert "libgomp" not in host.check_output(f"ldd {program}")
    assert host.file(f"{os.path.dirname(os.path.dirname(program))}/build.log").size > 1000


@pytest.mark.full
def test_an_artifact_that_no_release_needs_goes(host: Any) -> None:
    live = host.check_output("ls -d /opt/modelyard/store/llama-cpp-*")
    old = "/opt/modelyard/store/llama-cpp-0.0.1-0123456789ab"
    mark = f"{live}/.modelyard-complete"
    host.check_output(
        f"cp -a {live} {old} && touch -d '3 days ago' {old}/.modelyard-complete {mark}"
    )
    asked, processes = host.file(mark).mtime, [started(host, name) for name in INSTANCES]
    would = ansible_playbook("converge.yml", "--check", "--diff")
    assert f"unused {old} deleted" in would.stdout, would.stdout + would.stderr
    assert re.search(r"changed=1 ", would.stdout), would.stdout
    assert host.file(old).exists
    assert host.file(mark).mtime == asked
    done = ansible_playbook("converge.yml", "--diff")
    assert f"unused {old} deleted" in done.stdout, done.stdout + done.stderr
    assert not host.file(old).exists
    assert host.file(mark).mtime > asked, "in use, and asked for"
    assert [started(host, name) for name in INSTANCES] == processes
    again = converge()
    assert re.search(r"changed=0 ", again.stdout), again.stdout + again.stderr


def test_a_changed_instance_leaves_the_other_alone(host: Any) -> None:
    """What follows puts it back."""
    one, two = started(host, "one"), started(host, "two")
    done = converge(one_context=256)
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(host, "one") != one
    assert started(host, "two") == two
    assert json.loads(ask(host, "one", "/props")[1])["default_generation_settings"]["n_ctx"] == 256


def test_gpus_that_are_asked_for_and_not_used_are_a_failure(host: Any, restored: None) -> None:
    """The lab has no GPU, so this build computes on the processor, answers every request, and must
    not go live."""
    release = host.check_output("readlink /opt/modelyard/services/llama-cpp@one/current")
    done = converge(one_gpus=[0])
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "modelyard-llama-cpp@one.service: it is running, but not as planned." in output
    assert re.search(r"ok +llama-cpp@one +answers", output), output
    assert re.search(
        r"FAILED +llama-cpp@one +llama-cpp@one uses its GPUs +[\d.]+ s +nvidia-smi is not"
        r" installed",
        output,
    )
    assert "try: journalctl -u modelyard-llama-cpp@one.service says why CUDA was not used" in output
    assert "is live again and passes its checks." in output
    assert host.check_output("readlink /opt/modelyard/services/llama-cpp@one/current") == release
    assert ask(host, "one", "/v1/chat/completions", chat("one"))[0] == 200


@pytest.mark.full
def test_another_file_at_the_same_path_is_loaded(host: Any, restored: None) -> None:
    one, two = started(host, "one"), started(host, "two")
    host.check_output("touch /home/keeper/one.gguf")
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(host, "one") != one
    assert started(host, "two") == two


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"two_sha256": "0" * 64}, "wrong checksum"),
        ({"one_arguments": ["--flash-atn", "on"]}, "invalid argument: --flash-atn"),
        (
            {"backend": "cuda"},
            (
                "no NVIDIA GPU to build for (nvidia-smi is not installed; it comes with the NVIDIA"
                " driver): set llm_versions.llama_cpp.cuda_architectures"
            ),
        ),
        pytest.param(
            {"two_source": {"repo": "o/tiny-GGUF", "revision": "main", "file": "two.gguf"}},
            "revision must be a commit (40 hexadecimal digits), not 'main'",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {
                "two_source": HUB_SOURCE,
                "engine_hugging_face": {"endpoint": HUB, "token": "NOBODYS_TOKEN"},
            },
            "the secret NOBODYS_TOKEN is not defined, but owner/tiny-GGUF is to be fetched with it",
            marks=pytest.mark.full,
        ),
    ],
    ids=["wrong checksum", "argument the server does not know", "no card", "no commit", "no token"],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    host: Any, variables: dict[str, Any], message: str
) -> None:
    before = fingerprint(host)
    done = converge(**variables)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert fingerprint(host) == before


@pytest.mark.full
def test_a_model_of_a_hub(host: Any, restored: None) -> None:
    """The hub is a stand-in (files/hub.py). The model is fetched anew: that of the other source is
    moved away."""
    host.check_output(f"rm -rf {MODELS}/*/two.gguf* /srv/hub.log")
    done = converge(two_source=HUB_SOURCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ask(host, "two", "/v1/chat/completions", chat("two"))[0] == 200
    asked = [json.loads(line) for line in host.check_output("cat /srv/hub.log").splitlines()]
    path = f"/{HUB_SOURCE['repo']}/resolve/{HUB_SOURCE['revision']}/two.gguf"
    # The checksum, then the file, for which the token is not carried to the other host.
    token = "Bearer planted-key-of-the-hub"
    assert [(one["method"], one["host"], one["path"], one["token"]) for one in asked] == [
        ("HEAD", "127.0.0.1:8900", path, token),
        ("GET", "127.0.0.1:8900", path, token),
        ("GET", "127.0.0.2:8900", "/two.gguf", None),
    ]
    assert "planted" not in done.stdout + done.stderr
    again = converge(two_source=HUB_SOURCE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"changed=0 ", again.stdout), again.stdout
    assert len(host.check_output("cat /srv/hub.log").splitlines()) == 3
    kept = host.run(
        "grep -ral 'planted-key-of-the-hu[b]' /opt/modelyard /etc /var/lib/modelyard /root /tmp"
        " /run"
    )
    assert kept.stdout == ""
    assert "planted-key" not in host.check_output(
        "journalctl --no-pager -o cat --since '10 minutes ago'"
    )


def test_unit_of_an_instance_with_gpus(host: Any) -> None:
    """As it would be on a host with two cards; here it is only looked at."""
    text = json.dumps(
        next(one for one in host.ansible.get_variables()["instances"] if one["model"] == "two")
    )
    instance = {
        **json.loads(text.replace("llama-cpp@two", GPU)),
        "conflicts": ["modelyard-vllm@big.service"],
    }
    variables = {
        "wanted_instances": [instance],
        "engine_host_gpus": {"gpus": [{"index": 0}, {"index": 1}]},
        "engine_placed_gpus": {GPU: [1]},
        "cuda_architectures": ["8.9"],
    }
    done = ansible_playbook("converge.yml", "--check", "--diff", "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout + done.stderr
    unit = new_file(done, f"{GPU}: modelyard-{GPU}.service")
    host.run(f"cat > /run/modelyard-gpu.service <<'END'\n{unit}\nEND")
    for line in (
        "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1",
        "ExecStartPre=+-/usr/bin/nvidia-modprobe -u -c 0 -c 1",
        "Wants=modprobe@nvidia_uvm.service",
        "Conflicts=modelyard-vllm@big.service",
        "DevicePolicy=closed",
        "DeviceAllow=char-nvidia* rwm",
    ):
        assert line in unit.splitlines()
    assert "--n-gpu-layers all \\\n" in unit
    assert "PrivateDevices" not in unit
    scored = host.run(
        "systemd-analyze security --offline=true --no-pager /run/modelyard-gpu.service | tail -1"
    ).stdout
    assert float(scored.split(":")[1].split()[0]) <= 1.6, scored
    # Every directive is known, also in the version of systemd that this host has.
    verified = host.run("systemd-analyze verify /run/modelyard-gpu.service 2>&1")
    assert "Unknown" not in verified.stdout, verified.stdout


@pytest.mark.full
def test_an_instance_that_is_no_longer_wanted_goes(host: Any, restored: None) -> None:
    one = started(host, "one")
    done = converge(wanted=["one"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(host, "one") == one
    unit = host.service("modelyard-llama-cpp@two")
    assert not unit.is_running
    for gone in (
        "/etc/systemd/system/modelyard-llama-cpp@two.service",
        "/opt/modelyard/services/llama-cpp@two/current",
    ):
        assert not host.file(gone).exists, gone
    # Models are large: they go only when asked.
    assert host.check_output(f"find {MODELS} -name two.gguf") != ""
