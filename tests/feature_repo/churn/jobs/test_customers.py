"""The one definition of the features, on real Spark, against a naive loop over the same orders."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_repo.churn.jobs import customers as job
from feature_repo.churn.jobs import hindsight
from plumbline import clock
from plumbline.lake import spark

FIRST = date(1998, 1, 1)


@dataclass(frozen=True)
class Naive:
    """What one snapshot row should hold, by a loop that knows nothing of totals carried on."""

    orders: list[dict[str, Any]]
    day: date
    returns: list[dict[str, Any]] = field(default_factory=list)

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
        back = [r["cents"] for r in self.returns if r["returned_on"] > self.day - timedelta(days=90)]
        found["returned_cents_90d"] = sum(back)
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
            "known_until": pd.Series([None] * n, dtype="datetime64[us, UTC]"),
        }
    )


def no_returns() -> pd.DataFrame:
    """The history of returns of a shop without any."""
    kinds = {"customer_id": "int64", "cents": "int64", "returned_on": "object"}
    stamps = dict.fromkeys(("known_at", "known_until"), "datetime64[us, UTC]")
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in {**kinds, **stamps}.items()})


RETURNS = "customer_id BIGINT, cents BIGINT, returned_on DATE, known_at TIMESTAMP, known_until TIMESTAMP"


def snapshots(
    orders: pd.DataFrame,
    days: list[date],
    base: Any = None,
    base_day: date | None = None,
    returns: pd.DataFrame | None = None,
) -> pd.DataFrame:
    session = spark.session()
    customers = pd.DataFrame({"customer_id": sorted(set(orders["customer_id"]))}).astype("int64")
    customers["signed_up_on"] = FIRST
    customers["known_at"] = datetime(1998, 1, 1, tzinfo=UTC)
    customers["known_until"] = pd.Series([None] * len(customers), dtype="datetime64[us, UTC]")
    history, known = session.createDataFrame(orders), session.createDataFrame(customers)
    back = session.createDataFrame(no_returns() if returns is None else returns[list(no_returns())], RETURNS)
    inputs = {"orders": history, "customers": known, "returns": back}
    anew = job.anew_since(history, known, base, base_day) if base is not None and base_day else []
    return job.snapshots(session, inputs, base, base_day, days, 3, anew).toPandas()


def as_base(rows: pd.DataFrame, day: date) -> Any:
    """The snapshot of a day as the job reads it back."""
    totals = rows[rows["snapshot_date"] == day].astype({"first_order_day": "Int64", "last_order_day": "Int64"})
    return spark.session().createDataFrame(totals)


def make_history(seed: int, steps: int = 500, orders: int = 120, customers: int = 12, days: int = 130) -> pd.DataFrame:
    """Versions of orders as months of a careless shop bring them, each known from `known_at` until `known_until`.

    Each step inserts an order (one in ten late), corrects one (its amount, units, day or customer), deletes one, or
    uses the number of a deleted one again.
    """
    random = np.random.default_rng(seed)
    moments = sorted(int(minute) for minute in random.integers(0, days * 1440, steps))
    standing: dict[int, dict[str, Any]] = {}
    versions: list[dict[str, Any]] = []
    for minute in moments:
        now = datetime(1998, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
        order = int(random.integers(orders))
        before = standing.pop(order, None)
        if before is not None:
            before["known_until"] = now
            if random.random() < 0.3:
                continue  # deleted
        late = int(random.integers(1, 60)) if random.random() < 0.1 else 0
        moved = before is None or random.random() < 0.3
        version = {
            "order_id": order,
            "customer_id": int(random.integers(1, customers + 1)) if moved or before is None else before["customer_id"],
            "order_date": now.date() - timedelta(days=late) if before is None or moved else before["order_date"],
            "units": int(random.integers(1, 6)),
            "total_cents": int(random.integers(0, 20_000)),
            "known_at": now,
            "known_until": None,
        }
        standing[order] = version
        versions.append(version)
    frame = pd.DataFrame(versions)
    return frame.assign(known_until=pd.to_datetime(frame["known_until"], utc=True).astype("datetime64[us, UTC]"))


def make_returns(seed: int, n: int = 150, customers: int = 12, days: int = 130) -> pd.DataFrame:
    """Versions of returns, of which some end: raised, deleted, or their order went to another customer."""
    random = np.random.default_rng(seed)
    known = [datetime(1998, 1, 1, tzinfo=UTC) + timedelta(minutes=int(m)) for m in random.integers(0, days * 1440, n)]
    ends = [k + timedelta(days=int(random.integers(0, 60))) if random.random() < 0.4 else None for k in known]
    frame = pd.DataFrame(
        {
            "customer_id": random.integers(1, customers + 1, n).astype("int64"),
            "cents": random.integers(1, 20_000, n).astype("int64"),
            "returned_on": [k.date() - timedelta(days=int(random.integers(0, 100))) for k in known],
            "known_at": known,
        }
    )
    return frame.assign(known_until=pd.to_datetime(pd.Series(ends), utc=True).astype("datetime64[us, UTC]"))


def expect_naive(found: pd.DataFrame, history: pd.DataFrame, customers: list[int], returns: pd.DataFrame) -> None:
    """Every row of every day is what a loop over the versions that counted at its end comes to."""
    assert len(found) == len(customers) * found["snapshot_date"].nunique()
    for row in found.to_dict("records"):
        end = clock.end_of(row["snapshot_date"])
        counted, back = (
            [
                version
                for version in versions.to_dict("records")
                if version["customer_id"] == row["customer_id"]
                and version["known_at"] < end
                and (pd.isna(version["known_until"]) or version["known_until"] >= end)
            ]
            for versions in (history, returns)
        )
        for name, expected in Naive(counted, row["snapshot_date"], back).row().items():
            where = (row["snapshot_date"], row["customer_id"], name)
            if expected is None:
                assert row[name] is None or math.isnan(row[name]), where
            else:
                assert row[name] == expected, where


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
        base = as_base(whole, base_day)
        carried = snapshots(orders, [day], base, base_day)
        expected = whole[whole["snapshot_date"] == day].reset_index(drop=True)
        pd.testing.assert_frame_equal(carried, expected)

    @pytest.mark.parametrize("seed", range(5))
    def test_corrected_deleted_and_reused_orders_and_returns_count_as_known_on_each_day(self, seed: int) -> None:
        """Carried on from day to day and from the first order on, both are the naive loop's."""
        history, back = make_history(seed), make_returns(seed)
        customers = sorted(set(history["customer_id"]))
        days = [FIRST + timedelta(days=d) for d in (40, 41, 48, 120, 129)]
        whole = snapshots(history, days, returns=back)
        assert whole["returned_cents_90d"].gt(0).mean() > 0.5
        expect_naive(whole, history, customers, back)
        carried = whole[whole["snapshot_date"] == days[0]]
        for before, day in pairwise(days):
            rows = snapshots(history, [day], as_base(carried, before), before, back)
            expected = whole[whole["snapshot_date"] == day].reset_index(drop=True)
            pd.testing.assert_frame_equal(rows, expected)
            carried = rows

    def test_a_history_cut_at_a_moment_does_not_know_what_ended_later(self) -> None:
        history = make_history(seed=9)
        day, later = FIRST + timedelta(days=60), FIRST + timedelta(days=129)
        session = spark.session()
        known = hindsight.cut(session.createDataFrame(history), clock.end_of(day)).toPandas()
        assert len(known) < len(history)
        assert (known["known_until"].dropna() < pd.Timestamp(clock.end_of(day)).tz_localize(None)).all()
        expected = snapshots(history, [day, later])
        cut = history[history["known_at"] < clock.end_of(day)]
        cut = cut.assign(known_until=cut["known_until"].where(cut["known_until"] < clock.end_of(day)))
        of_day = expected[expected["snapshot_date"] == day]
        found = snapshots(cut, [day])
        shared = of_day[of_day["customer_id"].isin(found["customer_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, shared)

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


def test_snapshot_days_are_weekly_in_the_first_run_and_daily_from_then_on() -> None:
    first, as_of = date(1997, 1, 1), date(1998, 6, 29)
    backfill = job.snapshot_days(None, first, as_of)
    assert (backfill[0], backfill[-1], len(backfill)) == (first, as_of, 79)
    assert date(1998, 4, 1) in backfill, "the last day whose 90 days of outcomes are known"
    assert job.snapshot_days(as_of, as_of, date(1998, 6, 30)) == [date(1998, 6, 30)]
    skipped = job.snapshot_days(date(1998, 6, 17), first, date(1998, 6, 29))
    assert skipped == [date(1998, 6, day) for day in range(18, 30)], "a run covers each day since the newest snapshot"


def test_the_longest_window_is_read_off_the_definition() -> None:
    assert job.longest_window(job.SQL.read_text()) == 90
    assert job.longest_window("date_sub(s.snapshot_date, 365) DATE_SUB( snapshot_date ,7)") == 365
    assert job.longest_window("SELECT 1") == 0
