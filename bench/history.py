"""(e) What a day costs as history grows: the same day's orders on top of 1, 4 and 16 times CDNOW's eighteen months.

A quarter of CDNOW's customers; longer histories repeat their orders, eighteen months later each time (so only the
first eighteen months are real). The run whose cost is shown is the daily one, after a backfill. So few customers have
days that are shorter than real days are: distribution gates look at them, and what they find is accepted.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from bench import measured
from plumbline.state import acceptances
from products.churn import CHURN

TIMES = (1, 4, 16)
PERIOD = timedelta(days=546)
LAST = date(1998, 6, 30)
SHARE = 4


def measure() -> dict[str, Any]:
    """Seconds of work of each stage of the daily run, and of the backfill as a whole, at each length of history."""
    return {"histories": [_history(times) for times in TIMES]}


def _history(times: int) -> dict[str, Any]:
    name = f"history-{times}x"
    shutil.rmtree(measured.HOME / name, ignore_errors=True)
    last = LAST + PERIOD * (times - 1)
    with measured.home(name, last):
        orders = _fill(times)
        print(f"  {times}x: {orders:,} orders", file=sys.stderr)
        for day in (last - timedelta(days=1), last):
            _accept(day)
        before = _run(last - timedelta(days=1))
        daily = _run(last)
    shutil.rmtree(measured.HOME / name, ignore_errors=True)
    return {
        "times": times,
        "orders": orders,
        "backfill_s": round(sum(before.values()), 1),
        "daily_s": round(sum(daily.values()), 1),
        "daily": {stage: round(seconds, 2) for stage, seconds in daily.items()},
    }


def _accept(day: date) -> None:
    """Lets a day through whatever the distribution gates find: they measure it as any other."""
    for gate in CHURN.acceptable:
        acceptances.accept(CHURN, gate, day, "a quarter of the customers, their orders repeated", by="make bench")


def _run(day: date) -> dict[str, float]:
    """Seconds of work of each stage, by what the stage says itself (without its process's start)."""
    found = {}
    for stage in CHURN.daily_stages:
        arguments = () if stage in ("materialize", "parity_check") else ("--as-of", day.isoformat())
        told, _ = measured.plumb(stage, *arguments)
        found[stage] = float(told["seconds"])
    return found


def _fill(times: int) -> int:
    """Puts the orders into the home's shop database; gives how many."""
    import sqlalchemy as sa

    from ingestion.database import source

    tables = source.schema(CHURN)
    with source.connected(source.engine()) as connection:
        tables.create_all(connection)
        orders = list(_orders(times))
        first: dict[int, dict[str, Any]] = {}
        for order in orders:
            seen = first.setdefault(order["customer_id"], order)
            if order["recorded_at"] < seen["recorded_at"]:
                first[order["customer_id"]] = order
        people = [
            {"customer_id": customer, "signed_up_at": order["recorded_at"], "recorded_at": order["recorded_at"]}
            for customer, order in first.items()
        ]
        connection.execute(sa.insert(tables.tables["customers"]), people)
        connection.execute(sa.insert(tables.tables["orders"]), orders)
    return len(orders)


def _orders(times: int) -> Iterator[dict[str, Any]]:
    from ingestion.churn import cdnow as shop

    for order in shop.read(shop.packaged()):
        if order.customer_id % SHARE:
            continue
        for again in range(times):
            day = order.order_date + PERIOD * again
            yield {
                "order_id": order.order_id + again * 1_000_000,
                "customer_id": order.customer_id,
                "order_date": day,
                "units": order.units,
                "total_cents": order.total_cents,
                "recorded_at": shop.noon(day),
            }
