"""A changed definition: the whole history is computed anew, compared with the released one, and judged."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from test_customers import FIRST, RETURNS, make_orders, no_returns

from feature_repo.churn.jobs import carried, hindsight, history
from feature_repo.churn.jobs import customers as job
from plumbline.errors import GateFailed
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.pipeline.stage import StageRun
from plumbline.state import ledger, releases
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release
from products.churn import CHURN
from tests.conftest import HomeAs

SQL = job.SQL.read_text()
LAST_COLUMN = "    CAST(last_order_day AS INT) AS last_order_day\n"
SHARE = "    CAST(orders_30d / nullif(orders_90d, 0) AS FLOAT) AS share_30d,\n"
ADDS = SQL.replace(LAST_COLUMN, SHARE + LAST_COLUMN)
CHANGES = SQL.replace("date_sub(snapshot_date, 7)) AS orders_7d", "date_sub(snapshot_date, 6)) AS orders_7d")
REPEATS = ADDS.replace(
    "LEFT JOIN seen AS n",
    "LEFT JOIN (SELECT 1 AS twice UNION ALL SELECT 1) AS r ON c.customer_id = 1\n    LEFT JOIN seen AS n",
)
LEAKS = ADDS.replace(SHARE, "    CAST(coalesce(newest <= snapshot_date, true) AS INT) AS gone,\n").replace(
    "FROM totals",
    "FROM totals\nLEFT JOIN (SELECT customer_id, max(order_date) AS newest FROM {orders} GROUP BY 1) "
    "USING (customer_id)",
)
DAYS = [FIRST + timedelta(days=d) for d in range(0, 15, 7)]
RELEASED, NEXT = DAYS[-1], DAYS[-1] + timedelta(days=1)


def run_of(day: date, base: Release | None) -> StageRun:
    tables = dict.fromkeys((*job.READS.values(), "raw.orders", "raw.returns"), 0)
    candidate = Candidate(f"churn-{day}", "churn", day, base.release_id if base else None, tables=tables)
    return StageRun(CHURN, "features", day, candidate, base)


def compute(day: date, base: Release | None) -> StageRun:
    """The stage, and its entry in the ledger as `plumbline.pipeline.stage` makes it."""
    run = run_of(day, base)
    message = job.compute(run)
    ledger.record(
        "churn", {"stage": "features", "state": "COMPLETE", "wrote": run.wrote, "message": message, **run.facts}
    )
    return run


@pytest.fixture
def released(with_spark: None, home_as: HomeAs) -> Release:
    """Release 1: weekly snapshots by the definition as it is."""
    home_as("weekly snapshots released", release_weekly_snapshots)
    return releases.required("churn")


def release_weekly_snapshots() -> None:
    orders = make_orders(seed=5)
    session = spark.session()
    session.createDataFrame(orders).write.format("delta").save(lake.uri(job.ORDERS))
    customers = pd.DataFrame({"customer_id": sorted(set(orders["customer_id"]))}).astype("int64")
    raw = orders.drop(columns="known_until").assign(loaded_at=orders["known_at"], batch_id="all", deleted_at=None)
    raw["deleted_at"] = raw["deleted_at"].astype("datetime64[us, UTC]")
    session.createDataFrame(raw).write.format("delta").save(lake.uri("raw.orders"))
    customers["signed_up_on"], customers["known_at"] = FIRST, datetime(1998, 1, 1)
    customers["known_until"] = pd.Series([None] * len(customers), dtype="datetime64[us, UTC]")
    session.createDataFrame(customers).write.format("delta").save(lake.uri(job.CUSTOMERS))
    early = orders.sort_values(["known_at", "order_id"])["order_id"].head(2)
    back = pd.DataFrame({"order_id": list(early), "cents": [700, 90]})
    back = back.merge(orders[["order_id", "customer_id", "known_at", "known_until"]], on="order_id")
    back["known_at"] = back["known_at"] + timedelta(hours=1)
    back["returned_on"] = back["known_at"].dt.date
    marts = back[["customer_id", "cents", "returned_on", "known_at", "known_until"]]
    session.createDataFrame(marts[list(no_returns())], RETURNS).write.format("delta").save(
        lake.uri(job.READS["returns"])
    )
    landed = back.drop(columns=["known_until", "returned_on", "customer_id"]).assign(
        returned_at=back["known_at"], loaded_at=back["known_at"], batch_id="all", deleted_at=raw["deleted_at"].iloc[:2]
    )
    session.createDataFrame(landed).write.format("delta").save(lake.uri("raw.returns"))
    tables = compute(RELEASED, None).wrote
    releases.publish(Release(1, "churn", RELEASED, None, tables, {}, "code", "lock", "test", "now"))


def change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sql: str) -> None:
    changed = tmp_path / "customers.sql"
    changed.write_text(sql)
    monkeypatch.setattr(job, "SQL", changed)


def rows(version: int, day: date | None = None) -> pd.DataFrame:
    frame = lake.open_table(job.TABLE, version).to_pandas()
    frame = frame if day is None else frame[frame["snapshot_date"] == day]
    return frame.sort_values(["snapshot_date", "customer_id"]).reset_index(drop=True)


def test_an_unchanged_definition_appends_one_day_whatever_its_comments_say(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(monkeypatch, tmp_path, SQL.replace("FROM totals", "-- said otherwise\nFROM   totals"))
    run = compute(NEXT, released)
    assert run.facts["snapshot_days"] == [str(NEXT)]
    assert list(run.gates) == [carried.GATE, "contract:features.customers"]
    assert run.gates[carried.GATE].extra["customers"] == 25
    assert len(rows(run.wrote[job.TABLE])) == len(rows(released.version(job.TABLE))) + 25


def test_a_new_column_gets_its_whole_history_and_the_rest_stays_bit_for_bit(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = rows(released.version(job.TABLE))
    change(monkeypatch, tmp_path, ADDS)
    run = compute(NEXT, released)
    assert run.facts["snapshot_days"] == [*(str(day) for day in DAYS), str(NEXT)]
    assert run.gates["features_history"].verdict == "passed"
    assert run.gates["features_history"].extra["new_columns"] == ["share_30d"]
    assert run.gates[hindsight.GATE].verdict == "passed"
    assert run.gates[hindsight.GATE].extra["rows"] > 0
    shown = {"verdict", "expectations", "failed", "report"}
    assert all(shown <= set(gate.as_dict()) for gate in run.gates.values()), "what the report's page reads of a gate"
    assert run.gates["features_history"].extra["told"] == f"17 columns of {len(before)} released rows came out the same"
    pd.testing.assert_frame_equal(rows(released.version(job.TABLE)), before)  # the released version is as it was
    after = rows(run.wrote[job.TABLE])
    old = after[after["snapshot_date"] <= RELEASED].reset_index(drop=True)
    kept = [name for name in before.columns if name not in history.BOOKKEEPING]
    pd.testing.assert_frame_equal(old[kept], before[kept])
    expected = (old["orders_30d"] / old["orders_90d"].replace(0, float("nan"))).astype("float32")
    pd.testing.assert_series_equal(old["share_30d"], expected, check_names=False)
    assert after["share_30d"].notna().groupby(after["snapshot_date"]).any().all(), "no day is without it"


def test_going_back_to_the_released_definition_goes_on_from_the_released_version(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        change(patch, tmp_path, ADDS)
        compute(NEXT, released)
    run = compute(NEXT, released)
    after = rows(run.wrote[job.TABLE])
    assert "share_30d" not in after.columns
    assert sorted(set(after["snapshot_date"])) == [*DAYS, NEXT]


def test_a_change_that_should_only_add_but_moves_other_rows_is_a_failed_gate(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    change(monkeypatch, tmp_path, REPEATS)
    run = run_of(NEXT, released)
    with pytest.raises(GateFailed, match=r"only adds columns \(share_30d\).* \d+ rows added") as raised:
        job.compute(run)
    assert (raised.value.exit_code, raised.value.sets_aside) == (3, False)
    assert (run.wrote, run.gates["features_history"].verdict) == ({}, "failed")
    evidence = json.loads((home / "evidence" / f"churn-{NEXT}" / "features_history.json").read_text())
    assert evidence["verdict"] == "failed"


def test_a_feature_that_knows_the_future_is_not_published(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    change(monkeypatch, tmp_path, LEAKS)
    run = run_of(NEXT, released)
    told = (
        r"know the future, on 1998.*: gone in [\d,]+ of [\d,]+ rows, such as customer \d+ on 1998-\S+: 0, and 1 by what"
    )
    with pytest.raises(GateFailed, match=told) as raised:
        job.compute(run)
    assert (raised.value.exit_code, raised.value.sets_aside) == (3, False)
    assert run.wrote == {}
    assert run.gates["features_history"].verdict == "passed", "the columns that were there did not move"
    assert run.gates[hindsight.GATE].verdict == "failed"
    assert list(run.gates[hindsight.GATE].extra["differing"]) == ["gone"]
    assert run.gates[hindsight.GATE].failed == (run.gates[hindsight.GATE].extra["told"],)
    evidence = json.loads((home / "evidence" / f"churn-{NEXT}" / "features_knowable.json").read_text())
    assert evidence["days"] == [str(day) for day in hindsight.days_to_judge([*DAYS, NEXT])]


def test_the_days_to_judge_have_later_ones_behind_them() -> None:
    assert hindsight.days_to_judge([FIRST]) == []
    assert hindsight.days_to_judge(DAYS[:2]) == [FIRST]
    year = [FIRST + timedelta(weeks=n) for n in range(41)]
    assert hindsight.days_to_judge(year) == [year[10], year[20], year[30]]


def test_a_changed_expression_is_announced_with_the_rows_that_it_moved(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = rows(released.version(job.TABLE))
    change(monkeypatch, tmp_path, CHANGES)
    run = compute(NEXT, released)
    after = rows(run.wrote[job.TABLE])
    moved = int(
        (after[after["snapshot_date"] <= RELEASED]["orders_7d"].reset_index(drop=True) != before["orders_7d"]).sum()
    )
    assert moved > 0
    assert run.gates["features_history"].verdict == "passed"
    assert run.gates["features_history"].extra["differing"] == {"orders_7d": moved}


def test_a_column_that_feast_serves_cannot_go(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(monkeypatch, tmp_path, SQL.replace("    CAST(orders_7d AS INT) AS orders_7d,\n", ""))
    head = lake.version(job.TABLE)
    with pytest.raises(job.FeatureError, match=r"names orders_7d, which customers.sql does not give"):
        job.compute(run_of(NEXT, released))
    assert lake.version(job.TABLE) == head


def test_what_only_adds() -> None:
    assert history.only_adds(SQL, ADDS)
    assert history.only_adds(SQL, REPEATS), "a join more is an addition; whether it moved rows is for the comparison"
    assert not history.only_adds(SQL, CHANGES)
    assert not history.only_adds(ADDS, SQL), "a column less"
    assert not history.only_adds(SQL, SQL.replace("o.known_at < s.event_time", "o.known_at <= s.event_time"))
    assert not history.only_adds(None, SQL), "nobody knows what it was"


@pytest.mark.parametrize(
    ("condition", "carries"),
    [
        ("order_date > date_sub(snapshot_date, 365)", True),
        ("order_date > snapshot_date - INTERVAL 365 DAYS", False),
        ("datediff(snapshot_date, order_date) < 365", False),
        ("order_date > add_months(snapshot_date, -12)", False),
    ],
)
def test_a_window_longer_than_the_others_is_right_on_its_second_day_or_stopped(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, condition: str, carries: bool
) -> None:
    """The job reads as far back as the longest date_sub(); a window in another form is seen by what it comes to."""
    sql = SQL.replace(
        "        count_if(order_date > date_sub(snapshot_date, 7)) AS orders_7d,",
        f"        count_if({condition}) AS orders_year,\n"
        "        count_if(order_date > date_sub(snapshot_date, 7)) AS orders_7d,",
    ).replace(
        "coalesce(n.orders_7d, 0) AS orders_7d,",
        "coalesce(n.orders_year, 0) AS orders_year, coalesce(n.orders_7d, 0) AS orders_7d,",
    )
    sql = sql.replace(
        "    CAST(orders_7d AS INT) AS orders_7d,",
        "    CAST(orders_year AS INT) AS orders_year, CAST(orders_7d AS INT) AS orders_7d,",
    )
    for days in (30, 90):  # the shop of this test is younger than 90 days
        sql = sql.replace(f"date_sub(snapshot_date, {days})", "date_sub(snapshot_date, 3)")
    sql = sql.replace("r.returned_on > date_sub(s.snapshot_date, 90)", "datediff(s.snapshot_date, r.returned_on) < 90")
    change(monkeypatch, tmp_path, sql)
    tables = compute(NEXT, released).wrote
    second = Release(2, "churn", NEXT, 1, tables, {}, "code", "lock", "test", "now")
    if carries:
        assert compute(NEXT + timedelta(days=1), second).gates[carried.GATE].passed
        return
    with pytest.raises(GateFailed, match=r"orders_year in \d+ of \d+ rows, such as customer \d+ on 1998") as error:
        compute(NEXT + timedelta(days=1), second)
    assert "customers.sql reads orders of the last 7 days: the longest `date_sub(snapshot_date, …)`" in str(error.value)


def test_a_total_that_drifted_is_seen_against_raw_and_against_all_orders(
    released: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released snapshot is not what the orders come to: as a mistake of an earlier day would have left it."""
    session = spark.session()
    session.sql(f"UPDATE delta.`{lake.uri(job.TABLE)}` SET orders_total = orders_total + 1 WHERE customer_id = 7")
    drifted = dataclasses.replace(released, tables={job.TABLE: lake.version(job.TABLE)})
    monkeypatch.setattr(history, "recorded", lambda _: history.definition(SQL))
    with pytest.raises(GateFailed, match=r"does not hold what all orders come to") as error:
        compute(NEXT, drifted)
    assert re.search(
        r"orders_total in 1 of 25 rows, such as customer 7 on 1998-01-16: \d+ carried on, and \d+ by all",
        str(error.value),
    )
    assert re.search(
        r"orders_total in 1 of 25 rows, such as customer 7: \d+ carried on, and \d+ by raw.orders", str(error.value)
    )


def test_a_return_that_the_marts_have_otherwise_than_raw_is_seen(released: Release) -> None:
    session = spark.session()
    session.sql(f"UPDATE delta.`{lake.uri(job.READS['returns'])}` SET cents = 701 WHERE cents = 700")
    head = {job.READS["returns"]: lake.version(job.READS["returns"])}
    run = run_of(NEXT, released)
    run.candidate.tables.update(head)
    with pytest.raises(GateFailed, match=r"returned_cents_90d in 1 of 25 rows, .*: 701 .*, and 700 by raw.orders and"):
        job.compute(run)


def test_a_feature_of_the_wall_clock_or_of_a_table_without_a_day_is_refused_before_anything_is_computed(
    released: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = r"reads the wall clock \('today'\), analytics.orders, which no placeholder gives at a version and a day"
    age = "    CAST(datediff('today', signed_up_on) AS INT) AS age_days,\n"
    every = "    CAST((SELECT count(*) FROM analytics.orders) AS INT) AS all_orders,\n"
    change(monkeypatch, tmp_path, SQL.replace(LAST_COLUMN, age + every + LAST_COLUMN))
    with pytest.raises(GateFailed, match=rf"{told}: a snapshot would say something else"):
        compute(NEXT, released)
    assert lake.version(job.TABLE) == released.version(job.TABLE)
