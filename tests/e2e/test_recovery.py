"""A bad order in the shop stops the line; mended there, the same day goes through, and raw keeps both."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion.churn import cdnow as shop
from ingestion.database import source
from plumbline.lake import tables as lake
from plumbline.state import releases
from products.churn import CHURN
from tests.e2e.test_whole_path import plumb

DAY = "1997-01-20"
STAGES = ("ingest", "dbt_run", "ge_check", "features", "activity", "distribution_check", "release")
BAD, UNKNOWN = 900_001, 999_999


def set_order(cents: int, day: date = date(1997, 1, 19), customer: int = 1) -> None:
    orders = source.schema(CHURN).tables["orders"]
    row = {"order_id": BAD, "customer_id": customer, "order_date": day, "units": 1, "total_cents": cents}
    with source.connected(source.engine()) as connection:
        connection.execute(sa.delete(orders).where(orders.c.order_id == BAD))
        connection.execute(sa.insert(orders), [{**row, "recorded_at": datetime(1997, 1, 20, 9)}])


@pytest.mark.slow
@pytest.mark.usefixtures("with_spark")
def test_a_bad_order_stops_the_line_and_the_mended_one_goes_through(home: Path) -> None:
    shop.load(until=date(1997, 1, 20))
    for stage in STAGES:
        done = plumb(stage, "--as-of", "1997-01-19")
        assert done.returncode == 0, done.stderr
    set_order(-500, day=date(1997, 2, 1))
    stopped = plumb("ingest", "--as-of", DAY)
    assert stopped.returncode == 3
    assert f"orders.total_cents: 1 rows are below 0, such as order_id {BAD}: -500" in stopped.stderr
    assert f"orders.order_date: 1 rows are dated behind {DAY}" in stopped.stderr
    assert "schema   held" not in plumb("quarantine", "list").stdout
    assert f"{DAY}..{DAY}" in plumb("quarantine", "list").stdout

    set_order(500, customer=UNKNOWN)
    assert plumb("ingest", "--as-of", DAY).returncode == 0
    stopped = plumb("dbt_run", "--as-of", DAY)
    assert stopped.returncode == 3
    assert f"1 rows of orders.customer_id fail, such as from_field {UNKNOWN}" in stopped.stderr

    set_order(9_999_999)
    assert plumb("ingest", "--as-of", DAY).returncode == 0
    assert plumb("dbt_run", "--as-of", DAY).returncode == 0
    stopped = plumb("ge_check", "--as-of", DAY)
    assert stopped.returncode == 3
    assert "expect_column_mean_to_be_between(new_total_cents)" in stopped.stderr
    refused = plumb("features", "--as-of", DAY)
    assert refused.returncode == 1
    assert f"ingest comes first: `plumb ingest --as-of {DAY}`" in refused.stderr
    assert releases.numbers("churn") == [1]

    set_order(2_000)
    for stage in STAGES:
        done = plumb(stage, "--as-of", DAY)
        assert done.returncode == 0, done.stderr
    release = releases.required("churn")
    assert (release.release_id, release.rejected) == (2, [f"{DAY}..{DAY}#2", f"{DAY}..{DAY}#3"])
    raw = lake.open_table("raw.orders", release.version("raw.orders")).to_pandas().set_index("order_id")
    assert sorted(raw.loc[BAD, "total_cents"]) == [500, 2_000, 9_999_999], "raw keeps what landed"
    assert set(raw.loc[BAD, "batch_id"]) == {*release.rejected, f"{DAY}..{DAY}#4"}
    mart = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pandas().set_index("order_id")
    assert mart.index.is_unique
    assert set(mart.index) == set(raw.index)
    assert mart.loc[BAD, "total_cents"] == 2_000
    evidence = json.loads((home / "rejected" / "churn" / f"{DAY}..{DAY}#2.json").read_text())
    assert f"from_field {UNKNOWN}" in evidence["why"]
    listed = json.loads(plumb("quarantine", "list", "--json").stdout)
    assert [batch["kind"] for batch in listed] == ["records", "gate", "gate"]
    assert [batch["held"]["orders"] for batch in listed] == [0, 0, 0], "all of it came in with the mended batch"
