"""modelyard_model and a directory; Hugging Face is a stand-in (molecule/vllm/hub.py): killed,
damaged, no room."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils import modelyard_model_directory as snapshot
from ansible.module_utils.modelyard_download import Means

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_planted"
WEIGHTS = os.urandom(3 << 20)
FILES = {
    "config.json": b'{"model_type": "llama"}\n',
    "tokenizer.json": b"{}\n",
    "chat_template.jinja": b"{{ messages }}",
    "model-00001-of-00001.safetensors": WEIGHTS,
    "model.safetensors.index.json": b"{}",
}
LEFT_OUT = {
    "README.md": b"# Read me",
    "pytorch_model.bin": b"a pickle",
    "consolidated.safetensors": b"the same weights again",
    "original/model.safetensors": b"the same weights again",
    "modeling_odd.py": b"import os",
}


def load_hub() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hub", ROOT / "molecule/vllm/hub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hubs = load_hub()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "hub/owner/tiny" / COMMIT
    for name, content in {**FILES, **LEFT_OUT}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def hub(tmp_path: Path, repository: Path) -> Iterator[Any]:
    server = hubs.Hub(tmp_path / "hub")
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def job(hub: Any, tmp_path: Path) -> Callable[..., Any]:
    """Returns a factory of snapshots of the repository; nothing sleeps between attempts."""

    def make(**changes: Any) -> Any:
        values: dict[str, Any] = {
            "endpoint": f"http://127.0.0.1:{hub.server_port}/",
            "repo": "owner/tiny",
            "revision": COMMIT,
            "directory": str(tmp_path / "models"),
        }
        means = {"margin_mib": 0, "attempts": 2, "sleep": lambda seconds: None, **changes}
        changed = {name: means.pop(name) for name in values if name in means}
        return snapshot.Snapshot(**{**values, **changed}, means=Means(**means))

    return make


def contents(directory: str | Path) -> dict[str, bytes]:
    paths = (path for path in Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def test_safe_files_are_fetched_and_others_are_not(job: Callable[..., Any], tmp_path: Path) -> None:
    one = job()
    assert not one.is_there()
    assert one.fetch() == 0
    assert one.path == str(tmp_path / "models/owner--tiny" / COMMIT)
    assert contents(one.path) == FILES
    assert one.is_there()
    assert {path.stat().st_mode & 0o777 for path in Path(one.path).iterdir()} == {0o644}


def test_what_is_there_is_neither_asked_for_nor_read_again(
    job: Callable[..., Any], hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job().fetch()
    hub.seen.clear()
    monkeypatch.setattr(
        snapshot.File, "verify", lambda file, path: pytest.fail("the file was read")
    )
    assert job().is_there()
    assert job().fetch() == 0
    assert hub.seen == []


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"{}")]
)
def test_a_changed_directory_is_fetched_again(
    job: Callable[..., Any], change: Callable[[Path], Any]
) -> None:
    one = job()
    one.fetch()
    change(Path(one.path) / "config.json")
    assert not one.is_there()
    one.fetch()
    assert contents(one.path) == FILES
    assert one.is_there()


def test_a_killed_fetch_is_continued(
    job: Callable[..., Any], hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    whole = hubs.Handler.send_bytes

    def stall(handler: Any, content: bytes, status: int = 200) -> None:
        """Send a part of the weights, and the rest when the test says so: by then nobody
        listens."""
        if len(content) == len(WEIGHTS):
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: 1 << 20])
            handler.wfile.flush()
            released.wait(60)
        else:
            whole(handler, content, status)

    monkeypatch.setattr(hubs.Handler, "send_bytes", stall)
    one = job()
    code = f"""if True:
        import sys
        import ansible.module_utils
        ansible.module_utils.__path__.append({str(ROOT / "plugins/module_utils")!r})
        from ansible.module_utils.modelyard_download import Means
        from ansible.module_utils.modelyard_model_directory import Snapshot
        where = {(one.endpoint, "owner/tiny", COMMIT, str(tmp_path / "models"))!r}
        one = Snapshot(*where, Means(margin_mib=0))
        one.fetch()
    """
    partial = Path(one.partial) / "model-00001-of-00001.safetensors.partial"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size == 1 << 20):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    released.set()
    monkeypatch.undo()
    assert not os.path.exists(one.path), "a half model is visible"
    already = {
        path: os.stat(os.path.join(one.partial, path)).st_mtime_ns
        for path in ("config.json", "chat_template.jinja")
    }
    hub.seen.clear()
    assert one.fetch() >= 1 << 20
    assert contents(one.path) == FILES
    asked = [(path.rpartition("/")[2], wanted) for path, _, wanted in hub.seen]
    assert ("model-00001-of-00001.safetensors", f"bytes={1 << 20}-") in asked
    assert {path: os.stat(os.path.join(one.path, path)).st_mtime_ns for path in already} == already


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00001.safetensors"])
def test_a_damaged_file_is_refused_and_nothing_is_visible(
    job: Callable[..., Any], repository: Path, name: str
) -> None:
    (repository / f"{name}.published").write_bytes(b"x" * len(FILES[name]))
    one = job()
    with pytest.raises(
        snapshot.ModelError, match=rf"{name} has the wrong checksum: the hub publishes"
    ):
        one.fetch()
    assert not os.path.exists(one.path)
    assert name not in contents(one.partial)
    (repository / f"{name}.published").unlink()
    one.fetch()
    assert contents(one.path) == FILES


def test_a_full_disk_is_seen_before_the_first_byte(job: Callable[..., Any], hub: Any) -> None:
    with pytest.raises(
        snapshot.ModelError,
        match=r"3\.0 MiB are still to be fetched and 1\.0 MiB must stay free, but only 3\.5",
    ):
        job(margin_mib=1, free_bytes=lambda path: 7 << 19).fetch()
    assert [path for path, *_ in hub.seen] == [f"/api/models/owner/tiny/revision/{COMMIT}"]


def test_a_token_stays_with_the_hub(job: Callable[..., Any], hub: Any) -> None:
    hub.token = TOKEN
    with pytest.raises(
        snapshot.ModelError,
        match=r"401 Access to model is restricted\. Does it need a token, or does",
    ):
        job().fetch()
    hub.seen.clear()
    job(token=TOKEN).fetch()
    sent = {(path.startswith("/content/"), token) for path, token, _ in hub.seen}
    assert sent == {(False, f"Bearer {TOKEN}"), (True, None)}


def test_a_repository_without_safe_weights_is_refused(
    job: Callable[..., Any], repository: Path
) -> None:
    for path in (*repository.rglob("*.safetensors"),):
        path.unlink()
    with pytest.raises(
        snapshot.ModelError,
        match=r"owner/tiny at .*: the repository has no weights in the safetensors",
    ):
        job().fetch()


@pytest.mark.parametrize(
    "described",
    [
        {"rfilename": "config.json"},
        {"rfilename": "model.safetensors", "blobId": COMMIT, "lfs": {"size": 3}},
    ],
)
def test_a_file_without_a_published_checksum_is_refused(described: dict[str, Any]) -> None:
    with pytest.raises(snapshot.ModelError, match="the hub publishes no checksum of"):
        snapshot.File(described)


def test_names_cannot_lead_elsewhere() -> None:
    names = ["../config.json", "/etc/config.json", "a/../../config.json", "model.safetensors"]
    assert snapshot.wanted(names) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": "main"}, "revision must be a commit"),
        ({"repo": "tiny"}, "repo must be OWNER/NAME"),
    ],
)
def test_what_names_no_one_commit_is_refused(
    job: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(snapshot.ModelError, match=message):
        job(**changes)


def test_an_unknown_commit(job: Callable[..., Any]) -> None:
    with pytest.raises(snapshot.ModelError, match="it answered 404"):
        job(revision="f" * 40).fetch()


def test_something_else_than_a_hub(
    job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs.Handler, "siblings", lambda handler, directory: "none")
    with pytest.raises(snapshot.ModelError, match="does not answer like a model hub"):
        job().fetch()


def test_a_directory_on_the_host_is_accepted_as_it_is(repository: Path) -> None:
    found = snapshot.local_directory(str(repository), None)
    assert found["path"] == str(repository)
    assert found["files"] == [str(repository)]
    assert found["fingerprint"] == snapshot.local_directory(str(repository), None)["fingerprint"]
    os.utime(repository / "tokenizer.json", ns=(0, 0))
    assert found["fingerprint"] != snapshot.local_directory(str(repository), None)["fingerprint"]


def test_a_cache_of_links_is_shown_with_what_they_lead_to(repository: Path, tmp_path: Path) -> None:
    blobs, links = tmp_path / "cache/blobs", tmp_path / "cache/snapshots"
    blobs.mkdir(parents=True)
    links.mkdir()
    (repository / "config.json").rename(blobs / "abc")
    (links / "config.json").symlink_to("../blobs/abc")
    assert snapshot.local_directory(str(links), None)["files"] == [str(links), str(blobs / "abc")]


def test_what_is_no_model_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        snapshot.ModelError,
        match=r"is not on this host\. Copy it there, correct `path`, or set `repo`",
    ):
        snapshot.local_directory(str(tmp_path / "none"), None)
    with pytest.raises(snapshot.ModelError, match="holds neither a model nor an adapter"):
        snapshot.local_directory(str(tmp_path), None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees files that others may not read")
def test_a_directory_that_the_service_may_not_read_is_refused(repository: Path) -> None:
    (repository / "tokenizer.json").chmod(0o600)
    with pytest.raises(
        snapshot.ModelError,
        match=r"tokenizer\.json is not readable by nobody\. Run: chmod -R o\+rX",
    ):
        snapshot.local_directory(str(repository), "nobody")
    (repository / "tokenizer.json").chmod(0o644)
    assert snapshot.local_directory(str(repository), "nobody")["path"] == str(repository)
    repository.chmod(0o744)
    with pytest.raises(snapshot.ModelError, match="is not readable by nobody"):
        snapshot.local_directory(str(repository), "nobody")
