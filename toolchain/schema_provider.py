"""A provider that knows schemas and does nothing: what OpenTofu starts in place of a cloud's provider.

`python -m toolchain.schema_provider FILE` serves the answer GetProviderSchema that FILE holds, over gRPC as OpenTofu's
plugins do. It finds every configuration valid, so that OpenTofu alone checks it, against the schema. All else is
refused: a plan that would ask a cloud fails, and `tofu test` with mocks asks for none of it.
"""

from __future__ import annotations

import sys
import threading
from concurrent import futures
from pathlib import Path

PROTOCOL = "1|6"
"""Version of the handshake, and of the plugin protocol."""

VALID = ("ValidateProviderConfig", "ValidateResourceConfig", "ValidateDataResourceConfig")
LARGEST = 64 << 20
LONGEST_SECONDS = 600
"""A provider whose OpenTofu was killed ends by itself."""


def main() -> None:
    """Serves until OpenTofu says stop."""
    import grpc  # type: ignore[import-untyped]

    from toolchain.protobuf import field, wrap

    schema, over = Path(sys.argv[1]).read_bytes(), threading.Event()

    def answering(answer: bytes, *, last: bool = False) -> grpc.RpcMethodHandler:
        def answered(request: bytes, context: grpc.ServicerContext) -> bytes:
            if last:
                over.set()
            return answer

        return grpc.unary_unary_rpc_method_handler(answered)

    def upgraded(request: bytes, context: grpc.ServicerContext) -> bytes:
        """A state's JSON as it came: the versions of a schema that is made up for a test do not differ."""
        state = field(field(request, 3), 1)
        return wrap(1, wrap(2, state))

    services = {
        "tfplugin6.Provider": {
            "GetProviderSchema": answering(schema),
            **{name: answering(b"") for name in VALID},
            "UpgradeResourceState": grpc.unary_unary_rpc_method_handler(upgraded),
            "StopProvider": answering(b""),
        },
        "grpc.health.v1.Health": {"Check": answering(b"\x08\x01")},  # SERVING
        "plugin.GRPCController": {"Shutdown": answering(b"", last=True)},
    }
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", LARGEST)])
    handlers = [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]
    server.add_generic_rpc_handlers(tuple(handlers))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"{PROTOCOL}|tcp|127.0.0.1:{port}|grpc|", flush=True)
    over.wait(LONGEST_SECONDS)
    server.stop(1).wait()


if __name__ == "__main__":
    main()
