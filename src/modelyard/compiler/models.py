"""Keys of a model that need something else to make sense: its provider, its engine, the model it
belongs to.
"""

from __future__ import annotations

import re
from typing import Any

from modelyard.catalogue.models import ENGINE_KEYS, Model
from modelyard.catalogue.providers import Provider
from modelyard.catalogue.sourcemap import Path
from modelyard.compiler.sources import check_source
from modelyard.diagnostics import did_you_mean, listing
from modelyard.engines import ENGINES
from modelyard.engines.base import PLACEHOLDERS, Engine
from modelyard.kinds import OPTION_NAME, has_password, option_name

SECRET_OPTION = re.compile(r"(^|-)(api-key|token|password|passphrase|secret)$")
"""Options whose values are secrets, whatever the engine."""

QUEUE_KEYS = ("max_parallel", "queue_s")
"""Keys of a model that concern its process: where one serves all models, they are the
provider's."""

BASE_MODELS = (
    *("port", "hosts", "gpus", "vram_mib", "context_length", "quantization", "options"),
    *QUEUE_KEYS,
)
"""Keys that a LoRA adapter shares with the model it belongs to."""


def check_model(
    name: str, provider: Provider, model: Model, at: Path, sound: bool, error: Any
) -> None:
    """Keys that need something else to make sense."""
    written = model.model_fields_set
    if provider.group is None:
        alone = ("source", "options", "hosts", "port", "gpus", "vram_mib")
        for key in (*alone, *QUEUE_KEYS, *ENGINE_KEYS):
            if key in written and getattr(model, key):
                error(
                    "invalid-value",
                    f'{key} has no effect on "{model.name}": provider "{name}" runs elsewhere',
                    (*at, key),
                    "remove it",
                    key=True,
                )
        return
    engine = provider.engine
    assert engine is not None, "the schema allows a group for types of engines only"
    for key in ENGINE_KEYS:
        if getattr(model, key) and key not in engine.keys:
            others = " and ".join(one.name for one in ENGINES if key in one.keys)
            error(
                "invalid-value",
                f'{key} has no effect on "{model.name}": it applies to {others}, not {engine.name}',
                (*at, key),
                "remove it",
                key=True,
            )
    if engine.per_provider:
        _check_queue(name, engine, model, at, error)
    if model.adapter_of is not None:
        _check_adapter(name, provider, model, at, error)
    check_source(name, provider.type, engine, model, at, sound, error)
    called = "served_name" if model.served_name else "name"
    texts = {
        called: [model.served],
        "options": model.options.values(),
        "quantization": [model.quantization],
    }
    for key, values in texts.items():
        for word in PLACEHOLDERS:
            if any(word in str(value) for value in values):
                error(
                    "invalid-value",
                    f'{key} of "{model.name}": {word} is a placeholder that the host fills in',
                    (*at, key),
                    "use other text",
                )
    _check_options(engine, model, at, error)
    for mistake in engine.mistakes(model) if sound else ():
        error(mistake.code, mistake.message, (*at, *mistake.key), mistake.hint, key=True)


def _check_queue(name: str, engine: Engine, model: Model, at: Path, error: Any) -> None:
    """Refuse what concerns a process, of a model that has none of its own."""
    for key in QUEUE_KEYS:
        if getattr(model, key):
            error(
                "invalid-value",
                f'{key} has no effect on "{model.name}": one {engine.title} serves all models of'
                f' "{name}"',
                (*at, key),
                f"set {key} of the provider",
                key=True,
            )


def _check_options(engine: Engine, model: Model, at: Path, error: Any) -> None:
    """Refuse the options that the unit sets, and those in another form than the catalogue's."""
    for option, value in model.options.items():
        name = option_name(option)
        if SECRET_OPTION.search(name):
            message, hint = (
                "would show a secret to everyone on the host: options are words of a command line",
                "remove it: engines get a key of their own, and the hub's token is named in"
                " llm_versions.hugging_face.token_env; replace one that was in a shared file",
            )
        elif has_password(value):
            message, hint = (
                "has a URL with a password, which everyone on the host could read: options are"
                " words of a command line",
                "use an address without a password",
            )
        elif engine.reserves(name):
            message = "is set by the unit, or reaches outside its sandbox"
            hint = engine.instead(name) or "remove it"
        elif name != option:
            message, hint = f"is in another form: {OPTION_NAME}", f"write {name}"
        else:
            continue
        what = f'option "{option}" of "{model.name}" {message}'
        error("invalid-value", what, (*at, "options", option), hint, key=True)


def _check_adapter(name: str, provider: Provider, model: Model, at: Path, error: Any) -> None:
    bases = [other.name for other in provider.models if other.adapter_of is None]
    if model.adapter_of not in bases:
        error(
            "unknown-model",
            f'"{model.name}" is an adapter of "{model.adapter_of}", which is not another model of'
            f' "{name}"',
            (*at, "adapter_of"),
            did_you_mean(str(model.adapter_of), bases)
            or f"models of {name}: {listing(bases) or 'none'}",
        )
    for key in BASE_MODELS:
        if getattr(model, key):
            error(
                "invalid-value",
                f'{key} has no effect on "{model.name}": an adapter uses that of'
                f' "{model.adapter_of}"',
                (*at, key),
                "remove it",
                key=True,
            )
