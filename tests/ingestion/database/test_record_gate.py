"""Rows of the shop against its contract: the whole batch is kept out, the rows are named, nothing is lost."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingestion.churn import cdnow as shop
from ingestion.database import landing, quarantine, source
from ingestion.database import quarantine_replay as replay
from ingestion.database.quarantine import QuarantineError
from plumbline import files
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN
from tests.conftest import HomeAs

DAY = date(1997, 1, 3)
BAD = 900_001
GOOD = {
    "order_id": BAD,
    "customer_id": 1,
    "order_date": DAY,
    "units": 1,
    "total_cents": 500,
    "recorded_at": datetime(1997, 1, 3, 9),
}


@pytest.fixture
def _three_days(home_as: HomeAs) -> None:
    home_as("three days in the shop", lambda: shop.load(until=DAY))


def put(**wrong: object) -> None:
    orders = source.schema(CHURN).tables["orders"]
    with source.connected(source.engine()) as connection:
        connection.execute(sa.delete(orders).where(orders.c.order_id == BAD))
        connection.execute(sa.insert(orders), [GOOD | wrong])


def land() -> dict[str, Any]:
    stage.perform(CHURN, "ingest", DAY, landing.land)
    return list(ledger.events("churn"))[-1]


def stopped() -> str:
    with pytest.raises(GateFailed) as error:
        land()
    return str(error.value)


@pytest.mark.usefixtures("_three_days")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"total_cents": -1}, "orders.total_cents: 1 rows are below 0, such as order_id 900001: -1"),
        ({"total_cents": 10_000_001}, "orders.total_cents: 1 rows are above 10,000,000, such as order_id 900001"),
        ({"units": 0}, "orders.units: 1 rows are below 1, such as order_id 900001: 0"),
        ({"units": 3_000_000_000}, "orders.units: 1 rows are above 1,000,000, such as order_id 900001: 3000000000"),
        (
            {"order_date": date(1997, 1, 4)},
            "orders.order_date: 1 rows are dated behind 1997-01-03, the day that the run",
        ),
    ],
)
def test_a_value_that_the_contract_rules_out_stops_the_batch_and_names_the_row(
    wrong: dict[str, object], told: str
) -> None:
    put(**wrong)
    message = stopped()
    assert told in message and "`plumb quarantine show 1997-01-01..1997-01-03`" in message
    assert lake.version("raw.orders") is None
    event = list(ledger.events("churn"))[-1]
    assert (event["state"], event["gates"]["record_contract"]["verdict"]) == ("GATE_FAILED", "failed")
    assert event["gates"]["schema_contract"]["verdict"] == "passed"
    assert event["sent"] == event["quarantined"] and event["landed"] == {"orders": 0, "customers": 0, "returns": 0}
    put()
    event = land()
    assert event["gates"]["record_contract"]["verdict"] == "passed"
    assert event["landed"] == event["sent"] and event["quarantined"] == {"orders": 0, "customers": 0, "returns": 0}


@pytest.mark.usefixtures("_three_days")
def test_other_rows_for_the_same_window_are_kept_beside_the_first() -> None:
    put(total_cents=-1)
    stopped()
    put(total_cents=-2)
    assert "1997-01-01..1997-01-03#2" in stopped()
    assert [
        b.table("orders").to_pandas().set_index("order_id").loc[BAD, "total_cents"] for b in quarantine.batches(CHURN)
    ] == [
        -1,
        -2,
    ]
    put()
    assert land()["batch_id"] == "1997-01-01..1997-01-03#3"


@pytest.mark.usefixtures("_three_days")
def test_a_bad_row_that_the_shop_deleted_stays_in_quarantine_and_is_counted() -> None:
    put(total_cents=-1)
    stopped()
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text(f"DELETE FROM orders WHERE order_id = {BAD}"))
    event = land()
    assert event["quarantined"]["orders"] == 1
    assert event["sent"]["orders"] == event["landed"]["orders"] + 1
    batch_id = quarantine.batches(CHURN)[0].batch_id
    with pytest.raises(GateFailed, match="orders.total_cents: 1 rows are below 0, such as order_id 900001: -1"):
        replay.replay(CHURN, batch_id)
    assert not quarantine.read(CHURN, batch_id).marked
    assert replay.shown(CHURN, batch_id)["held"] == {"orders": 1, "customers": 0, "returns": 0}


@pytest.mark.usefixtures("_three_days")
def test_what_a_later_gate_set_aside_is_listed_and_comes_back_though_the_shop_deleted_it() -> None:
    put()
    batch = land()["batch_id"]
    path = settings().home / "rejected" / "churn" / f"{batch}.json"
    files.create_once(path, files.dumps({"batch_id": batch, "run_id": "churn-1997-01-03", "why": "a mean too high"}))
    (settings().home / "runs" / "churn" / f"{DAY}.json").unlink()
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text(f"DELETE FROM orders WHERE order_id = {BAD}"))
    assert replay.replay(CHURN, batch)["from_quarantine"] == {"orders": 1, "customers": 0, "returns": 0}
    event = land()
    assert event["let_in"] == {"batches": [batch], "rows": {"orders": 1, "customers": 0}}
    landed = lake.open_table("raw.orders").to_pandas().query("batch_id == @event['batch_id']")
    assert BAD in set(landed["order_id"]) and landed["order_id"].is_unique
    listed = replay.listed(CHURN)
    assert [(b["kind"], b["why"], b["held"]["orders"]) for b in listed] == [("gate", "a mean too high", 0)]
    with pytest.raises(QuarantineError, match="there is nothing to replay"):
        replay.replay(CHURN, batch)


@pytest.mark.usefixtures("_three_days")
def test_rows_that_get_lost_on_the_way_stop_the_line_and_land_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = landing.Landing.stamper

    def lossy(landed: landing.Landing, **arguments: Any) -> Any:
        stamp = whole(landed, **arguments)
        return lambda rows: stamp(rows).slice(2)

    with monkeypatch.context() as patch:
        patch.setattr(landing.Landing, "stamper", lossy)
        assert re.search(
            r"orders: 2 of \d+ rows sent are neither in raw.orders nor in quarantine, such as \d+, \d+", stopped()
        )
    event = list(ledger.events("churn"))[-1]
    assert event["gates"]["landing_complete"]["verdict"] == "failed"
    assert event["sent"]["orders"] == event["landed"]["orders"] + 2
    event = land()
    assert event["sent"] == event["landed"]
    assert lake.open_table("raw.orders").to_pandas()["order_id"].is_unique


def test_an_unknown_batch_is_named_with_those_there_are(home: Path) -> None:
    with pytest.raises(QuarantineError, match="no batch 1997-01-01..1997-01-03 was kept out; there are none"):
        quarantine.read(CHURN, "1997-01-01..1997-01-03")


VALUES = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.dates())


@given(rows=st.lists(st.tuples(VALUES, VALUES), max_size=8))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_shop_holds_is_kept_row_by_row_and_once(home: Path, rows: list[tuple[object, ...]]) -> None:
    reason = {
        "kind": "records",
        "broke": ["x"],
        "run_id": "test",
        "start": "1997-01-01T00:00:00+00:00",
        "end": "1997-01-04T00:00:00+00:00",
    }
    window = f"1997-01-01..1997-01-03 {abs(hash(repr(rows)))}"
    first = quarantine.put(CHURN, window, [], {"orders": (["order_id", "note"], rows)}, reason)
    assert quarantine.put(CHURN, window, [], {"orders": (["order_id", "note"], rows)}, reason) == first
    batch_id, told = first
    kept = quarantine.read(CHURN, batch_id).table("orders").to_pylist()
    assert told["rows"] == {"orders": len(rows)} == {"orders": len(kept)}
    for column, position in (("order_id", 0), ("note", 1)):
        as_text = f"orders.{column}" in told["as_text"]
        given_values = [None if r[position] is None else str(r[position]) if as_text else r[position] for r in rows]
        assert [row[column] for row in kept] == given_values


@pytest.mark.usefixtures("_three_days")
def test_the_gate_says_how_many_rules_it_checked() -> None:
    assert land()["gates"]["record_contract"]["expectations"] == 13 + 8 + 3
