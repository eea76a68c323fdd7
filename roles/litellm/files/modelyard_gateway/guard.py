"""One request, from its first line to LiteLLM: who asks, for what, and whether it is understood in
one way only.

The order matters. A request to a path that is not served ends first, one without a key before its
body is read, and one that is wrong before anything is counted, sent to an engine or kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import Counter

from modelyard_gateway import affinity, answers, bodies, kept, ledger, requests
from modelyard_gateway.clients import KEY_HEADERS, MASTER, Client, Keys
from modelyard_gateway.errors import Refusal, shown
from modelyard_gateway.journal import say
from modelyard_gateway.limits import Limits
from modelyard_gateway.rules import Rules

Scope = dict[str, Any]
Headers = list[tuple[bytes, bytes]]
Receive = bodies.Receive
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CALLER = "modelyard.caller"
"""Where in the scope LiteLLM's custom_auth finds whose request it is."""

SESSION = "modelyard.session"
"""Where in the scope is what the client calls its conversation."""

CREATED = 1677610602
"""Seconds since 1970: what LiteLLM says of every model in its list."""

REFUSALS = Counter(
    "modelyard_gateway_refusals",
    "Requests that the guard refused before LiteLLM saw them",
    ["api_key_alias", "status_code"],
)

GRACE_S = 0.5
"""Seconds that LiteLLM has to end a request whose client has left."""


class Guard:
    """An ASGI application around LiteLLM's."""

    def __init__(
        self, app: App, rules: Rules, keys: Keys, limits: Limits, asked: ledger.Ledger
    ) -> None:
        self.app = app
        self.rules = rules
        self.keys = keys
        self.limits = limits
        self.asked = asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # the unit opens no web sockets
            await self.answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request: as LiteLLM does, or with a refusal."""
        caller: list[Client] = []
        incoming = bodies.Incoming(receive, dict(scope["headers"]))
        try:
            await self.serve(scope, incoming, send, caller)
        except bodies.Left:
            pass  # nobody to answer
        except Refusal as refusal:
            name = caller[0].name if caller else ""
            REFUSALS.labels(name, str(refusal.status)).inc()
            if caller and caller[0] is not MASTER:
                # Not its message, which repeats what the client sent.
                say(f"client {name}: {told(scope)} refused, {refusal.status}: {refusal.kind}")
            rest = None if incoming.whole else incoming.discard(2 * self.rules.body_bytes)
            await answers.refuse(send, refusal, rest, head=scope["method"] == "HEAD")

    async def serve(self, scope: Scope, receive: Receive, send: Send, caller: list[Client]) -> None:
        """Pass a request on to LiteLLM. Raises Refusal; `caller` then holds who asked, as soon as
        that is known.
        """
        # Nothing that is served needs a query, and LiteLLM takes a model from it that beats the
        # body's.
        scope = {**scope, "query_string": b""}
        path, method = scope["path"], scope["method"]
        bare = requests.path_of(path)
        if bare is None and path not in requests.OPEN:
            raise Refusal(
                404,
                "Unknown path. This address serves the OpenAI API under /v1; see GET /v1/models.",
                code="unknown_url",
            )
        asks = bare in requests.ASKING
        allowed = ("POST", "OPTIONS") if asks else ("GET", "HEAD", "OPTIONS")
        if method not in allowed:
            raise Refusal(
                405, f"This path takes {allowed[0]}.", headers={"allow": ", ".join(allowed)}
            )
        answer = answers.Answer(send, self.rules)
        if method == "OPTIONS" or bare is None:
            await self.app(scope, nothing(receive), answer)
            return
        client = self.keys.owner(scope["headers"])
        caller.append(client)
        scope[CALLER] = client
        if client is not MASTER:
            requests.check_headers(
                client.name, (pair for pair in scope["headers"] if pair[0] not in KEY_HEADERS)
            )
        scope[SESSION] = affinity.session(scope["headers"])
        scope["headers"] = [pair for pair in scope["headers"] if passes(client, pair[0])]
        await (self.ask if asks else self.read)(client, bare, scope, receive, answer)

    async def read(
        self, client: Client, path: str, scope: Scope, receive: Receive, answer: answers.Answer
    ) -> None:
        """Answer what is asked with GET: which models there are. Raises Refusal."""
        self.tell(client, scope, "")
        head = scope["method"] == "HEAD"
        if path != requests.READING:
            await answers.tell(
                answer.send,
                self.model(client, path.removeprefix(f"{requests.READING}/")),
                head=head,
            )
            return
        # LiteLLM answers GET only; the server leaves the body of the answer to HEAD away.
        await self.app({**scope, "method": "GET"}, nothing(receive), answer)

    async def ask(
        self, client: Client, path: str, scope: Scope, receive: Receive, answer: answers.Answer
    ) -> None:
        """Let LiteLLM ask a model. Raises Refusal, Left."""
        kind = requests.ASKING[path]
        raw, body = await self.body(scope, receive, kind)
        model = self.judge(client, path, body, form=kind == requests.FORM)
        self.tell(client, scope, model)
        if kind == requests.JSON:
            affinity.CURRENT.set(affinity.key_of(client.name, scope[SESSION], path, body))
            raw = self.prepare(client, path, body, scope["headers"])
            scope["parsed_body"] = (tuple(body), body)
            scope["headers"] = with_length(scope["headers"], len(raw))
        with self.asked.request(scope["headers"]) as note:
            answer.note = note
            if not note.again:
                answer.headers = await self.limits.admit(client.name, client.rpm)
            await while_there(self.app(scope, bodies.replay(raw, receive), answer), receive)

    async def body(
        self, scope: Scope, receive: Receive, wanted: bytes
    ) -> tuple[bytes, dict[str, Any]]:
        """Read and understand the body. Raises Refusal, Left."""
        headers = dict(scope["headers"])
        if sum(name == b"content-type" for name, _ in scope["headers"]) > 1:
            raise Refusal(400, "The request has the header Content-Type twice.")
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != wanted:
            text = (
                f"This path takes {wanted.decode()}; the request says"
                f" {shown(kind.decode('latin-1')) or 'nothing'}."
            )
            raise Refusal(415, f"{text} Send the header Content-Type: {wanted.decode()}.")
        raw = await bodies.read(receive, headers, self.rules.body_bytes, self.rules.body_s)
        if wanted == requests.FORM:
            return raw, await bodies.parse_form(scope, raw, receive)
        return raw, bodies.parse_json(raw)

    def judge(self, client: Client, path: str, body: dict[str, Any], *, form: bool) -> str:
        """Return the model that a request asks for. Raises Refusal."""
        model = body.get("model")
        if client is not MASTER:
            for name in () if form else requests.DROPPED:
                body.pop(name, None)
            requests.check_fields(client.name, body)
            model = requests.check_model(
                client.name, model, client.allowed(self.rules.public_names)
            )
        if str(model) in self.rules.paths:
            requests.check_path(str(model), path, self.rules.paths[str(model)])
        if not form:
            requests.check_types(path, body)
        if client is not MASTER:
            # After the types: an object with an id where a text belongs refers to nothing.
            kept.check_kept(path, body)
        if model in self.rules.text_only:
            requests.check_media(str(model), body)
        return str(model)

    def model(self, client: Client, name: str) -> dict[str, Any]:
        """Describe what can be asked for; of aliases and capabilities LiteLLM knows nothing.

        Raises Refusal (404).
        """
        if name not in client.allowed(self.rules.public_names):
            text = f"There is no model {shown(name)} for this key; see GET /v1/models."
            raise Refusal(404, text, param="model", code="model_not_found")
        return {"id": name, "object": "model", "created": CREATED, "owned_by": "modelyard"}

    def prepare(self, client: Client, path: str, body: dict[str, Any], headers: Headers) -> bytes:
        """Change the body as LiteLLM shall see it, and return it as bytes. Raises Refusal."""
        for name, value in list(body.items()):
            # Null is as if it were absent, except for LiteLLM: 500.
            if value is None:
                del body[name]
        raw = bodies.dump_json(body)
        if self.rules.cached:
            # LiteLLM's own key leaves out fields that it does not know, headers, and who asks.
            said = [
                part
                for pair in headers
                if pair[0].startswith(requests.STEERING_HEADERS)
                for part in pair
            ]
            whose = hashlib.sha256(b"\0".join([client.name.encode(), path.encode(), raw, *said]))
            body["cache"] = {"namespace": whose.hexdigest()}
            raw = bodies.dump_json(body)
        return raw

    def tell(self, client: Client, scope: Scope, model: str) -> None:
        """Write a line about a client's request to the journal: nothing of its content."""
        if client is not MASTER:
            known = model if model in self.rules.public_names else ""
            say(f"client {client.name}: {told(scope)} {known}".rstrip())


def told(scope: Scope) -> str:
    """What a request is, in the journal: its method and its path, without a model's name in it."""
    bare = requests.path_of(scope["path"])
    one = bare is not None and bare.startswith(f"{requests.READING}/")
    path = f"/{requests.READING}/..." if one else shown(scope["path"])[1:-1]
    return f"{scope['method']} {path}"


async def while_there(answering: Awaitable[None], receive: Receive) -> None:
    """Answer until the client leaves, and a moment longer: LiteLLM gives up by itself on the paths
    where it looks.
    """

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(answering), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({task}, timeout=GRACE_S)
        if task.done():
            task.result()
    finally:
        leaving.cancel()
        task.cancel()


def passes(client: Client, name: bytes) -> bool:
    """Whether LiteLLM sees this header."""
    return name not in KEY_HEADERS and (client is MASTER or name in requests.PASSED_HEADERS)


def with_length(headers: Headers, length: int) -> Headers:
    """The headers of a body that is this long."""
    kept = [pair for pair in headers if pair[0] not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode())]


def nothing(receive: Receive) -> Receive:
    """No body: of a request that needs none, what was sent is not read."""
    return bodies.replay(b"", receive)
