"""What errors look like and what they do not tell; what is read about models; one call of each
step."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
from asking import ASKING
from harness import Answer, Gateway, compiled, document, plan, secret
from stubs import Behaviour, Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}, {name: org/b}]}
  two: {type: vllm, base_url: "http://[2001:db8::2]:8000", models: [{name: pair, served_name: p2, weight: 1}]}
  three: {type: vllm, base_url: "http://192.0.2.3:8000", models: [{name: pair, served_name: p3, weight: 1}]}
  dead: {type: vllm, base_url: "http://192.0.2.4:8009", models: [{name: dead}]}
  dead6: {type: vllm, base_url: "http://[2001:db8::4]:8009", models: [{name: dead6}]}
llm_routing:
  fallbacks: {a: {terminal: true}, org/b: {terminal: true}, pair: {terminal: true}, dead: {terminal: true},
              dead6: {terminal: true}}
  aliases: {fast: a}
  capabilities: {code: {models: [a, org/b]}}
llm_gateway: {timeouts: {request_s: 1, stream_s: 1}, cooldown_s: 1}
llm_clients:
  all: {secret: EVERYTHING_OF_THE_GATEWAY}
  some: {secret: SOME_MODELS_OF_THE_GATEWAY, models: [fast, org/b]}
"""
RESULT = compiled(CATALOGUE)
CLIENTS: Mapping[str, Any] = RESULT.plans["gw"]["litellm"]["clients"]
KEYS = {
    "master": MASTER_KEY,
    **{name: client["secret"] for name, client in CLIENTS.items()},
}

THENS: tuple[Literal["cut", "silence"], ...] = ("cut", "silence")
STREAMS = ("chat/completions", "completions", "responses")


@pytest.fixture(scope="module")
def running(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for address in ("192.0.2.1", "2001:db8::2", "192.0.2.3"):
        stubs.listen(address, 8000)
    gateway = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("answers"))
    gateway.allow(CLIENTS)
    with gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway, stubs: Stubs) -> Iterator[Gateway]:
    """Return the gateway; afterwards the stubs are well again and nothing is cooled down."""
    yield running
    stubs.paths.clear()
    if stubs.behaviours:
        stubs.behaviours.clear()
        time.sleep(1.1)


def send(gateway: Gateway, path: str, who: str = "all", **body: Any) -> Answer:
    headers = {"Authorization": f"Bearer {secret(KEYS[who])}"}
    return gateway.request("POST", f"/v1/{path}", {**ASKING[path], **body}, headers)


def streamed(stream: bool) -> dict[str, Any]:
    return {"stream": True} if stream else {}


def told(answer: Answer) -> Mapping[str, Any]:
    """The error of an answer, which has OpenAI's shape and names nothing that is nobody's
    business."""
    found: Mapping[str, Any] | None = answer.error
    if answer.stream and not found:  # /v1/responses tells it in its own way
        (failed,) = (
            event["response"]["error"]
            for event in answer.events
            if event["type"] == "response.failed"
        )
        found = {"param": None, "type": "", **failed}
    assert found is not None, answer
    assert found.keys() == {"message", "type", "param", "code"}
    assert isinstance(found["message"], str)
    assert isinstance(found["type"], str)
    assert isinstance(found["code"], str)
    assert not found["code"].isdigit(), "OpenAI's are words"
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/json"
        assert answer.body.keys() == {"error"}
    text = json.dumps(answer.body)
    ids = [entry["model_info"]["id"] for entry in document(RESULT)["model_list"]]
    for hidden in (
        *ids,
        "192.0.2.",
        "2001:db8",
        ":8000",
        "cooldown",
        "Traceback",
        "litellm",
        "Exception -",
        "0x7",
    ):
        assert hidden not in text.replace("all_deployments_in_cooldown", "").replace(
            "in cooldown", ""
        ), hidden
    return found


LEAK = "stub: out of order, says http://192.0.2.1:8000/v1 of one/-/a"


@pytest.mark.parametrize("who", ["all", "master"])
@pytest.mark.parametrize("path", ASKING)
def test_an_engines_words_arrive_without_its_address(
    gateway: Gateway, stubs: Stubs, path: str, who: str
) -> None:
    stubs.behaviours["a"] = Behaviour(
        400, {"error": {"message": LEAK, "type": "odd", "code": "odd"}}
    )
    for stream in (False, True) if path in STREAMS else (False,):
        answer = send(gateway, path, who, model="a", **streamed(stream))
        assert answer.status == 400
        assert told(answer)["message"] == "stub: out of order, says [hidden] of [hidden]"


def test_a_line_of_an_engines_code_stays_there(gateway: Gateway, stubs: Stubs) -> None:
    """llama-cpp-python 0.3.36 ends its words so."""
    words = "1 validation error:\n  {'type': 'missing', 'loc': ('body', 'tools')}"
    place = '\n\n  File "/opt/app.py", line 376, in create_chat_completion\n    POST /v1/x'
    error = {"message": words + place, "type": "internal_server_error", "code": None}
    stubs.behaviours["a"] = Behaviour(500, {"error": error})
    assert told(send(gateway, "chat/completions", model="a"))["message"] == words


@pytest.mark.parametrize("path", STREAMS)
def test_neither_does_an_error_in_a_stream_tell_it(
    gateway: Gateway, stubs: Stubs, path: str
) -> None:
    with stubs.recording():
        first = send(gateway, path, model="a", stream=True).events[0]
    events: tuple[bytes, ...] = (
        b"data: %s\n\n"
        % json.dumps(
            {**first, "choices": [{"index": 0, "text": "I", "delta": {"content": "I"}}]}
        ).encode(),
        b'data: {"error": {"message": "%s", "code": 500}}\n\n' % LEAK.encode(),
    )
    if path == "responses":
        failed = {
            **first["response"],
            "status": "failed",
            "error": {"code": "server_error", "message": LEAK},
        }
        events = tuple(
            b"data: %s\n\n" % json.dumps(event).encode()
            for event in (first, {"type": "response.failed", "response": failed})
        )
    stubs.behaviours["a"] = Behaviour(events=events)
    answer = send(gateway, path, model="a", stream=True)
    assert answer.status == 200
    assert told(answer)["message"] == "stub: out of order, says [hidden] of [hidden]"


@pytest.mark.parametrize("model", ["dead", "dead6"])
@pytest.mark.parametrize("path", ASKING)
def test_an_engine_that_is_not_there_has_no_address(
    gateway: Gateway, path: str, model: str
) -> None:
    for stream in (False, True) if path in STREAMS else (False,):
        answer = send(gateway, path, model=model, **streamed(stream))
        assert answer.status in (500, 429), "after two failures it is cooled down"
        assert "onnect" in told(answer)["message"] or answer.status == 429


def test_a_stream_that_breaks_tells_no_place(gateway: Gateway, stubs: Stubs) -> None:
    for path in STREAMS:
        for then in THENS:
            stubs.behaviours["a"] = Behaviour(until="token", then=then)
            answer = send(gateway, path, model="a", stream=True)
            assert answer.status == 200
            assert told(answer)["message"]


def test_who_cools_down_is_nobodys_business(gateway: Gateway, stubs: Stubs) -> None:
    """That everything does is: the code says so, and when to come back."""
    stubs.behaviours |= dict.fromkeys(
        ("p2", "p3"), Behaviour(500, {"error": {"message": "stub: out of order"}})
    )
    stubs.paths["/health"] = Behaviour(503)
    for path in ASKING:
        for _ in range(10):  # it lasts a second, and begins beside the request that caused it
            send(gateway, "chat/completions", model="pair")
            answer = send(gateway, path, model="pair")
            if answer.status == 429:
                break
        error = told(answer)
        assert (answer.status, error["type"]) == (429, "all_deployments_in_cooldown")
        assert error["code"] == "rate_limit_exceeded"
        assert error["message"].startswith("No deployments available for selected model")
        assert int(answer.headers["retry-after"]) == 1


@pytest.mark.parametrize("path", ASKING)
@pytest.mark.parametrize("how", ["500", "429", "cut", "silence"])
def test_an_engine_is_asked_once(gateway: Gateway, stubs: Stubs, path: str, how: str) -> None:
    """OpenAI's library would ask up to three times."""
    busy = {"error": {"message": "stub: busy"}}
    behaviours = {
        "cut": Behaviour(until="token", then="cut"),
        "silence": Behaviour(until="request"),
    }
    stubs.behaviours["a"] = behaviours.get(how) or Behaviour(int(how), busy)
    with stubs.recording() as calls:
        answer = send(gateway, path, model="a")
    assert answer.status == {"cut": 500, "silence": 408}.get(how) or int(how)
    assert len(calls) == 1
    told(answer)


def read(
    gateway: Gateway, method: str, path: str, who: str
) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request(method, path, headers={"Authorization": f"Bearer {secret(KEYS[who])}"})
    response = connection.getresponse()
    raw = b""
    if method == "HEAD":  # whatever comes would be a body that nobody expects
        connection.sock.settimeout(0.2)
        with suppress(TimeoutError):
            raw = connection.sock.recv(1)
    else:
        raw = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, raw


@pytest.mark.parametrize(
    ("who", "names"),
    [("master", ["a", "org/b", "pair", "fast", "code"]), ("some", ["fast", "org/b"])],
)
def test_what_is_listed_can_be_looked_up(gateway: Gateway, who: str, names: list[str]) -> None:
    """Aliases, capabilities and names with a slash, too; nothing else is there."""
    for name, path in [(one, as_sent) for one in names for as_sent in {one, quote(one, safe="")}]:
        status, headers, raw = read(gateway, "GET", f"/v1/models/{path}", who)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(raw) == {
            "id": name,
            "object": "model",
            "created": 1677610602,
            "owned_by": "modelyard",
        }
    for name in (
        "nope",
        "",
        "one/-/a",
        "p2",
        "openai/a",
        "a/",
        "a,fast",
        *([] if who == "master" else ["a", "pair"]),
    ):
        status, headers, raw = read(gateway, "GET", f"/v1/models/{name}", who)
        error = json.loads(raw)["error"]
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert error["message"] == f"There is no model '{name}' for this key; see GET /v1/models."


@pytest.mark.parametrize("path", ["models", "models/a", "models/nope", "nope"])
def test_head_is_get_without_a_body(gateway: Gateway, path: str) -> None:
    seen = {method: read(gateway, method, f"/v1/{path}", "all") for method in ("GET", "HEAD")}
    assert seen["HEAD"][0] == seen["GET"][0]
    assert seen["HEAD"][1]["content-length"] == str(len(seen["GET"][2]))
    assert seen["HEAD"][2] == b""


def test_the_list_tells_nothing_but_names(gateway: Gateway) -> None:
    for model in gateway.request("GET", "/v1/models").body["data"]:
        assert model.keys() <= {"id", "object", "created", "owned_by", "mode"}


@pytest.mark.parametrize(
    ("method", "status"), [("OPTIONS", 405), ("PUT", 405), ("DELETE", 405), ("PATCH", 405)]
)
def test_a_wrong_method_is_an_error_in_the_same_shape(
    gateway: Gateway, method: str, status: int
) -> None:
    answer = gateway.request(method, "/v1/models")
    assert answer.status == status
    assert told(answer)["code"] == "method_not_allowed"
