"""The predictor as a private server of the home: found by its record or started, for `plumb up` and the demo."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

from plumbline import online_store, services
from serving import registry
from serving.errors import ServingError

NAME = "predictor"
READY = "/v2/models/churn-predictor/ready"


def ensure(model: str = "champion") -> services.Service:
    """The running predictor, or a new one; `more` holds `grpc_port` and `model`, the version that it serves.

    A predictor keeps the version that it loaded, so one that serves another than the alias means by now is stopped,
    and a new one listens where it did. Raises ServingError when there is no such model,
    ServiceUnavailable with the log's last lines when it does not come up.
    """
    online_store.url()  # outside the predictor's own session, so that one outlives the other
    meant = registry.find(model)
    if meant is None:
        raise ServingError(
            f"{registry.NAME} has no {model!r}: `plumb register` makes a challenger, `plumb deploy` a champion"
        )
    version = str(meant.version)
    found = services.find(NAME)
    if found is not None and found.more["model"] != version:
        services.stop(NAME)
    grpc_port = services.free_port()

    def command(port: int, token: str) -> list[str]:
        given = {"--port": str(port), "--grpc-port": str(grpc_port), "--model": version}
        return [sys.executable, "-m", "plumbline.cli", "serve", *(part for pair in given.items() for part in pair)]

    return services.ensure(
        services.Launch(
            name=NAME,
            command=command,
            ready=lambda port, token: _ready(port),
            port=found.port if found else None,
            # Feast, once imported here, names in them a folder that ends with this process.
            env=lambda port, token: {"PROMETHEUS_MULTIPROC_DIR": None, "PROMETHEUS_MULTIPROCESS_DIR": None},
            more=lambda: {"grpc_port": grpc_port, "model": version},
        )
    )


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{services.HOST}:{port}{READY}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
