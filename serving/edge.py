"""The edge of the REST server, an ASGI middleware: what is settled before KServe's routes see a request.

It names the request, refuses whom and what the predictor does not take, reads the body whole, takes the version out of
the path, counts the answer, and lets no exception out.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from plumbline.metrics import instrument
from plumbline.product import Product
from plumbline.servers import callers
from serving import errors, requests
from serving.errors import Refused

LOG = logging.getLogger("plumbline.serving")

GONE = 499
"""The status of a request whose caller went away before it was there: no fault of ours, and nobody reads it."""

MODELS = re.compile(r"/v[12]/models/([^/:]+)")
ELSEWHERE = ("text/plain", "multipart/", "application/cloudevents")
"""Content types that are refused: the first two are what a web page can send anywhere, the third is no plain JSON."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Edge:
    """The middleware. `check_version` raises Refused for a version that is not served; `hosts` as in callers.check.

    A body may have `largest_body` bytes.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        product: Product,
        largest_body: int,
        check_version: Callable[[str], None],
        hosts: Collection[str] = (),
    ) -> None:
        self._app, self._check_version, self._hosts = app, check_version, hosts
        self._product, self._largest = product, largest_body
        model = re.escape(product.service)
        # What is counted as a prediction request, by protocol: POSTs to these paths and to no others.
        self._predictions = {
            "v1": re.compile(rf"/v1/models/{model}:predict"),
            "v2": re.compile(rf"/v2/models/{model}(/versions/[^/]+)?/infer"),
        }
        self._versioned = re.compile(rf"(/v2/models/{model})/versions/([^/]+)(/ready|/infer)?")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        request_id = request_id or str(uuid.uuid4())
        protocol = self._protocol(scope)
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not any(name == b"x-request-id" for name, _ in message["headers"]) and requests.is_plain(request_id):
                    message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            scope, receive = await self._taken(scope, receive, request_id, protocol)
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = status or GONE
        except Refused as refused:
            await response(refused, request_id, self._product)(scope, receive, sending)
        except Exception:
            LOG.exception("request %r failed", request_id)
            if status:
                raise
            message = "an internal error; the server's log has it under this request's id"
            await JSONResponse(errors.body(message, request_id, self._product.entities), 500)(scope, receive, sending)
        finally:
            if protocol is not None:
                answered = instrument("predictions_total")
                answered.labels(self._product.name, protocol, str(status or GONE)).inc()

    async def _taken(
        self, scope: Message, receive: Receive, request_id: str, protocol: str | None
    ) -> tuple[Message, Receive]:
        """The request as KServe's routes get it. Raises Refused, or ClientDisconnect while its body is read."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1"))
        try:
            callers.check(headers.get(b"host", []), headers.get(b"origin", []), self._hosts)
        except callers.Foreign as foreign:
            raise Refused(403, str(foreign)) from None
        path: str = scope["path"]
        if path.startswith("/v2/repository"):
            raise Refused(403, "models are not loaded or unloaded over HTTP: a deployment does that")
        if (model := MODELS.match(path)) and model[1] != self._product.service:
            raise Refused(404, f"no model {requests.shown(model[1])}: this server has {self._product.service}")
        if versioned := self._versioned.fullmatch(path):
            self._check_version(versioned[2])
            path = versioned[1] + (versioned[3] or "")
        for version in parse_qs(scope["query_string"].decode("latin-1")).get("model_version", []):
            self._check_version(version)
        named = [(name, value) for name, value in scope["headers"] if name != b"x-request-id"]
        named.append((b"x-request-id", request_id.encode("latin-1")))
        if protocol is not None:
            _check_kind(headers)
            body = await self._read(headers, receive)
            if not body:
                raise Refused(400, "the body cannot be decoded: it is empty")
            receive = _replayed(body, receive)
            # FastAPI would decode JSON itself and not say where it is broken: it hands on any other type as it is.
            named = [(name, value) for name, value in named if name != b"content-type"]
            named.append((b"content-type", b"application/octet-stream"))
        else:
            receive = self._bounded(headers, receive)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # uvicorn leaves out the body
        taken = {**scope, "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
        return {**taken, "headers": named}, receive

    def _protocol(self, scope: Message) -> str | None:
        """`v1` or `v2` for a prediction request, else None."""
        if scope["method"] != "POST":
            return None
        return next((name for name, path in self._predictions.items() if path.fullmatch(scope["path"])), None)

    async def _read(self, headers: dict[bytes, list[str]], receive: Receive) -> bytes:
        """The whole body, at most `largest_body` bytes. Raises Refused (413), ClientDisconnect."""
        bounded = self._bounded(headers, receive)
        body: bytes = b""
        while True:
            message = await bounded()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += bytes(message.get("body", b""))
            if not message.get("more_body", False):
                return body

    def _bounded(self, headers: dict[bytes, list[str]], receive: Receive) -> Receive:
        """`receive`, which refuses a body that is too large: by its header before it is read, else while it is."""
        for declared in headers.get(b"content-length", []):
            if declared.isdigit() and int(declared) > self._largest:
                raise self._too_large(int(declared))
        read = 0

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._largest:
                raise self._too_large(read)
            return message

        return receiving

    def _too_large(self, size: int) -> Refused:
        found = f"found {size}: ask for fewer {self._product.entities}"
        return Refused(413, f"expected a body of at most {self._largest} bytes, {found}")


def _check_kind(headers: dict[bytes, list[str]]) -> None:
    """Raises Refused (415) for a body that is no plain JSON by its headers."""
    for encoding in headers.get(b"content-encoding", []):
        if encoding.strip().lower() not in ("", "identity"):
            raise Refused(415, f"content-encoding {requests.shown(encoding)}: send the body uncompressed")
    kinds = [kind.strip().lower() for kind in headers.get(b"content-type", [])]
    if any(name.startswith(b"ce-") for name in headers) or any(kind.startswith(ELSEWHERE) for kind in kinds):
        raise Refused(415, f"content-type {requests.shown(', '.join(kinds))}: send plain JSON as application/json")


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replaying() -> Message:
        return waiting.pop() if waiting else await receive()

    return replaying


def response(refused: Refused, request_id: str, product: Product) -> JSONResponse:
    """A refusal as an answer, counted."""
    instrument("predictions_refused_total").labels(product.name, str(refused.status), refused.code).inc()
    request_id = refused.request_id or request_id
    headers = {"x-request-id": request_id} if requests.is_plain(request_id) else {}
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    return JSONResponse(refused.body(request_id, product.entities), refused.status, headers)
