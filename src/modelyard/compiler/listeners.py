"""Everything that listens on a host, for preflight and the firewall, and whether two listeners want
one port.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.catalogue.gateway import Gateway
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path, SourceMap
from modelyard.compiler.inventory import Host
from modelyard.compiler.resolve import Deployment, Resolved
from modelyard.compiler.topology import Topology
from modelyard.diagnostics import Report, variable_path
from modelyard.engines import ROLES, types_of
from modelyard.engines.base import Engine
from modelyard.names import LOOPBACK, POOLS, WATCHERS, pool_name, slugs


def port_path(deployment: Deployment) -> Path:
    """Return the path of the port of a deployment: at its model, or at its provider."""
    if deployment.model.port:
        return variable_path((*deployment.path, "port"))
    return ("llm_providers", deployment.provider_name, "port")


class EngineServices:
    """The services of all engines of a catalogue: one per model, or one per provider."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.slugs = {role: slugs(self._names(catalogue, role)) for role in ROLES}

    @staticmethod
    def _names(catalogue: Catalogue, role: str) -> Iterator[str]:
        """Yield what the instances of a role are named after, whether they are active or not."""
        for name, provider in catalogue.providers.items():
            if provider.engine and provider.engine.role == role:
                yield from instance_names(name, provider)

    def of(self, deployment: Deployment) -> str:
        """Return the service whose process serves a deployment."""
        engine = deployment.engine
        return self.named(
            engine, deployment.provider_name if engine.per_provider else deployment.base.name
        )

    def pool(self, deployment: Deployment) -> str:
        """Return the pool of a deployment: its service on all of its hosts."""
        engine = deployment.engine
        slug = None if engine.per_provider else self.slugs[engine.role][deployment.base.name]
        return pool_name(deployment.provider_name, slug)

    def named(self, engine: Engine, name: str) -> str:
        """Return the service of the instance that is named after a model or a provider."""
        return engine.prefix + self.slugs[engine.role][name]


def instance_names(name: str, provider: Provider) -> list[str]:
    """Return what a provider's instances are named after: its models, or where one process serves
    all, itself.
    """
    if provider.engine and provider.engine.per_provider:
        return [name]
    return [model.name for model in provider.models if not model.adapter_of]


@dataclass(frozen=True, slots=True)
class Listener:
    """A port on some addresses of a host.

    `what` is its name in messages, `role` the one whose callers may connect, `path` where the port
    is set. Of an engine `deployments` are what is served there, and `model` is the path of the
    model whose process it is, if there is one.
    """

    service: str
    role: str
    what: str
    addresses: Sequence[str]
    port: int
    path: Path
    model: Path | None = None
    deployments: tuple[Deployment, ...] = ()


def listeners(
    host: str,
    catalogue: Catalogue,
    topology: Topology,
    services: EngineServices,
    deployments: Sequence[Deployment],
) -> list[Listener]:
    """Return everything that listens on a host. `deployments` are those of its engines."""
    return [
        *_of_redis(catalogue.gateway, host, topology),
        *_of_engines(host, topology, services, deployments),
        *_of_gateway(catalogue.gateway, host, topology),
        *_of_monitoring(catalogue, host, topology),
    ]


def _of_redis(gateway: Gateway, host: str, topology: Topology) -> Iterator[Listener]:
    if host == topology.redis:
        path = ("gateway", "redis", "port")
        yield Listener(
            "redis", "redis", "redis", topology.redis_listen(host), gateway.redis.port, path
        )


def _of_engines(
    host: str, topology: Topology, services: EngineServices, deployments: Sequence[Deployment]
) -> Iterator[Listener]:
    """Yield one listener for each process of an engine."""
    processes: dict[str, list[Deployment]] = {}
    for deployment in deployments:
        processes.setdefault(services.of(deployment), []).append(deployment)
    for service, served in processes.items():
        main = next((one for one in served if one.model.adapter_of is None), served[0])
        engine = main.engine
        yield Listener(
            service,
            engine.role,
            f'"{main.provider_name if engine.per_provider else main.model.name}"',
            [topology.engine_address(host)],
            main.port,
            ("providers", *port_path(main)[1:]),
            None if engine.per_provider else main.path,
            tuple(served),
        )


def _of_gateway(gateway: Gateway, host: str, topology: Topology) -> Iterator[Listener]:
    if host not in topology.gateways:
        return
    for slot, port in gateway.slots.model_dump().items():
        path = ("gateway", "slots", slot)
        yield Listener(f"litellm@{slot}", "litellm", f"gateway slot {slot}", [LOOPBACK], port, path)
    yield Listener(
        "haproxy", "haproxy", "the front end", gateway.listen, gateway.port, ("gateway", "port")
    )
    own = ("gateway", "pool_port")
    yield Listener("haproxy", POOLS, "the pools of engines", [LOOPBACK], gateway.pool_port, own)


def _of_monitoring(catalogue: Catalogue, host: str, topology: Topology) -> Iterator[Listener]:
    settings = catalogue.monitoring
    if settings is None or topology.monitoring is None:
        return
    address = topology.metrics_address(host)
    for kind, port in settings.exporters.model_dump().items():
        if host in exporter_hosts(kind, topology):
            service = "haproxy" if kind == "gateway" else f"exporter@{kind}"
            path = ("monitoring", "exporters", kind)
            yield Listener(service, "exporter", f"the exporter of {kind}", [address], port, path)
    if host == topology.monitoring:
        for role in watchers(catalogue):
            path = ("monitoring", role, "port")
            yield Listener(role, role, role, [LOOPBACK], getattr(settings, role).port, path)


def exporter_hosts(kind: str, topology: Topology) -> Sequence[str | None]:
    """Return the hosts that have the metrics of a kind; `gateway` are those of the front end."""
    where = {
        "gateway": topology.gateways,
        "redis": (topology.redis,),
        "blackbox": (topology.monitoring,),
    }
    return where.get(kind, topology.hosts)


def watchers(catalogue: Catalogue) -> list[str]:
    """Return the services that only the host of Prometheus has. Grafana needs an archive."""
    has_grafana = catalogue.versions is not None and catalogue.versions.grafana is not None
    return [role for role in WATCHERS if role != "grafana" or has_grafana]


@dataclass(slots=True)
class _Clash:
    """Two listeners that want one port, on these hosts. `taken` are all ports there."""

    one: Listener
    other: Listener
    hosts: list[str] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)

    def tell(self, report: Report, offered: set[int]) -> None:
        """Report it with a free port that is not among those `offered` before."""
        more = f" and {len(self.hosts) - 1} more" if len(self.hosts) > 1 else ""
        message = (
            f"{self.one.what} and {self.other.what} both use port {self.other.port} on"
            f" {self.hosts[0]}{more}"
        )
        free = next(
            number
            for number in range(max(self.other.port, PRIVILEGED), 65536)
            if number not in self.taken and number not in offered
        )
        offered.add(free)
        if self.other.path == self.one.path and self.other.model is not None:
            # Both take their provider's port: the second needs one of its own.
            hint = f"give {self.other.what} its own port, such as port: {free}"
            report.error("port-clash", message, self.other.model, hint)
            return
        named = self._named(report.source)
        hint = f"give {named.what} another port, such as {free}"
        if {self.one.model, self.other.model} != {None}:
            own_ports = types_of(lambda engine: not engine.per_provider, "or").replace("`", "")
            hint += f"; a model of {own_ports} can have its own port"
        report.error("port-clash", message, named.path, hint)

    def _named(self, source: SourceMap) -> Listener:
        """Return the listener whose port the user chose: what an override says comes before what is
        written elsewhere, and that before a default, which has no line.
        """
        return max(
            (self.other, self.one),
            key=lambda one: (source.has(one.path), source.overrides(one.path)),
        )


PRIVILEGED = 1024
"""Ports below this one need CAP_NET_BIND_SERVICE (ip(7))."""

SSH_PLUGINS = ("ssh", "smart", "paramiko", "paramiko_ssh")
"""Connections of Ansible to the port of an sshd."""

MAY_BIND = ("haproxy",)
"""Services whose units have that capability; roles/service gives none to the others."""


def check_ports(
    catalogue: Catalogue,
    resolved: Resolved,
    topology: Topology,
    hosts: Mapping[str, Host],
    report: Report,
    broken: frozenset[Path],
) -> None:
    """Report ports that a service may not bind, or that sshd has; and two listeners on one host and
    port, whatever their addresses: logs could not tell them apart.
    """
    by_host: dict[str, list[Deployment]] = {}
    for deployment in resolved.all():
        # An adapter is served by the process of its base model.
        if (
            deployment.host is not None
            and deployment.path not in broken
            and deployment.model.adapter_of is None
        ):
            by_host.setdefault(deployment.host, []).append(deployment)
    services = EngineServices(catalogue)
    clashes: dict[tuple[str, str, int], _Clash] = {}
    privileged: dict[Path, Listener] = {}
    ssh: dict[Path, tuple[Listener, str]] = {}
    for host in topology.hosts:
        sshd = _ssh_port(hosts[host])
        # A model is easier to move than what is there once, so it is the second of two.
        wanted = sorted(
            listeners(host, catalogue, topology, services, by_host.get(host, [])),
            key=lambda one: one.role in ROLES,
        )
        _find_clashes(host, wanted, clashes)
        for one in wanted:
            if one.port < PRIVILEGED and one.service not in MAY_BIND:
                privileged.setdefault(one.path, one)
            elif one.port == sshd:
                ssh.setdefault(one.path, (one, host))
    for path, one in privileged.items():
        report.error(
            "port-privileged",
            f"{one.what} cannot listen on port {one.port}: only the front end may bind ports below"
            f" {PRIVILEGED}",
            path,
            f"choose a port from {PRIVILEGED} on",
        )
    _check_ssh(ssh, report)
    offered: set[int] = set()
    for clash in clashes.values():
        clash.tell(report, offered)


def _ssh_port(host: Host) -> int | None:
    """Return the port of a host's sshd, as far as the inventory says it; None where Ansible uses
    no SSH, or a port of this machine that is forwarded.
    """
    kind, port = host.way.split()[:2]
    if host.local or kind not in SSH_PLUGINS or host.address in (LOOPBACK, "::1", "localhost"):
        return None
    return int(port) if port.isdigit() else None


def _check_ssh(found: Mapping[Path, tuple[Listener, str]], report: Report) -> None:
    """Refuse ports on which a host's sshd listens."""
    for path, (one, host) in found.items():
        report.error(
            "port-clash",
            f"{one.what} cannot use port {one.port} on {host}: Ansible reaches its sshd there",
            path,
            f"choose another port for {one.what}; ansible_port says where sshd listens",
        )


def _find_clashes(
    host: str, wanted: Sequence[Listener], clashes: dict[tuple[str, str, int], _Clash]
) -> None:
    """Add the clashes of one host to `clashes`."""
    taken = {one.port for one in wanted}
    owner: dict[int, Listener] = {}
    for one in wanted:
        first = owner.setdefault(one.port, one)
        if first.what == one.what:
            continue
        clash = clashes.setdefault((first.what, one.what, one.port), _Clash(first, one))
        clash.hosts.append(host)
        clash.taken |= taken
