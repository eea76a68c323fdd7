"""Prints from where the installed gateway takes what a request asks, as JSON. Runs with the
gateway's own Python.

`parameters`: by open path, what FastAPI gives the endpoint and what it depends on (query, header,
cookie, path, body). `headers`: names of headers that occur in the gateway's code. `queries`:
modules and functions that read a query string.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import litellm
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from litellm.proxy.proxy_server import app
from modelyard_gateway import requests
from modelyard_gateway.clients import KEY_HEADERS

PACKAGE = Path(litellm.__file__).parent
HEADER = re.compile(
    r"[a-z0-9]+(-[a-z0-9]+)+|authorization|user|host|origin|cookie|referer|forwarded|accept|connection"
)
"""How the name of a header looks in code: in lower case, with a dash, or one of those without."""
READERS = ("headers", "_headers", "request_headers", "raw_headers")
"""How variables that hold headers are called."""


def routes(found: Iterable[object]) -> Iterator[APIRoute]:
    """All routes, those of included routers in their place. LiteLLM includes them without a
    prefix."""
    for route in found:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router.routes)
        elif isinstance(route, APIRoute):
            yield route


def endpoint(path: str, method: str) -> APIRoute:
    """Return the route that answers a path."""
    for route in routes(app.routes):
        if method in route.methods and route.path_regex.match(path):
            return route
    raise LookupError(f"{method} {path} is not served")


def parameters(dependant: Dependant) -> Iterator[str]:
    """What a function and its dependencies take from a request."""
    for kind in ("path", "query", "header", "cookie", "body"):
        yield from (f"{kind} {field.alias}" for field in getattr(dependant, f"{kind}_params"))
    # A dependency that looks for a key in a header.
    if model := getattr(dependant.call, "model", None):
        yield f"{model.in_.value} {model.name}"
    for dependency in dependant.dependencies:
        yield from parameters(dependency)


def is_headers(node: ast.expr) -> bool:
    """Whether an expression is the headers of a request, by its name."""
    name = (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else ""
    )
    return name.lower() in READERS


def read(tree: ast.AST) -> Iterator[str]:
    """The names of headers that code reads: get, [], in, and what header names are compared
    with."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Call(
                    func=ast.Attribute(value=value, attr="get" | "getlist"),
                    args=[ast.Constant(value=str(key)), *_],
                )
                | ast.Subscript(value=value, slice=ast.Constant(value=str(key)))
                | ast.Compare(left=ast.Constant(value=str(key)), comparators=[value])
            ) if is_headers(value):
                yield key.lower()
            case ast.Constant(value=str(key)) if key.lower().startswith("x-"):
                yield key.lower()
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(key))) if (
                "HEADER" in name
            ):
                yield key.lower()


def queries(tree: ast.AST) -> Iterator[str]:
    """The functions that read a query string."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
            if names & {"query_params", "query_string"}:
                yield node.name


ASIDE = re.compile(r"_endpoints?/|/guardrails/|/example_config_yaml/|/list_api/|mcp")
"""What answers other paths than the open ones."""

headers: set[str] = set()
reading: set[str] = set()
for file in sorted((PACKAGE / "proxy").rglob("*.py")):
    name, text = str(file.relative_to(PACKAGE)), file.read_text(encoding="utf-8")
    if ASIDE.search(name) or not re.search(r"header|x-|query_", text, re.IGNORECASE):
        continue
    tree = ast.parse(text)
    headers |= {found for found in read(tree) if HEADER.fullmatch(found)}
    reading |= {f"{name}:{function}" for function in queries(tree)}

asked = [*((path, "POST") for path in requests.ASKING), (requests.READING, "GET")]
print(
    json.dumps(
        {
            "parameters": {
                path: sorted(set(parameters(endpoint(f"/v1/{path}", method).dependant)))
                for path, method in asked
            },
            "headers": sorted(headers),
            "queries": sorted(reading),
            "passed": sorted(name.decode() for name in requests.PASSED_HEADERS),
            "keys": sorted(name.decode() for name in KEY_HEADERS),
        }
    )
)
