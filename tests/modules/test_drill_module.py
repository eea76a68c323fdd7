"""Which host answered while something was broken."""

from __future__ import annotations

import modelyard_drill
from ansible.module_utils.modelyard_proxy import Door


class FakeDoor(Door):
    """Two hosts in a pool; each `show stat` finds ten answers more of the second."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, command: str) -> str:
        assert command == "show stat"
        self.asked += 1
        rows = [
            "# pxname,svname,hrsp_2xx",
            "gateway,blue,500",
            "pool.a,gpu1,40",
            f"pool.a,gpu2,{self.asked * 10}",
            "pool.a,BACKEND,90",
            "pool.b,gpu1,7",
        ]
        return "\n".join(rows)


def test_answers_are_counted_by_host_of_the_pool() -> None:
    door = FakeDoor()
    before = modelyard_drill.answered(door, ["pool.a"])
    assert before == {"gpu1": 40, "gpu2": 10}
    at = dict(modelyard_drill.answered(door, ["pool.a"]) - before)
    assert at == {"gpu2": 10}
    client = modelyard_drill.Client("http://127.0.0.1:1", "", "m", 1)
    client.answers = [(1.0, 0.5, "m"), (2.0, 0.5, "m")]
    told = modelyard_drill.summary(2, client, 0.0, 3.0, at)
    assert told["answered_at"] == {"gpu2": 10}
    assert "  gpu2 gave 10 answers" in told["lines"]


def test_each_request_begins_a_conversation_of_its_own() -> None:
    client = modelyard_drill.Client("http://127.0.0.1:1", "", "m", 1)
    bodies = [str(client.body(number)) for number in range(3)]
    assert len(set(bodies)) == 3


def test_without_a_pool_haproxy_is_not_asked() -> None:
    door = FakeDoor()
    assert modelyard_drill.answered(door, []) == {}
    assert door.asked == 0
