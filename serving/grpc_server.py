"""KServe's gRPC server with the same refusals as REST, as status codes: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError
from kserve import errors as kserve_errors  # noqa: TID253 (imported by the server alone)
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb  # noqa: TID253
from kserve.protocol.infer_type import InferRequest  # noqa: TID253

from plumbline.metrics import instrument
from plumbline.product import Product
from serving import bodies, requests
from serving.edge import GONE
from serving.errors import Refused
from serving.kserve_internals import AddressGrpc, Servicer

LOG = logging.getLogger("plumbline.serving")
READ = 4
"""gRPC reads messages of so many times the size that a request may have; beyond that it refuses by itself, and nobody
counts it."""

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}
NAMED = 50
"""Ids whose reasons fit into the trailing metadata, which HTTP/2 peers bound at 8 KiB."""

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Unreadable:
    """What stands for a message that is no request."""

    why: str
    code: grpc.StatusCode
    status: int


class Reading(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses messages that are too large or no protobuf: gRPC itself would answer with a Python class's name."""

    def __init__(self, product: Product, largest: int) -> None:
        self._product, self._largest = product, largest

    async def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The call's handler, behind a deserializer that does not raise."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        read, answer = handler.request_deserializer, handler.unary_unary

        def reading(message: bytes) -> Any:
            if len(message) > self._largest:
                why = f"expected a message of at most {self._largest} bytes, found {len(message)}"
                return Unreadable(why, grpc.StatusCode.RESOURCE_EXHAUSTED, 413)
            try:
                return read(message)
            except (DecodeError, ValueError):
                why = f"the message is no {details.method.rpartition('/')[2]} request that can be read"
                return Unreadable(why, grpc.StatusCode.INVALID_ARGUMENT, 400)

        async def answering(request: Any, context: Any) -> Any:
            if isinstance(request, Unreadable):
                if details.method == INFER:
                    _count(self._product, request.status)
                await context.abort(request.code, request.why)
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(answering, reading, handler.response_serializer)


class RefusingServicer(Servicer):
    """KServe's servicer; a refusal becomes a status code, its reasons a JSON object in the trailing metadata."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """One inference. The status says what REST's would; reasons and `retry-after` are trailing metadata."""
        status = GONE  # whoever goes away cancels the call
        try:
            answer = await self._infer(request, context)
            status = 200
            return answer
        except Exception as error:
            refused = _refused(error)
            status, product = refused.status, self.data_plane.predictor.product
            instrument("predictions_refused_total").labels(product.name, str(status), refused.code).inc()
            await self._abort(context, refused)
        finally:
            _count(self.data_plane.predictor.product, status)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Whether the model scores, in the version that is asked for."""
        ready = await self._asked(request, context, lambda: self.data_plane.model_ready(model_name=request.name))
        return pb.ModelReadyResponse(ready=ready)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """The model's inputs and outputs, and the version that is served."""
        about = await self._asked(request, context, lambda: self.data_plane.model_metadata(model_name=request.name))
        return pb.ModelMetadataResponse(**about)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        """Refused: a deployment loads models."""
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "models are loaded by a deployment")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        """Refused: a deployment unloads models."""
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "models are unloaded by a deployment")

    async def _asked(self, request: Any, context: Any, answer: Callable[[], Any]) -> Any:
        try:
            self._check_name(request.name)
            self.data_plane.check_version(request.version)
            return await answer()
        except Exception as error:
            await self._abort(context, _refused(error))

    async def _infer(self, request: Any, context: Any) -> Any:
        headers = {item.key: item.value for item in context.invocation_metadata() or ()}
        self._check_name(request.model_name)
        self.data_plane.check_version(request.model_version)
        try:
            self.validate_grpc_request(request)
            bodies.check_datatypes([tensor.datatype for tensor in request.inputs], self.data_plane.predictor)
            decoded = InferRequest.from_grpc(request)
        except (kserve_errors.InvalidInput, ValueError, TypeError, IndexError) as error:
            raise Refused(400, f"the request cannot be read: {error}") from None
        if not await self.data_plane.model_ready(request.model_name, disable_predictor_health_check=True):
            raise kserve_errors.ModelNotReady(request.model_name)
        answer, _ = await self.data_plane.infer(request=decoded, headers=headers, model_name=request.model_name)
        return answer.to_grpc()

    def _check_name(self, name: str) -> None:
        served = self.data_plane.predictor.product.service
        if name != served:
            raise Refused(404, f"no model {requests.shown(name)}: this server has {served}")

    async def _abort(self, context: Any, refused: Refused) -> None:
        trailing = [("x-request-id", refused.request_id)] if refused.request_id else []
        if refused.retry_after is not None:
            trailing.append(("retry-after", str(refused.retry_after)))
        if refused.reasons:
            reasons = {str(key): why for key, why in list(refused.reasons.items())[:NAMED]}
            trailing.append((self.data_plane.predictor.product.entities, json.dumps(reasons)))
        await context.abort(CODES.get(refused.status, grpc.StatusCode.INTERNAL), str(refused), tuple(trailing))


KSERVE: Mapping[type[Exception], int] = {kserve_errors.ModelNotFound: 404, kserve_errors.ModelNotReady: 503}


def _count(product: Product, status: int) -> None:
    instrument("predictions_total").labels(product.name, "grpc", str(status)).inc()


def _refused(error: Exception) -> Refused:
    """What a call is answered with: a refusal as it is; anything unknown goes into the log and is an internal error."""
    if isinstance(error, Refused):
        return error
    for kind, status in KSERVE.items():
        if isinstance(error, kind):
            return Refused(status, str(error), retry_after=5 if status == 503 else None)
    LOG.error("gRPC request failed", exc_info=error)
    return Refused(500, "an internal error; the server's log has it")


def server(host: str, port: int, **more: Any) -> AddressGrpc:
    """KServe's gRPC server on that address, with this module's refusals."""
    predictor = more["data_plane"].predictor
    reading, largest = Reading(predictor.product, predictor.largest_body), READ * predictor.largest_body
    return AddressGrpc(host, port, RefusingServicer, [reading], largest, **more)
