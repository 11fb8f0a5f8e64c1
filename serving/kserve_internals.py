"""The names of KServe that are not public and that plumbline uses, here and nowhere else.

KServe opens its ports itself, on every address, and takes neither middleware nor exception handlers nor a servicer.
These classes take them. A test fails when KServe's version is another than VERSION.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
from fastapi import FastAPI
from kserve.model_server import ModelServer  # noqa: TID253 (imported by the server alone)
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc  # noqa: TID253
from kserve.protocol.grpc.server import GRPCServer  # noqa: TID253
from kserve.protocol.grpc.servicer import InferenceServicer  # noqa: TID253
from kserve.protocol.rest.server import RESTServer  # noqa: TID253

from plumbline.errors import ServiceUnavailable

VERSION = "0.21.0"
"""The KServe whose code was read for this."""


class SocketRest(RESTServer):  # type: ignore[misc]
    """KServe's REST server on a socket that is bound already, behind this middleware, with these handlers of errors
    and connections of this class."""

    def __init__(
        self,
        bound: socket.socket,
        middleware: Any,
        handlers: Mapping[type[Exception], Callable[..., Any]],
        connection: type[asyncio.Protocol],
        **more: Any,
    ) -> None:
        super().__init__(http_port=bound.getsockname()[1], **more)
        self.config.http = connection
        self._bound, self._middleware, self._handlers = bound, middleware, handlers

    async def start(self) -> None:
        """Serves until SIGTERM or SIGINT, and until the requests under way are answered."""
        self.create_application()
        await self._server.serve(sockets=[self._bound])

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(self._middleware)

    def _add_exception_handlers(self, app: FastAPI) -> None:
        for kind, handler in self._handlers.items():
            app.add_exception_handler(kind, handler)


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's gRPC servicer, whose data plane a subclass may ask."""

    @property
    def data_plane(self) -> Any:
        """What infers, and knows which model is ready."""
        return self._data_plane


class AddressGrpc(GRPCServer):  # type: ignore[misc]
    """KServe's gRPC server on one address instead of all, alone on its port, with a servicer of ours."""

    def __init__(
        self, host: str, port: int, servicer: type[Servicer], interceptors: Sequence[Any], largest: int, **more: Any
    ) -> None:
        """`largest` bounds a message, in bytes."""
        super().__init__(port, **more)
        self._host, self._servicer, self._interceptors, self._largest = host, servicer, interceptors, largest

    async def start(self, max_workers: int) -> None:
        """Serves until stopped. Raises ServiceUnavailable when the port is taken."""
        self._server = grpc.aio.server(
            futures.ThreadPoolExecutor(max_workers=max_workers),
            interceptors=tuple(self._interceptors),
            options=[
                ("grpc.max_receive_message_length", self._largest),
                ("grpc.so_reuseport", 0),
                ("grpc.max_connection_idle_ms", 60_000),
                ("grpc.server_handshake_timeout_ms", 10_000),
            ],
        )
        servicer = self._servicer(self._data_plane, self._model_repository_extension)
        grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        try:
            self._server.add_insecure_port(f"{self._host}:{self._port}")
        except RuntimeError:
            raise ServiceUnavailable(f"gRPC: cannot listen on {self._host}:{self._port}: is the port taken?") from None
        await self._server.start()
        await self._server.wait_for_termination()


class OneLoopServer(ModelServer):  # type: ignore[misc]
    """KServe's model server with a REST and a gRPC server of ours, both in one event loop and one process."""

    def stop(self, sig: int) -> None:
        """Drains gRPC. KServe's own forgets the models first, and then answers that it never knew them."""
        asyncio.get_running_loop().create_task(self._grpc_server.stop(sig))

    def serve(self, model: Any, rest: Callable[..., SocketRest], grpc_: Callable[..., AddressGrpc]) -> None:
        """Serves the model until SIGTERM. uvicorn takes it, drains, and raises it again, which drains gRPC."""
        self._register_and_check_atleast_one_model_is_ready([model])
        given = {"data_plane": self.dataplane, "model_repository_extension": self.model_repository_extension}
        self._rest_server = rest(app="kserve.model_server:app", **given)
        self._grpc_server = grpc_(kwargs={}, **given)
        self.servers = [self._rest_server.start(), self._grpc_server.start(self.max_threads)]
        self.register_signal_handler()
        asyncio.run(self._serve())
