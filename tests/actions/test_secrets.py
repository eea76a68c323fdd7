"""Where a secret comes from, and that generating one is safe."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.catalogue.sourcemap import no_origin
from modelyard.controller.secrets import (
    SecretError,
    begin_rotation,
    end_rotation,
    find,
    is_given,
    resolve,
    survey,
)


def test_the_order_is_variable_environment_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_white_space_around_a_value_is_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", " from-environment\n")
    assert find("KEY", {"KEY": "from-vault\n"}, tmp_path) == "from-vault"
    assert find("OTHER", {}, tmp_path) == "from-environment"


@pytest.mark.parametrize("value", [True, 4711, {"a": "b"}, ["a"], "a\nb", "  ", "KEY=a", "'a'"])
def test_what_is_no_secret_is_neither_used_nor_replaced(value: object, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"secret KEY .*llm_secrets"):
        resolve("KEY", {"KEY": value}, tmp_path, write=True)
    assert not list(tmp_path.iterdir())


def test_equal_values_have_one_number(tmp_path: Path) -> None:
    one, two = {"A": "x", "B": "y"}, {"A": "y"}
    hosts = {"h1": (one, tmp_path), "h2": (one, tmp_path), "h3": (two, tmp_path)}
    first, second = survey(hosts, no_origin)
    assert first.hosts == ("h1", "h2")
    assert first.secrets["A"].number != first.secrets["B"].number == second.secrets["A"].number
    assert not any(value in repr(first) for value in ("'x'", "'y'"))


def test_what_is_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of llm_secrets, whose values a template may put into the catalogue; a name under a key
    is what should be a name.
    """
    monkeypatch.setenv("C", "ELSEWHERE")
    given = {"A": "VALUE", "sk-x": "NAME_OF_A_SECRET", "B": "", "D": 7}
    (view,) = survey({"h1": (given, tmp_path)}, no_origin)
    told = [view.holds(text) for text in ("VALUE", "NAME_OF_A_SECRET", "ELSEWHERE", "", "7")]
    assert told == [True, False, False, False, False]
    assert "VALUE" not in repr(view)


def test_a_rotation_keeps_the_former_value_until_it_ends(tmp_path: Path) -> None:
    before, _ = resolve("KEY", {}, tmp_path, write=True)
    assert begin_rotation("KEY", {}, tmp_path, write=True)
    after, _ = resolve("KEY", {}, tmp_path, write=True)
    assert after != before
    assert resolve("KEY_FORMER", {}, tmp_path, write=False) == (before, False)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("KEY*")} == {0o600}
    # Interrupted and begun again: the value that some hosts may have already stays.
    assert not begin_rotation("KEY", {}, tmp_path, write=True)
    assert resolve("KEY", {}, tmp_path, write=True)[0] == after
    assert end_rotation("KEY", {}, tmp_path, write=True)
    assert not (tmp_path / "KEY_FORMER").exists()
    assert not end_rotation("KEY", {}, tmp_path, write=True)
    assert resolve("KEY", {}, tmp_path, write=True)[0] == after


def test_a_rotation_is_undone(tmp_path: Path) -> None:
    before, _ = resolve("KEY", {}, tmp_path, write=True)
    begin_rotation("KEY", {}, tmp_path, write=True)
    assert end_rotation("KEY", {}, tmp_path, back=True, write=True)
    assert resolve("KEY", {}, tmp_path, write=False) == (before, False)
    assert not (tmp_path / "KEY_FORMER").exists()


def test_a_rotation_that_died_between_its_two_files_goes_on(tmp_path: Path) -> None:
    before, _ = resolve("KEY", {}, tmp_path, write=True)
    (tmp_path / "KEY_FORMER").write_text(f"{before}\n")
    assert begin_rotation("KEY", {}, tmp_path, write=True)
    assert resolve("KEY", {}, tmp_path, write=False)[0] != before


def test_check_mode_rotates_nothing(tmp_path: Path) -> None:
    before, _ = resolve("KEY", {}, tmp_path, write=True)
    assert begin_rotation("KEY", {}, tmp_path, write=False)
    assert resolve("KEY", {}, tmp_path, write=False) == (before, False)
    assert not (tmp_path / "KEY_FORMER").exists()


def test_a_secret_of_the_user_is_the_users_to_change(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"KEY is defined in llm_secrets.*under KEY_FORMER"):
        begin_rotation("KEY", {"KEY": "new"}, tmp_path, write=True)
    assert not begin_rotation("KEY", {"KEY": "new", "KEY_FORMER": "old"}, tmp_path, write=True)
    with pytest.raises(SecretError, match="KEY_FORMER is defined in llm_secrets"):
        end_rotation("KEY", {"KEY": "new", "KEY_FORMER": "old"}, tmp_path, write=True)
    with pytest.raises(SecretError, match="put it back under KEY"):
        end_rotation("KEY", {"KEY": "new", "KEY_FORMER": "old"}, tmp_path, back=True, write=True)
    assert is_given("KEY", {"KEY": "new"})
    assert not is_given("KEY", {"KEY": ""})
    assert not list(tmp_path.iterdir())


def test_a_secret_that_nobody_has_is_not_rotated(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="KEY does not exist yet"):
        begin_rotation("KEY", {}, tmp_path, write=True)
