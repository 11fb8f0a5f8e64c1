"""KServe's REST server with honest errors: one body for all, no 500 for a body that is wrong, ids on every answer."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from kserve import errors as kserve_errors  # noqa: TID253 (imported by the server alone)
from kserve.protocol.dataplane import DataPlane  # noqa: TID253
from starlette.exceptions import HTTPException as StarletteHTTPException

from plumbline.product import Product
from serving import bodies, errors
from serving.connections import BoundedConnection
from serving.edge import Edge, response
from serving.errors import Refused
from serving.kserve_internals import SocketRest
from serving.predictor import Predictor

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


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane of one predictor, where a body that is wrong is a 400 that says what, and ready means that it
    scores."""

    def __init__(self, predictor: Predictor, **more: Any) -> None:
        super().__init__(**more)
        self.predictor = predictor

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

    def check_version(self, version: str | None) -> None:
        """Raises Refused (404) for a version of the model that is not the one served; none means that one."""
        self.predictor.check_version(version)

    def metadata(self) -> dict[str, Any]:
        """The server's name, its version, and the protocol extensions that it answers."""
        return {**super().metadata(), "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """A model's inputs, outputs, and the version that is served."""
        version = self.get_model_from_registry(model_name).version
        return {**await super().model_metadata(model_name), "versions": [version] if version else []}

    def decode(
        self, body: Any, headers: dict[str, str], protocol_version: str = "v1", model_name: str | None = None
    ) -> Any:
        """A request's body as a v1 dict or a v2 InferRequest. Raises Refused (400)."""
        if protocol_version.lower() == "v2":
            return bodies.infer_request(body, headers, model_name, self.predictor), {}
        return bodies.document(body), {}


def _id(request: Request) -> str:
    return request.headers.get("x-request-id", "")


def _handlers(product: Product) -> dict[type[Exception], Any]:
    """What answers each exception."""
    entities = product.entities

    async def on_refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)  # noqa: S101 (as registered)
        return response(error, _id(request), product)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException | StarletteHTTPException)  # noqa: S101 (as registered)
        body = errors.body(str(error.detail), _id(request), entities)
        return JSONResponse(body, error.status_code, error.headers)

    async def on_kserve(request: Request, error: Exception) -> JSONResponse:
        status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
        headers = {"retry-after": "5"} if status == 503 else None
        return JSONResponse(errors.body(str(error), _id(request), entities), status, headers)

    return {Refused: on_refused, StarletteHTTPException: on_http, **dict.fromkeys(STATUS, on_kserve)}


def server(bound: socket.socket, hosts: list[str], **more: Any) -> SocketRest:
    """KServe's REST server on that socket, with this module's errors, the edge, and bounded connections.

    `hosts` are the names by which it is asked, as in callers.check.
    """
    logging.getLogger("uvicorn.access").disabled = True  # the metrics count; a line a request would fill the disk
    plane: Plane = more["data_plane"]
    product, largest = plane.predictor.product, plane.predictor.largest_body
    connection = type("Connection", (BoundedConnection,), {"entities": product.entities})
    edge = partial(Edge, product=product, largest_body=largest, check_version=plane.check_version, hosts=hosts)
    return SocketRest(bound, edge, _handlers(product), connection, **more)
