"""URLs of providers that run elsewhere: what is called for them, a loop, a key in clear text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from modelyard.addresses import same
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.sourcemap import Path, SourceMap
from modelyard.compiler.inventory import Inventory
from modelyard.compiler.listeners import EngineServices, listeners
from modelyard.compiler.topology import Topology
from modelyard.diagnostics import Diagnostic, Report
from modelyard.urls import corrected, is_loopback, is_public, server_of


def check_base_urls(
    catalogue: Catalogue,
    topology: Topology,
    inventory: Inventory,
    source: SourceMap,
    broken: frozenset[Path],
) -> list[Diagnostic]:
    """Return what is wrong with addresses, but for those within what the schema has refused."""
    report = Report(source)
    _BaseUrls(catalogue, topology, inventory, report).check()
    return report.outside(broken)


class _BaseUrls:
    """Checks the `base_url` of every provider that is in use."""

    def __init__(
        self, catalogue: Catalogue, topology: Topology, inventory: Inventory, report: Report
    ) -> None:
        self.catalogue, self.topology, self.report = catalogue, topology, report
        self.names = _names(topology, inventory)
        services = EngineServices(catalogue)
        self.listeners = {
            host: listeners(host, catalogue, topology, services, []) for host in topology.hosts
        }

    def check(self) -> None:
        """Check all of it."""
        for name, provider in self.catalogue.providers.items():
            if provider.base_url is not None and provider.status == "active":
                self.provider(("providers", name, "base_url"), provider, provider.base_url)
        for path, url, secret in self.others():
            if secret is not None:
                self.in_clear(path, url, secret)

    def others(self) -> Iterator[tuple[Path, str, str | None]]:
        """Yield other addresses that a secret is sent to, with its name."""
        if self.catalogue.versions:
            hub = self.catalogue.versions.hugging_face
            yield ("versions", "hugging_face", "endpoint"), hub.endpoint, hub.token_env
        if self.catalogue.monitoring and (hook := self.catalogue.monitoring.alertmanager.webhook):
            yield ("monitoring", "alertmanager", "webhook", "url"), hook.url, hook.token_env

    def provider(self, path: Path, provider: Provider, url: str) -> None:
        """Check one provider's."""
        called, why = corrected(provider.type, url)
        if why:
            self.report.warning(
                "address-corrected",
                f"{url} is called as {called}, {why}",
                path,
                f'write "{called}"',
            )
        if provider.type == "openai_compatible" and not urlsplit(url).path:
            self.report.warning(
                "address-doubtful",
                f"{url} has no path, so the gateway calls {url}/chat/completions",
                path,
                f'most servers want "{url}/v1"',
            )
        if urlsplit(url).path.endswith("/V1"):
            self.report.warning(
                "address-doubtful",
                f"{url} ends in /V1, and paths have lower and upper case",
                path,
                f'most servers want "{url.removesuffix("/V1")}/v1"',
            )
        host, port = server_of(url)
        hosts = self.hosts(host)
        for one in hosts:
            if what := self.own(one, host, port):
                self.report.error(
                    "address-loop",
                    f"{url} is {what} of {one} itself",
                    path,
                    "write the address of what the models run on",
                )
                return
        if provider.api_key_env is not None:
            self.in_clear(path, url, provider.api_key_env)

    def in_clear(self, path: Path, url: str, secret: str) -> None:
        """Warn of a secret that crosses the internet for everybody to read."""
        host, _ = server_of(url)
        if url.startswith("http://") and is_public(host) and host not in self.names:
            self.report.warning(
                "address-doubtful",
                f"{secret} is sent to {host} without encryption",
                path,
                "write https://, unless the way there is private",
            )

    def hosts(self, host: str) -> list[str]:
        """Return the hosts of the inventory that a host of a URL is, called by a gateway."""
        if is_loopback(host):
            return list(self.topology.gateways)
        own = self.catalogue.gateway.listen
        if host in own:
            return list(self.topology.gateways)
        return self.names.get(host, [])

    def own(self, host: str, called: str, port: int) -> str:
        """Return what of ours, an engine apart, listens there; empty if nothing does."""
        for one in self.listeners[host]:
            everywhere = not {"0.0.0.0", "::"}.isdisjoint(one.addresses)
            there = any(
                is_loopback(address) if is_loopback(called) else not is_loopback(address)
                for address in one.addresses
            )
            if one.port == port and (everywhere or there):
                return one.what
        return ""


def _names(topology: Topology, inventory: Inventory) -> Mapping[str, list[str]]:
    """Return by address and by name which hosts of the inventory have it."""
    found: dict[str, list[str]] = {}
    for name in topology.hosts:
        for text in (name, topology.addresses[name], str(inventory.hosts[name].address)):
            key = same(text)
            if name not in found.setdefault(key, []):
                found[key].append(name)
    return found
