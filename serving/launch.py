"""The predictor as a private server of the home: found by its record or started, for `plumb up` and the demo."""

from __future__ import annotations

import sys
from pathlib import Path

from plumbline import files, provenance
from plumbline.product import Product
from plumbline.servers import online_store, services
from plumbline.settings import settings
from serving import loaded_model as registry
from serving.errors import ServingError
from serving.track import CANARY, STABLE


def canary_name(product: Product) -> str:
    """The canary's name among the home's servers; the predictor's is `product.server`."""
    return product.canary_server


def ready(product: Product) -> str:
    """The path that answers whether the predictor scores."""
    return f"/v2/models/{product.service}/ready"


def ensure(product: Product, model: str = "champion") -> services.Service:
    """The running predictor, or a new one; `more` holds `grpc_port`, `model`, the version that it serves, `revision`.

    A predictor keeps the version that it loaded, so one that serves another than the alias means by now is stopped,
    and a new one listens where it did. Raises ServingError when there is no such model,
    ServiceUnavailable with the log's last lines when it does not come up.
    """
    version = _version(product, model)
    found = services.find(product.server)
    if found is not None and found.more["model"] != version:
        services.stop(product.server)
    return services.ensure(_launch(product, product.server, version, STABLE, found.port if found else None))


def canary(product: Product, model: str) -> services.Service:
    """A second predictor beside the first, told that it is the canary. Raises as `ensure` does."""
    version = _version(product, model)
    services.stop(canary_name(product))
    return services.ensure(_launch(product, canary_name(product), version, CANARY, None))


def tell(revision: str, track: str) -> None:
    """Tells the predictor of that revision which side of a rollout it is; it knows within a second."""
    files.write_whole(track_file(revision), track + "\n")


def revision(product: Product, version: str) -> str:
    """What stands for a pod template's hash: of the model version and the code that serves it."""
    return files.sha256(f"{product.model} {version} {provenance.code_sha()}".encode())[:10]


def _version(product: Product, model: str) -> str:
    online_store.url()  # outside the predictor's own session, so that one outlives the other
    meant = registry.find(product, model)
    if meant is None:
        raise ServingError(registry.missing(product, model))
    return str(meant.version)


def _launch(product: Product, name: str, version: str, track: str, port: int | None) -> services.Launch:
    grpc_port, called = services.free_port(), revision(product, version)

    def command(port: int, token: str) -> list[str]:
        tell(called, track)
        given = {"--port": str(port), "--grpc-port": str(grpc_port), "--model": version}
        return [
            sys.executable,
            "-m",
            *product.command_of("serve").split(),
            *(part for pair in given.items() for part in pair),
        ]

    return services.Launch(
        name=name,
        command=command,
        ready=lambda port, token: services.answers(f"http://{services.HOST}:{port}{ready(product)}", 2),
        port=port,
        # Feast, once imported here, names in the first two a folder that ends with this process.
        env=lambda port, token: {
            "PROMETHEUS_MULTIPROC_DIR": None,
            "PROMETHEUS_MULTIPROCESS_DIR": None,
            "PLUMBLINE_REVISION": called,
            "PLUMBLINE_TRACK_FILE": str(track_file(called)),
        },
        more=lambda: {"grpc_port": grpc_port, "model": version, "revision": called},
    )


def track_file(revision: str) -> Path:
    """The file that says on which side of a rollout a predictor of this revision is."""
    return settings().home / "rollout" / "tracks" / revision
