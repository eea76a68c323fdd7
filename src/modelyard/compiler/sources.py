"""Sources of models: whether a path, an address or a repository can be what the engine loads.

Only names are read here. What a file really holds is looked at on the host.
"""

from __future__ import annotations

import re
from posixpath import basename, dirname, normpath, splitext
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from modelyard.catalogue.models import Model, ModelSource
from modelyard.catalogue.sourcemap import Path
from modelyard.engines import ENGINES, types_of
from modelyard.engines.base import Engine

NOT_GGUF = frozenset(
    # Weights in other formats, ...
    ".safetensors .bin .pt .pth .ckpt .onnx .h5 .npz .msgpack .tflite .ggml .ggjt .mlmodel .engine"
    # ... archives, what lies beside weights, and pages, ...
    " .zip .tar .gz .tgz .xz .bz2 .zst .7z .rar .json .jsonl .yaml .yml .txt .md .html .htm .py .pdf"
    " .model .imatrix .dat .sha256 .torrent"
    # ... and downloads that have not ended.
    " .part .partial .tmp .incomplete .crdownload .download .aria2".split()
)
"""How names of files end that are no GGUF file."""

PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
"""The end of a part's name, as llama-gguf-split writes it, which is what llama.cpp opens."""

PROJECTOR = re.compile(r"(^|[-_.])mmproj([-_.]|$)", re.IGNORECASE)
"""The name of a file that gives another one eyes or ears."""

CUT = re.compile(r"\.part\d+of\d+$|\.gguf-split-[a-z]$", re.IGNORECASE)
"""The end of a piece that was cut out of a file: no program opens it."""

HUB = re.compile(r"(www\.)?(huggingface\.co|hf\.co|hf-mirror\.com)")
HUB_PAGES = frozenset(
    "blob raw tree blame commit commits discussions edit delete upload settings".split()
)
"""Words of the hub's addresses after the repository. `raw` is the pointer of a large file."""

PAGES = {
    re.compile(r"(www\.)?github\.com"): (
        # A release's file, an archive, and a file as it is.
        re.compile(r"/[^/]+/[^/]+/(releases/download|releases/latest/download|archive|raw)/.+"),
        "https://github.com/OWNER/NAME/releases/download/TAG/FILE is a file",
    ),
    re.compile(r"(www\.)?modelscope\.(cn|ai)"): (
        re.compile(r"/(models/[^/]+/[^/]+/resolve/.+|api/.+)"),
        "https://modelscope.cn/models/OWNER/NAME/resolve/REVISION/FILE is a file",
    ),
    re.compile(r"(www\.)?civitai\.com"): (
        re.compile(r"/api/download/.+"),
        "https://civitai.com/api/download/models/NUMBER is a file",
    ),
    re.compile(r"drive\.google\.com|(www\.)?kaggle\.com"): (
        re.compile(r"/(uc|api/.+)"),
        "fetch it by hand, and name its path on the host",
    ),
}
"""Other hosts whose addresses are pages for people: which are files, and what to write instead."""

GGUF_REPOSITORY = re.compile(r"(^|[-_.])gguf$", re.IGNORECASE)

OF_FILES = types_of(lambda engine: engine.takes == "file", "or").replace("`", "")


class Problem(NamedTuple):
    """What is wrong with a source, the fix, and the key that it is about."""

    message: str
    hint: str
    key: str


def check_source(
    name: str, kind: str, engine: Engine, model: Model, at: Path, sound: bool, error: Any
) -> None:
    """Check that the source is a GGUF file or a directory, as the engine takes it."""
    source, directory = model.source, engine.takes == "directory"
    if source is None:
        if not engine.pulls and sound:
            error(
                "missing-key",
                f'model "{model.name}" of provider "{name}" has no source',
                at,
                (
                    "add source: {path: /...} or source: {repo: OWNER/NAME, revision: COMMIT}"
                    if directory
                    else "add source: {path: /...} or source: {url: ..., sha256: ...}"
                ),
            )
        return
    found = _anywhere(source) or (
        _directory(engine, source) if directory else _file(kind, engine, source)
    )
    if found:
        where = (*at, "source", found.key) if found.key else (*at, "source")
        error(
            "invalid-value",
            f'the source of "{model.name}": {found.message}',
            where,
            found.hint,
            key=not found.key,
        )


def _anywhere(source: ModelSource) -> Problem | None:
    """Return what is wrong with a source whatever loads it."""
    if source.path is not None and normpath(source.path).strip("/") == "":
        return Problem("/ is the whole host", "name what holds the model alone", "path")
    if source.repo is None:
        return None
    owner, _, repo = source.repo.partition("/")
    if owner in ("datasets", "spaces", "models"):
        return Problem(
            f"{owner}/{repo} is no model's repository",
            "a repository of a model is OWNER/NAME, without a word before it",
            "repo",
        )
    if repo.endswith(".git"):
        return Problem(f"{source.repo} is an address for git", f"write {source.repo[:-4]}", "repo")
    return None


def _directory(engine: Engine, source: ModelSource) -> Problem | None:
    """Return what is wrong with the source of a model that is a directory."""
    if source.url is not None:
        message = f"{engine.title} needs a directory, not a single file"
        return Problem(message, "name a path or a repo", "")
    if source.file is not None:
        message = f"{engine.title} fetches the whole repository, not a single file"
        return Problem(message, "remove file", "")
    if source.sha256 is not None:
        return Problem("a directory has no checksum", "remove sha256", "")
    if source.path is not None:
        ending = _ending(source.path)
        if ending == ".gguf" or PART.search(source.path):
            return Problem(
                f"{engine.title} needs a directory with safetensors, and reads no GGUF file",
                f"name such a directory, or serve the file by a provider of type {OF_FILES}",
                "path",
            )
        if ending in NOT_GGUF and not source.path.endswith("/"):
            message = f"{engine.title} needs a directory, not a single file"
            return Problem(message, f"name its directory: {dirname(source.path)}", "path")
    if source.repo is not None and GGUF_REPOSITORY.search(source.repo):
        return Problem(
            f"{engine.title} reads safetensors, and {source.repo} is called one of GGUF files",
            "name the repository that this one was made from, or serve a file of it by a provider"
            f" of type {OF_FILES}",
            "repo",
        )
    return None


def _file(kind: str, engine: Engine, source: ModelSource) -> Problem | None:
    """Return what is wrong with the source of a model that is one GGUF file."""
    if source.repo is not None and source.file is None:
        message = f"{kind} needs one file of the repository"
        return Problem(message, "add file, the name of a .gguf file in it", "")
    key, text = next(
        (key, value)
        for key, value in (("path", source.path), ("url", source.url), ("file", source.file))
        if value is not None
    )
    place = text
    if source.url is not None:
        if page := _page(source.url):
            return page
        text = text.partition("?")[0]
        place = unquote(urlsplit(text).path)
    if place.endswith("/"):
        return Problem(f"{text} is a directory", f"{kind} loads one GGUF file: name it", key)
    ending = _ending(place)
    if ending in NOT_GGUF or (key == "file" and ending != ".gguf" and not CUT.search(place)):
        return Problem(
            f"{kind} loads a GGUF file, and {text} does not end in .gguf",
            "name a .gguf file; weights in other formats have to be converted, or are in another"
            " repository as GGUF",
            key,
        )
    if PROJECTOR.search(basename(place)):
        hint = "name the file of the model itself; a projector goes into its options (mmproj)"
        return Problem(f"{text} is a projector, not a model", hint, key)
    return _split(engine, key, text, place)


def _split(engine: Engine, key: str, text: str, place: str) -> Problem | None:
    """Return what is wrong with the part of a model that is in several files."""
    if CUT.search(place):
        hint = "join the pieces to one .gguf file (cat), and name its path on the host"
        return Problem(f"{text} is a piece of a file", hint, key)
    part = PART.search(place)
    if part is None or int(part[2]) == 1 == int(part[1]):
        return None
    number, count = int(part[1]), int(part[2])
    what = f"{text} is part {number} of a model in {count} files"
    merge = "merge them (llama-gguf-split --merge)"
    if not engine.splits:
        hint = f"{engine.title} does not load split models: {merge}, and name the path of that file"
        return Problem(what, hint, key)
    if key != "path":
        hint = (
            "put all of them into one directory of the host, and name the first with path; or choose"
            " a file that is not split"
        )
        return Problem(f"{what}, and one is fetched", hint, key)
    if number != 1:
        first = f"{place[: part.start()]}-00001-of-{part[2]}.gguf"
        return Problem(what, f"name the first, beside which the others are: {first}", key)
    return None


def _page(url: str) -> Problem | None:
    """Return what is wrong with an address that is a page for people."""
    parts = urlsplit(url)
    host, path = (parts.hostname or "").lower(), parts.path
    url = url.partition("?")[0]  # What follows may be a token.
    if HUB.fullmatch(host):
        return _hub_page(url, host, path)
    library = next(
        (e for e in ENGINES if e.library and host.removeprefix("www.") == e.library), None
    )
    if library is not None:
        hint = (
            f"{library.title} pulls a model of its library by name: write served_name, and no"
            " source"
        )
        return Problem(f"{url} is a web page, not a file", hint, "url")
    for pattern, (files, hint) in PAGES.items():
        if pattern.fullmatch(host) and not files.fullmatch(path):
            return Problem(f"{url} is a web page, not a file", hint, "url")
    return None


def _hub_page(url: str, host: str, path: str) -> Problem | None:
    words = path.strip("/").split("/")
    if words[:1] == ["api"]:
        return None if "resolve-cache" in words else Problem(f"{url} is no file", _hub(host), "url")
    at = next((at for at, word in enumerate(words) if at and word == "resolve"), None)
    if at is not None and len(words) > at + 2:
        return None
    page = next((at for at, word in enumerate(words) if at and word in HUB_PAGES), None)
    hint = _hub(host)
    if page is not None and words[page] in ("blob", "raw") and len(words) > page + 2:
        hint = f"write https://{host}/{'/'.join([*words[:page], 'resolve', *words[page + 1 :]])}"
    what = "the pointer to a file" if page and words[page] == "raw" else "a web page"
    return Problem(f"{url} is {what}, not a file", hint, "url")


def _hub(host: str) -> str:
    return (
        f"a file is https://{host}/OWNER/NAME/resolve/REVISION/FILE; or write source: {{repo:"
        " OWNER/NAME, revision: COMMIT, file: FILE}"
    )


def _ending(place: str) -> str:
    return splitext(place.rstrip("/"))[1].lower()
