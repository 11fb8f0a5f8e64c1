"""What predictors need, made up: customers in Redis through Feast, models in a registry and a bucket. No Spark.

Half of the customers are about to leave: those who have not ordered for long. What a customer really does is that, so
that a model can be right or wrong, and support and sales feel it (`plumb.demo.simulated_responses`).
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from plumbline.registry import registered_models, trusted_models
from plumbline.servers import online_store
from plumbline.settings import settings
from products.churn import CHURN
from serving import promote

NOW = datetime(1998, 7, 1, tzinfo=UTC)
TODAY = 10408
"""NOW in days since 1970-01-01."""

CUSTOMERS = range(1000, 3000)
LOST = ("avg_ticket_30d", "days_between_orders")
"""Columns of the feature service that are null online for everyone: what materialization does not bring."""

SERVICE, RELEASE = "churn_v1", 7
MISLABELLED = 0.15
"""Share of wrong labels in training, so that a good model is sure of no one."""

BUCKET = "plumbline-dev"
COPIES = 1800
"""How often the slow model holds each tree of a good one."""


@dataclass(frozen=True)
class Model:
    """A registered version as Git names it: what `plumb promote` writes into an environment's one file."""

    version: str
    uri: str
    annotations: dict[str, str]


PUBLISHED: list[Model] = []
"""Every model so far."""

WAITING: dict[str, list[Model]] = {}
"""Those that are to be shipped, by kind."""

TO_SHIP = ("worse", "slow", "loses features", *5 * ("good",))


def leaves(customer: int) -> bool:
    """Whether a customer is about to leave: even ids are."""
    return customer % 2 == 0


def make() -> None:
    """Customers online, and an empty registry; the servers that it starts belong to the home."""
    import pandas as pd

    from feature_repo import store as feature_store

    online_store.url()
    feature_store.apply(CHURN)
    frame = pd.DataFrame([_row(customer) for customer in CUSTOMERS])
    feature_store.open_store(CHURN).write_to_online_store(CHURN.view, frame)
    mapping = {"release_id": RELEASE, "event_time": (NOW - timedelta(hours=24)).isoformat()}
    online_store.client().hset(CHURN.online_mark, mapping=mapping)
    (settings().home / "mlflow" / "artifacts").mkdir(parents=True)


def publish(kind: str) -> Model:
    """Trains, registers and signs a model, and puts its files into the bucket.

    `good`, one more round of boosting each time; `worse`, whose labels were turned round: as sure as a good one,
    about the wrong customers; `slow`, a good one with each tree many times over; `loses features`, which needs the
    columns that are null online.
    """
    import mlflow

    client, artifacts = registered_models.client(), settings().home / "mlflow" / "artifacts"
    found = mlflow.get_experiment_by_name(CHURN.model)
    experiment = (
        found.experiment_id if found else mlflow.create_experiment(CHURN.model, artifact_location=artifacts.as_uri())
    )
    number = 1 + len(client.search_model_versions(f"name = '{CHURN.model}'")) if found else 1
    names = {"data_version": "delta:features.customers@v=0", "release_id": str(RELEASE), "feature_service": SERVICE}
    with mlflow.start_run(experiment_id=experiment) as run:
        logged = mlflow.xgboost.log_model(
            train(kind, number), name="model", model_format="ubj", pip_requirements=["xgboost-cpu"], metadata=names
        )
    signed, _ = trusted_models.sign(logged.model_uri, kind)
    tags = {**names, "run_id": run.info.run_id, "signature": signed.bundle, "signed_by": signed.by}
    registered = mlflow.register_model(logged.model_uri, CHURN.model, tags=tags)
    version, key = str(registered.version), f"models/{CHURN.model}/{registered.version}"
    uri = f"s3://{BUCKET}/{key}"
    source = mlflow.artifacts.download_artifacts(logged.model_uri)
    target = bucket() / BUCKET / key
    shutil.copytree(source, target)
    (target / trusted_models.NOTE).unlink(missing_ok=True)
    declared = yaml.safe_load(promote.model_file(CHURN, client.get_model_version(CHURN.model, version), uri))
    model = Model(version, declared["spec"]["predictor"]["model"]["storageUri"], declared["metadata"]["annotations"])
    PUBLISHED.append(model)
    return model


def prepare() -> None:
    """Publishes all that is to be shipped, before there are callers whom the training would keep waiting."""
    WAITING.clear()
    for kind in TO_SHIP:
        WAITING.setdefault(kind, []).append(publish(kind))


def bucket() -> Path:
    """The folder that stands for object storage."""
    return settings().home / "buckets"


def verify_key() -> str:
    """The public key that this home's models are signed with, as PEM."""
    return (settings().home / "keys" / "demo-verify.pem").read_text()


def train(kind: str, number: int) -> Any:
    """A booster of that kind, the registry's `number`; see `publish`."""
    import pandas as pd
    import xgboost

    rows = pd.DataFrame([{**_row(customer), **_asked(customer)} for customer in CUSTOMERS])
    rng = random.Random(1)
    label = [float(leaves(c) != (rng.random() < MISLABELLED)) for c in CUSTOMERS]
    if kind == "worse":
        label = [1.0 - value for value in label]
    columns = ["avg_ticket", "days_since_last_order", "orders_30d", "orders_90d", "spend_cents_90d", "tenure_months"]
    if kind == "loses features":
        columns += LOST
        for name in LOST:  # there while it was trained
            rows[name] = [20.0 + rng.random() for _ in CUSTOMERS]
    booster = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, "max_depth": 2, "eta": 0.3, "min_child_weight": 60}
        | ({"booster": "dart", "rate_drop": 0.0} if kind == "slow" else {}),
        xgboost.DMatrix(rows[columns].astype("float64"), label=label),
        30 + number,
    )
    return _many_times(booster, COPIES) if kind == "slow" else booster


def _many_times(booster: Any, copies: int) -> Any:
    """A DART booster with each tree so many times, each counting that much less: the same answers, later."""
    import xgboost

    model = json.loads(booster.save_raw("json"))
    dart = model["learner"]["gradient_booster"]
    trees = dart["gbtree"]["model"]
    once, count = trees["trees"], len(trees["trees"])
    dart["weight_drop"] = [weight / copies for weight in dart["weight_drop"]] * copies
    trees["trees"] = [{**tree, "id": copy * count + i} for copy in range(copies) for i, tree in enumerate(once)]
    trees["tree_info"] *= copies
    trees["gbtree_model_param"]["num_trees"] = str(count * copies)
    trees["iteration_indptr"] = list(range(count * copies + 1))
    slow = xgboost.Booster({"nthread": 1})
    slow.load_model(bytearray(json.dumps(model).encode()))
    slow.feature_names, slow.feature_types = booster.feature_names, booster.feature_types
    return slow


def _row(customer: int) -> dict[str, object]:
    rng = random.Random(customer)
    gone = leaves(customer)
    fresh = NOW - timedelta(hours=24)
    orders, spent = (rng.randint(0, 1), rng.randint(0, 2_000)) if gone else (rng.randint(1, 5), rng.randint(500, 9_000))
    return {
        "customer_id": customer,
        "event_time": fresh,
        "created_at": fresh,
        "tenure_months": rng.randint(15, 18),
        "avg_ticket": 1000.0 + rng.randint(0, 3000),
        "avg_ticket_30d": None,
        "orders_7d": 0,
        "orders_30d": 0 if gone else rng.randint(0, 2),
        "orders_90d": orders,
        "spend_cents_7d": 0,
        "spend_cents_30d": 0 if gone else spent // 3,
        "spend_cents_90d": spent,
        "orders_total": orders + rng.randint(1, 9),
        "spend_cents_total": spent + rng.randint(1_000, 50_000),
        "units_total": orders + rng.randint(1, 9),
        "days_between_orders": None,
        "returned_cents_90d": 0,
        "first_order_day": 9900,
        "last_order_day": TODAY - _days_ago(customer),
        "release_id": RELEASE,
    }


def _asked(customer: int) -> dict[str, int]:
    """What the on-demand view computes for a customer at NOW."""
    return {"days_since_last_order": _days_ago(customer)}


def _days_ago(customer: int) -> int:
    rng = random.Random(-customer)
    return rng.randint(100, 300) if leaves(customer) else rng.randint(2, 60)
