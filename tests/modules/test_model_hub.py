"""modelyard_model and a hub of models.

Hugging Face is a stand-in here: two HTTP servers, one that answers `resolve` as the hub does (a
redirect whose headers name the file's checksum), and one in the place of its content network, which
is another host to a client.
"""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.module_utils import modelyard_model_file as model
from ansible.module_utils.modelyard_download import Means

MODEL = b"GGUF" + bytes(range(256)) * 4096
SHA256 = hashlib.sha256(MODEL).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = f"/owner/tiny-GGUF/resolve/{COMMIT}/Q4%20K/tiny-q4.gguf"
TOKEN = "hf_planted"


class Server(http.server.ThreadingHTTPServer):
    """A stand-in's server: what it got, and what it is to do."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler], host: str) -> None:
        super().__init__((host, 0), handler)
        self.address = f"http://{host}:{self.server_port}"
        self.seen: list[tuple[str, str, str | None, str | None]] = []
        self.failures: list[int] = []
        self.cut_after: list[int] = []
        self.etag: str | None = f'"{SHA256}"'
        self.moved_from = ""
        self.gated = False
        self.content = ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client's hanging up is part of the tests."""


class Stub(http.server.BaseHTTPRequestHandler):
    server: Server
    body: ClassVar[bytes] = MODEL

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def note(self) -> None:
        headers = self.headers
        self.server.seen.append(
            (self.command, self.path, headers.get("Authorization"), headers.get("Range"))
        )

    def reply(self, status: int, **headers: str | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class HubStub(Stub):
    """The hub: renamed repositories answer with a redirect to itself, files with one to the content
    network."""

    def answer(self) -> None:
        self.note()
        server = self.server
        if server.failures:
            return self.reply(server.failures.pop(0))
        if server.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(
                401, X_Error_Code="GatedRepo", X_Error_Message="Access to model is restricted."
            )
        if server.moved_from and self.path.startswith(server.moved_from):
            return self.reply(307, Location=self.path.replace(server.moved_from, "/owner/", 1))
        if self.path != PATH:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        return self.reply(
            302,
            Location=f"{server.content}/blob?signed=1",
            X_Linked_ETag=server.etag,
            ETag='"not-the-checksum"',
        )

    do_GET = do_HEAD = answer  # noqa: N815 (the names are http.server's)


class ContentStub(Stub):
    """The content network: knows ranges, and can hang up after some bytes."""

    def do_GET(self) -> None:
        self.note()
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        body = self.body[start:]
        self.wfile.write(body[: self.server.cut_after.pop(0)] if self.server.cut_after else body)


@pytest.fixture
def content() -> Iterator[Server]:
    yield from running(Server(ContentStub, "127.0.0.2"))


@pytest.fixture
def hub(content: Server) -> Iterator[Server]:
    server = Server(HubStub, "127.0.0.1")
    server.content = content.address
    yield from running(server)


def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(hub: Server, tmp_path: Path) -> Callable[..., Any]:
    """Does what the module does with a repository; nothing sleeps between attempts."""

    def run(
        repo: str = "owner/tiny-GGUF",
        file: str = "Q4 K/tiny-q4.gguf",
        sha256: str = "",
        token: str = "",
        **more: Any,
    ) -> Any:
        means = {
            "margin_mib": 0,
            "attempts": 2,
            "token": token or None,
            "sleep": lambda seconds: None,
            **more,
        }
        source = model.Hub(hub.address, repo, COMMIT, file, Means(**{**means, "attempts": 3}))
        directory = str(tmp_path / "models")
        sha256 = sha256 or source.published_sha256(directory, False)
        job = model.Download(source.url, sha256, directory, Means(**means))
        job.resumed_from = job.fetch()
        return job

    return run


def test_the_checksum_is_the_hubs_and_is_asked_once(
    fetch: Callable[..., Any], hub: Server, content: Server, tmp_path: Path
) -> None:
    job = fetch()
    assert Path(job.path).read_bytes() == MODEL
    assert job.path.endswith(f"/{SHA256[:16]}/tiny-q4.gguf")
    assert [command for command, *_ in hub.seen] == ["HEAD", "GET"]
    # The file itself was asked for once: the checksum comes without it.
    assert [path for _, path, *_ in content.seen] == ["/blob?signed=1"]
    fetch()
    assert len(hub.seen) == 2, "a commit's file does not change, so nothing has to be asked again"


def test_check_mode_asks_and_keeps_nothing(hub: Server, tmp_path: Path) -> None:
    source = model.Hub(f"{hub.address}/", "owner/tiny-GGUF", COMMIT, "Q4 K/tiny-q4.gguf", Means())
    assert source.published_sha256(str(tmp_path / "models"), True) == SHA256
    assert list(tmp_path.iterdir()) == []


def test_a_token_stays_with_the_hub(
    fetch: Callable[..., Any], hub: Server, content: Server
) -> None:
    hub.gated = True
    fetch(token=TOKEN)
    assert [authorization for _, _, authorization, _ in hub.seen] == [f"Bearer {TOKEN}"] * 2
    assert [authorization for _, _, authorization, _ in content.seen] == [None]


def test_a_renamed_repository_is_followed_with_the_token(
    fetch: Callable[..., Any], hub: Server, content: Server
) -> None:
    hub.gated, hub.moved_from = True, "/former/"
    job = fetch(repo="former/tiny-GGUF", token=TOKEN)
    assert Path(job.path).read_bytes() == MODEL
    assert {authorization for _, _, authorization, _ in hub.seen} == {f"Bearer {TOKEN}"}
    assert [authorization for _, _, authorization, _ in content.seen] == [None]


def test_a_repository_that_wants_a_token_says_so(fetch: Callable[..., Any], hub: Server) -> None:
    hub.gated = True
    for sha256 in ("", SHA256):
        with pytest.raises(
            model.ModelError, match=r"401 Access to model is restricted\. Does it need a token"
        ):
            fetch(sha256=sha256)


def test_a_file_that_is_not_there(fetch: Callable[..., Any]) -> None:
    with pytest.raises(model.ModelError, match=r"it answered 404 Entry not found$"):
        fetch(file="other.gguf")


@pytest.mark.parametrize("etag", [None, '"d41d8cd98f00b204e9800998ecf8427e"', f'"{COMMIT}"'])
def test_without_a_published_checksum_nothing_is_fetched(
    fetch: Callable[..., Any], hub: Server, content: Server, etag: str | None
) -> None:
    hub.etag = etag
    with pytest.raises(
        model.ModelError, match=r"the hub publishes no checksum of this file\. Set `sha256`"
    ):
        fetch()
    assert content.seen == []
    assert Path(fetch(sha256=SHA256).path).read_bytes() == MODEL


def test_another_file_than_the_published_one_is_refused(
    fetch: Callable[..., Any], hub: Server
) -> None:
    hub.etag = f'"{"0" * 64}"'
    with pytest.raises(
        model.ModelError, match=f"wrong checksum: expected {'0' * 64}, found {SHA256}"
    ):
        fetch()


def test_a_killed_fetch_is_resumed_through_a_new_redirect(
    fetch: Callable[..., Any], hub: Server, content: Server
) -> None:
    content.cut_after = [300_000, 0, 0]
    with pytest.raises(
        model.ModelError, match=r"are kept in .*tiny-q4\.gguf\.partial; run again to continue"
    ):
        fetch()
    hub.seen.clear()
    job = fetch(token=TOKEN)
    assert job.resumed_from == 300_000
    assert Path(job.path).read_bytes() == MODEL
    # Addresses of the content network expire, so the hub is asked for another one.
    assert [(command, offset) for command, _, _, offset in hub.seen] == [("GET", "bytes=300000-")]
    assert content.seen[-1][2:] == (None, "bytes=300000-")


def test_a_disk_that_is_too_small(fetch: Callable[..., Any], content: Server) -> None:
    with pytest.raises(
        model.ModelError,
        match=(
            r"1\.0 MiB are still to be fetched and 2\.0 MiB must stay free, but only 2\.5 MiB are"
            r" free"
        ),
    ):
        fetch(margin_mib=2, free_bytes=lambda path: 5 << 19)


def test_a_busy_hub_is_asked_again(fetch: Callable[..., Any], hub: Server) -> None:
    hub.failures = [503, 429]
    assert Path(fetch().path).read_bytes() == MODEL


def test_a_hub_that_is_away(fetch: Callable[..., Any], hub: Server) -> None:
    hub.failures = [500, 500, 500]
    with pytest.raises(
        model.ModelError, match=r"cannot get the checksum of .*: the server answered 500"
    ):
        fetch()


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("owner/tiny", "main", "revision must be a commit .40 hexadecimal digits., not 'main'"),
        ("owner/tiny", COMMIT[:12], "revision must be a commit"),
        ("tiny", COMMIT, "repo must be OWNER/NAME, not 'tiny'"),
        ("https://huggingface.co/owner/tiny", COMMIT, "repo must be OWNER/NAME"),
    ],
)
def test_what_names_no_one_file_is_refused(repo: str, revision: str, message: str) -> None:
    with pytest.raises(model.ModelError, match=message):
        model.Hub("https://huggingface.co", repo, revision, "tiny.gguf", Means())
