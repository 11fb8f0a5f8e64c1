"""The daily stage `activity` in its run: what the release names, what undo and erasure leave alone, who waits."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from plumb.commands import activity
from plumbline.errors import NotYet
from plumbline.lake import tables as lake
from plumbline.pipeline import erased_rows, publish, stage, undo
from plumbline.pipeline.stage import Result, StageRun
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import candidates, ledger, releases
from products.churn import ACTIVITY, APPENDED, CHURN
from tests import made_up_stream
from tests.made_up_stream import BOOKS, DAY, EVENTS, FIRST, Stream
from validation.churn import stream_books

NEXT = DAY + timedelta(days=1)


def nothing(run: StageRun) -> str:
    return "nothing to do"


def landed(run: StageRun) -> str:
    if (version := lake.version("raw.orders")) is not None:
        run.write("raw.orders", version, 1)
    return "landed"


def close(day: date) -> Result:
    """The stages up to `activity`, of which only that one works."""
    for name in CHURN.daily_stages[: CHURN.daily_stages.index("activity")]:
        stage.perform(CHURN, name, day, landed if name == "ingest" else nothing)
    return stage.perform(CHURN, "activity", day, activity.close)


def publish_it(day: date) -> None:
    stage.perform(CHURN, "distribution_check", day, nothing)
    stage.perform(CHURN, "release", day, publish.publish)


def heads() -> dict[str, int | None]:
    return {table: lake.version(table) for table in APPENDED}


@pytest.mark.usefixtures("home")
def test_a_home_without_a_stream_closes_nothing() -> None:
    result = close(DAY)
    assert result.message == "no order stream ever ran in this home: nothing to close"
    assert (result.tables, result.rows) == ({}, {})
    candidate = candidates.load(CHURN.name, DAY)
    assert candidate is not None and (candidate.tables, candidate.gates) == ({}, {})
    (event,) = [e for e in ledger.events(CHURN.name) if (e["stage"], e["state"]) == ("activity", "COMPLETE")]
    assert (event["read"], event["wrote"], "named" in event) == ({}, {}, False)


@pytest.mark.usefixtures("home")
def test_a_stream_that_is_behind_ends_the_stage_and_what_ran_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_stream.days().write()
    monkeypatch.setenv("PLUMBLINE_KAFKA_URL", f"kafka://127.0.0.1:{services.free_port()}")
    monkeypatch.setattr("ingestion.events.topics.TIMEOUT", 0.5)
    settings.cache_clear()
    with pytest.raises(NotYet, match=r"has not reached the end of 1998-06-30.*`plumb events run --once`"):
        close(DAY)
    candidate = candidates.load(CHURN.name, DAY)
    assert candidate is not None and "features" in candidate.stages and "activity" not in candidate.stages
    assert stage.perform(CHURN, "features", DAY, nothing).state == "unchanged"


@pytest.mark.usefixtures("with_spark")
def test_a_release_names_the_streams_tables_and_nothing_brings_them_back(home: Path) -> None:
    stream = made_up_stream.days((FIRST, DAY, NEXT))
    first = Stream(*(list(rows) for rows in vars(stream.of(FIRST)).values()))
    first.books += stream.of(DAY).books[:2]
    first.events += stream.of(DAY).events[:12]
    first.activity += stream.of(DAY).activity[:12]
    first.write()
    assert close(FIRST).message == (
        "146 messages are accounted for, 144 orders and 144 events reconciled, 144 rows as the batch makes them"
    )
    publish_it(FIRST)
    released = releases.required(CHURN.name)
    assert {table: released.version(table) for table in APPENDED} == dict.fromkeys(APPENDED, 0)
    assert sorted(released.gates) == ["activity_parity", "events_complete", "orders_reconciled"]

    rest = stream.of(DAY)
    rest.books, rest.events, rest.activity = rest.books[2:], rest.events[12:], rest.activity[12:]
    rest.write()
    new = stream.of(NEXT)
    Stream(books=new.books[:2], events=new.events[:12], activity=new.activity[:12]).write()
    assert close(DAY).message.startswith("146 messages are accounted for, 144 orders and 144 events reconciled")
    publish_it(DAY)
    assert releases.required(CHURN.name).version(EVENTS) == 2

    before = heads()
    undone = undo.undo(CHURN, why="a test")
    assert undone.version(EVENTS) == 0
    assert heads() == before, "events are facts: undo restores none of their tables"
    for name in CHURN.daily_stages[: CHURN.daily_stages.index("activity")]:
        stage.perform(CHURN, name, DAY, nothing)
    stage.perform(CHURN, "activity", DAY, lambda run: str(stream_books.take(run, ACTIVITY)))
    candidate = candidates.load(CHURN.name, DAY)
    assert candidate is not None and candidate.tables == before, "the next run goes on from all that landed"

    rows = erased_rows.find(CHURN, 3)
    assert {EVENTS, ACTIVITY} <= set(rows.files)
    newest = lake.opened(EVENTS).to_pyarrow_table()
    version = erased_rows.leave_out(CHURN, rows, EVENTS, undone.version(EVENTS))
    assert version == before[EVENTS] + 1  # type: ignore[operator]
    left = lake.opened(EVENTS).to_pyarrow_table()
    assert len(left) == sum(customer != 3 for customer in newest["customer_id"].to_pylist()) < len(newest)
    assert lake.version(BOOKS) == before[BOOKS]
