"""Releases that must not run, and sources and locks of other releases."""

# ruff: noqa: E501 - one case per line reads better than a wrapped table

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from catalogues import CATALOGUE, ROOT, change, compiled, inventory, refused

from modelyard.catalogue.versions import COMPONENTS, Lock, below_floor, unsafe
from modelyard.catalogue.withdrawn import WITHDRAWN, withdrawn, withdrawn_among
from modelyard.compile import compile_inventory
from modelyard.compiler.versions import named_version
from modelyard.controller.locks import locked
from modelyard.kinds import release_order

ROLES = ROOT / "roles"
SHA = "a" * 64
SDIST = f"{{sdist: llama-cpp-python==0.3.36, sha256: {SHA}}}"
LLAMA = f'  llama_cpp:\n    version: "0.3.36"\n    source: {SDIST}'


def llama(version: str, source: str) -> str:
    return change(LLAMA, f"  llama_cpp:\n    version: '{version}'\n    source: {source}")


def test_versions_in_order() -> None:
    ordered = ["0.9", "1.2a1", "1.2b1", "1.2rc1", "1.2", "1.2.post1", "1.2.1", "1.10", "2.0"]
    orders = [release_order(version) for version in ordered]
    # None, of a version that has no order, would not compare.
    assert orders == sorted(orders)  # type: ignore[type-var]
    assert release_order("1.2.0") == release_order("1.2")
    assert release_order("b6500") > release_order("b999")  # type: ignore[operator]
    assert release_order("latest") is None


@pytest.mark.parametrize(
    ("component", "version", "floor"),
    [
        ("litellm", "1.83.7rc1", "1.83.7"),
        ("litellm", "1.83.7", ""),
        ("vllm", "0.17.1", "0.18.0"),
        ("vllm", "0.18", ""),
        ("llama_cpp", "b8145", "b8146"),
        ("llama_cpp", "b8146", ""),
        ("llama_cpp", "0.3.36", ""),
        ("llama_cpp_python", "0.2.71", "0.2.72"),
        ("grafana", "1.0", ""),
        ("nothing", "1.0", ""),
    ],
)
def test_floors(component: str, version: str, floor: str) -> None:
    assert below_floor(component, version) == floor


@pytest.mark.parametrize(
    ("package", "version"), [(name, version) for name in WITHDRAWN for version in WITHDRAWN[name]]
)
def test_withdrawn(package: str, version: str) -> None:
    assert withdrawn(package, version)
    assert withdrawn(package.upper().replace("-", "_"), f"{version}.0")
    assert not withdrawn(package, f"{version}.1")


def test_why_a_version_must_not_run() -> None:
    assert "steals keys" in unsafe("litellm", "1.82.8")
    assert "is below 1.83.7" in unsafe("litellm", "1.82.6")
    assert unsafe("litellm", "1.106.2") == ""
    assert all(unsafe(component, "99.0") == "" for component in COMPONENTS)


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "source", "code", "text"),
    [
        ("0.3.40", SDIST, "version-mismatch", "0.3.36 by its source (sdist)"),
        ("b8200", SDIST, "version-mismatch", "a tag has an archive of its own"),
        ("b8200", f"{{url: 'https://e.org/tags/b8199.tar.gz', sha256: {SHA}}}", "version-mismatch", "b8199"),
        ("0.3.36", f"{{url: 'https://e.org/llama_cpp_python-0.3.35.tar.gz', sha256: {SHA}}}", "version-mismatch", "0.3.35"),
        ("0.3.36", f"{{path: /srv/llama.cpp-0.3.35.tar.gz, sha256: {SHA}}}", "version-mismatch", "0.3.35"),
        ("0.3.36", f"{{url: 'https://e.org/v0.3.35/x.tar.gz', sha256: {SHA}}}", "version-mismatch", "0.3.35"),
        ("0.3.36", f"{{url: 'https://e.org/llama_cpp_python-0.3.36-cp312-linux.whl', sha256: {SHA}}}", "invalid-value", ".whl"),
        ("0.3.36", f"{{url: 'https://e.org/llama-{{version}}.tar.gz', sha256: {SHA}}}", "invalid-value", "{version} is not filled in"),
        ("b8200", f"{{url: 'https://e.org/{{versoin}}/x.tar.gz', sha256: {SHA}}}", "invalid-value", "hint: name another file"),
        ("b100", f"{{path: /srv/x.tar.gz, sha256: {SHA}}}", "version-unsafe", "use b8146"),
        ("v0.3.36", SDIST, "invalid-value", "a tag of llama.cpp"),
        ("latest", SDIST, "invalid-value", "a tag of llama.cpp"),
    ],
)  # fmt: skip
def test_a_source_of_another_release(version: str, source: str, code: str, text: str) -> None:
    result = compiled(llama(version, source))
    assert [one.code for one in result.errors] == [code]
    assert text in result.errors[0].render()


@pytest.mark.parametrize(
    ("version", "source"),
    [
        ("0.3.36", SDIST),
        ("0.3.36.0", SDIST),
        ("b8200", f"{{url: 'https://e.org/refs/tags/b8200.tar.gz', sha256: {SHA}}}"),
        ("0.3.36", f"{{url: 'https://e.org/mirror/2024.01.15/src.tar.gz', sha256: {SHA}}}"),
        ("0.3.36", f"{{url: 'https://10.0.0.5/cuda-12.4.1/llama_cpp_python-0.3.36.tar.gz', sha256: {SHA}}}"),
        ("0.3.36", f"{{path: /srv/llama-b8200.tar.gz, sha256: {SHA}}}"),
        ("1.0", f"{{path: /srv/ours.tar.gz, sha256: {SHA}}}"),
    ],
)  # fmt: skip
def test_right_sources(version: str, source: str) -> None:
    assert compiled(llama(version, source)).errors == []


def test_the_word_for_the_version_is_misspelt() -> None:
    url = "https://e.org/grafana-{versoin}.linux-amd64.tar.gz"
    source = f"{{url: '{url}', sha256: {'b' * 64}}}"
    more = f"  grafana: {{version: '12.3.0', source: {source}}}\n"
    text = CATALOGUE.replace("  llama_cpp:\n", f"{more}  llama_cpp:\n", 1)
    (error,) = compiled(text).errors
    assert "{versoin} is not filled in here" in error.message
    assert error.hint == 'did you mean "{version}"?'


def test_what_is_offered_in_place_of_an_unsafe_version_has_a_lock() -> None:
    text = change('litellm: {version: "1.106.2"}', 'litellm: {version: "1.82.7"}')
    locks = {"litellm": frozenset({"1.82.6", "1.106.2"})}
    (error,) = compile_inventory(replace(inventory(text), locks=locks)).errors
    assert error.hint == "use a version with a lock file: 1.106.2"
    (error,) = compile_inventory(replace(inventory(text), locks={})).errors
    assert error.hint == "use 1.83.7 or newer"


def test_named_versions() -> None:
    url = "https://github.com/ollama/ollama/releases/download/v{version}/ollama-linux-amd64.tar.zst"
    assert named_version("ollama", url, "0.17.5") == ""
    assert named_version("ollama", url.replace("{version}", "0.17.4"), "0.17.5") == "0.17.4"
    assert named_version("grafana", "/srv/grafana-12.3.0.linux-amd64.tar.gz", "12.3.1") == "12.3.0"
    assert named_version("grafana", "/srv/grafana-12.3.0.linux-amd64.tar.gz", "12.3.0") == ""


def test_the_place_is_the_users_line() -> None:
    override = {"versions": {"llama_cpp": {"version": "0.3.40"}}}
    result = compiled(llm_overrides=override)
    assert result.errors[0].path == ("llm_versions", "llama_cpp", "version")
    source = {"sdist": "llama-cpp-python==0.3.40", "sha256": SHA}
    result = compiled(llm_overrides={"versions": {"llama_cpp": {"source": source}}})
    assert result.errors[0].path == ("llm_versions", "llama_cpp", "source", "sdist")


def test_one_checksum_for_two_files() -> None:
    more = f"  grafana: {{version: '12.3.0', source: {{path: /g.tar.gz, sha256: {SHA}}}}}\n"
    text = CATALOGUE.replace("  llama_cpp:\n", f"{more}  llama_cpp:\n", 1)
    assert "checksum of llama_cpp" in refused(compiled(text), "invalid-value", 27)
    model = change("{path: /models/small.gguf}", f"{{url: 'https://e.org/m.gguf', sha256: {SHA}}}")
    assert '"small" has the checksum of llama_cpp' in refused(compiled(model), "invalid-value", 8)


# -- locks -----------------------------------------------------------------------------------------


def with_lock(packages: dict[str, str]) -> str:
    lock = Lock("litellm", "1.106.2", "roles/litellm/files/locks/litellm-1.106.2.txt", packages)
    locks = {"litellm": frozenset({"1.106.2"})}
    result = compile_inventory(replace(inventory(), locks=locks, pins=[lock]))
    return "\n".join(f"{one.code} {one.message}" for one in result.errors)


def test_what_a_lock_pins() -> None:
    assert with_lock({"litellm": "1.106.2", "lightning": "2.6.1"}) == ""
    assert "version-mismatch" in with_lock({"litellm": "1.106.1"})
    told = with_lock({"litellm": "1.106.2", "lightning": "2.6.2"})
    assert (
        "version-unsafe roles/litellm/files/locks/litellm-1.106.2.txt pins lightning 2.6.2" in told
    )


def test_locks_are_read(tmp_path: Path) -> None:
    directory = tmp_path / "vllm/files/locks"
    directory.mkdir(parents=True)
    text = "a-b==1.0 \\\n    --hash=sha256:x\nc[d]==2.0 ; python\n# e==3.0\n"
    (directory / "vllm-0.32.0-cuda.txt").write_text(text, encoding="utf-8")
    (directory / "uv-0.13.8.txt").write_text("uv==0.13.8\n", encoding="utf-8")
    (lock,) = locked(tmp_path, "vllm")
    assert (lock.role, lock.version) == ("vllm", "0.32.0")
    assert lock.packages == {"a-b": "1.0", "c": "2.0"}
    assert locked(tmp_path, "missing") == []


@pytest.mark.parametrize("role", ["litellm", "vllm", "llama_cpp_python"])
def test_our_locks_hold_nothing_withdrawn(role: str) -> None:
    found = locked(ROLES, role)
    assert found
    for lock in found:
        assert withdrawn_among(lock.packages.items()) == []
