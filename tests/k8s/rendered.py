"""What Argo CD would apply, as kustomize renders it, once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from plumbline.product import Product
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


@cache
def rendered(path: str) -> list[Object]:
    return manifests.objects(path)


def of(product: Product, environment: str = "prod") -> list[Object]:
    return rendered(f"{product.manifests}/overlays/{environment}")


def kind(objects: list[Object], name: str) -> list[Object]:
    return [made for made in objects if made["kind"] == name]


def one(objects: list[Object], what: str, name: str) -> Object:
    (found,) = [made for made in kind(objects, what) if made["metadata"]["name"] == name]
    return found


def everything() -> Iterator[Object]:
    for path in manifests.APPLIED:
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
