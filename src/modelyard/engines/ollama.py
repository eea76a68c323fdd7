"""Ollama: one process per provider serves all its models, which it loads on the first request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from modelyard.engines.base import FORMER_OF_ALL, Constraint, Engine, Foreign, Probe, Process
from modelyard.kinds import (
    SHA256_EXAMPLE,
    AbsolutePath,
    Archive,
    Duration,
    HostPort,
    HttpUrl,
    OwnDirectory,
    Release,
    Strict,
    Tokens,
    Version,
    WebOrigin,
    WholeSeconds,
    refused_below,
    unit,
)
from modelyard.names import url_host

if TYPE_CHECKING:
    from modelyard.catalogue.models import Model


class OllamaSettings(Strict):
    """How an Ollama of ours runs."""

    models_path: OwnDirectory | None = Field(None, examples=["/srv/ollama/models"])
    """Where it keeps its models: a directory for this alone, which two cannot share. The store of
    an Ollama that was there before can be adopted (roles/ollama/README.md). Default: below
    /var/lib/modelyard/ollama."""
    keep_alive: Duration = Field("30m", examples=["24h"])
    """A model stays loaded this long after its last request. A cold one makes the next request wait
    for the disk."""
    num_parallel: Annotated[int, Field(gt=0, le=1024)] | None = Field(None, examples=[2])
    """Requests a model answers at once; each takes memory for a whole `context_length`. Default:
    Ollama's own choice, which is one."""
    max_loaded_models: Annotated[int, Field(gt=0, le=1024)] | None = Field(None, examples=[2])
    """Models that are loaded at once, at least those with `preload`. Default: Ollama's own choice,
    by memory. The GPUs are planned for this many of the largest (by default for as many as have
    `preload`, at least one)."""
    context_length: Tokens | None = Field(None, examples=[8192], json_schema_extra=unit("tokens"))
    """Context of models that do not say `context_length`. Default: Ollama's own."""
    flash_attention: bool = Field(True, examples=[False])
    """Less memory for long contexts."""
    origins: list[WebOrigin] = Field([], examples=[["https://chat.example.org"]])
    """Web pages that may call it from a browser, beside those of this machine. The gateway needs
    none."""
    registry: HostPort | None = Field(None, examples=["registry.example.org:5000"])
    """Where models are pulled from, if not from Ollama's own registry."""
    insecure_registry: bool = Field(False, examples=[True])
    """Use the registry without TLS."""
    prune: bool = Field(False, examples=[True])
    """Delete models on the host that the catalogue does not name."""
    pull_attempts: Annotated[int, Field(gt=0, le=100)] = Field(
        5, examples=[10], json_schema_extra=unit("attempts")
    )
    """A pull fails after this many consecutive attempts without data."""
    pull_stall_s: WholeSeconds = Field(120, examples=[600], json_schema_extra=unit("seconds"))
    """An attempt ends after this long without data."""


class OllamaArchive(Archive):
    """Where Ollama's archive comes from; exactly one of `url` and `path`. `{version}` stands for
    the version.
    """

    url: HttpUrl | None = Field(
        None, examples=["https://example.org/v{version}/ollama-linux-amd64.tar.zst"]
    )
    """An address the controller fetches from: the project's own, or a mirror."""
    path: AbsolutePath | None = Field(None, examples=["/srv/ollama-linux-amd64.tar.zst"])
    """A file on the controller."""


class OllamaVersion(Release):
    """Ollama's release."""

    floor = (0, 17, 1)
    version: Version = Field(examples=["0.17.4"], description=refused_below(floor))
    source: OllamaArchive = Field(
        examples=[{"path": "/srv/ollama-linux-amd64.tar.zst", "sha256": SHA256_EXAMPLE}]
    )
    """Its archive."""

    def build(self) -> dict[str, Any]:
        """Return what a plan says of the program itself, with the version in its source."""
        return {**super().build(), "source": self.source.of(self.version)}


class Ollama(Engine):
    """What Ollama does its own way."""

    def instance(self, process: Process) -> dict[str, Any]:
        """Return Ollama's own keys: the provider's settings, all models, and the environment."""
        return {
            "settings": process.settings.model_dump(),
            "models": [_model(model) for model in process.models],
            "environment": self.environment(process),
        }

    def environment(self, process: Process) -> dict[str, str]:
        """Variables of the server: it takes no words."""
        settings: OllamaSettings = process.settings
        home = _home(process.service)
        values = {
            "OLLAMA_HOST": f"{url_host(process.address)}:{process.port}",
            # Where the server sees the models: another place of theirs is shown to it below its
            # home.
            "OLLAMA_MODELS": (
                f"{home}/{'models' if settings.models_path is None else 'models_path'}"
            ),
            "OLLAMA_KEEP_ALIVE": settings.keep_alive,
            "OLLAMA_FLASH_ATTENTION": int(settings.flash_attention),
            "OLLAMA_NUM_PARALLEL": settings.num_parallel,
            "OLLAMA_MAX_LOADED_MODELS": settings.max_loaded_models,
            "OLLAMA_CONTEXT_LENGTH": settings.context_length,
            "OLLAMA_ORIGINS": ",".join(settings.origins) or None,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def at_once(self, settings: OllamaSettings, models: Sequence[Model]) -> int:
        """Return for how many models the GPUs are planned: as many as the settings say, else as
        stay loaded, at least one.
        """
        return settings.max_loaded_models or max(1, sum(model.preload for model in models))

    def context(self, model: Model, settings: OllamaSettings) -> int | None:
        """Return the tokens of context of all parallel requests; None if no length is declared."""
        length = self.window(model, settings)
        return None if length is None else length * self.slots(model, settings)

    def window(self, model: Model, settings: OllamaSettings | None) -> int | None:
        """Return the model's, else the server's length; None where that is Ollama's own choice."""
        return model.context_length or (settings.context_length if settings else None)

    def slots(self, model: Model, settings: OllamaSettings) -> int:
        """Return `num_parallel`; Ollama's own choice is one (0.17.4, envconfig)."""
        return settings.num_parallel or 1

    def parallel(self, models: Sequence[Model], settings: OllamaSettings) -> int | None:
        """Return the slots of an only model. Of several, requests for one that waits must not hold
        up those for another.
        """
        return self.slots(models[0], settings) if len(models) == 1 else None

    def unestimated(self, model: Model) -> str | None:
        """Return why a model without a source has no estimate; None for one with a source."""
        return (
            None if model.source else "Ollama keeps its file; declare vram_mib to have it counted"
        )

    def store(self, service: str, settings: OllamaSettings) -> str:
        """Return the directory of its models: the one that is set, or below its home."""
        return settings.models_path or f"{_home(service)}/models"

    def places(self, part: Mapping[str, Any]) -> list[str]:
        """Return the stores of models, and the notes of what they were made from."""
        found = super().places(part)
        for one in part["instances"]:
            home = _home(one["service"])
            found += [one["settings"]["models_path"] or f"{home}/models", f"{home}.json"]
        return found

    def loaded(self, instance: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the models with `preload`."""
        names = [self.listed(one["served_name"]) for one in instance["models"] if one["preload"]]
        url = f"http://{instance['environment']['OLLAMA_HOST']}{self.loaded_path}"
        return {"url": url, "models": names} if names else None

    def identity(self, served_name: str) -> str:
        """Return the name in full, in lower case: without a tag it is `latest`, without a registry
        its own (0.17.4, types/model/name.go).
        """
        name = self.listed(served_name).lower()
        return name.removeprefix("registry.ollama.ai/").removeprefix("library/")

    def listed(self, served_name: str) -> str:
        """Return the name as /v1/models lists it: with the tag `latest` if it has none."""
        return served_name if ":" in served_name else f"{served_name}:latest"

    def adoption(self, provider: str) -> str:
        """Return how to adopt the models of an Ollama that its own installer set up."""
        setting = f"llm_providers.{provider}.ollama.models_path"
        return (
            f"Its models need not be pulled again: {setting} adopts their directory"
            " (roles/ollama/README.md)"
        )


def _home(service: str) -> str:
    return f"/var/lib/modelyard/{service.replace('@', '/')}"


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "served_name": model.served,
        "source": model.planned_source,
        "context_length": model.context_length,
        "preload": model.preload,
        "parameters": {option.replace("-", "_"): value for option, value in model.options.items()},
    }


ENGINE = Ollama(
    title="Ollama",
    provider_type="ollama",
    role="ollama",
    version=OllamaVersion,
    version_example={
        "version": "0.17.4",
        "source": {"path": "/srv/ollama-linux-amd64.tar.zst", "sha256": SHA256_EXAMPLE},
    },
    settings=OllamaSettings,
    settings_example={"keep_alive": "24h"},
    former={
        **FORMER_OF_ALL,
        "pull_attempts": ("providers", "ollama", "pull_attempts"),
        "pull_stall_s": ("providers", "ollama", "pull_stall_s"),
    },
    # It loads no model.
    ready_timeout_s=60,
    per_provider=True,
    pulls=True,
    library="ollama.com",
    keys=frozenset({"preload"}),
    keyed=False,
    health="/api/version",
    probe=Probe("/api/version", "http_2xx"),
    # What `context_length` says.
    unsafe=frozenset({"num-ctx"}),
    own={"num-ctx": "use the key context_length"},
    on_demand=True,
    own_api="/api",
    holds="max_loaded_models",
    keeps="models_path",
    loaded_path="/api/ps",
    # 0.17.4, server/routes.go; its models for pictures, which nothing here knows as such, are left
    # out.
    # `truncate: false` is a field of its own API alone (0.17.4, middleware/openai.go has none).
    cuts_prompts=True,
    # The same in its runner (0.17.4, llama/llama.go, `NewGrammarSampler`), for all requests to a
    # model. A look-ahead in a pattern ends the server, with all models. It makes no grammar of
    # tools.
    constraint=Constraint(schemas=("response_format", "text")),
    # What was pulled by hand is kept.
    lists_others=True,
    # 0.17.4, server/routes.go
    contexts=((47 * 1024, 262144), (23 * 1024, 32768), (0, 4096)),
    foreign=Foreign("ollama.service", 11434, "ollama"),
)
