"""What the parts of the plans are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.versions import Versions
from modelyard.compiler.emit import View
from modelyard.compiler.listeners import EngineServices
from modelyard.compiler.placement import Placement
from modelyard.compiler.pools import Pool, build_pools, followed, pools_of
from modelyard.compiler.resolve import Deployment, Resolved
from modelyard.compiler.routes import Route
from modelyard.compiler.topology import Topology
from modelyard.names import former, reach, url_host


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
    def versions(self) -> Versions:
        """The section `llm_versions`: a catalogue without it has an error."""
        assert self.catalogue.versions is not None, "without llm_versions there is an error"
        return self.catalogue.versions

    @property
    def gateway(self) -> Gateway:
        """The section `llm_gateway`."""
        return self.catalogue.gateway

    @property
    def door(self) -> str:
        """The front end's URL, as its own host reaches it."""
        return f"http://{url_host(reach(self.gateway.listen[0]))}:{self.gateway.port}"

    @cached_property
    def public_names(self) -> list[str]:
        """The names that clients can ask for."""
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
    def services(self) -> EngineServices:
        """The names of the engines' services."""
        return EngineServices(self.catalogue)

    @cached_property
    def pools(self) -> list[Pool]:
        """The hosts that share the requests for each process of an engine."""
        return build_pools(self.resolved.all(), self.services)

    def view(self, gateway: str) -> View:
        """Return what the gateway on a host sees."""
        return self.topology.view(gateway, self._pools_of, self.gateway.pool_port)

    @cached_property
    def _pools_of(self) -> Mapping[str, str]:
        return pools_of(self.pools)

    def holds(self, pool: Pool) -> bool:
        """Return whether requests wait for a pool of which no host is up."""
        return self._followed.isdisjoint(model.name for model in pool.models)

    @cached_property
    def _followed(self) -> frozenset[str]:
        return followed(self.routes, self.resolved.deployments)

    @property
    def monitoring(self) -> Monitoring | None:
        """The settings of monitoring; None where nothing is monitored."""
        return None if self.topology.monitoring is None else self.catalogue.monitoring

    def former_secret(self, file: str, secret: str) -> dict[str, str]:
        """Return the file and the name of what `secret` was, while that is accepted, too
        (playbooks/rotate_secrets.yml).
        """
        return {former(file): former(secret)} if former(secret) in self.secrets else {}
