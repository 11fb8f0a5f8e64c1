"""The simulated returns: one stated rule, the same returns each time."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from ingestion.churn import cdnow, returns
from ingestion.churn.cdnow import Order


def test_an_order_has_the_return_that_the_rule_gives_it() -> None:
    day = date(1997, 1, 1)
    found = {number: returns.of_order(Order(number, 1, day, 1, 1_177)) for number in range(1, 101)}
    made = {number: back for number, back in found.items() if back is not None}
    assert {n: (back.returned_at - datetime(1997, 1, 1, 12), back.cents) for n, back in made.items()} == {
        13: (timedelta(days=15), 589),
        38: (timedelta(days=4), 589),
        43: (timedelta(days=16), 1_177),
        94: (timedelta(days=18), 589),
    }
    assert all(back.recorded_at == back.returned_at for back in made.values())
    assert returns.of_order(Order(min(made), 1, day, 1, 0)) is None, "what cost nothing does not come back"


def test_one_order_in_25_comes_back_within_a_month_for_no_more_than_was_paid() -> None:
    orders = {order.order_id: order for order in cdnow.read(cdnow.packaged())}
    found = list(returns.simulated(orders.values(), date(1998, 6, 30)))
    assert 0.035 < len(found) / len(orders) < 0.045
    days = {(back.returned_at.date() - orders[back.order_id].order_date).days for back in found}
    assert days == set(range(3, 31))
    half = [back for back in found if back.cents < orders[back.order_id].total_cents]
    assert 0.45 < len(half) / len(found) < 0.55
    assert all(back.cents == (orders[back.order_id].total_cents + 1) // 2 for back in half)
    assert max(back.returned_at.date() for back in found) <= date(1998, 6, 30)
