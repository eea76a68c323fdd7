"""What a host remembers of its releases, and which of them it keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils import modelyard_services as services
from ansible.module_utils.modelyard_services import DAY_S, KEEP_RELEASES, Service

NOW = 1_800_000_000


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(services, "SERVICES", str(tmp_path))
    monkeypatch.setattr(services, "CREDENTIALS", str(tmp_path / "credentials"))
    return Service("redis")


def put(
    service: Service,
    release: str,
    monkeypatch: pytest.MonkeyPatch,
    age_s: float,
    outcome: str = "live",
) -> None:
    """A release that went live, or failed, that long ago."""
    directory = Path(service.root, "releases", release)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.json").write_text("{}")
    os.utime(directory, (NOW - age_s, NOW - age_s))
    monkeypatch.setattr(services.time, "time", lambda: NOW - age_s)
    service.record(outcome, release)
    monkeypatch.setattr(services.time, "time", lambda: NOW)


def link(service: Service, name: str, release: str) -> None:
    os.symlink(f"releases/{release}", Path(service.root, name))


def test_kept_are_the_latest_and_the_last_good_of_each_day_and_week(
    redis: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twice a day for two months, and ten times within the last hour.
    for half_day in range(120, 1, -1):
        put(redis, f"h{half_day:03}", monkeypatch, half_day * DAY_S / 2)
    for minute in range(10, 0, -1):
        put(redis, f"m{minute:03}", monkeypatch, minute * 60)
    link(redis, "current", "m001")
    link(redis, "previous", "h110")
    redis.prune()
    kept = set(redis.releases())
    assert {f"m{minute:03}" for minute in range(1, KEEP_RELEASES + 1)} <= kept
    assert "m006" not in kept
    assert "h110" in kept, "linked"
    daily = {name for name in kept if name.startswith("h") and int(name[1:]) < 14}
    assert 5 <= len(daily) <= 7
    assert (
        2 <= len([name for name in kept if name.startswith("h") and 14 <= int(name[1:]) < 56]) <= 4
    )
    assert not [
        name for name in kept if name.startswith("h") and int(name[1:]) >= 56 and name != "h110"
    ]


def test_what_failed_is_not_kept(redis: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    put(redis, "good", monkeypatch, 100)
    put(redis, "bad", monkeypatch, 50, "failed")
    link(redis, "current", "good")
    assert redis.prune() == ["bad"]


def test_without_a_history_the_latest_are_kept(redis: Service) -> None:
    for number in range(8):
        directory = Path(redis.root, "releases", f"r{number}")
        directory.mkdir(parents=True)
        (directory / "manifest.json").write_text("{}")
        os.utime(directory, (NOW + number, NOW + number))
    link(redis, "current", "r0")
    redis.prune()
    assert redis.releases() == ["r7", "r6", "r5", "r4", "r3", "r0"]


def test_a_line_that_was_cut_off_is_left_out(
    redis: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(redis, "good", monkeypatch, 100)
    with open(f"{redis.root}/history.jsonl", "a") as history:
        history.write('{"at": 1, "outc')
    put(redis, "next", monkeypatch, 50)
    assert [one["release"] for one in redis.history()] == ["good", "next"]


def test_retired_then_forgotten(redis: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    put(redis, "good", monkeypatch, 20 * DAY_S)
    link(redis, "current", "good")
    link(redis, "staged", "good")
    monkeypatch.setattr(Service, "load", lambda *_: None)
    os.symlink("releases/good", Path(redis.root, "previous"))
    assert services.services() == ["redis"]
    redis.retire()
    assert services.services() == []
    assert redis.releases() == ["good"]
    monkeypatch.setattr(services.time, "time", lambda: NOW - 6 * DAY_S)
    redis.record("retired", "good")
    assert services.retired_long_ago(NOW) == []
    assert services.retired_long_ago(NOW + 2 * DAY_S) == ["redis"]
    redis.remove()
    assert not Path(redis.root).exists()
