"""What `plumb up` keeps running, as far as there is something to serve."""

from __future__ import annotations

import sys

from observability import stack
from plumb.demo import mlflow_pages
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state import releases
from products import ALL
from products.churn import CHURN
from serving import launch
from serving import loaded_model as registry


def up() -> dict[str, str]:
    """Starts Redis, each product's predictor, MLflow's pages and what watches them, as far as there is something to
    serve: a product without a champion has no predictor, and that is said.

    Name → address, and for Prometheus and Alertmanager without their binaries how to get them. Raises ReleaseError
    when no product has one, ServingError when none has a champion.
    """
    released = [product for product in ALL if releases.numbers(product.name)]
    if not released:
        releases.required(CHURN.name)
    say("starting Redis, the predictors, MLflow's pages, and what watches them")
    found = {"redis": redis()}
    served = [product for product in released if registry.find(product, registry.CHAMPION) is not None]
    for product in served or released[:1]:
        found |= predictor(product)
    for product in released:
        if product not in served:
            say(f"no predictor of {product.name}: {registry.missing(product, registry.CHAMPION)}")
    return {**found, **mlflow(released[0]), **stack.up()}


def redis() -> str:
    """The online store's address."""
    where = online_store.client().connection_pool.connection_kwargs
    return f"{where['host']}:{where.get('port', 6379)}"


def predictor(product: Product) -> dict[str, str]:
    """A product's predictor, and where it answers."""
    found, name = launch.ensure(product), product.server
    return {
        name: f"http://{services.HOST}:{found.port}/v1/models/{product.service}:predict",
        f"{name} (gRPC)": f"{services.HOST}:{found.more['grpc_port']}",
        f"{name} (metrics)": f"http://{services.HOST}:{found.port}/metrics",
    }


def mlflow(product: Product) -> dict[str, str]:
    """MLflow's pages of a product's model."""
    if settings().mlflow_is_server:
        return {"mlflow": "the server that PLUMBLINE_MLFLOW_URL names"}
    pages = services.ensure(_mlflow())
    return {
        "mlflow": f"http://{services.HOST}:{pages.port}/#/models/{product.model}",
        "mlflow login": f"{mlflow_pages.USER}, the token in {settings().home / 'mlflow.json'}",
    }


def _mlflow() -> services.Launch:
    def command(port: int, token: str) -> list[str]:
        where = ["--host", services.HOST, "--port", str(port), "--log-level", "warning"]
        return [sys.executable, "-m", "uvicorn", "--factory", f"{mlflow_pages.__name__}:app", *where]

    return services.Launch(
        name="mlflow",
        command=command,
        ready=lambda port, token: services.answers(f"http://{services.HOST}:{port}/health", 1),
        env=lambda port, token: {
            mlflow_pages.PASSWORD: token,
            "MLFLOW_BACKEND_STORE_URI": settings().mlflow_uri,  # it may hold a password: no argument
            "PYTHONPATH": str(ROOT),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven workers for features that nothing here uses
        },
    )
