"""Everything behind one answer: the features and their ages, the release and its gates, the orders that they came from,
the model with its run and dataset. From the outcome log, the releases, the ledger, the lake and MLflow; no Spark.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from feature_repo.churn.jobs import activity
from plumbline import clock, verdict
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.lake.tables import LakeError
from plumbline.registry import registered_models
from plumbline.registry.registered_models import CHAMPION
from plumbline.state import ledger, releases
from plumbline.state.releases import Release, ReleaseError
from plumbline.verdict import Verdict
from products.churn import CHURN
from serving.churn import scorer

PRODUCT = CHURN.name
LOG, FEATURES, ORDERS = "serving.predictions", "features.customers", "analytics.orders"
(LIVE,) = CHURN.streams
ORDER_COLUMNS = ("order_id", "order_date", "units", "total_cents", "known_at", "batch_id")

Row = dict[str, Any]
"""A row of the outcome log, its features read; of an answer that is made up now, `request_id` and `track` are None."""


class WhyError(PlumblineError):
    """There is no such answer, and no such customer."""


def why(asked: str, *, request: bool = False, customer: int | None = None) -> dict[str, Any]:
    """What is behind a request, or behind what a customer would be answered now.

    `asked` is a customer's number, else (or with `request`) the id of a request; `customer` chooses one of its many.
    Raises WhyError, which says where was looked.
    """
    if asked.isdecimal() and not request:
        return of_customer(int(asked))
    return of_request(asked, customer)


def of_request(request_id: str, customer: int | None = None) -> dict[str, Any]:
    """What is behind a logged answer: of its customers the one named, else the first."""
    rows = sorted(_logged("request_id", request_id), key=lambda row: row["customer_id"])
    if not rows:
        raise WhyError(
            f"no answer to a request {request_id!r} in {_log_told()}. A refused request is not logged, and one that "
            "was answered is within some 5 s; a customer's number asks for what would be answered now"
        )
    chosen = next((row for row in rows if customer in (None, row["customer_id"])), None)
    if chosen is None:
        held = ", ".join(str(row["customer_id"]) for row in rows[:20])
        raise WhyError(f"request {request_id!r} was not about customer {customer}; it was about {held}")
    scores = {row["customer_id"]: row["score"] for row in rows}
    return {"asked": f"request {request_id}", "scores": scores, **_behind(chosen)}


def of_customer(customer: int) -> dict[str, Any]:
    """What a customer would be answered now, what is behind it, and the last answer that was given.

    Where nothing would be answered (`refused` says why), what is behind the last answer.
    """
    last = max(_logged("customer_id", customer), key=lambda row: row["logged_at"], default=None)
    now, refused = _now(customer)
    found = {"asked": f"customer {customer}", "refused": refused, "last_answer": last}
    if row := now or last:
        return {**found, **_behind(row)}
    release = releases.in_force(PRODUCT)
    orders = _orders(release, customer, clock.end_of(release.as_of)) if release else []
    if not orders:
        where = f"{ORDERS} of release {release.release_id}" if release else "no release (there is none yet)"
        raise WhyError(f"customer {customer}: no order in {where}, no answer in {_log_told()}, and online: {refused}")
    return {**found, "answer": None, "features": [], **_released(release), "orders": orders, "model": None}


def _behind(row: Row) -> dict[str, Any]:
    """The answer and what it came from; a part that is gone by now holds `gone`, which says why."""
    values: dict[str, Any] = row["features"]
    orders: list[dict[str, Any]] = []
    try:
        release = releases.read(PRODUCT, row["release_id"])
        released, features = _released(release), _features(row, release)
        orders = _orders(release, row["customer_id"], row["event_time"])
    except (ReleaseError, LakeError) as error:  # retention or an erasure took it
        released, features = {"release": {"gone": str(error)}}, _features(row, None)
    return {
        "answer": {name: value for name, value in row.items() if name != "features"},
        "features": features,
        **released,
        "orders": orders,
        "orders_add_up": _add_up(orders, values) if orders else None,
        "model": _model(row["model_version"]),
    }


def _features(row: Row, release: Release | None) -> list[dict[str, Any]]:
    """Name, value and age in seconds when it was asked for; an age of 0 for what was computed then, None for a live
    feature without activity."""
    stored: set[str] = set(row["features"])
    if release is not None:
        table = lake.remaining(FEATURES, release.version(FEATURES))
        stored = {column.name for column in table.schema().fields}
    stamp = row.get("activity_event_time")
    live = dict.fromkeys(
        set(activity.FEATURES) - stored, None if stamp is None else (row["at"] - stamp).total_seconds()
    )
    ages = {**dict.fromkeys(stored, row["features_age_seconds"]), **live}
    return [
        {
            "name": name,
            "value": value,
            "age_seconds": ages.get(name, 0.0),
            "stored": name in ages,
            "view": LIVE if name in live else CHURN.view if name in stored else None,
        }
        for name, value in row["features"].items()
    ]


def _released(release: Release | None) -> dict[str, Any]:
    """The release, and the gates that it and what follows its publication passed, by the ledger."""
    if release is None:
        return {"release": None, "gates": {}}
    gates = release.gates | _gates(release.run_id)
    told = ("release_id", "as_of", "run_id", "published_at", "tables", "code_sha", "lock_hash", "rejected")
    return {"release": {name: getattr(release, name) for name in told}, "gates": verdict.as_dicts(gates)}


def _orders(release: Release, customer: int, event_time: datetime) -> list[dict[str, Any]]:
    """The customer's orders that were known when the features were taken, newest first, each with who landed it.

    None are given of a release that names no orders.
    """
    import pyarrow.compute as pc

    if ORDERS not in release.tables:
        return []
    table = lake.remaining(ORDERS, release.version(ORDERS)).to_pyarrow_dataset()
    known = (pc.field("customer_id") == customer) & (pc.field("known_at") < event_time)
    found = table.to_table(columns=list(ORDER_COLUMNS), filter=known).to_pylist()
    batches = {
        event["batch_id"]: event["run_id"]
        for event in ledger.events(PRODUCT)
        if event["stage"] == "ingest" and event["state"] == "COMPLETE" and "batch_id" in event
    }
    found.sort(key=lambda order: (order["order_date"], order["order_id"]), reverse=True)
    return [{**order, "landed_by": batches.get(order["batch_id"])} for order in found]


def _add_up(orders: list[dict[str, Any]], values: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(what the orders come to, what the feature says) for the totals among the features."""
    totals = {
        "orders_total": len(orders),
        "spend_cents_total": sum(order["total_cents"] for order in orders),
        "units_total": sum(order["units"] for order in orders),
    }
    return {name: (total, values[name]) for name, total in totals.items() if name in values}


def _model(version: str) -> dict[str, Any]:
    """The registered version, with what it was made of, its run's metrics and the gates of its training."""
    if not registered_models.exist():
        return {"version": version, "gone": "this home has no model registry"}
    client = registered_models.client()
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version(CHURN.model, version)
        run = client.get_run(found.run_id)
    except MlflowException as error:
        return {"version": version, "gone": str(error).partition("\n")[0]}
    tags = dict(found.tags)
    return {
        "version": str(found.version),
        "aliases": sorted(found.aliases),
        "mlflow_run_id": found.run_id,
        **{name: tags[name] for name in sorted(tags) if name != "run_id"},
        "metrics": dict(run.data.metrics),
        "gates": verdict.as_dicts(_gates(f"{PRODUCT}-training-{tags.get('release_id', '')}")),
    }


def _gates(run_id: str) -> dict[str, Verdict]:
    """The newest verdict of each gate of a run, by the ledger."""
    gates: dict[str, Verdict] = {}
    for event in ledger.events(PRODUCT):
        if event["run_id"] == run_id and event["state"] in ("COMPLETE", "GATE_FAILED"):
            gates |= verdict.of_event(event)
    return gates


def _now(customer: int) -> tuple[Row | None, str | None]:
    """What the champion says of a customer's online features now, or why nothing would be answered."""
    try:
        scored = scorer.Scorer(CHAMPION)
        asked = scored.score([customer])
    except PlumblineError as error:
        return None, str(error)
    (found,) = asked.predictions
    return {
        "request_id": None,
        "at": asked.at,
        "logged_at": None,
        "customer_id": customer,
        "features": found.row.values,
        "event_time": found.row.event_time,
        "activity_event_time": found.row.times.get(LIVE),
        "features_age_seconds": found.row.age_seconds,
        "release_id": found.row.release_id,
        "model_version": scored.model.version,
        "track": None,
        "score": found.probability,
    }, None


def _logged(column: str, value: object) -> list[Row]:
    import pyarrow.compute as pc

    if lake.version(LOG) is None:
        return []
    found = lake.open_table(LOG).to_pyarrow_dataset().to_table(filter=pc.field(column) == value).to_pylist()
    return [{**row, "features": json.loads(row["features"])} for row in found]


def _log_told() -> str:
    version = lake.version(LOG)
    return f"{LOG} (nothing was logged yet)" if version is None else f"{LOG}@v{version} ({lake.rows(LOG):,} answers)"
