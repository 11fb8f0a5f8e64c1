"""Made-up customers in real parts: rows in Redis through Feast, a small model in MLflow. No Spark."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from plumbline.lake import tables as lake
from plumbline.registry import registered_models, trusted_models
from plumbline.servers import online_mark, online_store
from plumbline.settings import settings
from plumbline.state import releases
from plumbline.verdict import Verdict
from products.churn import CHURN

NOW = datetime(1998, 7, 1, tzinfo=UTC)
TTL = timedelta(days=14)
KNOWN = list(range(100, 220))
FULL, SPARSE, AT_TTL, EXPIRED, FUTURE, UNKNOWN = 1, 2, 3, 4, 5, 999_999_999
RELEASE = 7


def eventually(ask: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true answer; fails with the last one when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.02)
    return answer


def apply_definitions() -> None:
    """What `feast apply` does, without what it asks of Spark."""
    from feature_repo import store as feature_store

    feature_store.apply(CHURN)


def put_online() -> None:
    """Feature rows through Feast, and the marker that materialization leaves when it is done."""
    import pandas as pd

    from feature_repo import store as feature_store

    fresh = NOW - timedelta(hours=24)
    stamps = {FULL: fresh, SPARSE: fresh, AT_TTL: NOW - TTL, EXPIRED: NOW - TTL - timedelta(seconds=1)}
    stamps |= {FUTURE: NOW + timedelta(days=1)} | dict.fromkeys(KNOWN, fresh)
    frame = pd.DataFrame([_row(customer, stamp) for customer, stamp in stamps.items()])
    feature_store.open_store(CHURN).write_to_online_store(CHURN.view, frame)
    mark_online()


def mark_online() -> None:
    """Says that a release is whole online, with a row of each of these customers."""
    from feature_repo import online_keys
    from feature_repo import store as feature_store

    brought = [FULL, SPARSE, AT_TTL, EXPIRED, FUTURE, *KNOWN]
    keys = online_keys.keys(feature_store.open_store(CHURN), CHURN, brought)
    online_mark.write(online_store.client(), CHURN, RELEASE, NOW - timedelta(hours=24), keys)


def _row(customer: int, event_time: datetime) -> dict[str, object]:
    sparse = customer == SPARSE
    return {
        "customer_id": customer,
        "event_time": event_time,
        "created_at": event_time,
        "tenure_months": 17,
        "avg_ticket": 1000.0 + customer,
        "avg_ticket_30d": None if sparse else 900.5,
        **{f"orders_{days}d": days // 30 for days in (7, 30, 90)},
        **{f"spend_cents_{days}d": 100 * days for days in (7, 30, 90)},
        "orders_total": customer % 9,
        "spend_cents_total": 1000 * customer,
        "units_total": customer % 5,
        "days_between_orders": None if sparse else 12.25,
        "returned_cents_90d": 10 * (customer % 3),
        "first_order_day": 9900,
        "last_order_day": 10408 - customer % 300,
        "release_id": RELEASE,
    }


def _orders(customer: int) -> list[dict[str, object]]:
    """As many orders of a customer as the features count and sum up, and one that was known too late for them."""
    known = [NOW - timedelta(days=3 + number) for number in range(customer % 9)]
    return [
        {
            "order_id": 100 * customer + number,
            "customer_id": customer,
            "order_date": at.date(),
            "units": 1,
            "total_cents": 1000 * customer // (customer % 9),
            "known_at": at,
            "batch_id": "a batch",
        }
        for number, at in enumerate([*known, NOW - timedelta(hours=1)])
    ]


def publish_release() -> None:
    """A release whose tables hold the fresh customers, for whoever looks for a customer in the lake."""
    import pyarrow as pa
    from deltalake import write_deltalake

    fresh = NOW - timedelta(hours=24)
    table = pa.Table.from_pylist([_row(customer, fresh) for customer in (FULL, SPARSE)])
    for i, name in enumerate(table.schema.names):
        if pa.types.is_timestamp(table.schema.field(i).type):
            table = table.set_column(i, name, table[name].cast(pa.timestamp("us", tz="UTC")))
    write_deltalake(lake.uri("features.customers"), table)
    write_deltalake(lake.uri("analytics.orders"), pa.Table.from_pylist([o for c in (FULL, SPARSE) for o in _orders(c)]))
    release = releases.Release(
        release_id=RELEASE,
        product="churn",
        as_of=date(1998, 6, 29),
        base=None,
        tables={"features.customers": 0, "analytics.orders": 0},
        gates={"orders_expectations": Verdict("orders_expectations", passed=True)},
        code_sha="sha",
        lock_hash="lock",
        run_id="run",
        published_at=NOW.isoformat(),
    )
    releases.publish(release)


def register_model() -> None:
    """A small booster on the columns of churn_v1, registered and tagged as `plumb register` does."""
    import mlflow
    import numpy as np
    import pandas as pd
    import xgboost

    from feature_repo import store as feature_store

    service = feature_store.open_store(CHURN).get_feature_service("churn_v1")
    names = sorted(f.name for projection in service.feature_view_projections for f in projection.features)
    numbers = np.random.default_rng(1997).integers(0, 2000, (400, len(names))).astype("float64")
    rows = pd.DataFrame(numbers, columns=names)
    rows.loc[::3, "avg_ticket_30d"] = np.nan
    label = (rows["days_since_last_order"] + rows["avg_ticket_30d"].fillna(0) > 1500).astype(int)
    booster = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, "max_depth": 4}, xgboost.DMatrix(rows, label=label), 30
    )
    artifacts = settings().home / "mlflow" / "artifacts"
    artifacts.mkdir(parents=True)
    client = registered_models.client()
    experiment = mlflow.create_experiment("churn_xgb", artifact_location=artifacts.as_uri())
    version = register(booster, experiment, "churn_v1")
    client.set_registered_model_alias("churn_xgb", "challenger", version)


def register(booster: Any, experiment: str, service: str) -> str:
    """A booster logged, signed and registered as `plumb train` and `plumb register` do; its version."""
    import mlflow

    names = {"data_version": "delta:features.customers@v=0", "release_id": str(RELEASE), "feature_service": service}
    with mlflow.start_run(experiment_id=experiment) as run:
        logged = mlflow.xgboost.log_model(
            booster, name="model", model_format="ubj", pip_requirements=["xgboost-cpu"], metadata=names
        )
    signed, _ = trusted_models.sign(logged.model_uri, "a made-up model")
    tags = {**names, "run_id": run.info.run_id, "signature": signed.bundle, "signed_by": signed.by}
    return str(mlflow.register_model(logged.model_uri, "churn_xgb", tags=tags).version)
