"""A bad order in the shop stops the line; mended there, the same day goes through, and raw keeps both."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingestion import shop
from plumbline import lake, releases
from tests.e2e.test_whole_path import plumb

DAY = "1997-01-20"
STAGES = ("ingest", "dbt_run", "ge_check", "features", "distribution_check", "release")
BAD = 900_001


def set_order(cents: int, day: date = date(1997, 1, 19)) -> None:
    orders = shop.schema().tables["orders"]
    row = {"order_id": BAD, "customer_id": 1, "order_date": day, "units": 1, "total_cents": cents}
    with shop.connected(shop.engine()) as connection:
        connection.execute(sa.delete(orders).where(orders.c.order_id == BAD))
        connection.execute(sa.insert(orders), [{**row, "recorded_at": datetime(1997, 1, 20, 9)}])


@pytest.mark.slow
def test_a_bad_order_stops_the_line_and_the_mended_one_goes_through(home: Path) -> None:
    shop.load(until=date(1997, 1, 20))
    for stage in STAGES:
        done = plumb(stage, "--as-of", "1997-01-19")
        assert done.returncode == 0, done.stderr
    set_order(-500)
    assert plumb("ingest", "--as-of", DAY).returncode == 0
    stopped = plumb("dbt_run", "--as-of", DAY)
    assert stopped.returncode == 3
    assert f"1 rows of orders.total_cents fail, such as order_id {BAD}, customer_id 1" in stopped.stderr
    assert "total_cents -500;" in stopped.stderr

    set_order(20_000_000, day=date(1997, 2, 1))
    assert plumb("ingest", "--as-of", DAY).returncode == 0
    assert plumb("dbt_run", "--as-of", DAY).returncode == 0
    stopped = plumb("ge_check", "--as-of", DAY)
    assert stopped.returncode == 3
    assert "expect_column_values_to_be_between(total_cents)" in stopped.stderr
    assert f"1 rows, such as order_id {BAD}" in stopped.stderr
    future = next(line for line in stopped.stderr.splitlines() if "between(order_date)" in line)
    assert f"1 rows, such as order_id {BAD}, customer_id 1, order_date 1997-02-01, total_cents 20000000" in future
    refused = plumb("features", "--as-of", DAY)
    assert refused.returncode == 1
    assert f"ingest comes first: `plumb ingest --as-of {DAY}`" in refused.stderr
    assert releases.numbers("churn") == [1]

    set_order(2_000)
    for stage in STAGES:
        done = plumb(stage, "--as-of", DAY)
        assert done.returncode == 0, done.stderr
    release = releases.required("churn")
    assert (release.release_id, release.rejected) == (2, ["1997-01-20..1997-01-20", "1997-01-20..1997-01-20#2"])
    raw = lake.open_table("raw.orders", release.version("raw.orders")).to_pandas().set_index("order_id")
    assert sorted(raw.loc[BAD, "total_cents"]) == [-500, 2_000, 20_000_000], "raw keeps what it was sent"
    assert set(raw.loc[BAD, "batch_id"]) == {*release.rejected, "1997-01-20..1997-01-20#3"}
    mart = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pandas().set_index("order_id")
    assert mart.index.is_unique
    assert set(mart.index) == set(raw.index)
    assert mart.loc[BAD, "total_cents"] == 2_000
    evidence = json.loads((home / "rejected" / "churn" / "1997-01-20..1997-01-20.json").read_text())
    assert f"order_id {BAD}" in evidence["why"]
