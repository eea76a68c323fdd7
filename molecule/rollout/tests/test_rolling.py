"""A change of the model on two hosts that share it, host by host, while clients ask both gateways.

Every test adds a row to the table that is printed at the end: what failed, how many streams were
cut, how long it took. Wherever a second host serves that is nothing.
"""

from __future__ import annotations

import time

import pytest
from modelyard_playbook import said
from rolling import (
    DRAIN_BEGINS,
    ENGINES,
    UNIT,
    Row,
    Run,
    began,
    change,
    clients,
    drained,
    host,
    live,
    pool,
    shown,
    site,
    slow,
    stream_on,
    table,
    wait_until,
)

FILE = "/srv/other.gguf"
"""A model file that is not the same on both hosts."""


def test_change(doors: dict[str, str], row: Row) -> None:
    """With a long stream on the host that changes first: it ends whole, and only then that engine
    restarts."""
    before = {name: live(name) for name in ENGINES}
    second = began("e2")
    with clients(doors) as seen, slow("e1") as fast:
        started = time.monotonic()
        with Run(*change()) as run:
            run.read_until("PLAY [Prepare the hosts]")
            stream = stream_on("e1", "g1", doors["g1"])
            run.read_until(DRAIN_BEGINS)
            wait_until(lambda: all(pool(door)["e1"] == "DRAIN" for door in doors), "no drain")
            time.sleep(2)
            assert not stream.ended, f"{stream.tokens} tokens were too few for this test"
            assert began("e2") == second, "both hosts change"
            fast()
            done = run.end()
        took = time.monotonic() - started
        stream.join()
    assert done.returncode == 0, done.stdout
    assert (stream.done, stream.error) == (True, "")
    assert stream.ended
    assert stream.ended < int(shown("e1", UNIT, "ActiveExitTimestampMonotonic")) / 1e6
    assert [name for name in ENGINES if live(name) == before[name]] == []
    assert seen.failures == []
    row("a valid change; a long stream ended before its host restarted", took, seen)


def test_bad_file_on_the_second_host(doors: dict[str, str], row: Row) -> None:
    for name in ENGINES:
        host(name).check_output(f"cp /srv/lab/models/tiny.gguf {FILE}")
    # Its header is sound, so it is accepted; what should follow is missing, so the server gives up.
    host("e2").check_output(f"truncate --size=100000 {FILE}")
    before, first = live("e2"), live("e1")
    wanted = change({"source": {"path": FILE}})
    started = time.monotonic()
    with clients(doors) as seen:
        failed = site(*wanted)
        took = time.monotonic() - started
        assert failed.returncode == 2, failed.stdout
        assert table(failed) == {"e1": "done", "e2": "failed"}, failed.stdout
        assert "e2 runs what it ran before" in said(failed)
        assert drained() == []
        assert live("e2") == before
        assert live("e1") != first
        row("a bad model file on the second host: that is back, the first has it", took, seen)
        process = began("e1")
        host("e2").check_output(f"cp /srv/lab/models/tiny.gguf {FILE}")
        started = time.monotonic()
        good = site(*wanted)
        assert good.returncode == 0, good.stdout
        assert live("e2") != before
        assert began("e1") == process, "it was as planned"
    assert seen.failures == []
    row("the next run, with a good file, went on with the second", time.monotonic() - started, seen)


@pytest.mark.full
def test_stream_that_does_not_end_in_time(doors: dict[str, str], row: Row) -> None:
    started = time.monotonic()
    with clients(doors) as seen, slow("e1"), Run(*change(drain_s=1)) as run:
        run.read_until("PLAY [Prepare the hosts]")
        stream = stream_on("e1", "g1", doors["g1"])
        done = run.end()
        took = time.monotonic() - started
        stream.join()
    assert done.returncode == 0, done.stdout
    assert not stream.done
    told = "llama-cpp@llama-cpp-native restarts after 1 s with requests in flight: "
    assert told in said(done), done.stdout
    assert drained() == []
    assert seen.failures == []
    row("drain_s: 1 and a longer stream: it was cut, and the run said so", took, seen)
