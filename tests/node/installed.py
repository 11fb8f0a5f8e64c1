"""The platform on a cluster as its people reach it: Airflow's REST, and a laptop's settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_rest import AirflowRest
from kube import Kube, Object

from plumbline.product import Product
from plumbline.registry import registered_models, trusted_models
from plumbline.servers import services
from plumbline.servers.services import HOST
from plumbline.settings import settings
from plumbline.state import slots

PIPELINE, STORES = "pipeline-dev", "stores"


@dataclass
class Installed(AirflowRest):
    """A cluster with the platform on it; `known` are the passwords that its Secrets were made of."""

    kube: Kube
    known: dict[str, str]

    @property
    def airflow_url(self) -> str:
        return f"http://127.0.0.1:{forwarded(self.kube, PIPELINE, 'airflow-api', 8080)}"

    @property
    def airflow_password(self) -> str:
        return self.known["AIRFLOW_PASSWORD"]

    def pods(self, namespace: str, **labels: str) -> list[Object]:
        """A namespace's pods, by labels."""
        query = {"labelSelector": ",".join(f"{name}={value}" for name, value in labels.items())} if labels else {}
        return self.kube.items(f"/api/v1/namespaces/{namespace}/pods", **query)

    @contextmanager
    def laptop(self) -> Iterator[None]:
        """This process as the laptop of who ships models: what it may is what the service `rollout` may."""
        generation = self.known["GENERATION"]
        told = {
            "PLUMBLINE_LAKE": "s3://lake",
            "PLUMBLINE_STATE": "s3://state",
            "PLUMBLINE_MODELS": "s3://models",
            "PLUMBLINE_MLFLOW_URL": f"http://localhost:{forwarded(self.kube, PIPELINE, 'mlflow', 5000)}",
            "PLUMBLINE_SIGNING_KEY": self.known["SIGNING_KEY"].replace("\\n", "\n"),
            "PLUMBLINE_VERIFY_KEY": self.known["VERIFY_KEY"].replace("\\n", "\n"),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_TRACKING_USERNAME": "plumb",
            "MLFLOW_TRACKING_PASSWORD": self.known["MLFLOW_PASSWORD"],
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",  # the bucket has another name out here
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{forwarded(self.kube, STORES, 's3', 7070)}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": f"rollout-{generation}",
            "AWS_SECRET_ACCESS_KEY": self.known["S3_ROLLOUT_SECRET"],
        }
        before = dict(os.environ)
        os.environ |= told
        settings.cache_clear()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before
            settings.cache_clear()


def forwarded(kube: Kube, namespace: str, service: str, port: int) -> int:
    """The port of this machine behind which a Service answers. Not `kubectl port-forward`: that one ends with the pod
    that it found, and with the kubelet."""
    found = kube.get(f"/api/v1/namespaces/{namespace}/services/{service}")
    assert found is not None, f"no Service {service} in {namespace}"
    there = f"TCP:{found['spec']['clusterIP']}:{port}"

    def command(local: int, _: str) -> list[str]:
        return ["socat", f"TCP-LISTEN:{local},bind={HOST},fork,reuseaddr", there]

    launch = services.Launch(
        f"forward-{service}", command, lambda local, _: services.listening(local), more=lambda: {"to": there}
    )
    return services.ensure_configured(launch).port


def copied(product: Product, version: str) -> str:
    """Copies a version's files, exactly those that were signed, to the environment's bucket; their address."""
    found = registered_models.client().get_model_version(product.model, version)
    with trusted_models.verified_files(found) as folder:
        slots.put(product, version, folder)
    return f"{settings().models}/{product.name}/versions/{version}"
