"""Keys of clients: what each may ask for, what none may say, and what becomes of a key that is
revoked."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harness import Answer, Gateway, compiled, plan, secret
from stubs import Behaviour, Stubs

from modelyard.names import MASTER_KEY

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}, {name: b}]}
  two: {type: vllm, base_url: "http://192.0.2.2:8000", models: [{name: c}]}
llm_routing:
  fallbacks: {a: {chain: [c]}, b: {terminal: true}, c: {terminal: true}}
  aliases: {fast: a}
  capabilities: {code: {models: [b, c]}}
llm_gateway: {timeouts: {request_s: 5, stream_s: 5}, cooldown_s: 0.2}
llm_clients:
  everything: {secret: EVERYTHING_OF_THE_GATEWAY}
  some: {secret: SOME_MODELS_OF_THE_GATEWAY, models: [fast, code]}
  one: {secret: ONE_MODEL_OF_THE_GATEWAY, models: [a]}
  limited: {secret: LIMITED_USE_OF_THE_GATEWAY, models: [b], rpm: 3}
"""
RESULT = compiled(CATALOGUE)
CLIENTS: Mapping[str, Any] = RESULT.plans["gw"]["litellm"]["clients"]
NAMES = ["a", "b", "c", "fast", "code"]
MASTER = "the master key"
HIDDEN = ["one/-/a", "openai/a", "a,b", "A", "nobody", ["a"], None]
"""What LiteLLM understands, too: the id of a deployment, its engine's name, several at once. And
what nobody does."""


@pytest.fixture(scope="module")
def running(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for number in (1, 2):
        stubs.listen(f"192.0.2.{number}", 8000)
    gateway = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("clients"))
    gateway.allow(CLIENTS)
    with gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway) -> Iterator[Gateway]:
    """Return the gateway; afterwards it knows all clients again."""
    yield running
    running.allow(CLIENTS)


def key(client: str) -> dict[str, str]:
    return {
        "Authorization": (
            f"Bearer {secret(CLIENTS[client]['secret'] if client != MASTER else MASTER_KEY)}"
        )
    }


def ask(
    gateway: Gateway,
    client: str,
    model: Any,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Who are you?"}],
        **(more or {}),
    }
    return gateway.request("POST", "/v1/chat/completions", body, {**key(client), **(headers or {})})


def listed(gateway: Gateway, client: str) -> list[str]:
    return [
        model["id"]
        for model in gateway.request("GET", "/v1/models", headers=key(client)).body["data"]
    ]


@pytest.mark.parametrize(
    ("client", "allowed"),
    [("everything", NAMES), ("some", ["fast", "code"]), ("one", ["a"])],
    ids=str,
)
def test_a_client_may_ask_for_its_names_only(
    gateway: Gateway, stubs: Stubs, client: str, allowed: list[str]
) -> None:
    assert sorted(listed(gateway, client)) == sorted(allowed)
    for name in allowed:
        answer = ask(gateway, client, name)
        assert (answer.status, answer.model) == (200, name)
        if name in ("a", "b", "c"):  # for an alias and a capability the master key gets 404, too
            assert gateway.request("GET", f"/v1/models/{name}", headers=key(client)).status == 200
    with stubs.recording() as calls:
        for hidden in (name for name in [*NAMES, *HIDDEN] if name not in allowed):
            answer = ask(gateway, client, hidden)
            assert answer.status == 403, hidden
            assert answer.error is not None
            assert answer.error["param"] == "model"
            assert f"Client {client} may not use the model" in answer.error["message"]
        for name in (name for name in NAMES if name not in allowed):
            assert gateway.request("GET", f"/v1/models/{name}", headers=key(client)).status == 404
            assert (
                gateway.request(
                    "POST", "/v1/embeddings", {"model": name, "input": "x"}, key(client)
                ).status
                == 403
            )
    assert calls == []


def test_who_steps_in_may_be_another(gateway: Gateway, stubs: Stubs) -> None:
    """`one` may not ask for c, but c answers when a does not."""
    assert ask(gateway, "one", "c").status == 403
    stubs.behaviours["a"] = Behaviour(500, {"error": {"message": "stub: out of order"}})
    with stubs.recording() as calls:
        whole, stream = ask(gateway, "one", "a"), ask(gateway, "one", "a", {"stream": True})
    stubs.behaviours.clear()
    assert [call.model for call in calls] == ["a", "c", "a", "c"]
    assert (whole.status, whole.text) == (200, "I am c")
    assert (stream.status, stream.text, stream.done) == (200, "I am c", True)


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "x-litellm-api-key"])
def test_where_a_key_may_stand(gateway: Gateway, header: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    value = (
        key("one")["Authorization"]
        if header == "Authorization"
        else secret(CLIENTS["one"]["secret"])
    )
    connection.request("GET", "/v1/models", headers={header: value})
    response = connection.getresponse()
    assert [model["id"] for model in json.load(response)["data"]] == ["a"]
    connection.close()


@pytest.mark.parametrize(
    "sent", ["", "Bearer", "Bearer sk-wrong", "Bearer \u00e4\u00f6\u00fc", "Bearer " + "x" * 5000]
)
def test_a_key_that_nobody_has(gateway: Gateway, sent: str) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        answer = gateway.request(
            method, path, {"model": "a"} if method == "POST" else None, {"Authorization": sent}
        )
        assert answer.status == 401
        assert answer.error is not None


def test_the_hash_of_a_key_is_no_key(gateway: Gateway) -> None:
    state = json.loads((gateway.directory / "state/modelyard/litellm/clients.json").read_text())
    digest = state["clients"][0]["sha256"]
    assert (
        gateway.request("GET", "/v1/models", headers={"Authorization": f"Bearer {digest}"}).status
        == 401
    )


CLOSED = [
    *(
        ("GET", path)
        for path in (
            "/",
            "/health",
            "/model/info",
            "/v1/model/info",
            "/config/yaml",
            "/key/info",
            "/ui",
        )
    ),
    *(
        ("GET", path)
        for path in ("/openapi.json", "/docs", "/redoc", "/login", "/sso/key/generate", "/metrics")
    ),
    *(
        ("POST", path)
        for path in ("/key/generate", "/model/new", "/v1/messages", "/v1/rerank", "/login")
    ),
    ("POST", "/openai/deployments/a/chat/completions"),
    ("POST", "/engines/a/chat/completions"),
    ("GET", "/v1/responses/resp_1"),
    ("DELETE", "/v1/responses/resp_1"),
    ("POST", "/v1/responses/resp_1/cancel"),
]


@pytest.mark.parametrize("sender", ["everything", MASTER, "nobody"])
def test_a_slot_serves_nothing_but_what_the_front_end_opens(gateway: Gateway, sender: str) -> None:
    """The front end's list is not the only wall: local users, and pages in their browsers, reach a
    slot without it."""
    headers = {"Authorization": ""} if sender == "nobody" else key(sender)
    for method, path in CLOSED:
        body = {"model": "a", "messages": [], "max_tokens": 1} if method == "POST" else None
        answer = gateway.request(method, path, body, headers)
        assert (answer.status, answer.seconds < 2) == (404, True), path
        assert answer.error is not None, path


def test_requests_per_minute(gateway: Gateway, stubs: Stubs) -> None:
    with stubs.recording() as calls:
        answers = [ask(gateway, "limited", "b") for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert len(calls) == 3
    assert 55 <= int(answers[-1].headers["retry-after"]) <= 60
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == [
        "2",
        "1",
        "0",
        "0",
        "0",
    ]
    assert answers[-1].error is not None
    assert "client limited" in answers[-1].error["message"]
    assert ask(gateway, "everything", "b").status == 200, "nobody else is limited by it"


def test_refusals_are_counted_by_client_and_status(gateway: Gateway) -> None:
    """By nothing that somebody without a key could choose, or Prometheus would get a new series
    from each of them."""
    ask(gateway, "one", "a")
    before = gateway.refusals()
    ask(gateway, "one", "b")
    ask(gateway, "one", "a", {"timeout": 1})
    ask(gateway, MASTER, "a", {"n": "many"})
    for number in range(3):
        headers = {"Authorization": f"Bearer sk-{number}", "User-Agent": f"nobody {number}"}
        gateway.request("POST", f"/v1/chat/completions?{number}", {"model": f"a-{number}"}, headers)
        gateway.request("GET", f"/nowhere/{number}", headers=headers)
    assert gateway.refusals() - before == {
        ("one", "403"): 1,
        ("one", "400"): 1,
        ("", "400"): 1,
        ("", "401"): 3,
        ("", "404"): 3,
    }


def test_a_revoked_key_is_refused_at_once(gateway: Gateway) -> None:
    assert ask(gateway, "one", "a").status == 200
    gateway.allow({name: client for name, client in CLIENTS.items() if name != "one"})
    assert ask(gateway, "one", "a").status == 401, "the next request"
    assert ask(gateway, "some", "fast").status == 200
    gateway.allow(CLIENTS)
    assert ask(gateway, "one", "a").status == 200
    gateway.allow({**CLIENTS, "one": {**CLIENTS["one"], "models": ["b"]}})
    assert [ask(gateway, "one", name).status for name in ("a", "b")] == [403, 200]
    gateway.allow({})
    assert ask(gateway, "one", "b").status == 401
    assert gateway.chat("a").status == 200, "the master key"


def test_a_client_of_names_that_are_not_served_may_do_nothing(gateway: Gateway) -> None:
    """Not everything, though LiteLLM takes an empty list for that."""
    gateway.allow({**CLIENTS, "one": {**CLIENTS["one"], "models": ["of-another-release"]}})
    assert listed(gateway, "one") == []
    assert [ask(gateway, "one", name).status for name in ("a", "of-another-release")] == [403, 403]


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"clients": [{"name": "one"}]}', '{"clients": 1}']
)
def test_a_damaged_file_changes_nothing_and_is_told(gateway: Gateway, damage: str) -> None:
    assert ask(gateway, "one", "a").status == 200
    path = gateway.directory / "state/modelyard/litellm/clients.json"
    path.write_text(damage)
    before = gateway.log.read_text().count("is damaged, the 4 clients of before are kept")
    assert ask(gateway, "one", "a").status == 200
    assert ask(gateway, "one", "b").status == 403
    assert (
        gateway.log.read_text().count("is damaged, the 4 clients of before are kept") == before + 1
    ), "once"


def test_without_the_file_no_client_is_let_in(gateway: Gateway) -> None:
    (gateway.directory / "state/modelyard/litellm/clients.json").unlink()
    assert ask(gateway, "one", "a").status == 401
    assert gateway.chat("a").status == 200
    assert "clients.json cannot be found: no client's key is accepted" in gateway.log.read_text()


STEERING: dict[str, Any] = {
    "api_base": "http://192.0.2.2:8000/v1",
    "api_key": "sk-of-the-client",
    "base_url": "http://192.0.2.2:8000/v1",
    "base_model": "b",
    "context_window_fallbacks": [{"a": ["b"]}],
    "cooldown_time": 1,
    "custom_llm_provider": "anthropic",
    "deployment_id": "b",
    "extra_body": {"model": "b"},
    "extra_headers": {"Authorization": "Bearer of-the-client"},
    "fallbacks": ["b"],
    "guardrails": [],
    "headers": {"Authorization": "Bearer of-the-client"},
    "input_cost_per_token": 0,
    "litellm_metadata": {},
    "litellm_params": {},
    "max_retries": 9,
    "mock_response": "I am not a",
    "mock_testing_fallbacks": True,
    "model_info": {"id": "one/-/b"},
    "model_list": [{"model_name": "a"}],
    "num_retries": 9,
    "organization": "of-the-client",
    "priority": 1,
    "router_settings_override": {"fallbacks": [{"a": ["b"]}]},
    "silent_model": "b",
    "specific_deployment": True,
    "stream_timeout": 0.001,
    "success_callback": ["langfuse"],
    "timeout": 0.001,
    "user_config": {"model_list": []},
    "_target_order": 2,
}


@pytest.mark.parametrize("field", STEERING)
def test_a_client_does_not_steer_the_gateway(gateway: Gateway, stubs: Stubs, field: str) -> None:
    with stubs.recording() as calls:
        answer = ask(gateway, "everything", "a", {field: STEERING[field]})
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["param"] == field
    assert f"'{field}' steers the gateway" in answer.error["message"]
    assert calls == []


@pytest.mark.parametrize("field", ["api_base", "user_config", "model_list", "input_cost_per_token"])
def test_what_the_gateway_itself_closes_for_the_master_key(
    gateway: Gateway, stubs: Stubs, field: str
) -> None:
    with stubs.recording() as calls:
        answer = ask(gateway, MASTER, "a", {field: "x"})
    assert answer.status == 401
    assert answer.error is not None
    assert field in answer.error["message"]
    assert calls == []


@pytest.mark.parametrize(
    "header", ["x-litellm-timeout", "X-LiteLLM-Num-Retries", "x-litellm-disable-callbacks"]
)
def test_neither_does_a_header(gateway: Gateway, stubs: Stubs, header: str) -> None:
    with stubs.recording() as calls:
        answer = ask(gateway, "everything", "a", headers={header: "1"})
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["param"] == header.lower()
    assert calls == []


def test_a_form_is_checked_as_well(gateway: Gateway, stubs: Stubs) -> None:
    def send(**fields: str) -> tuple[int, Any]:
        fields = {"model": "a", **fields}
        parts = [
            f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'
            for n, v in fields.items()
        ]
        parts += [
            '--x\r\nContent-Disposition: form-data; name="file";'
            ' filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
        ]
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        headers = {**key("one"), "Content-Type": "multipart/form-data; boundary=x"}
        connection.request("POST", "/v1/audio/transcriptions", "".join(parts), headers)
        response = connection.getresponse()
        answer = response.status, json.load(response)
        connection.close()
        return answer

    with stubs.recording() as calls:
        assert send(model="b")[0] == 403
        status, body = send(timeout="1")
        assert (status, body["error"]["param"]) == (400, "timeout")
    assert calls == []
    with stubs.recording() as calls:
        send()
    assert [call.path for call in calls][:1] == ["/v1/audio/transcriptions"], (
        "the rest is the engine's business"
    )


def test_what_a_client_may_say(gateway: Gateway, stubs: Stubs) -> None:
    """Parameters of OpenAI and of engines, a tag, and that nobody shall step in."""
    said = {
        "temperature": 0.5,
        "seed": 1,
        "user": "somebody",
        "top_k": 3,
        "min_p": 0.1,
        "metadata": {"a": "b"},
    }
    said |= {"disable_fallbacks": True, "tags": ["y"]}
    with stubs.recording() as calls:
        answer = ask(gateway, "one", "a", said, {"x-litellm-tags": "x"})
    assert answer.status == 200
    assert [(call.model, call.body["top_k"], call.headers["authorization"]) for call in calls] == [
        ("a", 3, "Bearer none")
    ]


def test_what_the_master_key_may_say(gateway: Gateway) -> None:
    assert ask(gateway, MASTER, "a", {"num_retries": 1, "fallbacks": ["b"]}).status == 200


def test_names_are_seen_and_keys_are_not(gateway: Gateway) -> None:
    """In the metrics and in the log; a wrong key neither, though it does not begin with sk-."""
    ask(gateway, "one", "a")
    ask(gateway, "one", "b")
    wrong = "of-nobody-in-this-house-0123456789"
    assert (
        gateway.request("GET", "/v1/models", headers={"Authorization": f"Bearer {wrong}"}).status
        == 401
    )
    evil = "x\nmodelyard: client some: GET /v1/models"
    ask(gateway, "one", evil)
    gateway.request("GET", f"/v1/models/{quote(evil)}", headers=key("one"))
    metrics = gateway.request("GET", "/metrics/").body
    counted = [
        line
        for line in metrics.splitlines()
        if line.startswith("litellm_proxy_total_requests_metric_total{")
    ]
    assert any('api_key_alias="one"' in line and 'requested_model="a"' in line for line in counted)
    log = gateway.log.read_text()
    assert "modelyard: client one: POST /v1/chat/completions a\n" in log
    assert "modelyard: client one: POST /v1/chat/completions refused, 403: not_allowed\n" in log
    assert evil not in log
    for text in (log, metrics):
        for name in [*(client["secret"] for client in CLIENTS.values()), MASTER_KEY]:
            assert secret(name) not in text
        assert wrong not in text
    state = (gateway.directory / "state/modelyard/litellm/clients.json").read_text()
    hashes = [client["sha256"] for client in json.loads(state)["clients"]]
    assert not any(digest in text for text in (log, metrics) for digest in hashes)
