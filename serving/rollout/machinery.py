"""Which machinery a rollout drives here: containers of a stack where PLUMBLINE_MODELS names their models, else servers
of this home."""

from __future__ import annotations

from plumbline.product import Product
from plumbline.settings import settings
from serving.rollout.laptop import Laptop
from serving.rollout.stack import Stack

Machinery = Laptop | Stack


def of(product: Product) -> Machinery:
    """A product's, by the files that a cluster gets."""
    return Laptop.of(product) if settings().models is None else Stack.of(product)
