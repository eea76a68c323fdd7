"""Keys of clients on the controller: generated, hashed, refused."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelyard.controller.secrets import SecretError

PLUGIN = Path(__file__).resolve().parents[2] / "plugins/action/modelyard_clients.py"
KEY = "a-key-of-24-characters--"


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """The action plugin, loaded by path; a module of the same name exists in plugins/modules."""
    specification = importlib.util.spec_from_file_location("modelyard_clients_action", PLUGIN)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def keys(plugin: ModuleType, store: Path, taken: dict[str, str] | None = None, **given: str) -> Any:
    clients = {name.lower(): {"secret": name} for name in given}
    return plugin.keys(
        clients, taken or {}, {k: v for k, v in given.items() if v}, store, write=True
    )


def test_what_the_host_gets(plugin: ModuleType, tmp_path: Path) -> None:
    hashes, generated = keys(plugin, tmp_path, APP=KEY, NEW="")
    assert generated == ["NEW"]
    new = (tmp_path / "NEW").read_text().strip()
    assert new.startswith("sk-")
    for name, key in (("app", KEY), ("new", new)):
        assert hashes[name] == hashlib.sha256(b"modelyard client key\0" + key.encode()).hexdigest()
        assert hashes[name] != hashlib.sha256(key.encode()).hexdigest()


def test_white_space_around_a_key_is_none_of_it(plugin: ModuleType, tmp_path: Path) -> None:
    """A block in YAML ends with a line feed, which no client sends."""
    assert keys(plugin, tmp_path, APP=f"{KEY}\n")[0] == keys(plugin, tmp_path, APP=KEY)[0]


def test_a_short_key_is_refused(plugin: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        SecretError,
        match=r"APP, the key of client app, has fewer than 24 characters.*one is generated",
    ):
        keys(plugin, tmp_path, APP=KEY[1:])


def test_two_clients_with_one_key_are_refused(plugin: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="B, the key of client b, is also that of client a"):
        keys(plugin, tmp_path, A=KEY, B=KEY)
    clients = {"a": {"secret": "SAME"}, "b": {"secret": "SAME"}}
    with pytest.raises(SecretError, match="SAME, the key of client b, is also that of client a"):
        plugin.keys(clients, {}, {}, tmp_path, write=True)


def test_the_master_key_is_no_clients(plugin: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="APP, the key of client app, is also LITELLM_MASTER_KEY"):
        keys(plugin, tmp_path, {KEY: "LITELLM_MASTER_KEY"}, APP=KEY)
