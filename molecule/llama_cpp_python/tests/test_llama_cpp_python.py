"""llama-cpp-python's server on real hosts: what it answers, to whom, in which sandbox, and what a
change touches."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import testinfra
from modelyard_playbook import ansible_playbook

INSTANCES = {
    "one": ("http://127.0.0.1:8000", "vendor/one"),
    "two": ("http://127.0.0.1:8001", "two"),
}
MODELS = "/var/lib/modelyard/models"
UNIT = "modelyard-llama-cpp-python@"


@pytest.fixture(scope="module")
def engine() -> Any:
    """The host that built the environment and runs both instances."""
    return testinfra.get_host("ansible://llama-cpp-python")


@pytest.fixture(scope="module")
def second() -> Any:
    """The host that got a copy of the environment."""
    return testinfra.get_host("ansible://second")


@pytest.fixture(params=sorted(INSTANCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


def request(
    name: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
) -> str:
    """The command that asks with the own key, with `key`, or without one (empty); prints the text,
    then the status."""
    base, _ = INSTANCES[name]
    header = ""
    if key is None:
        credential = f"/etc/modelyard/credentials/llama-cpp-python@{name}/current/API_KEY"
        header = f'-H "Authorization: Bearer $(cat {credential})"'
    elif key:
        header = f'-H "Authorization: Bearer {key}"'
    data = f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body else ""
    return f"curl -sSN -m 60 -w '\\n%{{http_code}}' {header} {data} {base}{path}"


def ask(
    host: Any, name: str, path: str, body: dict[str, Any] | None = None, key: str | None = None
) -> Any:
    """Return (status, text)."""
    text, _, status = host.run(request(name, path, body, key)).stdout.rpartition("\n")
    return int(status), text


def chat(name: str, **more: Any) -> dict[str, Any]:
    return {
        "model": INSTANCES[name][1],
        "messages": [{"role": "user", "content": "say something"}],
        "max_tokens": 4,
        **more,
    }


def main_pid(host: Any, name: str) -> str:
    return str(host.check_output(f"systemctl show --value -p MainPID {UNIT}{name}"))


def started(host: Any, name: str) -> str:
    return str(
        host.check_output(
            f"systemctl show -p MainPID,ActiveState,ActiveEnterTimestampMonotonic {UNIT}{name}"
        )
    )


def fingerprint(host: Any) -> dict[str, str]:
    """Return what must not change when a run is refused: files, links, processes and when they
    started."""
    return {
        "files": host.check_output(
            "find /opt/modelyard/services /etc/modelyard /etc/systemd/system -type f -exec"
            " sha256sum {} + | sort"
        ),
        "links": host.check_output(
            "find /opt/modelyard/services /etc/modelyard -type l -printf '%p %l\n' | sort"
        ),
        "models": host.check_output(f"find {MODELS} -name '*.gguf' -exec sha256sum {{}} + | sort"),
        **{name: started(host, name) for name in INSTANCES},
    }


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, f"in 120 s not seen: {what}"
        time.sleep(0.5)


def test_what_a_client_sent_is_not_in_the_journal(engine: Any, name: str) -> None:
    """The server prints a request's fields with its errors; their kinds and places are shown."""
    wrong = {"messages": [{"role": "planted-content", "content": "planted-content"}]}
    assert ask(engine, name, "/v1/chat/completions", {**chat(name), **wrong})[0] >= 400
    engine.check_output("journalctl --sync")
    journal = engine.check_output(f"journalctl -u {UNIT}{name} --no-pager -o cat")
    assert "planted-content" not in journal
    assert "ValidationError..." in journal


def test_unit_runs_as_its_user_and_comes_back_at_boot(engine: Any, name: str) -> None:
    service = engine.service(f"{UNIT}{name}")
    assert service.is_running
    assert service.is_enabled
    assert engine.file(f"/etc/systemd/system/modelyard.target.wants/{UNIT}{name}.service").exists
    assert (
        engine.check_output(f"ps -o user:32= -p {main_pid(engine, name)}")
        == "modelyard-llama-cpp-python"
    )


def test_sandbox_score(engine: Any, name: str) -> None:
    line = engine.run(f"systemd-analyze security --no-pager {UNIT}{name} | tail -1").stdout
    assert float(line.split(":")[1].split()[0]) <= 1.6, line


def test_the_service_sees_its_model_and_nothing_else_of_a_home(engine: Any) -> None:
    pid = main_pid(engine, "one")
    assert engine.check_output(
        f"ls /proc/{pid}/root/home /proc/{pid}/root/home/keeper"
    ).split() == [
        f"/proc/{pid}/root/home:",
        "keeper",
        f"/proc/{pid}/root/home/keeper:",
        "one.gguf",
    ]


def test_listens_where_it_was_told(engine: Any, name: str) -> None:
    sockets = engine.check_output("ss -Hltnp").splitlines()
    own = [line.split()[3] for line in sockets if f"pid={main_pid(engine, name)}," in line]
    assert own == [INSTANCES[name][0].removeprefix("http://")]


def test_answers(engine: Any, name: str) -> None:
    status, text = ask(engine, name, "/v1/chat/completions", chat(name))
    assert status == 200, text
    answer = json.loads(text)
    assert answer["usage"]["completion_tokens"] >= 1
    assert answer["model"] == INSTANCES[name][1]


def test_streams(engine: Any, name: str) -> None:
    status, text = ask(engine, name, "/v1/chat/completions", chat(name, stream=True))
    assert status == 200, text
    assert text.strip().splitlines()[-1] == "data: [DONE]"


def test_offers_the_served_name(engine: Any, name: str) -> None:
    status, text = ask(engine, name, "/v1/models")
    assert status == 200, text
    assert [entry["id"] for entry in json.loads(text)["data"]] == [INSTANCES[name][1]]


def test_context_is_what_was_asked_for(engine: Any) -> None:
    # two has no context_length: it gets the model's own.
    for name, tokens in (("one", 512), ("two", 4096)):
        status, text = ask(
            engine, name, "/v1/completions", {"prompt": "word " * 5000, "max_tokens": 1}
        )
        assert status == 400, text
        assert f"maximum context length is {tokens} tokens" in text


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/v1/embeddings", "/extras/tokenize"]
)
@pytest.mark.parametrize("key", ["", "wrong"])
def test_nothing_without_the_key(engine: Any, name: str, path: str, key: str) -> None:
    bodies = {
        "/v1/chat/completions": chat(name),
        "/v1/embeddings": {"input": "word"},
        "/extras/tokenize": {"input": "word"},
    }
    assert ask(engine, name, path, bodies.get(path), key=key)[0] == 401


def test_another_request_does_not_cut_off_a_stream(engine: Any) -> None:
    """One request at a time: the second waits. As the server is delivered, it would end the first
    with [DONE]."""
    # A token that ends the answer early is ruled out.
    body = chat("two", stream=True, max_tokens=600, logit_bias={"2": -100})
    command = (
        f"{request('two', '/v1/chat/completions', body)} > /tmp/stream & stream=$!; "
        "for i in $(seq 600); do grep -q data: /tmp/stream && break; sleep 0.1; done; "
        f"{request('two', '/v1/models')} > /tmp/models; wait $stream"
    )
    engine.run(f"rm -f /tmp/stream; {command}")
    assert engine.file("/tmp/models").content_string.endswith("\n200")
    chunks = [
        json.loads(line.removeprefix("data: "))["choices"][0]
        for line in engine.file("/tmp/stream").content_string.splitlines()
        if line.startswith("data: {")
    ]
    assert chunks[-1]["finish_reason"] == "length"
    assert len([chunk for chunk in chunks if "content" in chunk["delta"]]) == 600


def test_keys_are_nowhere_but_in_their_credentials_and_the_service(engine: Any) -> None:
    # The service gets its key in the environment, which no other user but root can read.
    others = "|".join(main_pid(engine, name) for name in INSTANCES)
    places = {
        "unit files": f"cat /etc/systemd/system/{UNIT}*",
        "systemctl show": f"systemctl show '{UNIT}*'",
        "command lines": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        "environments": (
            f"cat $(ls -d /proc/[0-9]*/environ | grep -Ev '/({others})/') | tr '\\0' ' '"
        ),
        "journal": "journalctl --no-pager -o cat",
        "releases": "grep -ra . /opt/modelyard/services /var/lib/modelyard/activations",
    }
    control = "cat /etc/modelyard/credentials/llama-cpp-python@*/current/API_KEY"
    # Written so that the search does not find itself.
    search = "grep -ao 'planted-key-o[f]' | wc -l"
    found = {
        place: engine.run(f"({command}) 2>/dev/null | {search}").stdout.strip()
        for place, command in places.items()
    }
    assert found == dict.fromkeys(places, "0")
    assert engine.run(f"{control} | {search}").stdout.strip() == "2"
    pid = main_pid(engine, "one")
    assert engine.run(f"setpriv --reuid=nobody --clear-groups cat /proc/{pid}/environ").rc != 0


def test_the_environment_is_whole(engine: Any, measured: Callable[[str], None]) -> None:
    """All packages of the lock and no other, byte code compiled, libraries stripped and found
    beside each other."""
    (store,) = engine.check_output("ls -d /opt/modelyard/store/llama-cpp-python-*").splitlines()
    log = engine.file(f"{store}/build.log").content_string
    assert "All installed packages are compatible" in log
    libraries = engine.check_output(
        f"ls {store}/lib/python3*/site-packages/llama_cpp/lib/*.so"
    ).splitlines()
    assert {path.rpartition("/")[2] for path in libraries} == {
        "libggml-base.so",
        "libggml-cpu.so",
        "libggml.so",
        "libllama.so",
    }
    for library in libraries:
        assert "not found" not in engine.check_output(f"ldd {library}")
        assert engine.run(f"grep -ac '[.]symtab' {library}").stdout.strip() == "0"
    assert (
        engine.check_output(f"find {store} -name '__main__*.pyc' -path '*llama_cpp/server*'") != ""
    )
    size = engine.check_output(f"du -sm {store}").split()[0]
    measured(
        f"environment of llama-cpp-python: {size} MiB, {log.splitlines()[-1]} (now or in an earlier"
        " run)"
    )


def test_a_second_host_gets_a_copy_that_serves_without_a_compiler(
    engine: Any, second: Any, measured: Callable[[str], None]
) -> None:
    began = time.monotonic()
    done = converge(target="second")
    assert done.returncode == 0, done.stdout + done.stderr
    measured(f"second host, from nothing to an answer: {time.monotonic() - began:.0f} s")
    listed = "cd /opt/modelyard/store && ls -d llama-cpp-python-*"
    assert second.check_output(listed) == engine.check_output(listed)
    assert not second.exists("gcc")
    assert second.run("ls /usr/lib/*/libgomp.so.1").rc != 0
    status, text = ask(second, "one", "/v1/chat/completions", chat("one"))
    assert status == 200, text


def test_what_crashes_is_started_again(engine: Any) -> None:
    former = main_pid(engine, "one")
    engine.check_output(f"kill -9 {former}")
    wait_until(lambda: main_pid(engine, "one") not in (former, "0"), "another process")
    wait_until(lambda: ask(engine, "one", "/v1/models")[0] == 200, "an answer")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        pytest.param({"two_sha256": "0" * 64}, "wrong checksum", marks=pytest.mark.full),
        ({"one_arguments": ["--flash_atn", "true"]}, "unrecognized arguments: --flash_atn true"),
    ],
    ids=["wrong checksum", "option the server does not know"],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    engine: Any, variables: dict[str, Any], message: str
) -> None:
    before = fingerprint(engine)
    done = converge(**variables)
    assert done.returncode != 0
    assert message in " ".join((done.stdout + done.stderr).split())
    assert fingerprint(engine) == before


def test_what_does_not_start_gives_way_to_its_predecessor(engine: Any) -> None:
    """The server takes these options, and stumbles over them as it loads the model: the build
    leaves images out."""
    one, two = started(engine, "one"), started(engine, "two")
    done = converge(one_arguments=["--chat_format", "mtmd", "--clip_model_path", "/nonexistent"])
    assert done.returncode != 0
    assert "mtmd" in done.stdout + done.stderr
    assert started(engine, "one") != one
    assert started(engine, "two") == two
    status, text = ask(engine, "one", "/v1/chat/completions", chat("one"))
    assert status == 200, text


def test_an_instance_that_is_no_longer_wanted_goes(engine: Any) -> None:
    """Comes last: it is not brought back."""
    one = started(engine, "one")
    done = converge(wanted=["one"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(engine, "one") == one
    assert not engine.service(f"{UNIT}two").is_running
    for gone in (
        f"/etc/systemd/system/{UNIT}two.service",
        "/opt/modelyard/services/llama-cpp-python@two/current",
    ):
        assert not engine.file(gone).exists, gone
    # Models are large: they go only when asked.
    assert engine.check_output(f"find {MODELS} -name two.gguf") != ""
