"""The label: who churned.

A customer observed at the end of day t has *churned* when no order of theirs is dated in the days after it. With a
horizon of 90 days the window is (t, t+90]: an order on t itself is history, one on t+90 keeps the customer, one on t+91
comes too late.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import shop
from training.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def horizon_days() -> int:
    """Length of the label window, by the shop's page."""
    return shop.page().horizon_days


def last_observable(as_of: date) -> date:
    """The last day t whose whole label window lies in data that reaches `as_of`: t + horizon <= as_of."""
    return as_of - timedelta(days=horizon_days())


def churned(
    order_customer: NDArray[Any],
    order_day: NDArray[Any],
    customer: NDArray[Any],
    observed_day: NDArray[Any],
    horizon: int | None = None,
) -> NDArray[Any]:
    """Whether each observed customer placed no order in (observed_day, observed_day + horizon], by default the shop's.

    `order_customer` and `order_day` are the orders, one element each, in any order; `customer` and `observed_day` the
    observations, n of each. Customers are any int64, or any text; days are int64 since 1970-01-01. Gives n booleans.
    """
    import numpy as np

    horizon = horizon_days() if horizon is None else horizon
    order_day, observed_day = (np.asarray(days, dtype=np.int64) for days in (order_day, observed_day))
    if not len(order_day) or not len(observed_day):
        return np.ones(len(observed_day), dtype=bool)
    # A customer's rank among all customers packs with a day into one sortable int64, however large or long the id is.
    customers = np.concatenate([np.asarray(order_customer), np.asarray(customer)])
    ranks = np.unique(customers, return_inverse=True)[1]
    first_day = min(order_day.min(), observed_day.min())
    span = max(order_day.max(), observed_day.max() + horizon) - first_day + 1
    ordered = np.sort(ranks[: len(order_day)] * span + order_day - first_day)
    observed = ranks[len(order_day) :] * span + observed_day - first_day
    next_order = np.searchsorted(ordered, observed, side="right")
    # The guard behind the last order lies past any window, so that a search that runs off the end finds no order.
    guarded = np.append(ordered, np.iinfo(np.int64).max)
    no_order: NDArray[Any] = guarded[next_order] > observed + horizon
    return no_order


def refuse_one_outcome(churned: NDArray[Any], is_test: NDArray[Any], test: date) -> None:
    """Raises TrainingError when all training rows, or all of the `test` day, have one outcome, or there are none."""
    for told, rows in (("training rows", churned[~is_test]), (f"customers observed on {test}", churned[is_test])):
        if rows.all() or not rows.any():
            outcome = ("did churn" if rows.all() else "did not churn") if len(rows) else "are there"
            raise TrainingError(
                f"{len(rows):,} of {len(rows):,} {told} {outcome} (no order in the {horizon_days()} days after): a "
                "model has nothing to tell apart. Choose another horizon_days in the shop's shop.yaml, or wait for "
                "more orders"
            )
