"""What is accepted is what an engine's own parser takes: llama-server of a build that an earlier
run left on this machine. Without one these tests are skipped.
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
NUMBER = re.compile(r"^(.*) N$")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program out of the newest build for CPUs."""
    found = sorted(ARTIFACTS.glob("llama-cpp-0*.tar.zst"), key=lambda path: path.stat().st_mtime)
    if not found or shutil.which("zstd") is None:
        pytest.skip("no build of llama.cpp is here")
    place = tmp_path_factory.mktemp("llama")
    subprocess.run(["tar", "--zstd", "-xf", found[-1], "-C", place], check=True)
    program = next(place.rglob("llama-server"))
    if subprocess.run([program, "--version"], check=False, capture_output=True).returncode:
        pytest.skip("the build of llama.cpp does not run here")
    return program


def options(server: Path) -> dict[str, Any]:
    """By long name every option of `--help` that takes no value, or a number.

    Those that it calls removed are left out: another version has them, so the parser of the host
    refuses them, before anything goes live.
    """
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


def parsed(server: Path, words: list[str]) -> str:
    """What is wrong with these words, if anything is; the last one ends the program."""
    out = subprocess.run(
        [server, *words, "--version"], check=False, capture_output=True, text=True, timeout=60
    )
    text = out.stdout + out.stderr
    return "" if out.returncode == 0 and "version:" in text else text[-300:] or "no version"


def test_every_option_that_is_accepted_is_parsed(server: Path, tmp_path: Path) -> None:
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
    server: Path, tmp_path_factory: pytest.TempPathFactory
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
