"""Typical mistakes, made for real: each message names the line and the fix, and the docs hold it
word for word."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import mistakes
import pytest
from mistakes import HEAD, MISTAKES, PAGE, Mistake
from warm import Warm

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.title)
def test_the_message_names_line_and_fix(mistake: Mistake, tmp_path: Path, warm: Warm) -> None:
    output = mistakes.make(mistake, tmp_path, warm)
    assert mistake.code in output
    assert mistake.hint in output
    assert re.search(rf"{re.escape(mistake.blamed)}:\d+", output)
    line = mistake.line
    if mistake.instead_of is not None:
        text = (ROOT / mistake.file).read_text(encoding="utf-8")
        line = text[: text.index(mistake.instead_of)].count("\n") + 1
    if line is not None:
        assert f"{mistake.blamed}:{line}:" in output
    assert "Traceback" not in output
    assert "4f0c0ffee" not in output, "a key must not be printed"
    said = mistakes.section(mistake, output)
    assert said in sections(), "write it anew: .venv/bin/python tests/plugins/mistakes.py"


def sections() -> list[str]:
    """The page's head, then what it says of each mistake."""
    head, *parts = re.split(r"^(?=## \d)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [head.removesuffix("\n"), *(part.rstrip("\n") + "\n" for part in parts)]


def test_the_page_holds_nothing_else() -> None:
    head, *parts = sections()
    assert head == HEAD
    assert len(parts) == len(MISTAKES)


def test_what_the_hints_say_repairs_it(ansible: Run, stack: Path) -> None:
    """Taking the hints of "something was taken out" one after the other leads to a valid
    catalogue."""
    file = stack / "group_vars/llm_stack/llm.yml"
    file.parent.mkdir(parents=True)
    file.write_text("llm_overrides:\n  providers:\n    llama_cpp_python: null\n", encoding="utf-8")
    hints = re.findall(
        r"add to llm_overrides: (.*)",
        ansible("ansible-playbook", "-i", stack, "playbooks/validate.yml").stdout,
    )
    assert len(hints) == 3
    for number, hint in enumerate(hints):
        (file.parent / f"repair{number}.yml").write_text(
            f"llm_overrides_{number}: {hint}\n", encoding="utf-8"
        )
    done = ansible("ansible-playbook", "-i", stack, "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("text", "said", "place"),
    [
        ("llm_overrides:\n\tgateway:\n", "Tabs are usually invalid in YAML.", "2:1"),
        ("llm_overrides: {gateway: {port: 1}\n", "flow mapping", "2:1"),
        (
            "llm_overrides: {}\nllm_overrides_x: {}\nllm_overrides: {}\n",
            'the key "llm_overrides" is there twice',
            "3:1",
        ),
    ],
    ids=["tab", "open brace", "the same key twice"],
)
@pytest.mark.parametrize("place_of", ["group_vars/llm_stack/llm.yml", "host_vars/gpu.yml"])
def test_what_is_no_yaml_has_file_and_line(
    ansible: Run, stack: Path, text: str, said: str, place: str, place_of: str
) -> None:
    file = stack / place_of
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    done = ansible("ansible-playbook", "-i", stack, "playbooks/validate.yml")
    assert done.returncode != 0
    assert said in done.stdout
    assert f"{file}:{place}" in done.stdout


TWICE = '{"llm_overrides": {"gateway": {"port": 4100,\n "port": 4200}}}\n'


def test_a_key_twice_in_the_inventory_itself(ansible: Run, stack: Path) -> None:
    file = stack / "hosts.yml"
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}all: {{}}\n", encoding="utf-8")
    line = text.count("\n") + 1
    for source in (stack, file):
        done = ansible("ansible-playbook", "-i", source, "playbooks/validate.yml")
        assert done.returncode != 0
        assert f'{file}:{line}:1: the key "all" is there twice' in done.stdout


def test_a_key_of_ones_own_beside_merged_ones(ansible: Run, stack: Path) -> None:
    file = stack / "group_vars/llm_stack/llm.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "mine: &mine {request_s: 90, stream_s: 30}\n"
        "llm_overrides: {gateway: {timeouts: {<<: *mine, request_s: 120}}}\n",
        encoding="utf-8",
    )
    done = ansible("ansible-playbook", "-i", stack, "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout


def test_json_with_a_key_twice_has_file_and_line(ansible: Run, stack: Path) -> None:
    """In group_vars, in a file of `-e`, and on the command line itself."""
    for name in ("group_vars/llm_stack/llm.json", "more.vars"):
        file = stack / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TWICE, encoding="utf-8")
        more = ("-e", f"@{file}") if name == "more.vars" else ()
        source = stack / "hosts.yml" if more else stack
        done = ansible("ansible-playbook", "-i", source, "playbooks/validate.yml", *more)
        assert done.returncode != 0
        assert f'{file}:2:2: the key "port" is there twice' in done.stdout
        file.unlink()
    done = ansible("ansible-playbook", "-i", stack, "playbooks/validate.yml", "-e", TWICE)
    assert '-e:2:2: the key "port" is there twice' in done.stdout
