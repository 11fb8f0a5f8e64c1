"""A batch that a person sets aside, and rows in raw that no run wrote."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from ingestion.churn import cdnow as shop
from ingestion.database import landing, quarantine, set_aside, source
from ingestion.database.quarantine import QuarantineError
from plumbline.lake import tables as lake
from plumbline.pipeline import stage
from plumbline.state import candidates
from plumbline.state.releases import Release, publish
from products.churn import CHURN
from tests.conftest import HomeAs

DAY = date(1997, 1, 3)
BATCH = "1997-01-01..1997-01-03"


@pytest.fixture(autouse=True)
def _landed(home_as: HomeAs) -> None:
    def three_days() -> None:
        shop.load(until=DAY)
        stage.perform(CHURN, "ingest", DAY, landing.land)

    home_as("three days landed", three_days)


@pytest.mark.parametrize("by", [{"batch_id": BATCH}, {"table": "orders", "key": "4"}])
def test_a_batch_that_a_later_stage_breaks_on_is_set_aside_and_lands_again_mended(by: dict[str, str]) -> None:
    told = set_aside.put(CHURN, "units that features cannot sum", **by)
    assert (told["batch_id"], told["next"]) == (BATCH, "plumb ingest --as-of 1997-01-03")
    assert candidates.rejected("churn") == [BATCH]
    assert [batch.why for batch in quarantine.batches(CHURN)] == ["units that features cannot sum"]
    with source.connected(source.engine()) as connection:
        connection.execute(sa.text("UPDATE orders SET units = 7 WHERE order_id = 4"))
    assert stage.perform(CHURN, "ingest", DAY, landing.land).state == "done"
    rows = lake.open_table("raw.orders").to_pandas()
    assert rows[(rows["order_id"] == 4) & (rows["batch_id"] == f"{BATCH}#2")]["units"].tolist() == [7]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"why": " ", "batch_id": BATCH}, "say why"),
        ({"batch_id": "1997-01-09..1997-01-09"}, "no batch 1997-01-09..1997-01-09 is in raw"),
        ({"table": "orders", "key": "99999999"}, "raw.orders has no order_id 99999999 in a batch that counts"),
        (
            {"table": "visits", "key": "4"},
            r"a row by --table \(orders, customers, returns\) and --key",
        ),
        ({"table": "orders", "key": "4,5"}, "expected a value for each key column"),
    ],
)
def test_what_cannot_be_set_aside_is_said(wrong: dict[str, str], told: str) -> None:
    with pytest.raises(QuarantineError, match=told):
        set_aside.put(CHURN, **{"why": "a reason", **wrong})


def test_a_released_batch_is_taken_back_with_its_release_and_none_is_set_aside_twice() -> None:
    tables = {name: lake.version(name) or 0 for name in CHURN.raw}
    publish(Release(1, "churn", DAY, None, tables, {}, "code", "lock", "test", "now"))
    with pytest.raises(QuarantineError, match=r"is part of release 1: .* `plumb releases undo`"):
        set_aside.put(CHURN, "too late", BATCH)


def test_rows_that_no_run_wrote_are_told_with_their_batches() -> None:
    assert set_aside.strangers(CHURN) == []
    table = lake.open_table("raw.orders")
    some = table.to_pyarrow_table().slice(0, 3)
    place = some.column_names.index("batch_id")
    for batch in (None, "someone"):
        write_deltalake(table, some.set_column(place, "batch_id", pa.array([batch] * 3, pa.string())), mode="append")
    (told,) = set_aside.strangers(CHURN)
    assert "raw.orders@v" in told and "3 of batch null" in told and "3 of batch someone" in told
    assert "no run of churn wrote" in told
