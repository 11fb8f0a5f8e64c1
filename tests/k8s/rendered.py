"""What Argo CD would apply, as kustomize renders it, once for all tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from plumbline.product import Product
from plumbline.settings import ROOT
from products import ALL
from toolchain import manifests

ENVIRONMENTS = ("dev", "staging", "prod")
each_environment = pytest.mark.parametrize(
    ("product", "environment"),
    [(product, environment) for product in ALL for environment in ENVIRONMENTS],
    ids=lambda given: getattr(given, "name", given),
)
each_product = pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)

Object = dict[str, Any]


STREAMING = ("k8s/pipeline/overlays/dev+events", "k8s/stores/overlays/dev+kafka")
"""An overlay and a component of its base that it does not name: one commit would switch it on."""


@cache
def rendered(path: str) -> list[Object]:
    overlay, _, component = path.partition("+")
    if not component:
        return manifests.objects(overlay)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("k8s", "docker/stack"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        file = Path(folder) / overlay / "kustomization.yaml"
        made = yaml.safe_load(file.read_text())
        made["components"].insert(0, f"../../{component}")
        file.write_text(yaml.safe_dump(made))
        return manifests.objects(overlay, Path(folder))


def of(product: Product, environment: str = "prod") -> list[Object]:
    return rendered(f"{product.manifests}/overlays/{environment}")


def kind(objects: list[Object], name: str) -> list[Object]:
    return [made for made in objects if made["kind"] == name]


def one(objects: list[Object], what: str, name: str) -> Object:
    (found,) = [made for made in kind(objects, what) if made["metadata"]["name"] == name]
    return found


def everything() -> Iterator[Object]:
    for path in (*manifests.APPLIED, *STREAMING):
        yield from rendered(path)


def pod_labels(product: Product, environment: str) -> dict[str, dict[str, str]]:
    """The labels of the pods that an environment runs; KServe and Argo Rollouts add theirs to a predictor's."""
    objects, name = of(product, environment), f"{product.name}-predictor"
    theirs = {"app": f"isvc.{name}", "track": "stable", "rollouts-pod-template-hash": "a1"}
    made = {
        found["metadata"]["name"]: found["spec"]["template"]["metadata"]["labels"]
        for found in [*kind(objects, "Deployment"), *kind(objects, "Job")]
    }
    return {**made, "predictor": {**one(objects, "ServingRuntime", name)["spec"]["labels"], **theirs}}


def predictor_of(objects: list[Object]) -> Object:
    """The predictor's container."""
    (runtime,) = kind(objects, "ServingRuntime")
    (container,) = runtime["spec"]["containers"]
    return dict(container)


def secrets_asked(found: Any) -> set[tuple[str, str | None]]:
    """(Secret, key) that an object names; without a key when it takes all of it. Optional ones are left out."""
    if isinstance(found, list):
        return {each for part in found for each in secrets_asked(part)}
    if not isinstance(found, dict):
        return set()
    here = {
        (ref["name"], ref.get("key"))
        for name in ("secretRef", "secretKeyRef")
        if (ref := found.get(name)) and not ref.get("optional")
    }
    return here | {each for part in found.values() for each in secrets_asked(part)}
