"""The predictor as a private server of the home: found by its record or started, for `plumb up` and the demo."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

from plumbline import online_store, services

NAME = "predictor"
READY = "/v2/models/churn-predictor/ready"


def ensure(model: str = "champion") -> services.Service:
    """The running predictor, or a new one; `more` holds `grpc_port` and `model`, the alias or version it was asked for.

    A predictor keeps the version that it loaded: `services.stop("predictor")` first, to have a new champion served.
    Raises ServiceUnavailable with the log's last lines when it does not come up.
    """
    online_store.url()  # outside the predictor's own session, so that one outlives the other
    found = services.find(NAME)
    if found is not None and found.more["model"] != model:
        services.stop(NAME)
    grpc_port = services.free_port()

    def command(port: int, token: str) -> list[str]:
        given = {"--port": str(port), "--grpc-port": str(grpc_port), "--model": model}
        return [sys.executable, "-m", "plumbline.cli", "serve", *(part for pair in given.items() for part in pair)]

    return services.ensure(
        services.Launch(
            name=NAME,
            command=command,
            ready=lambda port, token: _ready(port),
            more=lambda: {"grpc_port": grpc_port, "model": model},
        )
    )


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{services.HOST}:{port}{READY}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
