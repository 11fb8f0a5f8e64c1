"""KServe's REST server with honest errors: one body for all, no 500 for a body that is wrong, ids on every answer."""

from __future__ import annotations

import json
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import errors as kserve_errors  # noqa: TID253 (imported by the server alone)
from kserve.protocol.dataplane import DataPlane  # noqa: TID253
from kserve.protocol.rest.v2_datamodels import InferenceRequest  # noqa: TID253
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from plumbline.metrics import instrument
from serving import errors
from serving.churn import requests
from serving.errors import Refused
from serving.kserve_internals import SocketRest

LOG = logging.getLogger("plumbline.serving")

LARGEST_BODY = 1 << 20
"""Bytes: a request of 1,000 customers needs some 25,000."""

STATUS: Mapping[type[Exception], int] = {
    kserve_errors.InvalidInput: 400,
    kserve_errors.ModelNotFound: 404,
    kserve_errors.ModelNotReady: 503,
    kserve_errors.ServerNotLive: 503,
    kserve_errors.ServerNotReady: 503,
    kserve_errors.UnsupportedProtocol: 501,
    NotImplementedError: 501,
}
"""KServe's own exceptions and what they answer."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, where a body that is wrong is a 400 that says what, and ready means that it scores."""

    async def ready(self) -> bool:
        """Whether every model scores."""
        names = list(self.model_registry.get_models())
        return all([await self.model_ready(name) for name in names])

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        """Whether a model is loaded and, when it is the health that is asked for, scores a customer.

        An inference asks too, without the health check.
        """
        if not await super().model_ready(model_name, disable_predictor_health_check):
            return False
        model = self.model_registry.get_model(model_name)
        return disable_predictor_health_check or bool(await model.scores())

    def decode(
        self, body: Any, headers: dict[str, str], protocol_version: str = "v1", model_name: str | None = None
    ) -> Any:
        """A request's body as a v1 dict or a v2 InferRequest. Raises Refused (400, 415)."""
        if any(name.startswith("ce-") for name in headers) or "cloudevents" in headers.get("content-type", ""):
            raise Refused(415, "CloudEvents are not answered here: send plain JSON")
        tensors = protocol_version.lower() == "v2"
        try:
            if isinstance(body, bytes) and not (tensors and "inference-header-content-length" in headers):
                body = json.loads(body)  # whatever its content type says: curl's default is a form
                if not tensors:
                    return body, {}
                body = InferenceRequest.model_validate(body)
            return super().decode(body, headers, protocol_version, model_name)
        except ValidationError as error:
            raise Refused(400, f"expected {requests.V2_SHAPE}; {_problems(error.errors())}") from None
        except (ValueError, RecursionError) as error:  # InvalidInput too
            raise Refused(400, f"the body cannot be decoded: {str(error)[:300]}") from None
        except (AttributeError, KeyError, TypeError, IndexError, OverflowError) as error:
            told = f"{type(error).__name__} {str(error)[:200]}"
            raise Refused(400, f"expected {requests.V2_SHAPE}; the request cannot be read: {told}") from None


class Edge:
    """ASGI middleware: names the request, bounds its body, counts its answer, and lets no exception out."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given or str(uuid.uuid4())
        if not given:
            scope["headers"] = [*scope["headers"], (b"x-request-id", request_id.encode())]
        started: list[int] = []

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message["status"])
                if not any(name == b"x-request-id" for name, _ in message["headers"]) and requests.is_plain(request_id):
                    message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            if scope["path"].startswith("/v2/repository"):
                raise Refused(403, "models are not loaded or unloaded over HTTP: a deployment does that")
            await self._app(scope, _bounded(scope, receive), sending)
        except Refused as refused:
            await _response(refused, request_id)(scope, receive, sending)
        except Exception:
            LOG.exception("request %r failed", request_id)
            if started:
                raise
            message = "an internal error; the server's log has it under this request's id"
            answer = JSONResponse(errors.body(message, request_id), HTTPStatus.INTERNAL_SERVER_ERROR)
            await answer(scope, receive, sending)
        finally:
            if scope["path"].endswith((":predict", "/infer")):
                status = started[0] if started else 499
                instrument("predictions_total").labels(protocol=scope["path"][1:3], status=str(status)).inc()


def _bounded(scope: Message, receive: Receive) -> Receive:
    """`receive`, which refuses a body that is too large: by its header before it is read, else while it is."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > LARGEST_BODY:
        raise _too_large(int(declared))
    read = 0

    async def receiving() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > LARGEST_BODY:
            raise _too_large(read)
        return message

    return receiving


def _too_large(size: int) -> Refused:
    return Refused(413, f"expected a body of at most {LARGEST_BODY} bytes, found {size}: ask for fewer customers")


def _response(refused: Refused, request_id: str) -> JSONResponse:
    request_id = refused.request_id or request_id
    headers = {"x-request-id": request_id} if requests.is_plain(request_id) else {}
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    return JSONResponse(refused.body(request_id), refused.status, headers)


def _id(request: Request) -> str:
    return request.headers.get("x-request-id", "")


async def _on_refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 (as registered)
    return _response(error, _id(request))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's view of a v2 body that does not fit its model, which it would answer with 422."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (as registered)
    message = f"expected {requests.V2_SHAPE}; {_problems(error.errors())}"
    return JSONResponse(errors.body(message, _id(request)), HTTPStatus.BAD_REQUEST)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException | StarletteHTTPException)  # noqa: S101 (as registered)
    return JSONResponse(errors.body(str(error.detail), _id(request)), error.status_code, error.headers)


async def _on_kserve(request: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    headers = {"retry-after": "5"} if status == 503 else None
    return JSONResponse(errors.body(str(error), _id(request)), status, headers)


_LEFT_OUT = ("body", "InferenceRequest")


def _problems(found: Any) -> str:
    """The first three of pydantic's problems, in one line. Those of the alternative `bytes` are left out."""
    told = [
        f"{'.'.join(str(part) for part in problem['loc'] if part not in _LEFT_OUT)}: {problem['msg']}"
        for problem in found
        if "bytes" not in problem["loc"]
    ]
    return "; ".join(told[:3]).lstrip(": ")[:300]


def server(bound: socket.socket, **more: Any) -> SocketRest:
    """KServe's REST server on that socket, with this module's errors and edge."""
    logging.getLogger("uvicorn.access").disabled = True  # the metrics count; a line a request would fill the disk
    handlers = {Refused: _on_refused, RequestValidationError: _on_invalid, StarletteHTTPException: _on_http}
    return SocketRest(bound, Edge, {**handlers, **dict.fromkeys(STATUS, _on_kserve)}, **more)
