"""Secrets get other values while somebody asks all the while, and the former ones are of no use
afterwards."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from changing import KEY, MODEL
from modelyard_playbook import SCENARIO, ansible_playbook, said
from modelyard_traffic import Traffic, chat

NEW_KEY = "sk-another-master-key"
STORE = SCENARIO / "inventory/.credentials"


def given(**secrets: str) -> tuple[str, str]:
    """Secrets of the user's."""
    return "-e", json.dumps({"llm_secrets": {"LITELLM_MASTER_KEY": KEY, **secrets}})


def override(**changes: Any) -> tuple[str, str]:
    return "-e", json.dumps({"llm_overrides": changes})


def rotate(secret: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ansible_playbook(
        "../../playbooks/rotate_secrets.yml", "-e", f"secret={secret}", *arguments
    )


def stored(secret: str) -> str:
    return (STORE / secret).read_text(encoding="utf-8").strip()


def rotated_under_traffic(door: str, secret: str, measured: Callable[[str], None]) -> str:
    """Rotate a generated secret and return what it was."""
    before = stored(secret)
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        done = rotate(secret)
    assert done.returncode == 0, done.stdout + done.stderr
    assert traffic.failures == []
    assert stored(secret) != before
    assert not (STORE / f"{secret}_FORMER").exists()
    assert before not in done.stdout
    assert stored(secret) not in done.stdout
    asked = traffic.answered + traffic.streams
    measured(
        f"{secret} rotated in {time.monotonic() - started:.0f} s; {asked} requests, none failed"
    )
    return before


def redis_says(one: Any, password: str) -> str:
    asked = one.run(f"REDISCLI_AUTH={password} redis-cli --user gateway get litellm:nothing")
    return str(asked.stdout + asked.stderr)


def engine_says(one: Any, key: str) -> str:
    command = f"curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {key}' http://127.0.0.1:8080/v1/models"
    return str(one.check_output(command))


def test_redis_password(one: Any, door: str, measured: Callable[[str], None]) -> None:
    before = rotated_under_traffic(door, "REDIS_PASSWORD", measured)
    assert "WRONGPASS" not in redis_says(one, stored("REDIS_PASSWORD"))
    assert "WRONGPASS" in redis_says(one, before)


@pytest.mark.full
def test_key_of_an_engine(one: Any, door: str, measured: Callable[[str], None]) -> None:
    before = rotated_under_traffic(door, "LLAMA_CPP_NATIVE_API_KEY", measured)
    assert engine_says(one, stored("LLAMA_CPP_NATIVE_API_KEY")) == "200"
    assert engine_says(one, before) == "401"


@pytest.mark.full
def test_master_key(door: str, measured: Callable[[str], None]) -> None:
    """A value of the user's: the former one stays good until the user takes it away."""
    refused = rotate("LITELLM_MASTER_KEY")
    assert refused.returncode != 0
    wanted = "put the new value there and the present one under LITELLM_MASTER_KEY_FORMER"
    assert wanted in said(refused)
    started = time.monotonic()
    with Traffic(door, KEY, MODEL, rate=4, max_s=600) as traffic:
        done = rotate(
            "LITELLM_MASTER_KEY", *given(LITELLM_MASTER_KEY=NEW_KEY, LITELLM_MASTER_KEY_FORMER=KEY)
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "until you remove LITELLM_MASTER_KEY_FORMER where you defined it, and run site.yml."
        in said(done)
    )
    assert traffic.failures == []
    measured(f"LITELLM_MASTER_KEY rotated in {time.monotonic() - started:.0f} s")
    assert json.loads(chat(door, NEW_KEY, MODEL))["choices"]
    assert json.loads(chat(door, KEY, MODEL))["choices"]
    with Traffic(door, NEW_KEY, MODEL, rate=4, max_s=600) as traffic:
        ended = ansible_playbook("converge.yml", *given(LITELLM_MASTER_KEY=NEW_KEY))
        assert ended.returncode == 0, ended.stdout
    assert traffic.failures == []
    with pytest.raises(urllib.error.HTTPError, match="401"):
        chat(door, KEY, MODEL)
    back = ansible_playbook("converge.yml")
    assert back.returncode == 0, back.stdout


@pytest.mark.full
def test_key_of_the_user_with_which_an_engine_does_not_come_up(one: Any, door: str) -> None:
    """Only the user can put it back; until then nobody is sent to the engine with a key that it
    does not know."""
    secret = "LLAMA_CPP_NATIVE_API_KEY"
    before = stored(secret)
    new = given(**{secret: "planted-engine-key", f"{secret}_FORMER": before})
    broken = override(
        providers={
            "llama_cpp_native": {"models": [{"name": MODEL, "options": {"flash-atn": "on"}}]}
        }
    )
    refused = rotate(secret, *new, *broken)
    assert refused.returncode != 0
    assert (
        f"yours to put back: define it as {secret} again, remove {secret}_FORMER, and run site.yml."
        in said(refused)
    )
    assert (
        "invalid argument: --flash-atn"
        in said(refused).partition("Until then requests go where they go now.")[2]
    )
    assert engine_says(one, before) == "200"
    assert json.loads(chat(door, KEY, MODEL))["choices"], "who steps in answers"
    back = ansible_playbook("converge.yml")
    assert back.returncode == 0, back.stdout
    assert json.loads(chat(door, KEY, MODEL))["choices"]


def test_a_name_does_not_go_unasked(door: str) -> None:
    before = stored("REDIS_PASSWORD")
    without = override(
        providers={"spare": None},
        routing={"fallbacks": {MODEL: {"terminal": True}, "stand-by": None}},
    )
    refused = rotate("REDIS_PASSWORD", *without)
    assert refused.returncode != 0
    assert "litellm: public names that are live and missing from the plan: stand-by." in said(
        refused
    )
    assert stored("REDIS_PASSWORD") == before


def test_what_is_no_secret_of_ours_is_refused(door: str) -> None:
    refused = rotate("OPENAI_API_KEY")
    assert refused.returncode != 0
    assert '"OPENAI_API_KEY" cannot be rotated' in refused.stdout
    assert json.loads(chat(door, KEY, MODEL))["choices"]
