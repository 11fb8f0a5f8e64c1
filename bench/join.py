"""(d) The point-in-time join: 1e5 observations against 1e6 feature rows, as training does it, and Polars' join_asof.

Made-up numbers of the size named; both answers are compared value by value.
"""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bench import measured
from products.churn import CHURN

CUSTOMERS, DAYS, ASKED = 10_000, 100, 100_000
FIRST = date(1997, 1, 1)
LAST = FIRST + timedelta(days=DAYS - 1)
TTL = timedelta(days=14)
TABLE = "features.customers"


def measure() -> dict[str, Any]:
    """Seconds of each, warm: from the lake's Delta table to a frame in this process."""
    shutil.rmtree(measured.HOME / "join", ignore_errors=True)
    with measured.home("join", LAST):
        from plumbline.lake import spark
        from plumbline.lake import tables as lake

        version = _write()
        entity_uri = str(measured.HOME / "join" / "lake" / "asked")
        session = spark.session()
        asked = session.sql(f"SELECT * FROM delta.`{entity_uri}`")
        small = asked.limit(1000)
        feast = _feast(version)
        feast(small)  # warm
        found: dict[str, Any] = {}
        seconds = {
            "Feast on Spark": min(measured.took(lambda: found.update(feast=feast(asked))) for _ in range(2)),
            "Polars join_asof": min(
                measured.took(lambda: found.update(polars=_polars(lake.uri(TABLE), entity_uri))) for _ in range(2)
            ),
        }
        different = _different(found["feast"], found["polars"])
    return {
        "feature_rows": CUSTOMERS * DAYS,
        "observations": ASKED,
        "paths": [{"path": name, "seconds": round(taken, 2)} for name, taken in seconds.items()],
        "different_values": different,
        "ratio_to_polars": round(seconds["Feast on Spark"] / seconds["Polars join_asof"], 1),
    }


def _write() -> int:
    """The feature table, and what is asked, as Delta tables; the feature table's version, released."""
    import numpy as np
    import pyarrow as pa
    from deltalake import write_deltalake
    from feast.types import from_feast_to_pyarrow_type

    from feature_repo.churn.definitions import customer_features
    from plumbline.lake import tables as lake
    from plumbline.state import releases

    random = np.random.default_rng(7)
    n, day = CUSTOMERS * DAYS, 86_400_000_000
    begins = int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()) * 1_000_000
    days = np.repeat(np.arange(DAYS), CUSTOMERS)
    stamp = pa.timestamp("us", "UTC")
    columns: dict[str, Any] = {
        "customer_id": pa.array(np.tile(np.arange(1, CUSTOMERS + 1), DAYS), pa.int64()),
        "snapshot_date": pa.array((begins // day + days).astype("datetime64[D]"), pa.date32()),
        "event_time": pa.array(begins + (days + 1) * day, pa.timestamp("us")).cast(stamp),
        "created_at": pa.array(begins + (days + 1) * day, pa.timestamp("us")).cast(stamp),
        "last_order_day": pa.array((begins // day + days).astype("int32")),
        "release_id": pa.array(np.ones(n, "int64")),
    }
    for field in customer_features.schema:
        kind = from_feast_to_pyarrow_type(field.dtype)
        columns.setdefault(field.name, pa.array(random.integers(0, 10_000, n)).cast(kind))
    write_deltalake(lake.uri(TABLE), pa.table(columns))
    asked = begins + random.integers(0, DAYS * 86_400, ASKED) * 1_000_000
    pairs = {
        "customer_id": pa.array(random.integers(1, CUSTOMERS + 200, ASKED)),  # some are unknown
        "event_timestamp": pa.array(asked, pa.timestamp("us")).cast(stamp),
        "request_time": pa.array(asked // 1_000_000),
    }
    write_deltalake(str(measured.HOME / "join" / "lake" / "asked"), pa.table(pairs))
    version = lake.open_table(TABLE).version()
    releases.publish(
        releases.Release(1, CHURN.name, LAST, None, {TABLE: version}, {}, "bench", "bench", "bench", "bench")
    )
    return int(version)


def _feast(version: int) -> Any:
    from feature_repo import store as feature_store
    from plumbline.state import releases
    from training import point_in_time

    store = feature_store.at_release(CHURN, releases.required(CHURN.name))
    return lambda asked: point_in_time.historical(store, feature_store.service_name(CHURN), TABLE, version, asked)


def _polars(features_uri: str, entity_uri: str) -> Any:
    import polars as pl
    from deltalake import DeltaTable

    features = pl.DataFrame(DeltaTable(features_uri).to_pyarrow_table()).sort("event_time")
    asked = pl.DataFrame(DeltaTable(entity_uri).to_pyarrow_table()).sort("event_timestamp")
    return asked.join_asof(
        features,
        left_on="event_timestamp",
        right_on="event_time",
        by="customer_id",
        strategy="backward",
        tolerance=TTL,
        check_sortedness=False,
    ).to_pandas()


def _different(feast: Any, polars: Any) -> int:
    """How many values differ between the two answers, over the features that both hold; rows lost count whole."""
    import numpy as np
    import pandas as pd

    keys = ["customer_id", "request_time"]
    names = [name for name in feast.columns if name in polars.columns and name not in (*keys, "event_timestamp")]
    left, right = (frame.sort_values(keys)[[*keys, *names]].reset_index(drop=True) for frame in (feast, polars))
    if len(left) != len(right):
        return abs(len(left) - len(right)) * len(names)
    a, b = (frame.apply(pd.to_numeric).to_numpy(dtype=np.float64, na_value=np.nan) for frame in (left, right))
    return int((~((a == b) | (np.isnan(a) & np.isnan(b)))).sum())
