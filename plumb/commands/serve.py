"""A product's predictor as a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from plumbline.product import Product


def serve_command(product: Product) -> Callable[..., None]:
    """The command that serves a product's model."""

    def command(
        port: Annotated[int, typer.Option(help="HTTP port; 0 chooses a free one.")] = 0,
        grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 chooses a free one.")] = 0,
        model: Annotated[str, typer.Option(help="The registered model's alias or version.")] = "champion",
        host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 in a pod.")] = "127.0.0.1",
        model_dir: Annotated[
            Path | None, typer.Option(help="A folder with the model's files instead of the registry, as in a pod.")
        ] = None,
        slot: Annotated[
            str | None,
            typer.Option(
                metavar="SIDE", help="stable or canary: serve what PLUMBLINE_MODELS says of that side, as in a stack."
            ),
        ] = None,
        canary: Annotated[
            bool,
            typer.Option("--canary", help="Log and measure as the canary, where PLUMBLINE_TRACK_FILE does not say."),
        ] = False,
    ) -> None:
        from serving import server

        if slot is not None:
            from serving import slot as slots

            if slot not in slots.SIDES:
                raise typer.BadParameter(f"--slot {slot}: expected {' or '.join(slots.SIDES)}")
            slots.serve(product, slots.CANARY if slot == slots.CANARY else slots.STABLE, host, port, grpc_port)
            return
        server.serve(product, port, grpc_port, model, host, model_dir, canary)

    command.__doc__ = f"""Serve {product.model} with KServe's model server until SIGTERM: v1 and v2, REST and gRPC.

    A champion that is unsigned or was altered is refused, and the previous one serves in its place: the log says
    REFUSED, the metric model_refused is 1, and answers carry refused_model_version. Another model is refused outright.

    With --model-dir no registry is asked: PLUMBLINE_MODEL_VERSION says which version the folder holds, and
    PLUMBLINE_MODEL_SIGNATURE must sign exactly what is in it. With --slot both come from PLUMBLINE_MODELS; when it says
    something else the process ends, to be started again.

    Example: {product.command_of("serve")} --port 8080
    """
    return command
