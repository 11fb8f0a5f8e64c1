"""Every real day of CDNOW passes the distribution gates but one, and the worst values are those in thresholds.yaml."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline.contracts import contract as contracts
from plumbline.errors import SettingsError
from plumbline.lake.distributions import psi
from tests.validation.churn import real_shop
from validation import shifts
from validation.churn import thresholds, volume
from validation.churn.distribution_check import KEY_COLUMNS, judge

LIMITS = thresholds.load()
FIRST, WEEK = real_shop.FIRST, timedelta(days=7)
INTAKE_ENDS = date(1997, 3, 26)
"""CDNOW's file holds the customers who first bought up to the day before."""


def shares() -> list[tuple[float, float, date]]:
    """Each day's orders as shares of the least and the greatest expectation, as a daily run sees them."""
    counts = real_shop.daily_counts()
    found = []
    for number, day in enumerate(real_shop.days()):
        if expected := volume.expected(counts[: number + 1], number):
            found.append((counts[number] / expected[0], counts[number] / expected[1], day))
    return found


def test_of_all_real_days_one_breaks_the_volume_in_a_daily_run() -> None:
    found, limits = shares(), LIMITS.orders_volume
    assert [day for low, _, day in found if low < limits.lowest_share.value] == [INTAKE_ENDS]
    low, _, lowest = min(item for item in found if item[2] != INTAKE_ENDS)
    assert (round(low, 3), lowest) == (limits.lowest_share.worst_real, limits.lowest_share.seen)
    _, high, highest = max(found, key=lambda item: item[1])
    assert (round(high, 2), highest) == (limits.highest_share.worst_real, limits.highest_share.seen)
    counts = real_shop.daily_counts()
    assert counts.min() == limits.fewest_expected.worst_real == LIMITS.orders_shift.fewest_orders.worst_real
    assert counts.min() >= contracts.shop("orders").daily_rows == 1, "what CDNOW's contract promises of each day"


def test_in_a_backfill_no_real_day_breaks_the_volume_since_it_sees_the_days_after() -> None:
    looked, findings = judge(real_shop.orders(), {}, None, real_shop.LAST, LIMITS)
    assert looked["orders_volume"] == 2 * len(real_shop.days())
    assert findings == []


def test_a_backfill_of_any_length_passes_but_for_the_one_day() -> None:
    for last in real_shop.days(date(1997, 1, 15))[:80]:
        _, findings = judge(real_shop.orders(last), {}, None, last, LIMITS)
        others = [item.told for item in findings if f"{INTAKE_ENDS} brought" not in item.told]
        assert [told for told in others if told.startswith("orders_volume")] == [], last


def test_every_missing_day_is_caught_and_most_half_ones() -> None:
    found = [(low, day) for low, _, day in shares() if day > INTAKE_ENDS + WEEK]
    limit = LIMITS.orders_volume.lowest_share.value
    assert len(found) == 454
    assert all(low * 0 < limit for low, _ in found)
    assert np.mean([low / 2 < limit for low, _ in found]) > 0.64


@pytest.mark.parametrize("day", [date(1997, 1, 9), date(1997, 3, 26), date(1997, 12, 25), date(1998, 6, 29)])
def test_a_day_that_is_missing_in_the_middle_of_a_backfill_is_caught(day: date) -> None:
    orders = real_shop.orders()
    _, findings = judge(orders[orders["known_on"] != day], {}, None, real_shop.LAST, LIMITS)
    assert [(item.gate, item.found, item.rows) for item in findings] == [("orders_volume", 0.0, 0)]
    assert f"{day} brought 0 orders, 0% of the " in findings[0].told


def test_every_real_day_as_a_daily_run_passes_but_the_one() -> None:
    stopped = set()
    for day in real_shop.days(date(1997, 1, 15)):
        orders = real_shop.orders(day, day - timedelta(days=80))
        _, findings = judge(orders, {}, day, day, LIMITS)
        stopped |= {(finding.gate, day) for finding in findings}
    assert stopped == {("orders_volume", INTAKE_ENDS)}


def test_the_day_with_most_repeated_orders_is_as_written_and_a_day_sent_twice_is_caught() -> None:
    everything = real_shop.orders()
    again = everything.duplicated(["customer_id", "order_date", "units", "total_cents"])
    share = again.groupby(everything["order_date"]).mean()
    limit = LIMITS.orders_repeated.share
    assert (round(share.max(), 3), share.idxmax()) == (limit.worst_real, limit.seen)
    day = date(1997, 10, 7)
    orders = real_shop.orders(day, day - timedelta(days=80))
    copies = orders[orders["known_on"] == day].assign(order_id=lambda rows: rows["order_id"] + 5_000_000)
    _, findings = judge(pd.concat([orders, copies], ignore_index=True), {}, day, day, LIMITS)
    assert [item.gate for item in findings] == ["orders_repeated"]
    assert findings[0].rows == len(copies) + 3, "three of them honestly look like another"
    assert f"{len(copies) + 3} of {2 * len(copies)} new orders" in findings[0].told


@pytest.mark.parametrize("span", [1, 7])
def test_the_worst_real_shifts_of_orders_are_as_written(span: int) -> None:
    worst_ks, worst_psi, fewest = (0.0, FIRST), (0.0, FIRST), (10**6, FIRST)
    for day in real_shop.days(FIRST + timedelta(days=28 + span)):
        start = day - timedelta(days=span - 1)
        both = real_shop.orders(day, start - timedelta(days=28))
        new, before = both[both["order_date"] >= start], both[both["order_date"] < start]
        fewest = min(fewest, (len(new), day))
        for column in KEY_COLUMNS:
            was, now = before[column].to_numpy(float), new[column].to_numpy(float)
            worst_ks = max(worst_ks, (shifts.distance(was, now), day))
            if len(now) >= LIMITS.orders_shift.psi_fewest_orders.value:
                worst_psi = max(worst_psi, (psi(was, now), day))
    limits = LIMITS.orders_shift
    if span == 1:
        assert (round(worst_ks[0], 2), worst_ks[1]) == (limits.ks.worst_real, limits.ks.seen)
    else:
        assert (round(worst_psi[0], 2), worst_psi[1]) == (limits.psi.worst_real, limits.psi.seen)
        assert (fewest[0], fewest[1]) == (limits.psi_fewest_orders.worst_real, limits.psi_fewest_orders.seen)
        assert worst_ks[0] < limits.ks.value


def test_features_of_real_weeks_pass_from_the_first_day_that_is_judged() -> None:
    """Each third week, and the days of the worst real values."""
    worst = {"1997-04-03", "1997-04-07", "1997-04-11", "1997-04-13"}
    chosen = {date.fromisoformat(day) for day in worst} | set(real_shop.days(date(1997, 4, 3))[::21])
    everything = real_shop.orders()
    for day in sorted(chosen):
        known = everything[everything["known_on"] <= day]
        snapshots = {at: real_shop.snapshot(at) for at in (day, day - timedelta(days=1), day - WEEK)}
        looked, findings = judge(known, snapshots, day, day, LIMITS)
        assert looked["features_shift"] == 25, "12 features against two days, and the number of rows"
        assert findings == [], day


def test_the_worst_real_shifts_of_features_are_as_written() -> None:
    def moved(day: str, back: int, column: str) -> tuple[float, float]:
        at = date.fromisoformat(day)
        was, now = (real_shop.snapshot(then)[column].to_numpy(float) for then in (at - timedelta(days=back), at))
        return psi(was, now), shifts.missing(now) - shifts.missing(was)

    shift, nulls = LIMITS.features_shift, LIMITS.null_ratio
    assert round(moved(str(shift.psi_day.seen), 1, "orders_90d")[0], 4) == shift.psi_day.worst_real
    assert round(moved(str(shift.psi_week.seen), 7, "spend_cents_90d")[0], 3) == shift.psi_week.worst_real
    day, week = nulls.features_increase_day, nulls.features_increase_week
    assert round(moved(str(day.seen), 1, "avg_ticket_30d")[1], 4) == day.worst_real
    assert round(moved(str(week.seen), 7, "avg_ticket_30d")[1], 4) == week.worst_real


def test_each_limit_lies_behind_the_worst_real_value() -> None:
    lower = {"lowest_share", "lowest_rows", "fewest_expected", "fewest_orders", "fewest_customers"}
    either = {"psi_fewest_orders", "youngest_shop_days", "fewest_compared"}
    for gate in LIMITS:
        for name, limit in gate[1]:
            assert len(limit.why) > 50, name
            if name in lower:
                assert limit.value < limit.worst_real, name
            elif name not in either:
                assert limit.value > limit.worst_real, name


def test_a_limit_that_is_not_whole_is_named(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.yaml"
    file.write_text(thresholds.FILE.read_text().replace("ks:", "kz:", 1))
    with pytest.raises(SettingsError, match=r"orders_shift.ks: Field required; orders_shift.kz: Extra inputs"):
        thresholds.load(file)
    file.write_text("orders_volume: [")
    with pytest.raises(SettingsError, match="not YAML"):
        thresholds.load(file)
