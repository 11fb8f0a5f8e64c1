"""What `plumb up` keeps running, as far as there is something to serve."""

from __future__ import annotations

import sys

from observability import stack
from plumb.demo import mlflow_pages
from plumbline.progress import say
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state import releases
from products.churn import CHURN
from serving import launch

PRODUCT = CHURN.name


def up() -> dict[str, str]:
    """Starts Redis, the predictor, MLflow's pages and what watches them, as far as there is something to serve.

    Name → address, and for Prometheus and Alertmanager without their binaries how to get them.
    """
    releases.required(PRODUCT)
    say("starting Redis, the predictor, MLflow's pages, and what watches them")
    return {**start(["predictor", "mlflow"]), **stack.up()}


def start(names: list[str]) -> dict[str, str]:
    client = online_store.client()
    where = client.connection_pool.connection_kwargs
    addresses = {"redis": f"{where['host']}:{where.get('port', 6379)}"}
    if "predictor" in names:
        predictor = launch.ensure(CHURN)
        addresses["predictor"] = f"http://{services.HOST}:{predictor.port}/v1/models/{CHURN.service}:predict"
        addresses["predictor (gRPC)"] = f"{services.HOST}:{predictor.more['grpc_port']}"
        addresses["metrics"] = f"http://{services.HOST}:{predictor.port}/metrics"
    if "mlflow" in names and settings().mlflow_is_server:
        addresses["mlflow"] = "the server that PLUMBLINE_MLFLOW_URL names"
    elif "mlflow" in names:
        mlflow = services.ensure(_mlflow())
        addresses["mlflow"] = f"http://{services.HOST}:{mlflow.port}/#/models/{CHURN.model}"
        addresses["mlflow login"] = f"{mlflow_pages.USER}, the token in {settings().home / 'mlflow.json'}"
    return addresses


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
