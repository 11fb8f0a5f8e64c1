"""The training dataset of a release: who was observed when, what was knowable then, and who churned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline import clock, provenance
from plumbline import observed as seen
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.progress import say
from plumbline.state import objects, releases, trainings
from plumbline.state.releases import Release
from plumbline.state.trainings import Place
from products.churn import ACTIVITY, CHURN, FEATURES, ORDERS
from training import canonical, point_in_time
from training.churn import activity, labels, snapshots, split
from training.datasets import working

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PRODUCT = CHURN.name
STAGE = "dataset"


def schema(features: dict[str, pa.DataType]) -> pa.Schema:
    """The dataset's columns: key, request time, label, split, then the features in the given order."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("event_timestamp", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("customer_id", pa.int64(), nullable=False),
            pa.field("request_time", pa.int64(), nullable=False),
            pa.field("churned", pa.bool_(), nullable=False),
            pa.field("is_test", pa.bool_(), nullable=False),
            *(pa.field(name, kind) for name, kind in features.items()),
        ]
    )


def build(release: int | None = None) -> dict[str, Any]:
    """Builds the dataset of a release (default: the one in force), or finds it built by the same code already.

    Raises TrainingError when history is too short or the point-in-time join cannot be trusted.
    """
    found = releases.required(PRODUCT, release)
    place = Place(CHURN, found.release_id)
    with working(CHURN, STAGE):
        about = objects.read_json(place.key(trainings.ABOUT))
        if about is not None and about["code_sha"] == provenance.code_sha() and objects.read(place.key(trainings.ROWS)):
            return _told("unchanged", about)
        about = stage.recorded(CHURN, place.head(STAGE), lambda: _build(found, place))
        objects.replace_json(place.key(trainings.ABOUT), about)
        return _told("done", about)


def _build(release: Release, place: Place) -> dict[str, Any]:
    from feature_repo import store as feature_store

    features_version, orders_version = release.version(FEATURES), release.version(ORDERS)
    observed = split.choose(snapshots.snapshot_days(features_version), release.as_of)
    say(
        f"{len(observed.train)} training observations {observed.train[0]} to {observed.train[-1]}, test {observed.test}"
    )
    stored = snapshots.snapshots(features_version, observed.days)
    store, service = feature_store.at_release(CHURN, release, streams=True), feature_store.service_name(CHURN, release)
    live_version = activity.version(release, store, service)
    snapshots.require_stored(store, service, stored, features_version)
    say(f"point-in-time join of {service} on {len(observed.days)} days")
    asked = snapshots.entity_df(features_version, observed.days)
    found = point_in_time.historical(store, service, FEATURES, features_version, asked)
    answer = point_in_time.aligned(found, snapshots.observations(stored), snapshots.KEY)
    pinned = f"{FEATURES}@v{features_version}"
    compared = point_in_time.check_nothing_newer(answer, stored, snapshots.KEY, pinned)
    if live_version is not None:
        live = activity.at(store, service, live_version, answer[[*snapshots.KEY, "request_time"]])
        compared += point_in_time.check_nothing_newer(answer, live, snapshots.KEY, f"{ACTIVITY}@v{live_version}")
    answer["churned"] = churned(orders_version, answer)
    answer["is_test"] = answer["event_timestamp"] == snapshots.end_of(observed.test)
    labels.refuse_one_outcome(answer["churned"].to_numpy(), answer["is_test"].to_numpy(), observed.test)
    inputs = point_in_time.model_inputs(store, service, snapshots.BOOKKEEPING)
    rows = canonical.table(answer, schema(inputs), snapshots.KEY)
    objects.replace_bytes(place.key(trainings.ROWS), canonical.to_parquet(rows))
    digest = canonical.content_hash(rows, snapshots.KEY)
    dataset_id = f"{PRODUCT}-r{release.release_id}-{digest.removeprefix('sha256:')[:12]}"
    counts = _counts(answer, None)
    seen.wrote(CHURN.dataset, dataset_id, len(rows))
    return {
        "message": f"{dataset_id}: {counts['train']:,} training rows on {len(observed.train)} days, "
        f"{counts['test']:,} test rows on {observed.test}",
        "dataset_id": dataset_id,
        "content_hash": digest,
        "data_version": f"delta:{FEATURES}@v={features_version}",
        "orders_version": f"delta:{ORDERS}@v={orders_version}",
        **({} if live_version is None else {activity.PIN: f"delta:{ACTIVITY}@v={live_version}"}),
        "release_id": release.release_id,
        "cutoff": str(clock.end_of(observed.test)),
        "labels_until": str(release.as_of),
        "horizon_days": labels.horizon_days(),
        "observations": {"train": [str(day) for day in observed.train], "test": str(observed.test)},
        "rows": counts,
        "churn_rate": _counts(answer, "churned"),
        "feature_service": service,
        "features": list(inputs),
        "checked_point_in_time": compared,
        "lock_hash": provenance.lock_hash(),
    }


def churned(orders_version: int, observations: pd.DataFrame) -> pd.Series:
    import pandas as pd

    orders = lake.open_table(ORDERS, orders_version).to_pyarrow_table(columns=["customer_id", "order_date"])
    dates = orders.column("order_date").to_numpy().astype("datetime64[D]").astype("int64")
    moments = observations["event_timestamp"].astype("int64").to_numpy()  # microseconds
    observed_day = moments // 86_400_000_000 - 1
    found = labels.churned(
        orders.column("customer_id").to_numpy(), dates, observations["customer_id"].to_numpy(), observed_day
    )
    return pd.Series(found, index=observations.index)


def _counts(rows: pd.DataFrame, column: str | None) -> dict[str, float]:
    parts = {"train": rows[~rows["is_test"]], "test": rows[rows["is_test"]]}
    return {name: round(float(part[column].mean()), 6) if column else len(part) for name, part in parts.items()}


def _told(state: str, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": state,
        "what": about["message"],
        "versions": {k: about[k] for k in ("release_id", "data_version", "orders_version", "content_hash", "code_sha")},
        "metrics": {"rows": about["rows"], "churn_rate": about["churn_rate"]},
        "seconds": about["seconds"],
    }
