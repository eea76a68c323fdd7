"""The checks against real sockets: what they pass, what they refuse, and that they never raise."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils import modelyard_checks as checks

RECORDED: list[object] = []


CALL = {"index": 0, "function": {"name": "clock", "arguments": "{}"}}
DELTAS: dict[str, list[dict[str, object]]] = {
    "says": [{"content": "a"}, {"content": "b"}],
    "vllm-thinks": [{"reasoning": "a", "content": None}, {"reasoning": "b"}],
    "llama-thinks": [{"reasoning_content": "a"}, {"content": "b"}],
    "thinks": [{"thinking": "a"}, {"thinking": "b"}],
    "calls": [{"tool_calls": [CALL]}, {"tool_calls": [CALL]}],
    "refuses": [{"refusal": "I"}, {"refusal": "cannot"}],
    "nothing": [{"content": None}, {"tool_calls": [], "reasoning": ""}],
}
"""By model: what comes behind the chunk that only opens the answer."""

EMBEDDED: dict[str, tuple[int, list[list[float]]]] = {
    "good": (200, [[0.5, 0.25]]),
    "empty": (200, []),
    "busy": (503, []),
    "chats": (501, []),
    "unpooled": (400, []),
}
"""By model, the status and the vectors of its answers."""


class Stub(http.server.BaseHTTPRequestHandler):
    """A stand-in for an OpenAI-compatible server that answers well, or in one of several bad
    ways."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Serve the model list to whoever has the key. A provider may repeat a part of the key that
        it refuses."""
        if self.path == "/forbidden":
            return self._answer(403, b'{"error": "sk-right may not use this"}')
        if self.path == "/down":
            return self._answer(503, b"")
        if self.path == "/anthropic":
            right = (self.headers.get("x-api-key"), self.headers.get("anthropic-version")) == (
                "sk-right",
                "2023-06-01",
            )
            return self._answer(
                200 if right and not self.headers.get("Authorization") else 401, b"{}"
            )
        if self.headers.get("Authorization") != "Bearer sk-right":
            return self._answer(401, b'{"error": "sk-wrong is no key"}')
        return self._answer(200, json.dumps({"data": [{"id": "a"}, {"id": "b"}]}).encode())

    def do_POST(self) -> None:
        """Answer a chat or an embedding, by model name."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "input" in request:
            status, vectors = EMBEDDED[request["model"]]
            data = [{"embedding": vector} for vector in vectors]
            return self._answer(status, json.dumps({"data": data}).encode())
        if request["model"] == "recorded":
            RECORDED.append(request["messages"])
        if request["model"] == "empty":
            return self._answer(200, b'{"choices": []}')
        if request["model"] == "cut":
            return self._answer(200, b'data: {"choices": []}\n\n')
        if request["model"] in DELTAS:
            events = [{"role": "assistant", "content": ""}, *DELTAS[request["model"]]]
            chunks = [json.dumps({"choices": [{"delta": delta}]}) for delta in events]
            chunks += [json.dumps({"choices": [], "usage": {"completion_tokens": 2}}), "[DONE]"]
            return self._answer(200, "".join(f"data: {one}\n\n" for one in chunks).encode())
        if request["stream"]:
            return self._answer(200, b'data: {"choices": []}\n\ndata: [DONE]\n\n')
        return self._answer(200, b'{"choices": [{"message": {"content": "hi"}}]}')


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running stub, and credentials as they lie on a host."""
    for generation, key in (("one", "sk-right"), ("two", "sk-wrong")):
        (tmp_path / "svc" / generation).mkdir(parents=True)
        (tmp_path / "svc" / generation / "KEY").write_text(f"{key}\n")
    (tmp_path / "svc" / "current").symlink_to("one")
    monkeypatch.setattr(checks, "CREDENTIALS", str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def check(kind: str, **extra: object) -> dict[str, object]:
    return {"name": "n", "service": "s", "kind": kind, "hint": "look", **extra}


@pytest.mark.parametrize(
    ("kind", "extra", "status", "detail"),
    [
        ("models", {"names": ["b", "a"]}, "ok", "2 models, exactly as compiled"),
        ("models", {"names": ["a", "c"]}, "failed", "missing: c; not in the plan: b"),
        ("models", {"names": ["a"], "others": True}, "ok", "1 model as compiled, and 1 more"),
        ("models", {"names": ["a", "c"], "others": True}, "failed", "missing: c"),
        ("http", {"expect_status": [200]}, "ok", "answered 200"),
        ("http", {"expect_status": [404]}, "failed", "answered 200, expected 404"),
        ("chat", {"model": "good"}, "ok", "good returned a token"),
        ("chat", {"model": "good", "stream": True}, "ok", "good streamed 1 events and [DONE]"),
        ("chat", {"model": "empty"}, "failed", "empty answered without choices"),
        ("chat", {"model": "cut", "stream": True}, "failed", "did not end in [DONE]"),
        ("embedding", {"model": "good"}, "ok", "good returned a vector of 2 numbers"),
        ("embedding", {"model": "empty"}, "failed", "empty answered without a vector"),
        ("embedding", {"model": "busy"}, "failed", "busy answered 503"),
        ("embedding", {"model": "chats"}, "failed", "chats answered 501"),
        ("embedding", {"model": "unpooled"}, "failed", "unpooled answered 400"),
    ],
)
def test_http_kinds(
    url: str, kind: str, extra: dict[str, object], status: str, detail: str
) -> None:
    result = checks.run_check(check(kind, url=url, bearer="svc/KEY", **extra))
    assert (result["status"], detail in result["detail"]) == (status, True), result
    # A server that is up does not find another model by itself, nor start to embed; everything
    # else may come with time.
    lasting = kind == "models" or extra.get("model") in ("chats", "unpooled")
    assert result["final"] is (lasting and status == "failed")


def test_a_candidate_is_checked_with_its_own_secrets(url: str) -> None:
    result = checks.run_check(check("http", url=url, bearer="svc/KEY"), {"svc": "two"})
    assert result["status"] == "failed"
    assert "answered 401" in result["detail"]


@pytest.mark.parametrize(
    ("path", "header", "generation", "status", "detail"),
    [
        ("/v1/models", "bearer", "one", "ok", "answered 200 to the key KEY"),
        ("/v1/models", "bearer", "two", "failed", "refuses the key KEY: answered 401"),
        ("/forbidden", "bearer", "one", "failed", "refuses the key KEY: answered 403"),
        ("/anthropic", "x_api_key", "one", "ok", "answered 200 to the key KEY"),
        ("/anthropic", "x_api_key", "two", "failed", "refuses the key KEY: answered 401"),
        # An outage of a provider is no fault of ours, and says nothing of the key.
        ("/down", "bearer", "two", "skipped", "KEY could not be checked: answered 503"),
    ],
)
def test_a_key_that_is_refused_is_named_and_not_shown(
    url: str, path: str, header: str, generation: str, status: str, detail: str
) -> None:
    result = checks.run_check(
        check("key", url=url + path, **{header: "svc/KEY"}), {"svc": generation}
    )
    assert (result["status"], result["detail"]) == (status, detail)
    assert result["final"] is (status == "failed")
    assert "sk-" not in "\n".join(checks.table([result]))


def test_a_key_cannot_be_tried_where_nobody_answers_and_fails_where_it_is_not(url: str) -> None:
    nobody = check("key", url="http://127.0.0.1:1/v1/models", bearer="svc/KEY")
    result = checks.run_check(nobody)
    assert (result["status"], result["detail"]) == (
        "skipped",
        "KEY could not be checked: connection refused",
    )
    absent = checks.run_check(check("key", url=url, bearer="svc/ABSENT"))
    assert (absent["status"], "svc/ABSENT cannot be read" in absent["detail"]) == ("failed", True)


def test_failures_are_reports_not_exceptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CREDENTIALS", str(tmp_path))
    results = checks.run_checks(
        [
            check("http", url="http://127.0.0.1:1/"),
            check("http", url="http://127.0.0.1:1/", bearer="svc/KEY"),
            check("redis", host="127.0.0.1", port=1, username="u", password="svc/KEY"),
            check("unit", units=["modelyard-absent.service"]),
            check("chat", url="http://127.0.0.1:1/", model="m", skip="left out"),
        ]
    )
    assert [result["status"] for result in results] == [
        "failed",
        "failed",
        "failed",
        "failed",
        "skipped",
    ]
    assert results[0]["detail"] == "connection refused"
    assert results[1]["detail"] == "credential svc/KEY cannot be read: No such file or directory"
    table = "\n".join(checks.table(results))
    assert "0 ok, 4 failed, 1 skipped" in table
    assert table.count("try: look") == 4


def test_no_question_is_asked_twice(url: str) -> None:
    """A gateway that keeps answers would otherwise vouch for an engine that is gone."""
    asked = check("chat", url=url, model="recorded")
    assert [result["status"] for result in checks.run_checks([asked, asked])] == ["ok", "ok"]
    first, second = RECORDED
    assert first != second


@pytest.mark.parametrize("model", DELTAS)
def test_whatever_a_model_generates_counts_as_a_token(url: str, model: str) -> None:
    """`status` called a host not well whose model thought first."""
    found = checks.speed({"model": model, "url": f"{url}/v1/chat/completions"}, 2)
    if model == "nothing":
        assert found["problem"] == "the stream contained no token"
    else:
        assert found["problem"] is None
        assert found["first_token_s"] is not None


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "hi", "reasoning": "hm"}, "hi"),
        ({"content": None, "reasoning_content": "hm"}, "hm"),
        ({"content": "", "reasoning": "hm"}, "hm"),
        ({"content": None, "tool_calls": [CALL]}, ""),
    ],
)
def test_what_a_whole_answer_says(message: dict[str, object], text: str) -> None:
    assert checks.said(message) == text
