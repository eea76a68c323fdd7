"""llama.cpp's server in Python: one process per model, which is a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from modelyard.engines.base import (
    MODEL,
    OPTIONS,
    Constraint,
    Engine,
    Flag,
    Mistake,
    Probe,
    Process,
    Value,
)
from modelyard.engines.llama_cpp import (
    FORMER,
    PARALLEL,
    SIGHT,
    WHOLE_TOKENS,
    LlamaCppBuild,
    gpu_check,
)
from modelyard.kinds import AbsolutePath, HttpUrl, Strict, Version, misfit, refused_below

if TYPE_CHECKING:
    from modelyard.catalogue.models import Model


class LockedArchive(Strict):
    """Where an archive comes from whose checksum is in a lock file; exactly one of `url` and
    `path`.
    """

    url: HttpUrl | None = Field(None, examples=["https://example.org/source.tar.gz"])
    """An address the controller fetches from."""
    path: AbsolutePath | None = Field(None, examples=["/srv/source.tar.gz"])
    """A file on the controller."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise misfit("a source needs exactly one of url and path", "url", "path")
        return self


class LlamaCppPythonVersion(LlamaCppBuild):
    """The release of llama-cpp-python, llama.cpp's server in Python."""

    # CVE-2024-34359: a model's chat template runs code below 0.2.72.
    floor = (0, 2, 72)
    version: Version = Field(
        examples=["0.3.36"],
        description=(
            "roles/llama_cpp_python/files/locks needs a lock file with hashes of this version."
            f" {refused_below(floor)}"
        ),
    )
    source: LockedArchive | None = Field(None, examples=[{"path": "/srv/source.tar.gz"}])
    """Its source archive, if that is not to come from the Python package index. The lock file has
    its checksum."""


EMBEDDING = "embedding"
"""The option without which it answers 500 to a request for an embedding."""

BATCHES = ("n-batch", "n-ubatch")
"""It cuts an input to what fits into one batch (llama.py, `embed`)."""


def for_embeddings(name: str, value: Callable[[Process], Value]) -> Flag:
    """Return a flag of an embedding model whose options do not have it."""

    def wanted(process: Process) -> Value:
        given = process.model.mode != "embedding" or name in process.options
        return None if given else value(process)

    return Flag(name, wanted, default=True)


class LlamaCppPython(Engine):
    """What llama-cpp-python does its own way."""

    def parallel(self, models: Sequence[Model], settings: Any) -> int | None:
        """Return one: it answers one request after the other."""
        return 1

    def mistakes(self, model: Model) -> list[Mistake]:
        """Return an option of the other server of llama.cpp, with which this one does not start."""
        if PARALLEL not in model.options:
            return []
        message = f'option "{PARALLEL}" of "{model.name}" is one of llama.cpp (native)'
        hint = "remove it: this server answers one request after the other"
        return [Mistake("invalid-value", ("options", PARALLEL), message, hint)]

    def gpu_checks(self, process: Process) -> list[dict[str, Any]]:
        """Return the check that layers are on GPUs: all, or some if the user says how many."""
        return [
            gpu_check(
                process,
                "some" if "n-gpu-layers" in process.options else "all",
                "n_gpu_layers or verbose",
            )
        ]


ENGINE = LlamaCppPython(
    title="llama-cpp-python",
    provider_type="llama_cpp",
    flavour="python",
    role="llama_cpp_python",
    version=LlamaCppPythonVersion,
    version_example={"version": "0.3.36"},
    former={
        **FORMER,
        "cmake_options": ("versions", "cmake_options"),
        "source": ("versions", "source"),
    },
    locked=True,
    splits=True,
    keys=frozenset({"port"}),
    probe=Probe("/v1/models", "http_401_is_up"),
    underscores=True,
    # The first three: the server's own defaults would hurt. Later words win.
    vector=(
        # Any other request, even one for the list of models, ends a running stream half-way with
        # [DONE].
        Flag("interrupt-requests", "false", default=True),
        # It keeps a row of numbers, one per word of the vocabulary, for every token of the context
        # (20 GB for 32,768 tokens and 152,064 words). Only answers with `logprobs` want that.
        Flag("logits-all", "false", default=True),
        # It is not allowed in the sandbox, and says so each time.
        Flag("use-mlock", "false", default=True),
        # Left to itself it uses no GPU at all; -1 are all layers, or it does not start.
        Flag("n-gpu-layers", "-1", default=True, gpu=True),
        for_embeddings(EMBEDDING, lambda process: "true"),
        *(
            for_embeddings(name, lambda process: process.model.context_length or WHOLE_TOKENS)
            for name in BATCHES
        ),
        OPTIONS,
        Flag("n-ctx", lambda process: process.model.context_length or 0),
        Flag("model", MODEL),
        Flag("model-alias", lambda process: process.model.served),
        Flag("host", lambda process: process.address),
        Flag("port", lambda process: process.port),
    ),
    unsafe=frozenset(
        # Of llama_cpp/server/settings.py (0.3.36).
        "api-key config-file models hf-model-repo-id hf-tokenizer-config-path"
        " hf-pretrained-model-name-or-path rpc-servers ssl-keyfile ssl-certfile root-path"
        " help".split()
    ),
    own={
        "n-ctx": "use the key context_length",
        "model-alias": "use the key served_name",
        "hf-model-repo-id": "use the key source",
    },
    abbreviates=True,
    # It answers one request after the other, this one too.
    models_timeout_s=60,
    sight=SIGHT,
    # An input of an embedding model, to `context_length` (llama.py, `embed`). A chat it refuses.
    cuts_prompts=True,
    # A grammar that cannot be read is a null pointer, which it follows (0.3.36, _internals.py,
    # `add_grammar`). Its own converter of schemas (llama_grammar.py) makes such grammars.
    constraint=Constraint(
        schemas=("response_format", "tools", "functions"), refused=("grammar",), plain=True
    ),
    # 0.3.36, llama_cpp/server/app.py
    paths=frozenset("chat/completions completions embeddings".split()),
    closes_connections=True,
)
