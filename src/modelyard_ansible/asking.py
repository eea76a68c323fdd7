"""What `modelyard_preflight` and `modelyard_record` share: the question of site.yml to a host."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from modelyard.catalogue.sourcemap import plain
from modelyard.controller.secrets import SecretError, resolve
from modelyard.controller.sources import LOCK_FILE
from modelyard.operations.asking import Due, PlannedRole, about, due, planned

ROLES = Path(__file__).resolve().parents[2] / "roles"
PROGRAMS = ("zstd",)
"""What role base installs."""


class Question:
    """What is asked of one host, and what its answer means.

    `secrets_of` is where values of secrets are found: llm_secrets, and the inventory's store.
    """

    def __init__(
        self,
        plan: Mapping[str, Any],
        code: str,
        secrets_of: tuple[Mapping[str, Any], Path],
        inventory: Path,
    ) -> None:
        wanted: Mapping[str, Any] = plain(plan)
        self.roles = planned(wanted)
        self._endpoint = str(wanted["hugging_face"]["endpoint"])
        self._units = sorted({str(one["unit"]) for one in wanted["services"]})
        self._given, self._store = secrets_of
        checksums = inventory / LOCK_FILE
        # Checksums that were recorded at a first fetch decide what is installed, too.
        recorded = checksums.read_text(encoding="utf-8") if checksums.is_file() else ""
        self._code = code + recorded

    def watch(self, role: str) -> dict[str, Any]:
        """Return what a role looks at on the host."""
        path = _watched(role)
        always = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else {}
        return self.roles[role].watch(always, self._endpoint)

    def asked(self) -> dict[str, Any]:
        """Return what the module is given."""
        target = ROLES / "base/files/modelyard.target"
        return {
            "base": {"target": target.read_text("utf-8"), "programs": PROGRAMS},
            "roles": {role: self.watch(role) for role in self.roles},
            "units": self._units,
        }

    def due(self, preflight: Mapping[str, Any], *, full: bool) -> Due:
        """Return what has to run, from the result of preflight with the module's `answer`."""
        answer = preflight["answer"]
        digests = {
            name: self._digest(role, answer["roles"][name]["salt"], preflight)
            for name, role in self.roles.items()
        }
        unknown = [name for name in self.roles if not _watched(name).is_file()]
        return due(self.roles, answer, digests, unknown=unknown, full=full)

    def record(self, role: str, preflight: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the host notes of a role that has ended."""
        salt = secrets.token_hex(16)
        digest = self._digest(self.roles[role], salt, preflight)
        return {"salt": salt, "digest": digest, "watch": self.watch(role)}

    def _digest(self, role: PlannedRole, salt: str, preflight: Mapping[str, Any]) -> str:
        facts = about(self._code, preflight["answer"], preflight)
        return role.digest(salt, facts, {name: self._value(name) for name in role.secrets})

    def _value(self, name: str) -> str:
        """Return the value of a secret; one that the role would generate, or refuse, is another
        one each time.
        """
        try:
            return resolve(name, self._given, self._store, write=False)[0]
        except SecretError:
            return secrets.token_hex(16)


def _watched(role: str) -> Path:
    return ROLES / role / "meta/watched.yml"
