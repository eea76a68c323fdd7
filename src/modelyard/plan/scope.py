"""What the parts of the plans are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.versions import Versions
from modelyard.compiler.placement import Placement
from modelyard.compiler.resolve import Deployment, Resolved
from modelyard.compiler.routing import Route
from modelyard.compiler.topology import Topology
from modelyard.names import former, reach, url_host
from modelyard.plan.monitoring import Watch

CHAT_TIMEOUT_S = 60
"""One token from a model that may have to be read into memory first."""


@dataclass(frozen=True)
class Scope:
    """A catalogue that has no errors, and what the compiler made of it."""

    catalogue: Catalogue
    resolved: Resolved
    routes: Sequence[Route]
    topology: Topology
    placement: Placement
    groups: Mapping[str, Sequence[str]]
    secrets: frozenset[str]

    @property
    def versions(self) -> Versions | None:
        return self.catalogue.versions

    @property
    def gateway(self) -> Gateway:
        return self.catalogue.gateway

    @property
    def door(self) -> str:
        """The front end's URL, as its own host reaches it."""
        return f"http://{url_host(reach(self.gateway.listen[0]))}:{self.gateway.port}"

    @cached_property
    def public_names(self) -> list[str]:
        return [route.name for route in self.routes]

    @cached_property
    def by_host(self) -> dict[str, list[Deployment]]:
        """What the engines of each host serve."""
        found: dict[str, list[Deployment]] = {}
        for deployment in self.resolved.all():
            if deployment.host is not None:
                found.setdefault(deployment.host, []).append(deployment)
        return found

    @cached_property
    def watch(self) -> Watch | None:
        """Who watches whom; None without monitoring."""
        topology = self.topology
        if self.catalogue.monitoring is None or topology.monitoring is None:
            return None
        return Watch(
            topology.monitoring,
            self.catalogue.monitoring,
            self.versions,
            topology.addresses,
            topology.gateways,
            topology.redis,
        )

    def former_secret(self, file: str, secret: str) -> dict[str, str]:
        """The file and the name of what `secret` was, while that is accepted, too (playbooks/rotate_secrets.yml)."""
        return {former(file): former(secret)} if former(secret) in self.secrets else {}
