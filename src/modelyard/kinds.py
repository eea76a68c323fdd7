"""What values of the catalogue look like: text that matches a pattern, numbers with bounds,
archives with checksums.

It knows nothing of what they are used for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from posixpath import normpath
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

import modelyard
from modelyard.addresses import not_bare, unbindable
from modelyard.showing import begins_as_key, code_point, looks_secret
from modelyard.urls import fault, lowered, server_fault, unseen_fault


def for_editors(kind: str, pattern: str, message: str) -> dict[str, str]:
    """JSON Schema for text that matches `pattern` as a whole.

    `message` is what editors say (those that read `patternErrorMessage`, as VS Code's does), `kind`
    is what docs/catalogue.md calls such text.
    """
    return {
        "type": "string",
        "kind": kind,
        "pattern": f"^(?:{pattern})$",
        "patternErrorMessage": message,
    }


@dataclass(frozen=True, slots=True)
class Matching:
    """A constraint on text that says in words what it must look like, to the user and to
    editors.
    """

    kind: str
    pattern: str
    message: str
    mend: Callable[[str], str] | None = None
    """What is probably meant by text that does not match; a hint says so if that matches."""

    def check(self, value: str) -> str:
        """Return `value`; raises ValueError if it does not match."""
        if re.fullmatch(self.pattern, value):
            return value
        meant = self.mend(value) if self.mend else value
        if meant != value and re.fullmatch(self.pattern, meant):
            raise unfit(self.message, self.rewritten(value, meant))
        raise ValueError(self.message)

    def rewritten(self, value: str, meant: str) -> str:
        """Return the hint for text that is written in another way than it should be."""
        if meant == value.strip():
            return "write it without white space before or after it"
        if meant.startswith("-D"):  # What follows may hold a secret.
            return "write -D directly before its name"
        return "write it in lower case" if meant == value.lower() else f'write "{meant}"'

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), **for_editors(self.kind, self.pattern, self.message)}


_A_KEY = "this looks like a key, and names are shown in metrics, logs and lists"
_A_KEY_HINT = "choose a name, and give the name of the secret below it; replace a key that was in a shared file"


class LowerName(Matching):
    """Text in lower case that offers a name which fits, where one differs in case, spaces and
    separators only.
    """

    __slots__ = ()

    def check(self, value: str) -> str:
        """Return `value`; raises PydanticCustomError if it does not match."""
        if looks_secret(value):
            raise unfit(_A_KEY, _A_KEY_HINT)
        if re.fullmatch(self.pattern, value):
            return value
        lower = value.strip().lower()
        plain = re.fullmatch(r"[a-z0-9 ._-]+", lower)
        near = (lower, *(re.sub(r"[^a-z0-9]+", separator, lower) for separator in "-_"))
        fits = [one for one in near if plain and re.fullmatch(self.pattern, one)]
        raise unfit(self.message, f"write {fits[0]}" if fits else "")


_NAME = r"(?!-)[!#-&()+./0-9:;=?@A-Z\[\]^_`a-z|~\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00ff-]+"
"""The gateway writes a name into a header of its answer, which has Latin-1 only: any other
character is a 500 (measured with LiteLLM 1.106.2)."""

_UNSEEN = r"\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff"
"""Characters that nobody sees: zero-width ones, and those that change the direction of writing."""

_NOT_IN_NAMES = {
    ",": ("the gateway takes a name with one for several names", "give each model its own name"),
    "*": ("the gateway takes a name with one for a pattern", "write each name out"),
    "{": (
        "Ansible fills in templates in values, not in keys",
        'write the name, or a list: models: [{name: "{{ variable }}"}]',
    ),
    "<": ("that is a placeholder", "write the name that stands for it"),
}


def unfit(message: str, hint: str) -> PydanticCustomError:
    """Return the error of a value, with a hint, for its validator to raise."""
    return PydanticCustomError("unfit", "{message}", {"message": message, "hint": hint})


class NameText(Matching):
    """Text that says which of its characters no name has: some of them cannot be seen."""

    __slots__ = ()

    def check(self, value: str) -> str:
        """Return `value`; raises PydanticCustomError if it does not match."""
        if begins_as_key(value):
            raise unfit(_A_KEY, _A_KEY_HINT)
        if re.fullmatch(self.pattern, value):
            return value
        found = next((one for one in value if not re.fullmatch(self.pattern, f"a{one}")), None)
        if found is None:
            raise unfit(self.message, "name it as clients ask for it")
        if found in _NOT_IN_NAMES:
            why, hint = _NOT_IN_NAMES[found]
            raise unfit(f'a name has no "{found}": {why}', hint)
        if not found.isascii() or not found.isprintable():
            why = "the gateway can answer for letters of ASCII and Latin-1 only"
            raise unfit(f"a name has no {code_point(found)}: {why}", "type the name anew")
        raise unfit(self.message, "write it without, as clients ask for it")


_IP_ADDRESS = "an IP address looks like 192.0.2.10 or 2001:db8::10"


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    if hint := not_bare(value):
        raise unfit(_IP_ADDRESS, hint)
    raise ValueError(_IP_ADDRESS)


def listen_addresses(value: list[str]) -> list[str]:
    """Return `value`; raises ValueError for duplicates, for a wildcard among several, and for what
    no service can listen on.
    """
    if len(value) != len(set(value)):
        raise ValueError("duplicate address")
    if len(value) > 1 and not {"0.0.0.0", "::"}.isdisjoint(value):
        raise ValueError("0.0.0.0 and :: mean all addresses: list no others beside them")
    for address in value:
        if why := unbindable(address):
            raise ValueError(f"no service can listen on {address}: it is {why}")
    return value


def distinct(value: list[Any]) -> list[Any]:
    """Return `value`; raises ValueError for a duplicate entry."""
    if len(value) != len(set(value)):
        raise ValueError("duplicate entry")
    return value


def _http_url(value: str) -> str:
    if found := server_fault(value) or unseen_fault(value):
        raise unfit(*found)
    return value


def _base_url(value: str) -> str:
    value = lowered(value)
    if found := fault(value) or unseen_fault(value):
        raise unfit(*found)
    return value.rstrip("/")


_GPU_ID = "a GPU is named by its index (0, 1, ...) or its UUID; nvidia-smi -L lists them"


def _gpu_id(value: int | str) -> int | str:
    if isinstance(value, str) and value.strip().isdecimal():
        raise unfit(_GPU_ID, f"write {int(value)} without quotes")
    if value < 0 if isinstance(value, int) else not re.fullmatch(_UUID, value):
        raise ValueError(_GPU_ID)
    return value


_SYSTEM = re.compile(
    # The standard directories, where others live, too, and homes, ...
    r"/|/(bin|boot|dev|etc|home|lib|lib32|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)"
    r"|/home/[^/]+|/usr/(games|local|share)|/usr/local/(bin|etc|games|include|lib|man|sbin|share|src)"
    r"|/var/(backups|cache|lib|local|lock|log|mail|opt|run|spool|tmp)"
    # ... all of what the system owns, or empties when it boots, ...
    r"|/(bin|boot|dev|etc|lib|lib32|lib64|proc|run|sbin|sys|tmp)/.*"
    r"|/usr/(bin|include|lib|lib32|lib64|libexec|sbin|src)/?.*|/var/(cache|lock|log|run|tmp)/.*"
    # ... and ours. A former provider's store may be taken over.
    r"|/opt/modelyard(/.*)?|/var/lib/modelyard(/[^/]+|/models/.*)?"
)


def _own_directory(value: str) -> str:
    if _SYSTEM.fullmatch("/" + normpath(value).strip("/")):
        raise ValueError(
            "others live in this directory, or it is emptied at boot: name one that is for this"
            " alone, such as /srv/models/NAME"
        )
    return value


def misfit(message: str, *keys: str, hint: str = "") -> PydanticCustomError:
    """Return the error of a mapping whose `keys` do not fit together, for its validator to raise.

    It is shown at the first of the keys that an override set, else at the first that is there.
    """
    context = {"message": message, "keys": keys, "hint": hint}
    return PydanticCustomError("misfit", "{message}", context)


def has_password(value: object) -> bool:
    """Return whether text has a URL with a user's name or password in it."""
    return re.search(r"//[^\s/]*@", str(value)) is not None


def _without_password(value: str) -> str:
    if has_password(value):
        raise ValueError("a URL in here has a password, which could be read on the host")
    return value


def unit(name: str) -> dict[str, Any]:
    """Return the unit of a number, for the reference: `json_schema_extra` of a field."""
    return {"unit": name}


def unit_of(field: FieldInfo | None) -> str:
    """Return the unit of a field, empty if it has none."""
    extra = field.json_schema_extra if field else None
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


Unique: FieldInfo = Field(json_schema_extra={"uniqueItems": True})
"""Tells editors what `distinct` and `listen_addresses` check."""

Name = Annotated[
    str,
    NameText(
        "name",
        _NAME,
        "a name has no white space, quotes, commas, braces, < >, backslashes or asterisks, does not"
        " begin with - and is not empty",
    ),
]
Identifier = Annotated[
    str,
    LowerName(
        "identifier",
        r"[a-z][a-z0-9_-]*",
        "use lower-case letters, digits, - and _, beginning with a letter",
    ),
]
ClientName = Annotated[
    str,
    LowerName(
        "client name",
        r"[a-z][a-z0-9-]{0,47}",
        "a client's name has lower-case letters, digits and -, begins with a letter, and has at"
        " most 48 characters",
    ),
]
GroupName = Annotated[
    str,
    Matching(
        "group name",
        r"[A-Za-z_][A-Za-z0-9_]*",
        "a group name has letters, digits and _, and does not begin with a digit",
    ),
]
SecretName = Annotated[
    str,
    Matching(
        "secret name",
        r"[A-Z][A-Z0-9_]*",
        "a secret's name is in capitals, like OPENAI_API_KEY (never the key itself)",
    ),
]
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPAddress = Annotated[
    str,
    AfterValidator(_ip_address),
    WithJsonSchema(
        for_editors(
            "IP address",
            rf"{_BYTE}(\.{_BYTE}){{3}}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[^\s%]+)?",
            "an IP address looks like 192.0.2.10 or 2001:db8::10",
        )
    ),
]
BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    WithJsonSchema(
        for_editors(
            "base URL",
            r"https?://[^\s@/?#]+(/[^\s?#]*)?",
            "a base URL begins with http:// or https://, names a host, and has no credentials and"
            " no query",
        )
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Tokens = Annotated[int, Field(gt=0, le=2**24)]
"""A context: the longest that is published has ten million tokens."""
PerMinute = Annotated[int, Field(gt=0, le=10**7)]
"""Requests: a gateway answers some ten thousand a minute, a provider at most some times as many."""
Seconds = Annotated[int | float, Field(gt=0, le=86400)]
WholeSeconds = Annotated[int, Field(gt=0, le=86400)]


def mebibytes(value: int, least: int, most: int, what: str) -> int:
    """Return a number of MiB; raises PydanticCustomError for one that can only be of GiB (below
    `least`), of KiB or of bytes (above `most`). `what` follows the number in the message.
    """
    if value < least:
        raise unfit(f"{what} has more; {value} GiB are {value * 1024}", f"write {value * 1024}")
    if value > most:
        given, divisor = ("bytes", 1024**2) if value >= most * 1024 else ("KiB", 1024)
        mib = value // divisor
        raise unfit(f"{what} has less; {value} {given} are {mib} MiB", f"write {mib}")
    return value


UsDollars = Annotated[int | float, Field(ge=0, le=10000, allow_inf_nan=False)]
"""A price per million tokens: the dearest models cost some hundreds."""
Sha256 = Annotated[
    str,
    Matching(
        "SHA-256",
        r"[0-9a-f]{64}",
        "a sha256 has 64 hexadecimal digits, in lower case",
        lambda text: text.strip().lower().removeprefix("sha256:"),
    ),
]
AbsolutePath = Annotated[
    str,
    Matching(
        "absolute path",
        rf"/([^\x00-\x1f\x7f{_UNSEEN}]*[^\s\x00-\x1f\x7f{_UNSEEN}])?",
        "an absolute path begins with /, does not end in white space and has no control or unseen"
        " characters",
    ),
]
OwnDirectory = Annotated[AbsolutePath, AfterValidator(_own_directory)]
HttpUrl = Annotated[
    str,
    Matching(
        "URL",
        r"https?://[^\s/@]+/\S*",
        "a URL begins with http:// or https:// and has no credentials",
    ),
    AfterValidator(_http_url),
]
EmailAddress = Annotated[
    str,
    Matching("mail address", r"[^\s@<>]+@[^\s@<>]+", "a mail address looks like ops@example.org"),
]
MailServer = Annotated[
    str,
    Matching(
        "host and port",
        r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]):[0-9]{1,5}",
        "a mail server is HOST:PORT, like mail.example.org:587 or [2001:db8::25]:587",
    ),
]
Version = Annotated[
    str,
    Matching(
        "version",
        r"[0-9]+(\.[0-9]+)+((\.post|rc|a|b)[0-9]+)?",
        "a version looks like 1.106.2",
        lambda text: text.strip().lower().lstrip("v="),
    ),
]
Sdist = Annotated[
    str,
    Matching(
        "sdist",
        r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+",
        "an sdist is NAME==VERSION in the Python package index",
    ),
]
Revision = Annotated[
    str,
    Matching(
        "commit",
        r"[0-9a-f]{40}",
        "a revision is a commit, 40 hexadecimal digits in lower case; branches and tags can move",
        lambda text: text.strip().lower(),
    ),
]
Repository = Annotated[
    str,
    Matching(
        "repository",
        r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+",
        "a repository is OWNER/NAME at Hugging Face",
        lambda text: _without_page(text)[0],
    ),
]
FileName = Annotated[
    str,
    Matching(
        "file name",
        rf"(?!/)(?!.*(?:://|[?]download=))(?!(?:.*/)?\.\.?(?:/|$))[^\s\x00-\x1f\x7f{_UNSEEN}]+",
        "a file of the repository, like model-q4_k_m.gguf",
        lambda text: _without_page(text)[1],
    ),
]
Duration = Annotated[
    str,
    Matching(
        "duration",
        r"-1|0|[1-9][0-9]*(s|m|h)",
        "a duration is like 30s, 5m or 24h; 0 is at once, -1 is never",
    ),
]
HostPort = Annotated[
    str,
    Matching(
        "host and port",
        r"[A-Za-z0-9.-]+(:[0-9]{1,5})?",
        "a host is a name or an IPv4 address, like registry:5000 (the names of models have no"
        " place for an IPv6 address)",
    ),
]
WebOrigin = Annotated[
    str,
    Matching(
        "origin",
        r"[a-z][a-z0-9+.-]*://[^\s,/@]+",
        "an origin is like http://localhost or https://chat.example.org, without credentials",
    ),
]
OPTION_NAME = "an option is a long flag without the dashes, like batch-size, in lower case"
OptionName = Annotated[
    str,
    # Which flag is meant by another form depends on the engine: compiler/models.py says it.
    Matching("option name", r"-{0,2}[A-Za-z][A-Za-z0-9_-]*", OPTION_NAME),
    WithJsonSchema(for_editors("option name", r"[a-z][a-z0-9-]*", OPTION_NAME)),
]


def option_name(text: str) -> str:
    """Return an option's name as the catalogue writes it, from `--batch-size` or `batch_size`."""
    return text.lstrip("-").replace("_", "-").lower()


OptionText = Annotated[
    str,
    Matching("option text", r"[^\x00-\x1f\x7f]*", "an option's value has no control characters"),
]
CMakeOption = Annotated[
    str,
    Matching(
        "CMake option",
        r"-D[A-Za-z0-9_.+-]+(:(BOOL|FILEPATH|INTERNAL|PATH|STATIC|STRING|UNINITIALIZED))?"
        r"=[^\x00-\x1f\x7f]*",
        "a CMake option is -DNAME=VALUE, or -DNAME:TYPE=VALUE with a type of CMake such as STRING",
        lambda text: re.sub(r"(?:-D\s+)?([A-Za-z0-9_]+=[A-Za-z0-9_.;-]*)", r"-D\1", text.strip()),
    ),
    AfterValidator(_without_password),
]
CudaToolkit = Annotated[
    str,
    Matching(
        "CUDA toolkit",
        r"auto|/[^\x00-\x1f\x7f]*",
        "a CUDA toolkit is auto, or the absolute path of an installed one",
        lambda text: re.sub(r"(?:cuda-)?([0-9]+\.[0-9]+)(\.[0-9]+)?", r"/usr/local/cuda-\1", text),
    ),
]
ComputeCapability = Annotated[
    str,
    Matching(
        "compute capability",
        r"[0-9]+\.[0-9]",
        "a compute capability is written as in '8.9'",
        # nvcc and CMake write 89, sm_89, compute_89 or 90a.
        lambda text: re.sub(
            r"(?:(?:sm|compute)_?)?([0-9]+)\.?([0-9])[af]?(?:-real|-virtual)?",
            r"\1.\2",
            text.strip(),
        ),
    ),
]
Tag = Annotated[
    str,
    Matching(
        "tag",
        r"(?!default$|!)[!-+.-~-]+",
        'a tag has ASCII characters, no white space or comma, does not begin with "!" and is not "default"',
    ),
]
_UUID = r"(GPU|MIG)-[0-9A-Za-z/-]+"
GpuUuid = Annotated[
    str,
    Matching("GPU UUID", _UUID, "a GPU's UUID begins with GPU- or MIG-; nvidia-smi -L lists them"),
]
GpuId = Annotated[
    int | str,
    AfterValidator(_gpu_id),
    WithJsonSchema(
        {**for_editors("GPU UUID", _UUID, _GPU_ID), "type": ["integer", "string"], "minimum": 0}
    ),
]


def _without_page(text: str) -> tuple[str, str]:
    """Return repository and file from an address of a page, or a link to a download, of a hub."""
    text = text.strip().split("?")[0].rstrip("/")
    page = re.fullmatch(
        r"(?:https?://|hf://)?(?:[^/]+\.[a-z]+/)?([^/]+/[^/]+?)(?:\.git)?"
        r"(?:/(?:tree|blob|resolve|raw)/[^/]+(?:/(.+))?)?",
        text,
    )
    return (page[1], page[2] or text) if page else (text, text)


SHA256_EXAMPLE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class Strict(BaseModel):
    """Base of everything in the catalogue."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=modelyard.WITH_DOCSTRINGS,
    )


_PLACES = ("sdist", "url", "path")


class SourceArchive(Strict):
    """Where a source archive comes from; exactly one of `sdist`, `url` and `path`, always with its
    checksum.
    """

    sdist: Sdist | None = Field(None, examples=["example==1.2.3"])
    """A source distribution of the Python package index, NAME==VERSION."""
    url: HttpUrl | None = Field(None, examples=["https://example.org/source.tar.gz"])
    """An address the controller fetches from."""
    path: AbsolutePath | None = Field(None, examples=["/srv/source.tar.gz"])
    """A file on the controller."""
    sha256: Sha256 = Field(examples=[SHA256_EXAMPLE])
    """Checksum of the archive."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.sdist, self.url, self.path)) != 1:
            raise misfit("a source needs exactly one of sdist, url and path", *_PLACES)
        return self


class Archive(Strict):
    """Where an archive of programs comes from; exactly one of `url` and `path`. `{version}` stands
    for the version.
    """

    url: HttpUrl | None = Field(None, examples=["https://example.org/v{version}/program.tar.gz"])
    """An address the controller fetches from: the project's own, or a mirror."""
    path: AbsolutePath | None = Field(None, examples=["/srv/program.tar.gz"])
    """A file on the controller."""
    sha256: Sha256 | None = Field(None, examples=[SHA256_EXAMPLE])
    """Checksum of the archive."""
    checksums: HttpUrl | None = Field(
        None, examples=["https://example.org/v{version}/sha256sum.txt"]
    )
    """Where the release publishes its checksums, if `sha256` is not given. The checksum found at
    the first fetch is recorded beside the inventory and used from then on."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise misfit("a source needs exactly one of url and path", "url", "path")
        if self.sha256 is None and (self.url is None or self.checksums is None):
            raise misfit(
                "downloads are always verified: set sha256, or checksums for a url",
                "url",
                "path",
                hint="add sha256, as sha256sum prints it",
            )
        return self

    def of(self, version: str) -> dict[str, str]:
        """Return the source with `version` in its place: what a plan says."""
        given: dict[str, str] = self.model_dump(exclude_none=True)
        return {key: text.replace("{version}", version) for key, text in given.items()}


class Release(Strict):
    """A component's entry in `llm_versions`."""

    floor: ClassVar[tuple[int, ...]] = ()
    """The oldest version that is deployed: everything older has known vulnerabilities (the
    project's advisories)."""
    version: Version = Field(examples=["1.2.3"])
    """What is deployed."""

    @classmethod
    def least(cls, version: str) -> str:
        """Return the oldest version that is deployed, if `version` is older; else an empty
        string.
        """
        floor = ".".join(map(str, cls.floor))
        order, least = release_order(version), release_order(floor)
        return floor if order is not None and least is not None and order < least else ""

    def build(self) -> dict[str, Any]:
        """Return what a plan says of the program itself."""
        return self.model_dump(exclude_none=True)


class FromIndex(Release):
    """A component whose packages come from a Python package index."""

    index_url: HttpUrl | None = Field(None, examples=["https://index.example.org/simple"])
    """The package index that the environment is built from, without credentials (these belong into
    the `~/.netrc` of root on the host that builds). Default: the one that the host is set up
    for."""


_STAGES = {"a": -3, "b": -2, "rc": -1, None: 0, ".post": 1}


def release_order(version: str) -> tuple[tuple[int, ...], int, int] | None:
    """Return what versions are compared by: 1.2 and 1.2.0 are the same, 1.2rc1 is older. None for
    text that is no version.

    Builds that are counted (`b6500`) are compared among themselves.
    """
    match = re.fullmatch(r"b?([0-9]+(?:\.[0-9]+)*)(?:(\.post|rc|a|b)([0-9]+))?", version)
    if match is None:
        return None
    numbers = tuple(int(part) for part in match[1].split("."))
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers = numbers[:-1]
    return numbers, _STAGES[match[2]], int(match[3] or 0)


def refused_below(floor: tuple[int, ...]) -> str:
    """Return the sentence that names the oldest accepted version, for documentation."""
    return f"Refused below {'.'.join(map(str, floor))}."
