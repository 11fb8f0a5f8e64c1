"""An undone day can be run again: its rows land anew, are read once, and come back when the undo is undone."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ingestion.churn import cdnow as shop
from ingestion.database import landing, quarantine
from plumbline.errors import Conflict
from plumbline.lake import tables as lake
from plumbline.pipeline import leases, stage
from plumbline.pipeline.undo import undo
from plumbline.state import candidates, ledger, releases
from plumbline.state.releases import Release, ReleaseError
from products.churn import CHURN
from tests.conftest import HomeAs

DAYS = [date(1997, 1, 4), date(1997, 1, 5), date(1997, 1, 6)]


@pytest.fixture(autouse=True)
def _three_releases(home_as: HomeAs) -> None:
    home_as("three releases", three_releases)


def three_releases() -> None:
    shop.load(until=DAYS[-1])
    for number, day in enumerate(DAYS, start=1):
        land(day)
        publish(day, number)


def land(day: date) -> int:
    result = stage.perform(CHURN, "ingest", day, landing.land)
    assert result.state == "done"
    return result.rows["raw.orders"]


def publish(day: date, number: int) -> None:
    """What a whole run would have published, with what it left out."""
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    left_out = candidates.rejected("churn")
    made = Release(number, "churn", day, number - 1 or None, tables, {}, "code", "lock", "t", "now", left_out)
    releases.publish(made)


def readable(release: Release) -> list[int]:
    """The orders that are built from at a release: what staging reads."""
    rows = lake.open_table("raw.orders", release.version("raw.orders")).to_pyarrow_table()
    kept = rows.filter(pc.invert(pc.is_in(rows["batch_id"], value_set=pa.array(release.rejected, pa.string()))))
    return sorted(kept["order_id"].to_pylist())


def in_shop(until: date) -> list[int]:
    return sorted(order.order_id for order in shop.read(shop.packaged()) if order.order_date <= until)


def test_an_undo_is_a_new_release_of_the_older_tables_and_says_why() -> None:
    made = undo(CHURN, why="wrong prices")
    assert made == releases.required("churn")
    assert (made.release_id, made.base, made.undoes, made.restores, made.why) == (4, 3, [3], 2, "wrong prices")
    assert (made.as_of, made.tables) == (DAYS[1], releases.read("churn", 2).tables)
    assert made.rejected == ["1997-01-06..1997-01-06"]
    assert readable(made) == in_shop(DAYS[1])
    event = list(ledger.events("churn"))[-1]
    assert (event["stage"], event["state"], event["release_id"]) == ("undo", "COMPLETE", 4)
    assert releases.read("churn", 3).why is None, "the old one is as it was"


def test_the_undone_days_land_again_and_each_order_is_read_once() -> None:
    undo(CHURN, to=1, why="two bad days")
    for number, day in enumerate(DAYS[1:], start=5):
        expected = sum(order.order_date == day for order in shop.read(shop.packaged()))
        assert land(day) == expected > 0
        publish(day, number)
        assert readable(releases.required("churn")) == in_shop(day)
    assert releases.required("churn").rejected == ["1997-01-05..1997-01-05", "1997-01-06..1997-01-06"]


def test_the_undone_days_land_as_one_run_too() -> None:
    undo(CHURN, to=1, why="two bad days")
    assert land(DAYS[2]) == len(in_shop(DAYS[2])) - len(in_shop(DAYS[0]))
    publish(DAYS[2], 5)
    assert readable(releases.required("churn")) == in_shop(DAYS[2])


def test_undoing_again_goes_further_back_until_the_first() -> None:
    assert undo(CHURN, why="a").restores == 2
    made = undo(CHURN, why="b")
    assert (made.restores, made.undoes, made.as_of) == (1, [2, 3, 4], DAYS[0])
    with pytest.raises(ReleaseError, match="holds the tables of release 1, the first: there is nothing before it"):
        undo(CHURN, why="c")


def test_an_undo_can_be_undone_even_after_the_day_was_run_again() -> None:
    undo(CHURN, why="a mistake")
    land(DAYS[2])
    publish(DAYS[2], 5)
    made = undo(CHURN, to=3, why="it was right after all")
    assert made.tables == releases.read("churn", 3).tables
    assert made.rejected == ["1997-01-06..1997-01-06#2"], "the batch that release 3 was built from is back"
    assert readable(made) == in_shop(DAYS[2])


def test_what_a_killed_run_landed_behind_the_release_lands_again_too() -> None:
    shop.load(until=date(1997, 1, 7))
    land(date(1997, 1, 7))
    made = undo(CHURN, why="two days")
    assert made.rejected == ["1997-01-06..1997-01-06", "1997-01-07..1997-01-07"]
    land(DAYS[2])
    publish(DAYS[2], 5)
    assert readable(releases.required("churn")) == in_shop(DAYS[2]), "nothing of the day after"


def test_the_log_of_raw_tables_is_never_cut() -> None:
    for table in CHURN.raw:
        assert lake.open_table(table).metadata().configuration.items() >= lake.KEEP_LOG.items()


def test_what_cannot_be_undone_is_said() -> None:
    with pytest.raises(ReleaseError, match="say why"):
        undo(CHURN, why=" ")
    with pytest.raises(ReleaseError, match=r"churn has no release 9; it has \[1, 2, 3\]"):
        undo(CHURN, to=9, why="x")
    with pytest.raises(ReleaseError, match="holds the tables of release 3 already: nothing was changed"):
        undo(CHURN, to=3, why="x")
    with leases.lease(CHURN, "ingest"):
        with pytest.raises(Conflict, match="another run of churn is at work"):
            undo(CHURN, why="x")
    assert releases.numbers("churn") == [1, 2, 3]


def test_quarantine_lists_and_shows_what_an_undo_set_aside() -> None:
    orders = sum(order.order_date == DAYS[2] for order in shop.read(shop.packaged()))
    undo(CHURN, why="wrong prices")
    (batch,) = quarantine.batches(CHURN)
    assert (batch.batch_id, batch.why) == (
        "1997-01-06..1997-01-06",
        "only releases that were undone were built from it",
    )
    assert batch.rows["orders"] == orders > 0
    assert quarantine.read(CHURN, batch.batch_id) == batch
    assert len(quarantine.held(batch)["orders"]) == orders, "its rows are in no batch that counts"
