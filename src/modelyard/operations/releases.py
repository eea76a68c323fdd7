"""What the hosts remember of their releases: as a table, and as the steps that lead back. Pure; who
asks is Ansible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelyard.diagnostics import did_you_mean
from modelyard.names import WATCHERS

History = Mapping[str, Mapping[str, Any]]
"""By service `{live, previous, there, entries}`: the `history` of `modelyard_live`."""

STAGES = ("ground", "engines", "gateway", "monitoring")
"""What is changed one after the other on all hosts, as site.yml does it."""

SHORTEST_ID = 4
"""Characters of a release's identity that are enough to name it, if no other one begins with
them."""


class RollbackError(ValueError):
    """What was asked for cannot be gone back to; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Step:
    """Which release a service goes to. None: it goes away, because it was not there then.

    `at` is when the change was made that is undone, in seconds since 1970; 0 if one service goes
    to a given release.
    """

    host: str
    service: str
    release: str | None
    live: str | None
    at: float = 0

    @property
    def stage(self) -> str:
        """The part of the rollback that it belongs to."""
        kind = self.service.partition("@")[0]
        if kind in ("firewall", "redis"):
            return "ground"
        if kind in ("haproxy", "litellm"):
            return "gateway"
        return "monitoring" if kind in ("exporter", *WATCHERS) else "engines"

    def __str__(self) -> str:
        to = f"to release {self.release}" if self.release else "goes away: it was not there"
        return f"{self.host}: {self.service} {to} (live: {self.live or 'none'})"


def way_back(histories: Mapping[str, History], service: str = "", release: str = "") -> list[Step]:
    """Return the steps of a rollback, in the order of STAGES and as they were changed; engines that
    come back go first.

    `histories` is by host. Without `service` all that the latest run changed is undone, on every
    host; with it that service goes to the release before, or to `release` (or what it begins with).
    Raises RollbackError.
    """
    if release and not service:
        raise RollbackError(
            "release needs service, too: add -e service=NAME; playbooks/releases.yml lists them"
        )
    found = list(
        _to_release(histories, service, release) if service else _undo_latest_run(histories)
    )
    steps = [step for step in found if step.release != step.live]
    order = {stage: place for place, stage in enumerate(STAGES)}
    return sorted(
        steps,
        key=lambda step: (
            order[step.stage],
            step.release is None,
            step.host,
            step.at,
            step.service,
        ),
    )


def _to_release(histories: Mapping[str, History], service: str, release: str) -> Iterator[Step]:
    having = {host: history[service] for host, history in histories.items() if service in history}
    if not having:
        known = sorted({name for history in histories.values() for name in history})
        hint = did_you_mean(service, known) or f"there are {', '.join(known) or 'none'}"
        raise RollbackError(f'no host has a service "{service}": {hint}')
    matching = {host: _matching(entry, release) for host, entry in having.items()}
    if not any(matching.values()):
        there = "; ".join(
            f"{host}: {', '.join(_others(entry)) or 'none'}" for host, entry in having.items()
        )
        wanted = (
            f'has no release "{release}" of {service}'
            if release
            else f"has a release of {service} before this one"
        )
        raise RollbackError(f"no host {wanted}. Available: {there}")
    for host, identifier in matching.items():
        if identifier:
            yield Step(host, service, identifier, having[host]["live"])


def _matching(entry: Mapping[str, Any], release: str) -> str | None:
    if not release:
        previous = entry["previous"]
        return previous if previous in entry["there"] else None
    found = [
        one
        for one in entry["there"]
        if one == release or (len(release) >= SHORTEST_ID and one.startswith(release))
    ]
    if len(found) > 1:
        raise RollbackError(f'several releases begin with "{release}": {", ".join(found)}')
    return found[0] if found else None


def _others(entry: Mapping[str, Any]) -> list[str]:
    return [identifier for identifier in entry["there"] if identifier != entry["live"]]


def _undo_latest_run(histories: Mapping[str, History]) -> Iterator[Step]:
    changes = [
        [
            (entry["at"], entry["run"])
            for entry in service["entries"]
            if entry["outcome"] != "failed" and entry.get("run")
        ]
        for history in histories.values()
        for service in history.values()
    ]
    # A clock that was ahead once says that its run is the latest for ever, though others followed
    # on the same service.
    followed = {run for service in changes for _at, run in service if run != service[-1][1]}
    latest = [service[-1] for service in changes if service]
    if not latest:
        raise RollbackError("no host has a record of a run that changed anything")
    _at, run = max([change for change in latest if change[1] not in followed] or latest)
    gone = []
    for host, history in histories.items():
        for name, service in history.items():
            done = [entry for entry in service["entries"] if entry["outcome"] != "failed"]
            first = next(
                (place for place, entry in enumerate(done) if entry.get("run") == run), None
            )
            if first is None:
                continue
            before = done[first - 1] if first else None
            release = before["release"] if before and before["outcome"] == "live" else None
            if release and release not in service["there"]:
                gone.append(f"{host}: release {release} of {name} no longer exists")
            yield Step(host, name, release, service["live"], done[first]["at"])
    if gone:
        raise RollbackError("\n".join(["the latest run cannot be undone as a whole:", *gone]))


# -- as text ---------------------------------------------------------------------------------------


def render(results: Mapping[str, History | str], now: float) -> str:
    """Return as text what is live on every host, and what can be gone back to. A host that could
    not be asked has a reason.
    """
    lines: list[str] = []
    for host, history in results.items():
        lines.append(f"Host {host}")
        if isinstance(history, str):
            lines.append(f"  {history}")
            continue
        for name, service in history.items():
            lines += [f"  {line}" for line in _service(name, service, now)]
        if not history:
            lines.append("  no services of Modelyard")
    return "\n".join(lines)


def _service(name: str, service: Mapping[str, Any], now: float) -> Iterator[str]:
    entries = service["entries"]
    good = {entry["release"]: entry for entry in entries if entry["outcome"] == "live"}
    live = service["live"]
    if live:
        yield (
            f"{name}  {live} "
            f" {_told(good[live], now) if live in good else 'live, since before there was a history'}"
        )
    else:
        retired = next(
            (entry for entry in reversed(entries) if entry["outcome"] == "retired"), None
        )
        yield f"{name}  {f'retired {_when(retired, now)}' if retired else 'never went live'}"
    if entries and entries[-1]["outcome"] == "failed":
        last = entries[-1]
        yield (
            f"    last change failed {_when(last, now)}: {last['release']},"
            f" {last.get('why', 'no reason given')}"
        )
    for identifier in _others(service):
        if identifier in good:
            note = ", the one before" if identifier == service["previous"] else ""
            yield f"    back to {identifier}  live {_when(good[identifier], now)}{note}"


def _told(entry: Mapping[str, Any], now: float) -> str:
    checks = (
        f", {entry['checks']} checks passed in {entry['seconds']:g} s"
        if entry.get("checks")
        else ""
    )
    return f"live {_when(entry, now)}{checks}"


def _when(entry: Mapping[str, Any], now: float) -> str:
    at = datetime.fromtimestamp(entry["at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    by = f" by {entry['who']}" if entry.get("who") else ""
    what = f" ({entry['what']})" if entry.get("what") else ""
    return (
        f"since {at}, {_ago(now - entry['at'])}{by}{what}"
        if entry["outcome"] == "live"
        else f"{at}{by}{what}"
    )


def _ago(seconds: float) -> str:
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"
