"""Which embedding models give the same vectors: those of another model have another size, or mean
nothing beside stored ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.catalogue.models import Model

SAY_SO = (
    "only the same model may answer: one with the same source or served_name (the part behind the"
    " last slash, without :latest)"
)
"""What to do about an embedding model that stands in for another one."""


def same_vectors(one: Model, other: Model) -> bool:
    """Return whether two models are one, as the catalogue says it: by a source or by what their
    engines call them.
    """
    return bool(set(_marks(one)) & set(_marks(other)))


def strangers(models: list[Model]) -> list[Model]:
    """Return those of some models that are not the first one. None if they are no embedding
    models.
    """
    if not models or models[0].mode != "embedding":
        return []
    return [
        model
        for model in models[1:]
        if model.mode == "embedding" and not same_vectors(models[0], model)
    ]


def _marks(model: Model) -> Iterator[str]:
    """Yield all that a model can be known by."""
    served = model.served.lower().removesuffix(":latest")
    yield f"name {served.rpartition('/')[2]}"
    if (source := model.source) is None:
        return
    if source.sha256 is not None:
        yield f"sha256 {source.sha256}"
    if source.repo is not None:
        yield f"repo {source.repo.lower()}"
    for place in (source.path, source.url, source.file):
        if place is not None:
            yield f"file {place.rstrip('/').rpartition('/')[2].lower()}"
