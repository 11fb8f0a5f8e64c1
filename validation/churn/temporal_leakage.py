"""The gate `temporal_leakage`: every value was knowable at its observation, and the label begins behind it.

A feature that the table stores must be the value of the snapshot taken at the observation's own moment. What follows
from orders and returns is computed again from those known by then. The label is computed again from the orders
behind it.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from plumbline.lake import tables as lake
from plumbline.state import releases
from products.churn import CHURN
from validation.churn import knowable
from validation.leakage_findings import Audited, Finding, counted

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FEATURES, ORDERS, HISTORY = "features.customers", "analytics.orders", "analytics.orders_history"
RETURNS = "analytics.returns_history"
KEY = ["customer_id", "day"]
EPOCH = date(1970, 1, 1)
AS_KNOWABLE = ": as knowable"
CLOSE = 1e-6
"""Relative difference between a float32 and what it was rounded from."""


def findings(audited: Audited, limits: dict[str, float]) -> list[Finding]:
    """One for each stored feature, for each that follows from orders, for the label and for the moment asked at."""
    orders = _orders(audited.version("orders_version"))
    stored = _snapshots(audited)
    return [
        _asked_at(audited, limits),
        *_label(audited, orders, limits),
        *_as_stored(audited, stored, limits),
        *_as_knowable(audited, _history(audited, orders), _returns(audited), limits),
    ]


def proven(found: list[Finding]) -> set[str]:
    """The features of which every row is what the orders and returns known at its moment give."""
    return {f.what.removesuffix(AS_KNOWABLE) for f in found if f.what.endswith(AS_KNOWABLE) and not f.value}


def _asked_at(audited: Audited, limits: dict[str, float]) -> Finding:
    rows = audited.rows
    late = rows[rows["request_time"] != (rows["day"] + 1) * 86_400]
    return counted("request_time", late, limits["rows"], "are asked at another time than they are observed")


def _label(audited: Audited, orders: pd.DataFrame, limits: dict[str, float]) -> list[Finding]:
    rows, horizon = audited.rows, timedelta(days=int(audited.about["horizon_days"]))
    until = (date.fromisoformat(str(audited.about["labels_until"])) - EPOCH).days
    found = knowable.churned(orders, rows["customer_id"].to_numpy(), rows["day"].to_numpy(), horizon)
    window = f"({horizon.days} days from the day after the observation)"
    return [
        counted(
            "label window",
            rows[rows["day"] + horizon.days > until],
            limits["rows"],
            f"have a label window {window} that ends behind {audited.about['labels_until']}, where the orders end",
        ),
        counted(
            "label",
            rows[rows["churned"].to_numpy() != found],
            limits["rows"],
            f"have another label than the orders in its window {window} give: a window that begins earlier overlaps "
            "the features",
        ),
    ]


def _as_stored(audited: Audited, stored: pd.DataFrame, limits: dict[str, float]) -> list[Finding]:
    """Each stored feature against the snapshot of the row's own moment."""
    rows = audited.rows
    where = f"{FEATURES}@v{audited.version('data_version')}"
    own = rows[KEY].merge(stored, on=KEY, how="left", validate="many_to_one", indicator=True)
    absent = rows[(own["_merge"] == "left_only").to_numpy()]
    found = [counted("snapshot", absent, limits["rows"], f"are observed when {where} has no snapshot of them")]
    for name in (name for name in audited.features if name in stored.columns):
        wrong = rows[~_same(rows[name], own[name]) & (own["_merge"] == "both").to_numpy()]
        told = f"hold a value of {name} that is not the one of their own moment in {where}"
        if len(wrong):
            told += _taken_from(wrong.iloc[0], name, audited)
        found.append(counted(f"{name}: as stored", wrong, limits["rows"], told))
    return found


def _taken_from(row: pd.Series, name: str, audited: Audited) -> str:
    """Which later snapshot of the customer has the value of this row, when one does."""
    table = lake.open_table(FEATURES, audited.version("data_version"))
    wanted = [("customer_id", "=", int(row["customer_id"]))]
    theirs = table.to_pyarrow_table(filters=wanted, columns=["snapshot_date", name]).to_pandas()
    later = theirs[_same(theirs[name], theirs[name].map(lambda _: row[name]))]["snapshot_date"]
    later = [day for day in later if (day - EPOCH).days > row["day"]]
    customer = f"customer {row['customer_id']} at {row['event_timestamp']:%Y-%m-%d}"
    return f" ({customer} has the value {row[name]} of the snapshot of {min(later)})" if later else ""


def _as_knowable(
    audited: Audited, orders: pd.DataFrame, returns: pd.DataFrame | None, limits: dict[str, float]
) -> list[Finding]:
    """Each feature that follows from orders and returns against what those known at the moment come to."""
    import pandas as pd

    rows = audited.rows
    days = [EPOCH + timedelta(days=int(day)) for day in sorted(rows["day"].unique())]
    parts = [knowable.features(orders, day, returns).assign(day=(day - EPOCH).days).reset_index() for day in days]
    known = rows[KEY].merge(pd.concat(parts, ignore_index=True), on=KEY, how="left", validate="many_to_one")
    found = []
    for name in (name for name in audited.features if name in known.columns):
        wrong = rows[~_same(rows[name], known[name])]
        if len(wrong) > (1 - limits["known_definition_from"]) * len(rows):
            told = f"{name} has another definition than the plain one (it differs in {len(wrong):,} rows): not judged"
            found.append(Finding(f"{name}{AS_KNOWABLE}", False, told, float(len(wrong)), limits["rows"]))
            continue
        told = f"hold a value of {name} that the orders and returns known by then do not give: it was known only later"
        found.append(counted(f"{name}{AS_KNOWABLE}", wrong, limits["rows"], told))
    return found


def _history(audited: Audited, orders: pd.DataFrame) -> pd.DataFrame:
    """Every version of the orders, at the dataset's release. An old release names none: the orders as they are."""
    version = _version(audited, HISTORY)
    if version is None:
        return orders.assign(known_until=None)
    return _orders(version, HISTORY, (*knowable.COLUMNS, "known_until"))


def _returns(audited: Audited) -> pd.DataFrame | None:
    """Every version of the returns, at the dataset's release. None of an old release, which names none."""
    if (version := _version(audited, RETURNS)) is None:
        return None
    frame: pd.DataFrame = lake.open_table(RETURNS, version).to_pandas(columns=list(knowable.RETURN_COLUMNS))
    return frame.assign(returned_day=_days(frame["returned_on"]))


def _version(audited: Audited, table: str) -> int | None:
    """A table's version in the dataset's release; None where either is not there."""
    number = audited.about["release_id"]
    release = releases.read(CHURN.name, number) if number in releases.numbers(CHURN.name) else None
    return release.tables.get(table) if release else None


def _days(dates: pd.Series) -> pd.Series:
    """Dates in days since 1970-01-01."""
    days: pd.Series = dates.astype("datetime64[s]").astype("int64") // 86_400
    return days


def _orders(version: int, name: str = ORDERS, columns: tuple[str, ...] = knowable.COLUMNS) -> pd.DataFrame:
    table = lake.open_table(name, version).to_pyarrow_table(columns=list(columns))
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    return frame.assign(order_day=_days(frame["order_date"]))


def _snapshots(audited: Audited) -> pd.DataFrame:
    """The stored rows of the observed days, the newest of each customer and moment, with `day`."""
    table = lake.open_table(FEATURES, audited.version("data_version"))
    held = {field.name for field in table.schema().fields}
    names = [name for name in audited.features if name in held]
    days = [str(EPOCH + timedelta(days=int(day))) for day in sorted(audited.rows["day"].unique())]
    wanted = ["customer_id", "event_time", "created_at", *names]
    found = table.to_pyarrow_table(filters=[("snapshot_date", "in", days)], columns=wanted)
    frame: pd.DataFrame = found.to_pandas().sort_values("created_at", kind="stable")
    moments = frame["event_time"].astype("datetime64[us, UTC]").astype("int64")
    return frame.assign(day=moments // 86_400_000_000 - 1).drop_duplicates(KEY, keep="last")


def _same(left: pd.Series, right: pd.Series) -> NDArray[Any]:
    """Equal, or both missing; numbers up to the rounding of a float32."""
    import numpy as np
    import pandas as pd

    missing = left.isna().to_numpy() & right.isna().to_numpy()
    if not (pd.api.types.is_numeric_dtype(left) and pd.api.types.is_numeric_dtype(right)):
        return np.asarray(left.to_numpy() == right.to_numpy()) | missing
    a, b = (column.to_numpy(dtype="float64", na_value=np.nan) for column in (left, right))
    same: NDArray[Any] = np.isclose(a, b, rtol=CLOSE, atol=0) | missing
    return same
