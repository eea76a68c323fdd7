"""Who listens on which port of a host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.monitoring import Monitoring
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.resolve import Deployment, Resolved
from modelyard.compiler.topology import Topology
from modelyard.diagnostics import Report, variable_path
from modelyard.engines import types_of
from modelyard.plan.monitoring import WATCHERS


def port_path(deployment: Deployment) -> Path:
    """Where the port of a deployment is written: at its model, or at its provider."""
    if deployment.model.port:
        return variable_path((*deployment.path, "port"))
    return ("llm_providers", deployment.provider_name, "port")


class Wanted(NamedTuple):
    """A port that something listens on. `path` is where the port is written, `model` the model whose process it is."""

    port: int
    what: str
    path: Path
    model: Path | None = None


def _of_monitoring(settings: Monitoring | None, host: str, topology: Topology) -> Iterator[Wanted]:
    """The ports that are watched from, and asked, on a host."""
    if settings is None or topology.monitoring is None:
        return
    where = {"gateway": topology.gateways, "redis": (topology.redis,), "blackbox": (topology.monitoring,)}
    for kind, port in settings.exporters.model_dump().items():
        if host in where.get(kind, topology.hosts):
            yield Wanted(port, f"the exporter of {kind}", ("monitoring", "exporters", kind))
    if host == topology.monitoring:
        for role in WATCHERS:
            yield Wanted(getattr(settings, role).port, role, ("monitoring", role, "port"))


def _of_gateway(gateway: Gateway, host: str, topology: Topology) -> Iterator[Wanted]:
    if host == topology.redis:
        yield Wanted(gateway.redis.port, "redis", ("gateway", "redis", "port"))
    if host in topology.gateways:
        yield Wanted(gateway.port, "the front end", ("gateway", "port"))
        for slot, port in gateway.slots.model_dump().items():
            yield Wanted(port, f"gateway slot {slot}", ("gateway", "slots", slot))


def _of_engines(deployments: Sequence[Deployment]) -> Iterator[Wanted]:
    """One port for each process of an engine: of a model, or of a provider."""
    shared: set[str] = set()
    for deployment in deployments:
        where = ("providers", *port_path(deployment)[1:])
        if deployment.model.adapter_of is not None:
            continue  # Its base model's process serves it.
        if not deployment.engine.per_provider:
            yield Wanted(deployment.port, f'"{deployment.model.name}"', where, deployment.path)
        elif deployment.provider_name not in shared:
            shared.add(deployment.provider_name)
            yield Wanted(deployment.port, f'"{deployment.provider_name}"', where)


@dataclass(slots=True)
class _Clash:
    """Two that want one port, on these hosts."""

    one: str
    other: Wanted
    hosts: list[str]
    hint: str = ""

    def tell(self, report: Report) -> None:
        more = f" and {len(self.hosts) - 1} more" if len(self.hosts) > 1 else ""
        message = f"{self.one} and {self.other.what} both use port {self.other.port} on {self.hosts[0]}{more}"
        own_ports = types_of(lambda engine: not engine.per_provider, "or").replace("`", "")
        hint = self.hint or f"give one of them another port; a model of {own_ports} can have its own port"
        report.error("port-clash", message, self.other.path, hint)


def check_ports(
    catalogue: Catalogue, resolved: Resolved, topology: Topology, report: Report, broken: frozenset[Path]
) -> None:
    """Two listeners on one host and port, whatever their addresses: in a log nobody can tell them apart."""
    by_host: dict[str, list[Deployment]] = {}
    for deployment in resolved.all():
        if deployment.host is not None and deployment.path not in broken:
            by_host.setdefault(deployment.host, []).append(deployment)
    clashes: dict[tuple[str, str, int], _Clash] = {}
    for host in topology.hosts:
        wanted = [
            *_of_gateway(catalogue.gateway, host, topology),
            *_of_monitoring(catalogue.monitoring, host, topology),
            *_of_engines(by_host.get(host, [])),
        ]
        taken = {one.port for one in wanted}
        owner: dict[int, Wanted] = {}
        for one in wanted:
            first = owner.setdefault(one.port, one)
            if first.what == one.what:
                continue
            clash = clashes.setdefault((first.what, one.what, one.port), _Clash(first.what, one, []))
            clash.hosts.append(host)
            clash.other = one
            if one.path == first.path and one.model is not None:
                # Both take their provider's port: the second needs one of its own.
                free = next(number for number in range(one.port + 1, 65536) if number not in taken)
                clash.other = one._replace(path=one.model)
                clash.hint = f"give {one.what} its own port, such as port: {free}"
    for clash in clashes.values():
        clash.tell(report)
