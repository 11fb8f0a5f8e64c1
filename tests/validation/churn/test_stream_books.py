"""The gate `events_complete` over a made-up stream: right days pass, each fault is named by batch and offset."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.state import erasures
from plumbline.state.releases import Release
from products.churn import ACTIVITY
from tests import made_up_stream
from tests.made_up_stream import DAY, EVENTS, FIRST, Stream
from validation.churn import stream_books

pytestmark = pytest.mark.usefixtures("home")

BATCH = "0b8f/14"
"""The second one of DAY."""


def judged(stream: Stream, base: Release | None = None) -> StageRun:
    """The run of DAY with its verdict, and what the gate says when it fails as the run's fact `refused`."""
    stream.write()
    run = made_up_stream.run_of(base)
    window = stream_books.take(run, ACTIVITY)
    assert window is not None
    try:
        stream_books.check(run, window)
    except GateFailed as failure:
        run.facts |= {"refused": str(failure), "sets_aside": failure.sets_aside}
    return run


def released(stream: Stream) -> Release:
    """The release of FIRST, with what its run found."""
    stream.of(FIRST).write()
    run = made_up_stream.run_of(day=FIRST)
    window = stream_books.take(run, ACTIVITY)
    assert window is not None
    stream_books.check(run, window)
    tables = {**run.named, "raw.orders": 0}
    return Release(1, "churn", FIRST, None, tables, dict(run.gates), "code", "lock", "test", "now")


def test_each_message_of_both_days_is_accounted_for(home: Path) -> None:
    run = judged(made_up_stream.days())
    gate = run.gates["events_complete"]
    assert gate.passed and "refused" not in run.facts
    assert (gate.extra["batches"], gate.extra["messages"], gate.extra["landed"]) == (24, 292, 288)
    assert (gate.extra["duplicates"], gate.extra["dead_letters"]) == (2, 2)
    assert gate.extra["until"] == {"shop.orders/0": 146, "shop.orders/1": 146}
    evidence = json.loads((home / "evidence" / "churn-1998-06-30" / "events_complete.json").read_text())
    assert evidence["versions"] == dict.fromkeys(run.named, 0) and len(run.named) == 4
    assert evidence["window"] == {"since": None, "until": "1998-06-30T23:00:01+00:00"}


def test_a_second_day_judges_its_own_batches_and_goes_on_where_the_release_ended() -> None:
    stream = made_up_stream.days()
    base = released(stream)
    run = judged(stream.of(DAY), base)
    gate = run.gates["events_complete"]
    assert (gate.passed, gate.extra["batches"], gate.extra["messages"]) == (True, 12, 146)
    assert gate.extra["until"] == {"shop.orders/0": 146, "shop.orders/1": 146}


def test_batches_of_the_next_day_and_what_is_not_booked_yet_are_not_judged() -> None:
    stream = made_up_stream.days()
    following = made_up_stream.days((FIRST, DAY, DAY + timedelta(days=1))).of(DAY + timedelta(days=1))
    following.events = following.events[:-1]  # the day after has a fault of its own
    stream.write()
    following.write()
    at_work = dict(stream.events[-1], event_id="new", offset=999, batch="0b8f/99")
    Stream(events=[{**at_work, "known_at": datetime(1998, 7, 1, 23, 30, tzinfo=UTC)}]).write()
    gate = judged(Stream()).gates["events_complete"]
    assert (gate.passed, gate.extra["batches"]) == (True, 24)


def test_an_offset_that_no_batch_read_is_named_across_the_release_too() -> None:
    stream = made_up_stream.days()
    base = released(stream)
    rest = stream.of(DAY)
    gone = rest.books.pop(0)
    rest.events = [row for row in rest.events if (row["batch"], row["partition"]) != (gone["batch"], 0)]
    refused = judged(rest, base).facts["refused"]
    assert (
        f"{BATCH}: shop.orders partition 0: begins at offset 79, the batches before it end at 73: 6 offsets were read "
        "by none"
    ) in refused


def twice(stream: Stream) -> str:
    again = dict(stream.events[-1], offset=stream.events[-2]["offset"] + 40)
    stream.events.append(again)
    return f"event {again['event_id']} landed 2 times: shop.orders 1 offset 145, shop.orders 1 offset 184"


def same_offset(stream: Stream) -> str:
    stream.events.append(dict(stream.events[-1], event_id="another"))
    return "shop.orders partition 1 offset 145 is in raw 2 times"


def lost_event(stream: Stream) -> str:
    gone = stream.events.pop(-1)
    return f"{gone['batch']}: shop.orders partition 1: raw.order_events has 5 rows, the books say 6 landed"


def lost_dead_letter(stream: Stream) -> str:
    gone = stream.dead_letters.pop(-1)
    return f"{gone['batch']}: shop.orders partition 1: raw.order_dead_letters has 0 rows, the books say 1 dead_letters"


def miscounted(stream: Stream) -> str:
    row = stream.books[-1]
    row["duplicates"] += 1
    return f"{row['batch']}: shop.orders partition 1: 6 messages, and 6 landed + 1 duplicates + 0 dead letters"


def absent(stream: Stream) -> str:
    stream.books[-1]["until_offset"] += 2
    return "offsets 140 to 148 are 8, and 6 messages + 0 absent"


def clock_back(stream: Stream) -> str:
    batch = stream.books[-1]["batch"]
    for rows in (stream.books, stream.events, stream.dead_letters):
        for row in rows:
            if row["batch"] == batch:
                row["known_at"] -= timedelta(hours=3)
    return f"{batch}: its known_at is not behind that of the batch before it, of query 0b8f"


def one_instant(stream: Stream) -> str:
    batch = stream.books[-1]["batch"]
    for rows in (stream.books, stream.events, stream.dead_letters):
        for row in rows:
            if row["batch"] == batch:
                row["known_at"] -= timedelta(hours=2)
    return "0b8f/23, 0b8f/24: all have the known_at 1998-06-30 21:00:00"


def unbooked(stream: Stream) -> str:
    stream.events.append(dict(stream.events[-1], event_id="stray", offset=900, batch="other/1"))
    return "other/1: shop.orders partition 1: raw.order_events has 1 rows, the books say 0 landed"


def other_instant(stream: Stream) -> str:
    stream.events[-1]["known_at"] -= timedelta(minutes=1)
    return "0b8f/24: shop.orders partition 1: raw.order_events has 1 rows, the books say 0 landed"


def booked_twice(stream: Stream) -> str:
    stream.books.append(dict(stream.books[-1]))
    return "0b8f/24: stands in the books twice for one partition"


@pytest.mark.parametrize(
    "fault",
    [
        twice,
        same_offset,
        lost_event,
        lost_dead_letter,
        miscounted,
        absent,
        clock_back,
        one_instant,
        unbooked,
        other_instant,
        booked_twice,
    ],
)
def test_a_fault_is_named(fault: Callable[[Stream], str]) -> None:
    stream = made_up_stream.days()
    told = fault(stream)
    run = judged(stream)
    assert told in run.facts["refused"]
    assert not run.gates["events_complete"].passed
    assert "nothing is published" in run.facts["refused"]
    assert not run.facts["sets_aside"]


def test_an_event_that_had_landed_on_a_day_before_is_named() -> None:
    stream = made_up_stream.days()
    base, rest = released(stream), stream.of(DAY)
    rest.events[-1]["event_id"] = stream.events[0]["event_id"]
    told = f"event {stream.events[0]['event_id']} landed again: it had landed before 1998-06-30 00:00:00 UTC"
    assert told in judged(rest, base).facts["refused"]


def test_what_was_read_again_is_duplicates_and_no_gap() -> None:
    stream = made_up_stream.days()
    known = {"known_at": datetime(1998, 6, 30, 23, 30, tzinfo=UTC), "known_date": DAY, "batch": "0b90/0"}
    again = {"topic": "shop.orders", "partition": 0, "from_offset": 0, "until_offset": 146, "messages": 146}
    stream.books.append({**again, "landed": 0, "duplicates": 146, "dead_letters": 0, "absent": 0, **known})
    gate = judged(stream).gates["events_complete"]
    assert (gate.passed, gate.extra["duplicates"]) == (True, 148)


def test_what_the_broker_deleted_before_it_landed_is_said_and_no_gap(capsys: pytest.CaptureFixture[str]) -> None:
    stream = made_up_stream.days()
    (row,) = [row for row in stream.books if (row["batch"], row["partition"]) == (BATCH, 0)]
    stream.events = [event for event in stream.events if (event["batch"], event["partition"]) != (BATCH, 0)]
    lost = {"batch": "0b8f/lost", "messages": 0, "landed": 0, "absent": 6}
    row |= {**lost, "known_at": row["known_at"] - timedelta(minutes=1)}
    gate = judged(stream).gates["events_complete"]
    assert (gate.passed, gate.extra["absent"]) == (True, 6)
    assert "shop.orders partition 0: 6 messages from offset 79 on are lost" in capsys.readouterr().err


def test_a_customer_who_was_erased_leaves_fewer_events_than_the_books_say_and_no_more() -> None:
    stream = made_up_stream.days()
    stream.of(FIRST).write()
    lake.opened(EVENTS).delete("customer_id = 3")
    erasures.record(EVENTS, unreadable={0: "1998-06-29"})
    rest = stream.of(DAY)
    gate = judged(rest).gates["events_complete"]
    assert gate.passed
    lost = rest.events[-1]
    lake.opened(EVENTS).delete(f"event_id = '{lost['event_id']}'")
    run = judged(Stream())
    assert f"{lost['batch']}: shop.orders partition 1: raw.order_events has 5 rows" in run.facts["refused"]


def test_a_stream_of_dead_letters_alone_is_complete() -> None:
    stream = made_up_stream.days((DAY,))
    only = Stream(dead_letters=stream.dead_letters, books=[row for row in stream.books if row["dead_letters"]])
    (row,) = only.books
    row.update(landed=0, messages=1, from_offset=row["until_offset"] - 1)
    gate = judged(only).gates["events_complete"]
    assert (gate.passed, gate.extra["messages"], gate.extra["dead_letters"]) == (True, 1, 1)
