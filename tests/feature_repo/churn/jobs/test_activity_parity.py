"""The gate `activity_parity` on real Spark: what the stream wrote against the batch, fault by fault."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from feature_repo.churn.jobs import activity, activity_parity
from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from products.churn import APPENDED
from tests import made_up_stream
from tests.made_up_stream import DAY, FIRST, Row, Stream

pytestmark = pytest.mark.usefixtures("with_spark")

SINCE, UNTIL = clock.end_of(FIRST), clock.end_of(DAY)


def judged(stream: Stream, *, whole: bool = False) -> StageRun:
    """The run of DAY with its verdict; what the gate said when it failed is its fact `refused`."""
    stream.write()
    run = made_up_stream.run_of()
    for table in APPENDED:
        run.take(table, lake.version(table) or 0)
    try:
        activity_parity.check(run, None if whole else SINCE, UNTIL)
    except GateFailed as failure:
        run.facts |= {"refused": str(failure), "sets_aside": failure.sets_aside}
    return run


def test_the_stream_is_what_the_batch_makes_for_every_customer_and_instant(home: Path) -> None:
    stream = made_up_stream.days()
    gate = judged(stream).gates["activity_parity"]
    rows = len(stream.of(DAY).activity)
    assert (gate.passed, gate.extra["rows"], gate.extra["differences"]) == (True, rows, {})
    assert rows == 144
    assert gate.extra["in_plain_python"] == 80, "20 customers at 4 instants"
    evidence = json.loads((home / "evidence" / "churn-1998-06-30" / "activity_parity.json").read_text())
    assert evidence["window"] == {"since": "1998-06-30T00:00:00+00:00", "until": "1998-07-01T00:00:00+00:00"}
    late = [row for row in stream.events if row["known_at"] - row["event_time"] == made_up_stream.LATE]
    assert len(late) > 20, "late events are among them"
    assert judged(Stream(), whole=True).gates["activity_parity"].extra["rows"] == len(stream.activity)


def wrong_sum(stream: Stream, row: Row) -> list[str]:
    right = row["spend_cents_24h"]
    row["spend_cents_24h"] += 1
    return [
        f"at 1998-06-30 23:00:00: spend_cents_24h is {right + 1} by the stream, {right} by the batch",
        f"as of 1998-06-30 23:00:00: spend_cents_24h is {right + 1} by the stream, {right} by plain Python",
    ]


def lacking(stream: Stream, row: Row) -> list[str]:
    stream.activity.remove(row)
    return [
        "at 1998-06-30 23:00:00: the row lacks, and an event of theirs landed then",
        "as of 1998-06-30 23:00:00: the newest row is of 1998-06-30",
    ]


def too_many(stream: Stream, row: Row) -> list[str]:
    stream.activity.append(dict(row, event_time=row["event_time"] - timedelta(minutes=7)))
    return ["at 1998-06-30 22:53:00: the row is too many"]


def twice(stream: Stream, row: Row) -> list[str]:
    stream.activity.append(dict(row))
    return ["at 1998-06-30 23:00:00: the row is there twice"]


def null_for_a_second(stream: Stream, row: Row) -> list[str]:
    second, row["last_order_second"] = row["last_order_second"], None
    return [f"at 1998-06-30 23:00:00: last_order_second is None by the stream, {second} by the batch"]


def knows_the_future(stream: Stream) -> str:
    """A row that counts an event of a batch behind it, which was placed before it."""
    row, event = next(
        (row, event)
        for row in stream.of(DAY).activity
        for event in stream.events
        if event["customer_id"] == row["customer_id"] and event["event_time"] < row["event_time"] < event["known_at"]
    )
    assert event["known_at"] - event["event_time"] == made_up_stream.LATE
    count = row["orders_7d"]
    row["orders_7d"] += 1
    at = f"{row['event_time']:%Y-%m-%d %H:%M:%S}"
    return f"customer {row['customer_id']} at {at}: orders_7d is {count + 1} by the stream, {count} by the batch"


FAULTS = (wrong_sum, lacking, too_many, twice, null_for_a_second)


def test_each_row_that_is_not_what_its_events_come_to_is_named(home: Path) -> None:
    stream = made_up_stream.days()
    newest = stream.activity[-len(FAULTS) :]
    phrases = [knows_the_future(stream)]
    for row, fault in zip(newest, FAULTS, strict=True):
        phrases += [f"customer {row['customer_id']} {told}" for told in fault(stream, row)]
    run = judged(stream)
    gate = run.gates["activity_parity"]
    found = json.loads((home / "evidence" / "churn-1998-06-30" / "activity_parity.json").read_text())["found"]
    for told in phrases:
        assert any(told in one for one in found), told
    batch = {"differs": 3, "is there twice": 2, "is too many": 1, "lacks": 1}
    assert batch.items() <= gate.extra["differences"].items()
    assert (gate.passed, run.facts["sets_aside"]) == (False, False)
    assert found[0] in run.facts["refused"] and "nothing is published" in run.facts["refused"]


def test_a_mistake_of_the_definition_itself_is_seen_by_plain_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stream and batch share one SQL: with a window of 23 hours both agree, and both are wrong."""
    changed, sql = tmp_path / "activity.sql", activity.SQL.read_text()
    assert sql.count("INTERVAL '24' HOUR") == 1
    changed.write_text(sql.replace("INTERVAL '24' HOUR", "INTERVAL '23' HOUR"))
    stream = made_up_stream.days()
    monkeypatch.setitem(made_up_stream.HORIZONS, "24h", timedelta(hours=23))
    for row in stream.activity:
        known = {name: row[name] for name in ("batch", "known_date")} | {"known_at": row["event_time"]}
        row |= made_up_stream.activity_row(stream.events, row["customer_id"], known)
    monkeypatch.setattr(activity, "SQL", changed)
    run = judged(stream)
    assert set(run.gates["activity_parity"].extra["differences"]) == {"differs in plain Python"}
    assert "orders_24h is" in run.facts["refused"] and "by plain Python" in run.facts["refused"]
