"""A small made-up shop: its orders, snapshots and releases, and a dataset that needs no Spark."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock, files, provenance
from plumbline.lake import tables as lake
from plumbline.state import objects, releases, trainings
from plumbline.state.releases import Release
from plumbline.state.trainings import Place
from products.churn import CHURN
from training import canonical, datasets
from training.churn import dataset, labels, snapshots, split

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FIRST, AS_OF = date(1997, 1, 1), date(1998, 6, 30)
WEEKLY = [FIRST + timedelta(weeks=week) for week in range(78)]


def simulate_orders(customers: int, seed: int = 7) -> pd.DataFrame:
    """Orders of customers who arrive in the first 84 days, buy at their own rate and may leave after each order."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    rows = []
    for customer in range(1, customers + 1):
        rate, leaves = random.gamma(0.8, 1 / 40), random.beta(1, 3)
        day = int(random.integers(0, 84))
        while day < 546:
            rows.append((customer, day, int(random.integers(1, 6)), int(random.integers(800, 9000))))
            if random.random() < leaves:
                break
            day += 1 + int(random.exponential(1 / rate))
    orders = pd.DataFrame(rows, columns=["customer_id", "day", "units", "total_cents"])
    orders["order_id"] = np.arange(1, len(orders) + 1)
    orders["order_day"] = orders["day"] + days_since_1970(FIRST)
    return orders


def days_since_1970(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def orders_table(orders: pd.DataFrame) -> pa.Table:
    """The orders with the columns of analytics.orders that training reads; each known at its own noon."""
    import pyarrow as pa

    day = orders["order_day"].to_numpy().astype("datetime64[D]")
    noon = pa.array(day.astype("datetime64[us]") + 43_200_000_000, pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "order_id": pa.array(orders["order_id"], pa.int64()),
            "customer_id": pa.array(orders["customer_id"], pa.int64()),
            "order_date": pa.array(day, pa.date32()),
            "units": pa.array(orders["units"], pa.int64()),
            "total_cents": pa.array(orders["total_cents"], pa.int64()),
            "known_at": noon,
        }
    )


def snapshot_table(orders: pd.DataFrame, days: Sequence[date]) -> pa.Table:
    """features.customers for these days, computed the plain way."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    parts = []
    for day in days:
        today = days_since_1970(day)
        known = orders[orders["order_day"] <= today]
        groups = known.groupby("customer_id")
        part = groups["order_day"].agg(first_order_day="min", last_order_day="max", orders_total="size")
        part["spend_cents_total"], part["units_total"] = groups["total_cents"].sum(), groups["units"].sum()
        for window in (7, 30, 90):
            recent = known[known["order_day"] > today - window].groupby("customer_id")["total_cents"]
            part[f"orders_{window}d"] = recent.size().reindex(part.index, fill_value=0)
            part[f"spend_cents_{window}d"] = recent.sum().reindex(part.index, fill_value=0)
        part["returned_cents_90d"] = 10 * (part.index.to_numpy() % 3)
        part["tenure_months"] = (today - part["first_order_day"]) // 30
        part["avg_ticket"] = part["spend_cents_total"] / part["orders_total"]
        part["avg_ticket_30d"] = part["spend_cents_30d"] / part["orders_30d"].replace(0, np.nan)
        gaps = (part["orders_total"] - 1).replace(0, np.nan)
        part["days_between_orders"] = (part["last_order_day"] - part["first_order_day"]) / gaps
        # One customer who signed up and never bought: in the snapshots, in no dataset.
        part.loc[0] = {name: np.nan if "avg" in name or "days" in name else 0 for name in part.columns}
        part["snapshot_date"], part["event_time"] = day, pd.Timestamp(clock.end_of(day)).as_unit("us")
        parts.append(part.reset_index())
    frame = pd.concat(parts, ignore_index=True)
    frame["created_at"], frame["release_id"] = frame["event_time"], 1
    narrow = ("tenure_months", "orders_7d", "orders_30d", "orders_90d", "orders_total", "units_total")
    kinds = {name: pa.int32() for name in (*narrow, "first_order_day", "last_order_day")}
    kinds |= {name: pa.float32() for name in ("avg_ticket", "avg_ticket_30d", "days_between_orders")}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = [field.with_type(kinds.get(field.name, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def publish(release_id: int, *more: str) -> Release:
    """A release of what the lake holds now; `more` are further tables."""
    tables = {name: lake.version(name) for name in ("analytics.orders", "features.customers", *more)}
    known = {name: version for name, version in tables.items() if version is not None}
    base = release_id - 1 or None
    release = Release(release_id, "churn", AS_OF, base, known, {}, "code", "lock", f"churn-{AS_OF}", "1998-07-01")
    releases.publish(release)
    return release


def write_lake(orders: pd.DataFrame, days: Sequence[date]) -> None:
    from deltalake import write_deltalake

    write_deltalake(lake.uri("analytics.orders"), orders_table(orders), mode="overwrite")
    features = snapshot_table(orders, days)
    write_deltalake(lake.uri("features.customers"), features, mode="overwrite", partition_by=["snapshot_date"])


def write_dataset(release_id: int, orders: pd.DataFrame) -> dict[str, Any]:
    """The dataset as `plumb dataset` leaves it, made without Feast."""
    import pyarrow as pa

    observed = split.choose(WEEKLY, AS_OF)
    frame = snapshot_table(orders, observed.days).to_pandas().rename(columns={"event_time": "event_timestamp"})
    frame = frame[frame["orders_total"] > 0].reset_index(drop=True)
    frame["request_time"] = frame["event_timestamp"].astype("int64") // 1_000_000
    day = frame["request_time"].to_numpy() // 86_400
    frame["days_since_last_order"] = day - frame["last_order_day"]
    frame["churned"] = labels.churned(
        orders["customer_id"].to_numpy(), orders["order_day"].to_numpy(), frame["customer_id"].to_numpy(), day - 1
    )
    frame["is_test"] = day - 1 == days_since_1970(observed.test)
    names = ("tenure_months", "orders_90d", "orders_total", "days_between_orders", "days_since_last_order")
    rows = canonical.table(frame, dataset.schema({name: pa.float32() for name in names}), snapshots.KEY)
    place = Place(CHURN, release_id)
    objects.replace_bytes(place.key(trainings.ROWS), canonical.to_parquet(rows))
    about = {
        "dataset_id": f"churn-r{release_id}-test",
        "content_hash": canonical.content_hash(rows, snapshots.KEY),
        "data_version": "delta:features.customers@v=0",
        "orders_version": "delta:analytics.orders@v=0",
        "release_id": release_id,
        "cutoff": str(clock.end_of(observed.test)),
        "labels_until": str(AS_OF),
        "horizon_days": labels.horizon_days(),
        "observations": {"train": [str(d) for d in observed.train], "test": str(observed.test)},
        "feature_service": "churn_v1",
        "features": list(names),
        "code_sha": provenance.code_sha(),
        "lock_hash": provenance.lock_hash(),
        "seconds": 0.0,
    }
    files.write_whole(datasets.folder(place) / "dataset.json", files.dumps(about))
    return about
