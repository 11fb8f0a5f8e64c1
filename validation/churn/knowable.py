"""What was knowable of a customer at a moment, computed from orders and returns alone, the plain way.

A second statement of what the features mean, independent of the SQL that serves: slow, short, and with no state that is
carried from day to day. An order counts from its `known_at` on, in a window by its `order_date`.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

WINDOWS = (7, 30, 90)
COLUMNS = ("customer_id", "order_date", "known_at", "total_cents", "units")
RETURN_COLUMNS = ("customer_id", "returned_on", "known_at", "known_until", "cents")


def features(orders: pd.DataFrame, day: date, returns: pd.DataFrame | None = None) -> pd.DataFrame:
    """By customer_id: what the orders and returns known at the end of `day` come to. Asked at that same moment.

    `orders` has COLUMNS and `known_until`, null while a version counts, with `order_day` in days since 1970-01-01.
    `returns` has RETURN_COLUMNS and `returned_day` likewise; None: a release without them. Money in cents.
    """
    import numpy as np

    today = (day - date(1970, 1, 1)).days
    end = clock.end_of(day)
    known = _known(orders, end)
    by = known.groupby("customer_id")
    snapshot: pd.DataFrame = by.agg(
        orders_total=("order_day", "size"), first_order_day=("order_day", "min"), last_order_day=("order_day", "max")
    )
    snapshot["spend_cents_total"], snapshot["units_total"] = by["total_cents"].sum(), by["units"].sum()
    for window in WINDOWS:
        cents = known[known["order_day"] > today - window].groupby("customer_id")["total_cents"]
        snapshot[f"orders_{window}d"] = cents.size().reindex(snapshot.index, fill_value=0)
        snapshot[f"spend_cents_{window}d"] = cents.sum().reindex(snapshot.index, fill_value=0)
    if returns is not None:
        back = _known(returns, end)
        paid_back = back[back["returned_day"] > today - 90].groupby("customer_id")["cents"].sum()
        snapshot["returned_cents_90d"] = paid_back.reindex(snapshot.index, fill_value=0)
    snapshot["avg_ticket"] = snapshot["spend_cents_total"] / snapshot["orders_total"]
    snapshot["avg_ticket_30d"] = snapshot["spend_cents_30d"] / snapshot["orders_30d"].replace(0, np.nan)
    gaps = (snapshot["orders_total"] - 1).replace(0, np.nan)
    snapshot["days_between_orders"] = (snapshot["last_order_day"] - snapshot["first_order_day"]) / gaps
    snapshot["days_since_last_order"] = today + 1 - snapshot["last_order_day"]
    return snapshot


def _known(history: pd.DataFrame, end: datetime) -> pd.DataFrame:
    """The versions that counted at a moment."""
    counts = history["known_until"].isna() | (history["known_until"] >= end)
    return history[(history["known_at"] < end) & counts]


def churned(
    orders: pd.DataFrame, customer: NDArray[Any], observed_day: NDArray[Any], horizon: timedelta
) -> NDArray[Any]:
    """Whether each observed customer has no order dated within the horizon behind the observed day (since 1970).

    Each observation is joined with the customer's next order; `training` packs and sorts both instead.
    """
    import pandas as pd

    observed = pd.DataFrame({"customer_id": customer, "observed_day": observed_day, "row": range(len(customer))})
    next_orders = pd.merge_asof(
        observed.sort_values("observed_day"),
        orders[["customer_id", "order_day"]].sort_values("order_day"),
        left_on="observed_day",
        right_on="order_day",
        by="customer_id",
        direction="forward",
        allow_exact_matches=False,
    ).sort_values("row")
    gap = next_orders["order_day"] - next_orders["observed_day"]
    no_order: NDArray[Any] = ~(gap <= horizon.days).to_numpy()
    return no_order
