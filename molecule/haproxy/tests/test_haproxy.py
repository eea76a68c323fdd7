"""The front end on a real host: what passes, what does not, who is held off, and that switching
slots costs nothing."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import pytest

PORT = 4000
METRICS_PORT = 8405
POOL_PORT = 4003
CHAT = "/v1/chat/completions"
# As in the scenario's inventory.
HEADER_S, BODY_S, IDLE_S = 2, 3, 4
CONNECTIONS = 40
INFERENCE = [
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "moderations",
    "audio/speech",
    "audio/transcriptions",
    "images/generations",
    "images/edits",
]
READING = [
    "/v1/models",
    "/models",
    "/v1/models/llama3.1:latest",
    "/v1/models/llama3.1%3Alatest",
    "/v1/models/org/name",
    "/v1/models/org%2Fname",
    "/v1/models/org%2fname%3Atag",
    "/models/a",
    "/health/liveliness",
    "/health/readiness",
]
CLOSED = [
    *(
        "/",
        "/ui",
        "/ui/",
        "/docs",
        "/openapi.json",
        "/routes",
        "/metrics",
        "/metrics/",
        "/sso/key/generate",
    ),
    *(
        "/key/generate",
        "/model/new",
        "/v1/model/info",
        "/user/list",
        "/config/yaml",
        "/cache/flushall",
    ),
    *(
        "/health",
        "/health/",
        "/health/readiness/",
        "/health/drain",
        "/health/services",
        "/v1/health/readiness",
    ),
    *(
        "/v1/rerank",
        "/rerank",
        "/v1",
        "/v1/",
        "/v1/files",
        "/v1/responses/x",
        "/V1/MODELS",
        "/v1/models/",
        "/models//",
        "/v2/models",
    ),
    # What becomes another path once somebody decodes or normalises it.
    *(
        "//v1/models",
        "/v1//models",
        "/./v1/models",
        "/v1/./models",
        "/ui/../v1/models",
        "/v1/../ui",
    ),
    *("/v1/models/..", "/v1/models/../../ui", "/v1/models/%2e%2e", "/v1/models/%2e%2e/%2e%2e/ui"),
    *(
        "/v1/models/..%2f..%2fui",
        "/v1/models/a//b",
        "/v1/models/a%2F%2Fb",
        "/v1/models/%2Fa",
        "/v1/models//a",
        "/v1/models/a/",
        "/v1/models/a%2f",
        "/v1/models/org/../ui",
        "/v1/models/org%2F..%2Fui",
        "/v1/models/%252e%252e%252fui",
    ),
    *(
        "/v1/models/a%5c..%5cui",
        "/v1/models\\..\\ui",
        "/v1/models%2f..%2fui",
        "/v1/models%00",
        "/v1/models;/ui",
    ),
    *(
        "/v1/%6dodels",
        "/%2e/v1/models",
        "/v1/models%20",
        "/v1/chat/completions/../../../key/generate",
    ),
    *("/v1/chat%2fcompletions", "/v1/models/" + "a" * 201),
    # The same with a whole address in the request line.
    *("http://x/ui", "http://x/v1/models", "http:///v1/models", "*"),
]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    names: list[str]
    """Of its headers, each as often as it came."""

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    address: str,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    port: int = PORT,
    do: dict[str, Any] | None = None,
    **headers: str,
) -> Answer:
    """Send one request exactly as it is written, without a client's clean-up of the path.

    `do`: what the stand-in has to do, see there.
    """
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.putrequest(method, path)
        if do is not None:
            connection.putheader("X-Do", json.dumps(do))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None and "Transfer_Encoding" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        found = [(name.lower(), value) for name, value in response.getheaders()]
        return Answer(response.status, dict(found), response.read(), [name for name, _ in found])
    finally:
        connection.close()


def written(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request, byte for byte."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode() + body


def held(address: str, request: bytes, drip: bytes = b"") -> tuple[float, bytes]:
    """Send a request, then `drip` again and again; return after how many seconds the front end
    closed, and its answer.

    The seconds are infinite if the connection is still open after every deadline.
    """
    limit_s = 2 * IDLE_S + 2
    answer = b""
    started = time.monotonic()
    # An error of the connection: it closed while this client was still sending.
    with (
        socket.create_connection((address, PORT), timeout=0.2) as client,
        suppress(ConnectionError),
    ):
        client.sendall(request)
        while time.monotonic() < started + limit_s:
            with suppress(TimeoutError):
                if not (part := client.recv(65536)):
                    break
                answer += part
            client.sendall(drip)
    seconds = time.monotonic() - started
    return seconds if seconds < limit_s else math.inf, answer


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
    """Leave with blue running, green stopped and both enabled in the door, whatever the test
    did."""
    yield
    host.run("systemctl stop stand-in-green; systemctl start stand-in-blue")
    for slot in ("blue", "green"):
        admin(host, f"set server gateway/{slot} state ready")
    wait_for_slot(address, "blue")


def admin(host: Any, command: str) -> str:
    """Send one command to the admin socket, from the host itself."""
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX);"
        " s.connect('/run/modelyard-haproxy/admin.sock'); s.sendall(sys.argv[1].encode()+b'\\n');"
        " print(s.makefile().read())"
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
    """One client that asks as fast as it can and one that reads a long stream, until told to
    stop."""

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
        answer = ask(address, CHAT, "POST", b"{}", do={"events": events})
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
    wanted = {f"0.0.0.0:{PORT}", f"0.0.0.0:{METRICS_PORT}", f"127.0.0.1:{POOL_PORT}"}
    assert {line.split()[3] for line in listening if "haproxy" in line} == wanted
    socket_file = host.file("/run/modelyard-haproxy/admin.sock")
    assert (socket_file.user, socket_file.mode) == ("modelyard-haproxy", 0o600)


def test_a_pool_asks_those_of_its_hosts_that_are_up(host: Any) -> None:
    """In the sandbox of the real unit, which a program outside does not have."""

    def get(path: str) -> str:
        url = f"http://127.0.0.1:{POOL_PORT}{path}"
        return str(host.run("curl -sS -m 5 -w ' %%{http_code}' %s", url).stdout)

    assert get("/pool.stand-in") == "up 200"
    asked = get("/pool.stand-in/v1/models")
    assert '"slot": "blue"' in asked
    assert "pool.stand-in" not in asked, "the engine knows no pools"
    for path in ("/pool.none", "/pool.none/v1/models", "/gateway/v1/models"):
        assert '"code":"engine_away"' in get(path)
        assert get(path).endswith(" 503")


@pytest.mark.parametrize("prefix", ["/v1/", "/"])
@pytest.mark.parametrize("path", INFERENCE)
def test_inference_passes_by_post_alone(address: str, prefix: str, path: str) -> None:
    answer = ask(address, prefix + path, "POST", b"{}")
    assert (answer.status, answer.json()["path"]) == (200, prefix + path)
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        refused = ask(address, prefix + path, method)
        assert (refused.status, refused.headers["allow"]) == (405, "POST, OPTIONS")
        assert method == "HEAD" or is_openai_error(refused)


@pytest.mark.parametrize("path", READING)
def test_reading_passes_by_get_alone(address: str, path: str) -> None:
    answer = ask(address, path)
    assert (answer.status, answer.json()["path"]) == (200, path)
    refused = ask(address, path, "POST", b"{}")
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


@pytest.mark.parametrize(
    "line", ["PRI * HTTP/2.0", "GET /ui", "CONNECT x:1 HTTP/1.1", "GET /ui HTTP/0.9"]
)
def test_other_protocols_do_not_get_around_the_filter(address: str, line: str) -> None:
    with socket.create_connection((address, PORT), timeout=10) as client:
        client.sendall(f"{line}\r\nHost: x\r\n\r\nSM\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        raw = client.makefile("rb").read()
    assert b'"slot"' not in raw
    assert raw.split()[1] in (b"400", b"404")


@pytest.mark.parametrize("path", [*READING, CHAT, "/v1/embeddings", "/images/edits"])
@pytest.mark.parametrize("query", ["limit=1", "model=a&model=b", "model=%61", "", "?", "#model=a"])
def test_no_query_arrives(address: str, path: str, query: str) -> None:
    answer = ask(address, f"{path}?{query}", *(("POST", b"{}") if path not in READING else ()))
    if "#" in query:
        assert answer.status == 400  # no part of a request line
    else:
        assert (answer.status, answer.json()["path"]) == (200, path)


@pytest.mark.parametrize("path", READING)
def test_head_is_answered_as_get_is_without_a_body(address: str, path: str) -> None:
    """By hand, on one connection: bytes of a body would be taken for the next answer."""
    answers = []
    with socket.create_connection((address, PORT), timeout=10) as client:
        for method in ("HEAD", "HEAD", "GET"):
            client.sendall(written(method, path))
            response = http.client.HTTPResponse(client, method=method)
            response.begin()
            headers = {name for name, _ in response.getheaders()}
            answers.append(
                (response.status, headers, int(response.headers["content-length"]), response.read())
            )
    *heads, got = answers
    assert [(head[0], head[1], head[3]) for head in heads] == [(200, got[1], b"")] * 2
    assert all(head[2] > 0 for head in heads)
    assert json.loads(got[3])["method"] == "GET"
    assert len(got[3]) == got[2]


FORGED = [
    *(
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded",
        "Forwarded",
        "Forwarded-For",
    ),
    *(
        "X-Real-IP",
        "X-Client-IP",
        "Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
    ),
    *(
        "CF-Connecting-IPv6",
        "Fastly-Client-IP",
        "X-Azure-ClientIP",
        "X-Envoy-External-Address",
        "Proxy-Client-IP",
    ),
    *(
        "WL-Proxy-Client-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "X-Originating-IP",
        "X-AppEngine-User-IP",
    ),
    # What would make another request of it.
    *(
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "X-Override-URL",
        "X-HTTP-Method-Override",
    ),
    *("X-HTTP-Method", "X-Method-Override", "X-Host", "X-Scheme"),
    # The number under which the front end sends a request again.
    "X-Modelyard-Request",
]


def test_a_client_cannot_say_where_it_comes_from(address: str) -> None:
    forged = dict.fromkeys([*FORGED, *(name.upper() for name in FORGED)], "1.2.3.4")
    lines = [f"{name}: {value}" for name, value in forged.items()]
    request = written(
        "GET",
        "/v1/models",
        *lines,
        "Authorization: Bearer kept",
        "X-Request-Id: 7",
        "Connection: close",
    )
    _, raw = held(address, request)
    headers = json.loads(raw.partition(b"\r\n\r\n")[2])["headers"]
    assert headers.pop("x-forwarded-for").startswith("10.")
    assert "1.2.3.4" not in json.dumps(headers)
    assert not headers.keys() & {name.lower() for name in FORGED} - {"x-modelyard-request"}
    uuid.UUID(headers["x-modelyard-request"])
    assert (headers["authorization"], headers["x-request-id"]) == ("Bearer kept", "7")


def test_answers_do_not_tell_what_is_behind(address: str) -> None:
    headers = ask(address, CHAT, "POST", b"{}").headers
    assert "uvicorn" not in headers.values()
    assert [name for name in headers if name.startswith(("x-litellm-", "llm_provider-"))] == [
        "x-litellm-call-id"
    ]
    wanted = {
        "x-litellm-call-id": "call-1",
        "x-ratelimit-remaining-requests": "5",
        "retry-after": "7",
    }
    assert {name: headers[name] for name in wanted} == wanted
    assert "x-litellm-call-id" not in ask(address, CHAT, "POST", b"{}", do={"events": 1}).headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("POST", CHAT, 200),
        ("POST", "/v1/chat/completion", 404),
        ("GET", CHAT, 405),
        ("POST", "/v1/models", 405),
    ],
)
def test_a_page_may_read_every_answer(address: str, method: str, path: str, status: int) -> None:
    """As a browser does it: it asks first, without a key, and shows an error only if it may read
    it."""
    asked = ask(
        address,
        path,
        "OPTIONS",
        Origin="https://app.example",
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers="authorization, content-type,x-stainless-os",
    )
    assert asked.status == 200
    assert (
        asked.headers["access-control-allow-headers"]
        == "authorization, content-type,x-stainless-os"
    )
    assert method in asked.headers["access-control-allow-methods"].split(", ")
    answer = ask(
        address, path, method, b"{}" if method == "POST" else None, Origin="https://app.example"
    )
    assert answer.status == status
    for got in (asked, answer):
        # One value: of two, `Answer` would show the last, and a browser would take neither.
        assert got.names.count("access-control-allow-origin") == 1
        assert (
            got.headers["access-control-allow-origin"],
            got.headers["access-control-expose-headers"],
        ) == ("*", "*")


@pytest.mark.parametrize(
    ("path", "allow"), [(CHAT, "POST, OPTIONS"), ("/v1/models", "GET, HEAD, OPTIONS")]
)
def test_options_of_an_open_path_says_its_methods(address: str, path: str, allow: str) -> None:
    answer = ask(address, path, "OPTIONS")
    assert (answer.status, answer.headers["allow"], answer.body) == (200, allow, b"")
    assert ask(address, "/ui", "OPTIONS").status == 404


WEBSOCKET = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")


@pytest.mark.parametrize(
    "headers",
    [
        (
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        ("Connection: Upgrade", "Upgrade: websocket", *WEBSOCKET),
        ("Upgrade: websocket",),
        ("Connection: upgrade", "Upgrade: foo/2, h2c"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body"), [("GET", "/v1/models", b""), ("POST", CHAT, b"{}")]
)
def test_an_upgrade_is_an_ordinary_request(
    address: str, headers: tuple[str, ...], method: str, path: str, body: bytes
) -> None:
    """Java's client asks for HTTP/2 with the first request of each connection, and keeps the
    connection."""
    started = time.monotonic()
    with socket.create_connection((address, PORT), timeout=10) as client:
        for _ in range(2):
            client.sendall(
                written(method, path, *headers, f"Content-Length: {len(body)}", body=body)
            )
            response = http.client.HTTPResponse(client)
            response.begin()
            echo = json.loads(response.read())
            assert (response.status, echo["body"]) == (200, len(body))
            assert not echo["headers"].keys() & {"upgrade", "http2-settings", "sec-websocket-key"}
            assert echo["headers"].get("connection", "close") == "close"
    assert time.monotonic() - started < 1


BIG = b"x" * 100_000
"""More than the front end holds of a body."""
ENDLESS = "Content-Length: 250000000"
UNREAD = f"X-Do: {json.dumps({'early': 401})}"


@pytest.mark.parametrize(
    ("request_", "drip", "deadline_s", "status"),
    [
        (b"", b"", HEADER_S, b""),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n", b"", HEADER_S, b"408"),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n", HEADER_S, b"408"),
        (written("POST", CHAT, "Content-Length: 100", body=b"{"), b"", BODY_S, b"408"),
        (written("POST", CHAT, "Content-Length: 100"), b"x", BODY_S, b"408"),
        (
            written("POST", CHAT, "Transfer-Encoding: chunked", body=b"1\r\nx\r\n"),
            b"",
            BODY_S,
            b"408",
        ),
        (written("POST", CHAT, "Transfer-Encoding: chunked"), b"1\r\nx\r\n", BODY_S, b"408"),
        (written("POST", CHAT, "Expect: 100-continue", ENDLESS), b"", BODY_S, b"100"),
        (written("GET", "/v1/models", ENDLESS, body=b"{"), b"x", BODY_S, b"408"),
        (written("HEAD", "/v1/models", "Transfer-Encoding: chunked"), b"", BODY_S, b"408"),
        (
            written("POST", CHAT, ENDLESS, "Upgrade: h2c", "Connection: Upgrade"),
            b"",
            BODY_S,
            b"408",
        ),
        (written("POST", "/ui", ENDLESS, body=b"{"), b"", 0, b"404"),
        (written("PUT", CHAT, ENDLESS, body=b"{"), b"", 0, b"405"),
        (written("OPTIONS", CHAT, ENDLESS, body=b"{"), b"", 0, b"200"),
        # The slot answers before the rest of a large body, which then never comes.
        (written("POST", CHAT, ENDLESS, UNREAD, body=BIG), b"", IDLE_S, b"401"),
        (written("POST", CHAT, ENDLESS, UNREAD, body=BIG), b"x", 0, b"401"),
        (written("GET", "/v1/models", ENDLESS, UNREAD, body=BIG), b"", IDLE_S, b"401"),
        # It has its answer and asks nothing more.
        (written("GET", "/v1/models"), b"", IDLE_S, b"200"),
    ],
)
def test_a_connection_is_not_held(
    host: Any, address: str, request_: bytes, drip: bytes, deadline_s: float, status: bytes
) -> None:
    seconds, answer = held(address, request_, drip)
    assert answer.split(b" ")[1:2] == ([status] if status else [])
    assert deadline_s - 0.1 <= seconds
    if host.system_info.codename == "bookworm":
        assert seconds < deadline_s + 1
    elif not drip:
        # HAProxy 3.0 answers as soon, but then reads what the client still sends, for as long as it
        # does.
        assert seconds < deadline_s + IDLE_S + 1


def test_what_came_too_late_is_an_error_of_openais_shape(address: str) -> None:
    answer = ask(address, CHAT, "POST", b"{", Transfer_Encoding="chunked")
    assert answer.status == 400  # no chunk
    request = written("POST", CHAT, "Content-Length: 9")
    head, _, body = held(address, request)[1].partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert b"access-control-allow-origin: *" in head


@pytest.mark.parametrize("size", [2, 200_000])
@pytest.mark.parametrize("do", [{"events": 2, "silence_s": IDLE_S + 1}, {"late": IDLE_S + 1}])
def test_an_answer_may_be_silent_for_longer_than_any_deadline_of_a_client(
    address: str, do: dict[str, Any], size: int
) -> None:
    answer = ask(address, CHAT, "POST", b"x" * size, do=do)
    assert answer.status == 200
    if "events" in do:
        assert answer.body.decode().split("\n\n") == ["data: blue 0", "data: blue 1", ""]
    else:
        assert answer.json()["body"] == size


def test_one_address_holds_a_share_of_the_connections(host: Any, address: str) -> None:
    def refused(connections: ExitStack) -> bool:
        try:
            client = connections.enter_context(
                socket.create_connection((address, PORT), timeout=10)
            )
            client.sendall(written("GET", "/v1/models"))
            return not client.recv(1)
        except ConnectionError:
            return True

    with ExitStack() as connections:
        results = [refused(connections) for _ in range(CONNECTIONS + 5)]
        assert results == [False] * CONNECTIONS + [True] * 5
        # From another address, the host's own.
        assert "200 OK" in host.run(f"curl -si http://127.0.0.1:{PORT}/v1/models").stdout
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with ExitStack() as connections:
            if not refused(connections):
                return
        time.sleep(0.1)
    raise AssertionError("refused although nothing is held any more")


@pytest.mark.parametrize("answer", ["whole", "stream"])
@pytest.mark.parametrize("size", [2, 200_000])
def test_a_client_that_leaves_frees_the_slot_at_once(address: str, answer: str, size: int) -> None:
    """`whole`: no byte of the answer came; `stream`: one event did, and no other is due."""
    name = uuid.uuid4().hex
    do = f"X-Do: {json.dumps({'name': name, 'leave': answer})}"
    with socket.create_connection((address, PORT), timeout=10) as client:
        client.sendall(written("POST", CHAT, do, f"Content-Length: {size}", body=b"x" * size))
        time.sleep(1)
    deadline = time.monotonic() + 5
    while (left := ask(address, "/v1/models", do={"name": name}).json()["left"]) is None:
        assert time.monotonic() < deadline, "the slot still waits for its client"
        time.sleep(0.1)
    assert left < 1.5


@pytest.mark.parametrize("how", [{}, {"reset": True}])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [2, 58_000])
def test_a_request_whose_slot_breaks_off_is_sent_again_as_the_same(
    address: str, how: dict[str, Any], chunked: bool, size: int
) -> None:
    name = uuid.uuid4().hex
    body = b"x" * size
    if chunked:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
    headers = {"Transfer_Encoding": "chunked"} if chunked else {}
    answer = ask(address, CHAT, "POST", body, do={"name": name, "drop": 1, **how}, **headers)
    echo = answer.json()
    assert (answer.status, echo["body"]) == (200, size)
    first, second = echo["tries"]
    assert first == second
    uuid.UUID(first)
    other = ask(address, CHAT, "POST", b"{}", do={"name": name}).json()["tries"][-1]
    assert other != first


def test_a_request_is_not_sent_again_for_ever(address: str) -> None:
    name = uuid.uuid4().hex
    answer = ask(address, CHAT, "POST", b"{}", do={"name": name, "drop": 100})
    assert (answer.status, is_openai_error(answer)) == (502, True)
    assert len(ask(address, "/v1/models", do={"name": name}).json()["tries"]) == 1 + 3 + 1


@pytest.mark.parametrize(
    ("do", "size"),
    [
        # Part of an answer came: a second one would be another answer.
        ({"part": True}, 2),
        ({"part": True, "reset": True}, 2),
        # It is not whole in the front end.
        ({}, 100_000),
    ],
)
def test_what_cannot_be_sent_again_is_not(address: str, do: dict[str, Any], size: int) -> None:
    name = uuid.uuid4().hex
    with suppress(http.client.IncompleteRead):
        assert (
            ask(address, CHAT, "POST", b"x" * size, do={"name": name, "drop": 1, **do}).status
            == 502
        )
    assert len(ask(address, "/v1/models", do={"name": name}).json()["tries"]) == 1 + 1


def test_a_body_is_asked_for_once(address: str) -> None:
    with socket.create_connection((address, PORT), timeout=10) as client:
        client.sendall(
            written("POST", CHAT, "Expect: 100-continue", "Content-Length: 2", "Connection: close")
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 100 Continue\r\n")
        client.sendall(b"{}")
        raw = client.makefile("rb").read()
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert "expect" not in json.loads(raw.partition(b"\r\n\r\n")[2])["headers"]


def test_stream_passes_unbuffered(address: str) -> None:
    connection = http.client.HTTPConnection(address, PORT, timeout=10)
    connection.request("POST", CHAT, "{}", {"X-Do": json.dumps({"events": 8})})
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
    answer = ask(address, CHAT, "POST", b"{}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert is_openai_error(answer)
    assert answer.headers["access-control-allow-origin"] == "*"
    browser = {"Origin": "https://app.example", "Access_Control_Request_Method": "POST"}
    assert ask(address, CHAT, "OPTIONS", **browser).status == 200
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
        (CHAT, "POST"),
        ("/litellm", "POST"),
        ("/ui", "GET"),
    ],
)
def test_prometheus_gets_nothing_else(address: str, path: str, method: str) -> None:
    answer = ask(address, path, method, port=METRICS_PORT)
    assert (answer.status, answer.body) == (404, b"See /metrics and /litellm.")
