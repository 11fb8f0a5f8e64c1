"""A second product, as small as one can be: what the platform does with it, it does not do because it is churn."""

from __future__ import annotations

from plumbline.product import Product, Stage

DAILY = "toy_daily"
TOY = Product(
    name="toy",
    daily=DAILY,
    by_hand="toy_operations",
    releases="releases.toy",
    features="features.toys",
    stages=(
        Stage("ingest", DAILY, {"features.toys": ("shop.toys",)}),
        Stage("check", DAILY, also=("features.toys",)),
        Stage("release", DAILY, {"releases.toy": ("features.toys",)}),
    ),
)
