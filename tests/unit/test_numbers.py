"""Numbers in another unit than the catalogue's: refused, with the number that is meant."""

from __future__ import annotations

import pytest
from catalogues import change, compiled, refused

GATEWAY = ("port: 4000", 25)
MODEL = ("- name: small", 8)
LOCAL = ("group: llm_local", 5)


@pytest.mark.parametrize(
    ("place", "text", "hint"),
    [
        (GATEWAY, "redis: {maxmemory_mib: 268435456}", "write 256 if that is bytes, or 262144 if"),
        (GATEWAY, "redis: {maxmemory_mib: 2}", "write 2048 if that is GiB"),
        (GATEWAY, "limits: {body_mib: 33554432}", "write 32 if that is bytes"),
        (GATEWAY, "limits: {worker_mib: 2}", "write 2048 if that is GiB"),
        (GATEWAY, "timeouts: {request_s: 600000}", "write 600 if that is milliseconds"),
        (GATEWAY, "cooldown_s: 30000000", "write 30000 if that is milliseconds"),
        (GATEWAY, "cache: {ttl_s: 3600000}", "write 3600 if that is milliseconds"),
        (LOCAL, "model_margin_mib: 4294967296", "write 4096 if that is bytes"),
        (LOCAL, "ready_timeout_s: 600000", "write 600 if that is milliseconds"),
        (MODEL, "context_length: 17179869184", "less than or equal to 16777216"),
        (MODEL, "rpm: 100000000", "less than or equal to 10000000"),
        (MODEL, "weight: 10001", "less than or equal to 10000"),
    ],
)
def test_a_number_beyond_its_range_names_the_unit_it_is_in(
    place: tuple[str, int], text: str, hint: str
) -> None:
    old, line = place
    indent = "        " if place is MODEL else "    " if place is LOCAL else "  "
    told = refused(compiled(change(old, f"{old}\n{indent}{text}")), "invalid-value", line)
    assert hint in told, told


@pytest.mark.parametrize(
    ("old", "text"),
    [
        ("port: 4000", "  redis: {maxmemory_mib: 1048576}"),
        ("port: 4000", "  timeouts: {request_s: 3600, door_s: 86400}"),
        ("group: llm_local", "    model_margin_mib: 1048576"),
        ("- name: small", "        context_length: 10485760"),
        ("- name: small", "        rpm: 100000"),
    ],
)
def test_large_numbers_that_somebody_may_need_are_accepted(old: str, text: str) -> None:
    assert not compiled(change(old, f"{old}\n{text}")).errors


def test_a_number_in_no_other_unit_has_no_hint() -> None:
    text = change("port: 4000", "port: 4000\n  timeouts: {request_s: 99999999999}")
    assert "hint" not in refused(compiled(text), "invalid-value", 25)
