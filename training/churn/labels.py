"""The label: who churned.

A customer observed at the end of day t has *churned* when no order of theirs is dated in the 90 days after it, the
window (t, t+90]: an order on t itself is history, one on t+90 keeps the customer, one on t+91 comes too late.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

HORIZON_DAYS = 90
"""Length of the label window. 90 days is about two and a half times CDNOW's mean gap between orders."""

_DAY_BITS = 20
"""Days since 1970-01-01 fit into 20 bits until the year 4840, so (customer, day) packs into one sortable int64."""


def last_observable(as_of: date) -> date:
    """The last day t whose whole label window lies in data that reaches `as_of`: t + 90 <= as_of."""
    return as_of - timedelta(days=HORIZON_DAYS)


def churned(
    order_customer: NDArray[Any],
    order_day: NDArray[Any],
    customer: NDArray[Any],
    observed_day: NDArray[Any],
    horizon: int = HORIZON_DAYS,
) -> NDArray[Any]:
    """Whether each observed customer placed no order in (observed_day, observed_day + horizon].

    `order_customer` and `order_day` are the orders, one element each, in any order; `customer` and `observed_day` the
    observations, n of each. Customers are int64 from 0 on, days are int64 since 1970-01-01. Gives n booleans.
    """
    import numpy as np

    orders = np.sort(_packed(order_customer, order_day))
    next_order = np.searchsorted(orders, _packed(customer, observed_day), side="right")
    window_end = _packed(customer, np.asarray(observed_day, dtype=np.int64) + horizon)
    # The guard behind the last order lies past any window, so that a search that runs off the end finds no order.
    guarded = np.append(orders, np.iinfo(np.int64).max)
    found: NDArray[Any] = guarded[next_order] > window_end
    return found


def _packed(customer: NDArray[Any], day: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    packed: NDArray[Any] = (np.asarray(customer, dtype=np.int64) << _DAY_BITS) | np.asarray(day, dtype=np.int64)
    return packed
