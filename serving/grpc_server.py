"""KServe's gRPC server with the same refusals as REST, as status codes: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE."""

from __future__ import annotations

import json
import logging
from typing import Any

import grpc  # type: ignore[import-untyped]
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady  # noqa: TID253 (imported by the server alone)
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor  # noqa: TID253
from kserve.protocol.infer_type import InferRequest  # noqa: TID253

from plumbline.metrics import instrument
from serving.errors import Refused
from serving.kserve_internals import AddressGrpc, Servicer

LOG = logging.getLogger("plumbline.serving")
LARGEST_MESSAGE = 1 << 20

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
}
NAMED = 50
"""Customers whose reasons fit into the trailing metadata, which HTTP/2 peers bound at 8 KiB."""


class Interceptor(ExceptionToStatusInterceptor):  # type: ignore[misc]
    """KServe's mapping for the calls that are not inference; a call that was aborted on purpose is no error."""

    async def handle_exception(self, ex: Exception, *call: Any) -> None:
        """Maps KServe's exceptions to status codes, and leaves aborted calls as they are."""
        if isinstance(ex, grpc.aio.AbortError):
            raise ex
        await super().handle_exception(ex, *call)


class RefusingServicer(Servicer):
    """KServe's servicer; a refusal becomes a status code, its reasons a JSON object in the trailing metadata."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """One inference. The status says what REST's would; `customers` and `retry-after` are trailing metadata."""
        status = 500
        try:
            answer = await self._infer(request, context)
            status = 200
        except Refused as refused:
            status = refused.status
            await _abort(context, refused)
        except ModelNotFound as error:
            status = 404
            await _abort(context, Refused(404, str(error)))
        except ModelNotReady as error:
            status = 503
            await _abort(context, Refused(503, str(error), retry_after=5))
        except Exception:
            LOG.exception("gRPC request failed")
            await context.abort(grpc.StatusCode.INTERNAL, "an internal error; the server's log has it")
        finally:
            instrument("predictions_total").labels(protocol="grpc", status=str(status)).inc()
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        """Refused: a deployment loads models."""
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "models are loaded by a deployment")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        """Refused: a deployment unloads models."""
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "models are unloaded by a deployment")

    async def _infer(self, request: Any, context: Any) -> Any:
        headers = {item.key: item.value for item in context.invocation_metadata() or ()}
        try:
            self.validate_grpc_request(request)
            asked = InferRequest.from_grpc(request)
        except (InvalidInput, ValueError, TypeError, IndexError) as error:
            raise Refused(400, f"the request cannot be read: {error}") from None
        if not await self.data_plane.model_ready(request.model_name, disable_predictor_health_check=True):
            raise ModelNotReady(request.model_name)
        answer, _ = await self.data_plane.infer(request=asked, headers=headers, model_name=request.model_name)
        return answer.to_grpc()


async def _abort(context: Any, refused: Refused) -> None:
    trailing = [("x-request-id", refused.request_id)] if refused.request_id else []
    if refused.retry_after is not None:
        trailing.append(("retry-after", str(refused.retry_after)))
    if refused.customers:
        reasons = {str(customer): why for customer, why in list(refused.customers.items())[:NAMED]}
        trailing.append(("customers", json.dumps(reasons)))
    await context.abort(CODES.get(refused.status, grpc.StatusCode.INTERNAL), str(refused), tuple(trailing))


def server(host: str, port: int, **more: Any) -> AddressGrpc:
    """KServe's gRPC server on that address, with this module's refusals."""
    return AddressGrpc(host, port, RefusingServicer, [Interceptor()], LARGEST_MESSAGE, **more)
