"""The one definition of the features, on real Spark, against a naive loop over the same orders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_repo.churn.jobs import customers as job
from plumbline import clock
from plumbline.lake import spark

FIRST = date(1998, 1, 1)


@dataclass(frozen=True)
class Naive:
    """What one snapshot row should hold, by a loop that knows nothing of totals carried on."""

    orders: list[dict[str, Any]]
    day: date

    def within(self, days: int) -> list[dict[str, Any]]:
        return [o for o in self.orders if o["order_date"] > self.day - timedelta(days=days)]

    def row(self) -> dict[str, Any]:
        spent = [o["total_cents"] for o in self.orders]
        dates = [o["order_date"] for o in self.orders]
        recent = [o["total_cents"] for o in self.within(30)]
        found: dict[str, Any] = {
            "orders_total": len(spent),
            "spend_cents_total": sum(spent),
            "units_total": sum(o["units"] for o in self.orders),
            "avg_ticket": np.float32(sum(spent) / len(spent)) if spent else None,
            "avg_ticket_30d": np.float32(sum(recent) / len(recent)) if recent else None,
            "first_order_day": (min(dates) - date(1970, 1, 1)).days if dates else None,
            "last_order_day": (max(dates) - date(1970, 1, 1)).days if dates else None,
            "days_between_orders": np.float32((max(dates) - min(dates)).days / (len(dates) - 1))
            if len(dates) > 1
            else None,
        }
        for days in (7, 30, 90):
            found[f"orders_{days}d"] = len(self.within(days))
            found[f"spend_cents_{days}d"] = sum(o["total_cents"] for o in self.within(days))
        return found


def make_orders(seed: int, n: int = 400, customers: int = 25, days: int = 150) -> pd.DataFrame:
    """Random orders, a tenth of them late: known up to 40 days after their date."""
    random = np.random.default_rng(seed)
    dated = [FIRST + timedelta(days=int(d)) for d in random.integers(0, days, n)]
    late = np.where(random.random(n) < 0.1, random.integers(1, 40, n), 0)
    known = [
        datetime(d.year, d.month, d.day, 12, tzinfo=UTC) + timedelta(days=int(x))
        for d, x in zip(dated, late, strict=True)
    ]
    return pd.DataFrame(
        {
            "order_id": np.arange(n, dtype="int64"),
            "customer_id": random.integers(1, customers + 1, n).astype("int64"),
            "order_date": dated,
            "units": random.integers(1, 6, n).astype("int64"),
            "total_cents": random.integers(0, 20_000, n).astype("int64"),
            "known_at": known,
        }
    )


def snapshots(orders: pd.DataFrame, days: list[date], base: Any = None, base_day: date | None = None) -> pd.DataFrame:
    session = spark.session()
    customers = pd.DataFrame({"customer_id": sorted(set(orders["customer_id"]))}).astype("int64")
    customers["signed_up_on"] = FIRST
    customers["known_at"] = datetime(1998, 1, 1, tzinfo=UTC)
    frame = job.snapshots(
        session, session.createDataFrame(orders), session.createDataFrame(customers), base, base_day, days, release_id=3
    )
    return frame.toPandas()


@pytest.mark.usefixtures("with_spark")
class TestDefinition:
    def test_backfill_equals_a_naive_loop(self) -> None:
        orders = make_orders(seed=1)
        days = [FIRST + timedelta(days=d) for d in (6, 30, 31, 95, 149)]
        found = snapshots(orders, days).set_index(["snapshot_date", "customer_id"])
        assert len(found) == len(days) * 25, "one row a customer and day, also without orders"
        for (day, customer), row in found.iterrows():
            known = [
                o
                for o in orders.to_dict("records")
                if o["customer_id"] == customer and o["known_at"] < clock.end_of(day)
            ]
            for name, expected in Naive(known, day).row().items():
                actual = row[name]
                if expected is None:
                    assert actual is None or math.isnan(actual), (day, customer, name)
                else:
                    assert actual == expected, (day, customer, name)

    def test_totals_carried_on_give_the_same_rows_as_from_the_first_order(self) -> None:
        orders = make_orders(seed=2)
        base_day, day = FIRST + timedelta(days=100), FIRST + timedelta(days=101)
        whole = snapshots(orders, [base_day, day])
        base = spark.session().createDataFrame(
            whole[whole["snapshot_date"] == base_day].astype({"first_order_day": "Int64", "last_order_day": "Int64"})
        )
        carried = snapshots(orders, [day], base, base_day)
        expected = whole[whole["snapshot_date"] == day].reset_index(drop=True)
        pd.testing.assert_frame_equal(carried, expected)

    def test_a_late_order_counts_from_the_next_snapshot_on(self) -> None:
        on_time = make_orders(seed=3)
        day, next_day = FIRST + timedelta(days=60), FIRST + timedelta(days=61)
        late = on_time.iloc[:1].assign(
            order_id=9_999, order_date=FIRST + timedelta(days=50), known_at=datetime(1998, 3, 3, 12, tzinfo=UTC)
        )  # day 61
        without, with_late = snapshots(on_time, [day, next_day]), snapshots(pd.concat([on_time, late]), [day, next_day])
        columns = ["customer_id", "orders_total", "orders_30d", "spend_cents_total"]
        pd.testing.assert_frame_equal(
            without.loc[without["snapshot_date"] == day, columns],
            with_late.loc[with_late["snapshot_date"] == day, columns],
        )
        customer = int(late["customer_id"].iloc[0])
        after = with_late[(with_late["snapshot_date"] == next_day) & (with_late["customer_id"] == customer)].iloc[0]
        before = without[(without["snapshot_date"] == next_day) & (without["customer_id"] == customer)].iloc[0]
        assert after["orders_total"] == before["orders_total"] + 1
        assert after["orders_30d"] == before["orders_30d"] + 1

    def test_rows_carry_when_they_were_knowable_and_by_which_release(self) -> None:
        found = snapshots(make_orders(seed=4, n=20), [FIRST + timedelta(days=3)])
        assert set(found["event_time"]) == {pd.Timestamp("1998-01-05")}
        assert set(found["release_id"]) == {3}
        assert set(found["tenure_months"]) == {0}


def test_snapshot_days_are_weekly_in_the_past_and_daily_from_then_on() -> None:
    first, as_of = date(1997, 1, 1), date(1998, 6, 29)
    backfill = job.snapshot_days(None, first, as_of)
    assert (backfill[0], backfill[-1], len(backfill)) == (first, as_of, 79)
    assert date(1998, 4, 1) in backfill, "the last day whose 90 days of outcomes are known"
    assert job.snapshot_days(as_of, as_of, date(1998, 6, 30)) == [date(1998, 6, 30)]
    assert job.snapshot_days(date(1998, 6, 1), first, date(1998, 6, 10)) == [date(1998, 6, 8), date(1998, 6, 10)]
