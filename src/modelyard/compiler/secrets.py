"""Secrets: who needs which, and what is wrong with what hosts see of them. No value is known here.

Every host gets its secrets from what it sees itself: `llm_secrets` as Ansible gives it to that
host, the environment, and the files beside its inventory. A secret that one host sees and another
does not is generated for the other, and no service would accept that value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from modelyard.catalogue.schema import Catalogue
from modelyard.catalogue.secrets import MISTYPED, VARIABLE, SecretView, SeenSecret
from modelyard.catalogue.sourcemap import Origin, Path, SourceMap
from modelyard.compiler.resolve import Resolved
from modelyard.compiler.topology import Topology
from modelyard.diagnostics import Diagnostic, Severity, listing, variable_path
from modelyard.names import (
    GRAFANA_PASSWORD,
    GRAFANA_SECRET_KEY,
    MASTER_KEY,
    REDIS_MONITOR_PASSWORD,
    REDIS_PASSWORD,
    ROTATED,
    STACK,
    former,
)

Kind = Literal["own", "engine", "client", "provider", "service"]
"""Whose secret it is: Modelyard's, an engine's of ours, a client's, a provider's elsewhere, or a
service's that gets model files or alerts."""


@dataclass(frozen=True, slots=True)
class Use:
    """A secret that something needs. `owner` is for messages, `hosts` get its value, `path` is
    where the catalogue names it, if it does.
    """

    name: str
    kind: Kind
    owner: str
    hosts: tuple[str, ...]
    path: Path = ()

    @property
    def generated(self) -> bool:
        """Whether it is generated where it is not defined."""
        return self.kind in ("own", "client") or (self.kind == "engine" and not self.path)


def uses(
    catalogue: Catalogue, resolved: Resolved, topology: Topology, defined: frozenset[str]
) -> list[Use]:
    """Return every secret that the plans name, once for each of its owners, and who gets it.

    `defined` are the secrets that are defined somewhere: a former value is used while it is there.
    """
    found = list(_own(catalogue, topology, defined))
    found += _of_providers(resolved, topology)
    found += _of_services(catalogue, resolved, topology)
    found += [
        Use(
            client.secret,
            "client",
            f'the key of client "{name}"',
            topology.gateways,
            ("clients", name, "secret"),
        )
        for name, client in catalogue.clients.items()
    ]
    return found


def _own(catalogue: Catalogue, topology: Topology, defined: frozenset[str]) -> Iterator[Use]:
    gateways, redis = topology.gateways, topology.redis
    watching = topology.monitoring if catalogue.monitoring else None
    own = {MASTER_KEY: gateways}
    if redis is not None:
        own[REDIS_PASSWORD] = tuple(dict.fromkeys((redis, *gateways)))
        if watching is not None:
            own[REDIS_MONITOR_PASSWORD] = (redis,)
    for name in ROTATED:
        if name in own and former(name) in defined:
            own[former(name)] = gateways if name == MASTER_KEY else (str(redis),)
    if watching is not None and catalogue.versions and catalogue.versions.grafana:
        own |= {GRAFANA_PASSWORD: (watching,), GRAFANA_SECRET_KEY: (watching,)}
    for name, hosts in own.items():
        yield Use(name, "own", "a secret of Modelyard itself", hosts)


def _of_providers(resolved: Resolved, topology: Topology) -> Iterator[Use]:
    """Yield the keys of engines and of providers elsewhere."""
    hosts: dict[str, dict[str, None]] = {}
    first = {one.provider_name: one for one in reversed(resolved.all()) if one.secret}
    for one in resolved.all():
        if one.secret is None:
            continue
        reached = hosts.setdefault(one.provider_name, dict.fromkeys(topology.gateways))
        if one.host is not None:
            reached[one.host] = None
            if topology.monitoring and one.engine.metrics and one.engine.metrics.keyed:
                reached[topology.monitoring] = None
    for name, reached in hosts.items():
        one = first[name]
        path = ("providers", name, "api_key_env") if one.provider.api_key_env else ()
        kind: Kind = "provider" if one.host is None else "engine"
        yield Use(str(one.secret), kind, f'the key of provider "{name}"', tuple(reached), path)


def _of_services(catalogue: Catalogue, resolved: Resolved, topology: Topology) -> Iterator[Use]:
    """Yield the secrets for model repositories and alerts."""
    token = catalogue.versions.hugging_face.token_env if catalogue.versions else None
    fetching = dict.fromkeys(
        one.host
        for one in resolved.all()
        if one.host and one.model.source and one.model.source.repo
    )
    if token and fetching:
        path: Path = ("versions", "hugging_face", "token_env")
        yield Use(token, "service", "the token for model repositories", tuple(fetching), path)
    if catalogue.monitoring is None or topology.monitoring is None:
        return
    settings = catalogue.monitoring.alertmanager
    at: Path = ("monitoring", "alertmanager")
    if settings.webhook and settings.webhook.token_env:
        path = (*at, "webhook", "token_env")
        name, what = settings.webhook.token_env, "the token of the webhook for alerts"
        yield Use(name, "service", what, (topology.monitoring,), path)
    if settings.email and settings.email.password_env:
        path = (*at, "email", "password_env")
        name, what = settings.email.password_env, "the password for e-mail"
        yield Use(name, "service", what, (topology.monitoring,), path)


def check_values(
    used: Sequence[Use], views: Sequence[SecretView], source: SourceMap
) -> list[Diagnostic]:
    """Return what is wrong with the values of secrets that are used: such that cannot be used, that
    differ between hosts, that a host does not see, and that two secrets share.
    """
    checks = _Values(used, views, source)
    checks.stores()
    for use in _by_name(used):
        checks.unusable(use)
        checks.differing(use)
        checks.unseen(use)
    checks.shared()
    return checks.found


def _by_name(used: Sequence[Use]) -> list[Use]:
    """Return one use for each secret, with the hosts of all."""
    merged: dict[str, Use] = {}
    for use in used:
        before = merged.setdefault(use.name, use)
        hosts = tuple(dict.fromkeys((*before.hosts, *use.hosts)))
        merged[use.name] = Use(use.name, before.kind, before.owner, hosts, before.path)
    return list(merged.values())


class _Values:
    """The checks of values: what is known while they run."""

    def __init__(self, used: Sequence[Use], views: Sequence[SecretView], source: SourceMap) -> None:
        self.used, self.views, self.source = used, views, source
        self.found: list[Diagnostic] = []

    def report(
        self,
        code: str,
        message: str,
        use: Use,
        seen: SeenSecret | None,
        hint: str,
        severity: Severity = "error",
    ) -> None:
        """Add a diagnostic at the secret's value, or where the catalogue names it."""
        in_variable = seen is not None and seen.where == VARIABLE
        path = variable_path(use.path) if use.path and not in_variable else (VARIABLE, use.name)
        origin = (seen.origin if seen else None) or (
            self.source.origin(use.path) if use.path else None
        )
        self.found.append(Diagnostic(code, severity, message, path, origin, hint))

    def seeing(self, use: Use) -> list[tuple[list[str], SecretView]]:
        """Return the views of the hosts that need a secret, with these hosts."""
        mine = [([host for host in view.hosts if host in use.hosts], view) for view in self.views]
        return [(hosts, view) for hosts, view in mine if hosts]

    def stores(self) -> None:
        """Refuse a directory of secrets that cannot be read."""
        for store, fault in dict.fromkeys((view.store, view.fault) for view in self.views):
            if fault:
                message = f"the secrets in {store} cannot be used: it {fault}"
                hint = "make it a directory that you can read, or remove it"
                self.found.append(Diagnostic("secret-unusable", "error", message, (), None, hint))

    def unusable(self, use: Use) -> None:
        """Refuse a value that no service could use."""
        told: set[tuple[str, str]] = set()
        # One that is set to nothing anywhere, and defined nowhere, is told of at that place.
        places = {view.secrets[use.name] for view in self.views if use.name in view.secrets}
        defined = any(seen.is_there for seen in places)
        for view in self.views if not defined else [view for _, view in self.seeing(use)]:
            seen = view.secrets.get(use.name)
            if seen is None:
                continue
            fault = seen.fault
            if not fault and seen.unsendable and use.kind in ("engine", "client", "provider"):
                fault = "has white space or characters that a key cannot have"
            if not fault and seen.number == 0 and (use.generated or seen.where == VARIABLE):
                fault = "is empty"
            typed = seen.where == VARIABLE and fault in MISTYPED
            if not fault or typed or (fault, seen.where) in told:
                continue
            told.add((fault, seen.where))
            place = "" if seen.origin else f" in {seen.where}"
            self.report(
                "secret-unusable",
                f"{use.name}, {use.owner}, {fault}{place}",
                use,
                seen,
                _remedy(use, seen),
            )

    def differing(self, use: Use) -> None:
        """Refuse two values of one secret."""
        values: dict[int, tuple[str, SeenSecret]] = {}
        for view in self.views:
            seen = view.secrets.get(use.name)
            if seen is not None and seen.number:
                values.setdefault(seen.number, (view.hosts[0], seen))
        for host, seen in list(values.values())[1:]:
            first, other = next(iter(values.values()))
            self.report(
                "secret-differs",
                f"{use.name}, {use.owner}, has two values: one for {host}"
                f" ({_place(seen)}) and another for {first} ({_place(other)})",
                use,
                seen,
                f"keep one of them, in group_vars/{STACK}",
            )

    def unseen(self, use: Use) -> None:
        """Refuse a secret that a host needs and does not see, while another host does: it would be
        generated for the first one.
        """
        places = {
            seen: view.hosts[0]
            for view in reversed(self.views)
            if (seen := view.secrets.get(use.name)) and seen.is_there
        }
        missing = [
            (hosts, view)
            for hosts, view in self.seeing(use)
            if not (seen := view.secrets.get(use.name)) or not seen.is_there
        ]
        lacking = [host for hosts, _view in missing for host in hosts]
        stores = list(dict.fromkeys(view.store for _hosts, view in missing))
        if not lacking:
            return
        if places:
            seen, host = list(places.items())[-1]
            if own := self.replacing(use.name, seen, [view for _hosts, view in missing]):
                self.found.append(
                    Diagnostic(
                        "secret-undefined",
                        "error",
                        f"{use.name}, {use.owner}, is not in this {VARIABLE}, which {own.hosts[0]}"
                        f" has instead of the one with it ({_place(seen)})",
                        (VARIABLE,),
                        own.origin,
                        f"it replaces that one for {listing(own.hosts)}: add {use.name} here, or"
                        f" move what is here to group_vars/{STACK}",
                    )
                )
                return
            self.report(
                "secret-undefined",
                f"{use.name}, {use.owner}, is defined for {host} ({_place(seen)}), but not for"
                f" {listing(lacking)}, where it is needed, too",
                use,
                seen,
                f"define it in group_vars/{STACK}: Ansible takes one {VARIABLE} for a host, and"
                " merges none",
            )
        elif use.generated and len(stores) > 1:
            self.report(
                "secret-undefined",
                f"{use.name}, {use.owner}, would be generated in {listing(stores)}, and their"
                " hosts would have different values",
                use,
                None,
                f"define it in {VARIABLE}, or keep the hosts in one inventory",
            )

    def replacing(
        self, name: str, seen: SeenSecret, missing: Sequence[SecretView]
    ) -> SecretView | None:
        """Return the first view whose llm_secrets Ansible takes instead of the one with a secret:
        that of a host wins over that of a group, and of groups the one with fewer hosts.
        """
        if seen.where != VARIABLE:
            return None

        def rank(origin: Origin | None, hosts: Sequence[str]) -> tuple[bool, int]:
            return "host_vars" not in str(origin), len(hosts)

        with_it = [view.hosts for view in self.views if view.secrets.get(name) == seen]
        known = max((rank(seen.origin, hosts) for hosts in with_it), default=(False, 0))
        own = [view for view in missing if view.origin and rank(view.origin, view.hosts) < known]
        return own[0] if own else None

    def shared(self) -> None:
        """Refuse one value for two secrets where one of them may not be known to who has the
        other.
        """
        numbers: dict[int, dict[str, tuple[Use, SeenSecret]]] = {}
        for use in self.used:
            for _hosts, view in self.seeing(use):
                seen = view.secrets.get(use.name)
                if seen is not None and seen.number:
                    numbers.setdefault(seen.number, {}).setdefault(use.name, (use, seen))
        for members in numbers.values():
            for (one, _), (two, seen) in combinations(members.values(), 2):
                severity = _together(one, two)
                if severity is not None:
                    self.report(
                        "secret-shared",
                        f"{two.name}, {two.owner}, has the same value as {one.name}, {one.owner}",
                        two,
                        seen,
                        "give each a value of its own"
                        + ("; one is generated where none is defined" if two.generated else ""),
                        severity,
                    )


def _together(one: Use, two: Use) -> Severity | None:
    """Return how bad it is that two secrets have one value; None if it is not."""
    kinds = {one.kind, two.kind}
    names = {one.name, two.name}
    if any(former(name) in names for name in names):
        return None
    outside = kinds & {"provider", "service"}
    if "client" in kinds or ("own" in kinds and outside):
        return "error"
    if "own" in kinds and names & {MASTER_KEY, former(MASTER_KEY)} and "engine" in kinds:
        return "error"
    return "warning" if "own" in kinds else None


def _place(seen: SeenSecret) -> str:
    return str(seen.origin) if seen.origin else seen.where


def _remedy(use: Use, seen: SeenSecret) -> str:
    """Return what to do about a value that cannot be used."""
    if "line" in seen.fault or "white space" in seen.fault:
        return "put the value alone on one line"
    if use.generated:
        return "remove it there, and one is generated; or put a value there"
    return "put its value there, or remove it"
