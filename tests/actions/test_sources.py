"""Sources of builds: nothing unchecked, nothing half-written, nothing fetched twice."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.controller import sources

CONTENT = b"source code"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file and counts how often."""

    served = 0

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve the file, or 404."""
        type(self).served += 1
        self.send_response(200 if self.path == "/src" else 404)
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/src" else b"")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real server, and an empty cache."""
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    Files.served = 0
    server = http.server.HTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_checked_and_kept(url: str) -> None:
    source = {"url": f"{url}/src", "sha256": SHA256}
    assert sources.fetch(source).read_bytes() == CONTENT
    assert sources.fetch(source).read_bytes() == CONTENT
    assert Files.served == 1


def test_a_wrong_checksum_leaves_nothing_behind(url: str, tmp_path: Path) -> None:
    with pytest.raises(sources.SourceError, match=f"checksum mismatch: found {SHA256}, pinned 00"):
        sources.fetch({"url": f"{url}/src", "sha256": "00"})
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_a_download_that_fails_names_its_address(url: str) -> None:
    with pytest.raises(sources.SourceError, match=r"/absent.*404.*set another source"):
        sources.fetch({"url": f"{url}/absent", "sha256": SHA256})


def test_a_download_without_a_checksum_is_refused() -> None:
    with pytest.raises(sources.SourceError, match="needs sha256"):
        sources.fetch({"url": "http://127.0.0.1:1/src"})


def test_a_local_file_is_its_content(tmp_path: Path) -> None:
    path = tmp_path / "src"
    path.write_bytes(CONTENT)
    assert sources.identity({"path": str(path)}) == SHA256
    with pytest.raises(sources.SourceError, match="checksum mismatch: found"):
        sources.fetch({"path": str(path), "sha256": "00"})
    with pytest.raises(sources.SourceError, match="no such file"):
        sources.identity({"path": str(tmp_path / "absent")})
