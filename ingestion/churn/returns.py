"""Returns for the demo shop: SIMULATED, by one rule, from CDNOW's real orders. The data set has none.

The rule: SHA-256 of `return <order_id>` gives whole numbers. By the first, one order in 25 that cost something came
back; by the second, 3 to 30 days after the order; by the third, half of those whole, the others for half of the price
(rounded up). It is recorded at noon of its day, as orders are. The same order always gives the same return.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestion.churn.cdnow import Order

ONE_IN = 25
SOONEST, LATEST = 3, 30
"""Days from an order to its return."""


@dataclass(frozen=True)
class Return:
    """What came back of one order, as the shop records it; UTC without a zone, money in integer cents."""

    order_id: int
    returned_at: datetime
    cents: int
    recorded_at: datetime


def of_order(order: Order) -> Return | None:
    """The simulated return of an order; None for most."""
    digest = hashlib.sha256(f"return {order.order_id}".encode()).digest()
    chosen, days, whole = (int.from_bytes(digest[at : at + 8]) for at in (0, 8, 16))
    if not order.total_cents or chosen % ONE_IN:
        return None
    day = order.order_date + timedelta(days=SOONEST + days % (LATEST - SOONEST + 1))
    noon = datetime.combine(day, time(12))
    return Return(order.order_id, noon, order.total_cents if whole % 2 else -(-order.total_cents // 2), noon)


def simulated(orders: Iterable[Order], until: date) -> Iterator[Return]:
    """The simulated returns of orders that came back up to a day."""
    for order in orders:
        made = of_order(order)
        if made is not None and made.returned_at.date() <= until:
            yield made
