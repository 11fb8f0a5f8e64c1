"""CDNOW's real orders and the features of their customers, the plain way, for gates that read Delta tables."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd

from ingestion.churn.cdnow import packaged, read

FIRST, LAST = date(1997, 1, 1), date(1998, 6, 30)


@cache
def _everything() -> pd.DataFrame:
    frame = pd.DataFrame([order.__dict__ for order in read(packaged())])
    frame["known_on"] = frame["order_date"]
    return frame


def orders(until: date = LAST, since: date = FIRST) -> pd.DataFrame:
    """Real orders of these days, with the day they were known on."""
    frame = _everything()
    return frame[(frame["order_date"] >= since) & (frame["order_date"] <= until)].reset_index(drop=True)


def days(since: date = FIRST) -> list[date]:
    return [since + timedelta(days=number) for number in range((LAST - since).days + 1)]


@cache
def daily_counts() -> np.ndarray:
    """Orders of each real day, from the first to the last."""
    held = _everything().groupby("order_date").size()
    return np.array([held.get(day, 0) for day in days()], dtype=float)


@cache
def snapshot(day: date) -> pd.DataFrame:
    """A row per customer with what the feature gates compare, from the orders known by a day."""
    known = orders(day).assign(
        day=lambda frame: pd.to_datetime(frame["order_date"]).astype("datetime64[s]").astype("int64") // 86_400
    )
    today = (day - date(1970, 1, 1)).days
    groups = known.groupby("customer_id")
    made = groups.agg(orders_total=("order_id", "size"), units_total=("units", "sum"))
    made["spend_cents_total"] = groups["total_cents"].sum()
    made["avg_ticket"] = made["spend_cents_total"] / made["orders_total"]
    for window in (7, 30, 90):
        recent = known[known["day"] > today - window].groupby("customer_id")["total_cents"]
        made[f"orders_{window}d"] = recent.size().reindex(made.index, fill_value=0)
        made[f"spend_cents_{window}d"] = recent.sum().reindex(made.index, fill_value=0)
    made["avg_ticket_30d"] = made["spend_cents_30d"] / made["orders_30d"].replace(0, np.nan)
    span = groups["day"].max() - groups["day"].min()
    made["days_between_orders"] = span / (made["orders_total"] - 1).replace(0, np.nan)
    return made.reset_index()
