"""The gate `orders_reconciled` over a made-up stream and the shop's orders as they landed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.pipeline.stage import StageRun
from plumbline.state.acceptances import accept
from products.churn import ACTIVITY, CHURN
from tests import made_up_stream
from tests.made_up_stream import DAY, FIRST, Stream
from validation.churn import orders_reconciled, stream_books
from validation.churn.orders_reconciled import GATE

pytestmark = pytest.mark.usefixtures("home")

ORDERS = 144
"""The orders of a day: 1 % of them is one."""


def judged(stream: Stream, day: Any = DAY) -> StageRun:
    stream.write()
    run = made_up_stream.run_of(day=day)
    assert stream_books.take(run, ACTIVITY) is not None
    try:
        orders_reconciled.check(run)
    except GateFailed as failure:
        run.facts |= {"refused": str(failure), "sets_aside": failure.sets_aside}
    return run


def orders_of(stream: Stream) -> list[dict[str, Any]]:
    return [row for row in stream.orders if row["order_date"] == DAY]


def test_the_same_orders_on_both_sides_pass(home: Path) -> None:
    gate = judged(made_up_stream.days()).gates[GATE]
    assert (gate.passed, gate.failed, gate.extra["told"]) == (True, (), [])
    assert (gate.extra["orders"], gate.extra["events"]) == (2 * ORDERS, 2 * ORDERS)
    evidence = json.loads((home / "evidence" / "churn-1998-06-30" / "orders_reconciled.json").read_text())
    assert (evidence["findings"], evidence["versions"]["raw.order_events"]) == ([], 0)


def without_events(stream: Stream) -> str:
    gone = [row["order_id"] for row in orders_of(stream)[-2:]]
    stream.events = [row for row in stream.events if row["order_id"] not in gone]
    return f"1998-06-30: 2 of 144 orders in raw.orders have no event, 1.4%, at most 1%: order_id {gone[0]}, {gone[1]}"


def without_orders(stream: Stream) -> str:
    gone = [row["order_id"] for row in orders_of(stream)[-7:]]
    stream.orders = [row for row in stream.orders if row["order_id"] not in gone]
    some = ", ".join(map(str, sorted(gone)[:5]))
    return f"7 of 144 orders of events are not in raw.orders, 4.9%, at most 1%: order_id {some} …"


def another_amount(stream: Stream) -> str:
    rows = orders_of(stream)[:2]
    rows[0]["total_cents"] += 1
    rows[1]["customer_id"] += 1
    ids = ", ".join(str(row["order_id"]) for row in rows)
    return (
        "2 of 144 orders differ in customer_id, units, total_cents, or have several events, 1.4%, at most 1%: "
        f"order_id {ids}"
    )


def under_new_ids(stream: Stream) -> str:
    again = [row for row in stream.events if row["order_id"] in [row["order_id"] for row in orders_of(stream)[:2]]]
    stream.events += [dict(row, event_id=f"new {n}", offset=900 + n) for n, row in enumerate(again)]
    return "2 of 144 orders differ in customer_id, units, total_cents, or have several events"


FAULTS = [without_events, without_orders, another_amount, under_new_ids]


@pytest.mark.parametrize("fault", FAULTS)
def test_orders_that_only_one_side_has_are_named(fault: Callable[[Stream], str]) -> None:
    stream = made_up_stream.days()
    told = fault(stream)
    run = judged(stream)
    assert told in run.facts["refused"]
    assert "`plumb gate accept orders_reconciled --as-of 1998-06-30 --why …`" in run.facts["refused"]
    assert not run.gates[GATE].passed
    assert run.facts["sets_aside"], "orders that the shop mends have to land anew"


def test_one_order_of_144_is_told_and_stops_nothing() -> None:
    stream = made_up_stream.days()
    gone = orders_of(stream)[-1]["order_id"]
    stream.events = [row for row in stream.events if row["order_id"] != gone]
    gate = judged(stream).gates[GATE]
    assert gate.passed
    assert gate.extra["told"] == [
        f"1998-06-30: 1 of 144 orders in raw.orders have no event, 0.7%, at most 1%: order_id {gone}"
    ]


def test_the_day_on_which_the_stream_began_is_told_and_not_judged() -> None:
    stream = made_up_stream.days((DAY,))
    stream.events = [row for row in stream.events if row["known_at"] > clock.end_of(FIRST) + timedelta(hours=12)]
    stream.books = [row for row in stream.books if row["known_at"] > clock.end_of(FIRST) + timedelta(hours=12)]
    gate = judged(stream).gates[GATE]
    assert gate.passed
    (told,) = gate.extra["told"]
    assert told.startswith("1998-06-30: 72 of 144 orders in raw.orders have no event")
    assert told.endswith("; the stream began on that day, not judged")


def test_of_few_orders_a_difference_is_told_alone() -> None:
    stream = made_up_stream.days()
    few = [row["order_id"] for row in orders_of(stream)[:20]]
    early = {row["order_id"] for row in stream.of(FIRST).orders}
    stream.orders = [row for row in stream.orders if row["order_id"] in {*few[1:], *early}]
    stream.events = [row for row in stream.events if row["order_id"] in {*few, *early}]
    gate = judged(stream).gates[GATE]
    assert gate.passed
    assert gate.extra["told"] == [
        f"1998-06-30: 1 of 20 orders of events are not in raw.orders, 5.0%, at most 1%: order_id {few[0]}; too few "
        "orders to be judged"
    ]


def test_an_order_counts_by_its_newest_version_and_a_deleted_one_is_not_compared() -> None:
    stream = made_up_stream.days()
    corrected, deleted, later = orders_of(stream)[:2], orders_of(stream)[2:6], orders_of(stream)[6:8]
    for row in corrected:
        row["units"] += 1
    evening = datetime.combine(DAY, datetime.min.time(), clock.now().tzinfo) + timedelta(hours=20)
    newest = {"known_at": evening, "loaded_at": evening, "recorded_at": evening}
    stream.orders += [dict(row, units=row["units"] - 1, **newest) for row in corrected]
    stream.orders += [dict(row, deleted_at=evening, **newest) for row in deleted]
    next_day = {"known_at": clock.end_of(DAY), "loaded_at": clock.end_of(DAY)}
    stream.orders += [dict(row, units=99, **next_day) for row in later]
    gate = judged(stream).gates[GATE]
    assert (gate.passed, gate.extra["told"]) == (True, [])


def test_a_batch_that_was_set_aside_does_not_count() -> None:
    stream = made_up_stream.days()
    stream.orders += [dict(row, units=99, batch_id="bad", loaded_at=clock.now()) for row in orders_of(stream)[:9]]
    stream.write()
    run = made_up_stream.run_of()
    run.candidate.rejected = ["bad"]
    stream_books.take(run, ACTIVITY)
    assert orders_reconciled.check(run).extra["told"] == []


def test_an_acceptance_lets_the_day_through_and_the_release_will_say_why() -> None:
    stream = made_up_stream.days()
    told = without_events(stream)
    accept(CHURN, GATE, DAY, "the outbox was off for a minute", by="me")
    gate = judged(stream).gates[GATE]
    assert gate.passed and gate.accepted is not None and gate.accepted.why == "the outbox was off for a minute"
    assert gate.failed == (told,)
