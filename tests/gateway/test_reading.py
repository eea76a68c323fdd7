"""From where the gateway takes a model, a key, a user, a limit, an address: the guard knows each
place."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from asking import ASKING
from harness import ROLE, Gateway, compiled, plan, secret
from stubs import Call, Stubs

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}, {name: b}]}
llm_routing:
  fallbacks: {a: {terminal: true}, b: {terminal: true}}
  aliases: {also-b: b}
  capabilities: {some: {models: [b]}}
llm_clients:
  one: {secret: ONE_MODEL_OF_THE_GATEWAY, models: [a]}
  two: {secret: ANOTHER_OF_THE_GATEWAY, models: [b]}
"""
RESULT = compiled(CATALOGUE)
CLIENTS: Mapping[str, Any] = RESULT.plans["gw"]["litellm"]["clients"]


# -- what the code reads ---------------------------------------------------------------------------

Places = Mapping[str, Any]


@pytest.fixture(scope="module")
def places(environment: Path) -> Places:
    """Ask the installed gateway."""
    variables = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROLE / "files"),
    }
    program = Path(__file__).with_name("installed_places.py")
    command = [str(environment / "bin/python"), "-B", str(program)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    found: Places = json.loads(done.stdout)
    return found


BESIDES: Mapping[str, set[str]] = {
    "audio/transcriptions": {"body file"},
    "images/edits": {"body image", "body image[]", "body mask", "body mask[]"},
}
"""What FastAPI itself takes from a body: files, which name nothing."""


def test_parameters(places: Places) -> None:
    """Queries are dropped, and headers with keys are the guard's: a release may take nothing from
    elsewhere."""
    keys = {f"header {name}" for name in places["keys"]}
    for path, found in places["parameters"].items():
        beside = {name.lower() for name in found if not name.startswith("query ")} - keys
        assert beside == BESIDES.get(path, set()), path
    assert "query model" in places["parameters"]["chat/completions"], "what the guard is there for"
    assert keys <= {name.lower() for found in places["parameters"].values() for name in found}


REVIEWED = set(
    """
    anthropic-version content-encoding content-length content-type host user-agent x-forwarded-for x-forwarded-proto
    x-litellm-session-id x-litellm-tags x-litellm-trace-id
    """.split()
)
"""Headers of a client that LiteLLM sees and reads. Tags choose a deployment of the client's own
names; a session and a trace are names in logs; the others steer nothing."""


def test_headers(places: Places) -> None:
    """Of what it reads, only this reaches it. A release that reads another one needs no change, if
    it is not passed."""
    assert set(places["headers"]) & set(places["passed"]) == REVIEWED
    assert {"x-litellm-timeout", "x-litellm-model", "x-litellm-num-retries", "user-agent"} <= set(
        places["headers"]
    )
    assert not set(places["keys"]) & set(places["passed"])


def test_queries(places: Places) -> None:
    """Who reads a query beside the endpoints of other paths: none of them sees one."""
    assert {place.rpartition(":")[2] for place in places["queries"]} == {
        "_authorize_authenticated_request",
        "add_litellm_data_to_request",
        "get_custom_llm_provider_from_request_query",
        "non_proxy_admin_allowed_routes_check",
        "safe_add_api_version_from_query_params",
        "safe_get_request_query_params",
        "user_api_key_auth_websocket",
    }


# -- what a client may try -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("reading"))
    running.allow(CLIENTS)
    with running:
        yield running


FORMS = {"audio/transcriptions": "file", "images/edits": "image"}
PATHS = [*ASKING, *FORMS]
FORM = "multipart/form-data; boundary=x"


def form(path: str, *fields: tuple[str, str]) -> bytes:
    """A form with a file in it."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields
    ]
    file = (
        f'--x\r\nContent-Disposition: form-data; name="{FORMS[path]}";'
        ' filename="a.png"\r\n\r\nx\r\n--x--\r\n'
    )
    return "".join([*parts, file]).encode()


def body(path: str, model: Any) -> bytes:
    """The least that can be asked."""
    if path in FORMS:
        return form(path, ("model", str(model)), ("prompt", "x"))
    return json.dumps({"model": model, **ASKING[path]}).encode()


def kind(path: str) -> str:
    return FORM if path in FORMS else "application/json"


Pairs = Sequence[tuple[str, str]]


def send(
    gateway: Gateway,
    path: str,
    raw: bytes | Iterator[bytes],
    headers: Pairs | None = None,
    keys: Sequence[str] = ("one",),
) -> tuple[int, Any]:
    """Send a request exactly as it is given. Returns its status and what is wrong."""
    names = [CLIENTS[client]["secret"] for client in keys]
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.putrequest("POST", path, skip_accept_encoding=True)
    for header, name in zip(("Authorization", "x-api-key"), names, strict=False):
        connection.putheader(
            header, f"Bearer {secret(name)}" if header == "Authorization" else secret(name)
        )
    for header, value in (
        [("Content-Type", kind(path.removeprefix("/v1/").partition("?")[0]))]
        if headers is None
        else headers
    ):
        connection.putheader(header, value)
    if isinstance(raw, bytes):
        connection.putheader("Content-Length", str(len(raw)))
        connection.endheaders(raw)
    else:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(raw, encode_chunked=True)
    response = connection.getresponse()
    status, found = response.status, response.read()
    connection.close()
    if status < 400:
        return status, None
    error = json.loads(found)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return status, error


def one_call(calls: Sequence[Call], path: str) -> bool:
    """Whether an upstream was asked once, about what the client may ask for. (A form's model is in
    its body.)"""
    return [(call.path, call.model) for call in calls] == [
        (f"/v1/{path}", "" if path in FORMS else "a")
    ]


QUERIES = (
    "model=b",
    "model=also-b",
    "model=some",
    "model=one/-/b",
    "model=openai/b",
    "model=a,b",
    "model=" + ",".join("a" * 40),
    "model=a&model=b",
    "MODEL=b",
    "custom_llm_provider=anthropic",
    "api-version=1",
    "target_model_names=b",
    "user=x&api_base=http://192.0.2.9/&api_key=x&timeout=0.001&num_retries=9",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_query_says_nothing(gateway: Gateway, stubs: Stubs, path: str) -> None:
    for query in QUERIES:
        with stubs.recording() as calls:
            send(gateway, f"/v1/{path}?{query}", body(path, "a"))
        assert one_call(calls, path), query
        with stubs.recording() as calls:
            assert (
                send(gateway, f"/v1/{path}?{query.replace('=b', '=a')}", body(path, "b"))[0] == 403
            )
        assert calls == []


@pytest.mark.parametrize("path", PATHS)
def test_a_model_has_one_name(gateway: Gateway, stubs: Stubs, path: str) -> None:
    names = [
        "b",
        "also-b",
        "some",
        "a,b",
        "a,a",
        "A",
        "a ",
        " a",
        "openai/a",
        "one/-/a",
        "one/-/b",
        "a\0",
        "*",
        "",
    ]
    others: list[Any] = [] if path in FORMS else [["a"], ["a", "b"], {"a": 1}, None, 1, True]
    with stubs.recording() as calls:
        for name in [*names, *others]:
            status, error = send(gateway, f"/v1/{path}", body(path, name))
            assert (status, error["param"]) == (403, "model"), name
    assert calls == []


def twice(path: str) -> list[bytes]:
    """Bodies that say it twice."""
    if path in FORMS:
        return [
            form(path, ("model", "a"), ("model", "b")),
            form(path, ("model", "a"), ("model", "a")),
            form(path, ("model", "a"), ("prompt", "x"), ("prompt", "y")),
        ]
    rest = json.dumps(ASKING[path])[1:]
    return [
        f'{{"model": "a", "model": "b", {rest}'.encode(),
        f'{{"model": "b", "model": "a", {rest}'.encode(),
        f'{{"model": "a", "\\u006dodel": "b", {rest}'.encode(),
        f'{{"model": "a", "metadata": {{"x": 1, "x": 2}}, {rest}'.encode(),
    ]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_said_twice_is_ambiguous(gateway: Gateway, stubs: Stubs, path: str) -> None:
    with stubs.recording() as calls:
        for raw in twice(path):
            status, error = send(gateway, f"/v1/{path}", raw)
            assert status == 400
            assert "twice" in error["message"]
        both = [
            ("Content-Type", kind(path)),
            ("Content-Type", "application/json" if path in FORMS else FORM),
        ]
        for headers in (both, both[::-1], [both[0], both[0]]):
            assert send(gateway, f"/v1/{path}", body(path, "a"), headers)[0] == 400
        for model in ("a", "b"):
            assert send(gateway, f"/v1/{path}", body(path, model), keys=("one", "two"))[0] == 400
    assert calls == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", ["x-litellm-model", "X-LiteLLM-Model", "x-litellm-timeout", "x-litellm-user-id"]
)
def test_a_header_does_not_steer(gateway: Gateway, stubs: Stubs, path: str, header: str) -> None:
    with stubs.recording() as calls:
        for model in ("a", "b"):
            headers = [("Content-Type", kind(path)), (header, "a" if model == "b" else "b")]
            assert send(gateway, f"/v1/{path}", body(path, model), headers)[0] == 400
    assert calls == []


@pytest.mark.parametrize("path", PATHS)
def test_a_path_has_one_form(gateway: Gateway, stubs: Stubs, path: str) -> None:
    headers = [("Content-Type", kind(path))]
    forms = [
        f"/v1/{path}/",
        f"//v1/{path}",
        f"/v1//{path}",
        f"/v1/v1/{path}",
        f"/v1/../v1/{path}",
        f"/V1/{path}",
    ]
    forms += [
        f"/openai/v1/{path}",
        f"/openai/deployments/b/{path}",
        f"/engines/b/{path}",
        f"/v1/engines/b/{path}",
    ]
    forms += [
        f"/v1/{path};model=b",
        f"/v1/{path}%3fmodel=b",
        f"/v1/{path}%00",
        f"/b/v1/{path}",
        f"/v1%2F%2F{path}",
    ]
    with stubs.recording() as calls:
        for wrong in forms:
            assert send(gateway, wrong, body(path, "a"), headers)[0] == 404, wrong
    assert calls == []


@pytest.mark.parametrize("path", PATHS)
def test_a_body_is_what_it_says(gateway: Gateway, stubs: Stubs, path: str) -> None:
    """JSON in UTF-8, or a form, as the path takes it: nothing packed, nothing else, nothing behind
    it."""
    raw = body(path, "a")
    wrong: list[tuple[bytes, Pairs, int]] = [
        (raw, [("Content-Type", other)], 415)
        for other in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "*/*",
            "",
        )
    ]
    wrong.append((raw, [], 415))
    wrong.append((raw, [("Content-Type", "application/json" if path in FORMS else FORM)], 415))
    wrong.append(
        (gzip.compress(raw), [("Content-Type", kind(path)), ("Content-Encoding", "gzip")], 415)
    )
    wrong.append((raw, [("Content-Type", kind(path)), ("Content-Encoding", "deflate")], 415))
    if path in ASKING:
        text = raw.decode()
        wrong += [
            (sent, [("Content-Type", "application/json")], 400)
            for sent in (
                text.encode("utf-16"),
                text.encode("utf-32"),
                b"\xef\xbb\xbf" + raw,
                raw + raw,
                raw + b"]",
                b"model=a",
                b"",
                b"[%s]" % raw,
                b'"a"',
                b"1",
                b"null",
                text.replace('"x"', "NaN").encode(),
                text.replace('"x"', "1e999").encode(),
                text.replace('"x"', "9" * 5000).encode(),
                text.replace('"x"', '"\\ud800"').encode(),
                text.replace('"x"', "[" * 5000 + "]" * 5000).encode(),
            )
        ]
    else:
        wrong += [
            (raw, [("Content-Type", other)], 400)
            for other in ("multipart/form-data", FORM.replace("=x", "=y"))
        ]
    with stubs.recording() as calls:
        for sent, headers, expected in wrong:
            assert send(gateway, f"/v1/{path}", sent, headers)[0] == expected, (sent[:80], headers)
    assert calls == []


@pytest.mark.parametrize("path", PATHS)
def test_a_body_may_come_in_pieces(gateway: Gateway, stubs: Stubs, path: str) -> None:
    raw = body(path, "a")
    headers = [("Content-Type", kind(path) + ("" if path in FORMS else "; charset=utf-8"))]
    with stubs.recording() as calls:
        send(gateway, f"/v1/{path}", iter([raw[:5], raw[5:]]), headers)
    assert one_call(calls, path)
    with stubs.recording() as calls:
        forbidden = body(path, "b")
        assert send(gateway, f"/v1/{path}", iter([forbidden[:5], forbidden[5:]]), headers)[0] == 403
    assert calls == []
