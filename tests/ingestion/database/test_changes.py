"""A shop whose rows change: every version lands once, with the moment from which it counts, and is told and counted."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from ingestion.churn import cdnow as shop
from ingestion.database import changes, landing, quarantine, source
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.state import acceptances, ledger
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.conftest import HomeAs

FIRST, SECOND, LATER = date(1997, 1, 5), date(1997, 1, 6), date(1997, 1, 20)
OPENED = datetime(1997, 1, 6, tzinfo=UTC)


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def _landed(home_as: HomeAs, request: pytest.FixtureRequest) -> None:
    def days() -> None:
        shop.load(until=date(1997, 1, 21))
        land(FIRST)
        release(FIRST, 1)

    if request.param == "postgres":
        request.getfixturevalue("postgres_shop")
        days()
    else:
        home_as("five days landed of three weeks in the shop", days)


def land(day: date) -> str:
    return stage.perform(CHURN, "ingest", day, landing.land).message


def release(day: date, number: int) -> None:
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(number, "churn", day, number - 1 or None, tables, {}, "code", "lock", "test", "now"))


def execute(statement: str, **values: Any) -> None:
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text(statement).bindparams(**values))


def versions(order: int) -> list[dict[str, Any]]:
    rows = lake.open_table("raw.orders").to_pyarrow_table().to_pylist()
    names = ("customer_id", "total_cents", "known_at", "deleted_at")
    mine = [{name: row[name] for name in names} for row in rows if row["order_id"] == order]
    return sorted(mine, key=lambda row: row["known_at"])


def counted(table: str = "orders") -> dict[str, int]:
    counts: dict[str, int] = list(ledger.events("churn"))[-1]["changes"][table]
    return counts


@pytest.mark.parametrize("day", [SECOND, LATER])
def test_an_order_recorded_again_is_a_version_that_counts_from_then_on(day: date) -> None:
    """One day after it landed and weeks after: it makes no difference how far its time of recording moved."""
    again = datetime(day.year, day.month, day.day, 12)
    execute("UPDATE orders SET total_cents = total_cents + 5000, recorded_at = :at WHERE order_id = 4", at=again)
    message = land(day)
    assert "1 of the orders recorded again, such as order_id 4" in message
    old, new = versions(4)
    assert (new["total_cents"], new["known_at"]) == (old["total_cents"] + 5000, again.replace(tzinfo=UTC))
    assert counted() == {"changed": 1, "deleted": 0}


def test_a_correction_that_kept_its_time_is_seen_within_the_days_that_are_read_again() -> None:
    execute("UPDATE orders SET total_cents = 1 WHERE order_id = 4")
    assert "1 of the orders recorded again, such as order_id 4" in land(SECOND)
    assert [(row["total_cents"], row["known_at"]) for row in versions(4)][1:] == [(1, OPENED)]
    release(SECOND, 2)
    assert "recorded again" not in land(date(1997, 1, 7)), "it landed as it is now"


def test_a_version_lands_once_however_often_the_day_runs(home: Any) -> None:
    execute("UPDATE orders SET total_cents = 1 WHERE order_id = 4")
    execute("DELETE FROM orders WHERE order_id = 5")
    message = land(SECOND)
    rows = lake.rows("raw.orders")
    (home / "runs" / "churn" / f"{SECOND}.json").unlink()  # as after a kill between the landing and its entry
    assert land(SECOND) == message
    assert lake.rows("raw.orders") == rows


def test_an_order_that_turns_up_weeks_late_lands_and_was_not_known_before() -> None:
    land(LATER)
    release(LATER, 2)
    execute("INSERT INTO orders VALUES (900001, 1, '1997-01-02', 1, 500, :at)", at=datetime(1997, 1, 2, 12))
    land(date(1997, 1, 21))
    assert versions(900_001)[0]["known_at"] == datetime(1997, 1, 21, tzinfo=UTC)


def test_more_late_orders_than_are_asked_for_by_key_land_whatever_their_fraction_of_a_second() -> None:
    land(LATER)
    release(LATER, 2)
    added = ", ".join(
        f"({900_000 + n}, 1, '1997-01-02', 1, 500, '1997-01-02 12:00:00.{500_000 + n}')" for n in range(600)
    )
    execute(f"INSERT INTO orders VALUES {added}")
    land(date(1997, 1, 21))
    assert [len(versions(order)) for order in (900_000, 900_599)] == [1, 1]


def test_rows_behind_the_window_are_held_to_the_contract_too() -> None:
    land(LATER)
    release(LATER, 2)
    execute("INSERT INTO orders VALUES (900001, 1, '1997-01-02', 1, -500, :at)", at=datetime(1997, 1, 2, 12))
    with pytest.raises(GateFailed, match=r"orders.total_cents: 1 rows are below 0, such as order_id 900001: -500"):
        land(date(1997, 1, 21))


def held_out(day: date) -> tuple[set[int], str]:
    """The orders that quarantine has of a day that stops at landing, and what was said."""
    with pytest.raises(GateFailed) as error:
        land(day)
    (batch,) = quarantine.batches(CHURN)
    return set(batch.table("orders").to_pandas()["order_id"]), str(error.value)


def shown(day: str) -> set[int]:
    with source.connected(source.engine()) as connection:
        return set(connection.scalars(sa.text(f"SELECT order_id FROM orders WHERE order_date = '{day}'")))


@pytest.fixture
def changed() -> set[int]:
    """After 20 January: the orders of the 21st, and what else a landing of that day takes."""
    land(LATER)
    release(LATER, 2)
    noon = datetime(1997, 1, 21, 12)
    mine, near = shown("1997-01-21"), min(shown("1997-01-18"))
    execute("INSERT INTO orders VALUES (900001, 1, '1997-01-02', 1, 500, :at)", at=datetime(1997, 1, 2, 12))
    execute("UPDATE orders SET total_cents = total_cents + 1, recorded_at = :at WHERE order_id = 4", at=noon)
    execute("UPDATE orders SET units = units + 1 WHERE order_id = :key", key=near)
    return mine | {900_001, 4, near}


def test_late_rows_and_new_versions_of_landed_rows_go_into_quarantine_with_the_batch(changed: set[int]) -> None:
    """One far behind the window, one that was recorded again, one whose value changed under its old time."""
    execute("INSERT INTO orders VALUES (900002, 1, '1997-01-21', 1, -500, :at)", at=datetime(1997, 1, 21, 12))
    orders, told = held_out(date(1997, 1, 21))
    assert orders == changed | {900_002}
    assert f"The batch is in quarantine, whole: {len(orders):,} orders and " in told and "all that was sent" in told


def test_so_they_do_when_the_schema_is_broken_as_long_as_key_and_time_can_be_read(changed: set[int]) -> None:
    execute("ALTER TABLE orders RENAME COLUMN total_cents TO price")
    orders, told = held_out(date(1997, 1, 21))
    assert orders == changed and "is in quarantine, whole" in told


def test_where_the_time_cannot_be_read_the_message_says_which_rows_are_kept(changed: set[int]) -> None:
    execute("ALTER TABLE orders RENAME COLUMN recorded_at TO written_at")
    orders, told = held_out(date(1997, 1, 21))
    assert orders == changed - {4}, "which was recorded weeks before it was again"
    assert "of orders all rows whose key has not landed, for what else was sent late or again cannot be told" in told
    assert "whole" not in told


def test_a_deleted_order_lands_as_deleted_and_can_come_back_under_its_number() -> None:
    execute("DELETE FROM orders WHERE order_id = 4")
    assert "1 of the orders deleted by the shop, such as order_id 4" in land(SECOND)
    assert [row["deleted_at"] for row in versions(4)] == [None, OPENED]
    assert counted() == {"changed": 0, "deleted": 1}
    release(SECOND, 2)
    assert "deleted" not in land(date(1997, 1, 7)), "once"
    release(date(1997, 1, 7), 3)
    execute("INSERT INTO orders VALUES (4, 99, '1997-01-08', 1, 700, :at)", at=datetime(1997, 1, 8, 12))
    land(date(1997, 1, 8))
    newest = versions(4)[-1]
    assert (newest["customer_id"], newest["total_cents"], newest["deleted_at"]) == (99, 700, None)


def test_a_shop_that_lost_its_rows_is_not_believed_until_somebody_says_so() -> None:
    standing = lake.rows("raw.orders")
    execute("DELETE FROM orders WHERE recorded_at < :at", at=datetime(1997, 1, 4))
    with pytest.raises(
        GateFailed, match=r"orders: [\d,]+ of [\d,]+ keys that landed are not in the shop any more"
    ) as error:
        land(SECOND)
    assert "plumb gate accept rows_deleted --as-of 1997-01-06 --why" in str(error.value)
    assert lake.rows("raw.orders") == standing, "nothing landed"
    acceptances.accept(CHURN, "rows_deleted", SECOND, "the shop keeps two days", "a test")
    land(SECOND)
    assert counted()["deleted"] > 20


def test_a_row_of_the_future_is_not_taken_for_deleted() -> None:
    """A shop that holds later days, as a replay's does: a row that is recorded again behind the day is still there."""
    execute("UPDATE orders SET recorded_at = :at WHERE order_id = 4", at=datetime(1997, 1, 20, 12))
    assert "deleted" not in land(SECOND)
    assert len(versions(4)) == 1


def test_keys_of_several_columns_and_of_text_are_told_apart() -> None:
    stamp = pa.timestamp("us", tz="UTC")
    moment = pa.array([OPENED, OPENED, OPENED], stamp)
    key = {"shop": ["01", "1", "1"], "line": [1, 1, 2]}
    before = pa.table({**key, "recorded_at": moment, "deleted_at": pa.nulls(3, stamp)})
    asked = pa.table({"shop": ["1", "01", "1"], "line": [1, 2, 2], "recorded_at": moment, "cents": [5, 6, 7]})
    assert changes.unlanded(asked, before, before.slice(0, 0)).to_pylist() == [
        {"shop": "01", "line": 2, "recorded_at": OPENED, "cents": 6}
    ]
    assert changes.without(asked, before)["cents"].to_pylist() == [6]
    known = pa.table({**key, "cents": [9, 5, 8]})
    assert changes.unlanded(asked, before, known)["cents"].to_pylist() == [6, 7], "the last one has another value"
