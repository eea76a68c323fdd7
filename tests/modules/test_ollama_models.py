"""modelyard_ollama_models against a stand-in for Ollama's HTTP interface; molecule/ollama does it
with the real one."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelyard_ollama_models as ollama
import pytest
from ansible.module_utils.modelyard_ollama_pull import Pull
from ansible.module_utils.modelyard_ollama_server import (
    OllamaError,
    Server,
    display_name,
    manifest_url,
    remote_name,
)

GGUF = b"GGUF of a test"
DIGEST = f"sha256:{hashlib.sha256(GGUF).hexdigest()}"


class StandIn(http.server.ThreadingHTTPServer):
    """Keeps models as {name: digest}; what a pull says is scripted, attempt by attempt."""

    models: dict[str, str]
    pulls: list[list[dict[str, Any]]]
    manifest: dict[str, Any] | None
    seen: list[tuple[str, str, Any]]
    blobs: set[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client's hanging up is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        body = json.loads(raw) if raw and not self.path.startswith("/api/blobs/") else None
        self.server.seen.append((self.command, self.path, body))
        status, lines = self.answer(body)
        self.send_response(status)
        self.end_headers()
        if self.command != "HEAD":
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")

    def do_GET(self) -> None:
        self.handle_one()

    def do_HEAD(self) -> None:
        self.handle_one()

    def do_POST(self) -> None:
        self.handle_one()

    def do_DELETE(self) -> None:
        self.handle_one()

    def answer(self, body: Any) -> tuple[int, list[dict[str, Any]]]:
        models = self.server.models
        if self.path.startswith("/v2/"):
            return (200, [self.server.manifest]) if self.server.manifest else (404, [{}])
        if self.path == "/api/tags":
            return 200, [
                {"models": [{"name": name, "digest": digest} for name, digest in models.items()]}
            ]
        if self.path.startswith("/api/blobs/"):
            digest = self.path.removeprefix("/api/blobs/")
            known = digest in self.server.blobs
            self.server.blobs |= {digest} if self.command == "POST" else set()
            return (200 if known or self.command == "POST" else 404), []
        if self.path == "/api/delete":
            return (200 if models.pop(display_name(body["model"]), None) else 404), [{}]
        if self.path == "/api/copy":
            models[display_name(body["destination"])] = models[display_name(body["source"])]
            return 200, [{}]
        lines = (
            self.server.pulls.pop(0)
            if self.path == "/api/pull" and self.server.pulls
            else [{"status": "success"}]
        )
        if "error" not in lines[-1]:
            models[display_name(body["model"])] = hashlib.sha256(
                json.dumps(body).encode()
            ).hexdigest()
        return 200, lines


@pytest.fixture
def server() -> Iterator[StandIn]:
    found = StandIn(("127.0.0.1", 0), Handler)
    found.models, found.pulls, found.manifest, found.seen, found.blobs = {}, [], None, [], set()
    thread = threading.Thread(
        target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def options(server: StandIn, tmp_path: Path) -> dict[str, Any]:
    """Options of the module; registry and server are the same stand-in."""
    (tmp_path / "models").mkdir()
    address = f"127.0.0.1:{server.server_port}"
    return {
        "url": f"http://{address}",
        "models": [{"served_name": "tiny"}],
        "files": {},
        "models_path": str(tmp_path / "models"),
        "record": str(tmp_path / "state/record.json"),
        "registry": address,
        "insecure": True,
        "prune": False,
        "margin_mib": 0,
        "attempts": 1,
        "stall_s": 60,
    }


def have(options: dict[str, Any], check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    return ollama.run({**options, **changes}, check_mode, lambda line: None)


def asked(server: StandIn, *paths: str) -> list[tuple[str, Any]]:
    """What was asked for at these paths since the last look."""
    found = [(path, body) for _, path, body in server.seen if path in paths]
    server.seen.clear()
    return found


@pytest.mark.parametrize(
    ("name", "shown", "pulled", "manifest"),
    [
        ("tiny", "tiny:latest", "r:5/library/tiny", "library/tiny/manifests/latest"),
        ("tiny:7b", "tiny:7b", "r:5/library/tiny:7b", "library/tiny/manifests/7b"),
        ("me/tiny:7b", "me/tiny:7b", "r:5/me/tiny:7b", "me/tiny/manifests/7b"),
        ("library/tiny", "tiny:latest", "r:5/library/tiny", "library/tiny/manifests/latest"),
        ("registry.ollama.ai/library/tiny", "tiny:latest", "registry.ollama.ai/library/tiny", None),
        ("hf.co/me/tiny:Q4", "hf.co/me/tiny:Q4", "hf.co/me/tiny:Q4", None),
    ],
)
def test_names(name: str, shown: str, pulled: str, manifest: str | None) -> None:
    assert display_name(name) == shown
    assert remote_name(name, None) == name
    assert remote_name(name, "r:5") == pulled
    if manifest:
        assert manifest_url(pulled, insecure=True) == f"http://r:5/v2/{manifest}"
        assert manifest_url(name, insecure=False) == f"https://registry.ollama.ai/v2/{manifest}"


def test_a_missing_model_is_pulled_once_and_has_its_own_name(
    options: dict[str, Any], server: StandIn
) -> None:
    assert have(options, check_mode=True)["pulled"] == ["tiny"]
    assert server.models == {}
    result = have(options)
    assert result["changed"]
    assert (result["pulled"], result["created"], result["removed"]) == (["tiny"], [], [])
    assert list(server.models) == ["tiny:latest"]
    assert result["diff"]["after"] == "tiny:latest\n"
    for check_mode in (True, False):
        again = have(options, check_mode)
        assert not again["changed"]
        assert again["diff"]["before"] == again["diff"]["after"]


def test_upper_case_does_not_make_another_model(options: dict[str, Any], server: StandIn) -> None:
    server.models["Tiny:Latest"] = "d"
    assert not have(options)["changed"]


def test_parameters_are_applied_and_taken_away(options: dict[str, Any], server: StandIn) -> None:
    tuned = [{"served_name": "tiny", "context_length": 512, "parameters": {"stop": ["."]}}]
    assert have(options, models=tuned)["pulled"] == ["tiny"]
    wanted = {"num_ctx": 512, "stop": ["."]}
    assert asked(server, "/api/create") == [
        ("/api/create", {"model": "tiny", "parameters": wanted, "from": "tiny"})
    ]
    assert not have(options, models=tuned)["changed"]
    # Another value needs no registry, one parameter less does.
    other = [{"served_name": "tiny", "context_length": 256, "parameters": {"stop": ["."]}}]
    asked(server)
    assert have(options, models=other)["created"] == ["tiny"]
    assert [path for path, _ in asked(server, "/api/pull", "/api/create")] == ["/api/create"]
    less = [{"served_name": "tiny", "context_length": 256, "parameters": {}}]
    assert have(options, models=less)["pulled"] == ["tiny"]
    assert [path for path, _ in asked(server, "/api/pull", "/api/create")] == [
        "/api/pull",
        "/api/create",
    ]
    assert not have(options, models=less)["changed"]
    assert have(options)["pulled"] == ["tiny"]
    assert [path for path, _ in asked(server, "/api/pull", "/api/create")] == ["/api/pull"]


def test_what_somebody_changed_by_hand_gets_its_parameters_back(
    options: dict[str, Any], server: StandIn
) -> None:
    tuned = [{"served_name": "tiny", "context_length": 512}]
    have(options, models=tuned)
    server.models["tiny:latest"] = "another"
    assert have(options, models=tuned, check_mode=True)["created"] == ["tiny"]
    assert have(options, models=tuned)["created"] == ["tiny"]
    assert not have(options, models=tuned)["changed"]


def test_a_file_becomes_a_model_and_another_file_another_one(
    options: dict[str, Any], server: StandIn, tmp_path: Path
) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(GGUF)
    files = {"own": {"path": str(path), "fingerprint": "14 1"}}
    models = [{"served_name": "own"}]
    assert have(options, models=models, files=files)["created"] == ["own"]
    assert server.blobs == {DIGEST}
    body = {"model": "own", "parameters": {}, "files": {"own.gguf": DIGEST}}
    assert asked(server, "/api/create") == [("/api/create", body)]
    assert not have(options, models=models, files=files)["changed"]
    # The file was touched: the server has its content already, and the former version's name goes.
    asked(server)
    assert have(options, models=models, files={"own": {"path": str(path), "fingerprint": "14 2"}})[
        "created"
    ] == ["own"]
    assert not [
        entry for entry in server.seen if entry[0] == "POST" and entry[1].startswith("/api/blobs/")
    ]
    assert list(server.models) == ["own:latest"]
    # The same name without a file: from the registry.
    assert have(options, models=models)["pulled"] == ["own"]


def test_a_split_file_is_refused(options: dict[str, Any]) -> None:
    file = {"path": "/a-00001-of-00002.gguf", "fingerprint": "x", "files": ["/a", "/b"]}
    with pytest.raises(OllamaError, match="Merge it with llama-gguf-split"):
        have(options, files={"tiny": file})


def test_others_stay_unless_pruning_was_asked_for(options: dict[str, Any], server: StandIn) -> None:
    server.models |= {"tiny:latest": "d", "by-hand:latest": "e"}
    result = have(options)
    assert not result["changed"]
    assert result["unknown"] == ["by-hand:latest"]
    assert have(options, prune=True, check_mode=True)["removed"] == ["by-hand:latest"]
    assert "by-hand:latest" in server.models
    result = have(options, prune=True)
    assert (result["changed"], result["removed"], result["unknown"]) == (
        True,
        ["by-hand:latest"],
        [],
    )
    assert list(server.models) == ["tiny:latest"]


def test_what_an_interrupted_run_left_goes_without_being_asked(
    options: dict[str, Any], server: StandIn
) -> None:
    remote = f"{options['registry']}/library/tiny:latest"
    server.models |= {"tiny:latest": "d", remote: "d", ollama.SUPERSEDED: "c"}
    assert sorted(have(options)["removed"]) == sorted([remote, ollama.SUPERSEDED])
    assert list(server.models) == ["tiny:latest"]


def pulling(completed: int, total: int = 100) -> dict[str, Any]:
    return {"status": "pulling 00", "digest": "sha256:00", "completed": completed, "total": total}


def pull(options: dict[str, Any], **changes: Any) -> list[str]:
    """Pull once; returns what was noted."""
    lines: list[str] = []
    server = Server(options["url"])
    Pull(server, "tiny", {**options, **changes}, lines.append, lambda seconds: None).run()
    return lines


def test_a_pull_that_breaks_off_is_tried_again(options: dict[str, Any], server: StandIn) -> None:
    server.pulls = [
        [pulling(10), {"error": "max retries exceeded: unexpected EOF"}],
        [pulling(20)],
        [pulling(30), {"error": "dial tcp: connection refused"}],
        [pulling(100), {"status": "success"}],
    ]
    assert [line.split(", retrying")[0] for line in pull(options)] == [
        "tiny: max retries exceeded: unexpected EOF",
        "tiny: Ollama ended the pull without an error message",
        "tiny: dial tcp: connection refused",
    ]


def test_attempts_without_data_come_to_an_end(options: dict[str, Any], server: StandIn) -> None:
    server.pulls = [[pulling(10 << 20, 20 << 20), {"error": "x"}]] + [[{"error": "refused"}]] * 3
    with pytest.raises(
        OllamaError,
        match=(
            r"tiny could not be pulled: refused\. 10\.0 MiB of 20\.0 MiB are kept in the model"
            r" store; run again"
        ),
    ):
        pull(options, attempts=3)
    assert server.pulls == []


def test_a_pull_that_stalls_counts_as_failed(options: dict[str, Any], server: StandIn) -> None:
    server.pulls = [[pulling(10)] + [pulling(10)] * 3, [pulling(10)] * 3]
    with pytest.raises(OllamaError, match="no data for 0 s"):
        pull(options, stall_s=0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "pull model manifest: file does not exist",
            "the registry does not have it. Correct its name or tag",
        ),
        ("write /srv/models/blobs/x: no space left on device", "no space left on device"),
        ("pull model manifest: 412: requires a newer version of Ollama", "newer version"),
    ],
)
def test_what_cannot_get_better_is_not_tried_again(
    options: dict[str, Any], server: StandIn, said: str, message: str
) -> None:
    server.pulls = [[{"error": said}], [{"status": "success"}]]
    with pytest.raises(OllamaError, match=message):
        pull(options, attempts=5)
    assert len(server.pulls) == 1


def test_a_full_disk_is_seen_before_the_pull(
    options: dict[str, Any], server: StandIn, tmp_path: Path
) -> None:
    layer = {"digest": "sha256:00", "size": 1 << 60}
    server.manifest = {"layers": [layer], "config": {"digest": "sha256:01", "size": 10}}
    with pytest.raises(
        OllamaError, match=r"not enough space for .*/tiny in .*: 1073741824\.0 GiB are still"
    ):
        have(options)
    assert not asked(server, "/api/pull")
    # What has arrived already does not count; a partial file has holes.
    server.manifest["layers"][0]["size"] = 8192
    (tmp_path / "models/blobs").mkdir()
    with (tmp_path / "models/blobs/sha256-00-partial").open("wb") as partial:
        partial.write(b"x" * 8192)
        partial.flush()
        os.fsync(partial.fileno())  # its blocks count, which some file systems give out late
    missing = ollama.Models(options, lambda line: None)._missing(
        f"{options['registry']}/library/tiny"
    )
    assert missing == 10


def test_a_server_that_does_not_run_is_an_error_but_for_check_mode(options: dict[str, Any]) -> None:
    closed = {**options, "url": "http://127.0.0.1:1"}
    with pytest.raises(OSError, match="refused"):
        have(closed)
    result = have(closed, check_mode=True)
    assert (result["changed"], result["pulled"]) == (True, ["tiny"])
    assert result["unchecked"] == [
        "the models of Ollama at http://127.0.0.1:1, which does not run yet"
    ]
