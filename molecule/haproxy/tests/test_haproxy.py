"""The front door on a real host: what passes, what does not, and that switching slots costs no request."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

PORT = 4000
METRICS_PORT = 8405
INFERENCE = [
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "moderations",
    "rerank",
    "audio/speech",
    "audio/transcriptions",
    "images/generations",
    "images/edits",
]
READING = [
    "/v1/models",
    "/models",
    "/v1/models?limit=1",
    "/v1/models/llama3.1:latest",
    "/v1/models/llama3.1%3Alatest",
    "/models/a",
    "/health/liveliness",
    "/health/readiness",
]
CLOSED = [
    *("/", "/ui", "/ui/", "/docs", "/openapi.json", "/routes", "/metrics", "/metrics/", "/sso/key/generate"),
    *("/key/generate", "/model/new", "/v1/model/info", "/user/list", "/config/yaml", "/cache/flushall"),
    *(
        "/health",
        "/health/",
        "/health/readiness/",
        "/health/drain",
        "/health/services",
        "/v1/health/readiness",
    ),
    *("/v1", "/v1/", "/v1/files", "/v1/responses/x", "/V1/MODELS", "/v1/models/", "/models//", "/v2/models"),
    # What becomes another path once somebody decodes or normalises it.
    *("//v1/models", "/v1//models", "/./v1/models", "/v1/./models", "/ui/../v1/models", "/v1/../ui"),
    *("/v1/models/..", "/v1/models/../../ui", "/v1/models/%2e%2e", "/v1/models/%2e%2e/%2e%2e/ui"),
    *("/v1/models/..%2f..%2fui", "/v1/models/a%2Fb", "/v1/models/a/b", "/v1/models/%252e%252e%252fui"),
    *(
        "/v1/models/a%5c..%5cui",
        "/v1/models\\..\\ui",
        "/v1/models%2f..%2fui",
        "/v1/models%00",
        "/v1/models;/ui",
    ),
    *("/v1/%6dodels", "/%2e/v1/models", "/v1/models%20", "/v1/chat/completions/../../../key/generate"),
    *("/v1/chat%2fcompletions", "/v1/models/" + "a" * 201),
    # The same with a whole address in the request line.
    *("http://x/ui", "http://x/v1/models", "http:///v1/models", "*"),
]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    address: str,
    path: str,
    method: str = "GET",
    body: dict[str, Any] | None = None,
    port: int = PORT,
    **headers: str,
) -> Answer:
    """Send one request exactly as it is written, without a client's clean-up of the path."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        payload = json.dumps(body).encode() if body is not None else None
        connection.putrequest(method, path)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if payload is not None:
            connection.putheader("Content-Length", str(len(payload)))
        connection.endheaders(payload)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def is_openai_error(answer: Answer) -> bool:
    """Say whether an answer is an error as OpenAI's clients parse it."""
    if answer.headers.get("content-type") != "application/json":
        return False
    error = answer.json()["error"]
    return error.keys() == {"message", "type", "param", "code"} and bool(error["message"])


@pytest.fixture(scope="module")
def address(host: Any) -> str:
    return str(host.ansible.get_variables()["ansible_host"])


@pytest.fixture
def slots(host: Any, address: str) -> Iterator[None]:
    """Leave with blue running, green stopped and both enabled in the door, whatever the test did."""
    yield
    host.run("systemctl stop stand-in-green; systemctl start stand-in-blue")
    for slot in ("blue", "green"):
        admin(host, f"set server gateway/{slot} state ready")
    wait_for_slot(address, "blue")


def admin(host: Any, command: str) -> str:
    """Send one command to the admin socket, from the host itself."""
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect('/run/modelyard-haproxy/admin.sock'); "
        "s.sendall(sys.argv[1].encode()+b'\\n'); print(s.makefile().read())"
    )
    done = host.run("/usr/bin/python3 -c %s %s", script, command)
    assert done.rc == 0, done.stderr
    return str(done.stdout).strip()


def wait_for_slot(address: str, slot: str | None, limit_s: float = 10) -> None:
    """Wait until the door answers from this slot, or (None) with 503."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = ask(address, "/v1/models")
        seen = answer.json()["slot"] if answer.status == 200 else None
        if seen == slot:
            return
        assert time.monotonic() < deadline, f"the door answers from {seen}, wanted {slot}"
        time.sleep(0.1)


class Load:
    """One client that asks as fast as it can and one that reads a long stream, until told to stop."""

    def __init__(self, address: str, events: int) -> None:
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self.stream: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(address,)),
            threading.Thread(target=self._read, args=(address, events)),
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, address: str) -> None:
        while not self._stop.is_set():
            try:
                self.statuses.append(ask(address, "/v1/models").status)
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
            time.sleep(0.01)

    def _read(self, address: str, events: int) -> None:
        answer = ask(address, "/v1/chat/completions", "POST", {"events": events})
        self.stream = [line for line in answer.body.decode().splitlines() if line]

    def lost(self) -> list[Any]:
        return [*self.errors, *(status for status in self.statuses if status != 200)]


def test_unit_runs_and_comes_back_at_boot(host: Any) -> None:
    service = host.service("modelyard-haproxy")
    assert service.is_running, host.run("journalctl -u modelyard-haproxy -n 30 --no-pager").stdout
    assert service.is_enabled


def test_sandbox_score(host: Any) -> None:
    line = host.run("systemd-analyze security --no-pager modelyard-haproxy | tail -1").stdout
    assert float(line.split(":")[1].split()[0]) <= 3.0, line
    assert set(host.run("ps -o user:32= -C haproxy").stdout.split()) == {"modelyard-haproxy"}


def test_packages_own_service_sleeps(host: Any) -> None:
    stock = host.service("haproxy")
    assert not stock.is_running
    assert stock.is_masked


def test_only_the_door_listens_for_others(host: Any) -> None:
    listening = host.run("ss -Hltnp").stdout.splitlines()
    wanted = {f"0.0.0.0:{PORT}", f"0.0.0.0:{METRICS_PORT}"}
    assert {line.split()[3] for line in listening if "haproxy" in line} == wanted
    socket_file = host.file("/run/modelyard-haproxy/admin.sock")
    assert (socket_file.user, socket_file.mode) == ("modelyard-haproxy", 0o600)


@pytest.mark.parametrize("prefix", ["/v1/", "/"])
@pytest.mark.parametrize("path", INFERENCE)
def test_inference_passes_by_post_alone(address: str, prefix: str, path: str) -> None:
    answer = ask(address, prefix + path, "POST", {})
    assert (answer.status, answer.json()["path"]) == (200, prefix + path)
    assert ask(address, prefix + path, "OPTIONS").status == 200
    for method in ("GET", "PUT", "DELETE"):
        refused = ask(address, prefix + path, method)
        assert (refused.status, refused.headers["allow"]) == (405, "POST, OPTIONS")
        assert is_openai_error(refused)


@pytest.mark.parametrize("path", READING)
def test_reading_passes_by_get_alone(address: str, path: str) -> None:
    answer = ask(address, path)
    assert (answer.status, answer.json()["path"]) == (200, path)
    assert ask(address, path, "HEAD").status == 200
    refused = ask(address, path, "POST", {})
    assert refused.status == 405
    assert is_openai_error(refused)


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_everything_else_is_closed(address: str, path: str, method: str) -> None:
    # Written by hand: a client's library would refuse some of these lines itself.
    with socket.create_connection((address, PORT), timeout=10) as client:
        client.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
        )
        raw = client.makefile("rb").read()
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in (400, 404), raw
    assert b'"slot"' not in body
    if status == 404:
        assert json.loads(body)["error"]["code"] == "unknown_url"


@pytest.mark.parametrize("line", ["PRI * HTTP/2.0", "GET /ui", "CONNECT x:1 HTTP/1.1", "GET /ui HTTP/0.9"])
def test_other_protocols_do_not_get_around_the_filter(address: str, line: str) -> None:
    with socket.create_connection((address, PORT), timeout=10) as client:
        client.sendall(f"{line}\r\nHost: x\r\n\r\nSM\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        raw = client.makefile("rb").read()
    assert b'"slot"' not in raw
    assert raw.split()[1] in (b"400", b"404")


def test_a_client_cannot_say_where_it_comes_from(address: str) -> None:
    forged = {
        "X_Forwarded_For": "1.2.3.4",
        "X_Forwarded_Host": "evil",
        "Forwarded": "for=1.2.3.4",
        "X_Real_IP": "1.2.3.4",
    }
    headers = ask(address, "/v1/models", **forged, Authorization="Bearer kept").json()["headers"]
    seen = headers.pop("x-forwarded-for")
    assert seen.startswith("10.")
    assert "1.2.3.4" not in json.dumps(headers)
    assert "x-forwarded-host" not in headers
    assert headers["authorization"] == "Bearer kept"


def test_stream_passes_unbuffered(address: str) -> None:
    connection = http.client.HTTPConnection(address, PORT, timeout=10)
    connection.request("POST", "/v1/chat/completions", json.dumps({"events": 8}))
    response = connection.getresponse()
    arrivals = []
    while line := response.readline():
        if line.strip():
            arrivals.append(time.monotonic())
    connection.close()
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert len(arrivals) == 8
    # Sent every 0.1 s. Held back, they would come in pairs: gaps of 0 and 0.2.
    assert all(0.05 < gap < 0.18 for gap in gaps), gaps


def test_no_slot_is_a_503_that_says_so(host: Any, address: str, slots: None) -> None:
    host.run("systemctl stop stand-in-blue")
    wait_for_slot(address, None)
    answer = ask(address, "/v1/chat/completions", "POST", {})
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert is_openai_error(answer)
    assert ask(address, "/health/readiness").status == 503
    assert ask(address, "/ui").status == 404


def test_switching_slots_loses_nothing(host: Any, address: str, slots: None) -> None:
    with Load(address, events=80) as load:
        admin(host, "set server gateway/green state maint")
        host.run("systemctl start stand-in-green")
        admin(host, "set server gateway/green state ready")
        time.sleep(1)
        admin(host, "set server gateway/blue state drain")
        wait_for_slot(address, "green")
        time.sleep(1)
        assert ask(address, "/v1/models").json()["slot"] == "green"
    assert load.lost() == []
    assert len(load.statuses) > 50
    # The stream that began on the old slot ended there.
    assert load.stream == [f"data: blue {number}" for number in range(80)]


def test_reload_loses_nothing(host: Any, address: str, slots: None) -> None:
    with Load(address, events=60) as load:
        for _ in range(3):
            assert host.run("systemctl reload modelyard-haproxy").rc == 0
            time.sleep(1)
    assert load.lost() == []
    assert len(load.statuses) > 50
    assert load.stream == [f"data: blue {number}" for number in range(60)]


def test_what_runs_can_be_read_back(host: Any) -> None:
    live = host.run("readlink -f /opt/modelyard/services/haproxy/current").stdout.strip()
    assert f"description: {live}" in admin(host, "show info")


def test_journal_holds_no_query(host: Any, address: str) -> None:
    ask(address, "/v1/models?planted=needle-in-query")
    journal = host.run("journalctl -u modelyard-haproxy --no-pager -o cat -n 20").stdout
    assert "GET /v1/models" in journal
    assert "needle-in-query" not in journal


def test_prometheus_gets_the_metrics_of_the_door_and_of_the_slot_that_answers(address: str) -> None:
    own = ask(address, "/metrics", port=METRICS_PORT)
    assert own.status == 200
    assert 'haproxy_server_status{proxy="gateway",server="blue",state="UP"} 1' in own.body.decode()
    slot = ask(address, "/litellm", port=METRICS_PORT)
    assert (slot.status, slot.json()["path"]) == (200, "/metrics/")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/", "GET"),
        ("/metrics/", "GET"),
        ("/litellm/", "GET"),
        ("/litellm/../key/generate", "GET"),
        ("/v1/models", "GET"),
        ("/v1/chat/completions", "POST"),
        ("/litellm", "POST"),
        ("/ui", "GET"),
    ],
)
def test_prometheus_gets_nothing_else(address: str, path: str, method: str) -> None:
    answer = ask(address, path, method, port=METRICS_PORT)
    assert (answer.status, answer.body) == (404, b"See /metrics and /litellm.")
