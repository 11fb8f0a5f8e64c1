"""A product's own part of serving: `serving/<product>/` has its predictor, its outcome log and its shadow check."""

from __future__ import annotations

import pkgutil
from typing import Any

from plumbline.product import Product


def predictor(product: Product) -> Any:
    """The class of its predictor, a serving.predictor.Predictor. KServe is imported with it."""
    return pkgutil.resolve_name(f"serving.{product.name}.predictor:PREDICTOR")


def log(product: Product) -> Any:
    """Its outcome log: `append(rows)` and `schema()`."""
    return pkgutil.resolve_name(f"serving.{product.name}.log")


def shadow(product: Product) -> Any:
    """Its shadow check: `compare(version, champion, strict)` and `tried(version)`, each a dict; see churn's."""
    return pkgutil.resolve_name(f"serving.{product.name}.shadow")


def outcomes(product: Product) -> Any:
    """What came of its answers: `schema()`, `awaiting(version)`, `append(rows)` and `summary(rows)`; see churn's."""
    return pkgutil.resolve_name(f"serving.{product.name}.outcomes")
