"""The live half of a dataset: what the order stream knew of each customer at the second of the observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from plumbline.state.releases import Release
from products.churn import ACTIVITY, CHURN
from training.errors import TrainingError

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore

(VIEW,) = CHURN.streams
SINCE = "seconds_since_last_event"
"""What is computed on demand from the view."""

PIN = "activity_version"
"""Where dataset.json says which version of the table it was made from, if it was."""

LAST = "last_order_second"


def names(store: FeatureStore, service: str) -> list[str]:
    """The stored features of the live view that a service asks for; none for one of snapshots alone."""
    projections = store.get_feature_service(service).feature_view_projections
    return [field.name for projection in projections if projection.name == VIEW for field in projection.features]


def version(release: Release, store: FeatureStore, service: str) -> int | None:
    """The version of the live table that a service reads at a release; None for a service that does not.

    Raises TrainingError when the service asks for the live view and the release names no version of its table.
    """
    if not names(store, service):
        return None
    if ACTIVITY not in release.tables:
        raise TrainingError(
            f"{service} reads {ACTIVITY}, which release {release.release_id} does not name: it is of before the order "
            "stream. Take a release of after, or a model of another service"
        )
    return release.version(ACTIVITY)


def at(store: FeatureStore, service: str, pinned: int, observations: pd.DataFrame) -> pd.DataFrame:
    """For each observation (customer_id, event_timestamp, request_time), in their order, the features of the newest row
    known by then and within the view's ttl; and what is computed on demand. Without Feast and Spark."""
    import pandas as pd

    ttl = store.get_feature_view(VIEW).ttl
    rows = _rows(pinned).drop(columns="created_at").rename(columns={"event_time": "known"}).sort_values("known")
    asked = observations.reset_index().sort_values("event_timestamp", kind="stable")
    joined = pd.merge_asof(
        asked, rows, left_on="event_timestamp", right_on="known", by="customer_id", tolerance=ttl
    ).set_index("index")
    joined[SINCE] = joined["request_time"] - joined[LAST]
    return joined.loc[observations.index, ["customer_id", "event_timestamp", *names(store, service), SINCE]]


def newest(pinned: int) -> pd.DataFrame:
    """Each customer's newest row, whenever it was known: what no honest dataset takes."""
    rows = _rows(pinned).sort_values(["event_time", "created_at"], kind="stable")
    return rows.drop_duplicates("customer_id", keep="last").drop(columns=["event_time", "created_at"])


def _rows(pinned: int) -> pd.DataFrame:
    columns = ["customer_id", "event_time", "created_at"]
    table: Any = lake.open_table(ACTIVITY, pinned).to_pyarrow_dataset()
    stored = [name for name in table.schema.names if name not in (*columns, "batch", "known_date")]
    frame: pd.DataFrame = table.to_table(columns=[*columns, *stored]).to_pandas()
    times = {name: frame[name].astype("datetime64[us, UTC]") for name in ("event_time", "created_at")}
    return frame.assign(**times)
