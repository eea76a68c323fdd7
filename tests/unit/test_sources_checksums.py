"""Checksums that a release publishes: asked for once, recorded beside the inventory, never
invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.controller.sources import SourceError, fetch, sha256_of, with_checksum


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release: an archive, and its file of checksums as Ollama writes it."""
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "release").mkdir()
    archive = tmp_path / "release/engine-linux-amd64.tar.zst"
    archive.write_bytes(b"an archive")
    lines = [f"{'0' * 64}  ./engine-darwin.tgz", f"{sha256_of(archive)}  ./{archive.name}"]
    (tmp_path / "release/sha256sum.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "release"


@pytest.fixture
def source(release: Path) -> dict[str, str]:
    url = (release / "engine-linux-amd64.tar.zst").as_uri()
    return {"name": "archive", "url": url, "checksums": (release / "sha256sum.txt").as_uri()}


def test_it_is_asked_for_once_and_recorded(
    source: dict[str, str], release: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "checksums.txt"
    pinned, note = with_checksum(source, lock)
    assert pinned == {
        "name": "archive",
        "url": source["url"],
        "sha256": sha256_of(release / "engine-linux-amd64.tar.zst"),
    }
    assert note.startswith(f"checksum of {source['url']} recorded in {lock}: {pinned['sha256']}")
    assert f"{pinned['sha256']}  {source['url']}\n" in lock.read_text()
    assert fetch(pinned).read_bytes() == b"an archive"
    # What the address says later does not count.
    (release / "sha256sum.txt").write_text(f"{'1' * 64}  engine-linux-amd64.tar.zst\n")
    assert with_checksum(source, lock) == (pinned, "")
    (release / "sha256sum.txt").unlink()
    assert with_checksum(source, lock) == (pinned, "")


def test_other_records_stay(source: dict[str, str], tmp_path: Path) -> None:
    lock = tmp_path / "checksums.txt"
    lock.write_text(f"# a comment\n{'2' * 64}  https://example.org/other\n")
    with_checksum(source, lock)
    with_checksum(
        {**source, "url": source["url"].replace("linux-amd64.tar.zst", "darwin.tgz")}, lock
    )
    assert (
        with_checksum({"url": "https://example.org/other", "checksums": "file:///none"}, lock)[0][
            "sha256"
        ]
        == "2" * 64
    )
    assert [line.split()[0][0] for line in lock.read_text().splitlines()].count("2") == 1
    assert len(lock.read_text().splitlines()) == 4


def test_an_archive_that_was_changed_later_is_refused(
    source: dict[str, str], release: Path, tmp_path: Path
) -> None:
    pinned, _ = with_checksum(source, tmp_path / "checksums.txt")
    (release / "engine-linux-amd64.tar.zst").write_bytes(b"another archive")
    with pytest.raises(SourceError, match=f"pinned {pinned['sha256']}"):
        fetch(pinned)


def test_check_mode_records_nothing(source: dict[str, str], tmp_path: Path) -> None:
    pinned, note = with_checksum(source, tmp_path / "checksums.txt", write=False)
    assert len(pinned["sha256"]) == 64
    assert "would be recorded" in note
    assert not (tmp_path / "checksums.txt").exists()


def test_a_pinned_checksum_wins(tmp_path: Path) -> None:
    source = {"url": "https://example.org/x", "sha256": "3" * 64, "checksums": "file:///none"}
    assert with_checksum(source, tmp_path / "checksums.txt") == (
        {"url": source["url"], "sha256": "3" * 64},
        "",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"No such file.*correct `checksums`, or pin the sha256 of"),
        (
            "<html>Please log in</html>\n",
            r"no checksum \(SHA-256\) of engine-linux-amd64\.tar\.zst",
        ),
        (f"{'4' * 40}  engine-linux-amd64.tar.zst\n", r"no checksum \(SHA-256\)"),
        (
            f"{'4' * 64}  x\n{'5' * 64}  old/engine-linux-amd64.tar.zst\n",
            r"no checksum \(SHA-256\)",
        ),
        (
            f"{'4' * 64} *engine-linux-amd64.tar.zst\n{'5' * 64}  engine-linux-amd64.tar.zst\n",
            "2 different checksums",
        ),
    ],
    ids=["not there", "no checksums", "another kind", "another file", "two answers"],
)
def test_no_checksum_is_invented(
    source: dict[str, str], release: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    (release / "sha256sum.txt").unlink()
    if content is not None:
        (release / "sha256sum.txt").write_text(content)
    with pytest.raises(SourceError, match=message):
        with_checksum(source, tmp_path / "checksums.txt")
    assert not (tmp_path / "checksums.txt").exists()


def test_a_file_of_checksums_without_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="checksums is only valid with url"):
        with_checksum(
            {"path": "/x", "checksums": "https://example.org/sums"}, tmp_path / "checksums.txt"
        )


def test_a_place_that_cannot_be_written_is_named(source: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"absent/checksums\.txt: No such file or directory; make it writable"
    ):
        with_checksum(source, tmp_path / "absent/checksums.txt")
