"""modelyard_model against a real HTTP server: broken lines, a full disk, wrong files."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import modelyard_model_file as model
from ansible.module_utils.modelyard_download import Means

MODEL = b"GGUF" + os.urandom(3 << 20)
SHA256 = hashlib.sha256(MODEL).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; knows ranges or not, and can hang up after some bytes."""

    body = MODEL
    ranges = True
    cut_after: list[
        int
    ]  # bytes sent by the first, second ... request; later ones are answered in full
    failures: list[int]  # statuses of the first requests
    seen: list[str | None]  # the Range header of every request

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client's hanging up is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.seen.append(wanted)
        if server.failures:
            self.send_error(server.failures.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}"
            )
        body = server.body[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.cut_after, found.failures, found.seen = [], [], []
    thread = threading.Thread(
        target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def download(server: Server, tmp_path: Path) -> Callable[..., Any]:
    """Returns a factory of downloads from the server; nothing sleeps between attempts."""

    def make(**changes: Any) -> Any:
        values: dict[str, Any] = {
            "url": f"http://127.0.0.1:{server.server_port}/dir/tiny.gguf?download=true",
            "sha256": SHA256,
            "directory": str(tmp_path / "models"),
        }
        means = {"margin_mib": 0, "sleep": lambda seconds: None, **changes}
        changed = {name: means.pop(name) for name in values if name in means}
        return model.Download(**{**values, **changed}, means=Means(**means))

    return make


def leftovers(job: Any) -> list[str]:
    return sorted(name for name in os.listdir(job.home) if name != ".lock")


def test_a_model_is_fetched_verified_and_recorded(
    download: Callable[..., Any], server: Server
) -> None:
    job = download()
    assert not job.is_there()
    assert job.fetch() == 0
    assert Path(job.path).read_bytes() == MODEL
    assert Path(job.path).name == "tiny.gguf"
    assert Path(job.path).stat().st_mode & 0o777 == 0o644
    assert job.is_there()
    assert leftovers(job) == ["tiny.gguf", "tiny.gguf.verified"]
    assert server.seen == [None]


def test_a_verified_model_is_not_hashed_again(
    download: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    download().fetch()
    monkeypatch.setattr(model, "sha256_of", lambda path: pytest.fail("the file was read"))
    assert download().is_there()


def test_a_changed_model_is_fetched_again(download: Callable[..., Any]) -> None:
    job = download()
    job.fetch()
    Path(job.path).write_bytes(b"GGUF and something else")
    assert not job.is_there()
    job.fetch()
    assert Path(job.path).read_bytes() == MODEL


def test_a_broken_connection_is_continued_where_it_broke(
    download: Callable[..., Any], server: Server
) -> None:
    server.cut_after = [1_000_000, 500_000]
    job = download()
    job.fetch()
    assert Path(job.path).read_bytes() == MODEL
    assert server.seen == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_later_run_continues_the_partial_file(
    download: Callable[..., Any], server: Server
) -> None:
    server.cut_after = [1_000_000, 0, 0]
    with pytest.raises(
        model.ModelError, match=r"are kept in .*tiny\.gguf\.partial; run again to continue"
    ):
        download(attempts=2).fetch()
    job = download()
    assert leftovers(job) == ["tiny.gguf.partial"]
    assert job.fetch() == 1_000_000
    assert server.seen[-1] == "bytes=1000000-"
    assert Path(job.path).read_bytes() == MODEL


def test_a_server_without_ranges_sends_it_all_again(
    download: Callable[..., Any], server: Server
) -> None:
    server.ranges = False
    server.cut_after = [1_000_000]
    job = download()
    job.fetch()
    assert Path(job.path).read_bytes() == MODEL


def test_a_complete_partial_file_needs_no_more_bytes(
    download: Callable[..., Any], server: Server
) -> None:
    job = download()
    os.makedirs(job.home)
    Path(job.partial).write_bytes(MODEL)
    assert job.fetch() == len(MODEL)
    assert Path(job.path).read_bytes() == MODEL


@pytest.mark.parametrize(
    "partial", [b"GGUF" + bytes(1 << 20), bytes(4 << 20)], ids=["other bytes", "too long"]
)
def test_a_partial_file_of_another_model_is_thrown_away(
    download: Callable[..., Any], server: Server, partial: bytes
) -> None:
    job = download()
    os.makedirs(job.home)
    Path(job.partial).write_bytes(partial)
    job.fetch()
    assert Path(job.path).read_bytes() == MODEL
    assert server.seen[-1] is None


def test_a_wrong_checksum_leaves_no_model(download: Callable[..., Any]) -> None:
    job = download(sha256="0" * 64)
    with pytest.raises(
        model.ModelError, match=f"wrong checksum: expected {'0' * 64}, found {SHA256}"
    ):
        job.fetch()
    assert leftovers(job) == []


def test_what_is_no_gguf_file_is_refused(download: Callable[..., Any], server: Server) -> None:
    server.body = b"<html>Please log in</html>"
    job = download(sha256=hashlib.sha256(server.body).hexdigest())
    with pytest.raises(model.ModelError, match="is not a GGUF file"):
        job.fetch()
    assert leftovers(job) == []


def test_a_full_disk_is_seen_before_the_first_byte(download: Callable[..., Any]) -> None:
    job = download(margin_mib=1, free_bytes=lambda path: 4 << 20)
    with pytest.raises(
        model.ModelError,
        match=(
            r"3\.0 MiB are still to be fetched and 1\.0 MiB must stay free, but only 4\.0 MiB are"
            r" free"
        ),
    ):
        job.fetch()
    assert leftovers(job) == []


def test_what_is_there_already_needs_no_space_again(download: Callable[..., Any]) -> None:
    job = download(margin_mib=1, free_bytes=lambda path: (2 << 20) + 4)
    os.makedirs(job.home)
    Path(job.partial).write_bytes(MODEL[: 2 << 20])
    job.fetch()
    assert Path(job.path).read_bytes() == MODEL


def test_a_busy_server_is_asked_again(download: Callable[..., Any], server: Server) -> None:
    server.failures = [503, 429]
    job = download()
    job.fetch()
    assert job.is_there()


def test_a_missing_file_is_not_asked_for_again(
    download: Callable[..., Any], server: Server
) -> None:
    server.failures = [404, 404]
    with pytest.raises(model.ModelError, match="it answered 404"):
        download().fetch()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://x/", "does not end in a plain file name"),
        ("http://x/a%2f..%2fb c.gguf", "does not end in a plain file name"),
        ("http://x/big-00001-of-00002.gguf", "one part of a split model"),
        ("file:///etc/passwd", "is not an http.s. address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(model.ModelError, match=message):
        model.Download(url, SHA256, "/nowhere", Means())


def local(path: Path, sha256: str | None = None, reader: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = model.local_file(
        str(path), sha256, reader, str(path.parent / "state"), False
    )
    return found


def test_a_file_on_the_host_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    found = local(path)
    assert found["changed"] is False
    assert found["files"] == [str(path)]
    assert found["fingerprint"] == local(path)["fingerprint"]
    path.write_bytes(MODEL + b"more")
    assert found["fingerprint"] != local(path)["fingerprint"]


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        model.ModelError,
        match=r"a\.gguf is not on this host\. Copy it there, correct `path`, or set",
    ):
        local(tmp_path / "a.gguf")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(model.ModelError, match="is not a GGUF file"):
        local(tmp_path / "a.gguf")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees files that others may not read")
def test_a_file_that_the_service_may_not_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    path.chmod(0o600)
    with pytest.raises(model.ModelError, match=r"not readable by nobody\. Run: chmod o\+r"):
        local(path, reader="nobody")
    path.chmod(0o644)
    assert local(path, reader="nobody")["path"] == str(path)
    assert local(path, reader="there-is-no-such-user")["path"] == str(path)


def test_the_checksum_of_a_file_on_the_host_is_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    with pytest.raises(model.ModelError, match="wrong checksum"):
        local(path, sha256="0" * 64)
    local(path, sha256=SHA256)
    monkeypatch.setattr(model, "sha256_of", lambda path: pytest.fail("the file was read"))
    assert local(path, sha256=SHA256)["fingerprint"] == SHA256


def test_all_parts_of_a_split_model_must_be_there(tmp_path: Path) -> None:
    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    first.write_bytes(MODEL)
    with pytest.raises(
        model.ModelError, match=r"m-00002-of-00002\.gguf is not on this host \(part of"
    ):
        local(first)
    second.write_bytes(MODEL)
    assert local(first)["files"] == [str(first), str(second)]
    with pytest.raises(model.ModelError, match="name its first part"):
        local(second)
