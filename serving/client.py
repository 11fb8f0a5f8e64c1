"""A caller of the running predictor, as any other program would call it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.product import Product
from plumbline.servers import services
from products.churn import CHURN


class DemoError(PlumblineError):
    """The demo cannot go on."""


def ask(customer: int, request_id: str | None = None) -> tuple[int, dict[str, Any]]:
    """One real request about a customer: status, and the answer or refusal. Raises DemoError as `predict` does."""
    return predict(CHURN, [{"customer_id": customer}], request_id)


def predict(product: Product, instances: list[Any], request_id: str | None = None) -> tuple[int, dict[str, Any]]:
    """One real request to a product's running predictor over HTTP: status, and its answer or refusal.

    Raises DemoError when no predictor runs.
    """
    predictor = services.find(product.server)
    if predictor is None:
        raise DemoError("the predictor is not running: `plumb up`")
    url = f"http://{services.HOST}:{predictor.port}/v1/models/{product.service}:predict"
    named = {"x-request-id": request_id} if request_id else {}
    request = urllib.request.Request(
        url, json.dumps({"instances": instances}).encode(), {"Content-Type": "application/json", **named}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)
