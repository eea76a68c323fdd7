"""`llm_versions`: what is deployed of every component, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, create_model

from modelyard.catalogue.withdrawn import withdrawn
from modelyard.engines import ENGINES
from modelyard.engines.base import Accelerated, Backend, Engine
from modelyard.kinds import (
    SHA256_EXAMPLE,
    AbsolutePath,
    Archive,
    BaseUrl,
    FromIndex,
    HttpUrl,
    Release,
    SecretName,
    Strict,
    Version,
    refused_below,
)


class LitellmVersion(FromIndex):
    """The gateway's release."""

    # The advisories of BerriAI/litellm; catalogue/withdrawn.py lists compromised releases.
    floor = (1, 83, 7)
    version: Version = Field(
        examples=["1.106.2"],
        description=(
            "roles/litellm/files/locks needs a lock file with hashes of this version."
            f" {refused_below(floor)}"
        ),
    )


class GrafanaArchive(Archive):
    """Where Grafana's archive comes from; exactly one of `url` and `path`. `{version}` stands for
    the version.
    """

    url: HttpUrl | None = Field(
        None, examples=["https://example.org/grafana-{version}.linux-amd64.tar.gz"]
    )
    """An address the controller fetches from: the project's own, or a mirror."""
    path: AbsolutePath | None = Field(None, examples=["/srv/grafana.linux-amd64.tar.gz"])
    """A file on the controller."""


class GrafanaVersion(Release):
    """Grafana's release."""

    version: Version = Field(examples=["12.3.0"])
    """Names it in the store."""
    source: GrafanaArchive = Field(
        examples=[{"path": "/srv/grafana.linux-amd64.tar.gz", "sha256": SHA256_EXAMPLE}]
    )
    """Its archive."""


class HuggingFace(Strict):
    """The hub for model repositories."""

    endpoint: BaseUrl = Field("https://huggingface.co", examples=["https://hub.example.org"])
    """Hugging Face, or a mirror of it."""
    token_env: SecretName | None = Field(None, examples=["HF_TOKEN"])
    """Name of the secret that holds the token, for repositories that need one."""


class _GatewayVersion(Strict):
    litellm: LitellmVersion = Field(examples=[{"version": "1.106.2"}])
    """The gateway."""


if TYPE_CHECKING:
    _EngineVersions = _GatewayVersion
else:
    # An engine's entry has the name of its role.
    _EngineVersions = create_model(
        "_EngineVersions",
        __base__=_GatewayVersion,
        **{
            engine.role: (
                engine.version | None,
                Field(None, examples=[engine.version_example], description=engine.version.__doc__),
            )
            for engine in sorted(ENGINES, key=lambda engine: engine.role)
        },
    )


class Versions(_EngineVersions):
    """Every component's version and checksum."""

    grafana: GrafanaVersion | None = Field(
        None,
        examples=[
            {
                "version": "12.3.0",
                "source": {"path": "/srv/grafana.linux-amd64.tar.gz", "sha256": SHA256_EXAMPLE},
            }
        ],
    )
    """Grafana. Without it dashboards are left out."""
    hugging_face: HuggingFace = Field(
        HuggingFace(), examples=[{"endpoint": "https://hub.example.org"}]
    )
    """Where `source: {repo: ...}` is fetched from."""

    def backend(self, engine: Engine) -> Backend | None:
        """Return what an engine is built for; None for one without a choice of builds."""
        entry = self.of(engine.role)
        return entry.backend if isinstance(entry, Accelerated) else None

    def of(self, component: str) -> Release | None:
        """Return the entry of a component that has a version; None if it has none here, or if there
        is no such component.
        """
        entry = getattr(self, component, None)
        return entry if isinstance(entry, Release) else None


@dataclass(frozen=True, slots=True)
class Lock:
    """A file of locked packages of a role: the version that its name says, and what it pins."""

    role: str
    version: str
    file: str
    packages: Mapping[str, str]


COMPONENTS: dict[str, type[Release]] = {
    "litellm": LitellmVersion,
    **{engine.role: engine.version for engine in sorted(ENGINES, key=lambda engine: engine.role)},
    "grafana": GrafanaVersion,
}
"""What has a version in the catalogue."""


def below_floor(component: str, version: str) -> str:
    """Return the oldest version of a component without known holes, if `version` is older; else an
    empty string.
    """
    kind = COMPONENTS.get(component)
    return kind.least(version) if kind else ""


def unsafe(component: str, version: str) -> str:
    """Return why a version of a component must not run, to follow both in a sentence; empty if
    nothing is known against it.
    """
    if why := withdrawn(component, version):
        return f"must not run: {why}"
    least = below_floor(component, version)
    return f"is below {least}, the minimum version without known vulnerabilities" if least else ""
