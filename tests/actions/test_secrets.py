"""Where a secret comes from, and that generating one is safe."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.secrets import SecretError, resolve


def test_the_order_is_variable_environment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / ".credentials"
    store.mkdir()
    (store / "KEY").write_text("from-file\n")
    assert resolve("KEY", {}, store, write=True) == ("from-file", False)
    monkeypatch.setenv("KEY", "from-environment")
    assert resolve("KEY", {}, store, write=True) == ("from-environment", False)
    assert resolve("KEY", {"KEY": "from-vault"}, store, write=True) == ("from-vault", False)


def test_a_generated_secret_is_kept_private_and_reused(tmp_path: Path) -> None:
    store = tmp_path / ".credentials"
    value, fresh = resolve("KEY", {}, store, write=True)
    assert fresh
    assert len(value) > 40
    assert value.startswith("sk-")
    assert stat.S_IMODE((store / "KEY").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert resolve("KEY", {}, store, write=True) == (value, False)


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    store = tmp_path / ".credentials"
    assert resolve("KEY", {}, store, write=False)[1]
    assert not store.exists()


def test_hosts_that_ask_at_once_get_the_same_secret(tmp_path: Path) -> None:
    store = tmp_path / ".credentials"
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: resolve("KEY", {}, store, write=True), range(32)))
    assert len({value for value, _ in values}) == 1
    assert sum(fresh for _, fresh in values) == 1


def test_an_empty_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "KEY").write_text("\n")
    with pytest.raises(SecretError, match=r"KEY is empty.*delete the file"):
        resolve("KEY", {}, tmp_path, write=True)
