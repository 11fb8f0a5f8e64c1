"""What was knowable of a customer at a moment, computed from the orders alone, the plain way.

A second statement of what the features mean, independent of the SQL that serves: slow, short, and with no state that is
carried from day to day. An order counts from its `known_at` on, in a window by its `order_date`.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

WINDOWS = (7, 30, 90)
COLUMNS = ("customer_id", "order_date", "known_at", "total_cents", "units")
_DAY_BITS = 20  # (customer, day since 1970) in one sortable int64


def features(orders: pd.DataFrame, day: date) -> pd.DataFrame:
    """By customer_id: what the orders known at the end of `day` come to. Asked at that same moment.

    `orders` has COLUMNS and `known_until`, null while a version counts, with `order_day` in days since 1970-01-01.
    Money in cents.
    """
    import numpy as np

    today = (day - date(1970, 1, 1)).days
    end = clock.end_of(day)
    counts = orders["known_until"].isna() | (orders["known_until"] >= end)
    known = orders[(orders["known_at"] < end) & counts]
    by = known.groupby("customer_id")
    found: pd.DataFrame = by.agg(
        orders_total=("order_day", "size"), first_order_day=("order_day", "min"), last_order_day=("order_day", "max")
    )
    found["spend_cents_total"], found["units_total"] = by["total_cents"].sum(), by["units"].sum()
    for window in WINDOWS:
        cents = known[known["order_day"] > today - window].groupby("customer_id")["total_cents"]
        found[f"orders_{window}d"] = cents.size().reindex(found.index, fill_value=0)
        found[f"spend_cents_{window}d"] = cents.sum().reindex(found.index, fill_value=0)
    found["avg_ticket"] = found["spend_cents_total"] / found["orders_total"]
    found["avg_ticket_30d"] = found["spend_cents_30d"] / found["orders_30d"].replace(0, np.nan)
    gaps = (found["orders_total"] - 1).replace(0, np.nan)
    found["days_between_orders"] = (found["last_order_day"] - found["first_order_day"]) / gaps
    found["days_since_last_order"] = today + 1 - found["last_order_day"]
    return found


def churned(
    orders: pd.DataFrame, customer: NDArray[Any], observed_day: NDArray[Any], horizon: timedelta
) -> NDArray[Any]:
    """Whether each observed customer has no order dated within the horizon behind the observed day (since 1970)."""
    import numpy as np

    dated = np.unique(_packed(orders["customer_id"].to_numpy(), orders["order_day"].to_numpy()))
    first, last = (_packed(customer, observed_day + days) for days in (0, horizon.days))
    found: NDArray[Any] = np.searchsorted(dated, first, side="right") == np.searchsorted(dated, last, side="right")
    return found


def _packed(customer: NDArray[Any], day: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    packed: NDArray[Any] = (customer.astype(np.int64) << _DAY_BITS) | day.astype(np.int64)
    return packed
