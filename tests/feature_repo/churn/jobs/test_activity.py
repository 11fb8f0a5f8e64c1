"""The one definition of a customer's activity, on real Spark, against a naive loop over the same events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from feature_repo.churn.jobs import activity as job
from plumbline import clock
from plumbline.lake import spark

NOON = datetime(1998, 6, 20, 12, tzinfo=UTC)
HOUR, DAY, MICROSECOND = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
HORIZONS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY}
EVENTS = (
    "customer_id BIGINT, event_time TIMESTAMP, known_at TIMESTAMP, total_cents BIGINT, known_date DATE, batch STRING"
)

Pair = tuple[int, datetime]


def event(customer: int, placed: datetime, known: datetime, cents: int) -> dict[str, Any]:
    return {"customer_id": customer, "event_time": placed, "known_at": known, "total_cents": cents}


def naive(events: list[dict[str, Any]], customer: int, at: datetime) -> dict[str, Any]:
    known = [e for e in events if e["customer_id"] == customer and e["known_at"] <= at]
    row: dict[str, Any] = {}
    for name, length in HORIZONS.items():
        within = [e for e in known if e["event_time"] > at - length]
        row |= {f"orders_{name}": len(within), f"spend_cents_{name}": sum(e["total_cents"] for e in within)}
    newest = [e["event_time"] for e in known if e["event_time"] > at - job.WINDOW]
    return row | {"last_order_second": int(max(newest).timestamp() // 1) if newest else None}


def computed(events: list[dict[str, Any]], asked: list[Pair], at: datetime | None = None) -> dict[Pair, dict[str, Any]]:
    session = spark.session()
    table = [
        (*(e[n] for n in ("customer_id", "event_time", "known_at", "total_cents")), e["known_at"].date(), "b")
        for e in events
    ]
    pairs = session.createDataFrame(asked, "customer_id BIGINT, known_at TIMESTAMP")
    frame = job.rows(session, session.createDataFrame(table, EVENTS), pairs, at)
    assert frame.columns == ["customer_id", "event_time", *job.FEATURES]
    kinds = dict(frame.dtypes)
    assert {kinds[name] for name in job.FEATURES} == {"int", "bigint"}
    rows = [row.asDict() for row in frame.collect()]
    found = {(row.pop("customer_id"), clock.in_utc(row.pop("event_time"))): row for row in rows}
    assert len(found) == len(rows), "a pair has one row"
    return found


@pytest.mark.usefixtures("with_spark")
def test_a_window_is_open_at_its_far_end_and_closed_at_its_instant() -> None:
    """An order placed exactly a window ago is out, a microsecond later it is in; known at the instant it counts."""
    events = [
        *(event(1, NOON - length, NOON, 1) for length in HORIZONS.values()),
        *(event(2, NOON - length + MICROSECOND, NOON, 10) for length in HORIZONS.values()),
        event(3, NOON - HOUR, NOON + timedelta(seconds=1), 100),
        event(4, NOON + timedelta(minutes=5), NOON, 1000),
    ]
    found = computed(events, [(customer, NOON) for customer in (1, 2, 3, 4, 5)], NOON)
    orders = {customer: tuple(found[customer, NOON][f"orders_{name}"] for name in HORIZONS) for customer in range(1, 6)}
    assert orders == {1: (0, 1, 2), 2: (1, 2, 3), 3: (0, 0, 0), 4: (1, 1, 1), 5: (0, 0, 0)}
    spent = {customer: found[customer, NOON]["spend_cents_7d"] for customer in range(1, 6)}
    assert spent == {1: 2, 2: 30, 3: 0, 4: 1000, 5: 0}
    seconds = {customer: found[customer, NOON]["last_order_second"] for customer in range(1, 6)}
    at = int(NOON.timestamp())
    assert seconds == {1: at - 3600, 2: at - 3600, 3: None, 4: at + 300, 5: None}


@pytest.mark.usefixtures("with_spark")
def test_it_is_what_a_loop_over_all_events_gives_late_ones_and_ties_among_them() -> None:
    """Three weeks of events, a quarter late by up to nine days, some at one and the same moment; asked at many
    instants, twice about one, and about customers without any event."""
    random = np.random.default_rng(1997)
    events = []
    for _ in range(1_500):
        placed = NOON - timedelta(seconds=int(random.integers(0, 21 * 86_400)), microseconds=int(random.integers(0, 3)))
        late = timedelta(seconds=int(random.integers(0, 9 * 86_400))) if random.random() < 0.25 else timedelta(0)
        known = (placed + late).replace(microsecond=0) + timedelta(seconds=1)
        events += [event(int(random.integers(1, 30)), placed, known, int(random.integers(0, 10_000)))]
    events += [{**each, "total_cents": 7} for each in events[:200]]
    instants = [NOON, *(NOON - timedelta(seconds=int(random.integers(0, 21 * 86_400))) for _ in range(12))]
    instants += [events[0]["known_at"], events[1]["known_at"] - timedelta(seconds=1)]
    asked = [(customer, instant) for instant in instants for customer in (*range(1, 30), 77)]
    found = computed(events, [*asked, asked[0]])
    assert found == {pair: naive(events, *pair) for pair in asked}
    one = [pair for pair in asked if pair[1] == NOON]
    assert computed(events, one, NOON) == {pair: found[pair] for pair in one}, "as the stream asks"


@pytest.mark.usefixtures("with_spark")
def test_nobody_asked_about_is_no_row() -> None:
    assert computed([event(1, NOON, NOON, 1)], []) == {}


def test_a_scan_opens_the_days_of_the_window_and_no_others() -> None:
    """Eight days and five minutes back from 00:03 is a day more than from noon: an event may be placed after it was
    known."""
    assert job.needed(NOON, NOON + DAY) == (
        "known_date >= DATE '1998-06-13' AND known_date <= DATE '1998-06-21' AND event_time >= TIMESTAMP '1998-06-13'"
    )
    early = NOON.replace(hour=0, minute=3)
    assert job.needed(early, early).startswith("known_date >= DATE '1998-06-12' AND known_date <= DATE '1998-06-20'")
    assert job.needed(None, None) == "false"
