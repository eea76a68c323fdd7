"""An exclusive group's model is switched while a client keeps asking: to one that does not load,
then to a good one.

Models are llama.cpp's; with vLLM's the same is tested by molecule/engines, in full.
"""

from __future__ import annotations

import subprocess
from typing import Any

from changing import CARD, KEY, answered_by, wait_until
from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import Traffic

CHOICE = SCENARIO / "inventory/group_vars/llm_stack/switched.yml"


def switch(name: str) -> subprocess.CompletedProcess[str]:
    """Switch to a provider and its model of the same name."""
    return ansible_playbook(
        "../../playbooks/switch_model.yml", "-e", f"provider={name}", "-e", f"model={name}"
    )


def test_switch_that_fails_puts_the_former_model_back(one: Any, door: str) -> None:
    # Its header is sound, so it is accepted; what should follow is missing, so the server gives up.
    one.check_output("head -c 100000 /srv/lab/models/tiny.gguf > /srv/broken.gguf")
    try:
        assert answered_by(door, CARD) == CARD
        with Traffic(door, KEY, CARD, rate=2, max_s=600) as traffic:
            failed = switch("card-broken")
        assert failed.returncode != 0, failed.stdout
        assert "What ran before runs again" in failed.stdout + failed.stderr, failed.stdout[-6000:]
        assert traffic.failures == []
        assert not CHOICE.exists()
        wait_until(lambda: answered_by(door, CARD) == CARD, f"{CARD} is not back", 120)
        good = switch("card-b")
        assert good.returncode == 0, good.stdout + good.stderr
        assert answered_by(door, "card-b") == "card-b"
        # Exclusive at run time, too: whoever starts one member stops the other.
        shown = one.check_output("systemctl show --property=Conflicts modelyard-llama-cpp@card-b")
        assert f"modelyard-llama-cpp@{CARD}.service" in shown
    finally:
        CHOICE.unlink(missing_ok=True)
