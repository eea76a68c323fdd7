"""What is accepted is what an engine's own parser takes: llama-server of a build that an earlier
run left on this machine, and where there is none what its `--help` said when it was recorded
(tests/data/llama-server-help.txt, 0.3.36).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from catalogues import change, compiled, part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ARTIFACTS = Path.home() / ".cache/modelyard/artifacts"
ROW = re.compile(r"^(-[^ ].*?)(?:  |$)")
RECORDED = (Path(__file__).parents[1] / "data/llama-server-help.txt").read_text(encoding="utf-8")
NUMBER = re.compile(r"^(.*) N$")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The program out of the newest build for CPUs, if there is one that runs here."""
    found = sorted(ARTIFACTS.glob("llama-cpp-0*.tar.zst"), key=lambda path: path.stat().st_mtime)
    if not found or shutil.which("zstd") is None:
        return None
    place = tmp_path_factory.mktemp("llama")
    subprocess.run(["tar", "--zstd", "-xf", found[-1], "-C", place], check=True)
    program = next(place.rglob("llama-server"))
    if subprocess.run([program, "--version"], check=False, capture_output=True).returncode:
        return None
    return program


def options(server: Path | None) -> dict[str, Any]:
    """By long name every option of `--help` that takes no value, or a number.

    Those that it calls removed are left out: another version has them, so the parser of the host
    refuses them, before anything goes live.
    """
    out = RECORDED
    if server is not None:
        out = subprocess.run([server, "--help"], check=True, capture_output=True, text=True).stdout
    known: dict[str, Any] = {}
    for block in re.split(r"\n(?=-)", out):
        match = ROW.match(block.partition("\n")[0])
        if match is None or "has been removed" in block:
            continue
        text, value = match[1], True
        if number := NUMBER.match(text):
            text, value = number[1], 1
        names = [name.strip() for name in text.split(",")]
        if any(re.search(r"[ <\[{]", name) for name in names):
            continue
        known |= {name[2:]: value for name in names if re.fullmatch("--[a-z][a-z0-9-]*", name)}
    return known


def arguments(given: dict[str, Any], key: Path) -> list[str] | None:
    """The words of a model with these options, as the host writes them; None if it is refused."""
    words = ", ".join(f"{name}: {str(value).lower()}" for name, value in given.items())
    text = change("- name: small", f"- name: small\n        options: {{{words}}}")
    out = compiled(text)
    if out.errors:
        return None
    instances = part(out.plans["one"], "llama_cpp")["instances"]
    argv = next(one["argv"] for one in instances if one["model"] == "small")
    places = {"@MODEL@": ["/dev/null"], "@GPU@": [], "@KEY_FILE@": [str(key)]}
    return [word for one in argv for word in places.get(one, [one])]


def recorded(words: list[str]) -> str:
    """What is wrong with these words by the recorded help: a name, or how many values it has."""
    takes = {}
    for line in RECORDED.splitlines():
        if line.startswith("-"):
            row = re.split(r"(?<![, ]) {2,}", line)[0]
            names = re.findall(r"(?:^|, +)(--?[a-zA-Z][\w.-]*)", row)
            takes |= dict.fromkeys(names, not row.endswith(tuple(names)))
    for at, word in enumerate(words):
        if word.startswith("--") and word not in takes:
            return f"{word} is not known"
        follows = at + 1 < len(words) and not words[at + 1].startswith("--")
        if word.startswith("--") and follows and not takes[word]:
            return f"{word} takes no value"
    return ""


def parsed(server: Path | None, words: list[str]) -> str:
    """What is wrong with these words, if anything is; the last one ends the program."""
    if server is None:
        return recorded(words)
    out = subprocess.run(
        [server, *words, "--version"], check=False, capture_output=True, text=True, timeout=60
    )
    text = out.stdout + out.stderr
    return "" if out.returncode == 0 and "version:" in text else text[-300:] or "no version"


def test_every_option_that_is_accepted_is_parsed(server: Path | None, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k", encoding="ascii")
    known = options(server)
    assert len(known) > 100
    wrong, taken = {}, 0
    for name, value in known.items():
        words = arguments({name: value}, key)
        if words is not None:
            taken += 1
            if problem := parsed(server, words):
                wrong[name] = problem
    assert wrong == {}
    assert taken > 60, "most options are the user's"


def test_options_together_are_parsed(
    server: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("k", encoding="ascii")
    known = options(server)

    @settings(suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(sorted(known)), unique=True, max_size=8))
    def check(names: list[str]) -> None:
        words = arguments({name: known[name] for name in names}, key)
        assert words is None or parsed(server, words) == ""

    check()
